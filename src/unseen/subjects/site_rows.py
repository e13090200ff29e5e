"""The rows of all sites of a subject beside each other: what a comparison of sites reads."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from unseen.engine.batches import whole
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.subjects.subject import Subject
from unseen.task import Split, Use


@dataclass(frozen=True, kw_only=True)
class SiteRows:
    """Inputs and targets of every split, and the site of each row."""

    x: Float[np.ndarray, "row input"]
    y: Shaped[np.ndarray, " row"]
    site: Int[np.ndarray, " row"]
    split: Shaped[np.ndarray, " row"]
    """The name of the split that the row is from."""
    unseen: Mapping[str, int]
    """The code in `site` of each split at an unseen site."""
    columns: Mapping[str, Float[np.ndarray, " row"]]
    """Numbers in the table's own units, where the subject knows them."""


def site_rows(subject: Subject, unseen: Mapping[str, Split], lab: Lab) -> SiteRows:
    """Refuses subjects without named features or unseen sites, and targets of several numbers."""
    _refuse(subject, unseen)
    splits = subject.task.splits
    batches = {name: whole(split.data, lab) for name, split in splits.items()}
    if any(not {"x", "y"} <= batch.keys() for batch in batches.values()):
        raise InvalidData(
            "A split has no columns `x` and `y`.",
            why="sites are compared by inputs and targets.",
            fix="give both in every split.",
        )
    x = {name: batch["x"].flatten(1).double().cpu().numpy() for name, batch in batches.items()}
    y = {name: batch["y"].cpu().numpy() for name, batch in batches.items()}
    if any(one.ndim != 1 for one in y.values()):
        raise InvalidData(
            "The target is more than one number.",
            why="a relation is that of a feature to one target.",
            fix="compare the parts of the target one by one.",
        )
    sites = {
        name: batch["site"].flatten().long().cpu().numpy()
        if "site" in batch
        else np.zeros(len(y[name]), dtype=np.int64)
        for name, batch in batches.items()
    }
    sites, codes = _distinct(sites, unseen)
    numbers = [subject.columns(name) if subject.columns else {} for name in splits]
    return SiteRows(
        x=np.concatenate(list(x.values())),
        y=np.concatenate(list(y.values())),
        site=np.concatenate(list(sites.values())),
        split=np.repeat(list(splits), [len(one) for one in y.values()]),
        unseen=codes,
        columns={name: np.concatenate([one[name] for one in numbers]) for name in numbers[0]},
    )


def _refuse(subject: Subject, unseen: Mapping[str, Split]) -> None:
    if not unseen and subject.task.of(Use.ADAPT):
        raise InvalidData(
            "The new site has no labels, and no other site is held out.",
            why="features and target of a held-out site are compared; what the features of a site "
            "without labels tell is said under U209.",
            fix="give labels of the new site.",
        )
    if not unseen:
        raise InvalidData(
            "No evaluation split is at an unseen site.",
            why="there is no site to compare with the others.",
            fix="name a site or a time.",
        )
    if not subject.features:
        raise InvalidData(
            "The subject names no features.",
            why="sites are compared feature by feature.",
            fix='give Subject(features={"age": [0], …}): positions along the input.',
        )


def _distinct(
    sites: Mapping[str, np.ndarray], unseen: Mapping[str, Split]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Sites whose codes also tell unseen splits from known rows, and the code of each of those."""
    found = dict(sites)
    known = {int(code) for name, codes in sites.items() if name not in unseen for code in codes}
    free = 1 + max(int(codes.max()) for codes in sites.values())
    chosen = dict[str, int]()
    for name in unseen:
        mine = set(sites[name].tolist())
        if len(mine) == 1 and not mine & (known | set(chosen.values())):
            chosen[name] = mine.pop()
        else:  # the same site later, or several at once
            chosen[name], free = free, free + 1
            found[name] = np.full(len(sites[name]), chosen[name])
    return found, chosen
