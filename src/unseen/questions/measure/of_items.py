"""A language model on multiple-choice items as it is: likelihoods of the choices, accuracy, and
accuracy by the items' hardness.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import nan

import numpy as np
import torch
from torch import Tensor

from unseen import stats
from unseen.engine.choice_likelihood import ChoiceLikelihood, Precision, choice_likelihoods
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.identity import Identity, identify
from unseen.lab import Lab
from unseen.measures.hardness import choice_loss, probe_losses
from unseen.models.embedders import TfIdf
from unseen.models.pretrained import CausalLM
from unseen.reading import Reading
from unseen.subjects.easy_to_hard import refuse_unread_items
from unseen.tasks.graded_questions import LENGTH, Item, Stratum, chance, hardness_of, stratify

LIKELIHOOD, PROBE = "likelihood", "probe"
CHUNK = 32
"""Items that are scored and stored together: an interrupted command goes on behind the last."""
COMPARED = 16
"""Items that are scored again in float32 where bfloat16 was asked for."""
FEWEST_PROBED = 20
FEWEST_RANKED = 4


class Score(StrEnum):
    """By which likelihood the choice is made."""

    TOTAL = "sum"
    PER_TOKEN = "per token"
    PER_BYTE = "per byte"

    def of(self, one: ChoiceLikelihood) -> Tensor:
        return {Score.TOTAL: one.total, Score.PER_TOKEN: one.per_token}.get(self, one.per_byte)


@dataclass(frozen=True, kw_only=True)
class ItemsRequest:
    """What is asked of a model and its items."""

    model: CausalLM
    name: str
    items: Sequence[Item]
    source: str = "items"
    hardness: str = LENGTH
    """`length`, `likelihood`, `probe`, or the name of an annotation."""
    hardness_model: CausalLM | None = None
    hardness_name: str = ""
    precision: Precision = Precision.FLOAT32
    cuts: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.hardness_model is not None and self.hardness not in (LIKELIHOOD, PROBE):
            raise InvalidConfig(
                f"A model for the hardness was given, and hardness is `{self.hardness}`.",
                why="only a likelihood and a probe read another model.",
                fix=f"use hardness={LIKELIHOOD!r} or {PROBE!r}, or leave the model out.",
            )
        if self.hardness == PROBE and len(self.items) < FEWEST_PROBED:
            raise InvalidData(
                f"There are {len(self.items)} items, {FEWEST_PROBED} are needed.",
                why="a probe is trained on four fifths of them and read on the rest.",
                fix="add items, or take their length as hardness.",
            )
        known = sorted({name for item in self.items for name, _ in item.annotations})
        choices = [LENGTH, LIKELIHOOD, PROBE, *known]
        if self.hardness not in choices:
            raise UnknownName.near("hardness", self.hardness, choices)

    @property
    def is_own_hardness(self) -> bool:
        """Whether hard means what the model itself finds unlikely."""
        return self.hardness == LIKELIHOOD and self.hardness_model is None


@dataclass(frozen=True, kw_only=True)
class ItemScore:
    """One item under the model."""

    name: str
    question: str
    choices: Sequence[str]
    answer: int
    likelihoods: Mapping[Score, Sequence[float]]
    """Nats of each choice: their sum, per token, per byte."""
    hardness: float | None

    def choice(self, score: Score) -> int:
        return int(np.argmax(self.likelihoods[score]))

    def right(self, score: Score) -> bool:
        return self.choice(score) == self.answer

    @property
    def margin(self) -> float:
        """Log-likelihood of the right choice minus that of the likeliest wrong one."""
        sums = list(self.likelihoods[Score.TOTAL])
        right = sums.pop(self.answer)
        return right - max(sums)


@dataclass(frozen=True, kw_only=True)
class StratumAccuracy:
    """Items of similar hardness."""

    stratum: Stratum
    low: float
    high: float
    n: int
    chance: float
    accuracy: Mapping[Score, Reading]


@dataclass(frozen=True, kw_only=True)
class ItemsReport:
    """What `unseen measure --items` found."""

    model: str
    source: str
    scores: Sequence[ItemScore]
    chance: float
    accuracy: Mapping[Score, Reading]
    likelihood: Mapping[Score, Reading]
    """Mean over items of that of the right choice."""
    hardness: str
    """In words."""
    is_own_hardness: bool
    strata: Sequence[StratumAccuracy] = ()
    fall: Mapping[Score, Reading] = field(default_factory=dict)
    """Accuracy on the easy items minus that on the hard ones."""
    trend: Reading | None = None
    """Rank correlation of hardness and margin."""
    without_hardness: int = 0
    precision: Precision = Precision.FLOAT32
    shift: float = nan
    """Largest change of a sum by bfloat16, among the items that were scored twice."""
    turned: int = 0
    """Of these, those whose choice changed."""
    compared: int = 0
    warnings: Sequence[str] = ()
    seconds: float = 0.0


def measure_items(asked: ItemsRequest, lab: Lab) -> ItemsReport:
    """Scores every item and reads accuracy and hardness."""
    began = time.perf_counter()
    refuse_unread_items(asked.model, asked.items)
    if asked.hardness_model is not None:
        refuse_unread_items(asked.hardness_model, asked.items)
    found = score_items(asked.model, asked.items, asked.precision, lab)
    hardness = _hardness(asked, found, lab)
    scores = [
        ItemScore(
            name=item.name,
            question=item.question,
            choices=item.choices,
            answer=item.answer,
            likelihoods={score: score.of(one).tolist() for score in Score},
            hardness=level,
        )
        for item, one, level in zip(asked.items, found, hardness, strict=True)
    ]
    report = ItemsReport(
        model=asked.name,
        source=asked.source,
        scores=scores,
        chance=chance(asked.items),
        accuracy=_accuracies(scores),
        likelihood={score: _mean_likelihood(scores, score) for score in Score},
        hardness=hardness_in_words(asked),
        is_own_hardness=asked.is_own_hardness,
        precision=asked.precision,
    )
    report = _by_hardness(report, asked)
    if asked.precision is Precision.BFLOAT16:
        report = _with_precision(report, asked, found, lab)
    return replace(report, seconds=time.perf_counter() - began)


def score_items(
    model: CausalLM,
    items: Sequence[Item],
    precision: Precision,
    lab: Lab,
    layers: Sequence[int] = (),
) -> list[ChoiceLikelihood]:
    """The likelihoods of all items, chunk by chunk, each stored as soon as it is there."""
    about = identify("language model", model=model)
    chunks = [items[k : k + CHUNK] for k in range(0, len(items), CHUNK)]
    return [
        one
        for chunk in lab.track(chunks, len(chunks))
        for one in _stored_chunk(model, about, chunk, precision, lab, layers)
    ]


def _stored_chunk(
    model: CausalLM,
    about: Identity,
    items: Sequence[Item],
    precision: Precision,
    lab: Lab,
    layers: Sequence[int],
) -> Iterator[ChoiceLikelihood]:
    prompts, choices = [i.prompt for i in items], [list(i.continuations) for i in items]
    key = identify(
        "item likelihoods",
        model=about,
        prompts=prompts,
        choices=choices,
        precision=str(precision),
        layers=list(layers),
        compute=choice_likelihoods,
    )

    def make() -> dict[str, Tensor]:
        read = choice_likelihoods(model, prompts, choices, precision=precision, layers=layers)
        made = {
            "total": torch.cat([one.total for one in read]),
            "tokens": torch.cat([one.tokens for one in read]),
            "bytes": torch.cat([one.bytes for one in read]),
        }
        if layers:
            made["hidden"] = torch.cat([one.hidden for one in read if one.hidden is not None])
        return made

    counts = [len(one) for one in choices]
    parts = {name: whole.split(counts) for name, whole in lab.keep(key, make).items()}
    hidden = parts.get("hidden", [None] * len(items))
    for k in range(len(items)):
        yield ChoiceLikelihood(parts["total"][k], parts["tokens"][k], parts["bytes"][k], hidden[k])


def _hardness(
    asked: ItemsRequest, found: Sequence[ChoiceLikelihood], lab: Lab
) -> Sequence[float | None]:
    answers = [item.answer for item in asked.items]
    if asked.hardness == PROBE:
        return probe_losses(_probe_features(asked, lab), answers, lab.child("probe")).tolist()
    if asked.hardness == LIKELIHOOD:
        other = asked.hardness_model
        if other is not None:
            found = score_items(other, asked.items, asked.precision, lab.child("hardness"))
        return [choice_loss(one.total, k) for one, k in zip(found, answers, strict=True)]
    return hardness_of(asked.items, asked.hardness)


def _probe_features(asked: ItemsRequest, lab: Lab) -> list[Tensor]:
    """Hidden states of the other model at each choice's end, or TF-IDF of question and choice."""
    if asked.hardness_model is not None:
        read = score_items(
            asked.hardness_model, asked.items, asked.precision, lab.child("hardness"), (-1,)
        )
        return [one.hidden[:, 0] for one in read if one.hidden is not None]
    texts = [item.prompt + text for item in asked.items for text in item.continuations]
    vectors = TfIdf().fit(texts).embed(texts)
    return list(vectors.split([len(item.choices) for item in asked.items]))


def hardness_in_words(asked: ItemsRequest) -> str:
    other = asked.hardness_name or "another model"
    if asked.hardness == LENGTH:
        return "words of the question"
    if asked.hardness == LIKELIHOOD:
        whose = f"{asked.name} itself" if asked.is_own_hardness else other
        return f"loss of the right choice among the choices under {whose} (nats)"
    if asked.hardness == PROBE:
        read = f"hidden states of {other}" if asked.hardness_model is not None else "TF-IDF"
        return f"loss of a probe on {read} that did not train on the item (nats)"
    return f"annotation `{asked.hardness}`"


def _accuracies(scores: Sequence[ItemScore]) -> dict[Score, Reading]:
    return {
        score: stats.proportion(sum(one.right(score) for one in scores), len(scores))
        for score in Score
    }


def _mean_likelihood(scores: Sequence[ItemScore], score: Score) -> Reading:
    return stats.mean([one.likelihoods[score][one.answer] for one in scores])


def _by_hardness(report: ItemsReport, asked: ItemsRequest) -> ItemsReport:
    """Accuracy in the strata; items that are all alike have none."""
    hardness = [one.hardness for one in report.scores]
    levels = [level for level in hardness if level is not None]
    missing = len(hardness) - len(levels)
    if len(set(levels)) < 2:
        warning = "All items are equally hard by this hardness: there is no accuracy by hardness."
        return replace(report, without_hardness=missing, warnings=[warning])
    strata = stratify(hardness, asked.cuts)
    found = []
    for stratum in Stratum:
        if members := strata.of(stratum):
            here = [report.scores[k] for k in members]
            values = [one.hardness for one in here if one.hardness is not None]
            found.append(
                StratumAccuracy(
                    stratum=stratum,
                    low=min(values),
                    high=max(values),
                    n=len(members),
                    chance=chance([asked.items[k] for k in members]),
                    accuracy=_accuracies(here),
                )
            )
    return replace(
        report,
        strata=found,
        fall=_fall(found),
        trend=_trend(report.scores),
        without_hardness=missing,
    )


def _fall(strata: Sequence[StratumAccuracy]) -> dict[Score, Reading]:
    by_name = {one.stratum: one for one in strata}
    if not {Stratum.EASY, Stratum.HARD} <= set(by_name):
        return {}
    easy, hard = by_name[Stratum.EASY], by_name[Stratum.HARD]
    return {
        score: stats.independent_difference(easy.accuracy[score], hard.accuracy[score])
        for score in Score
    }


def _trend(scores: Sequence[ItemScore]) -> Reading | None:
    known = [one for one in scores if one.hardness is not None]
    levels = [one.hardness for one in known if one.hardness is not None]
    margins = [one.margin for one in known]
    if len(known) < FEWEST_RANKED or len(set(margins)) < 2:
        return None
    return stats.rank_correlation(levels, margins)


def _with_precision(
    report: ItemsReport, asked: ItemsRequest, found: Sequence[ChoiceLikelihood], lab: Lab
) -> ItemsReport:
    """The first items again in float32, to say what bfloat16 changed."""
    few = asked.items[:COMPARED]
    exact = score_items(asked.model, few, Precision.FLOAT32, lab)
    pairs = list(zip(exact, found, strict=False))
    return replace(
        report,
        compared=len(few),
        shift=max(float((a.total - b.total).abs().max()) for a, b in pairs),
        turned=sum(int(a.total.argmax()) != int(b.total.argmax()) for a, b in pairs),
    )
