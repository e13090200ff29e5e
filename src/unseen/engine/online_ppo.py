"""Proximal policy optimisation (Schulman et al., 2017, arXiv:1707.06347) by stable-baselines3: the
online reference of offline methods, which plays the training levels itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.rollouts import Arena
from unseen.errors import InvalidConfig, InvalidData, MissingExtra
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Task, Use


def require_baselines() -> Any:
    """The library, where it is installed."""
    try:
        import stable_baselines3
    except ImportError as error:
        raise MissingExtra(
            "Online reinforcement learning needs the package stable-baselines3.",
            why="its PPO is the online reference.",
            fix="pip install 'unseen[rl]'",
        ) from error
    return stable_baselines3


class Trunk(nn.Module):
    """All layers of a policy but the last, as features of actor and critic."""

    def __init__(self, space: Any, layers: nn.Module, features_dim: int) -> None:
        super().__init__()
        self.layers, self.features_dim = layers, features_dim

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@dataclass(frozen=True)
class OnlinePPO:
    """Plays the levels of the training data and learns from what happens; the logged games are not
    read.

    The network is the one of the offline methods, with a linear critic beside its last layer.
    """

    steps: int = 1_000_000
    longest: int = 484
    """Steps after which its games are cut, where the arena has a limit; MiniGrid's own for eleven
    by eleven cells. In 80, after which games are cut in evaluation, a random player solves one
    crossing in 300, and there is nothing to learn from; in 484 one in six.
    """
    games: int = 16
    """Played side by side."""
    rollout: int = 128
    """Steps of each between two rounds of learning."""
    batch_size: int = 256
    epochs: int = 3
    lr: float = 5e-4
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01

    def __post_init__(self) -> None:
        if min(self.steps, self.games, self.rollout, self.batch_size, self.epochs) < 1:
            raise InvalidConfig(
                f"{self}.",
                why="every count is at least one.",
                fix="OnlinePPO() is usual for small grids.",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        arena, levels = lengthen(arena_of(task), self.longest), training_levels(task)
        baselines = require_baselines()
        if not isinstance(model, nn.Sequential) or not isinstance(model[-1], nn.Linear):
            raise InvalidConfig(
                f"A {type(model).__name__} has no last linear layer.",
                why="actor and critic share what stands before it.",
                fix="use unseen.models.policy.policy_network.",
            )
        head, returns = model[-1], list[float]()
        vector = baselines.common.vec_env.DummyVecEnv(
            [partial(play_levels, arena, levels, lab, k, returns) for k in range(self.games)]
        )
        options = {
            "features_extractor_class": Trunk,
            "features_extractor_kwargs": {
                "layers": model[:-1],
                "features_dim": head.in_features,
            },
            "net_arch": [],
            "normalize_images": False,
            "ortho_init": False,
        }
        with lab.child("ppo").seeded(), numpy_seeded(lab.child("ppo").entropy):
            learner = baselines.PPO(
                "MlpPolicy", vector, policy_kwargs=options, learning_rate=self.lr,
                n_steps=self.rollout, batch_size=self.batch_size, n_epochs=self.epochs,
                gamma=self.discount, gae_lambda=self.trace, clip_range=self.clip,
                ent_coef=self.entropy, device=lab.device,
            )  # fmt: skip
            learner.policy.action_net.load_state_dict(head.state_dict())
            losses = list[float]()

            def record_loss(*_: Any) -> bool:
                loss = learner.logger.name_to_value.get("train/loss")
                if loss is not None and losses[-1:] != [loss]:
                    losses.append(float(loss))
                return True  # go on

            # a dump of its log would forget the loss
            learner.learn(self.steps, callback=record_loss, log_interval=self.steps)
            record_loss()
        head.load_state_dict(learner.policy.action_net.state_dict())
        return Trained(model.eval(), task, {"loss": losses, "return": returns})


def play_levels(
    arena: Arena, levels: tuple[int, ...], lab: Lab, game: int, returns: list[float]
) -> Any:
    """An environment of the levels, with a stream of its own."""
    # needs Gymnasium, which comes with stable-baselines3
    from unseen.engine.level_environment import LevelEnvironment

    return LevelEnvironment(arena, levels, lab.child("levels", game).numpy(), returns)


def arena_of(task: Task) -> Arena:
    """Where policies of the task are played."""
    arena = getattr(task.objective.score, "arena", None)
    if not isinstance(arena, Arena):
        raise InvalidData(
            f"The score of `{task.name}` plays nothing.",
            why="online learning needs the environment.",
            fix="use a task of unseen.tasks.levels.level_task.",
        )
    return arena


def lengthen(arena: Arena, longest: int) -> Arena:
    """The same levels with games of at least so many steps."""
    most = getattr(arena, "most", None)
    if not is_dataclass(arena) or not isinstance(most, int) or most >= longest:
        return arena
    return replace(arena, most=longest)


def training_levels(task: Task) -> tuple[int, ...]:
    """The levels of the logged games."""
    data = next(iter(task.of(Use.TRAIN).values())).data
    if not isinstance(data, Columns) or "level" not in data.columns:
        raise InvalidData(
            f"The training data of `{task.name}` name no levels.",
            why="online and offline methods are trained on the same ones.",
            fix="use a task of unseen.tasks.levels.level_task.",
        )
    return tuple(data.columns["level"].unique().tolist())


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Inside the block numpy's global generator begins at `seed`: the library draws its minibatches
    from it.
    """
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
