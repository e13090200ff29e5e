"""Examples that occur in two splits: leakage from training into evaluation.

Exact duplicates by hashing rounded rows; near-duplicates as nearest neighbours closer than chance
would bring them.
"""

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen import stats
from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use

CHUNK = 1 << 24
"""Entries of one block of distances (64 MiB in float32)."""
CANDIDATES = 4
"""Neighbours by float32 products whose distance is then computed exactly."""


@dataclass(frozen=True)
class Pairs:
    """Examples of split A and split B that are (nearly) the same, nearest first."""

    a: Int[Tensor, " pair"]
    b: Int[Tensor, " pair"]
    distance: Float[Tensor, " pair"]
    threshold: float = 0.0
    """The largest distance that counted as near."""

    def __len__(self) -> int:
        return len(self.a)


def exact_pairs(
    a: Float[Tensor, "n *shape"], b: Float[Tensor, "m *shape"], decimals: int = 6
) -> Pairs:
    """All pairs whose rows agree after rounding to `decimals` places.

    Values on either side of a rounding limit differ; `near_pairs` does not have that gap.
    """
    places: dict[bytes, list[int]] = defaultdict(list)
    for i, key in enumerate(_keys(_rows("a", a), decimals)):
        places[key].append(i)
    pairs = [
        (i, j) for j, key in enumerate(_keys(_rows("b", b), decimals)) for i in places.get(key, ())
    ]
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return Pairs(index[:, 0], index[:, 1], torch.zeros(len(pairs), dtype=torch.float64))


def near_pairs(
    a: Float[Tensor, "n *shape"],
    b: Float[Tensor, "m *shape"],
    *,
    chance: float = 1e-3,
    threshold: float | None = None,
) -> Pairs:
    """For each row of B its nearest row of A, where that is at most `threshold` away (default:
    `chance_distance`).

    Columns of a table are divided by their standard deviation in A (constant columns stay as they
    are); images are compared pixel by pixel in their own unit.
    """
    x, y = scale_to_common_units(_rows("a", a), _rows("b", b), tabular=a.dim() <= 2)
    limit = chance_distance(x, chance) if threshold is None else threshold
    index, distance = nearest(y, x)
    near = (distance <= limit).nonzero().squeeze(1)
    near = near[distance[near].argsort(stable=True)]
    return Pairs(index[near], near, distance[near], limit)


def chance_distance(x: Float[Tensor, "n d"], chance: float = 1e-3, most: int = 5_000) -> float:
    """The distance within which a fresh example finds a neighbour in x with probability `chance`.

    Nearest-neighbour distances of a locally uniform density follow P(D > r) = 2^−(r/median)^m, m
    the dimension. Median and upper quartile within x give m = ln 2 / ln(quartile/median). What lies
    within the distance is then left out and the rest measured again until nothing more falls out,
    so duplicates within x do not lower it. At most half the median; 0 when fewer than three
    different rows are left.
    """
    if not 0 < chance < 1:
        raise InvalidConfig(
            f"Overlap got chance={chance}.", "it is a probability.", "set it in (0, 1), say 1e-3."
        )
    if len(x) < 3:
        raise InvalidData(
            f"The reference split has {len(x)} examples.",
            why="what is unusually near is evaluated by their own distances.",
            fix="give `threshold`, or use exact duplicates.",
        )
    rows = torch.arange(len(x)) if len(x) <= most else torch.linspace(0, len(x) - 1, most).long()
    distance = nearest(x[rows], x, own=rows)[1]
    limit, left = 0.0, distance[distance > 0]
    while len(left) >= 3:
        middle, upper = left.quantile(torch.tensor([0.5, 0.75], dtype=left.dtype)).tolist()
        exponent = math.log(upper / middle) / math.log(2)
        limit = max(limit, middle * min(0.5, (-math.log2(1 - chance)) ** exponent))
        before, left = len(left), left[left > limit]
        if len(left) > (1 - 2 * chance) * before:  # no more than chance has fallen out
            return limit
    return limit


def nearest(
    query: Float[Tensor, "m d"], among: Float[Tensor, "n d"], own: Int[Tensor, " m"] | None = None
) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"]]:
    """The nearest row of `among` for every query and its Euclidean distance; `own` names rows to
    leave out.

    ‖q − x‖² = ‖q‖² + ‖x‖² − 2 q·x by matrix products in float32 on centred data, the best few again
    in float64.
    """
    centre = among.mean(0)
    x, q = (among - centre).float(), (query - centre).float()
    norms, k = x.square().sum(1), min(CANDIDATES, len(x) - (own is not None))
    indices, distances = [], []
    for rows in torch.arange(len(q)).split(max(1, CHUNK // len(x))):
        ranked = torch.addmm(norms, q[rows], x.T, alpha=-2.0)
        if own is not None:
            ranked[torch.arange(len(rows)), own[rows]] = torch.inf
        best = ranked.topk(k, largest=False).indices
        exact = (among[best] - query[rows].unsqueeze(1)).square().sum(2).sqrt()
        chosen = exact.argmin(1, keepdim=True)
        indices.append(best.gather(1, chosen).squeeze(1))
        distances.append(exact.gather(1, chosen).squeeze(1))
    return torch.cat(indices), torch.cat(distances)


def scale_to_common_units(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], *, tabular: bool
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Both in units of A's standard deviations if they are tables, unchanged otherwise."""
    if not tabular or len(a) < 2:
        return a, b
    unit = a.std(0)
    unit = torch.where(unit > 0, unit, torch.ones_like(unit))
    return a / unit, b / unit


@dataclass(frozen=True)
class Overlap:
    """The share of an evaluation split's examples that are in the reference split (Wilson
    interval): 0 is as it should be.

    `detail` holds the pairs as rows (index in `reference`, index in `split`, distance).
    """

    reference: str = "train"
    split: str = "test"
    column: str = "x"
    decimals: int = 6
    invariances: ClassVar[tuple[str, ...]] = ("loss scale",)

    def __call__(self, subject: Task, lab: Lab) -> Reading:
        a, b = (_column(subject, name, self.column, lab) for name in (self.reference, self.split))
        return _reading(exact_pairs(a, b, self.decimals), len(b))


@dataclass(frozen=True)
class NearOverlap:
    """The share of an evaluation split's examples with a near-duplicate in the reference split.

    Expected among unrelated examples: `chance`, where the density is locally uniform. `detail` as
    for `Overlap`.
    """

    reference: str = "train"
    split: str = "test"
    column: str = "x"
    chance: float = 1e-3
    invariances: ClassVar[tuple[str, ...]] = ("loss scale",)

    def __call__(self, subject: Task, lab: Lab) -> Reading:
        a, b = (_column(subject, name, self.column, lab) for name in (self.reference, self.split))
        return _reading(near_pairs(a, b, chance=self.chance), len(b))


def _reading(pairs: Pairs, n: int) -> Reading:
    share = stats.proportion(len(pairs.b.unique()), n)
    rows = torch.stack([pairs.a.double(), pairs.b.double(), pairs.distance], 1)
    return Reading(share.value, share.low, share.high, n, "fraction", rows)


def _column(task: Task, split: str, column: str, lab: Lab) -> Tensor:
    batch = whole(task.split(split).data, lab)
    if column not in batch:
        raise UnknownName.near(f"column of split `{split}`", column, batch)
    return batch[column]


def _rows(name: str, x: Tensor) -> Float[Tensor, "n d"]:
    rows = x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    rows = rows.double().cpu()  # float64: differences of nearly equal numbers
    if not rows.numel():
        raise InvalidData(
            f"Overlap got no examples in `{name}`.",
            "there is nothing to compare.",
            "check the split.",
        )
    if not torch.isfinite(rows).all():
        bad = int((~torch.isfinite(rows)).any(1).sum())
        raise InvalidData(
            f"{bad} of {len(rows)} examples in `{name}` hold NaN or infinite values.",
            why="NaN has no distance to anything.",
            fix="impute or drop them first.",
        )
    return rows


def _keys(rows: Float[Tensor, "n d"], decimals: int) -> list[bytes]:
    rounded = (
        np.round(rows.numpy(), decimals) + 0.0
    )  # + 0.0: −0 and 0 are one number with two bit patterns
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rounded]


def example() -> tuple[Overlap, Task]:
    """Two of four evaluation rows occur in the training rows."""
    x = torch.arange(12.0).view(6, 2)
    y = torch.zeros(6, dtype=torch.int64)
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "test": Split(Columns(x=x[2:] % 10, y=y[2:]), Use.EVALUATE),
    }
    return Overlap(), Task(name="overlapping", axis=Axis.IID, splits=splits, objective=classify)
