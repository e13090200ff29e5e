"""Definitions of Python sources, and what each of them reaches: read with `ast`, nothing is
imported.

A definition is what a module binds to a name at its top level: a function, a class, a constant. Its
text is written without what cannot change a number: comments, docstrings, annotations, the words of
errors, the layout. A name that another module defines is written as that definition's name, and one
of another package with its full path; so modules can be renamed and imports rewritten, and the text
stays. Local names stay as they are.

    Fragment   a statement as tokens, independent of where its module lies
    Module     the names, loose statements, registrations and imports of one source
    Node       a definition: file and name
    Sources    finds modules, resolves names across them, and walks
"""

import ast
import builtins
import hashlib
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from unseen.errors import InvalidConfig
from unseen.runs.catalog import source

LOOSE = "<statements>"
"""Stands for the statements of a module that bind no name: whoever imports the module runs them."""
WHOLE = "*"
"""Stands for everything in a module: asked for by name at run time."""
ENTRY = "<run>"
"""Stands for the expression that a study gives as `run`."""

_DYNAMIC = {"globals", "eval", "exec", "__import__"}
_MARKERS = {"ClassVar", "InitVar", "KW_ONLY"}
"""Annotations of dataclass fields that are more than a type."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)


class Node(NamedTuple):
    """A definition: in which file, under which name."""

    file: Path
    name: str


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


@dataclass(frozen=True)
class Module:
    """One source: what its names stand for."""

    statements: Mapping[str, tuple[ast.stmt, ...]]
    """Of every name that it defines, the statements that do so."""
    imports: Mapping[str, Import]
    stars: tuple[Import, ...]
    loaded: tuple[Import, ...]
    """Every import in it, also within functions."""
    loose: tuple[ast.stmt, ...]
    registrations: tuple[tuple[Reference, ast.stmt], ...]
    """Definitions whose decorator hands them to another definition: `@forms.register`."""
    entry: ast.expr | None
    """The expression that `study = Study(…, run=…)` names."""

    def parts(self, name: str) -> dict[str, tuple[Fragment, ...]]:
        """The fragments of a definition: of a class its methods apart, under their names."""
        found: dict[str, list[Fragment]] = {"": []}
        for statement in self.statements.get(name, ()):
            if isinstance(statement, ast.ClassDef):
                found[""].append(_tokens_of(statement))
                for method in _methods(statement):
                    found.setdefault(method.name, []).append(_method(statement, method))
            else:
                found[""].append(_tokens_of(statement))
        return {part: tuple(fragments) for part, fragments in found.items()}


@cache
def parse_module(data: bytes) -> Module:
    """The module of a source, read once per content."""
    tree = ast.parse(data)
    statements: dict[str, list[ast.stmt]] = {}
    imports: dict[str, Import] = {}
    stars: list[Import] = []
    loose: list[ast.stmt] = []
    registrations: list[tuple[Reference, ast.stmt]] = []
    for statement in _plain(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, target in _imports(statement):
                if name == "*":
                    stars.append(target)
                else:
                    imports[name] = target
            continue
        names = list(dict.fromkeys(_bound(statement)))
        for name in names:
            statements.setdefault(name, []).append(statement)
        is_definition = isinstance(
            statement, (*_DEFINITIONS, ast.Assign, ast.AnnAssign, ast.AugAssign)
        )
        if not (names and is_definition):
            loose.append(statement)
            for inner in ast.walk(statement):  # try: import fast as module; except ImportError: …
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    imports |= {name: target for name, target in _imports(inner) if name != "*"}
        if isinstance(statement, _DEFINITIONS):
            registrations += [
                (Reference(chain), statement)
                for decorator in statement.decorator_list
                if (chain := _registrar(decorator))
            ]
    loaded = [
        target
        for statement in _plain(ast.walk(tree))
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for _, target in _imports(statement)
    ]
    return Module(
        {name: tuple(found) for name, found in statements.items()},
        imports,
        tuple(stars),
        tuple(dict.fromkeys(loaded)),
        tuple(loose),
        tuple(registrations),
        _entry(tree),
    )


def _plain(nodes: "Iterable[ast.AST]") -> Iterator[ast.stmt]:
    """Statements that run on import: no docstrings, nothing for type checkers or for a script."""
    for node in nodes:
        if not isinstance(node, ast.stmt) or _is_text(node):
            continue
        if isinstance(node, ast.If) and _is_for_others(node.test):
            yield from _plain(node.orelse)
        else:
            yield node


def _is_text(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and (isinstance(value.value, str) or value.value is ...)


def _is_for_others(test: ast.expr) -> bool:
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


def _imports(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Import]]:
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


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines, also within branches."""
    if isinstance(statement, _DEFINITIONS):
        yield statement.name
        return
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return
    for node in _same_scope(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, _DEFINITIONS):
            yield node.name


def _same_scope(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what lies in the same scope below it: not inside functions, classes or
    comprehensions.
    """
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*_DEFINITIONS, ast.Lambda, *_COMPREHENSIONS)):
            yield child
            yield from _walrus(child)
        else:
            yield from _same_scope(child)


_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _walrus(node: ast.AST) -> Iterator[ast.AST]:
    """`:=` within a comprehension binds outside of it."""
    if isinstance(node, _COMPREHENSIONS):
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                yield inner.target


def _registrar(decorator: ast.expr) -> tuple[str, ...]:
    """To what a decorator hands its function: `forms` of `@forms.register(nn.Conv1d)`; empty for
    other decorators.
    """
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    chain = _chain(called)
    if len(chain) > 1:
        return chain[:-1]
    return chain if chain and "register" in chain[0] else ()


def _chain(node: ast.AST) -> tuple[str, ...]:
    """`a.b.c` as ("a", "b", "c"); empty for other expressions."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def _entry(tree: ast.Module) -> ast.expr | None:
    for statement in tree.body:
        call = getattr(statement, "value", None)
        if (
            isinstance(statement, ast.Assign | ast.AnnAssign)
            and isinstance(call, ast.Call)
            and "study" in _bound(statement)
        ):
            return next((keyword.value for keyword in call.keywords if keyword.arg == "run"), None)
    return None


def _methods(statement: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [s for s in statement.body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)]


_WRITTEN: dict[tuple[int, int], tuple[ast.AST, Fragment]] = {}


def _tokens_of(node: ast.AST) -> Fragment:
    """The tokens of a statement or expression of the top level; of a class those of its methods are
    left out.
    """
    return _memoize(node, node, lambda: _Writer().top(node))


def _method(home: ast.ClassDef, method: ast.stmt) -> Fragment:
    return _memoize(
        method, home, lambda: _Writer([_Scope(_names_in(home.body), {}, is_class=True)]).top(method)
    )


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


def _names_in(body: Iterable[ast.AST]) -> set[str]:
    """What the statements of a function or class bind in its own scope."""
    found, elsewhere = set[str](), set[str]()
    for statement in body:
        for node in _same_scope(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
                found.add(node.id)
            elif isinstance(node, (*_DEFINITIONS, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
                found.add(node.name or "")  # a handler without `as`, a pattern `_`
            elif isinstance(node, ast.MatchMapping) and node.rest:
                found.add(node.rest)
            elif isinstance(node, ast.Global):
                elsewhere |= set(node.names)
    return found - elsewhere


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
        chain = _chain(node)
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
        if isinstance(node, ast.stmt) and (_is_text(node) or isinstance(node, ast.Pass)):
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
        if _is_for_others(node.test) and not isinstance(node.test, ast.Compare):
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
        registers = any((_chain(d) or ("",))[-1] == "register" for d in node.decorator_list)
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
        imports = {
            name: target
            for statement in body
            for node in _same_scope(statement)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name, target in _imports(node)
        }
        self.scopes.append(_Scope({a.arg for a in given} | _names_in(body), imports))
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
        self.scopes.append(_Scope(_names_in(node.body), {}, is_class=True))
        methods = _methods(node)
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


@dataclass(frozen=True)
class Definition:
    """A definition as far as it counts: a digest per part (of a class per method) and what it
    reaches.
    """

    label: str
    digests: Mapping[str, str]
    reaches: tuple[Node, ...]
    texts: frozenset[str]
    is_function: bool = False

    @property
    def digest(self) -> str:
        return digest("\n".join(f"{part} {value}" for part, value in sorted(self.digests.items())))


@dataclass
class Sources:
    """Sources as they are when first read; one object reads every file once."""

    read: Callable[[Path], bytes] = Path.read_bytes
    boundaries: frozenset[str] = frozenset({"data_file"})
    """Definitions of Unseen whose inside does not count: what a data file holds is settled by its
    checksum.
    """
    _modules: dict[Path, Module] = field(default_factory=dict)
    _located: dict[tuple[str, Path], Path | None] = field(default_factory=dict)
    _resolved: dict[tuple[Path, Reference], tuple[str, tuple[Node, ...]]] = field(
        default_factory=dict
    )
    _definitions: dict[Node, Definition] = field(default_factory=dict)
    _errors: dict[Node, bool] = field(default_factory=dict)
    _loaded: dict[Path, tuple[Path, ...]] = field(default_factory=dict)

    def with_text(self, file: Path, data: bytes) -> "Sources":
        """The same sources with another text for one file: everything else that is known is kept
        where it can be.
        """
        before, now = self.module(file), parse_module(data)
        new = Sources(lambda path: data if path == file else self.read(path), self.boundaries)
        new._modules = {**self._modules, file: now}
        new._located = self._located
        if (set(before.statements), before.imports, before.stars) == (
            set(now.statements),
            now.imports,
            now.stars,
        ):
            new._resolved = dict(self._resolved)
            new._definitions = {
                node: found for node, found in self._definitions.items() if node.file != file
            }
        if before.loaded == now.loaded:
            new._loaded = dict(self._loaded)
        return new

    def module(self, file: Path) -> Module:
        if file not in self._modules:
            self._modules[file] = parse_module(self.read(file))
        return self._modules[file]

    def locate(self, name: str, near: Path) -> Path | None:
        """The file of a module that counts as ours when `near` imports it: of Unseen, of the same
        package, beside it.
        """
        place = (name, near.parent)
        if place not in self._located:
            self._located[place] = self._locate(name, near) if name else None
        return self._located[place]

    def _locate(self, name: str, near: Path) -> Path | None:
        root, top = _root(near), name.split(".")[0]
        if top == _top(near, root) or not is_installed(root):
            beside = next(_files_of(root.joinpath(*name.split("."))), None)
            if beside is not None:
                return beside
        if top != "unseen" and _top(near, root) == "unseen":
            return None
        file = source(name)
        return (
            file
            if file is not None and (top == "unseen" or not is_installed(file.parent))
            else None
        )

    def target(self, what: Import, near: Path) -> Path | None:
        """The file of the module that an import names."""
        if not what.level:
            return self.locate(what.module, near)
        folder = near.parents[what.level - 1]
        base = folder.joinpath(*what.module.split(".")) if what.module else folder
        return next(_files_of(base), None)

    def resolve(self, file: Path, what: Reference) -> tuple[str, tuple[Node, ...]]:
        """How a reference is written, and which definitions it reaches."""
        place = (file, what)
        if place not in self._resolved:
            self._resolved[place] = ("…", ())  # a circle of imports ends here
            self._resolved[place] = self._resolve(file, what)
        return self._resolved[place]

    def _resolve(self, file: Path, what: Reference) -> tuple[str, tuple[Node, ...]]:
        name, *rest = what.chain
        module = self.module(file)
        bound = what.found or module.imports.get(name)
        if what.found is None and name in module.statements:
            nodes: tuple[Node, ...] = (Node(file, name),)
            if bound is not None:  # an import with a definition in its place where it fails
                nodes += self._follow(file, bound, rest)[1]
            return ".".join(what.chain), nodes
        if bound is not None:
            return self._follow(file, bound, rest, what.chain)
        if not hasattr(builtins, name):
            for star in module.stars:
                home = self.target(star, file)
                if home is not None and self._has(home, name):
                    return self.resolve(home, Reference(what.chain))
        return ".".join(what.chain), ()

    def _has(self, file: Path, name: str) -> bool:
        module = self.module(file)
        return name in module.statements or name in module.imports

    def _follow(
        self, file: Path, bound: Import, rest: list[str], chain: tuple[str, ...] = ()
    ) -> tuple[str, tuple[Node, ...]]:
        if bound.name:
            home = self.target(bound, file)
            if home is None:
                return ".".join(["." * bound.level + bound.module, bound.name, *rest]), ()
            return self._inside(home, [bound.name, *rest])
        if bound.is_prefix and chain:
            for n in range(len(chain), 0, -1):
                home = self.locate(".".join(chain[:n]), file)
                if home is not None:
                    return self._inside(home, list(chain[n:]))
            return ".".join(chain), ()
        home = self.target(bound, file)
        return (
            self._inside(home, rest) if home is not None else (".".join([bound.module, *rest]), ())
        )

    def _inside(self, home: Path, chain: list[str]) -> tuple[str, tuple[Node, ...]]:
        """What the module calls `chain[0]`: its own, a module below it, or what it finds at run
        time.
        """
        if not chain:
            return "<module>", (Node(home, WHOLE),)
        module, name = self.module(home), chain[0]
        if self._has(home, name):
            return self.resolve(home, Reference(tuple(chain)))
        if home.name == "__init__.py":
            below = next(_files_of(home.parent / name), None)
            if below is not None:
                return self._inside(below, chain[1:])
        if "__getattr__" in module.statements:
            return ".".join(chain), self._lazy(home, name)
        return self.resolve(home, Reference(tuple(chain)))

    def _lazy(self, home: Path, name: str) -> tuple[Node, ...]:
        """What a module's `__getattr__` may find: a definition of that name in a module that it
        names or holds.
        """
        texts = {t for s in self.module(home).statements.values() for one in s for t in _texts(one)}
        named = [
            self.locate(t, home) or self.locate(f"{_top(home, _root(home))}.{t.strip('.')}", home)
            for t in texts
        ]
        inside = [
            f for f in sorted(home.parent.rglob("*.py")) if home.name == "__init__.py" and f != home
        ]
        found = [f for f in named if f is not None and self._has(f, name)]
        found = found or [f for f in inside if name in self.module(f).statements]
        nodes = [node for f in found for node in self.resolve(f, Reference((name,)))[1]]
        return tuple(dict.fromkeys(nodes)) or (Node(home, WHOLE),)

    def is_error(self, node: Node) -> bool:
        """Whether a definition is a kind of error."""
        if node not in self._errors:
            self._errors[node] = False  # a circle is no error
            statements = self.module(node.file).statements.get(node.name, ())
            bases = [base for s in statements if isinstance(s, ast.ClassDef) for base in s.bases]
            self._errors[node] = any(
                self._is_error(node.file, Reference(_chain(base))) for base in bases if _chain(base)
            )
        return self._errors[node]

    def _is_error(self, file: Path, what: Reference) -> bool:
        text, nodes = self.resolve(file, what)
        kind = getattr(builtins, text, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            return True
        # an attribute of an error class is one of its makers: UnknownName.near(…)
        return bool(nodes) and all(self.is_error(node) for node in nodes)

    def is_boundary(self, node: Node) -> bool:
        return node.name in self.boundaries and _top(node.file, _root(node.file)) == "unseen"

    def definition(self, node: Node) -> Definition:
        if node not in self._definitions:
            self._definitions[node] = self._define(node)
        return self._definitions[node]

    def _define(self, node: Node) -> Definition:
        file, name = node
        module = self.module(file)
        label = f"{_module_name(file)}:{name}"
        if self.is_boundary(node):
            return Definition(label, {"": digest(f"checksums of {name}")}, (), frozenset())
        if name == WHOLE:
            nodes = [Node(file, inner) for inner in module.statements]
            nodes += [
                n
                for i in module.imports
                for n in self.resolve(file, Reference((i,)))[1]
                if n.name != WHOLE
            ]
            return Definition(label, {}, (*nodes, Node(file, LOOSE)), frozenset())
        if name == LOOSE:
            parts = {"": tuple(_tokens_of(s) for s in module.loose)}
        elif name == ENTRY:
            parts = {"": (_tokens_of(module.entry),)} if module.entry is not None else {}
        else:
            parts = module.parts(name)
        if self.is_error(node):  # its kind counts; how it puts its words together decides no number
            parts = {"": parts[""]}
        digests, reaches, texts = dict[str, str](), dict[Node, None](), set[str]()
        for part, fragments in parts.items():
            written = [self._render(file, fragment, reaches, texts) for fragment in fragments]
            if written:
                digests[part] = digest("\n".join(written))
        is_function = any(isinstance(s, _FUNCTIONS) for s in module.statements.get(name, ()))
        return Definition(label, digests, tuple(reaches), frozenset(texts), is_function)

    def _render(
        self, file: Path, fragment: Fragment, reaches: dict[Node, None], texts: set[str]
    ) -> str:
        module, written = self.module(file), list[str]()
        for token in fragment:
            if isinstance(token, str):
                written.append(token)
            elif isinstance(token, Reference):
                text, nodes = self.resolve(file, token)
                reaches |= dict.fromkeys(nodes)
                if not token.is_silent:
                    # which one, where two definitions of that name are used; `reaches` keeps their
                    # order
                    same = [node for node in reaches if nodes and node.name == nodes[0].name]
                    which = f"#{same.index(nodes[0])}" if len(same) > 1 else ""
                    written.append(f"global {text}{which} ")
            elif isinstance(token, Text):
                written.append(f"str {token.value!r} ")
                texts.add(token.value)
                if token.value in module.statements:
                    reaches[Node(file, token.value)] = None
                elif (bound := module.imports.get(token.value)) is not None and bound.name:
                    nodes = self.resolve(file, Reference((token.value,)))[1]
                    reaches |= dict.fromkeys(node for node in nodes if node.name != WHOLE)
            elif isinstance(token, Arguments):
                if not self._is_error(file, token.called):
                    written.append(self._render(file, token.tokens, reaches, texts))
            elif not token.prefix:
                reaches[Node(file, WHOLE)] = None
            else:
                reaches |= dict.fromkeys(self._below(token.prefix, file))
        return "".join(written)

    def _below(self, prefix: str, near: Path) -> Iterator[Node]:
        """Everything that `import_module` may load whose argument starts so."""
        home = self.locate(prefix.rstrip("."), near)
        if home is None:
            return
        files = (
            home.parent.rglob("*.py")
            if prefix.endswith(".") and home.name == "__init__.py"
            else (home,)
        )
        yield from (Node(file, WHOLE) for file in sorted(files))

    def imports_of(self, file: Path) -> tuple[Path, ...]:
        """The modules of ours that a module imports, with the packages that hold them."""
        if file not in self._loaded:
            found = dict[Path, None]()
            for what in self.module(file).loaded:
                home = self.target(what, file)
                if what.is_prefix and home is None:
                    home = self.locate(what.module.split(".")[0], file)
                if home is None:
                    continue
                found[home] = None
                if what.name and home.name == "__init__.py":
                    found |= dict.fromkeys(_files_of(home.parent / what.name))
            for home in [*found]:
                found |= dict.fromkeys(
                    p / "__init__.py" for p in home.parents if (p / "__init__.py").is_file()
                )
            self._loaded[file] = tuple(found)
        return self._loaded[file]

    def checksums(self, file: Path) -> dict[str, str]:
        """Of every data set registered beside `data_file`, by its folder's name: its checksums as
        one hash.
        """
        found: dict[str, str] = {}
        for registered in sorted(file.parent.glob("registry/*.py")):
            if registered.name != "__init__.py":
                sums = re.findall(rb"[\"']([0-9a-f]{64})[\"']", self.read(registered))
                found[registered.stem.replace("_", "-")] = digest(b"\n".join(sums).decode())
        return found

    def closure(self, roots: Iterable[Node]) -> dict[Node, Definition]:
        """Every definition that the roots reach, with what registers itself with one of them on
        import.
        """
        found: dict[Node, Definition] = {}
        waiting = list(roots)
        imported, unread = dict[Path, None](), [node.file for node in waiting]
        pending: list[tuple[tuple[Node, ...], list[Node]]] = []
        while waiting or unread:
            while waiting:
                node = waiting.pop()
                if node not in found:
                    found[node] = self.definition(node)
                    waiting += found[node].reaches
                    unread.append(node.file)
            while unread:
                file = unread.pop()
                if file in imported:
                    continue
                imported[file] = None
                unread += self.imports_of(file)
                module = self.module(file)
                if module.loose:
                    waiting.append(Node(file, LOOSE))
                for registrar, statement in module.registrations:
                    nodes = [Node(file, name) for name in _bound(statement)]
                    pending.append((self.resolve(file, registrar)[1], nodes))
            reached = [
                nodes for registrars, nodes in pending if any(r in found for r in registrars)
            ]
            waiting += [node for nodes in reached for node in nodes if node not in found]
        return found


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _texts(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and all(
            part.isidentifier() for part in text.strip(".").split(".")
        ):
            yield text


def _files_of(base: Path) -> Iterator[Path]:
    """The file of the module at that path without suffix."""
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            yield path


@cache
def _root(file: Path) -> Path:
    """The folder from which a module is imported: that of its top package, or its own."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _top(file: Path, root: Path) -> str:
    return file.relative_to(root).parts[0].removesuffix(".py")


def _module_name(file: Path) -> str:
    parts = file.relative_to(_root(file)).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def is_installed(folder: Path) -> bool:
    """Whether a folder belongs to Python or to installed packages."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return folder.name in ("site-packages", "dist-packages") or any(
        folder.is_relative_to(place) for place in places if place
    )


def require(file: Path | None, module: str) -> Path:
    """The file, or why the code of a module cannot be read."""
    if file is None:
        raise InvalidConfig(
            f"The source of module `{module}` cannot be found.",
            why="the key of a stored cell includes the code that made it.",
            fix="put the study into a .py file that Python can import.",
        )
    return file
