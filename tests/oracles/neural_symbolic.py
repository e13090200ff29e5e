"""Trees by precedence, and the programs that a person would write, for SCAN, PCFG SET and HINT."""

SCAN_STRENGTH = {
    **dict.fromkeys(("and", "after"), 1),
    **dict.fromkeys(("twice", "thrice"), 2),
    **dict.fromkeys(("opposite", "around"), 3),
    **dict.fromkeys(("left", "right"), 4),
}
SCAN_ARITY = {
    **dict.fromkeys(("walk", "look", "run", "jump", "turn"), 0),
    **dict.fromkeys(("left", "right", "opposite", "around", "twice", "thrice"), 1),
    **dict.fromkeys(("and", "after"), 2),
}
SCAN_PROGRAMS = {
    **{v: (lambda v=v: (f"I_{v.upper()}",)) for v in ("walk", "look", "run", "jump")},
    "turn": lambda: (),
    "left": lambda x: ("I_TURN_LEFT", *x),
    "right": lambda x: ("I_TURN_RIGHT", *x),
    "opposite": lambda x: x[:1] + x,
    "around": lambda x: x * 4,
    "twice": lambda x: x * 2,
    "thrice": lambda x: x * 3,
    "and": lambda x, y: x + y,
    "after": lambda x, y: y + x,
}


def scan_heads(words):
    """Heads of a reordered command: the last of the weakest words is the root, equals go from the
    left.
    """
    heads = [-1] * len(words)

    def attach(start, end, head):
        inside = [k for k in range(start, end) if words[k] in SCAN_STRENGTH]
        if not inside:
            assert end - start == 1
            heads[start] = head
            return
        root = min(inside, key=lambda k: (SCAN_STRENGTH[words[k]], -k))
        heads[root] = head
        attach(start, root, root)
        if root + 1 < end:
            attach(root + 1, end, root)

    attach(0, len(words), -1)
    return tuple(heads)


def prefix_heads(symbols, arity):
    """Heads of a prefix notation in which every symbol stands before its children."""
    heads = [-1] * len(symbols)

    def read(k, head):
        heads[k], end = head, k + 1
        for _ in range(arity[symbols[k]]):
            end = read(end, k)
        return end

    assert read(0, -1) == len(symbols)
    return tuple(heads)


def arithmetic_heads(symbols):
    """Heads of an expression: below an opening bracket are what is inside and the closing one."""
    strength = {"+": 1, "-": 1, "*": 2, "/": 2}
    heads = [-1] * len(symbols)

    def attach(start, end, head):
        depth, found = 0, []
        for k in range(start, end):
            depth += (symbols[k] == "(") - (symbols[k] == ")")
            if depth == 0 and symbols[k] in strength:
                found.append(k)
        if found:
            root = min(found, key=lambda k: (strength[symbols[k]], -k))
            attach(start, root, root)
            attach(root + 1, end, root)
            heads[root] = head
        elif symbols[start] == "(":
            heads[start], heads[end - 1] = head, start
            attach(start + 1, end - 1, start)
        else:
            heads[start] = head

    attach(0, len(symbols), -1)
    return tuple(heads)


def value(symbols, heads, programs):
    """Evaluates by recursion."""

    below = [[] for _ in heads]
    for node, head in enumerate(heads):
        if head >= 0:
            below[head].append(node)

    def of(node):
        return programs[symbols[node]](*map(of, below[node]))

    return of(heads.index(-1))
