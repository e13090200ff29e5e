"""Statements as tokens: what of them can change a number, independent of where their module lies.

A fragment is a statement without comments, docstrings, annotations, the words of errors and the
layout. Names that are not local stay references, for `definitions.py` to resolve; local names stay
as they are.
"""

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

_DYNAMIC = {"globals", "eval", "exec", "__import__"}
_MARKERS = {"ClassVar", "InitVar", "KW_ONLY"}
"""Annotations of dataclass fields that are more than a type."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


@dataclass(frozen=True)
class Import:
    """What an import statement binds: a module (`name` empty), or what a module calls `name`."""

    module: str
    level: int = 0
    name: str = ""
    is_prefix: bool = False
    """`import a.b` binds `a`, and `a.b.f` is looked up in the longest module that the attributes
    name.
    """


@dataclass(frozen=True)
class Reference:
    """A name that is not local, with the attributes asked of it; `found` if a local import binds
    it.
    """

    chain: tuple[str, ...]
    found: Import | None = None
    is_silent: bool = False
    """Reached, but written by other tokens already."""


@dataclass(frozen=True)
class Arguments:
    """Arguments of a call: they do not count where what is called is a kind of error."""

    called: Reference
    tokens: "tuple[Token, ...]"


@dataclass(frozen=True)
class Text:
    """A string constant: it counts as text, and may name a definition or a data file."""

    value: str


@dataclass(frozen=True)
class DynamicLookup:
    """A look-up at run time: of this module (`prefix` empty), or of every module whose name starts
    so.
    """

    prefix: str = ""


Token = str | Reference | Arguments | Text | DynamicLookup
Fragment = tuple[Token, ...]


def is_text(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and (isinstance(value.value, str) or value.value is ...)


def is_for_others(test: ast.expr) -> bool:
    name = (
        test.attr
        if isinstance(test, ast.Attribute)
        else test.id
        if isinstance(test, ast.Name)
        else ""
    )
    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Name):
        return test.left.id == "__name__"
    return name == "TYPE_CHECKING"


def imports_in(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
    """Each name that the statement binds, with what it stands for."""
    if isinstance(statement, ast.Import):
        for alias in statement.names:
            if alias.asname:
                yield alias.asname, Import(alias.name)
            else:
                yield alias.name.split(".")[0], Import(alias.name, is_prefix=True)
    else:
        for alias in statement.names:
            yield (
                alias.asname or alias.name,
                Import(statement.module or "", statement.level, alias.name),
            )


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_OTHER_SCOPES = frozenset({*DEFINITIONS, ast.Lambda, *_COMPREHENSIONS})


def walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what lies in the same scope below it: not inside functions, classes or
    comprehensions. From the top down, in the order of the source.
    """
    yield node
    # a stack, and not a generator per level: every name of every function is looked at
    waiting = _children(node)
    while waiting:
        inner = waiting.pop()
        yield inner
        if type(inner) in _OTHER_SCOPES:
            yield from _walrus(inner)
        else:
            waiting += _children(inner)


def _children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below this one, the last first."""
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            found.append(value)
        elif isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST)]
    found.reverse()
    return found


def _walrus(node: ast.AST) -> Iterator[ast.AST]:
    """`:=` within a comprehension binds outside of it."""
    if isinstance(node, _COMPREHENSIONS):
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                yield inner.target


def attribute_chain(node: ast.AST) -> tuple[str, ...]:
    """`a.b.c` as ("a", "b", "c"); empty for other expressions."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def methods_of(statement: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [s for s in statement.body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)]


_WRITTEN: dict[tuple[int, int], tuple[ast.AST, Fragment]] = {}


def tokens_of(node: ast.AST) -> Fragment:
    """The tokens of a statement or expression of the top level; of a class those of its methods are
    left out.
    """
    return _memoize(node, node, lambda: _Writer().top(node))


def method_tokens(home: ast.ClassDef, method: ast.stmt) -> Fragment:
    return _memoize(method, home, lambda: _Writer([_class_scope(home)]).top(method))


def _memoize(node: ast.AST, home: ast.AST, write: Callable[[], Fragment]) -> Fragment:
    place = (id(node), id(home))
    if place not in _WRITTEN:  # the node is kept beside, so that its id is not given again
        _WRITTEN[place] = (node, write())
    return _WRITTEN[place][1]


@dataclass
class _Scope:
    names: set[str]
    imports: dict[str, Import]
    is_class: bool = False


def _scope_of(body: Iterable[ast.AST]) -> _Scope:
    """What the statements of a function or class bind in its own scope."""
    found, elsewhere, imports = set[str](), set[str](), dict[str, Import]()
    for statement in body:
        for node in walk_scope(statement):
            if isinstance(node, ast.Name):
                if not isinstance(node.ctx, ast.Load):
                    found.add(node.id)
            elif isinstance(node, (*DEFINITIONS, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
                found.add(node.name or "")  # a handler without `as`, a pattern `_`
            elif isinstance(node, ast.MatchMapping) and node.rest:
                found.add(node.rest)
            elif isinstance(node, ast.Global):
                elsewhere |= set(node.names)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                imports |= dict(imports_in(node))
    return _Scope(found - elsewhere, imports)


@cache
def _class_scope(node: ast.ClassDef) -> _Scope:
    """The scope of a class, in which each of its methods is written; its imports are looked up as
    any other name.
    """
    return _Scope(_scope_of(node.body).names, {}, is_class=True)


class _Writer:
    """Writes nodes as tokens; knows which names are local."""

    def __init__(self, scopes: list[_Scope] | None = None) -> None:
        self.scopes = scopes or []
        self.tokens: list[Token] = []

    def top(self, node: ast.AST) -> Fragment:
        if isinstance(node, ast.ClassDef):
            self.classes(node, with_methods=False)
        else:
            self.write(node)
        return _merge_strings(self.tokens)

    # names

    def is_local(self, name: str) -> bool:
        inner = len(self.scopes) - 1
        return any(
            name in scope.names and not (scope.is_class and place != inner)
            for place, scope in enumerate(self.scopes)
        )

    def local_import(self, name: str) -> Import | None:
        return next(
            (scope.imports[name] for scope in reversed(self.scopes) if name in scope.imports), None
        )

    def reference(self, node: ast.AST) -> Reference | None:
        chain = attribute_chain(node)
        if not chain:
            return None
        found = self.local_import(chain[0])
        return None if found is None and self.is_local(chain[0]) else Reference(chain, found)

    # nodes

    def write(self, node: object) -> None:
        if isinstance(node, ast.AST):
            handler = getattr(self, type(node).__name__, None)
            (handler or self.generic)(node)
        elif isinstance(node, list):
            self.tokens.append("[")
            for item in node:
                self.write(item)
            self.tokens.append("]")
        elif isinstance(node, str):
            self.tokens.append(f"{node} ")
        else:
            self.tokens.append(f"{type(node).__name__} {node!r} ")

    def generic(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt) and (is_text(node) or isinstance(node, ast.Pass)):
            return
        self.tokens.append(f"({type(node).__name__} ")
        for name in node._fields:
            value = getattr(node, name, None)
            # absent and empty fields are left out: later versions of Python add fields
            if value is None or value == [] or name in ("ctx", "type_comment", "kind"):
                continue
            self.tokens.append(f"{name}=")
            self.write(value)
        self.tokens.append(")")

    def Name(self, node: ast.Name) -> None:
        found = self.reference(node)
        if found is None:
            self.tokens.append(f"local {node.id} ")
            return
        self.tokens.append(found)
        if found.found is None and node.id in _DYNAMIC:
            self.tokens.append(DynamicLookup())

    def Attribute(self, node: ast.Attribute) -> None:
        found = self.reference(node)
        if found is None:
            self.tokens.append("(Attribute ")
            self.write(node.value)
            self.tokens.append(f"{node.attr})")
            return
        self.tokens.append(found)
        if found.chain[-1] == "modules" and found.chain[0] == "sys":
            self.tokens.append(DynamicLookup())

    def Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.tokens.append(Text(node.value))
        else:
            self.tokens.append(f"{type(node.value).__name__} {node.value!r} ")

    def Call(self, node: ast.Call) -> None:
        self.tokens.append("(Call ")
        self.write(node.func)
        inner, self.tokens = self.tokens, []
        for argument in (*node.args, *node.keywords):
            self.write(argument)
        arguments, self.tokens = self.tokens, inner
        called = self.reference(node.func)
        if called is None:
            self.tokens += arguments
        else:
            self.tokens.append(Arguments(called, _merge_strings(arguments)))
            self._add_lookup(called.chain[-1], node)
        self.tokens.append(")")

    def _add_lookup(self, function: str, node: ast.Call) -> None:
        if function == "getattr" and len(node.args) > 1 and (base := self.reference(node.args[0])):
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                self.tokens.append(Reference((*base.chain, name.value), base.found, is_silent=True))
        if function in ("import_module", "find_spec"):
            self.tokens.append(DynamicLookup())
            start = node.args[0] if node.args else None
            if isinstance(start, ast.JoinedStr):
                start = start.values[0]
            if isinstance(start, ast.Constant) and isinstance(start.value, str):
                self.tokens.append(DynamicLookup(start.value))

    def Raise(self, node: ast.Raise) -> None:
        self.tokens.append("(Raise ")
        if node.exc is not None:
            self.write(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        if node.cause is not None:
            self.tokens.append("from ")
            self.write(node.cause)
        self.tokens.append(")")

    def Assert(self, node: ast.Assert) -> None:
        self.tokens.append("(Assert ")
        self.write(node.test)
        self.tokens.append(")")

    def If(self, node: ast.If) -> None:
        if is_for_others(node.test) and not isinstance(node.test, ast.Compare):
            for statement in node.orelse:
                self.write(statement)
        else:
            self.generic(node)

    def AnnAssign(self, node: ast.AnnAssign) -> None:
        if (
            self.scopes and self.scopes[-1].is_class
        ):  # a field: without its annotation it would be none
            self.tokens.append("(Field ")
            self.write(node.target)
            words = {n.id for n in ast.walk(node.annotation) if isinstance(n, ast.Name)}
            words |= {n.attr for n in ast.walk(node.annotation) if isinstance(n, ast.Attribute)}
            texts = [n.value for n in ast.walk(node.annotation) if isinstance(n, ast.Constant)]
            words |= {
                word for text in texts if isinstance(text, str) for word in _MARKERS if word in text
            }
            self.tokens.append(" ".join(sorted(words & _MARKERS)) + " ")
            if node.value is not None:
                self.write(node.value)
            self.tokens.append(")")
        elif node.value is not None:
            self.generic(ast.Assign(targets=[node.target], value=node.value))

    def Import(self, node: ast.Import) -> None:
        """Written where the names are used."""

    def ImportFrom(self, node: ast.ImportFrom) -> None:
        """Written where the names are used."""

    # scopes

    def FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.tokens.append(f"({type(node).__name__} {node.name} ")
        self.write(node.decorator_list)
        arguments = [*node.args.posonlyargs, *node.args.args]
        registers = any(
            (attribute_chain(d) or ("",))[-1] == "register" for d in node.decorator_list
        )
        if registers and arguments and arguments[0].annotation is not None:
            self.write(arguments[0].annotation)  # the annotation says for which type
        self.function(node.args, node.body)
        self.tokens.append(")")

    AsyncFunctionDef = FunctionDef

    def Lambda(self, node: ast.Lambda) -> None:
        self.tokens.append("(Lambda ")
        self.function(node.args, [node.body])
        self.tokens.append(")")

    def function(self, args: ast.arguments, body: list[ast.stmt] | list[ast.expr]) -> None:
        given = [
            *args.posonlyargs,
            *args.args,
            *args.kwonlyargs,
            *filter(None, (args.vararg, args.kwarg)),
        ]
        self.tokens.append(
            f"{[a.arg for a in args.posonlyargs]}{[a.arg for a in args.args]}"
            f"{[a.arg for a in args.kwonlyargs]}"
            f"{args.vararg and args.vararg.arg}{args.kwarg and args.kwarg.arg} "
        )
        self.write(args.defaults)
        for default in args.kw_defaults:
            self.write("required" if default is None else default)
        scope = _scope_of(body)
        self.scopes.append(_Scope({a.arg for a in given} | scope.names, scope.imports))
        for statement in body:
            self.write(statement)
        self.scopes.pop()

    def ClassDef(self, node: ast.ClassDef) -> None:
        self.classes(node, with_methods=True)

    def classes(self, node: ast.ClassDef, *, with_methods: bool) -> None:
        self.tokens.append(f"(ClassDef {node.name} ")
        self.write(node.decorator_list)
        self.write(node.bases)
        self.write(node.keywords)
        self.scopes.append(_class_scope(node))
        methods = methods_of(node)
        for statement in node.body:
            if with_methods or statement not in methods:
                self.write(statement)
        self.scopes.pop()
        self.tokens.append(")")

    def comprehension_scope(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> None:
        targets = {
            inner.id
            for generator in node.generators
            for inner in ast.walk(generator.target)
            if isinstance(inner, ast.Name)
        }
        self.tokens.append(f"({type(node).__name__} ")
        self.write(node.generators[0].iter)  # read outside
        self.scopes.append(_Scope(targets, {}))
        for place, generator in enumerate(node.generators):
            self.write(generator.target)
            if place:
                self.write(generator.iter)
            self.write(generator.ifs)
            self.tokens.append(f"{generator.is_async} ")
        for value in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.write(value)
        self.scopes.pop()
        self.tokens.append(")")

    ListComp = SetComp = GeneratorExp = DictComp = comprehension_scope


def _merge_strings(tokens: list[Token]) -> Fragment:
    """Neighbouring strings as one."""
    found: list[Token] = []
    for token in tokens:
        if isinstance(token, str) and found and isinstance(found[-1], str):
            found[-1] += token
        else:
            found.append(token)
    return tuple(found)
