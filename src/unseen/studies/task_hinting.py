"""Sorting longer sequences with a hint, and with a temperature.

Awasthi and Gupta (2023), arXiv:2310.00726: training beside a simpler task improves length
generalization. Decoders without positions, which sort up to three times the trained length by
themselves and fail at five times.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Schedule, erm_step, train
from unseen.engine.token_pairs import TO
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.finetune import Finetune
from unseen.methods.task_hinting import TaskHinting
from unseen.models.transformer import Decoder, Positions, Transformer, scale_scores
from unseen.study import Claim, Effect, Row, Scale, Study, Unit, Value, average, gap
from unseen.study.effects import limit, share
from unseen.study.figures import bars, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.tasks.algorithmic import (
    Algorithmic,
    Carry,
    Fill,
    Increment,
    Minimum,
    Occurrences,
    Problem,
    Sort,
    Successor,
    length_curve,
)


class Arm(StrEnum):
    """How a decoder is trained."""

    PLAIN = "plain"
    HINT = "successor hint, equal steps"
    HINT_MORE = "successor hint, equal sort batches"
    COUNT = "count hint, equal steps"
    FILL = "fill hint, equal steps"
    MIN = "min hint, equal steps"
    INCREMENT = "increment, plain"
    CARRY = "increment, carry hint"


JUDGED = (Arm.PLAIN, Arm.HINT, Arm.HINT_MORE)
REPORTED = (Arm.COUNT, Arm.FILL, Arm.MIN, Arm.INCREMENT, Arm.CARRY)
"""One seed each."""


@dataclass(frozen=True)
class Config:
    values: int = 50
    longest: int = 10
    lengths: tuple[int, ...] = (10, 20, 30, 50)
    """Evaluated: the longest trained one, twice, three and five times that."""
    fitted: tuple[int, ...] = (20, 25)
    """Shortest and longest length on which temperatures are fitted."""
    probability: float = 0.5
    width: int = 64
    layers: int = 2
    heads: int = 4
    budget: Budget = Budget(
        steps=1_000, batch_size=128, lr=2e-3, schedule=Schedule.COSINE, warmup=100, clip=1.0
    )
    temperature: Budget = Budget(steps=60, batch_size=64, lr=0.05)
    """For one number per head."""
    n: int = 300
    """Examples per length."""
    seeds: int = 3

    def cells(self) -> Iterator["Job"]:
        yield from interleave(Grid((self,), JUDGED, self.seeds), Grid((self,), REPORTED, 1))

    def spec(self, problem: Problem) -> Algorithmic:
        return Algorithmic(problem, self.longest, self.lengths, self.n)

    @property
    def hints(self) -> Mapping[Arm, Problem]:
        v = self.values
        return {
            Arm.HINT: Successor(v),
            Arm.HINT_MORE: Successor(v),
            Arm.COUNT: Occurrences(v + 1),
            Arm.FILL: Fill(v),
            Arm.MIN: Minimum(v),
            Arm.CARRY: Carry(v + 1),
        }


Job: TypeAlias = Cell[Config, Arm]


def run(cell: Job, lab: Lab) -> Iterator[Row]:
    """Exact match by length; of plain sorting with a temperature, too; the probe."""
    config, arm = cell.setting, cell.arm
    main = (
        Increment(config.values + 1) if arm in (Arm.INCREMENT, Arm.CARRY) else Sort(config.values)
    )
    trained = fit(config, arm, config.spec(main), lab)
    rows = [*curve(config, trained, main, arm, lab)]
    if isinstance(main, Sort):
        rows += probe(config, trained.model, main, arm, lab)
    if arm is Arm.PLAIN:
        rows += fixed_temperature(config, trained, main, lab)
        # last: it changes the model
        rows += fitted_temperature(config, trained, main, lab)
    return label(rows, seed=cell.seed)


def fit(config: Config, arm: Arm, spec: Algorithmic, lab: Lab) -> Trained:
    """Arms of a seed share the first weights; temperatures are there from the start and 0."""
    shape = Decoder(
        vocabulary=spec.vocabulary + 1,  # the count of a hint may need one token more
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        positions=Positions.NONE,
        temperature_from=spec.width(config.longest),
    )
    model = untrained_model(lambda: Transformer(shape), lab)
    task = spec.build(lab.child("data"))
    if arm not in config.hints:
        return train(model, task, erm_step, config.budget, lab.child("fit"))
    hint = replace(config.spec(config.hints[arm]), lengths=(config.longest,))
    method = TaskHinting(hint, config.probability, config.budget)
    method = method.at_equal_batches() if arm is Arm.HINT_MORE else method
    return method.fit(model, task, lab.child("fit"))


def curve(
    config: Config, trained: Trained, main: Problem, arm: str, lab: Lab
) -> Iterator[dict[str, Value]]:
    spec = config.spec(main)
    for n, reading in length_curve(trained, spec, config.lengths, lab.child("test")).items():
        yield score_row(config, arm, n, reading.value)


def score_row(config: Config, arm: str, n: int, exact: float) -> dict[str, Value]:
    return {
        "arm": str(arm),
        "times": n // config.longest,
        "length": n,
        "exact": exact,
        "hits": round(exact * config.n),
        "n": config.n,
    }


FIXED, FITTED = "plain, τ = ln n / ln L", "plain, τ of every head fitted"


def fixed_temperature(
    config: Config, trained: Trained, main: Problem, lab: Lab
) -> Iterator[dict[str, Value]]:
    """Every score times ln n / ln L beyond the trained length L, as written down beforehand."""
    spec = config.spec(main)
    for n in config.lengths:
        factor = max(1.0, math.log(n) / math.log(config.longest))
        with scale_scores(model_of(trained), factor):
            found = length_curve(trained, spec, [n], lab.child("test"))[n]
        yield score_row(config, FIXED, n, found.value)


def fitted_temperature(
    config: Config, trained: Trained, main: Problem, lab: Lab
) -> Iterator[dict[str, Value]]:
    """One number per head, 0 at first, trained on somewhat longer sequences; all else stays."""
    low, high = config.fitted
    spec = Algorithmic(main, high, (high,), config.n, shortest=low)
    names = [n for n, _ in trained.model.named_parameters() if n.endswith("attention.temperature")]
    tuned = Finetune(config.temperature, tuple(names)).fit(
        trained.model, spec.build(lab.child("longer")), lab.child("temperature")
    )
    yield from curve(config, tuned, main, FITTED, lab)


def model_of(trained: Trained) -> Transformer:
    assert isinstance(trained.model, Transformer)
    return trained.model


# the probe -------------------------------------------------------------------------------------


@torch.no_grad()
def attention_targets(
    model: Transformer, tokens: Int[Tensor, "b s"]
) -> Int[Tensor, "layer head b s"]:
    """The key with the largest score, for every head and query, of a decoder without positions."""
    inputs: list[Tensor] = []
    hooks = [
        block.get_submodule("attention").register_forward_pre_hook(
            lambda module, given: inputs.append(given[0])
        )
        for block in model.blocks
    ]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    later = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    for block, x in zip(model.blocks, inputs, strict=True):
        vectors = block.get_submodule("attention.qkv")(x)
        vectors = vectors.view(*x.shape[:2], 3, model.shape.heads, model.shape.head_size)
        query, key = vectors[:, :, 0].transpose(1, 2), vectors[:, :, 1].transpose(1, 2)
        scores = (query @ key.mT).masked_fill(later, -math.inf)
        found.append(scores.argmax(-1).transpose(0, 1))
    return torch.stack(found)


def successor_attention(model: Transformer, data: Columns) -> Float[Tensor, "layer head"]:
    """How often each head looks, from a written number, at the next larger one of the source."""
    tokens = data.columns["tokens"]
    n = int(data.columns["length"][0])
    start = int((tokens[0] == TO).nonzero()[0])
    source, written = tokens[:, 1:start], tokens[:, start + 1 : start + 1 + n]
    following = written[:, 1:, None] == source[:, None]  # of all but the last
    position = following.long().argmax(-1) + 1
    looked = attention_targets(model, tokens)[..., start + 1 : start + n]
    return (looked == position).double().mean((-1, -2))


def probe(
    config: Config, model: torch.nn.Module, main: Problem, arm: str, lab: Lab
) -> Iterator[dict[str, Value]]:
    """The head that looks at the successor most often on some sequences, read on others."""
    assert isinstance(model, Transformer)
    for times, n in ((1, config.longest), (3, 3 * config.longest)):
        seen, unseen = (
            main.draw(n, config.n, lab.child("probe", part, n).generator()) for part in "ab"
        )
        best = int(successor_attention(model, seen).argmax())
        yield {
            "arm": str(arm),
            "probe times": times,
            "successor": float(successor_attention(model, unseen).flatten()[best]),
            "by chance": 1 / n,
        }


# what is claimed -------------------------------------------------------------------------------

LONGEST = 5


def exact(arm: str, times: int) -> Effect:
    return share("hits", "n", {"arm": str(arm), "times": times})


def gain(arm: str, over: str, times: int) -> Effect:
    where: dict[str, Value] = {"times": times}
    of, against = ({**where, "arm": str(name)} for name in (arm, over))
    return limit(gap("exact", of, against), -1.0, 1.0)


def once(says: str, arm: Arm, times: int) -> Claim:
    """An arm with one seed: reported."""
    effect = average("exact", arm=str(arm), times=times)
    return Claim(says, effect, above=0.5, unit=Unit.MODEL)


CLAIMS = (
    Claim("Plain training sorts at the longest trained length (at least 0.98).",
          exact(Arm.PLAIN, 1), above=0.98),
    Claim("With the hint, at equal steps, it is sorted there, too.",
          exact(Arm.HINT, 1), above=0.98),
    Claim("With the hint at equal sort batches, too.", exact(Arm.HINT_MORE, 1), above=0.98),
    Claim("Plain sorting fails at five times the trained length (at most 0.1).",
          exact(Arm.PLAIN, LONGEST), below=0.1),
    Claim("A temperature fixed beforehand, ln n / ln L, lifts it there by at least 0.3.",
          gain(FIXED, Arm.PLAIN, LONGEST), above=0.3),
    Claim("Temperatures fitted per head at up to 2.5 times the length lift it there by at least "
          "0.3.",
          gain(FITTED, Arm.PLAIN, LONGEST), above=0.3),
    Claim("The successor hint lifts sorting at three times the length by at least 0.1, at equal "
          "steps.",
          gain(Arm.HINT, Arm.PLAIN, 3), above=0.1),
    Claim("It does at five times the length, by at least 0.1, at equal steps.",
          gain(Arm.HINT, Arm.PLAIN, LONGEST), above=0.1),
    Claim("It lifts sorting at three times the length by at least 0.1, at equal sort batches.",
          gain(Arm.HINT_MORE, Arm.PLAIN, 3), above=0.1),
    Claim("It does at five times the length, by at least 0.1, at equal sort batches.",
          gain(Arm.HINT_MORE, Arm.PLAIN, LONGEST), above=0.1),
    Claim("The best head looks at the successor more often than a head would by chance (plain, "
          "trained length).",
          average("successor", {"arm": "plain", "probe times": 1}, within=(0.0, 1.0)), above=0.5),
    Claim("With the hint the best head looks at the successor at least as often (trained length).",
          gap("successor", {"arm": str(Arm.HINT), "probe times": 1},
              {"arm": "plain", "probe times": 1}), above=-0.05),
    once("The count hint reaches half of the sequences at three times the length.", Arm.COUNT, 3),
    once("The fill hint does.", Arm.FILL, 3),
    once("The min hint does.", Arm.MIN, 3),
    once("Increment without a hint is solved for half of the numbers at twice the length.",
         Arm.INCREMENT, 2),
    once("With the carry hint it is.", Arm.CARRY, 2),
)  # fmt: skip

by_length = bars(
    share("hits", "n"),
    by=("arm", "length"),
    title="Exact match by length (mean over seeds)",
    label="exact match",
)
table = summary(("arm", "length", "probe times"), ("exact", "successor", "by chance"))

LAPTOP = Config()
study = Study(
    name="task_hinting",
    system="44",
    differs=(
        "The paper trains decoders of depth 2 and more on sequences of up to 20 of 100 values with "
        "repetitions for about a million batches and tests at 100; here decoders with two layers "
        "of width 64 and no positions sort up to 10 different values of 50 for 1,000 steps of 128 "
        "sequences, tested at 50, with 3 seeds. Without positions and repetitions plain training "
        "already sorts at three times the length, so the hint can only show what it adds beyond. "
        "The fixed temperature multiplies all scores at test, which the paper does not do; it puts "
        "length-dependent parameters into training. Count, fill and min hints and increment have "
        "one seed: reported, not judged. Among different values every count is 1, so that the "
        "count hint says nothing about the values."
    ),
    not_tested=(
        "More than 92 % at five times the length on data with repetitions, and at the paper's "
        "steps; position encodings; that deeper models need no hint."
    ),
    source=reference("awasthi2023hinting"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            values=20,
            longest=3,
            lengths=(3, 6, 9, 15),
            fitted=(4, 5),
            width=16,
            heads=2,
            budget={"steps": 20, "batch_size": 16, "warmup": 4},
            temperature={"steps": 4, "batch_size": 16},
            n=20,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            values=101,
            longest=20,
            lengths=(20, 40, 60, 100),
            fitted=(40, 50),
            width=512,
            heads=8,
            budget={"steps": 1_000_000, "batch_size": 256, "lr": 1e-4, "bfloat16": True},
            n=1_000,
            seeds=5,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(by_length,),
    table=table,
)
