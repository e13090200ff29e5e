"""The smallest task with domains, and a model for it: what examples of methods and measures are
shown on.
"""

import torch
from torch import nn

from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


def toy_task(lab: Lab = Lab(), n: int = 64) -> Task:
    """Two classes told apart by x₀ everywhere, and by x₁ in the domains `a` and `b` only; x₁ is the
    cleaner cue.

    `train:a`, `train:b` (TRAIN), `select:b` (SELECT), `bare` (ADAPT: `x` and `domain` only),
    `seen:a` and `unseen` (EVALUATE). Columns: `x` [4], `y`, `domain`, `a` (0 or 1, a sensitive
    attribute that shows in x₃) and `group` = 2 y + a.
    """

    def columns(name: str, domain: int) -> Columns:
        g = lab.child("places", name).generator()
        y, a = torch.arange(n) % 2, torch.randint(2, (n,), generator=g)
        x = torch.randn(n, 4, generator=g)
        sign = 2.0 * y - 1
        x[:, 0] += sign
        x[:, 1] += (2 - domain) * sign
        x[:, 3] += 2.0 * a - 1
        return Columns(x=x, y=y, domain=torch.full((n,), domain), a=a, group=2 * y + a)

    bare = columns("bare", 2).columns
    splits = {
        "train:a": Split(columns("train a", 0), Use.TRAIN, "a"),
        "train:b": Split(columns("train b", 1), Use.TRAIN, "b"),
        "bare": Split(Columns(x=bare["x"], domain=bare["domain"]), Use.ADAPT, "c"),
        "select:b": Split(columns("select", 1), Use.SELECT, "b"),
        "seen:a": Split(columns("seen", 0), Use.EVALUATE, "a"),
        "unseen": Split(columns("unseen", 2), Use.EVALUATE, "c"),
    }
    return Task(name="places", axis=Axis.DOMAIN, splits=splits, objective=classify)


def toy_model(lab: Lab = Lab()) -> nn.Sequential:
    """A perceptron with eight hidden units for four inputs and two classes; the same weights every
    time.
    """
    with lab.child("specimen").seeded():
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def toy_subject(lab: Lab = Lab()) -> Trained:
    """The model before training, on the task."""
    return Trained(toy_model(lab).eval(), toy_task(lab))
