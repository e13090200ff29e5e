"""Losses of offline reinforcement learning with discrete actions, one number per transition.

A transition is (s, a, r, s′, d) with d = 1 only where the game ended by its rules: a time limit
cuts a game, and what would have followed still counts. Networks give one output per action:
logits of a policy π, or values Q(s, ·).
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.engine.batches import Columns, model_to_device
from unseen.engine.features import last_linear
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.task import Batch, Task, Use

Actions = Int[Tensor, " batch"]
PerAction = Float[Tensor, "batch action"]
PerTransition = Float[Tensor, " batch"]


def at_action(values: PerAction, actions: Actions) -> PerTransition:
    """The entry of the logged action."""
    return values.gather(1, actions[:, None]).squeeze(1)


def cloning_loss(logits: PerAction, actions: Actions) -> PerTransition:
    """−log π(a | s)."""
    return F.cross_entropy(logits, actions, reduction="none")


def bellman_target(
    reward: PerTransition, terminal: PerTransition, next_value: PerTransition, discount: float
) -> PerTransition:
    """r + γ (1 − d) V(s′)."""
    return reward + discount * (1 - terminal) * next_value


def double_value(chooser: PerAction, judge: PerAction) -> PerTransition:
    """Q̄(s′, argmax_b Q(s′, b)): one network chooses the action, a lagging copy gives its value (van
    Hasselt, Guez & Silver, 2016).
    """
    return at_action(judge, chooser.argmax(1))


def td_loss(values: PerAction, actions: Actions, target: PerTransition) -> PerTransition:
    """Smooth L1 between Q(s, a) and its target, which has no gradient."""
    return F.smooth_l1_loss(at_action(values, actions), target.detach(), reduction="none")


def conservative_penalty(values: PerAction, actions: Actions) -> PerTransition:
    """log Σ_b exp Q(s, b) − Q(s, a): lowers what was not done (Kumar et al., 2020)."""
    return values.logsumexp(1) - at_action(values, actions)


def likely_actions(logits: PerAction, threshold: float) -> Bool[Tensor, "batch action"]:
    """{b : G(b | s) / max_c G(c | s) > τ}: what the behaviour does not all but avoid (Fujimoto et
    al., 2019)."""
    log_share = logits.log_softmax(1)
    ratio = (log_share - log_share.max(1, keepdim=True).values).exp()
    return ratio > threshold


AVOIDED = -1e6
"""The value of an action that is not allowed: finite, so that losses stay so."""


def constrain(values: PerAction, logits: PerAction, threshold: float) -> PerAction:
    """Values where the action is likely under the behaviour, `AVOIDED` elsewhere."""
    return values.masked_fill(~likely_actions(logits, threshold), AVOIDED)


def imitation_loss(logits: PerAction, actions: Actions) -> PerTransition:
    """−log G(a | s) + 0.01 · mean of the squared logits."""
    return cloning_loss(logits, actions) + 0.01 * logits.square().mean(1)


def expectile_loss(error: PerTransition, expectile: float) -> PerTransition:
    """|τ − 1(u < 0)| u²: ½ gives half of the squared error, τ → 1 the largest value."""
    return (expectile - (error < 0).to(error.dtype)).abs() * error.square()


def advantage_weight(
    advantage: PerTransition, temperature: float, most: float = 100.0
) -> PerTransition:
    """min(exp(β u), 100): weights of imitation by how much better the action was (Kostrikov, Nair &
    Levine, 2022)."""
    return (temperature * advantage).exp().clamp_max(most)


Network = TypeVar("Network", bound=nn.Module)


def lagging_copy(model: Network, lab: Lab) -> Network:
    """A copy that follows by `follow` and is never trained."""
    copied = deepcopy(model).requires_grad_(False)
    model_to_device(copied, lab)
    return copied.eval()


@torch.no_grad()
def follow(target: nn.Module, model: nn.Module, rate: float) -> None:
    """w̄ ← (1 − rate) w̄ + rate w (Polyak averaging); buffers are copied."""
    ours: list[Tensor] = list(target.parameters())
    theirs: list[Tensor] = list(model.parameters())
    torch._foreach_lerp_(ours, theirs, rate)
    for mine, other in zip(target.buffers(), model.buffers(), strict=True):
        mine.copy_(other)


def untrained_copy(model: Network, lab: Lab, outputs: int | None = None) -> Network:
    """The same layers with new weights; `outputs` replaces the last linear layer."""
    copied = deepcopy(model)
    with lab.seeded():
        for module in copied.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
        if outputs is not None:
            _replace_last(copied, outputs)
    return copied


def _replace_last(model: nn.Module, outputs: int) -> None:
    name = last_linear(model)
    if not name:
        raise UnsupportedLayer(
            "The model is one linear layer alone.",
            why="its outputs are replaced, and a module cannot replace itself.",
            fix="put it into nn.Sequential(…).",
        )
    before = model.get_submodule(name)
    assert isinstance(before, nn.Linear)
    parent, _, leaf = name.rpartition(".")
    after = nn.Linear(before.in_features, outputs, bias=before.bias is not None)
    setattr(model.get_submodule(parent), leaf, after)


COLUMNS = ("x", "y", "reward", "next_x", "terminal")


def require_transitions(task: Task, columns: tuple[str, ...] = COLUMNS) -> None:
    """Refuses training data that are no transitions with discrete actions and finite rewards."""
    for name, split in task.of(Use.TRAIN).items():
        held: Mapping[str, Tensor] = (
            split.data.columns if isinstance(split.data, Columns) else split.data[:1]
        )
        missing = [column for column in columns if column not in held]
        if missing:
            raise InvalidData(
                f"Split `{name}` of `{task.name}` has no {', '.join(missing)}.",
                why="offline learning reads transitions: observation, action, reward, next "
                "observation, and whether the game ended there.",
                fix="use LoggedData(…).columns(), or name the columns so.",
            )
        if held["y"].is_floating_point() or held["y"].dim() != 1:
            raise InvalidData(
                f"The actions `y` of split `{name}` are {held['y'].dtype} of shape "
                f"{tuple(held['y'].shape)}.",
                why="this method chooses one of finitely many actions.",
                fix="give whole numbers from 0, or divide the actions into a few.",
            )
        if not len(held["y"]):
            raise InvalidData(
                f"Split `{name}` of `{task.name}` holds no transition.",
                why="nothing can be learned from nothing.",
                fix="check the logged data.",
            )
        if "reward" in columns and not torch.isfinite(held["reward"]).all():
            raise InvalidData(
                f"Rewards of split `{name}` are not finite.",
                why="no value can be learned from them.",
                fix="drop these episodes, or correct their rewards.",
            )


def refuse_outside(name: str, value: float, low: float, high: float) -> None:
    """Refuses a hyperparameter outside [low, high]."""
    if not low <= value <= high:
        raise InvalidConfig(
            f"{name}={value}.", why=f"it lies in [{low:g}, {high:g}].", fix="correct the value."
        )


def merge_transitions(batches: Mapping[str, Batch]) -> Batch:
    """The minibatches of all TRAIN splits as one."""
    parts = list(batches.values())
    if len(parts) == 1:
        return parts[0]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
