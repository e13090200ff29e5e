"""Policies as sequence models: the decision transformer (Chen et al., 2021, arXiv:2106.01345) and
the same without returns, a transformer that clones behaviour.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.rollouts import Policy
from unseen.engine.toy_chain import chain_subject
from unseen.engine.value_losses import COLUMNS, require_transitions, untrained_copy
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.behaviour_cloning import OFFLINE
from unseen.models.transformer import Decoder, Transformer
from unseen.task import Objective, Split, Task, Use


@dataclass(frozen=True)
class Window:
    """The last steps of several games, padded in front."""

    states: Float[Tensor, "game step width"]
    actions: Int[Tensor, "game step"]
    """The one at the last step is not read."""
    returns: Float[Tensor, "game step"]
    """Sum of the rewards to come, as a share of the largest in the data."""
    real: Bool[Tensor, "game step"]


class SequencePolicy(nn.Module):
    """Logits of the action at every step from returns, states and actions up to it."""

    def __init__(
        self, encoder: nn.Module, shape: Decoder, wanted: float | None, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder, self.scale = encoder, scale
        self.steps = shape.context // (2 if wanted is None else 3)
        self.wanted = wanted
        self.action = nn.Embedding(shape.vocabulary, shape.inputs)
        self.gain = None if wanted is None else nn.Linear(1, shape.inputs)
        self.decoder = Transformer(shape)

    def read(self, window: Window) -> Float[Tensor, "game step action"]:
        """Logits at the states of a window."""
        parts = [window.states, self.action(window.actions)]
        if self.gain is not None:
            parts.insert(0, self.gain(window.returns[..., None]))
        n, steps = window.actions.shape
        tokens = torch.stack(parts, 2).flatten(1, 2)
        real = window.real.repeat_interleave(len(parts), 1)
        # a window without padding needs no mask of its own
        outputs = self.decoder(tokens, None if bool(real.all()) else real)
        return outputs.view(n, steps, len(parts), -1)[:, :, -2]

    def forward(self, x: Tensor) -> Tensor:
        """Logits at states that are the first of their game."""
        states = self.encoder(x)[:, None]
        n = len(x)
        return self.read(
            Window(
                states,
                torch.zeros(n, 1, dtype=torch.int64, device=x.device),
                states.new_full((n, 1), self.wanted or 0.0),
                torch.ones(n, 1, dtype=torch.bool, device=x.device),
            )
        )[:, 0]

    def begin(self, games: int) -> Policy:
        return SequenceGames(self, games)


class SequenceGames:
    """A policy that remembers the last steps of every game and how much return is still wanted."""

    def __init__(self, model: SequencePolicy, games: int) -> None:
        self.model = model.eval()
        weight = next(model.parameters())
        steps, width = model.steps, model.decoder.shape.inputs
        self.states = weight.new_zeros(games, steps, width)
        self.actions = torch.zeros(games, steps, dtype=torch.int64, device=weight.device)
        self.returns = weight.new_zeros(games, steps)
        self.real = torch.zeros(games, steps, dtype=torch.bool, device=weight.device)
        self.wanted = weight.new_full((games,), model.wanted or 0.0)

    @torch.no_grad()
    def act(self, observations: ndarray, rewards: ndarray, running: ndarray) -> ndarray:
        at = torch.from_numpy(np.asarray(running)).to(self.states.device)
        x = torch.as_tensor(observations).to(self.states.device)
        x = x.to(self.states.dtype) if x.is_floating_point() else x
        self.wanted[at] -= torch.from_numpy(rewards).to(self.wanted) / self.model.scale
        for memory in (self.states, self.actions, self.returns, self.real):
            memory[at] = memory[at].roll(-1, 1)
        self.states[at, -1] = self.model.encoder(x)
        self.returns[at, -1] = self.wanted[at]
        self.real[at, -1] = True
        seen = Window(self.states[at], self.actions[at], self.returns[at], self.real[at])
        # steps that no game has taken yet are left out
        first = int(seen.real.any(0).long().argmax())
        cut = Window(
            seen.states[:, first:],
            seen.actions[:, first:],
            seen.returns[:, first:],
            seen.real[:, first:],
        )
        chosen = self.model.read(cut)[:, -1].argmax(-1)
        self.actions[at, -1] = chosen
        return chosen.cpu().numpy()


@dataclass(frozen=True)
class Histories:
    """All transitions in order, from which windows are cut."""

    columns: dict[str, Tensor]
    to_go: Float[Tensor, " transition"]

    def rows(self, last: Int[Tensor, " window"], steps: int) -> tuple[Tensor, Tensor]:
        """Rows of the windows that end at `last`, and which of them are of the same episode."""
        back = torch.arange(steps - 1, -1, -1, device=last.device)
        real = self.columns["step"][last][:, None] >= back
        return (last[:, None] - back).clamp_min(0), real


def returns_to_go(columns: dict[str, Tensor]) -> Float[Tensor, " transition"]:
    """Sum of the rewards from here to the end of the episode."""
    ahead = columns["reward"].double().flip(0).cumsum(0).flip(0)
    episode = columns["episode"]
    last = torch.ones_like(episode, dtype=torch.bool)
    last[:-1] = episode[1:] != episode[:-1]
    # what lies beyond the episode's last row
    beyond = (ahead - columns["reward"].double())[last]
    number = torch.zeros_like(episode)
    number[1:] = last[:-1].long().cumsum(0)
    return (ahead - beyond[number]).to(columns["reward"].dtype)


def sequence_step(
    model: SequencePolicy, draw: Draw, objective: Objective, *, histories: Histories
) -> Tensor:
    """Leaves in `.grad` the gradient of the mean of −log π(a | what came before) over all steps of
    the windows.
    """
    (batch,) = draw.fit.values()
    rows, real = histories.rows(batch["row"], model.steps)
    columns = histories.columns
    states = model.encoder(columns["x"][rows[real]])
    spread = states.new_zeros(*rows.shape, states.shape[-1])
    spread[real] = states
    window = Window(spread, columns["y"][rows], histories.to_go[rows], real)
    logits = model.read(window)
    loss = F.cross_entropy(logits[real], columns["y"][rows][real])
    loss.backward()
    return loss.detach()


@dataclass(frozen=True)
class BCTransformer:
    """Clones behaviour from the last `context` states and actions.

    The model that is given reads single states: its last layer is replaced by one as wide as the
    decoder, which reads their sequence. A minibatch has as many states as those of other methods.
    """

    context: int = 10
    width: int = 64
    layers: int = 2
    """The reference has 6 layers of width 128 with 8 heads."""
    heads: int = 4
    budget: Budget = field(default_factory=lambda: replace(OFFLINE, clip=1.0))

    def __post_init__(self) -> None:
        refuse_short(self.context)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return fit_sequence(self, model, task, lab, optimism=None)


@dataclass(frozen=True)
class DecisionTransformer:
    """Actions from the last `context` states, actions and returns still wanted; while it plays, it
    wants `optimism` times the largest return in the data.
    """

    context: int = 10
    width: int = 64
    layers: int = 2
    heads: int = 4
    optimism: float = 1.0
    """The reference for Procgen wants 5 times the largest, a return that no game has."""
    budget: Budget = field(default_factory=lambda: replace(OFFLINE, clip=1.0))

    def __post_init__(self) -> None:
        refuse_short(self.context)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return fit_sequence(self, model, task, lab, optimism=self.optimism)


def refuse_short(context: int) -> None:
    """Refuses a context without a step."""
    if context < 1:
        raise InvalidConfig(
            f"context={context}.", why="at least the present state is read.", fix="context=10"
        )


def fit_sequence(
    method: BCTransformer | DecisionTransformer,
    model: nn.Module,
    task: Task,
    lab: Lab,
    optimism: float | None,
) -> Trained:
    """Trains the sequence model on windows of the only TRAIN split."""
    require_transitions(task, (*COLUMNS, "episode", "step"))
    ((name, split),) = task.of(Use.TRAIN).items()
    columns = dict(whole(split.data, lab))
    to_go = returns_to_go(columns)
    scale = float(to_go.abs().max()) or 1.0
    actions = count_actions(model, columns["x"][:1])
    tokens = 2 if optimism is None else 3
    shape = Decoder(
        vocabulary=actions,
        inputs=method.width,
        width=method.width,
        layers=method.layers,
        heads=method.heads,
        context=tokens * method.context,
        tied=False,
    )
    encoder = untrained_copy(model, lab.child("encoder"), outputs=method.width)
    wanted = None if optimism is None else optimism * float(to_go.max()) / scale
    with lab.child("decoder").seeded():
        policy = SequencePolicy(encoder, shape, wanted, scale)
    windows = Split(Columns(row=torch.arange(len(to_go))), Use.TRAIN, split.at)
    step = partial(sequence_step, histories=Histories(columns, to_go / scale))
    budget = replace(method.budget, batch_size=max(1, method.budget.batch_size // method.context))
    alone = replace(task, splits={**task.splits, name: windows})
    trained = train(policy, alone, step, budget, lab)
    return replace(trained, task=task)


@torch.no_grad()
def count_actions(model: nn.Module, x: Tensor) -> int:
    """How many outputs the model has."""
    was_training = model.training
    try:
        return model.to(x.device).eval()(x).shape[-1]
    finally:
        model.train(was_training)


def example() -> tuple[DecisionTransformer, Trained]:
    """On logged walks along a chain."""
    budget = Budget(steps=20, batch_size=64)
    return DecisionTransformer(context=3, width=16, layers=1, heads=2, budget=budget), (
        chain_subject()
    )
