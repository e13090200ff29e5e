"""Language models trained on easy items answer hard ones almost as well as those trained on hard
items.

Hase et al. (2024), arXiv:2401.06751. Part "teacher": logistic regression on points far from or near
a linear boundary. Part "answers": SmolLM2 on school questions, zero-shot, in context and by linear
heads on its hidden states.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from math import inf

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from unseen import stats
from unseen.engine.choice_likelihood import Precision
from unseen.errors import InvalidData
from unseen.figure import Bars
from unseen.lab import Lab
from unseen.measures.supervision_gap import SupervisionGap, supervision_gap
from unseen.methods.choice_head import LinearChoiceHead, share_of_highest
from unseen.models.embedders import TfIdf
from unseen.models.pretrained import CausalLM
from unseen.models.smollm import smollm2
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, average, column, pick
from unseen.study.claim import Unit
from unseen.study.figures import draw_bars
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.subjects.easy_to_hard import (
    Hits,
    ItemDraw,
    answers,
    draw_train_and_test,
    in_context,
    linear_head,
    read_by_embedder,
    read_by_model,
    zero_shot,
)
from unseen.tasks.graded_questions import (
    Item,
    Stratum,
    ai2_science,
    arc,
    asdiv,
    hardness_of,
    piqa,
    remove_repeats,
    strategyqa,
    stratify,
    sums,
)


@dataclass(frozen=True)
class Teacher:
    """y = sign(w · x) in d dimensions; points with a small |w · x| are hard."""

    noise: float = 0.0
    """Share of the hard training labels that are flipped."""
    d: int = 10
    n: int = 400
    """Training points of each kind, at least 20 d."""
    n_test: int = 4_000


class Reader(StrEnum):
    """What reads the items."""

    SMOLLM2 = "SmolLM2-135M-Instruct"
    WORDS = "TF-IDF, and guesses instead of likelihoods"
    """For the smoke scale, which downloads nothing and needs no language model."""


@dataclass(frozen=True)
class ItemSet:
    """Items with a hardness, and how many of them are read."""

    name: str
    load: Callable[[], Sequence[Item]]
    hardness: str
    cuts: tuple[float, float] | None
    n_train: int = 80
    easy_test: int = 60
    hard_test: int = 150
    pool: int = 120
    """Items of each stratum from which a run draws its training set."""
    shots: int = 0
    """In-context examples; 0: none are tried."""
    shot_runs: int = 2
    shot_test: int = 60
    runs: int = 5
    reader: Reader = Reader.SMOLLM2


SETS = (
    ItemSet("ai2-science", ai2_science, "grade", (5, 8), shots=5),
    ItemSet("ARC-Easy", arc, "grade", (5, 8)),
    ItemSet("ASDiv", asdiv, "grade", (2, 4)),
    ItemSet("StrategyQA", strategyqa, "steps", (2, 4)),
    ItemSet("PIQA by length", piqa, "length", None, n_train=20, pool=20),
)
"""Easy and hard as in the paper, but for ASDiv, which has a grade of its own, and PIQA, which has
none.
"""


@dataclass(frozen=True)
class Config:
    teachers: tuple[Teacher, ...] = (Teacher(), Teacher(noise=0.3))
    sets: tuple[ItemSet, ...] = SETS
    seeds: int = 10
    """Of the teachers; every set of items has one draw, and its runs inside."""
    set_seeds: int = 1

    def cells(self) -> Iterator[Cell[Teacher | ItemSet, None]]:
        return interleave(
            Grid(self.teachers, (None,), self.seeds), Grid(self.sets, (None,), self.set_seeds)
        )


def run(cell: Cell[Teacher | ItemSet, None], lab: Lab) -> Iterator[Row]:
    if isinstance(cell.setting, Teacher):
        yield from label([learn_from_teacher(cell.setting, lab)], seed=cell.seed)
    else:
        yield from label(answer_items(cell.setting, lab), seed=cell.seed)


def learn_from_teacher(teacher: Teacher, lab: Lab) -> Row:
    """Accuracy on hard points after training on easy ones and on hard ones; guessing has 1/2."""
    rng = lab.child("teacher").numpy()
    w = rng.normal(size=teacher.d)
    w /= np.linalg.norm(w)
    x = rng.normal(size=(20 * teacher.n + 4 * teacher.n_test, teacher.d))
    margin = np.abs(x @ w)
    low, high = np.quantile(margin, [0.3, 0.7])
    easy, hard = x[margin >= high][: teacher.n], x[margin <= low]
    train, test = hard[: teacher.n], hard[teacher.n :][: teacher.n_test]
    flipped = rng.random(teacher.n) < teacher.noise
    accuracy = {
        "easy": score_teacher(easy, easy @ w > 0, test, test @ w > 0),
        "hard": score_teacher(train, (train @ w > 0) ^ flipped, test, test @ w > 0),
    }
    share = (accuracy["easy"] - 0.5) / (accuracy["hard"] - 0.5)
    return {"part": "teacher", "noise": teacher.noise, **accuracy, "recovered": share}


def score_teacher(x: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy of a logistic regression with hardly any penalty."""
    fit = LogisticRegression(C=1e4, max_iter=2_000, fit_intercept=False).fit(x, y)
    return float((fit.predict(test) == truth).mean())


@lru_cache(maxsize=1)
def language_model() -> CausalLM:
    """Loaded once per process: unpacking its weights takes 20 s."""
    return smollm2()


def answer_items(chosen: ItemSet, lab: Lab) -> Iterator[Row]:
    """Right and wrong answers on the items to evaluate: a row per method, source, run and stratum,
    and one on what was read.
    """
    items, draw = draw_items(chosen, lab)
    methods = dict[tuple[str, str], Hits]()
    tokens = 0
    if chosen.reader is Reader.WORDS:
        columns = read_by_embedder(TfIdf().fit([item.question for item in items]), items)
        methods["zero-shot", ""] = guess(items, draw, lab)
    else:
        model = language_model()
        readings = read_by_model(model, items, Precision.BFLOAT16, lab)
        columns, tokens = readings.columns, readings.tokens
        methods["zero-shot", ""] = zero_shot(readings, items, draw)
        per_token = share_of_highest(readings.per_token, answers(items))
        methods["zero-shot per token", ""] = {
            stratum: per_token[list(test)][None] for stratum, test in draw.test.items()
        }
    for source in (Stratum.EASY, Stratum.HARD):
        methods["linear head", source] = linear_head(columns, draw, source, lab, LinearChoiceHead())
        if chosen.shots:
            few = first_runs(draw, chosen.shot_runs)
            hard = {Stratum.HARD: draw.test[Stratum.HARD][: chosen.shot_test]}
            methods["in context", source] = (
                guess(items, few, lab.child(source))
                if chosen.reader is Reader.WORDS
                else in_context(
                    language_model(),
                    items,
                    few,
                    source,
                    hard,
                    chosen.shots,
                    Precision.BFLOAT16,
                    lab,
                )
            )
    yield {
        "part": "items",
        "set": chosen.name,
        "read": len(items),
        "answer_tokens": tokens,
        "guessing": float(np.mean([1 / len(items[k].choices) for k in draw.test[Stratum.HARD]])),
    }
    for (method, trained), hits in methods.items():
        for stratum, table in hits.items():
            for number, right in enumerate(table):
                yield {
                    "part": "answers",
                    "set": chosen.name,
                    "method": method,
                    "source": trained or "nothing",
                    "stratum": stratum,
                    "run": number,
                    "accuracy": float(right.double().mean()),
                    "right": "".join("01"[int(hit > 0.5)] for hit in right.tolist()),
                }


def draw_items(chosen: ItemSet, lab: Lab) -> tuple[list[Item], ItemDraw]:
    """The easy and hard items that are read, and which of them train and are evaluated."""
    items = remove_repeats(chosen.load())
    strata = stratify(hardness_of(items, chosen.hardness), chosen.cuts)
    order = lab.child("items").numpy()
    most = {Stratum.EASY: chosen.easy_test, Stratum.MEDIUM: 0, Stratum.HARD: chosen.hard_test}
    members = [
        items[k]
        for stratum in (Stratum.EASY, Stratum.HARD)
        for k in order.permutation(strata.of(stratum))[: chosen.pool + most[stratum]]
    ]
    again = stratify(hardness_of(members, chosen.hardness), (strata.low, strata.high))
    draw = draw_train_and_test(again, chosen.n_train, most, chosen.runs, lab)
    return members, draw


def first_runs(draw: ItemDraw, runs: int) -> ItemDraw:
    return ItemDraw({name: train[:runs] for name, train in draw.train.items()}, draw.test)


def guess(items: Sequence[Item], draw: ItemDraw, lab: Lab) -> Hits:
    """A choice drawn for every item."""
    generator = lab.child("guess").generator()
    drawn = torch.rand(len(items), generator=generator)
    hits = torch.tensor([float(u < 1 / len(i.choices)) for u, i in zip(drawn, items, strict=True)])
    return {stratum: hits[list(test)].expand(draw.runs, -1) for stratum, test in draw.test.items()}


def table_of(rows: Rows, **where: str) -> torch.Tensor:
    """Right answers [run, item]; the items of further seeds, which are other draws, beside them."""
    found = sorted(
        pick(rows, part="answers", **where), key=lambda row: (int(row["seed"]), int(row["run"]))
    )
    seeds = dict.fromkeys(int(row["seed"]) for row in found)
    if not seeds:
        raise InvalidData(
            f"No row has the answers {where}.",
            why="the set was not read.",
            fix="run the missing cells (`unseen run … --retry-failed`).",
        )
    draws = [[bits(row) for row in found if int(row["seed"]) == seed] for seed in seeds]
    return torch.cat([torch.tensor(draw) for draw in draws], 1)


def bits(row: Row) -> list[float]:
    return [float(bit) for bit in str(row["right"])]


def gap_of(
    rows: Rows, name: str, method: str = "linear head", unsupervised: str = ""
) -> SupervisionGap:
    """What easy and hard training gave on hard items, over a method without training, or over
    guessing.
    """
    where = {"set": name, "stratum": Stratum.HARD.value}
    easy, hard = (table_of(rows, method=method, source=source, **where) for source in SOURCES)
    if unsupervised:
        nothing = table_of(rows, method=unsupervised, **where)[:, : easy.shape[1]]
    else:
        guessing = column(rows, "guessing", part="items", set=name)
        nothing = torch.full((1, easy.shape[1]), float(np.mean(guessing)))
    return supervision_gap(easy, hard, nothing, Lab().child(name, method), draws=4_000)


SOURCES = (Stratum.EASY.value, Stratum.HARD.value)


def count_runs(rows: Rows, name: str, method: str = "linear head") -> int:
    """Trainings behind an accuracy: the intervals are over them and the items."""
    return len(pick(rows, part="answers", set=name, method=method, source="easy", stratum="hard"))


def share_recovered(name: str) -> Effect:
    """Share of the gap over guessing; where that is not clearly there, anything from −∞ to ∞."""

    def read(rows: Rows) -> Reading:
        share = gap_of(rows, name).recovered or Reading(0.0, -inf, inf)
        return replace(share, n=count_runs(rows, name))

    return read


def difference(name: str, method: str = "linear head") -> Effect:
    """Accuracy on hard items after easy training minus that after hard training."""
    return lambda rows: replace(
        gap_of(rows, name, method).difference, n=count_runs(rows, name, method)
    )


def hard_gain(name: str) -> Effect:
    return lambda rows: replace(gap_of(rows, name).hard_gain, n=count_runs(rows, name))


def easier(name: str) -> Effect:
    """Zero-shot accuracy on easy items minus that on hard ones, over items."""

    def read(rows: Rows) -> Reading:
        easy, hard = (
            table_of(rows, set=name, method="zero-shot", stratum=source)[0].numpy()
            for source in SOURCES
        )
        return stats.welch(easy, hard, unit="fraction")

    return read


NOT_WORSE = -0.05
"""Easy training items that cost no more than this on hard items are almost as good as hard ones."""
CLAIMS = (
    Claim("Without label noise easy points teach a linear boundary as well as hard ones: gap "
          "recovered 1 ± 0.1.", average("recovered", part="teacher", noise=0.0),
          above=0.9, below=1.1),
    Claim("With 30 % of the hard labels flipped, easy points teach it better: more than the whole "
          "gap is recovered.", average("recovered", part="teacher", noise=0.3), above=1.0),
    Claim("ai2-science: a head trained on elementary school answers grade 8 not worse than one "
          "trained on grade 8, by more than 5 points.", difference("ai2-science"), above=NOT_WORSE),
    Claim("ARC-Easy: a head trained on grades 3–5 answers grade 8 not worse than one trained on "
          "grade 8, by more than 5 points.", difference("ARC-Easy"), above=NOT_WORSE),
    Claim("ai2-science: at least 70 % of what grade 8 gives over guessing is recovered.",
          share_recovered("ai2-science"), above=0.7),
    Claim("ARC-Easy: at least 70 % of what grade 8 gives over guessing is recovered.",
          share_recovered("ARC-Easy"), above=0.7),
    Claim("Negative control: where hard items need an operation that easy ones lack (ASDiv), less "
          "than half is recovered.", share_recovered("ASDiv"), below=0.5),
    Claim("StrategyQA is beyond this model: 80 hard items give less than 10 points over "
          "guessing.",
          hard_gain("StrategyQA"), below=0.1),
    Claim("In context five elementary examples answer grade 8 not worse than five of grade 8, by "
          "more than 5 points (two draws of examples).",
          difference("ai2-science", "in context"), above=NOT_WORSE),
    Claim("ai2-science: grade 8 is harder for SmolLM2 than elementary school (zero-shot).",
          easier("ai2-science"), above=0.0, unit=Unit.ITEM,
          sign_because="a stratum is called hard or it is not"),
    Claim("ARC-Easy: grade 8 is harder for SmolLM2 than grades 3–5 (zero-shot).",
          easier("ARC-Easy"), above=0.0, unit=Unit.ITEM,
          sign_because="a stratum is called hard or it is not"),
    Claim("A longer goal is harder: SmolLM2 answers short goals of PIQA better (zero-shot).",
          easier("PIQA by length"), above=0.0, unit=Unit.ITEM,
          sign_because="a stratum is called hard or it is not"),
)  # fmt: skip


def names_of_sets(rows: Rows) -> list[str]:
    return list(dict.fromkeys(str(row["set"]) for row in pick(rows, part="items")))


def shares(rows: Rows) -> Bars:
    """Accuracy on hard items after training on easy and on hard ones."""
    bars: dict[str, Reading] = {}
    for name in names_of_sets(rows):
        gap = gap_of(rows, name)
        bars[f"{name}: guessing"] = gap.unsupervised
        bars[f"{name}: easy"], bars[f"{name}: hard"] = gap.easy, gap.hard
    return draw_bars(bars, "Heads on hard items, by what they were trained on", "accuracy")


def table(rows: Rows) -> list[Row]:
    """Every set and method: accuracies on hard items, and the share of the gap recovered."""
    lines: list[Row] = []
    for name in names_of_sets(rows):
        for method, nothing in (("linear head", ""), ("in context", "zero-shot")):
            if not pick(rows, part="answers", set=name, method=method):
                continue
            gap = gap_of(rows, name, method, nothing)
            lines.append(
                {
                    "items": name,
                    "method": f"{method}, over {nothing or 'guessing'}",
                    "without": str(gap.unsupervised),
                    "easy": str(gap.easy),
                    "hard": str(gap.hard),
                    "recovered": str(gap.recovered or "gap not significant"),
                }
            )
        for stratum in SOURCES:
            hits = table_of(rows, set=name, method="zero-shot", stratum=stratum)[0]
            accuracy = stats.proportion(int(hits.sum()), len(hits))
            lines.append(
                {
                    "items": name,
                    "method": f"zero-shot on {stratum} items",
                    "without": str(accuracy),
                }
            )
    return lines


def smoke_sums() -> tuple[Item, ...]:
    return sums(150, 20)


def smoke_set(name: str, shots: int = 0) -> ItemSet:
    return ItemSet(
        name,
        smoke_sums,
        "grade",
        (9, 13),
        n_train=10,
        easy_test=20,
        hard_test=20,
        pool=15,
        shots=shots,
        shot_test=20,
        runs=2,
        reader=Reader.WORDS,
    )


LAPTOP = Config()
study = Study(
    name="easy_to_hard",
    system="25",
    differs=(
        "The paper evaluates models of 7 to 70 billion parameters with QLoRA, linear heads and 10 "
        "examples in context on ARC, MMLU, StrategyQA and GSM8K, against the zero-shot accuracy; "
        "here SmolLM2 with 135 million parameters in bfloat16 answers 150 hard items of each set, "
        "by heads trained on 80 items in 5 runs of one draw of the items, with 10 seeds of the "
        "linear teacher and 2 draws of examples in context. A head trained on 80 hard items is "
        "not clearly better than zero-shot likelihoods, so the share recovered is that of the gap "
        "over guessing, which the paper does not use. ai2-science and ARC-Easy stand for ARC, as "
        "ARC-Challenge is at chance at this size. ASDiv with invented wrong answers is a negative "
        "control of our own, and a weak one: the smallest choice is right for 68 % of its hard "
        "items and 47 % of its easy ones, so that size alone carries over. Runs share a pool of "
        "120 items, so that their spread is that of overlapping training sets."
    ),
    not_tested=(
        "That easy data do as well for models that know the hard items, by fine-tuning (QLoRA), on "
        "MMLU and GSM8K with chains of thought, and with hardness by minimum description length; "
        "that they do better where labels of hard items cost more."
    ),
    source=reference("hase2024unreasonable"),
    scales={
        Scale.SMOKE: Config(
            teachers=(Teacher(n=200, n_test=500), Teacher(noise=0.3, n=200, n_test=500)),
            sets=tuple(smoke_set(chosen.name, min(chosen.shots, 2)) for chosen in SETS),
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            sets=tuple(
                resize(chosen, n_train=160, hard_test=198, pool=400, runs=10, shot_test=198)
                for chosen in SETS[:2]
            ),
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(shares,),
    table=table,
)
