"""The same rows as vectors, words, tokens or coded fields, and the models that read them."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.models.embedders import TfIdf
from unseen.models.mlp import mlp
from unseen.models.text_classifier import TextClassifier, token_windows
from unseen.models.text_encoder import TextEncoder
from unseen.studies.clinical_notes.settings import Config, Corpus
from unseen.studies.clinical_sites import SHARES
from unseen.study.trial import untrained_model
from unseen.subjects.text_tables import TFIDF_SCALE
from unseen.tasks.clinical_notes import DepartmentNotes
from unseen.tasks.neiss import Neiss
from unseen.tasks.table import Table, Tabular
from unseen.tasks.table.texts import count_words


def table_of(config: Config, corpus: Corpus) -> Table:
    """The rows with all their columns, the text among them."""
    if corpus is Corpus.NARRATIVES:
        found = Neiss(read=config.narratives).table()
    else:
        notes = DepartmentNotes(
            by_time=corpus is Corpus.LATER,
            part=config.part,
            min_rows=config.min_rows,
            most=config.most,
            shares=SHARES,
        )
        found = notes.table()
    return replace(found, data=frame_of(config, corpus), local=0.6, shares=SHARES)


@cache
def frame_of(config: Config, corpus: Corpus) -> pd.DataFrame:
    """The rows, the same for all cells."""
    if corpus is Corpus.NARRATIVES:
        return Neiss(read=config.narratives).table().frame()
    return (
        DepartmentNotes(part=config.part, min_rows=config.min_rows, most=config.most)
        .table()
        .frame()
    )


@cache
def encoder_of(config: Config) -> TextEncoder:
    return config.encoder()


def texts_of(config: Config, corpus: Corpus) -> list[str]:
    frame = frame_of(config, corpus)
    return frame["narrative" if corpus is Corpus.NARRATIVES else "note"].tolist()


@cache
def vectors(config: Config, narratives: bool) -> Tensor:
    """Those of every row, computed once; of length √d, as heads expect inputs of about 1."""
    corpus = Corpus.NARRATIVES if narratives else Corpus.RANDOM
    encoder = encoder_of(config)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
        found = encoder.embed(texts_of(config, corpus))
    return found * encoder.dimension**0.5


def read_by(tabular: Tabular, x: Tensor) -> Tabular:
    """The task with these inputs of each row instead of the coded fields."""
    splits = {}
    for name, split in tabular.task.splits.items():
        batch = whole(split.data, Lab())
        splits[name] = replace(split, data=Columns(**{**batch, "x": x[batch["index"]]}))
    return replace(tabular, task=replace(tabular.task, splits=splits))


def few_rows(tabular: Tabular, n: int, lab: Lab) -> Tabular:
    """The task with `n` of its training rows."""
    chosen = lab.child("few").numpy().permutation(len(tabular.rows["train"]))[:n]
    train = tabular.task.split("train")
    data = Columns(**whole(train.data, lab)).subset(torch.from_numpy(chosen))
    splits = {**tabular.task.splits, "train": replace(train, data=data)}
    rows = {**tabular.rows, "train": tabular.rows["train"][chosen]}
    return replace(tabular, task=replace(tabular.task, splits=splits), rows=rows)


def linear_head(x: Tensor, lab: Lab) -> nn.Module:
    return untrained_model(lambda: mlp([x.shape[1], 2]), lab)


def coded_model(tabular: Tabular, width: int, lab: Lab) -> nn.Module:
    """The network of the study of tables."""
    return untrained_model(lambda: mlp([len(tabular.encoder.names), width, 2], dropout=0.2), lab)


def word_weights(config: Config, tabular: Tabular) -> Tensor:
    texts = texts_of(config, Corpus.RANDOM)
    fitted = TfIdf().fit([texts[row] for row in tabular.rows["train"]])
    return TFIDF_SCALE * fitted.embed(texts)


def word_counts(config: Config) -> Tensor:
    """The logarithm of each text's number of words, standardised."""
    words = np.log(count_words(frame_of(config, Corpus.RANDOM)["note"]))
    return torch.from_numpy((words - words.mean()) / words.std()).float()[:, None]


def tokens_of(config: Config) -> Tensor:
    return token_windows(encoder_of(config), texts_of(config, Corpus.RANDOM))[0]


def classifier(config: Config, lab: Lab) -> nn.Module:
    return untrained_model(lambda: TextClassifier(deepcopy(encoder_of(config)), 2), lab)


def one_pass(budget: Budget, n: int) -> Budget:
    return replace(budget, steps=max(1, n // budget.batch_size))
