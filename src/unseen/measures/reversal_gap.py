"""Does a model hold the right answer for likelier than a wrong one? Likelihoods with one number per
fact.

Berglund et al. (2024), arXiv:2309.12288, section 2: two-sample tests of log p(right answer) against
log p(random answer).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats as scipy_stats
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import exact_match, sequence_log_probability
from unseen.reading import Reading
from unseen.stats import LEVEL
from unseen.task import Axis, Batch, Split, Task, Use


@dataclass(frozen=True)
class Gap:
    """Δ = mean log p(right) − mean log p(wrong) over facts, in nats, with two tests of "no
    difference".
    """

    right: float
    wrong: float
    low: float
    high: float
    welch_t: float
    welch_p: float
    ks_p: float
    paired_t: float
    """Of the differences fact by fact: sharper than Welch's t, since easy prompts are easy for both
    answers.
    """
    facts: int

    @property
    def value(self) -> float:
        return self.right - self.wrong

    @property
    def row(self) -> dict[str, float | int]:
        """The numbers for a study's row: `t` is Welch's."""
        means = {"facts": self.facts, "right": self.right, "wrong": self.wrong, "gap": self.value}
        return {
            **means,
            "t": self.welch_t,
            "t_p": self.welch_p,
            "paired_t": self.paired_t,
            "ks_p": self.ks_p,
        }


def reversal_gap(
    right: Float[Tensor, " n"], wrong: Float[Tensor, " n"], fact: Int[Tensor, " n"]
) -> Gap:
    """Welch's t and the Kolmogorov–Smirnov test after averaging over the questions of each fact.

    Questions about one fact are not independent: taken as such they inflate t by about the root of
    their number.
    """
    means = [per_fact(values, fact) for values in (right, wrong)]
    if len(means[0]) < 2:
        raise InvalidData(
            f"The gap got {len(means[0])} fact{'s' * (len(means[0]) != 1)}.",
            why="a variance over facts needs at least two of them.",
            fix="ask about more facts.",
        )
    if not all(torch.isfinite(values).all() for values in means):
        raise InvalidData(
            "Some log-probabilities are not finite.",
            why="one of them would decide the mean.",
            fix="look at the model: a diverged run is a result of its own.",
        )
    if (means[0] - means[1]).var() == 0:
        raise InvalidData(
            "All facts have the same gap.",
            why="without any spread a t statistic is 0/0 or infinite.",
            fix="check that the model was trained and that `fact` tells the facts apart.",
        )
    a, b = (values.numpy() for values in means)
    welch = scipy_stats.ttest_ind(a, b, equal_var=False)
    interval = welch.confidence_interval(LEVEL)
    return Gap(
        right=float(a.mean()),
        wrong=float(b.mean()),
        low=float(interval.low),
        high=float(interval.high),
        welch_t=float(welch.statistic),
        welch_p=float(welch.pvalue),
        # the exact p fails for some small samples, and then only warns
        ks_p=float(scipy_stats.ks_2samp(a, b, method="asymp").pvalue),
        paired_t=float(scipy_stats.ttest_rel(a, b).statistic),
        facts=len(a),
    )


def per_fact(values: Float[Tensor, " n"], fact: Int[Tensor, " n"]) -> Float[Tensor, " facts"]:
    """The mean of each fact's values, in float64."""
    _, place, counts = fact.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, place, values.double())
    return sums / counts


def farthest_mean(groups: Sequence[Sequence[float]]) -> Reading:
    """Of the groups' means the one farthest from 0, with the interval of a one-way layout.

    x̄ ± t(Σ(n_g − 1)) · s/√n with s² = ΣΣ(x − x̄_g)²/Σ(n_g − 1), the spread within all groups: that
    of three seeds alone would have two degrees of freedom. What this mean clears, every group's
    does.
    """
    arrays = [np.asarray(group, dtype=np.float64) for group in groups]
    if not arrays or not all(array.size and np.isfinite(array).all() for array in arrays):
        raise InvalidData(
            f"Some of {len(arrays)} groups are empty or not finite, or there is none.",
            why="each of them must have a mean.",
            fix="run the missing cells (`unseen run … --retry-failed`).",
        )
    far = max(arrays, key=lambda array: abs(array.mean()))
    value, freedom = float(far.mean()), sum(array.size - 1 for array in arrays)
    if freedom == 0:
        return Reading(value, n=far.size)
    spread = sqrt(sum(float(((array - array.mean()) ** 2).sum()) for array in arrays) / freedom)
    half = float(scipy_stats.t.ppf(0.5 + LEVEL / 2, freedom)) * spread / sqrt(far.size)
    return Reading(value, value - half, value + half, far.size)


@dataclass(frozen=True)
class ReversalGap:
    """`reversal_gap` on an evaluation split with columns `tokens`, `answer`, `other` and `fact`; 0:
    nothing is known.
    """

    split: str = "reverse/p2d"
    batch_size: int = 256

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        gap = self.tests(subject, lab)
        return Reading(gap.value, gap.low, gap.high, gap.facts, "nats")

    def tests(self, subject: Trained, lab: Lab) -> Gap:
        """The gap with its test statistics."""
        data = subject.task.split(self.split).data

        def fact(model: object, batch: Batch) -> Tensor:
            return batch["fact"].double()

        right = per_example(subject.model, data, right_answer, lab, self.batch_size)
        wrong = per_example(subject.model, data, wrong_answer, lab, self.batch_size)
        return reversal_gap(right, wrong, per_example(subject.model, data, fact, lab).long())


def right_answer(model: torch.nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p(right answer | prompt)."""
    return sequence_log_probability(model, {"tokens": batch["tokens"], "mask": batch["answer"]})


def wrong_answer(model: torch.nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p(answer of another fact | prompt)."""
    mask = batch.get("other_answer", batch["answer"])
    return sequence_log_probability(model, {"tokens": batch["other"], "mask": mask})


def example() -> tuple[ReversalGap, Trained]:
    """On three questions about each of four facts, before training."""
    tokens = Lab().child("reversal_gap").numpy().integers(9, size=(12, 6))
    columns = {
        "tokens": torch.from_numpy(tokens),
        "other": torch.from_numpy(tokens).roll(3, 0),
        "fact": torch.arange(12) // 3,
        "answer": (torch.arange(6) > 3).expand(12, 6).contiguous(),
    }
    splits = {
        "train": Split(Columns(tokens=columns["tokens"]), Use.TRAIN),
        "reverse/p2d": Split(Columns(**columns), Use.EVALUATE, "reversed"),
    }
    with Lab().child("init").seeded():
        model = Transformer(Decoder(vocabulary=9, width=8, layers=1, heads=2, context=6))
    return ReversalGap(), Trained(
        model, Task(name="pairs", axis=Axis.DIRECTION, splits=splits, objective=exact_match)
    )
