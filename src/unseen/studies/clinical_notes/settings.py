"""Which rows are read, by what, and how long each model trains."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from unseen.engine.loop import Budget
from unseen.measures.subgroups import LEAST, HighLossFeatures
from unseen.models.text_encoder import TextEncoder, minilm
from unseen.models.tiny_causal import tiny_causal
from unseen.study.grid import Cell, Grid, interleave
from unseen.tasks.hospitals import Part
from unseen.tasks.neiss import Neiss, infants_frame


class Corpus(StrEnum):
    RANDOM = "departments"
    """Random split inside each department."""
    LATER = "departments, later"
    """The first 60 % of encounters against the last 40 %."""
    NARRATIVES = "narratives"
    """Narratives of NEISS, hospitals left out, random split."""


class Kind(StrEnum):
    SITES = "departments"
    POOLED = "one model"
    TUNED = "fine-tuned"
    TUNED_SITES = "fine-tuned, departments"
    INFANTS = "infants"


@dataclass(frozen=True)
class Arm:
    kind: Kind
    corpus: Corpus = Corpus.RANDOM


def read_minilm() -> TextEncoder:
    return minilm(64)


def tiny_encoder() -> TextEncoder:
    """Random weights, a token per byte: for tests."""
    causal = tiny_causal()
    causal.model.config.pad_token_id = 0
    return TextEncoder(causal.model.model, causal.tokenizer, "tiny encoder", length=64)


def no_narratives() -> pd.DataFrame:
    """NEISS's yearly files are the user's own download."""
    return Neiss().table().read().frame


@dataclass(frozen=True)
class Config:
    part: Part = Part.ALL
    min_rows: int = 500
    most: int = 1_000
    """Rows of a department, spread over time."""
    sites: int = 0
    """At most so many departments are left out; 0: all."""
    encoder: Callable[[], TextEncoder] = read_minilm
    bfloat16: bool = True
    """Of all that MiniLM computes: twice as fast as float32."""
    first: Budget = Budget(steps=400, batch_size=128, lr=2e-3, weight_decay=1e-2)
    then: Budget = Budget(steps=100, batch_size=128, lr=5e-4, weight_decay=1e-2)
    tuning: Budget = Budget(
        batch_size=16, lr=5e-5, weight_decay=1e-2, warmup=8, clip=1.0, bfloat16=True
    )
    """Steps follow from one pass over the training notes."""
    notes: int = 600
    """Training notes of part "one model", the same for all that read them."""
    width: int = 64
    why: HighLossFeatures = HighLossFeatures(folds=3, repeats=2, trees=60)
    least: int = LEAST
    seeds: int = 5
    tuned_seeds: int = 1
    infants: Callable[[], pd.DataFrame] = infants_frame
    years: int = 7
    """The first years of part "infants" train, the others evaluate."""
    narratives: Callable[[], pd.DataFrame] | None = None
    """At the paper's scale only."""

    def cells(self) -> Iterator[Cell["Config", Arm]]:
        both = (Corpus.RANDOM, Corpus.LATER)
        sites = [*both, *([Corpus.NARRATIVES] if self.narratives else [])]
        frozen = [Arm(Kind.SITES, corpus) for corpus in sites]
        frozen += [Arm(Kind.POOLED, corpus) for corpus in both]
        tuned = [*(Arm(Kind.TUNED, corpus) for corpus in both), Arm(Kind.TUNED_SITES)]
        yield from interleave(
            Grid((self,), frozen, self.seeds),
            Grid((self,), tuned, self.tuned_seeds),
            Grid((self,), (Arm(Kind.INFANTS),), 1),
        )
