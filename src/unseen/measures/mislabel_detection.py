"""Do the examples that a score suspects have wrong labels? Needs labels that are known to be wrong.

Self-influence finds mislabelled examples (Koh & Liang, 2017, arXiv:1703.04730, section 5.4; Pruthi
et al., 2020, arXiv:2002.08484): a wrong label is explained by nothing but itself. Any other
suspicion can be evaluated the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading


def detection(suspicion: Float[Tensor, " example"], wrong: Bool[Tensor, " example"]) -> Reading:
    """Area under the ROC curve: how often a wrong label is more suspect than a right one (½:
    chance).
    """
    _refuse(suspicion, wrong)
    return stats.auc(suspicion.double().cpu().numpy(), wrong.cpu().numpy())


def detection_rate(
    suspicion: Float[Tensor, " example"], wrong: Bool[Tensor, " example"], inspected: float = 0.1
) -> Reading:
    """The share of the wrong labels among the most suspect round(inspected · n) examples, with
    Wilson's interval.
    """
    if not 0 < inspected <= 1:
        raise InvalidConfig(
            f"detection_rate got inspected={inspected}.",
            why="it is a part of all.",
            fix="choose from (0, 1].",
        )
    _refuse(suspicion, wrong)
    most = suspicion.topk(max(1, round(inspected * len(suspicion)))).indices
    return stats.proportion(int(wrong[most].sum()), int(wrong.sum()))


def _refuse(suspicion: Tensor, wrong: Tensor) -> None:
    if suspicion.shape != wrong.shape or not torch.isfinite(suspicion).all():
        raise InvalidData(
            f"Detection got {tuple(suspicion.shape)} suspicions, "
            f"{int((~torch.isfinite(suspicion)).sum())} of them not "
            f"finite, for {tuple(wrong.shape)} labels.",
            why="every example has one finite suspicion and is wrong or not.",
            fix="take both in the order of the TRAIN splits.",
        )
    if not wrong.any() or wrong.all():
        raise InvalidData(
            f"{int(wrong.sum())} of {len(wrong)} labels are wrong.",
            why="detection tells wrong labels from right ones and needs both.",
            fix="redraw some of the labels, for example Images(label_noise=0.1).",
        )


@dataclass(frozen=True)
class MislabelDetection:
    """`detection` of a table with `suspicion` [example] and `wrong` [example]; `detail` is the
    share found by `inspected`.
    """

    inspected: float = 0.1

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        area = detection(subject["suspicion"], subject["wrong"])
        share = detection_rate(subject["suspicion"], subject["wrong"], self.inspected)
        detail = torch.tensor([share.value, share.low, share.high], dtype=torch.float64)
        return Reading(area.value, area.low, area.high, area.n, area.unit, detail)


def example() -> tuple[MislabelDetection, dict[str, Tensor]]:
    """Five of twenty labels are wrong and tend to be more suspect."""
    wrong = torch.arange(20) % 4 == 0
    noise = torch.randn(20, generator=Lab().child("mislabel").generator(), dtype=torch.float64)
    return MislabelDetection(), {"suspicion": noise + wrong, "wrong": wrong}
