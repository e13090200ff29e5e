"""People of two groups in a world that drifts from domain to domain, with the true counterfactual
of each of them.

What is evaluated are later domains. The structural equations are known, so "the same person in the
other group" is computed, not modelled: same exogenous u, other a. Causes after Lin et al. (2023,
arXiv:2309.13005): semantic and environmental, each influenced by a or not. The paper's own
generator is not public; these two worlds are ours.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import pi

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.colored_digits import chance

Causes = Float[Tensor, "n 4"]


class World(StrEnum):
    """Structural equations from (u, a, t) to the features and the label."""

    PLANE = "rotating plane"
    """s = (u₁ + 1.2 (a − ½), u₂) turned by θ, e = (0.7 v₁ + 0.8 (a − ½) + sin 2θ, 0.7 v₂ + cos 2θ);
    x mixes the four to six features; y = 1[u₁ + u₂ + 0.8 (a − ½) + 0.3 η > 0]."""
    CIRCLE = "circle"
    """A cloud that moves along a circle: x = (2 + 0.7 (u₁ + a − ½)) r + 0.7 u₂ t with r = (cos θ,
    sin θ) and t ⊥ r; outside is positive: y = 1[u₁ + 0.6 (a − ½) + 0.3 η > 0]."""


@dataclass(frozen=True)
class DriftingFairness:
    """Label of a person from later domains, after `fitted` domains in order of time; θ grows by
    `step` per domain.

    Splits: `train:t` and `select:t` for t = 1 … fitted, `seen:t` for the last of them and
    `unseen:t` for the `future` domains after it. Columns: `x`, `y`, `a`, `domain` (t − 1), `group`
    = 2 y + a. Evaluation splits also hold `counterfactual` (the x of the same person in the other
    group), `fair` (the label without noise and without a) and `u`.
    """

    world: World = World.PLANE
    fitted: int = 10
    future: int = 3
    n: int = 600
    """People per training domain; a fifth as many more select."""
    n_evaluate: int = 1_500
    step: float = 10.0
    """Degrees per domain."""
    visible: bool = True
    """Whether a − ½ is the last feature."""
    bias: float = 1.0
    """Strength of a in the label, relative to the equations above; 0: labels are fair."""

    def __post_init__(self) -> None:
        if self.fitted < 2 or self.future < 1 or self.n < 5 or self.n_evaluate < 1:
            raise InvalidConfig(
                f"DriftingFairness(fitted={self.fitted}, future={self.future}, n={self.n}, "
                f"n_evaluate={self.n_evaluate}) is "
                "out of range.",
                why="a drift shows in two training domains or more, and at least one later domain "
                "is evaluated.",
                fix="use fitted ≥ 2, future ≥ 1, n ≥ 5 and n_evaluate ≥ 1.",
            )

    def build(self, lab: Lab) -> Task:
        splits: dict[str, Split] = {}
        for t in range(1, self.fitted + 1):
            splits[f"train:{t}"] = self._split("train", t, self.n, Use.TRAIN, lab)
        for t in range(1, self.fitted + 1):
            splits[f"select:{t}"] = self._split("select", t, self.n // 5, Use.SELECT, lab)
        splits[f"seen:{self.fitted}"] = self._split(
            "seen", self.fitted, self.n_evaluate, Use.EVALUATE, lab
        )
        for t in range(self.fitted + 1, self.fitted + self.future + 1):
            splits[f"unseen:{t}"] = self._split("unseen", t, self.n_evaluate, Use.EVALUATE, lab)
        return Task(name=str(self.world), axis=Axis.TIME, splits=splits, objective=classify)

    def _split(self, kind: str, t: int, n: int, use: Use, lab: Lab) -> Split:
        own = lab.child(kind, t)
        u = torch.randn(n, 4, generator=own.child("u").generator())
        a = chance(n, 0.5, own.child("a"))
        eta = torch.randn(n, generator=own.child("eta").generator())
        x = self.features(u, a, t, lab)
        y = self.label(u, a, eta)
        columns = {
            "x": x,
            "y": y,
            "a": a.long(),
            "domain": torch.full((n,), t - 1),
            "group": 2 * y + a.long(),
            "index": torch.arange(n),
        }
        if use is Use.EVALUATE:
            columns |= {
                "counterfactual": self.features(u, ~a, t, lab),
                "fair": self.fair(u),
                "u": u,
            }
        return Split(Columns(**columns), use, str(t))

    def features(
        self, u: Causes, a: Bool[Tensor, " n"], t: int, lab: Lab
    ) -> Float[Tensor, "n feature"]:
        """x of people with these exogenous causes in group a, in domain t of the task that is built
        in this lab.
        """
        theta, side = torch.tensor(pi * self.step * t / 180), a.float() - 0.5
        x = {World.PLANE: _plane, World.CIRCLE: _circle}[self.world](u, side, theta, lab)
        return torch.cat([x, side[:, None]], 1) if self.visible else x

    def label(
        self, u: Causes, a: Bool[Tensor, " n"], eta: Float[Tensor, " n"]
    ) -> Int[Tensor, " n"]:
        """1[merit(u) + pull(a) + 0.3 η > 0]."""
        return (self.merit(u) + self.pull(a) + 0.3 * eta > 0).long()

    def pull(self, a: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
        """What the group does to the label: bias · strength · (a − ½)."""
        strength = {World.PLANE: 0.8, World.CIRCLE: 0.6}[self.world]
        return self.bias * strength * (a.float() - 0.5)

    def merit(self, u: Causes) -> Float[Tensor, " n"]:
        """What a label should depend on: u₁ + u₂ in the plane, u₁ on the circle."""
        return u[:, 0] + u[:, 1] if self.world is World.PLANE else u[:, 0]

    def fair(self, u: Causes) -> Int[Tensor, " n"]:
        """The best rule that knows u and ignores a: it has no counterfactual effect, and errs on
        biased labels.
        """
        return (self.merit(u) > 0).long()


def _plane(
    u: Causes, side: Float[Tensor, " n"], theta: Float[Tensor, ""], lab: Lab
) -> Float[Tensor, "n 6"]:
    first, second = u[:, 0] + 1.2 * side, u[:, 1]
    cos, sin = theta.cos(), theta.sin()
    parts = [
        cos * first - sin * second,
        sin * first + cos * second,
        0.7 * u[:, 2] + 0.8 * side + (2 * theta).sin(),
        0.7 * u[:, 3] + (2 * theta).cos(),
    ]
    mixing = torch.randn(4, 6, generator=lab.child("mixing").generator())
    return torch.stack(parts, 1) @ mixing


def _circle(
    u: Causes, side: Float[Tensor, " n"], theta: Float[Tensor, ""], lab: Lab
) -> Float[Tensor, "n 2"]:
    cos, sin = theta.cos(), theta.sin()
    radius, along = 2 + 0.7 * (u[:, 0] + side), 0.7 * u[:, 1]
    return torch.stack([radius * cos - along * sin, radius * sin + along * cos], 1)


def example() -> DriftingFairness:
    return DriftingFairness(fitted=3, future=1, n=100, n_evaluate=100)
