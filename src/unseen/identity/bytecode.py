"""What a function's bytecode reads: globals with the attributes taken from them, names of
attributes, imports.
"""

import dis
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_CELLS = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"}


@dataclass(frozen=True)
class Reads:
    """Of one function, with the functions inside it."""

    chains: tuple[tuple[str, ...], ...]
    """Globals, each with the attributes that follow: `np.random.rand` is ("np", "random",
    "rand").
    """
    cells: tuple[tuple[str, ...], ...]
    """The same for variables of the enclosing function."""
    names: frozenset[str]
    """Attributes of whatever object, and texts that could name one."""
    imports: tuple[tuple[str, int, tuple[str, ...]], ...]
    """Modules imported inside, with their level and the names taken from them."""


_known: weakref.WeakKeyDictionary[CodeType, Reads] = weakref.WeakKeyDictionary()


def reads(code: CodeType) -> Reads:
    """What the code, and the code inside it, reads."""
    if code not in _known:
        _known[code] = _read(code)
    return _known[code]


def _read(code: CodeType) -> Reads:
    chains: dict[tuple[str, ...], None] = {}
    cells: dict[tuple[str, ...], None] = {}
    names: set[str] = set()
    imports: list[tuple[str, int, tuple[str, ...]]] = []
    for inner in _codes(code):
        names |= {text for text in inner.co_consts if isinstance(text, str) and text.isidentifier()}
        instructions = list(dis.get_instructions(inner))
        for k, one in enumerate(instructions):
            if one.opname in _GLOBALS or one.opname in _CELLS:
                chain = [str(one.argval)]
                for later in instructions[k + 1 :]:
                    if later.opname not in _ATTRIBUTES:
                        break
                    chain.append(str(later.argval))
                (chains if one.opname in _GLOBALS else cells)[tuple(chain)] = None
            elif one.opname in _ATTRIBUTES or one.opname == "STORE_ATTR":
                names.add(str(one.argval))
            elif one.opname == "IMPORT_NAME":
                taken = []
                for later in instructions[k + 1 :]:
                    if later.opname == "IMPORT_FROM":
                        taken.append(str(later.argval))
                    elif not later.opname.startswith("STORE_"):
                        break
                level = instructions[k - 2].argval  # pushed before the list of names
                imports.append(
                    (str(one.argval), level if isinstance(level, int) else 0, tuple(taken))
                )
    names |= {name for chain in (*chains, *cells) for name in chain[1:]}
    return Reads(tuple(chains), tuple(cells), frozenset(names), tuple(imports))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
