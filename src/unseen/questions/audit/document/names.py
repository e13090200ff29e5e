"""How splits are called in a report."""

from collections.abc import Sequence

from unseen.questions.audit.job import Findings


def site_label(one: Findings, split: str) -> str:
    """The place of an unseen split; other splits by their own name."""
    return one.sites.get(split, split) if split in one.unseen else split


def held_out_label(one: Findings) -> str:
    return ", ".join(site_label(one, split) for split in one.unseen) or "random part"


def split_label(one: Findings, split: str, among: Sequence[Findings]) -> str:
    """A split with what tells it from splits of the same name of other held-out sites."""
    if split in one.unseen:
        return site_label(one, split)
    return f"{split} (without {held_out_label(one)})" if len(among) > 1 else split
