"""Does a language model forget a task, and what else? Random labels on the user's own items, the
same steps on true labels beside them, and every other set of items before and after.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen import stats
from unseen.attributions.probes import probe
from unseen.engine.choice_likelihood import Precision, choice_likelihoods
from unseen.engine.loop import Budget
from unseen.engine.responses import encode_exchanges, response_task
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.forgetting import (
    choice_confidence,
    forget_ratio,
    representation_variability,
)
from unseen.methods.random_label_forgetting import (
    LabelDraw,
    exchanges_of,
    item_labels,
)
from unseen.methods.response_finetune import LoRA, ResponseFinetune, keep_fit
from unseen.models.pretrained import CausalLM
from unseen.reading import Reading
from unseen.subjects.easy_to_hard import refuse_unread_items
from unseen.tasks.graded_questions import Item, remove_repeats
from unseen.tasks.graded_questions.item import content

REWORDED = "Q: {question}\nA:"
"""Another wording of the same question: a near-duplicate of what was forgotten."""


@dataclass(frozen=True)
class ItemScores:
    """A model's answers to items, in their order."""

    correct: Float[Tensor, " n"]
    chance: Float[Tensor, " n"]
    confidence: Reading
    states: tuple[Float[Tensor, "choice layer d"], ...]
    """At the end of each choice, where layers were asked for."""

    @property
    def accuracy(self) -> Reading:
        return stats.proportion(float(self.correct.sum()), len(self.correct))


def score_items(
    model: CausalLM,
    items: Sequence[Item],
    *,
    layers: Sequence[int] = (),
    precision: Precision = Precision.FLOAT32,
) -> ItemScores:
    """Which choice is the most likely per token, and how sure the model is of it."""
    found = choice_likelihoods(
        model,
        [item.prompt for item in items],
        [item.continuations for item in items],
        precision=precision,
        layers=layers,
    )
    right = [
        float(int(one.per_token.argmax()) == item.answer)
        for one, item in zip(found, items, strict=True)
    ]
    return ItemScores(
        correct=torch.tensor(right),
        chance=torch.tensor([1 / len(item.choices) for item in items]),
        confidence=choice_confidence([one.per_token for one in found]),
        states=tuple(one.hidden for one in found if one.hidden is not None),
    )


@dataclass(frozen=True)
class ItemForgetting:
    """Trains on random answers to `n` of the items and evaluates the others, the same items
    reworded, and other sets.
    """

    n: int = 32
    held_out: int = 80
    """Items of the same set that were not trained on, at most."""
    epochs: int = 8
    batch_size: int = 8
    lr: float = 5e-5
    learn_epochs: int = 0
    """Passes over the true answers before, where the model does not know the task."""
    learn_lr: float = 3e-5
    draw: LabelDraw = LabelDraw.STRATIFIED
    redraw: bool = False
    """Another random answer in every pass."""
    lora: LoRA | None = None
    bfloat16: bool = False
    length: int = 512
    """Tokens of prompt and answer."""
    layers: tuple[int, ...] = ()
    """Layers whose states are probed; 0 is the embedding, −1 the last."""

    @property
    def precision(self) -> Precision:
        return Precision.BFLOAT16 if self.bfloat16 else Precision.FLOAT32

    def split(self, items: Sequence[Item], lab: Lab) -> tuple[list[Item], list[Item]]:
        """Items to forget and held-out ones, without repeats, drawn stratified by answer."""
        unique = list(remove_repeats(items))
        if self.n < 2 or len(unique) < self.n + 2:
            most = len(unique) - 2
            raise InvalidData(
                f"{len(unique)} different items cannot give {self.n} to forget and two held out.",
                why="two answers are forgotten at least, and forgetting is judged on items that "
                "were not trained on.",
                fix=f"give more items, or forget 2 to {most}." if most > 2 else "give more items.",
            )
        order = lab.child("items").numpy().permutation(len(unique))
        # answers alternate, so that the draw holds each as often as it can
        rank: dict[int, int] = {}
        turns = []
        for k in order:
            answer = unique[k].answer
            rank[answer] = rank.get(answer, 0) + 1
            turns.append((rank[answer], answer, k))
        chosen = [unique[k] for _, _, k in sorted(turns)]
        return chosen[: self.n], chosen[self.n : self.n + self.held_out]

    def fit(self, model: CausalLM, items: Sequence[Item], labels: Sequence[Sequence[int]], lab: Lab,
            lr: float) -> CausalLM:  # fmt: skip
        """The model trained for one pass per list of labels."""
        exchanges = [one for epoch in labels for one in exchanges_of(items, epoch)]
        data = encode_exchanges(exchanges, model.encode, self.length, start=model.start)
        steps = len(labels) * max(1, len(items) // self.batch_size)
        budget = Budget(
            steps=steps, batch_size=self.batch_size, lr=lr, clip=1.0, bfloat16=self.bfloat16
        )
        # fixed labels: one pass's rows, drawn again and again; redrawn ones: all rows once
        fixed = all(list(epoch) == list(labels[0]) for epoch in labels)
        columns = data.columns.subset(slice(len(items))) if fixed else data.columns
        method = ResponseFinetune(budget, self.lora)
        trained = keep_fit(method, model, response_task(columns), lab).model
        assert isinstance(trained, CausalLM)
        return trained

    def score(self, model: CausalLM, sets: Mapping[str, Sequence[Item]]) -> dict[str, ItemScores]:
        """The answers to every set, with states of the held-out items."""
        return {
            name: score_items(
                model,
                items,
                precision=self.precision,
                layers=self.layers if name == "held out" else (),
            )
            for name, items in sets.items()
        }

    def run(
        self,
        model: CausalLM,
        name: str,
        items: Sequence[Item],
        others: Mapping[str, Sequence[Item]],
        lab: Lab,
    ) -> "ForgettingResult":
        """What random answers to `items` take from them and from the other sets. The model itself
        stays as it is.
        """
        forget, rest = self.split(items, lab)
        refuse_unread_items(model, [*forget, *rest, *(x for one in others.values() for x in one)])
        truth = [item.answer for item in forget]
        epochs = range(self.epochs)
        drawn = [
            item_labels(forget, self.draw, lab.child("labels", k if self.redraw else 0))
            for k in epochs
        ]
        if self.learn_epochs:
            model = self.fit(
                copy.deepcopy(model),
                forget,
                [truth] * self.learn_epochs,
                lab.child("learn"),
                self.learn_lr,
            )
        sets = {
            "train": forget,
            "reworded": [replace(item, template=REWORDED) for item in forget],
            "held out": rest,
            **{other: list(remove_repeats(asked)) for other, asked in others.items()},
        }
        refuse_overlap(forget, {key: one for key, one in sets.items() if key not in REPEATS})
        scores = {"before": self.score(model, sets)}
        # one arm at a time: a copy of the weights is as large as the model
        for arm, labels in (("random", drawn), ("true", [truth] * self.epochs)):
            trained = self.fit(copy.deepcopy(model), forget, labels, lab.child("fit"), self.lr)
            scores[arm] = self.score(trained, sets)
            if arm == "random":
                memorised = self.score(trained, {"labels": _relabel(forget, drawn[-1])})["labels"]
        agreement = float(np.mean([a == b for a, b in zip(truth, drawn[0], strict=True)]))
        probes = {}
        for arm in ("before", "random"):
            found = probe_items(scores[arm]["held out"], rest, lab)
            probes[arm] = {self.layers[k]: readings for k, readings in found.items()}
        return ForgettingResult(
            name, scores, memorised.accuracy, agreement, probes if self.layers else {}
        )


def _relabel(items: Sequence[Item], labels: Sequence[int]) -> list[Item]:
    return [replace(item, answer=label) for item, label in zip(items, labels, strict=True)]


REPEATS = ("train", "reworded")
"""Sets that hold the forgotten items themselves."""


def refuse_overlap(forget: Sequence[Item], sets: Mapping[str, Sequence[Item]]) -> None:
    """Raises where another set holds an item that is trained on."""
    trained = {content(item) for item in forget}
    for name, items in sets.items():
        shared = next((item for item in items if content(item) in trained), None)
        if shared is not None:
            raise InvalidData(
                f"The set `{name}` holds {shared.title}, which is trained on.",
                why="forgetting it would be counted twice.",
                fix="remove the item from one of the sets.",
            )


def probe_items(
    scores: ItemScores, items: Sequence[Item], lab: Lab
) -> dict[int, tuple[Reading, Reading]]:
    """Per probed layer, in their order: accuracy of a linear probe for the right answer, and of its
    control with answers dealt out anew.

    With fewer than five items of an answer there are as many folds, with one there is no probe.
    Where all items have the same choices, the states behind all of them tell which is right. Else
    the probe tells which of two choices is, the right and a wrong one, from the difference of their
    states: chance is a half.
    """
    found = {}
    for layer in range(scores.states[0].shape[1] if scores.states else 0):
        states = [one[:, layer] for one in scores.states]
        if len({item.choices for item in items}) == 1:
            rows = torch.stack([one.flatten() for one in states])
            y = torch.tensor([item.answer for item in items])
        else:
            rows, y = choice_pairs(states, items, lab.child("pairs"))
        folds = min(5, int(torch.bincount(y, minlength=2).min()))
        if folds < 2:
            continue  # one answer only, or one of it: nothing can be read and tested
        result = probe(rows, y, lab.child("probe", layer), folds=folds)
        found[layer] = (result.accuracy, result.control)
    return found


def choice_pairs(
    states: Sequence[Float[Tensor, "choice d"]], items: Sequence[Item], lab: Lab
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Per item the difference of the states behind the right and a random wrong choice, in random
    order; 1 where the right one comes first. As many of each as there can be.
    """
    rng = lab.numpy()
    first = rng.permutation(np.arange(len(items)) % 2)
    rows = []
    for one, item, sign in zip(states, items, 2 * first - 1, strict=True):
        wrong = rng.choice([k for k in range(len(item.choices)) if k != item.answer])
        rows.append(float(sign) * (one[item.answer] - one[int(wrong)]))
    return torch.stack(rows), torch.from_numpy(first).long()


@dataclass(frozen=True)
class ForgettingResult:
    """What was measured: scores by arm ("before", "random", "true") and set of items."""

    name: str
    scores: Mapping[str, Mapping[str, ItemScores]]
    fit: Reading
    """Accuracy against the random answers: without it nothing was memorised."""
    agreement: float
    """Share of random answers that are the true ones."""
    probes: Mapping[str, Mapping[int, tuple[Reading, Reading]]]

    def ratio(self, name: str, arm: str = "random") -> Reading:
        """The forget ratio on a set; NaN where the model knew too little before."""
        before, after = (self.scores[a][name] for a in ("before", arm))
        try:
            return forget_ratio(
                before.correct.numpy(), after.correct.numpy(), before.chance.numpy()
            )
        except InvalidData:
            return Reading(nan, n=len(before.correct), unit="fraction")

    @property
    def variability(self) -> float:
        """Of the states behind the last probed layer, over held-out items, before."""
        states = self.scores["before"]["held out"].states
        return representation_variability(torch.stack([one[:, -1].mean(0) for one in states]))

    def rows(self) -> Iterator[dict[str, float | int | str]]:
        """One row per arm and set of items."""
        for name, before in self.scores["before"].items():
            for arm in ("random", "true"):
                after, ratio = self.scores[arm][name], self.ratio(name, arm)
                row: dict[str, float | int | str] = {
                    "forget": self.name,
                    "test": name,
                    "arm": arm,
                    "n": len(before.correct),
                    "before": before.accuracy.value,
                    "after": after.accuracy.value,
                    "chance": float(before.chance.mean()),
                }
                # a ratio to a small gain over guessing may have an interval without an end
                found = {"ratio": ratio.value, "low": ratio.low, "high": ratio.high}
                if np.isfinite(ratio.value):
                    row |= {key: value for key, value in found.items() if np.isfinite(value)}
                yield row
