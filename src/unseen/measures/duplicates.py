"""Examples that occur in two splits: leakage from training into evaluation.

Exact duplicates by hashing rounded rows; near-duplicates as nearest neighbours closer than chance
would bring them.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unseen import stats
from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.reading import Direction, MeasureEntry, Need, Reading, Scope
from unseen.task import Axis, Split, Task, Use

CHUNK = 1 << 24
"""Entries of one block of distances (64 MiB in float32)."""
CANDIDATES = 4
"""Neighbours by float32 products whose distance is then computed exactly."""
ROUNDING = 1e-5
"""Bound on the error of a squared float32 distance, relative to the squared lengths."""
BLOCK = 2_048
"""Rows whose closest pairs are looked for at a time."""
MOST_DISTANCES = 1 << 30
"""So many distances within a split are looked at for `chance_distance`, if that leaves it enough
rows.
"""


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
    pairs = [(i, j) for j, same in equal_rows(a, b, decimals).items() for i in same]
    index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return Pairs(index[:, 0], index[:, 1], torch.zeros(len(pairs), dtype=torch.float64))


def equal_rows(
    a: Float[Tensor, "n *shape"], b: Float[Tensor, "m *shape"], decimals: int = 6
) -> dict[int, list[int]]:
    """For each row of B that stands in A, the rows of A that equal it; rows of B with the same
    values share one list, so that few distinct rows cost no more than many.
    """
    first, second = (_round(_rows(name, x), decimals) for name, x in (("a", a), ("b", b)))
    if first.shape[1:] != second.shape[1:]:
        return {}
    # most rows have no equal: their sums say so, and what is left is compared byte by byte
    sums, others = fingerprints(first), fingerprints(second)
    left, right = (np.flatnonzero(np.isin(*pair)) for pair in ((sums, others), (others, sums)))
    places: dict[bytes, list[int]] = defaultdict(list)
    for i, key in zip(left.tolist(), _digests(first[left]), strict=True):
        places[key].append(i)
    keys = zip(right.tolist(), _digests(second[right]), strict=True)
    return {j: places[key] for j, key in keys if key in places}


def fingerprints(rows: NDArray[np.float64]) -> NDArray[np.uint64]:
    """A number per row that equal rows share and others hardly ever do: their bit patterns times
    odd numbers, summed modulo 2⁶⁴ after the high bits were mixed into the low ones.
    """
    drawn = np.random.default_rng(0).integers(1 << 63, size=(rows.shape[1],), dtype=np.uint64)
    factors: NDArray[np.uint64] = drawn * np.uint64(2) + np.uint64(1)
    found = np.zeros(len(rows), np.uint64)
    for factor, column in zip(factors, rows.T, strict=True):
        # rounded numbers end in zero bits: a product alone would keep them in every sum
        mixed = np.ascontiguousarray(column).view(np.uint64) * factor
        found += (mixed ^ (mixed >> np.uint64(32))) * factor
    return found


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
    index, distance = nearest(y, x, within=limit)
    near = (distance <= limit).nonzero().squeeze(1)
    near = near[distance[near].argsort(stable=True)]
    return Pairs(index[near], near, distance[near], limit)


def near_threshold(a: Float[Tensor, "n *shape"], chance: float = 1e-3, most: int = 5_000) -> float:
    """The threshold of `near_pairs` with this reference split, whatever it is compared with;
    `most` rows ask for their neighbours.
    """
    rows = _rows("a", a)
    scaled, _ = scale_to_common_units(rows, rows, tabular=a.dim() <= 2)
    return chance_distance(scaled, chance, most)


def reference_rows(n: int, most: int = 5_000, least: int = 1_000) -> Int[Tensor, " row"]:
    """Which of n rows `chance_distance` asks for their neighbours: all up to `most`, then evenly
    spaced ones, fewer of very many so that the cost grows no faster than n.
    """
    count = min(n, most, max(least, MOST_DISTANCES // n))
    return torch.arange(n) if count == n else torch.linspace(0, n - 1, count).long()


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
    rows = reference_rows(len(x), most)
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
    query: Float[Tensor, "m d"],
    among: Float[Tensor, "n d"],
    own: Int[Tensor, " m"] | None = None,
    within: float = math.inf,
) -> tuple[Int[Tensor, " m"], Float[Tensor, " m"]]:
    """The nearest row of `among` for every query and its Euclidean distance; `own` names rows to
    leave out. Queries without a row `within` get −1 and an infinite distance.

    The best few by products in float32 are compared in float64; `neighbours` leaves nothing to
    that rounding.
    """
    k = min(CANDIDATES, len(among) - (own is not None))
    indices = torch.full((len(query),), -1)
    distances = torch.full((len(query),), math.inf, dtype=query.dtype)
    for rows, ranked, _ in _ranks(query, among, k, own, within):
        best = ranked.topk(k, largest=False).indices
        exact = _squares(query[rows], among[best]).sqrt()
        chosen = exact.argmin(1, keepdim=True)
        indices[rows] = best.gather(1, chosen).squeeze(1)
        distances[rows] = exact.gather(1, chosen).squeeze(1)
    far = distances > within
    indices[far], distances[far] = -1, math.inf
    return indices, distances


def neighbours(
    query: Float[Tensor, "m d"],
    among: Float[Tensor, "n d"],
    k: int,
    own: Int[Tensor, " m"] | None = None,
    within: float = math.inf,
    groups: tuple[Int[Tensor, " m"], Int[Tensor, " n"]] | None = None,
) -> tuple[Int[Tensor, "m k"], Float[Tensor, "m k"]]:
    """The k nearest rows of `among` for every query, nearest first, with exact distances; `own`
    names rows to leave out, and rows of a query's group are left out. Queries without a row
    `within` get −1 and infinite distances.

    Products in float32 propose candidates, differences in float64 give their distances, and where
    the rounding leaves open whether another row is nearer, all differences are taken: products
    alone give distances of 0 between rows that are not equal.
    """
    left = len(among) - (own is not None)
    if not 1 <= k <= left:
        raise InvalidData(
            f"{k} neighbours are asked for among {left} rows.",
            why="there are not as many.",
            fix="give more rows, or ask for fewer neighbours.",
        )
    inf, candidates = math.inf, min(2 * k + CANDIDATES, left)
    indices = torch.full((len(query), k), -1)
    squares = torch.full((len(query), k), math.inf, dtype=query.dtype)
    for rows, ranked, slack in _ranks(query, among, candidates, own, within, groups):
        values, best = ranked.topk(candidates, largest=False)
        exact, order = _squares(query[rows], among[best]).masked_fill(values.isinf(), inf).sort(1)
        indices[rows], squares[rows] = best.gather(1, order)[:, :k], exact[:, :k]
        # no row that is not a candidate is nearer than this
        floor = values[:, -1] - slack
        unsure = rows[exact[:, k - 1] > floor] if candidates < left else rows[:0]
        for row in unsure.tolist():
            all_squares = (among - query[row]).square().sum(1)
            if own is not None:
                all_squares[own[row]] = inf
            if groups is not None:
                all_squares[groups[1] == groups[0][row]] = inf
            squares[row], indices[row] = all_squares.topk(k, largest=False)
    distances = squares.sqrt()
    far = distances > within
    indices[far], distances[far] = -1, math.inf
    return indices, distances


def closest_pair(x: Float[Tensor, "n d"], group: Int[Tensor, " n"]) -> Pairs:
    """The two rows of different groups with the smallest distance, exact, over all pairs."""
    order = group.argsort(stable=True)
    best = Pairs(order[:0], order[:0], x.new_zeros(0), math.inf)
    for start in range(0, len(x), BLOCK):
        # pairs with earlier rows were looked at with those; the last group has nobody behind it
        rows, others = order[start : start + BLOCK], order[start:]
        if group[rows[0]] == group[others[-1]]:
            break
        index, distance = neighbours(
            x[rows], x[others], 1, within=best.threshold, groups=(group[rows], group[others])
        )
        near = int(distance[:, 0].argmin())
        if distance[near, 0] < best.threshold:
            found = others[index[near]]
            nearest_distance = float(distance[near, 0])
            best = Pairs(rows[near : near + 1], found, distance[near], nearest_distance)
    return best


def distinct_rows(rows: Float[Tensor, "n d"]) -> Int[Tensor, " distinct"]:
    """The first of every set of equal rows, in order."""
    first: dict[bytes, int] = {}
    for i, key in enumerate(_digests(rows.numpy() + 0.0)):
        first.setdefault(key, i)
    return torch.tensor(list(first.values()), dtype=torch.int64)


def _ranks(
    query: Float[Tensor, "m d"],
    among: Float[Tensor, "n d"],
    candidates: int,
    own: Int[Tensor, " m"] | None,
    within: float,
    groups: tuple[Int[Tensor, " m"], Int[Tensor, " n"]] | None = None,
) -> Iterator[tuple[Int[Tensor, " rows"], Float[Tensor, "rows n"], Float[Tensor, " rows"]]]:
    """Blocks of queries, ‖x‖² − 2 q·x for every row x, and what to take from that for a lower
    bound of the squared distance: products in float32 on centred data.

    Queries that have no row `within`, however float32 rounded, are left out.
    """
    centre = among.mean(0)
    x, q = (among - centre).float(), (query - centre).float()
    norms, lengths = x.square().sum(1), q.square().sum(1)
    rounding = ROUNDING * (lengths + norms.max())
    # how small the products must be for a row to lie within, if float32 were this wrong
    bound = within**2 - lengths + rounding + ROUNDING * within**2
    size = max(1, CHUNK // max(len(x), candidates * x.shape[1]))
    for rows in torch.arange(len(q)).split(size):
        ranked = torch.addmm(norms, q[rows], x.T, alpha=-2.0)
        if own is not None:
            ranked[torch.arange(len(rows)), own[rows]] = torch.inf
        if groups is not None:
            ranked.masked_fill_(groups[0][rows, None] == groups[1], torch.inf)
        if within < math.inf:  # a minimum is cheaper than an order
            close = ranked.amin(1) <= bound[rows]
            rows, ranked = rows[close], ranked[close]
        yield rows, ranked, rounding[rows] - lengths[rows]


def _squares(query: Float[Tensor, "m d"], rows: Float[Tensor, "m k d"]) -> Float[Tensor, "m k"]:
    return (rows - query.unsqueeze(1)).square().sum(2)


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


def _round(rows: Float[Tensor, "n d"], decimals: int) -> NDArray[np.float64]:
    """With 0.0 added: −0 and 0 are one number with two bit patterns."""
    rounded: NDArray[np.float64] = np.round(rows.numpy(), decimals) + 0.0
    return rounded


def _digests(rows: NDArray[np.float64]) -> list[bytes]:
    """Of rows to which 0.0 was added."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


MEASURES = (
    MeasureEntry(
        name="copies of training examples",
        measure=Overlap(),
        meaning="Share of evaluated examples that also stand in the training data.",
        direction=Direction.LOWER,
        family="data",
        passes=0,
        interval="examples",
        needs=frozenset({Need.INPUTS}),
        scope=Scope.SITES,
    ),
)


def example() -> tuple[Overlap, Task]:
    """Two of four evaluation rows occur in the training rows."""
    x = torch.arange(12.0).view(6, 2)
    y = torch.zeros(6, dtype=torch.int64)
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "test": Split(Columns(x=x[2:] % 10, y=y[2:]), Use.EVALUATE),
    }
    return Overlap(), Task(name="overlapping", axis=Axis.IID, splits=splits, objective=classify)
