"""How a binary classifier ranks once chosen inputs are exchanged between examples (Shah et al.,
2020, arXiv:2006.07710).

`measures/feature_reliance.py` has the fall of any score; here the area under the ROC curve, which a
constant shift of the logit does not lower.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import outputs
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Batch


def exchange_features(
    x: Float[Tensor, "n *shape"], features: Bool[Tensor, "*shape"], order: Int[Tensor, " n"]
) -> Tensor:
    """Row i gets the chosen features of row order[i]. One order for all of them: what they share
    stays.
    """
    return torch.where(features, x[order], x)


def log_odds(model: nn.Module, x: Tensor, lab: Lab) -> Float[Tensor, " n"]:
    """Of class 1, from two logits or from one."""
    found = outputs(model, Columns(x=x), lab).flatten(1).double()
    if found.shape[1] > 2 or not torch.isfinite(found).all():
        raise InvalidData(
            f"The model has {found.shape[1]} outputs, {int((~torch.isfinite(found)).sum())} values "
            "are not finite.",
            why="two classes are ranked by their log odds.",
            fix="use a model with one logit or two.",
        )
    return found[:, -1] - found[:, 0] if found.shape[1] == 2 else found[:, 0]


def randomised_auc(
    model: nn.Module, batch: Batch, features: Bool[Tensor, "*shape"], lab: Lab, *, repeats: int = 10
) -> Reading:
    """Mean over random orders of the AUC with these features exchanged; no feature: the AUC.

    ½ if the model uses nothing else, the AUC if it ignores them. The interval counts examples and
    orders.
    """
    x, y = batch["x"], batch["y"].flatten()
    if not set(y.unique().tolist()) <= {0, 1}:
        raise InvalidData(
            f"`y` has the values {y.unique().tolist()[:5]}.",
            "an AUC has two classes.",
            "use 0 and 1.",
        )
    orders = lab.child("exchange").generator()
    tries = repeats if features.any() else 1
    moved = (
        exchange_features(x, features, torch.randperm(len(x), generator=orders).to(x.device))
        for _ in range(tries)
    )
    return stats.crossed_auc(
        torch.stack([log_odds(model, each, lab) for each in moved]).numpy(), y.cpu().numpy()
    )


@dataclass(frozen=True)
class RandomisedAUC:
    """AUC of a split after these features have changed places between its examples: ½ if nothing
    else is used.
    """

    features: Sequence[int] = (0,)
    """Positions in the flattened input."""
    split: str = "test"
    repeats: int = 10

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        batch = whole(subject.task.split(self.split).data, lab)
        entries = batch["x"].shape[1:].numel()
        if self.repeats < 1 or not all(0 <= j < entries for j in self.features):
            raise InvalidConfig(
                f"RandomisedAUC(features={tuple(self.features)[:8]}, repeats={self.repeats}) is "
                "out of range.",
                why=f"the inputs have positions 0 to {entries - 1}, and an exchange needs an "
                "order.",
                fix="correct the positions; set repeats ≥ 1.",
            )
        chosen = torch.zeros(entries, dtype=torch.bool, device=batch["x"].device)
        chosen[list(self.features)] = True
        return randomised_auc(
            subject.model, batch, chosen.view(batch["x"].shape[1:]), lab, repeats=self.repeats
        )


def example() -> RandomisedAUC:
    """The first two features, on the evaluation split of the contract battery's task."""
    return RandomisedAUC(features=(0, 1), split="same", repeats=3)
