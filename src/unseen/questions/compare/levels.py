"""Logged games split by level: which way of learning from them holds on levels that they never
showed, and what more levels or more transitions would bring.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from unseen import stats
from unseen.engine.loop import Budget
from unseen.engine.rollouts import Arena, RandomPolicy, play, returns_of
from unseen.errors import InvalidConfig, UnknownName
from unseen.identity import identify
from unseen.lab import Lab
from unseen.method import Method
from unseen.methods.batch_constrained_q import DiscreteBCQ
from unseen.methods.behaviour_cloning import OFFLINE, BehaviourCloning
from unseen.methods.conservative_q import DiscreteCQL
from unseen.methods.implicit_q import DiscreteIQL
from unseen.methods.sequence_policy import BCTransformer, DecisionTransformer
from unseen.models.policy import policy_network
from unseen.reading import Reading
from unseen.task import Task
from unseen.tasks.levels import TRAINING, UNSEEN, Levels, LoggedData, level_task
from unseen.tasks.levels.grid import GridArena, GridGames, Planner

CLONING = "bc"
METHODS: Mapping[str, Callable[[Budget], Method]] = {
    CLONING: lambda budget: BehaviourCloning(budget),
    "cql": lambda budget: DiscreteCQL(budget=budget),
    "bcq": lambda budget: DiscreteBCQ(budget=budget),
    "iql": lambda budget: DiscreteIQL(budget=budget),
    "dt": lambda budget: DecisionTransformer(budget=replace(budget, clip=1.0)),
    "bc-transformer": lambda budget: BCTransformer(budget=replace(budget, clip=1.0)),
}
MEANINGS: Mapping[str, str] = {
    CLONING: "behavioural cloning",
    "cql": "conservative Q-learning, penalty 1",
    "bcq": "batch-constrained Q-learning, threshold 0.3",
    "iql": "implicit Q-learning, expectile 0.8, temperature 3",
    "dt": "decision transformer, context 10",
    "bc-transformer": "cloning by a transformer, context 10",
}
GAP = 50
"""Levels between the last logged one and the first unseen one, where none are named."""
MOST = 200
"""Training levels that are played at most."""
HALF = "half of the transitions, all levels"
FEWER = "half of the levels, all their transitions"


def choose_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The methods of these names; all where none is given."""
    for name in names:
        if name not in METHODS:
            raise UnknownName.near("offline method", name, METHODS)
    return tuple(dict.fromkeys(names)) or tuple(METHODS)


def unseen_levels(text: str | None, logged: Sequence[int]) -> tuple[int, ...]:
    """ "1000:1200", a number of levels, or `MOST` levels behind the last logged one."""
    first = max(logged) + GAP
    if text is None:
        return tuple(range(first, first + MOST))
    low, colon, high = text.partition(":")
    try:
        found = range(int(low), int(high)) if colon else range(first, first + int(low))
    except ValueError:
        found = range(0)
    if not found or found[0] < 0:
        raise InvalidConfig(
            f"`--unseen-levels {text}` names no level.",
            why="it is a number of levels, or the first and the one behind the last.",
            fix="write --unseen-levels 200, or --unseen-levels 1000:1200.",
        )
    return tuple(found)


@dataclass(frozen=True)
class LevelComparison:
    """What is compared: data, environment, levels, methods, seeds and steps."""

    data: LoggedData
    arena: Arena
    levels: Levels
    methods: tuple[str, ...]
    seeds: int = 3
    steps: int = OFFLINE.steps

    def __post_init__(self) -> None:
        if min(self.seeds, self.steps) < 1:
            raise InvalidConfig(
                f"{self.seeds} seeds of {self.steps} steps.",
                why="something has to be trained.",
                fix="--seeds 3 --steps 1200",
            )

    @property
    def budget(self) -> Budget:
        return replace(OFFLINE, steps=self.steps)

    @property
    def levels_to_play(self) -> Mapping[str, tuple[int, ...]]:
        """The levels that are played, evenly spaced where training has many."""
        train = self.levels.train
        every = max(1, -(-len(train) // MOST))
        return {TRAINING: train[::every], UNSEEN: self.levels.unseen}


Returns = Mapping[str, Float[ndarray, "seed level"]]


@dataclass(frozen=True)
class LevelResults:
    """Returns of every method by part and seed, with those of a random player and the planner."""

    returns: Mapping[str, Returns]
    random: Returns
    planner: Returns | None
    """None: no planner knows the environment."""
    shares: Mapping[str, Returns]
    """Of cloning on halves of the data; empty where one level is logged."""
    logged: float
    """Mean return of the logged games."""
    transitions: int
    levels: Levels
    distinct: int
    """Different layouts among the training levels."""
    dropped: int
    """Unseen levels that were left out, since training or another one has their layout."""
    seeds: int
    steps: int

    def reading(self, method: str, part: str) -> Reading:
        """Mean over seeds and levels, both being drawn."""
        return mean_return(self.returns[method][part])

    def gap(self, method: str) -> Reading:
        """Training levels minus unseen ones."""
        return stats.independent_difference(
            self.reading(method, TRAINING), self.reading(method, UNSEEN)
        )

    def over_cloning(self, method: str) -> Reading:
        """Return on unseen levels minus that of cloning, paired over seeds and levels."""
        return paired_difference(self.returns[method][UNSEEN], self.returns[CLONING][UNSEEN])

    def quartile_mean(self, method: str) -> Reading:
        """Interquartile mean over runs of the return on unseen levels."""
        runs = self.returns[method][UNSEEN].mean(1)
        found = stats.interquartile_mean(runs, np.random.default_rng(0))
        return found if found.low < found.high else Reading(found.value, n=found.n)

    def is_clearly_better(self, method: str, other: str) -> bool:
        """Whether the paired difference on unseen levels lies above 0."""
        returns = self.returns
        return paired_difference(returns[method][UNSEEN], returns[other][UNSEEN]).low > 0

    @property
    def more_transitions(self) -> Reading | None:
        """What the second half of the transitions brought cloning on unseen levels."""
        if not self.shares:
            return None
        whole, half = self.shares["all"][UNSEEN], self.shares[HALF][UNSEEN]
        return paired_difference(whole, half)

    @property
    def more_levels(self) -> Reading | None:
        """What the second half of the levels brought at equal transitions."""
        if not self.shares:
            return None
        many, few = self.shares[HALF][UNSEEN], self.shares[FEWER][UNSEEN]
        return paired_difference(many, few)


def mean_return(returns: Float[ndarray, "seed level"]) -> Reading:
    """Mean with an interval over seeds and levels; of one level, over seeds."""
    if returns.shape[1] < 2:
        return stats.mean(returns[:, 0])
    return stats.mean_score(returns)


def paired_difference(a: Float[ndarray, "seed level"], b: Float[ndarray, "seed level"]) -> Reading:
    """a − b over seeds and levels; without an interval where all differences are equal."""
    differences = a - b
    if differences.shape[1] < 2:
        return stats.mean(differences[:, 0])
    found = stats.crossed_mean(differences)
    return found if found.low < found.high else Reading(found.value, n=found.n)


def evaluate_levels(
    asked: LevelComparison, lab: Lab, on_finish: Callable[[object], None], facts: tuple[int, int]
) -> LevelResults:
    """Trains every method with every seed and plays; what was trained before is read from the
    cache. `facts`: different training layouts, and unseen levels that were dropped.
    """
    found: dict[str, list[Mapping[str, ndarray]]] = {name: [] for name in asked.methods}
    shares: dict[str, list[Mapping[str, ndarray]]] = {}
    task = level_task(asked.data, asked.arena, asked.levels)
    for seed in range(asked.seeds):
        own = replace(lab, seed=lab.seed + seed)
        for name in asked.methods:
            found[name].append(returns_after(asked, name, task, own.child("fit")))
            on_finish(name)
        for name, part in parts_of(asked, own).items():
            smaller = task if part is asked.data else level_task(part, asked.arena, asked.levels)
            shares.setdefault(name, []).append(
                returns_after(asked, CLONING, smaller, own.child("fit"))
            )
            on_finish(name)
    distinct, dropped = facts
    return LevelResults(
        returns={name: stack(runs) for name, runs in found.items()},
        random=random_returns(asked, lab),
        planner=planner_returns(asked),
        shares={name: stack(runs) for name, runs in shares.items()},
        logged=asked.data.mean_return,
        transitions=len(asked.data),
        levels=asked.levels,
        distinct=distinct,
        dropped=dropped,
        seeds=asked.seeds,
        steps=asked.steps,
    )


def stack(runs: Sequence[Mapping[str, ndarray]]) -> Returns:
    """Runs as [seed, level]."""
    return {part: np.stack([run[part] for run in runs]) for part in runs[0]}


def count_trainings(asked: LevelComparison) -> int:
    """How many models are trained or read."""
    halves = 3 if len(asked.levels.train) > 1 else 0
    return asked.seeds * (len(asked.methods) + halves)


def parts_of(asked: LevelComparison, lab: Lab) -> Mapping[str, LoggedData]:
    """All data, a random half of the levels, and as many transitions of all levels."""
    levels = asked.levels.train
    if len(levels) < 2:
        return {}
    order = lab.child("half of the levels").numpy().permutation(len(levels))
    chosen = [levels[k] for k in order[: len(levels) // 2]]
    fewer = asked.data.at_levels(chosen)
    half = asked.data.draw(len(fewer), lab.child("half of the transitions"))
    return {"all": asked.data, HALF: half, FEWER: fewer}


def returns_after(
    asked: LevelComparison, method: str, task: Task, lab: Lab
) -> Mapping[str, Float[ndarray, " level"]]:
    """Returns on training and unseen levels after training."""
    data = task.splits["train"].data

    def make() -> dict[str, Tensor]:
        return train_and_play(asked, method, task, lab)

    key = identify(
        "comparison on levels",
        method=METHODS[method](asked.budget),
        data=data.columns,  # type: ignore[attr-defined]
        played=asked.levels_to_play,
        lab=lab.signature,
        arena=asked.arena,
        code=train_and_play,
    )
    return {part: kept.double().numpy() for part, kept in lab.keep(key, make).items()}


def train_and_play(asked: LevelComparison, method: str, task: Task, lab: Lab) -> dict[str, Tensor]:
    """A new network, trained by the method, on all levels that are played."""
    columns = task.splits["train"].data.columns  # type: ignore[attr-defined]
    x = columns["x"]
    # bytes are planes of 0 and 1, or colours
    most = 255.0 if x.dtype is torch.uint8 and int(x.max()) > 1 else 1.0
    with lab.child("init").seeded():
        model = policy_network(x.shape[1:], asked.data.actions, most=most)
    trained = METHODS[method](asked.budget).fit(model, task, lab)
    return {
        part: torch.from_numpy(returns_of(trained.model, asked.arena, levels, lab).returns)
        for part, levels in asked.levels_to_play.items()
    }


def random_returns(asked: LevelComparison, lab: Lab) -> Returns:
    """Every action equally often, once per level and seed."""
    found = []
    for seed in range(asked.seeds):
        rng = lab.child("random player", seed).numpy()
        player = RandomPolicy(asked.arena.actions, rng)
        found.append(
            {
                part: play(player, asked.arena, levels).returns
                for part, levels in asked.levels_to_play.items()
            }
        )
    return stack(found)


def planner_returns(asked: LevelComparison) -> Returns | None:
    """A shortest way on every level, where the rules are known."""
    if not isinstance(asked.arena, GridArena):
        return None
    found = {}
    for part, levels in asked.levels_to_play.items():
        games = asked.arena.start(levels)
        player = Planner(games, np.random.default_rng(0))
        found[part] = play(player, FixedGames(games), levels).returns[None]
    return found


@dataclass(frozen=True)
class FixedGames:
    """An arena whose games have begun: the planner looks into them."""

    games: GridGames
    actions: int = 3

    def start(self, levels: Sequence[int]) -> GridGames:
        return self.games
