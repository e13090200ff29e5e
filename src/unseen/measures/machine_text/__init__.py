"""Text that a machine wrote, by what a scoring language model says of its tokens: no training, and
never proof about a person."""

from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import nn

from unseen import stats
from unseen.engine.batches import Columns, once
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.machine_text.token_statistics import (
    TokenStatistics,
    curvature,
    entropy,
    likelihood_over_rank,
    log_likelihood,
    log_rank,
    perplexity_ratio,
    token_statistics,
)
from unseen.method import Trained
from unseen.objectives import next_token
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use


class Statistic(StrEnum):
    """A number of a text that is higher where a machine wrote it."""

    LIKELIHOOD = "log-likelihood"
    RANK = "log-rank"
    LRR = "likelihood over rank"
    CURVATURE = "curvature"
    BINOCULARS = "Binoculars"
    """Negated: the published score is low for machines."""
    ENTROPY = "entropy"
    """Negated, as the others: machines stay where the scorer is sure."""

    def of(self, text: TokenStatistics) -> float:
        """The number, of the scorer's statistics; Binoculars with the observer as sampler."""
        return {
            Statistic.LIKELIHOOD: log_likelihood,
            Statistic.RANK: log_rank,
            Statistic.LRR: likelihood_over_rank,
            Statistic.CURVATURE: curvature,
            Statistic.BINOCULARS: lambda text: -perplexity_ratio(text),
            Statistic.ENTROPY: lambda text: -entropy(text),
        }[self](text)


@dataclass(frozen=True)
class MachineText:
    """Mean of a statistic over the token sequences of a split under the model itself.

    Curvature: 0 with s.d. 1 where the model wrote them; the interval is over sequences.
    """

    statistic: Statistic = Statistic.CURVATURE
    split: str = "train"
    most: int = 64
    """Sequences that are read."""
    batch_size: int = field(default=8, kw_only=True)

    @torch.no_grad()
    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        data, model = subject.task.splits[self.split].data, subject.model
        found: list[float] = []
        was_training = model.training
        model.eval()
        try:
            for batch in once(data, self.batch_size, lab):
                found += self._of_batch(batch["tokens"], model(batch["tokens"]))
                if len(found) >= self.most:
                    break
        finally:
            model.train(was_training)
        return stats.mean(found[: self.most])

    def _of_batch(self, tokens: torch.Tensor, logits: torch.Tensor) -> list[float]:
        if logits.dim() != 3:
            raise InvalidData(
                f"The model's output has shape {tuple(logits.shape)}.",
                why="a language model gives logits [sequence, position, token].",
                fix="measure a causal language model on tokens.",
            )
        return [
            self.statistic.of(token_statistics(row[:-1], text[1:]))
            for row, text in zip(logits, tokens, strict=True)
        ]


def example() -> tuple[MachineText, Trained]:
    """A bigram model on random sequences."""
    tokens = torch.randint(16, (12, 10), generator=Lab().child("sequences").generator())
    task = Task(
        name="sequences",
        axis=Axis.IID,
        splits={"train": Split(Columns(tokens=tokens), Use.TRAIN)},
        objective=next_token,
    )
    with Lab().child("bigrams").seeded():
        model = nn.Embedding(16, 16)
    return MachineText(), Trained(model, task)
