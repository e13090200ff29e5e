"""The units of a comparison: the runs of one method on one task, whose scores are kept under a key
of all that decides them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from unseen.questions.compare.candidates import MethodSpec

RunScores = Mapping[str, Tensor]
"""Of every model of a block [model, …]: `select`, `oracle` and `seen` (mean scores), `score PLACE`
and `margin PLACE` of every evaluation example, `diverged`, and `together`: whether it was trained
with others."""


@dataclass(frozen=True)
class Run:
    """One model: which seed, which draw of the hyperparameters."""

    seed: int
    draw: int


@dataclass(frozen=True)
class RunGroup:
    """Models of one method on one task."""

    entrant: MethodSpec
    at: str
    """Label of the subject."""
    without: str = ""
    """The training domain that is left out for validation."""
    runs: tuple[Run, ...] = ()

    @property
    def says(self) -> str:
        return f"{self.entrant.name} · {self.at}" + (
            f" without {self.without}" if self.without else ""
        )
