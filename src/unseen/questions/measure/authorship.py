"""What a language model says about who wrote a text: likelihood, rank, curvature and Binoculars
against texts of people, and where a machine may take over."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.identity import Identity, identify
from unseen.lab import Lab
from unseen.measures.machine_text import Statistic
from unseen.measures.machine_text.scorer import FEWEST, TextScorer
from unseen.measures.machine_text.takeover import LEAST, ChangePoint, change_point
from unseen.measures.machine_text.token_statistics import TokenStatistics
from unseen.models.pretrained import CausalLM
from unseen.stats import Threshold
from unseen.tasks.table.reading import read_table
from unseen.tasks.table.texts import refuse_no_texts, rows_without
from unseen.tasks.text_corpus.reading import Cut, pieces
from unseen.text import count_noun

SHOWN = (Statistic.CURVATURE, Statistic.BINOCULARS, Statistic.LIKELIHOOD, Statistic.RANK)
RATE = 0.01
"""False positives of the threshold."""
MOST_TOKENS = 1_024
"""Of a text; further ones are not read."""
WINDOW = 512
"""Tokens that are read together, where the model has as many positions."""
CHUNK = 8
"""Texts that are scored and stored together: an interrupted command goes on behind the last."""
STATISTICS = ("log_probability", "mean", "variance", "rank")
SENTENCE = re.compile(r"[^.!?]+[.!?]*[\"'”’)\]]*\s*")


@dataclass(frozen=True, kw_only=True)
class AuthorshipJob:
    """Texts by name, and texts that people wrote."""

    texts: Mapping[str, str]
    human: Sequence[str] = ()
    scorer: TextScorer
    model: str
    observer: str = ""
    """The second model of Binoculars; empty: the same one twice."""


@dataclass(frozen=True, kw_only=True)
class StatisticOfText:
    """One number of one text, beside those of people."""

    statistic: Statistic
    value: float
    human: float = nan
    """Median of the human texts."""
    threshold: Threshold | None = None
    share: float = nan
    """Of human texts that lie as high: (1 + how many) / (1 + n)."""

    @property
    def exceeds(self) -> bool | None:
        """Whether it lies above the threshold; None without one."""
        return None if self.threshold is None else self.value > self.threshold.value


@dataclass(frozen=True, kw_only=True)
class Takeover:
    """Where the scores of the sentences rise most."""

    change: ChangePoint
    character: int
    sentence: str
    """The first one of the second part."""

    @property
    def stands_out(self) -> bool:
        return self.change.p <= 0.05


@dataclass(frozen=True, kw_only=True)
class TextReport:
    """One text."""

    name: str
    tokens: int
    is_cut: bool
    statistics: Sequence[StatisticOfText]
    compared: int
    """Human texts that are at least half as long; they are cut to its length."""
    takeover: Takeover | None
    """None: fewer than four sentences."""
    pieces: Sequence[str]
    excess: Sequence[float]
    """ℓ_t − μ_t of each piece, in nats; 0 for the first, which nothing predicts."""

    @property
    def is_compared(self) -> bool:
        """Whether there are enough human texts of its length for a threshold."""
        return self.compared > 1


@dataclass(frozen=True, kw_only=True)
class AuthorshipReport:
    """All texts under one scoring model."""

    model: str
    observer: str
    texts: Sequence[TextReport]
    human: int
    rate: float
    """Of the thresholds: 1 %, or the smallest that so many human texts allow."""
    left_out: int
    """Human texts that were too short to read."""
    repeats: int = 0
    """Human texts that repeat another one, or a text that is asked about."""
    notes: Sequence[str] = field(default_factory=tuple)


def window_of(*models: CausalLM | None) -> int:
    """`WINDOW` tokens, or as many as all the models have positions for."""
    # a decoder that is not of transformers has no configuration that names a limit
    limits = [getattr(one, "context", None) for one in models if one is not None]
    return min([WINDOW, *(limit for limit in limits if limit is not None)])


def read_texts(paths: Sequence[str], field: str) -> dict[str, str]:
    """Every document of the files by its name: a file, or a line of a .jsonl file."""
    found: dict[str, str] = {}
    for piece in pieces(paths, field, Cut.REFUSE):
        name = f"{piece.file}, line {piece.line}" if piece.line else piece.file
        found[name] = found.get(name, "") + piece.text
    return found


def find_texts(
    texts: str | Path | Sequence[str | Path] | Mapping[str, str] | pd.DataFrame,
    column: str | None,
    field: str,
    encoding: str = "utf-8",
) -> tuple[dict[str, str], list[str]]:
    """Texts by name, of files or of a table's column, and what was left out."""
    if isinstance(texts, pd.DataFrame) or column is not None:
        if column is None or not isinstance(texts, str | Path | pd.DataFrame):
            raise InvalidConfig(
                "A column of texts is read from one table.",
                why=f"column={column!r} was given with a {type(texts).__name__}.",
                fix='measure_authorship("essays.csv", column="essay").',
            )
        return column_texts(texts, column, encoding)
    if isinstance(texts, Mapping):
        return dict(texts), []
    files = [texts] if isinstance(texts, str | Path) else texts
    return read_texts([str(file) for file in files], field), []


def column_texts(
    table: str | Path | pd.DataFrame, column: str, encoding: str = "utf-8"
) -> tuple[dict[str, str], list[str]]:
    """The text of every row by the row's number, and which rows have none."""
    frame = table if isinstance(table, pd.DataFrame) else read_table(table, encoding).frame
    if column not in frame:
        raise UnknownName.near("column", column, [str(name) for name in frame])
    refuse_no_texts(frame[column])
    cells = ["" if pd.isna(cell) else str(cell).strip() for cell in frame[column]]
    gone = np.array([not cell for cell in cells])
    if gone.all():
        raise InvalidData(
            f"Column `{column}` has no text.", why="every cell is empty.", fix="name another one."
        )
    named = {f"row {row}": cell for row, cell in enumerate(cells) if cell}
    count = count_noun(int(gone.sum()), "row")
    return named, [f"{count} without a text left out{rows_without(gone)}."] if gone.any() else []


def measure_texts(job: AuthorshipJob, lab: Lab) -> AuthorshipReport:
    if not job.texts:
        raise InvalidConfig("No text was given.", why="one is read.", fix="--text a.txt")
    scorer = job.scorer
    texts = {name: _first_tokens(scorer, text, name) for name, text in job.texts.items()}
    others = _distinct(job.human, list(job.texts.values()))
    long_enough = [text for text in others if len(scorer.model.encode(text)) >= FEWEST]
    human = [_first_tokens(scorer, text, "A human text")[0] for text in long_enough]
    if job.human and len(human) < 2:
        raise InvalidData(
            f"{len(human)} of {len(job.human)} human texts have {FEWEST} tokens or more and repeat "
            "neither another one nor a text that is asked about.",
            why="a threshold is a value that few of them exceed.",
            fix=f"give more or longer texts; {stats.fewest_scores(RATE)} allow a threshold at 1 %.",
        )
    scored = score_texts(scorer, [[text for text, _ in texts.values()], human], lab)
    own, people = scored[: len(texts)], scored[len(texts) :]
    reports = [
        _report(name, text, is_cut, found, people, scorer, lab.child(name))
        for (name, (text, is_cut)), found in zip(texts.items(), own, strict=True)
    ]
    fewest = min((one.compared for one in reports if one.is_compared), default=0)
    return AuthorshipReport(
        model=job.model,
        observer=job.observer,
        texts=reports,
        human=len(human),
        rate=_rate(fewest) if fewest else RATE,
        left_out=len(others) - len(human),
        repeats=len(job.human) - len(others),
    )


def score_texts(
    scorer: TextScorer, parts: Sequence[Sequence[str]], lab: Lab
) -> list[TokenStatistics]:
    """The statistics of all texts, a few at a time, each stored as soon as it is there: texts by
    people are read once, whatever they are compared with.
    """
    models = (scorer.model, scorer.sampler)
    about = [identify("language model", model=one) for one in models if one is not None]
    chunks = [part[k : k + CHUNK] for part in parts for k in range(0, len(part), CHUNK)]
    return [
        one
        for chunk in lab.track(chunks, len(chunks))
        for one in _stored_chunk(scorer, about, chunk, lab)
    ]


def _stored_chunk(
    scorer: TextScorer, about: Sequence[Identity], texts: Sequence[str], lab: Lab
) -> Iterator[TokenStatistics]:
    key = identify(
        "token statistics",
        models=list(about),
        length=scorer.length,
        texts=list(texts),
        compute=TextScorer.score,
    )

    def make() -> dict[str, Tensor]:
        found = scorer.score(texts)
        joined = {name: torch.cat([getattr(one, name) for one in found]) for name in STATISTICS}
        return {**joined, "tokens": torch.tensor([len(one) for one in found])}

    stored = lab.keep(key, make)
    counts = stored["tokens"].tolist()
    for parts in zip(*(stored[name].split(counts) for name in STATISTICS), strict=True):
        yield TokenStatistics(*parts)


def _distinct(texts: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Each text once, without those that are asked about: copies are no further people, and a text
    is no comparison for itself.
    """
    known = {" ".join(text.split()) for text in asked}
    found = dict[str, str]()
    for text in texts:
        found.setdefault(" ".join(text.split()), text)
    return [text for key, text in found.items() if key not in known]


def _rate(human: int) -> float:
    """1 %, or as much as one in so many and one more."""
    return RATE if human >= stats.fewest_scores(RATE) else 1 / (human + 1)


def _first_tokens(scorer: TextScorer, text: str, name: str) -> tuple[str, bool]:
    """The text up to `MOST_TOKENS`, and whether it was cut."""
    scorer.encode(text, name)  # refuses a short one with its length
    ends = scorer.ends(text)
    return (text[: ends[MOST_TOKENS - 1]], True) if len(ends) > MOST_TOKENS else (text, False)


def _report(
    name: str,
    text: str,
    is_cut: bool,
    found: TokenStatistics,
    others: Sequence[TokenStatistics],
    scorer: TextScorer,
    lab: Lab,
) -> TextReport:
    # a statistic of many tokens has less spread, and curvature grows with their number: people's
    # texts are read as far as this one
    comparable = [_first(one, len(found)) for one in others if 2 * len(one) >= len(found)]
    ends = scorer.ends(text)
    starts = [0, *ends[:-1]]
    excess = (found.log_probability - found.mean).double().cpu().numpy()
    return TextReport(
        name=name,
        tokens=len(ends),
        is_cut=is_cut,
        statistics=[_compare(one, found, comparable) for one in SHOWN],
        compared=len(comparable),
        takeover=_takeover(text, np.array(ends), excess, lab),
        pieces=[text[a:b] for a, b in zip(starts, ends, strict=True)],
        excess=[0.0, *excess.tolist()],
    )


def _first(text: TokenStatistics, tokens: int) -> TokenStatistics:
    return TokenStatistics(*(getattr(text, name)[:tokens] for name in STATISTICS))


def _compare(
    statistic: Statistic, found: TokenStatistics, others: Sequence[TokenStatistics]
) -> StatisticOfText:
    value = statistic.of(found)
    if len(others) < 2:
        return StatisticOfText(statistic=statistic, value=value)
    human = np.array([statistic.of(one) for one in others])
    return StatisticOfText(
        statistic=statistic,
        value=value,
        human=float(np.median(human)),
        threshold=stats.threshold_at(human, _rate(len(human))),
        share=(1 + int((human >= value).sum())) / (1 + len(human)),
    )


def _takeover(
    text: str, ends: NDArray[np.int_], excess: NDArray[np.float64], lab: Lab
) -> Takeover | None:
    """The sentence from which on the text is likelier than the scorer expects, against random
    orders of the sentences."""
    bounds = [(one.start(), one.end()) for one in SENTENCE.finditer(text)]
    # the first token is not scored; a sentence holds the tokens that end in it
    inside = [np.flatnonzero((ends[1:] > start) & (ends[1:] <= end)) for start, end in bounds]
    used = [
        (start, tokens) for (start, _), tokens in zip(bounds, inside, strict=True) if len(tokens)
    ]
    if len(used) < LEAST:
        return None
    means = [float(excess[tokens].mean()) for _, tokens in used]
    weights = [float(len(tokens)) for _, tokens in used]
    change = change_point(means, weights, generator=lab.child("orders").numpy())
    start = used[change.index][0]
    sentence = text[start : used[change.index + 1][0] if change.index + 1 < len(used) else None]
    return Takeover(change=change, character=start, sentence=" ".join(sentence.split()))
