"""Transformers generalize to longer sequences where a short RASP-L program exists.

Zhou et al. (2023), arXiv:2310.16028. Decoders from scratch with learned positions at random
offsets; exact match of the whole answer with its end, at the longest trained length and beyond.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, product
from math import inf
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule, erm_step, train
from unseen.engine.mixture import Mixture
from unseen.lab import Lab
from unseen.models import rasp
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.objectives import exact_match
from unseen.study import Claim, Effect, Row, Scale, Study, Unit, Value, average, gap
from unseen.study.effects import share, worst
from unseen.study.figures import bars, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.algorithmic import (
    Addition,
    Algorithmic,
    Copy,
    Count,
    Mode,
    Parity,
    Problem,
    Sort,
    length_curve,
)
from unseen.tasks.algorithmic.problems import FIRST, sequences

BUDGET = Budget(batch_size=64, lr=2e-3, schedule=Schedule.COSINE, warmup=100, clip=1.0)


class Group(StrEnum):
    """What is known about programs for a task."""

    PROGRAM = "has a program"
    NONE = "none known"
    REPAIR = "reported"
    """Formats in which a task without a program gets one, and others without: one seed each."""
    BOOLEAN = "Boolean"


@dataclass(frozen=True)
class Exercise:
    """A task, how it is trained, and the RASP-L program for it ("": none is known)."""

    name: str
    group: Group
    task: Algorithmic
    steps: int
    lr: float
    scale: float
    """Standard deviation of the embeddings before training. With GPT-2's 0.02 everywhere, made for
    wide models, parity is not even learned inside.
    """
    program: str = ""

    @property
    def lengths(self) -> dict[str, int]:
        """Evaluated lengths by how far they are beyond training."""
        longest = self.task.longest
        return {
            "inside": longest,
            "+10": longest + 10,
            "×1.5": round(1.5 * longest),
            "×2": 2 * longest,
        }


@dataclass(frozen=True)
class Boolean:
    """A function of bits in one line of RASP-L, trained on strings with few zeros."""

    bits: int = 8
    zeros: int = 3
    """At most so many in training."""
    steps: int = 400


GPT2, WIDE = 0.02, 0.5
EXERCISES = (
    Exercise("count", Group.PROGRAM, Algorithmic(Count(60), 30), 1_000, 3e-3, GPT2, "count"),
    Exercise("mode", Group.PROGRAM, Algorithmic(Mode(6, kinds=3), 20), 1_000, 3e-3, GPT2, "mode"),
    Exercise("sort", Group.PROGRAM, Algorithmic(Sort(40), 10), 1_600, 2e-3, GPT2, "sort"),
    Exercise("parity", Group.NONE, Algorithmic(Parity(), 8), 4_000, 1e-3, WIDE),
)
REPAIRS = (
    Exercise("copy with repeats", Group.REPAIR, Algorithmic(Copy(2, True), 8), 1_000, 2e-3, WIDE),
    Exercise("addition", Group.REPAIR, Algorithmic(Addition(), 2), 1_000, 2e-3, WIDE),
    Exercise("addition, hints, reversed", Group.REPAIR,
             Algorithmic(Addition(hints=20, reverse=True), 2), 1_000, 2e-3, WIDE,
             "addition with hints, reversed"),
    Exercise("parity, scratchpad", Group.REPAIR, Algorithmic(Parity(hints=24), 8), 1_000, 2e-3,
             WIDE),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    exercises: tuple[Exercise, ...] = EXERCISES
    repairs: tuple[Exercise, ...] = REPAIRS
    """One seed each."""
    boolean: Boolean = Boolean()
    width: int = 64
    layers: int = 2
    heads: int = 4
    budget: Budget = BUDGET
    context: int = 120
    """Rows of the position table: training begins at random ones of them."""
    n: int = 300
    """Examples per length."""
    seeds: int = 3

    def cells(self) -> Iterator["Job"]:
        yield from interleave(
            Grid((self,), self.exercises, self.seeds),
            Grid((self,), (*self.repairs, self.boolean), 1),
        )


Job: TypeAlias = Cell[Config, Exercise | Boolean]


def run(cell: Job, lab: Lab) -> Iterator[Row]:
    config, arm = cell.setting, cell.arm
    if isinstance(arm, Boolean):
        rows = compare_boolean(config, arm, lab)
    else:
        rows = curve(config, arm, lab)
    return label(rows, seed=cell.seed)


def curve(config: Config, arm: Exercise, lab: Lab) -> Iterator[dict[str, Value]]:
    """Exact match at every evaluated length."""
    lengths = arm.lengths
    spec = replace(arm.task, lengths=tuple(sorted(set(lengths.values()))), n=config.n)
    longest = max(spec.width(n) for n in (spec.longest, *spec.lengths))
    model = decoder(config, spec.vocabulary, max(longest, config.context), arm.scale, lab)
    budget = replace(config.budget, steps=arm.steps, lr=arm.lr)
    trained = train(model, spec.build(lab.child("data")), erm_step, budget, lab.child("fit"))
    found = length_curve(trained, spec, spec.lengths, lab.child("test"))
    for at, n in lengths.items():
        exact, chance = found[n].value, spec.problem.chance(n)
        yield {
            "task": arm.name,
            "group": arm.group,
            "at": at,
            "length": n,
            "exact": exact,
            "hits": round(exact * config.n),
            "n": config.n,
            "chance": chance,
            "excess": exact - chance,
            **length_of_program(arm.program),
        }


def length_of_program(name: str) -> dict[str, Value]:
    """The column with the length of the program, where there is one."""
    return {"program": rasp.program_length(rasp.PROGRAMS[name])} if name else {}


def decoder(config: Config, vocabulary: int, context: int, scale: float, lab: Lab) -> Transformer:
    shape = Decoder(
        vocabulary=vocabulary,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        context=context,
        positions=Positions.OFFSET,
        tied=scale == GPT2,
    )
    return untrained_model(lambda: scale_weights(Transformer(shape), scale), lab)


def scale_weights(model: Transformer, std: float) -> Transformer:
    """Embeddings with this standard deviation; unless it is GPT-2's, the maps of the blocks as wide
    as PyTorch begins them, (3 · width)^(−1/2).
    """
    with torch.no_grad():
        for name, table in model.named_parameters():
            if name.startswith(("embed", "position")):
                table.mul_(std / GPT2)
            elif std != GPT2 and table.dim() > 1 and name.startswith("blocks"):
                table.mul_((3 * model.shape.width) ** -0.5 / GPT2)
    return model


# a Boolean task on which the interpolator of least degree is wrong -----------------------------

Bits: TypeAlias = NDArray[np.int64]

LINES: dict[str, rasp.Program] = {
    "minimum(x)": lambda x: rasp.minimum(x),
    "maximum(x)": lambda x: rasp.maximum(x),
    "mode(x)": lambda x: rasp.mode(x),
    "index_select(x, full(x, 0))": lambda x: rasp.index_select(x, rasp.full(x, 0)),
}
"""Programs of one line from bits to a bit, read at the last position."""


def strings(bits: int) -> Bits:
    """All strings of so many bits."""
    return np.array(list(product((0, 1), repeat=bits)), dtype=np.int64)


def monomials(x: Bits, degree: int) -> NDArray[np.float64]:
    """Products of at most `degree` of the bits as signs."""
    signs = 1.0 - 2.0 * x
    chosen = [c for d in range(degree + 1) for c in combinations(range(x.shape[1]), d)]
    return np.stack([signs[:, list(c)].prod(1) for c in chosen], 1)


def least_degree(x: Bits, y: Bits, asked: Bits, zeros: int) -> Bits:
    """The bits that the polynomial of least degree through (x, y) gives where it is asked.

    On all strings with at most `zeros` zeros there is exactly one of degree `zeros`, and for the
    lines here none of a lower one unless its coefficients vanish.
    """
    values = np.linalg.solve(monomials(x, zeros), 2.0 * y - 1.0)
    return (monomials(asked, zeros) @ values > 0).astype(np.int64)


@dataclass(frozen=True)
class Puzzle:
    """A line, trained on strings with at most so many zeros, and how often the interpolator is
    right on those with more.
    """

    line: str
    zeros: int
    right: float


def hardest_puzzle(boolean: Boolean) -> Puzzle:
    """The one on which the interpolator is right least often, of all that training decides."""
    x = strings(boolean.bits)
    many = (x == 0).sum(1)
    found = []
    for zeros, (name, line) in product(range(1, boolean.zeros + 1), LINES.items()):
        y, inside = line(x)[:, -1], many <= zeros
        if len(set(y[inside].tolist())) > 1:
            guess = least_degree(x[inside], y[inside], x[~inside], zeros)
            found.append(Puzzle(name, zeros, float((guess == y[~inside]).mean())))
    return min(found, key=lambda puzzle: puzzle.right)


def compare_boolean(config: Config, arm: Boolean, lab: Lab) -> Iterator[dict[str, Value]]:
    """A decoder on that line against the interpolator, on all strings that training left out."""
    puzzle = hardest_puzzle(arm)
    x = strings(arm.bits)
    many = (x == 0).sum(1)
    data = {k: bit_columns(x[many == k], LINES[puzzle.line]) for k in range(arm.bits + 1)}
    # as often with few zeros, which are few strings, as with many
    seen = Mixture({str(k): data[k] for k in range(puzzle.zeros + 1)})
    splits = {"train": Split(seen, Use.TRAIN)}
    task = Task(name="Boolean", axis=Axis.LENGTH, splits=splits, objective=exact_match)
    model = decoder(config, FIRST + 2, arm.bits + 4, GPT2, lab)
    budget = replace(config.budget, steps=arm.steps)
    trained = train(model, task, erm_step, budget, lab.child("fit"))
    for at in ("inside", "outside"):
        counts = [k for k in data if (k <= puzzle.zeros) == (at == "inside")]
        right = [per_example(trained.model, data[k], exact_match.score, lab) for k in counts]
        yield {
            "task": f"Boolean: {puzzle.line}, at most {puzzle.zeros} zeros",
            "group": Group.BOOLEAN,
            "at": at,
            "length": arm.bits,
            "exact": float(torch.cat(right).double().mean()),
            "hits": round(float(torch.cat(right).double().sum())),
            "n": len(torch.cat(right)),
            "interpolator": 1.0 if at == "inside" else puzzle.right,
            "chance": 0.5,
        }


def bit_columns(x: Bits, line: rasp.Program) -> Columns:
    """Strings with the bit that the line gives, in the format of parity."""
    source, answer = (torch.from_numpy(FIRST + part) for part in (x, line(x)[:, -1:]))
    return sequences(Parity(), x.shape[1], source, answer)


# what is claimed -------------------------------------------------------------------------------

WITH, WITHOUT = ({"group": group} for group in (Group.PROGRAM, Group.NONE))


def exact(task: str, at: str) -> Effect:
    return share("hits", "n", {"task": task, "at": at})


def every(group: Group, at: str, ideal: float) -> Effect:
    """Every task of a group, shown by the farthest one."""
    return worst(share("hits", "n"), "task", ideal, group=group, at=at)


def once(says: str, task: str, at: str, *, above: float = -inf, below: float = inf) -> Claim:
    """A task that was trained once: reported."""
    effect = average("exact", task=task, at=at)
    return Claim(says, effect, above=above, below=below, unit=Unit.MODEL)


CLAIMS = (
    Claim("Tasks with a program are solved at the longest trained length: exact match of at least "
          "0.98 (worst).",
          every(Group.PROGRAM, "inside", 1.0), above=0.98),
    Claim("Parity, which has none, is, too (at least 0.98).",
          exact("parity", "inside"), above=0.98),
    Claim("Tasks with a program are solved ten tokens beyond training: exact match of at least 0.9 "
          "(worst).",
          every(Group.PROGRAM, "+10", 1.0), above=0.9),
    Claim("Counting to 30 goes on to 45 (at least 0.9).", exact("count", "×1.5"), above=0.9),
    Claim("Parity is at most 0.1 above chance ten tokens beyond training: exact match of at most "
          "0.6.", exact("parity", "+10"), below=0.6),
    Claim("It is at most 0.1 above chance at twice the trained length, too.",
          exact("parity", "×2"), below=0.6),
    Claim("Ten tokens beyond training the tasks with a program are above parity by at least 0.5 "
          "(exact match above chance).",
          gap("excess", {**WITH, "at": "+10"}, {**WITHOUT, "at": "+10"}), above=0.5),
    once("Copying with repeats fails ten tokens beyond training.", "copy with repeats", "+10",
         below=0.1),
    once("Plain addition fails at twice the trained length.", "addition", "×2", below=0.1),
    once("Addition with index hints and the last digit first is solved there.",
         "addition, hints, reversed", "×2", above=0.9),
    once("Parity with index hints and a scratchpad is solved at twice the trained length.",
         "parity, scratchpad", "×2", above=0.9),
    Claim("A Boolean line of RASP-L on which the interpolator of least degree is wrong is right on "
          "strings left out of training.",
          average("exact", group=Group.BOOLEAN, at="outside"), above=0.9, unit=Unit.MODEL),
)  # fmt: skip

by_length = bars(
    share("hits", "n"),
    by=("task", "at"),
    title="Exact match at the longest trained length and beyond (mean over seeds)",
    label="exact match",
)
table = summary(("group", "task", "at"), ("length", "exact", "chance", "program", "interpolator"))

LAPTOP = Config()


def lengthen(one: Exercise, longest: int, kind: Problem | None = None) -> Exercise:
    """The exercise at the paper's length, steps and learning rate."""
    kind = one.task.problem if kind is None else kind
    if isinstance(kind, Sort):
        kind = Sort(100)
    return replace(one, task=Algorithmic(kind, longest), steps=100_000, lr=1e-4, scale=GPT2)


study = Study(
    name="rasp_length",
    system="06",
    differs=(
        "The paper trains decoders of 6 layers and more at lengths up to 40 to 60 on packed "
        "contexts for 1e5 steps and more; here decoders with two layers of width 64 are trained "
        "for 1,000 to 4,000 steps at lengths up to 8 to 30 (2 digits for addition), one sequence "
        "per row, with 3 seeds. Numbers and tokens are fewer, too (60 to count, 40 to sort, 3 "
        "kinds for the mode), learning rates differ by task, and for parity, copying and addition "
        "the weights begin at a larger scale, without which short lengths are not learned. "
        "Copying with repeats and plain addition, which are not learned inside in so few steps, "
        "the paper's repairs and the Boolean task have one seed: reported, not judged."
    ),
    not_tested=(
        "That the length of the shortest program predicts generalization: on so few tasks a rank "
        "correlation decides nothing, and where no program exists there is no length; lengths are "
        "in the table. Forward addition with hints, and scratchpads that make the mode fail, are "
        "left to the paper's scale."
    ),
    source=reference("zhou2023algorithms"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            exercises=tuple(replace(one, steps=12) for one in EXERCISES),
            repairs=tuple(replace(one, steps=8) for one in REPAIRS),
            boolean={"bits": 5, "steps": 12},
            width=16,
            layers=1,
            heads=2,
            budget={"batch_size": 16, "warmup": 4},
            n=20,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            exercises=tuple(
                lengthen(one, n) for one, n in zip(EXERCISES, (30, 40, 40, 40), strict=True)
            ),
            repairs=(
                lengthen(REPAIRS[0], 40),
                lengthen(REPAIRS[1], 40),
                lengthen(REPAIRS[2], 40, Addition(hints=100, reverse=True)),
                lengthen(REPAIRS[3], 40, Parity(hints=100)),
            ),
            width=512,
            layers=6,
            heads=8,
            context=512,
            budget={"warmup": 1_000, "bfloat16": True},
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
