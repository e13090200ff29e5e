"""Definitions of Python sources, and what each of them reaches: read with `ast`, nothing is
imported.

A definition is what a module binds to a name at its top level: a function, a class, a constant. Its
text is written without what cannot change a number: comments, docstrings, annotations, the words of
errors, the layout. A name that another module defines is written as that definition's name, and one
of another package with its full path; so modules can be renamed and imports rewritten, and the text
stays. Local names stay as they are.

    Fragment   a statement as tokens, independent of where its module lies (`code_tokens.py`)
    Module     the names, loose statements, registrations and imports of one source
               (`code_modules.py`)
    Node       a definition: file and name
    Sources    finds modules, resolves names across them, and walks
"""

import ast
import builtins
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from unseen.runs.catalog import source
from unseen.runs.code_files import _files_of, _module_name, _root, _top, is_installed
from unseen.runs.code_modules import Module, bindings, parse_module, texts_in
from unseen.runs.code_tokens import (
    FUNCTIONS,
    Arguments,
    Fragment,
    Import,
    Reference,
    Text,
    attribute_chain,
    methods_of,
    tokens_of,
    walk_scope,
)

LOOSE = "<statements>"
"""Stands for the statements of a module that bind no name: whoever imports the module runs them."""
WHOLE = "*"
"""Stands for everything in a module: asked for by name at run time."""
ENTRY = "<run>"
"""Stands for the expression that a study gives as `run`."""


class Node(NamedTuple):
    """A definition: in which file, under which name."""

    file: Path
    name: str


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
        texts = {
            t for s in self.module(home).statements.values() for one in s for t in texts_in(one)
        }
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
        """Whether a definition is a kind of error, or a function that only makes or raises one."""
        if node not in self._errors:
            self._errors[node] = False  # a circle is no error
            statements = self.module(node.file).statements.get(node.name, ())
            bases = [base for s in statements if isinstance(s, ast.ClassDef) for base in s.bases]
            self._errors[node] = any(
                self._is_error(node.file, Reference(attribute_chain(base)))
                for base in bases
                if attribute_chain(base)
            ) or (bool(statements) and all(self._makes_error(node.file, s) for s in statements))
        return self._errors[node]

    def _makes_error(self, file: Path, statement: ast.stmt) -> bool:
        """Whether nothing comes of a function but errors: what it says in them decides no
        number.
        """
        if not isinstance(statement, ast.FunctionDef) or statement.decorator_list:
            return False
        inner = [one for line in statement.body for one in walk_scope(line)]
        if any(isinstance(one, ast.Yield | ast.YieldFrom) for one in inner):
            return False
        results = [one.value for one in inner if isinstance(one, ast.Return)]
        last = statement.body[-1]
        chains = [attribute_chain(one.func) if isinstance(one, ast.Call) else () for one in results]
        return isinstance(last, ast.Raise | ast.Return) and all(
            chain and self._is_error(file, Reference(chain)) for chain in chains
        )

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
            parts = {"": tuple(tokens_of(s) for s in module.loose)}
        elif name == ENTRY:
            parts = {"": (tokens_of(module.entry),)} if module.entry is not None else {}
        else:
            parts = module.parts(name)
        for statement in module.statements.get(name, ()):
            if isinstance(statement, ast.ClassDef):
                for method in methods_of(statement):
                    if self._makes_error(file, method):
                        parts.pop(method.name, None)
        if self.is_error(node):  # its kind counts; how it puts its words together decides no number
            is_kind = any(isinstance(s, ast.ClassDef) for s in module.statements[name])
            parts = {"": parts[""]} if is_kind else {}
        digests, reaches, texts = dict[str, str](), dict[Node, None](), set[str]()
        for part, fragments in parts.items():
            written = [self._render(file, fragment, reaches, texts) for fragment in fragments]
            if written:
                digests[part] = digest("\n".join(written))
        is_function = any(isinstance(s, FUNCTIONS) for s in module.statements.get(name, ()))
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
                    nodes = [Node(file, name) for name in bindings(statement)]
                    pending.append((self.resolve(file, registrar)[1], nodes))
            reached = [
                nodes for registrars, nodes in pending if any(r in found for r in registrars)
            ]
            waiting += [node for nodes in reached for node in nodes if node not in found]
        return found


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
