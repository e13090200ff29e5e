"""How hard an example is: Data Maps of a training run, the loss among the choices of an item, the
loss of a probe that did not train on it, and the distance from the nearest prototype.

Data Maps: Swayamdipta et al. (2020), arXiv:2009.10795. Loss as hardness, under another model or a
probe: Hase et al. (2024), arXiv:2401.06751. Prototypes: Sorscher et al. (2022), arXiv:2206.14486.
How often an example is forgotten, and when it is
learned: `measures/learning_order.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from unseen import stats
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.task import Batch, PerExample, Split

FEWEST_EPOCHS = 2


@dataclass(frozen=True)
class TrainingRecord:
    """What a model said of each example after each epoch."""

    probability: Float[Tensor, "epoch example"]
    """Of the right answer, not the largest one."""
    right: Bool[Tensor, "epoch example"]
    """Whether the right answer was the most likely one."""


@dataclass(frozen=True)
class DataMap:
    """Confidence μ = mean_e p_e, variability σ = √(mean_e (p_e − μ)²) and correctness, the share
    of epochs in which the example was right.
    """

    confidence: Float[Tensor, " example"]
    variability: Float[Tensor, " example"]
    correctness: Float[Tensor, " example"]

    def order(self) -> Int[Tensor, " example"]:
        """From the hardest (lowest confidence) to the easiest, ties by index."""
        return self.confidence.argsort(stable=True)


def data_map(record: TrainingRecord) -> DataMap:
    """Where each example lies on the map of the epochs recorded."""
    probability = record.probability.double()
    epochs = len(probability)
    if epochs < FEWEST_EPOCHS or record.right.shape != probability.shape:
        raise InvalidData(
            f"A data map got probabilities of shape {tuple(probability.shape)} and hits of shape "
            f"{tuple(record.right.shape)}.",
            why="variability is that of an example's probability over epochs: of one it is "
            "undefined.",
            fix=f"record at least {FEWEST_EPOCHS} epochs of the same examples.",
        )
    if not bool(((probability >= 0) & (probability <= 1 + 1e-6)).all()):
        raise InvalidData(
            "A data map got a probability outside [0, 1], or NaN.",
            why="confidence is the mean probability of the right answer.",
            fix="give softmax outputs, not logits.",
        )
    return DataMap(
        probability.mean(0), probability.std(0, correction=0), record.right.double().mean(0)
    )


def likelihood(loss: PerExample) -> PerExample:
    """e^(−loss): of a cross-entropy the probability of the right answer."""

    def probability(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
        return (-loss(model, batch)).exp()

    return probability


@dataclass(eq=False)
class DataMapRecorder:
    """A watch for `train`: the mean probability of the right answers of `split`, and a record of
    each. The loss is the negative log-likelihood of the right answer.

    Mutable on purpose: it is the memory of one run.
    """

    split: Split
    loss: PerExample
    score: PerExample
    lab: Lab
    probability: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)

    def __call__(self, model: nn.Module) -> float:
        found = per_example(model, self.split.data, likelihood(self.loss), self.lab)
        self.probability.append(found)
        self.right.append(per_example(model, self.split.data, self.score, self.lab) > 0.5)
        return float(found.mean())

    @property
    def record(self) -> TrainingRecord:
        if not self.probability:
            raise InvalidData(
                "Nothing was recorded.",
                why="the watch was never called.",
                fix="pass it to `train`, and evaluate after every epoch.",
            )
        return TrainingRecord(torch.stack(self.probability), torch.stack(self.right))


@dataclass(frozen=True)
class DataMaps:
    """Mean confidence over the examples; `detail` holds each one's hardness, 1 − confidence.

    A model that never learns the task ranks noise: its last epoch must be right more often than
    `chance`.
    """

    chance: float = 0.5

    def __call__(self, subject: TrainingRecord, lab: Lab) -> Reading:
        found = data_map(subject)
        last = subject.right[-1]
        learned = stats.proportion(int(last.sum()), len(last))
        if not learned.low > self.chance:
            raise InvalidData(
                f"At the end {learned.value:.0%} of {len(last)} examples are right; chance is "
                f"{self.chance:.0%}.",
                why="a model that has not learned the task maps noise.",
                fix="train longer, or with a larger model.",
            )
        reading = stats.mean(found.confidence.numpy(), within=(0.0, 1.0))
        return Reading(
            reading.value,
            reading.low,
            reading.high,
            reading.n,
            "probability",
            1 - found.confidence,
            reading.freedom,
        )


def choice_loss(total: Float[Tensor, " choice"], answer: int) -> float:
    """−log p(right choice | one of the choices) from the choices' log-likelihoods."""
    return float(total.double().logsumexp(0) - total.double()[answer])


def probe_losses(
    features: Sequence[Float[Tensor, "_ d"]],
    answers: Sequence[int],
    lab: Lab,
    *,
    folds: int = 5,
    strength: float = 1.0,
) -> Float[Tensor, " item"]:
    """−log p of each item's right choice under a linear probe that was trained on the items of the
    other folds: all choices of an item are in one fold.

    The probe tells right choices from wrong ones (logistic regression, penalty 1/`strength`), and
    its scores compete within the item.
    """
    n = len(features)
    if not 2 <= folds <= n or len(answers) != n:
        raise InvalidConfig(
            f"probe_losses got {n} items, {len(answers)} answers and {folds} folds.",
            why="each item is read by a probe that was trained on the other folds.",
            fix="give an answer for each item, and 2 ≤ folds ≤ items.",
        )
    losses = torch.zeros(n, dtype=torch.float64)
    order = lab.child("folds").numpy().permutation(n)
    for held in np.array_split(order, folds):
        rest = np.setdiff1d(order, held)
        x = torch.cat([features[k] for k in rest]).double().numpy()
        y = np.concatenate([np.arange(len(features[k])) == answers[k] for k in rest])
        probe = LogisticRegression(C=strength, max_iter=1_000).fit(x, y)
        for k in held:
            scores = torch.from_numpy(probe.decision_function(features[k].double().numpy()))
            losses[k] = choice_loss(scores, answers[k])
    return losses


def prototype_distance(
    features: Float[Tensor, "item d"], lab: Lab, *, prototypes: int = 10
) -> Float[Tensor, " item"]:
    """Each item's distance from the nearest of the centres that k-means finds among all items."""
    if not 1 <= prototypes <= len(features):
        raise InvalidConfig(
            f"{prototypes} prototypes of {len(features)} items.",
            why="a prototype is the centre of items.",
            fix="choose from 1 to the number of items.",
        )
    seed = int(lab.child("prototypes").numpy().integers(2**31))
    found = KMeans(prototypes, n_init=4, random_state=seed).fit_transform(features.double().numpy())
    return torch.from_numpy(found.min(1))


def quarters(hardness: Float[Tensor, " item"]) -> tuple[Int[Tensor, " _"], ...]:
    """The items in four parts as equal as can be, the easiest first, ties by index."""
    if len(hardness) < 4:
        raise InvalidData(
            f"{len(hardness)} items make no four quarters.",
            why="each holds one item at least.",
            fix="give more items.",
        )
    return hardness.argsort(stable=True).tensor_split(4)


def example() -> tuple[DataMaps, TrainingRecord]:
    """Eight examples over three epochs, the last one never right."""
    probability = torch.linspace(0.3, 0.95, 24).view(3, 8)
    probability[:, -1] = 0.2
    return DataMaps(chance=0.3), TrainingRecord(probability, probability > 0.5)
