"""How splits are called in a report."""

from collections.abc import Sequence

from unseen.questions.audit.job import Findings


def place(one: Findings, split: str) -> str:
    """The place of an unseen split; other splits by their own name."""
    return one.places.get(split, split) if split in one.unseen else split


def held_out(one: Findings) -> str:
    return ", ".join(place(one, split) for split in one.unseen) or "random part"


def known(one: Findings, split: str, among: Sequence[Findings]) -> str:
    """A split with what tells it from splits of the same name of other held-out places."""
    if split in one.unseen:
        return place(one, split)
    return f"{split} (without {held_out(one)})" if len(among) > 1 else split
