"""Several hypotheses as one model: heads on one encoder, or whole networks, and a rule that
combines their outputs.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.features import last_linear
from unseen.errors import InvalidConfig, UnsupportedLayer
from unseen.lab import Lab


@runtime_checkable
class Rule(Protocol):
    """A frozen dataclass that makes one output per example from those of all members, h being the
    features.
    """

    def __call__(self, outputs: Tensor, h: Tensor, prototypes: Tensor | None) -> Tensor: ...


def log_probabilities(outputs: Float[Tensor, "*shape c"]) -> Float[Tensor, "*shape k"]:
    """Of logits per class, or of one log odds, which has the classes 0 and 1."""
    if outputs.shape[-1] == 1:
        return torch.cat([F.logsigmoid(-outputs), F.logsigmoid(outputs)], -1)
    return outputs.log_softmax(-1)


def as_outputs(
    log_p: Float[Tensor, "*shape k"], like: Float[Tensor, "*other c"]
) -> Float[Tensor, "*shape c"]:
    """Log probabilities in the form of a member's outputs: the log odds where a member has one
    output.
    """
    return log_p[..., 1:] - log_p[..., :1] if like.shape[-1] == 1 else log_p


def mixture(
    outputs: Float[Tensor, "member n c"], weights: Float[Tensor, "member n"]
) -> Float[Tensor, "n c"]:
    """Σ_m w_m(x) p_m(y | x) in the form of a member's outputs."""
    log_p = log_probabilities(outputs)
    return as_outputs((log_p + weights.clamp_min(1e-30).log()[..., None]).logsumexp(0), outputs)


@dataclass(frozen=True)
class SingleMember:
    """The outputs of one member."""

    member: int = 0

    def __call__(
        self, outputs: Float[Tensor, "member n c"], h: Tensor, prototypes: Tensor | None
    ) -> Tensor:
        return outputs[self.member]


@dataclass(frozen=True)
class MeanProbability:
    """The members' probabilities, averaged: an output-space ensemble."""

    def __call__(
        self, outputs: Float[Tensor, "member n c"], h: Tensor, prototypes: Tensor | None
    ) -> Tensor:
        weights = torch.full_like(outputs[..., 0], 1 / len(outputs))
        return mixture(outputs, weights)


@dataclass(frozen=True)
class MeanLogit:
    """The members' outputs, averaged: of log probabilities the normalised geometric mean."""

    def __call__(
        self, outputs: Float[Tensor, "member n c"], h: Tensor, prototypes: Tensor | None
    ) -> Tensor:
        return outputs.mean(0)


@dataclass(frozen=True)
class MeanLogProbability:
    """The members' log probabilities, averaged: the geometric mean, not normalised."""

    def __call__(
        self, outputs: Float[Tensor, "member n c"], h: Tensor, prototypes: Tensor | None
    ) -> Tensor:
        return as_outputs(log_probabilities(outputs).mean(0), outputs)


class Committee(nn.Module):
    """`all(x)` gives every member's outputs, `model(x)` those that the rule makes of them."""

    members: nn.ModuleList
    rule: Rule
    prototypes: Tensor | None

    def __init__(
        self, members: Sequence[nn.Module], rule: Rule, encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        if not members:
            raise InvalidConfig(
                "A committee without members.",
                "it has nothing to say.",
                "give at least one member.",
            )
        self.encoder = encoder or nn.Identity()
        self.members = nn.ModuleList(members)
        self.rule = rule
        self.register_buffer("prototypes", None)

    def outputs_from_features(self, h: Tensor) -> Float[Tensor, "member n c"]:
        """Every member's outputs for features."""
        return torch.stack([member(h) for member in self.members])

    def member_outputs(self, x: Tensor) -> Float[Tensor, "member n c"]:
        return self.outputs_from_features(self.encoder(x))

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)
        return self.rule(self.outputs_from_features(h), h.flatten(1), self.prototypes)

    def extra_repr(self) -> str:
        return f"rule={self.rule}"


class Member(nn.Module):
    """One member's answers, as a model; it shares modules and mode with its committee."""

    def __init__(self, committee: Committee, k: int) -> None:
        super().__init__()
        self.committee, self.k = committee, k
        self.training = committee.training

    def forward(self, x: Tensor) -> Tensor:
        return self.committee.member_outputs(x)[self.k]


def members_of(model: nn.Module) -> list[Member]:
    """The members of a model that is a committee."""
    if not isinstance(model, Committee):
        raise UnsupportedLayer(
            f"{type(model).__name__} is one hypothesis, not a committee of several.",
            why="its members are compared with each other.",
            fix="train with DivDis, DBAT, DRM or OutputEnsemble.",
        )
    return [Member(model, k) for k in range(len(model.members))]


def split_head(model: nn.Module, layer: str = "") -> tuple[nn.Module, nn.Linear]:
    """The model without its last linear layer, and that layer (or `layer`), which must make the
    model's output.
    """
    name = last_linear(model, layer)
    head = model.get_submodule(name)
    if not isinstance(head, nn.Linear) or not name:
        raise UnsupportedLayer(
            f"`{name or type(model).__name__}` cannot be taken off as a head.",
            why="a head is a linear layer inside the model, behind its features.",
            fix="name such a layer, or wrap the model: nn.Sequential(nn.Flatten(), model).",
        )
    if isinstance(model, nn.Sequential) and list(model)[-1] is head:
        return model[:-1], head
    model.set_submodule(name, nn.Identity())
    return model, head


def refuse_inner_layer(model: nn.Module, layer: str, x: Tensor) -> None:
    """Refuses a head whose output is not the model's output, tried on some inputs."""
    found: list[Tensor] = []
    name = last_linear(model, layer)
    handle = model.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: found.append(output)
    )
    training = model.training
    try:
        with torch.no_grad():
            output = model.eval()(x)
    finally:
        handle.remove()
        model.train(training)
    if len(found) != 1 or not torch.equal(found[0], output):
        raise UnsupportedLayer(
            f"The output of `{name}` is not that of the model.",
            why="heads of one's own would skip what the model does behind it.",
            fix="name the layer that makes the output: layer=….",
        )


def heads_like(head: nn.Linear, n: int, lab: Lab, *, fresh: bool) -> list[nn.Module]:
    """n copies of the head; `fresh`: all but the first with new weights from the lab's stream."""
    heads: list[nn.Module] = [copy.deepcopy(head) for _ in range(n)]
    if fresh:
        with lab.seeded():
            for other in heads[1:]:
                other.reset_parameters()  # type: ignore[operator]
    return heads
