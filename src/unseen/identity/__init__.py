"""Identity: everything that decides a computed value, so that a kept value is used only where it
would come out again.

An identity is read from live objects, not from files: the weights, attributes and classes of a
model, the bytecode of a loss with the values it closes over, its default arguments and the globals
it reads, and so on through everything that these reach. Three kinds of code are told apart. The
user's counts by its bytecode. A library's counts by its version. Unseen's own is listed in `code`,
and whoever keeps values adds its version (`runs/tensors.py`). What depends on more than that (a
file or an environment variable read while computing, a dataset of one's own) is listed in
`unknown`: such a value is never kept.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from unseen.identity.libraries import surroundings
from unseen.identity.walk import Structure, Walk

__all__ = ["Identity", "Structure", "identify"]


@dataclass(frozen=True)
class Identity:
    """What decides a value, part by part."""

    name: str
    """What kind of value it is, in words: "training run", "curvature", …"""
    parts: tuple[tuple[str, str], ...]
    """Digests by what they are about: ("model", …), ("data", …)."""
    code: tuple[object, ...] = field(default=(), compare=False)
    """Functions and classes of Unseen that were met on the way."""
    unknown: tuple[str, ...] = ()
    """Why it cannot be known whether the value would come out again; empty: it can."""

    @property
    def digest(self) -> str:
        """SHA-256 of all parts."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self, code: str = "") -> str:
        """The parts as JSON, with the version of Unseen's code where it is given."""
        return json.dumps(
            {"name": self.name, **dict(self.parts), **({"code": code} if code else {})},
            sort_keys=True,
        )


def identify(name: str, **parts: object) -> Identity:
    """The identity of a value that these objects decide. An identity may itself be a part."""
    digests: dict[str, str] = {"libraries": surroundings()}
    code: dict[int, object] = {}
    unknown: dict[str, None] = {}
    for part, value in parts.items():
        if isinstance(value, Identity):
            digests[part] = value.digest
            code.update((id(one), one) for one in value.code)
            unknown.update(dict.fromkeys(value.unknown))
            continue
        walk = Walk()
        digests[part] = walk(value, part)
        code.update((id(one), one) for one in walk.code)
        unknown.update(dict.fromkeys(walk.unknown))
    ours = sorted(code.values(), key=lambda one: (one.__module__, getattr(one, "__qualname__", "")))
    return Identity(name, tuple(sorted(digests.items())), tuple(ours), tuple(unknown))


def differing(one: str, other: str) -> list[str]:
    """The parts in which two identities, written by `text`, differ."""
    a, b = (_read(text) for text in (one, other))
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _read(text: str) -> Mapping[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"key": text}
    return found if isinstance(found, dict) else {"key": text}
