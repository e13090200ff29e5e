"""Facts whose combination is asked without a step in between: two hops through a graph, and which
of two values is larger (Wang et al., 2024, arXiv:2405.15071).

Facts that are stated one by one are atomic, their combinations inferred. A share of the atomic
facts is never combined in training: questions about those alone are the split `ood`, combinations
of the others that training left out the split `iid`; there is no split without questions. Every
answer is one token, so its end is not asked. Columns: `tokens` (prompt, answer, padding 0), `mask`
(the answer); of two hops also `bridge`, the entity in the middle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use

Ints = NDArray[np.int64]
RECALLED = frozenset({"id_atomic", "ood_atomic", "train_inferred"})
"""Evaluated splits that are parts of training: whether it is known what is to be combined."""
PADDING = 0
PROMPT = 3
"""Tokens of an inferred question; an atomic one has two."""


@dataclass(frozen=True)
class Facts:
    """Questions of one kind; row k asks `prompt[k]` and wants `answer[k]`."""

    prompt: Ints
    answer: Ints
    bridge: Ints | None = None

    def __len__(self) -> int:
        return len(self.answer)

    def at(self, rows: Ints) -> "Facts":
        bridge = None if self.bridge is None else self.bridge[rows]
        return Facts(self.prompt[rows], self.answer[rows], bridge)

    def columns(self) -> Columns:
        n, read = self.prompt.shape
        tokens = np.full((n, PROMPT + 1), PADDING)
        tokens[:, :read], tokens[:, read] = self.prompt, self.answer
        mask = np.zeros(tokens.shape, dtype=bool)
        mask[:, read] = True
        found = {"tokens": torch.from_numpy(tokens), "mask": torch.from_numpy(mask)}
        if self.bridge is not None:
            found["bridge"] = torch.from_numpy(self.bridge)
        return Columns(**found)


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Everything that could be asked: atomic facts, the inferred ones that training may hold, and
    those that it leaves out.
    """

    id_atomic: Facts
    ood_atomic: Facts
    pool: Facts
    iid: Facts
    ood: Facts

    @property
    def largest_phi(self) -> float:
        return len(self.pool) / len(self.id_atomic)

    def task(self, name: str, phi: float | None, lab: Lab) -> Task:
        """Training on all atomic facts and φ · |ID atomic| inferred ones of the pool."""
        if phi is not None and not 0 < phi <= self.largest_phi:
            raise InvalidConfig(
                f"phi={phi} inferred facts per atomic one.",
                why=f"there are {len(self.pool)} to train on for {len(self.id_atomic)} atomic "
                "facts.",
                fix=f"use at most {self.largest_phi:.2f} (None: all), or more relations per "
                "entity.",
            )
        inferred = self.pool
        if phi is not None:
            n = round(phi * len(self.id_atomic))
            inferred = self.pool.at(lab.child("train").numpy().permutation(len(self.pool))[:n])
        parts = {
            "id_atomic": self.id_atomic,
            "ood_atomic": self.ood_atomic,
            "train_inferred": inferred,
            "iid": self.iid,
            "ood": self.ood,
        }
        splits = {
            name: Split(part.columns(), Use.EVALUATE, at=name)
            for name, part in parts.items()
            if len(part)
        }
        splits["train"] = Split(_concatenate(splits), Use.TRAIN, at="iid")
        return Task(name=name, axis=Axis.COMPOSITION, splits=splits, objective=exact_match)


def _concatenate(splits: Mapping[str, Split]) -> Columns:
    parts = [split.data for name, split in splits.items() if name in RECALLED]
    return Columns(
        **{
            name: torch.cat([part.columns[name] for part in parts])  # type: ignore[attr-defined]
            for name in ("tokens", "mask")
        }
    )


def _refuse_shares(ood_share: float, iid_share: float) -> None:
    if not (0 <= ood_share < 1 and 0 <= iid_share < 1):
        raise InvalidConfig(
            f"ood_share={ood_share}, iid_share={iid_share}.",
            why="they are the shares of facts that are never combined in training, and of "
            "combinations that it leaves out.",
            fix="use numbers from 0 on and below 1, such as 0.05.",
        )


@dataclass(frozen=True, kw_only=True)
class Composition:
    """⟨h, r₁⟩ → b and ⟨b, r₂⟩ → t are stated, ⟨h, r₁, r₂⟩ → t is asked.

    Every entity has `out_degree` distinct relations with a uniformly drawn tail. Paths with exactly
    one fact that is never combined are dropped.
    """

    entities: int = 64
    relations: int = 32
    out_degree: int = 16
    phi: float | None = None
    """Inferred training facts per atomic fact that may be combined; None: all of the pool."""
    ood_share: float = 0.05
    iid_share: float = 0.03
    recalls: ClassVar[frozenset[str]] = RECALLED

    def __post_init__(self) -> None:
        _refuse_shares(self.ood_share, self.iid_share)
        if self.entities < 2 or not 1 <= self.out_degree <= self.relations:
            raise InvalidConfig(
                f"Composition(entities={self.entities}, relations={self.relations}, "
                f"out_degree={self.out_degree}).",
                why="an entity's relations are distinct, and a hop leads to one of several.",
                fix=f"use 2 entities or more, and an out_degree from 1 to {self.relations}.",
            )

    @property
    def vocabulary(self) -> int:
        return 1 + self.entities + self.relations

    def build(self, lab: Lab) -> Task:
        return self.knowledge(lab).task("two-hop composition", self.phi, lab)

    def knowledge(self, lab: Lab) -> Knowledge:
        """Every fact and every path, as tokens: entities from 1 on, then relations."""
        rng = lab.child("graph").numpy()
        n, degree = self.entities, self.out_degree
        relations = np.stack([rng.permutation(self.relations)[:degree] for _ in range(n)])
        tails = rng.integers(n, size=(n, degree))
        heads = np.arange(n).repeat(degree)
        combined = np.ones(n * degree, dtype=bool)
        combined[rng.permutation(n * degree)[: round(self.ood_share * n * degree)]] = False

        entity, relation = 1, 1 + n
        fact_prompts = np.stack([heads + entity, relations.ravel() + relation], 1)
        facts = Facts(fact_prompts, tails.ravel() + entity)
        first = np.arange(n * degree).repeat(degree)
        # the second hop starts where the first one ends
        second = (tails.ravel()[:, None] * degree + np.arange(degree)).ravel()
        paths = Facts(
            np.concatenate([fact_prompts[first], fact_prompts[second, 1:]], 1),
            facts.answer[second],
            facts.answer[first],
        )
        both = np.flatnonzero(combined[first] & combined[second])
        left_out = rng.permutation(both)
        cut = round(self.iid_share * len(both))
        return Knowledge(
            id_atomic=facts.at(np.flatnonzero(combined)),
            ood_atomic=facts.at(np.flatnonzero(~combined)),
            pool=paths.at(np.sort(left_out[cut:])),
            iid=paths.at(np.sort(left_out[:cut])),
            ood=paths.at(np.flatnonzero(~combined[first] & ~combined[second])),
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """⟨attribute, e⟩ → value is stated, ⟨attribute, e₁, e₂⟩ → smaller, equal or larger is asked.

    Values are drawn uniformly; each attribute has entities of its own that are never compared in
    training, and answers of its own. Pairs of one such and one other entity are dropped.
    """

    entities: int = 100
    attributes: int = 4
    values: int = 10
    phi: float | None = 12.6
    """Compared pairs in training per stated value that may be compared; None: all of the pool."""
    ood_share: float = 0.1
    iid_share: float = 0.1
    recalls: ClassVar[frozenset[str]] = RECALLED

    def __post_init__(self) -> None:
        _refuse_shares(self.ood_share, self.iid_share)
        if self.entities < 2 or self.attributes < 1 or self.values < 2:
            raise InvalidConfig(
                f"Comparison(entities={self.entities}, attributes={self.attributes}, "
                f"values={self.values}).",
                why="a comparison needs two entities and values that differ.",
                fix="use 2 entities, 1 attribute and 2 values or more.",
            )

    @property
    def vocabulary(self) -> int:
        return 1 + self.values + 4 * self.attributes + self.entities

    def build(self, lab: Lab) -> Task:
        return self.knowledge(lab).task("comparison", self.phi, lab)

    def knowledge(self, lab: Lab) -> Knowledge:
        """Every value and every ordered pair, as tokens: values from 1 on, then three answers per
        attribute, attributes and entities.
        """
        rng = lab.child("values").numpy()
        value = rng.integers(self.values, size=(self.attributes, self.entities))
        answer = 1 + self.values
        attribute = answer + 3 * self.attributes
        entity = attribute + self.attributes

        compared = np.ones_like(value, dtype=bool)
        for row in compared:
            row[rng.permutation(self.entities)[: round(self.ood_share * self.entities)]] = False
        a, e = (x.ravel() for x in np.indices(value.shape))
        facts = Facts(np.stack([a + attribute, e + entity], 1), value.ravel() + 1)

        one, other = np.triu_indices(self.entities, 1)
        a = np.arange(self.attributes).repeat(len(one))
        one, other = np.tile(one, self.attributes), np.tile(other, self.attributes)
        sign = np.sign(value[a, one] - value[a, other])

        def order_pairs(rows: Ints) -> Facts:
            """The pairs of these rows, each in both orders."""
            at, left, right, s = a[rows], one[rows], other[rows], sign[rows]
            prompts = [
                np.stack([at + attribute, x + entity, y + entity], 1)
                for x, y in ((left, right), (right, left))
            ]
            answers = [answer + 3 * at + 1 + s, answer + 3 * at + 1 - s]
            return Facts(np.concatenate(prompts), np.concatenate(answers))

        both = rng.permutation(np.flatnonzero(compared[a, one] & compared[a, other]))
        cut = round(self.iid_share * len(both))
        known = compared.ravel()
        return Knowledge(
            id_atomic=facts.at(np.flatnonzero(known)),
            ood_atomic=facts.at(np.flatnonzero(~known)),
            pool=order_pairs(np.sort(both[cut:])),
            iid=order_pairs(np.sort(both[:cut])),
            ood=order_pairs(np.flatnonzero(~compared[a, one] & ~compared[a, other])),
        )


def example() -> Composition:
    return Composition(entities=12, relations=6, out_degree=4)
