"""A chain of states with left and right, small enough for exact values: what offline learners are
shown on and tested with.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

STATES, ACTIONS = 5, 2
LEFT, RIGHT = 0, 1
DISCOUNT = 0.9


def chain_step(state: int, action: int) -> tuple[int, float, bool]:
    """Next state, reward and end: right of the last state lies a reward of 1 and the end; left of
    the first one nothing changes, and 0.1 is paid.
    """
    if action == RIGHT:
        return (state, 1.0, True) if state == STATES - 1 else (state + 1, 0.0, False)
    return max(state - 1, 0), 0.1 * (state == 0), False


def chain_values(iterations: int = 1_000) -> Float[Tensor, "state action"]:
    """Q* by value iteration."""
    q = torch.zeros(STATES, ACTIONS, dtype=torch.float64)
    for _ in range(iterations):
        best = q.max(1).values.clone()
        for state in range(STATES):
            for action in range(ACTIONS):
                after, reward, ends = chain_step(state, action)
                q[state, action] = reward + DISCOUNT * (not ends) * best[after]
    return q


def chain_transitions(
    counts: Float[Tensor, "state action"] | None = None, *, terminal: bool = True
) -> Columns:
    """Every pair of state and action, as often as `counts` says (none given: once); states are
    one-hot. Without `terminal` the end counts as a time limit.
    """
    counts = torch.ones(STATES, ACTIONS) if counts is None else counts
    rows = [
        (state, action, *chain_step(state, action))
        for state in range(STATES)
        for action in range(ACTIONS)
        for _ in range(int(counts[state, action]))
    ]
    state, action, after, reward, ends = zip(*rows, strict=True)
    eye = torch.eye(STATES)
    n = len(rows)
    return Columns(
        x=eye[list(state)],
        y=torch.tensor(action),
        reward=torch.tensor(reward),
        next_x=eye[list(after)],
        terminal=torch.tensor(ends).float() * terminal,
        level=torch.zeros(n, dtype=torch.int64),
        episode=torch.arange(n),
        step=torch.zeros(n, dtype=torch.int64),
    )


def chain_task(data: Columns) -> Task:
    """Transitions to learn from; evaluated are actions in states between those of the chain."""
    between = torch.eye(STATES).roll(1, 1) / 2 + torch.eye(STATES) / 2
    unseen = Columns(x=between, y=torch.full((STATES,), RIGHT))
    splits = {
        "train": Split(data, Use.TRAIN, "logged"),
        "unseen": Split(unseen, Use.EVALUATE, "new"),
    }
    return Task(name="chain", axis=Axis.LEVEL, splits=splits, objective=classify)


def chain_model(lab: Lab = Lab(), hidden: int = 0) -> nn.Sequential:
    """One number per state and action, or a perceptron; the same weights every time."""
    with lab.child("chain").seeded():
        if not hidden:
            return nn.Sequential(nn.Linear(STATES, ACTIONS, bias=False))
        return nn.Sequential(nn.Linear(STATES, hidden), nn.ReLU(), nn.Linear(hidden, ACTIONS))


def chain_subject(lab: Lab = Lab()) -> Trained:
    """An untrained model and walks that go right three times in four."""
    counts = torch.tensor([[1.0, 3.0]]).repeat(STATES, 1)
    return Trained(chain_model(lab, hidden=16).eval(), chain_task(chain_transitions(counts)))
