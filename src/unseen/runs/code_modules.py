"""Modules of Python sources, read with `ast`: their names, loose statements, registrations and
imports; nothing is imported.
"""

import ast
import gc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from unseen.runs.code_tokens import (
    DEFINITIONS,
    Fragment,
    Import,
    Reference,
    attribute_chain,
    imports_in,
    is_for_others,
    is_text,
    method_tokens,
    methods_of,
    tokens_of,
    walk_scope,
)


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
                found[""].append(tokens_of(statement))
                for method in methods_of(statement):
                    found.setdefault(method.name, []).append(method_tokens(statement, method))
            else:
                found[""].append(tokens_of(statement))
        return {part: tuple(fragments) for part, fragments in found.items()}


@cache
def parse_module(data: bytes) -> Module:
    """The module of a source, read once per content."""
    tree = _parse(data)
    statements: dict[str, list[ast.stmt]] = {}
    imports: dict[str, Import] = {}
    stars: list[Import] = []
    loose: list[ast.stmt] = []
    registrations: list[tuple[Reference, ast.stmt]] = []
    for statement in _plain(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, target in imports_in(statement):
                if name == "*":
                    stars.append(target)
                else:
                    imports[name] = target
            continue
        names = list(dict.fromkeys(bindings(statement)))
        for name in names:
            statements.setdefault(name, []).append(statement)
        is_definition = isinstance(
            statement, (*DEFINITIONS, ast.Assign, ast.AnnAssign, ast.AugAssign)
        )
        if not (names and is_definition):
            loose.append(statement)
            for inner in ast.walk(statement):  # try: import fast as module; except ImportError: …
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    imports |= {name: target for name, target in imports_in(inner) if name != "*"}
        if isinstance(statement, DEFINITIONS):
            registrations += [
                (Reference(chain), statement)
                for decorator in statement.decorator_list
                if (chain := _registrar(decorator))
            ]
    loaded = [
        target
        for statement in _statements(tree)
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for _, target in imports_in(statement)
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


def _parse(data: bytes) -> ast.Module:
    """The tree of a source, made without searching for garbage, of which it has none: that took two
    thirds of the time.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(data)
    finally:
        if is_on:
            gc.enable()


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every statement, however deep, and the handlers and cases that hold statements; no
    expression, of which there are thirty times as many.
    """
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, block, None)
            if isinstance(inner, list):  # the body of a lambda is none
                waiting += inner


def _plain(nodes: "Iterable[ast.AST]") -> Iterator[ast.stmt]:
    """Statements that run on import: no docstrings, nothing for type checkers or for a script."""
    for node in nodes:
        if not isinstance(node, ast.stmt) or is_text(node):
            continue
        if isinstance(node, ast.If) and is_for_others(node.test):
            yield from _plain(node.orelse)
        else:
            yield node


def bindings(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines, also within branches."""
    if isinstance(statement, DEFINITIONS):
        yield statement.name
        return
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return
    for node in walk_scope(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, DEFINITIONS):
            yield node.name


def _registrar(decorator: ast.expr) -> tuple[str, ...]:
    """To what a decorator hands its function: `forms` of `@forms.register(nn.Conv1d)`; empty for
    other decorators.
    """
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    chain = attribute_chain(called)
    if len(chain) > 1:
        return chain[:-1]
    return chain if chain and "register" in chain[0] else ()


def _entry(tree: ast.Module) -> ast.expr | None:
    for statement in tree.body:
        call = getattr(statement, "value", None)
        if (
            isinstance(statement, ast.Assign | ast.AnnAssign)
            and isinstance(call, ast.Call)
            and "study" in bindings(statement)
        ):
            return next((keyword.value for keyword in call.keywords if keyword.arg == "run"), None)
    return None


def texts_in(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and all(
            part.isidentifier() for part in text.strip(".").split(".")
        ):
            yield text
