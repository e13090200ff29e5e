"""Training on items of one hardness and answering those of another: zero-shot, in context, by a
linear head on fixed features, and by fine-tuning.

Hase et al. (2024), arXiv:2401.06751. Items are divided once: those to evaluate never train in any
run, and easy and hard training sets have equal size.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.engine.choice_likelihood import Precision, choice_likelihoods, refuse_unreadable
from unseen.engine.responses import Exchange, encode_exchanges, response_task
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.choice_head import (
    ChoiceHead,
    LinearChoiceHead,
    head_task,
    right_share,
    share_of_highest,
)
from unseen.methods.response_finetune import ResponseFinetune
from unseen.models.embedders import Embedder
from unseen.models.pretrained import CausalLM
from unseen.tasks.graded_questions import Item, Strata, Stratum
from unseen.wording import number

ALL = "all"
"""The source of training items of every hardness, as many of each stratum as its share."""
FEWEST_TEST = 20
"""Items of a stratum that must be left to evaluate."""


@dataclass(frozen=True)
class ItemDraw:
    """Which items train in which run, and which are evaluated, by stratum."""

    train: Mapping[Stratum, tuple[tuple[int, ...], ...]]
    """For each run the indices; strata with too few items to train on have none."""
    test: Mapping[Stratum, tuple[int, ...]]

    @property
    def runs(self) -> int:
        return len(self.train[Stratum.EASY])

    @property
    def indices(self) -> tuple[int, ...]:
        """Every item that is read at least once."""
        train = {k for runs in self.train.values() for run in runs for k in run}
        return tuple(sorted(train.union(*self.test.values())))

    def train_indices(self, source: str, run: int) -> tuple[int, ...]:
        """The training items of one run; of `all` strata so many in sum as of each stratum."""
        if source != ALL:
            return self.train[Stratum(source)][run]
        parts = [runs[run] for runs in self.train.values()]
        total = len(parts[0])
        share = [total // len(parts) + (k < total % len(parts)) for k in range(len(parts))]
        return tuple(k for part, n in zip(parts, share, strict=True) for k in part[:n])


def draw_train_and_test(
    strata: Strata, n_train: int, most_test: Mapping[Stratum, int], runs: int, lab: Lab
) -> ItemDraw:
    """Of each stratum up to `most_test` items to evaluate; every run draws its training items from
    the others.
    """
    if runs < 1 or n_train < 2:
        raise InvalidConfig(
            f"runs={runs}, n_train={n_train}.",
            why="at least one run trains on at least two items.",
            fix="use 5 runs of 160 items.",
        )
    train: dict[Stratum, tuple[tuple[int, ...], ...]] = {}
    test: dict[Stratum, tuple[int, ...]] = {}
    for stratum in Stratum:
        members = strata.of(stratum)
        order = lab.child("draw", stratum).numpy().permutation(members).tolist()
        left = len(members) - n_train
        if left < FEWEST_TEST:
            if stratum is not Stratum.MEDIUM:
                raise _too_few(stratum, len(members), n_train)
            test[stratum] = tuple(sorted(order[: most_test[stratum]]))
            continue
        test[stratum] = tuple(sorted(order[: min(most_test[stratum], left)]))
        pool = order[len(test[stratum]) :]
        train[stratum] = tuple(
            tuple(lab.child("train", stratum, run).numpy().permutation(pool)[:n_train].tolist())
            for run in range(runs)
        )
    return ItemDraw(train, {stratum: items for stratum, items in test.items() if items})


def _too_few(stratum: Stratum, size: int, n_train: int) -> InvalidData:
    return InvalidData(
        f"{number(size)} items are {stratum}; {n_train} to train on and {FEWEST_TEST} to evaluate "
        f"are {number(n_train + FEWEST_TEST)}.",
        why="an item that trains is never evaluated, and easy and hard training sets have equal "
        "size.",
        fix=f"train on at most {max(0, size - FEWEST_TEST)} items, move the cuts, or add items.",
    )


def refuse_unread_items(model: CausalLM, items: Sequence[Item]) -> None:
    """Names an item that the model cannot read, as one beyond its context, before any is read."""
    for item in items:
        title = item.title[0].upper() + item.title[1:]
        refuse_unreadable(model, title, item.prompt, item.continuations)


@dataclass(frozen=True)
class ItemReadings:
    """What a frozen model says about items: a score per choice, and features of it."""

    score: Float[Tensor, "item choice"]
    """Σ log p of a choice; −∞ where an item has no such choice."""
    per_token: Float[Tensor, "item choice"]
    columns: Columns
    """x [item, choice, feature], present, y."""
    tokens: int = 0
    """That were read."""


def read_by_model(
    model: CausalLM, items: Sequence[Item], precision: Precision, lab: Lab, layers: bool = True
) -> ItemReadings:
    """Likelihoods of the choices, and as features the hidden states of a middle and the last layer
    at each choice's last token.
    """
    depth = int(model.model.config.num_hidden_layers)
    chosen = (depth // 2, depth) if layers else ()
    found = [
        one
        for part in lab.track(range(0, len(items), 32), total=(len(items) + 31) // 32)
        for one in choice_likelihoods(
            model,
            [item.prompt for item in items[part : part + 32]],
            [item.continuations for item in items[part : part + 32]],
            precision=precision,
            layers=chosen,
        )
    ]
    features = [one.hidden.flatten(1) for one in found if one.hidden is not None]
    return ItemReadings(
        score=pad_choices([one.total for one in found], -torch.inf),
        per_token=pad_choices([one.per_token for one in found], -torch.inf),
        columns=choice_columns(items, features or [one.total[:, None] for one in found]),
        tokens=sum(int(one.tokens.sum()) for one in found),
    )


def read_by_embedder(embedder: Embedder, items: Sequence[Item]) -> Columns:
    """The vectors of question and choice together as features."""
    texts = [f"{item.question} {choice}" for item in items for choice in item.choices]
    vectors = embedder.embed(texts)
    return choice_columns(items, list(vectors.split([len(item.choices) for item in items])))


def choice_columns(items: Sequence[Item], features: Sequence[Tensor]) -> Columns:
    """Features per choice, filled up with zeros where an item has fewer choices than others."""
    most = max(len(item.choices) for item in items)
    x = torch.zeros(len(items), most, features[0].shape[1])
    present = torch.zeros(len(items), most, dtype=torch.bool)
    for k, rows in enumerate(features):
        x[k, : len(rows)] = rows
        present[k, : len(rows)] = True
    return Columns(x=x, present=present, y=answers(items))


def answers(items: Sequence[Item]) -> Tensor:
    return torch.tensor([item.answer for item in items])


def pad_choices(rows: Sequence[Tensor], fill: float) -> Float[Tensor, "item choice"]:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=fill)


Hits = Mapping[Stratum, Float[Tensor, "run item"]]
"""Right answers (1, or 1/k of a tie among k) on the items to evaluate, by stratum."""


def zero_shot(readings: ItemReadings, items: Sequence[Item], draw: ItemDraw) -> Hits:
    """The most likely choice, without any training: one run."""
    hits = share_of_highest(readings.score, answers(items))
    return {stratum: hits[list(test)][None] for stratum, test in draw.test.items()}


def guessing(items: Sequence[Item], draw: ItemDraw) -> Hits:
    """1 / number of choices."""
    return {
        stratum: torch.tensor([[1 / len(items[k].choices) for k in test]])
        for stratum, test in draw.test.items()
    }


def linear_head(
    columns: Columns, draw: ItemDraw, source: str, lab: Lab, method: LinearChoiceHead
) -> Hits:
    """A head per run, trained on the source's items."""
    runs = []
    for run in range(draw.runs):
        train = columns.subset(list(draw.train_indices(source, run)))
        task = head_task(train, train)
        features = train.columns["x"].shape[2]
        head = method.fit(ChoiceHead(features), task, lab.child("head", source, run)).model
        with torch.no_grad():
            runs.append(
                {
                    stratum: right_share(head, columns.subset(list(test)).columns)
                    for stratum, test in draw.test.items()
                }
            )
    return stack_runs(runs)


def stack_runs(runs: Sequence[Mapping[Stratum, Tensor]]) -> Hits:
    return {stratum: torch.stack([run[stratum] for run in runs]) for stratum in runs[0]}


def in_context(
    model: CausalLM,
    items: Sequence[Item],
    draw: ItemDraw,
    source: str,
    evaluate: Mapping[Stratum, Sequence[int]],
    shots: int,
    precision: Precision,
    lab: Lab,
) -> Hits:
    """Each run puts `shots` answered training items before every question."""
    runs = []
    for run in range(draw.runs):
        before = examples_before(items, draw, source, run, shots)
        chosen = {
            stratum: [put_before(before, items[k]) for k in test]
            for stratum, test in evaluate.items()
        }
        runs.append(
            {
                stratum: share_of_highest(
                    read_by_model(model, part, precision, lab, layers=False).score, answers(part)
                )
                for stratum, part in chosen.items()
            }
        )
    return stack_runs(runs)


def examples_before(
    items: Sequence[Item], draw: ItemDraw, source: str, run: int, shots: int
) -> str:
    """The first training items of a run, answered."""
    return demonstrations([items[k] for k in draw.train_indices(source, run)[:shots]])


def refuse_long_examples(
    model: CausalLM, items: Sequence[Item], draw: ItemDraw, sources: Sequence[str], shots: int
) -> None:
    """Raises where the examples of a run leave no room for the longest item to evaluate."""
    longest = max(
        (items[k] for test in draw.test.values() for k in test),
        key=lambda item: len(model.encode(item.prompt + max(item.continuations, key=len))),
    )
    for source in sources:
        for run in range(draw.runs):
            before = examples_before(items, draw, source, run, shots)
            name = f"With {shots} examples before it, {longest.title}"
            refuse_unreadable(
                model, name, put_before(before, longest).prompt, longest.continuations
            )


def demonstrations(items: Sequence[Item]) -> str:
    """Questions with their right answers, a blank line behind each."""
    return "".join(f"{item.prompt}{item.continuations[item.answer]}\n\n" for item in items)


def put_before(text: str, item: Item) -> Item:
    """The item whose prompt begins with a text."""
    return replace(item, template=text.replace("{", "{{").replace("}", "}}") + item.template)


def fine_tuned(
    model: CausalLM,
    items: Sequence[Item],
    draw: ItemDraw,
    source: str,
    method: ResponseFinetune,
    precision: Precision,
    lab: Lab,
) -> Hits:
    """A copy of the model per run, trained on the right answers to the source's items."""
    runs = []
    for run in range(draw.runs):
        train = [items[k] for k in draw.train_indices(source, run)]
        exchanges = [Exchange(item.prompt, item.continuations[item.answer]) for item in train]
        data = encode_exchanges(exchanges, model.encode, model.context or 1024, start=model.start)
        fit = lab.child("fine-tuning", source, run)
        trained = method.fit(copy.deepcopy(model), response_task(data), fit).model
        assert isinstance(trained, CausalLM)
        runs.append(
            {
                stratum: share_of_highest(
                    read_by_model(trained, part, precision, lab, layers=False).score,
                    answers(part),
                )
                for stratum, part in (
                    (stratum, [items[k] for k in test]) for stratum, test in draw.test.items()
                )
            }
        )
    return stack_runs(runs)


def spread_readings(
    readings: ItemReadings, index: Sequence[int], items: Sequence[Item]
) -> ItemReadings:
    """Readings of some items at their places among all; the others have no choice."""

    def spread(rows: Tensor, fill: float) -> Tensor:
        out = rows.new_full((len(items), *rows.shape[1:]), fill)
        out[list(index)] = rows
        return out

    columns = {name: spread(column, 0) for name, column in readings.columns.columns.items()}
    return replace(
        readings,
        score=spread(readings.score, -torch.inf),
        per_token=spread(readings.per_token, -torch.inf),
        columns=Columns(**{**columns, "y": answers(items)}),
    )
