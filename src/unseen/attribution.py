"""Attribution: which training examples, input features or internal parts carry a behaviour."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, PerExample


class Cause(StrEnum):
    """What the credit goes to."""

    EXAMPLE = "example"
    FEATURE = "feature"
    COMPONENT = "component"


@dataclass(frozen=True)
class Credits:
    """How much each cause contributes to each queried behaviour."""

    scores: Float[Tensor, "query cause"]
    cause: Cause
    labels: Sequence[str] = ()


@runtime_checkable
class Attributor(Protocol):
    """Answers queries from what `prepare` paid for."""

    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits: ...


@runtime_checkable
class Attribution(Protocol):
    """A frozen dataclass: pay once (factors, neighbourhoods), ask often."""

    def prepare(self, trained: Trained, lab: Lab) -> Attributor: ...
