"""Names say what a thing is or does: no participles, no pronouns, none of the words that the
glossary replaces.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unseen"

IRREGULAR = """
    told asked made kept judged found seen given taken held own shown drawn written begun known
    chosen hidden lost said done dealt foretold unseen heard overlaid forgotten broken misread
    caught unfound left sent built spent thrown sold understood thought bought taught grown worn
    torn driven eaten
"""
PRONOUNS = """
    own each mine fresh anew several both one ones other others same alone alike again any none
    some such it them its ours us we nobody somebody nothing something anything everything
    everyone who what which elsewhere apart together forth beside only also even here there then
    now either neither another
"""
LINKS = "up on from first for good at out of by in off to over with without under into all"
PARTICIPLES, POINTERS, JOINTS = (set(text.split()) for text in (IRREGULAR, PRONOUNS, LINKS))
NO_PARTICIPLES = {
    "speed",
    "seed",
    "need",
    "exceed",
    "feed",
    "red",
    "embed",
    "shed",
    "bed",
    "hundred",
    "proceed",
}

ALLOWED = {
    "Trained": "one of the nouns of the house: a model after training, with its task and curves",
    "Task.unseen": "the term of the field for what lies outside the training distribution",
    "Session.unseen": "the same splits, of those that could be evaluated",
    "DomainSpec.held_out": "the field's term for the domain left out; also a field and an option",
    "Lab.seeded": "reads as the state inside a with block: `with lab.seeded():`",
}
"""Offending names that stay, and why: at most twenty."""

BANNED = {
    "place": "site, domain, split, path, index or device",
    "places": "sites, domains, splits, paths or indices",
    "judge": "evaluate (only a claim is judged)",
    "judged": "evaluated",
}
"""Words of no public name, and what the glossary says instead."""

JUDGES_CLAIMS = {"Claim.judge", "judge_claims"}


def definitions(root: Path) -> Iterator[tuple[str, str, str]]:
    """(file, qualified name, name) of every class and function, nested ones included."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield prefix + child.name, child.name
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    for path in sorted(root.rglob("*.py")):
        for qualified, name in walk(ast.parse(path.read_text()), ""):
            yield str(path.relative_to(root)), qualified, name


def words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def is_participle(word: str) -> bool:
    return word in PARTICIPLES or (
        word.endswith("ed") and len(word) > 3 and word not in NO_PARTICIPLES
    )


def is_offending(name: str) -> bool:
    """Whether all words of a name are participles, pronouns and the small words between them:
    `told`, `mixed_up`.
    """
    parts = words(name)
    known = [is_participle(word) or word in POINTERS for word in parts]
    return any(known) and all(k or word in JOINTS for k, word in zip(known, parts, strict=True))


def offenders(root: Path) -> list[tuple[str, str]]:
    return [(file, qualified) for file, qualified, name in definitions(root) if is_offending(name)]


def test_definitions_are_not_named_by_participles_or_pronouns():
    found = offenders(SOURCE)
    new = [f"{file}: {name}" for file, name in found if name not in ALLOWED]
    assert not new, "verbs or quantities, please: " + ", ".join(new)
    assert len(ALLOWED) <= 20
    assert ALLOWED.keys() <= {name for _, name in found}, "allowed, but not there any more"


def public_names(root: Path) -> Iterator[tuple[str, str, str]]:
    """(file, qualified name, name) of public modules, classes, functions and fields."""
    for path in sorted(root.rglob("*.py")):
        yield str(path.relative_to(root)), path.stem, path.stem
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                        yield (
                            str(path.relative_to(root)),
                            f"{node.name}.{field.target.id}",
                            field.target.id,
                        )
    yield from definitions(root)


def test_public_names_keep_to_the_glossary():
    found = [
        f"{file}: {qualified} (say {BANNED[word]})"
        for file, qualified, name in public_names(SOURCE)
        for word in words(name)
        if word in BANNED and not name.startswith("_") and qualified not in JUDGES_CLAIMS
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "name", ["told", "_judged", "mixed_up", "Kept", "each", "_on_the_own", "validated_on"]
)
def test_participles_and_pronouns_are_found(name):
    assert is_offending(name) == (name != "_on_the_own")


@pytest.mark.parametrize(
    "name",
    ["seed", "speed", "held_out_loss", "IntegratedGradients", "refuse_mixed", "read", "split"],
)
def test_verbs_and_quantities_are_left_alone(name):
    assert not is_offending(name)
