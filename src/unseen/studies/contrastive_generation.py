"""Contrasting a source with an unlikely and with a distant version of its target helps generation.

Lee, Lee & Hwang (2021), arXiv:2012.07280, on small encoder–decoders from scratch: word problems to
equations, and attributes of restaurants to sentences.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from unseen.engine.batches import once
from unseen.engine.loop import Budget, Schedule
from unseen.engine.token_pairs import Pair, pair, write_answers
from unseen.lab import Lab
from unseen.measures.text_overlap import Text, corpus_bleu, exact, rouge_l
from unseen.methods.claps import CLAPS, ContrastiveModel, Perturbation, word_probabilities
from unseen.models.encoder_decoder import t5
from unseen.study import Claim, Effect, Row, Scale, Study, Value, average, gap
from unseen.study.figures import bars, stack, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.task import Axis
from unseen.tasks import restaurant_texts
from unseen.tasks.math_programs.published import prefix_pairs, text_key
from unseen.tasks.restaurant_texts import Description, RestaurantTexts, read_restaurants
from unseen.tasks.token_pairs import TokenPairs


class Arm(StrEnum):
    """What is added to the likelihood."""

    MLE = "likelihood"
    CONTRAST = "in-batch contrast"
    CLAPS = "CLAPS"


class Data(StrEnum):
    """Sources and targets."""

    EQUATIONS = "equations"
    """MAWPS + ASDiv-A: questions and their equations; SVAMP beside."""
    TEXTS = "texts"
    """E2E: attributes of restaurants and sentences."""


METHODS: Mapping[Arm, CLAPS] = {
    Arm.MLE: CLAPS(weight=0.0),
    Arm.CONTRAST: CLAPS(Perturbation.NONE),
    Arm.CLAPS: CLAPS(),
}
SAME, SHIFTED = "like training", "SVAMP"


@dataclass(frozen=True)
class Setting:
    data: Data
    steps: int
    seeds: int
    length: int
    """Most tokens of an answer."""
    held_out: float
    """Share of the texts that are kept from training."""
    published: bool = True
    """Else a few pairs that are written here."""
    width: int = 64
    layers: int = 2
    heads: int = 4
    budget: Budget = Budget(batch_size=64, lr=2e-3, schedule=Schedule.COSINE, warmup=40, clip=1.0)


@dataclass(frozen=True)
class Config:
    settings: tuple[Setting, ...]

    def cells(self) -> Iterator["Job"]:
        yield from interleave(*(Grid((one,), tuple(Arm), one.seeds) for one in self.settings))


Job: TypeAlias = Cell[Setting, Arm]


@dataclass(frozen=True)
class Question:
    """A source with every right answer."""

    source: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Problem:
    train: tuple[Pair, ...]
    questions: Mapping[str, tuple[Question, ...]]
    """By part."""

    @property
    def spec(self) -> TokenPairs:
        firsts = {
            part: tuple(Pair(one.source, one.answers[0]) for one in questions)
            for part, questions in self.questions.items()
        }
        return TokenPairs("pairs", self.train, firsts, Axis.IID, repeats=True)


def run(cell: Job, lab: Lab) -> Iterator[Row]:
    """Arms of a seed share the split, the first weights and the minibatches."""
    setting, arm = cell.setting, cell.arm
    problem = prepare(setting, lab.child("split"))
    spec = problem.spec
    model = untrained_model(
        lambda: t5(len(spec.vocabulary), setting.width, setting.layers, setting.heads), lab
    )
    method = replace(METHODS[arm], budget=replace(setting.budget, steps=setting.steps))
    trained = method.fit(model, spec.build(lab.child("data")), lab.child("fit"))
    rows = [*score(setting, trained, problem), *read_batches(setting, trained, lab)]
    yield from label(rows, data=str(setting.data), seed=cell.seed, arm=str(arm))


def prepare(setting: Setting, lab: Lab) -> Problem:
    if setting.data is Data.TEXTS:
        found = read_restaurants() if setting.published else restaurant_texts.example().descriptions
        return split_texts(found, setting.held_out, lab)
    parts = (prefix_pairs(), prefix_pairs("dev")) if setting.published else (sums(8), sums(4, "so"))
    return split_equations(*parts, setting.held_out, lab)


def sums(n: int, first: str = "now") -> list[Pair]:
    """A sum and a difference in `n` places each."""
    words = {"add": "+ number0 number1", "take": "- number0 number1"}
    return [
        pair(f"{first} {verb} number0 number1 in {place}", equation)
        for place in "abcdefgh"[:n]
        for verb, equation in words.items()
    ]


def split_equations(
    pairs: Sequence[Pair], shifted: Sequence[Pair], held_out: float, lab: Lab
) -> Problem:
    """A text, numbers aside, is on one side."""
    key = {one: text_key(" ".join(one.source)) for one in pairs}
    texts = sorted(set(key.values()))
    order = lab.numpy().permutation(len(texts))
    apart = {texts[k] for k in order[: round(held_out * len(texts))]}
    train = tuple(one for one in pairs if key[one] not in apart)
    same = tuple(one for one in dict.fromkeys(pairs) if key[one] in apart)
    parts = {SAME: same, SHIFTED: shifted}
    return Problem(
        train,
        {
            name: tuple(Question(source, (target,)) for source, target in part)
            for name, part in parts.items()
        },
    )


def split_texts(descriptions: Sequence[Description], held_out: float, lab: Lab) -> Problem:
    parts = RestaurantTexts(tuple(descriptions), held_out).split(lab)
    train = tuple(one for description in parts.train for one in description.pairs)
    return Problem(
        train, {SAME: tuple(Question(one.attributes, one.texts) for one in parts.unseen)}
    )


def score(
    setting: Setting, trained: ContrastiveModel, problem: Problem
) -> Iterator[dict[str, Value]]:
    """What is written, greedily, against every right answer."""
    vocabulary = problem.spec.vocabulary
    for part, questions in problem.questions.items():
        written = write_answers(
            trained.model, [one.source for one in questions], vocabulary, setting.length
        )
        texts = [
            Text(" ".join(words), tuple(" ".join(answer) for answer in one.answers))
            for words, one in zip(written, questions, strict=True)
        ]
        yield {
            "part": part,
            "exact": mean([exact(*one) for one in texts]),
            "BLEU": corpus_bleu(texts),
            "ROUGE-L": mean([rouge_l(*one) for one in texts]),
            "questions": len(texts),
        }


def read_batches(
    setting: Setting, trained: ContrastiveModel, lab: Lab
) -> Iterator[dict[str, Value]]:
    """Imposters and distant targets of held-out batches, moved by equal norms."""
    if trained.projection is None:
        return
    data = trained.task.split(SAME).data
    found = [
        word_probabilities(trained, batch, CLAPS())
        for batch in once(data, setting.budget.batch_size, lab)
    ]
    yield {
        "part": "batches",
        **{f"p {name}": mean([one[name] for one in found]) for name in found[0]},
        "smallest margin": min(one["distant"] - one["imposter"] for one in found),
        "batches": len(found),
    }


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def over_likelihood(name: str, data: Data, part: str) -> Effect:
    """CLAPS − likelihood, paired by seed."""
    where = {"data": str(data), "part": part}
    return gap(name, {**where, "arm": str(Arm.CLAPS)}, {**where, "arm": str(Arm.MLE)})


CLAIMS = (
    Claim(
        says="CLAPS is not harmful on SVAMP: at most 0.02 below likelihood in exact match.",
        effect=over_likelihood("exact", Data.EQUATIONS, SHIFTED),
        above=-0.02,
    ),
    Claim(
        says="Nor is it harmful on unseen questions like those of training: at most 0.02 below it.",
        effect=over_likelihood("exact", Data.EQUATIONS, SAME),
        above=-0.02,
    ),
    Claim(
        says="Imposters leave the words less likely than distant targets that moved every token as "
        "far, even in the held-out batch where the difference is smallest (mean over seeds).",
        effect=average(
            "smallest margin", data=str(Data.EQUATIONS), arm=str(Arm.CLAPS), part="batches"
        ),
        above=0.0,
        sign_because="which of two directions leaves the words less likely is the claim",
    ),
    Claim(
        says="CLAPS writes better than likelihood (BLEU of sentences).",
        effect=over_likelihood("BLEU", Data.TEXTS, SAME),
        above=0.0,
        sign_because="which of two losses is better is the paper's claim",
        needs=Scale.PAPER,
    ),
)

EQUATIONS = Setting(Data.EQUATIONS, steps=336, seeds=3, length=20, held_out=0.15)
TEXTS = Setting(Data.TEXTS, steps=210, seeds=1, length=60, held_out=0.2)
LAPTOP = Config((EQUATIONS, TEXTS))


def tiny(setting: Setting) -> Setting:
    return resize(
        setting,
        steps=8,
        seeds=2,
        length=6,
        held_out=0.34,
        published=False,
        width=16,
        layers=1,
        heads=2,
        budget={"batch_size": 8, "lr": 1e-2, "warmup": 2},
    )


def large(setting: Setting, steps: int) -> Setting:
    """T5-small's shape from scratch, in batches of 128."""
    size = {"width": 512, "layers": 6, "heads": 8, "seeds": 5, "steps": steps}
    return resize(setting, **size, budget={"batch_size": 128, "lr": 1e-3})


study = Study(
    name="contrastive_generation",
    system="17",
    differs=(
        "The paper fine-tunes T5-small on WMT'16 RO-EN, XSum and SQuAD (batches of 128, 20 epochs, "
        "beam search, Adafactor). Here a T5 with 2 + 2 layers of width 64 learns from scratch, "
        "greedy decoding: MAWPS + ASDiv-A questions to prefix equations, 8 epochs in batches of "
        "64, 3 seeds, SVAMP beside; and E2E's development part (attributes to sentences, split by "
        "attributes, 4 epochs), one seed, which is reported and not judged. Radii are 0.1 and 0.3 "
        "mean norms of the decoder states instead of 1 and 3, and the rate falls as a cosine. "
        "3,138 questions have 201 different equations, so a batch's other targets often are the "
        "right one: in-batch contrast then parts pairs that mean the same. Words of the tests "
        "stand in the vocabulary, those that training lacks untrained."
    ),
    not_tested=(
        "That CLAPS improves translation, summarization and question generation over T5-small and "
        "over other contrastive methods; that it helps a pretrained model; random non-target "
        "sequences as negatives."
    ),
    source=reference("lee2021claps"),
    scales={
        Scale.SMOKE: Config((tiny(EQUATIONS), tiny(TEXTS))),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: Config((large(EQUATIONS, 630), large(TEXTS, 520))),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(
        bars(
            average("exact", data=str(Data.EQUATIONS), part=SHIFTED),
            by="arm",
            title="SVAMP: equations that are right",
            label="share",
        ),
        bars(
            average("BLEU", data=str(Data.TEXTS)),
            by="arm",
            title="Sentences about unseen restaurants (one seed)",
            label="BLEU",
        ),
    ),
    table=stack(
        summary(("data", "part", "arm"), ("exact", "BLEU", "ROUGE-L"), where={"part": SAME}),
        summary(("data", "part", "arm"), ("exact", "BLEU", "ROUGE-L"), where={"part": SHIFTED}),
        summary(
            ("data", "part", "arm"),
            ("p own", "p distant", "p imposter", "smallest margin"),
            where={"part": "batches"},
        ),
    ),
)
