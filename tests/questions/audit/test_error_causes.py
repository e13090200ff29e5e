"""Where errors come from: training examples by influence, inputs by the most faithful
explanation.
"""

from dataclasses import replace

import torch
from torch import nn

from unseen.attributions.gradient_similarity import GradientSimilarity
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.questions.audit.job import Audit, Subject
from unseen.task import Axis, Split, Task, Use

G = torch.Generator().manual_seed(0)
X = torch.randn(200, 4, generator=G)
Y = (X[:, 0] > 0).long()
FLIPPED = 17
ONCE = Audit(seeds=1, remedies={}, measures={}, top=5, worst=3)


def subject() -> Subject:
    """The label is the sign of the first input; one clear training label is turned round."""
    x, y = X.clone(), Y.clone()
    x[FLIPPED, 0], y[FLIPPED] = 3.0, 0
    splits = {
        "train": Split(Columns(x=x[:120], y=y[:120]), Use.TRAIN, "Bern"),
        "Basel": Split(Columns(x=x[120:], y=y[120:]), Use.EVALUATE, "Basel"),
    }
    task = Task(name="toy", axis=Axis.SITE, splits=splits, objective=classify)
    return Subject(
        task=task, model=lambda: nn.Linear(4, 2), budget=Budget(steps=150, batch_size=40, lr=0.05)
    )


def test_a_turned_label_has_the_largest_influence_on_its_own_loss():
    found = ONCE(subject(), Lab())
    assert found.self_influential[0].index == FLIPPED
    values = [example.value for example in found.self_influential]
    assert values == sorted(values, reverse=True)
    assert min(values) > 0


def test_helpful_examples_help_and_harmful_ones_harm():
    found = ONCE(subject(), Lab())
    assert found.worst
    for error in found.worst:
        assert all(example.value > 0 for example in error.helpful)
        assert all(example.value < 0 for example in error.harmful)
    assert any(
        example.index == FLIPPED
        for error in found.worst
        for example in (*error.helpful, *error.harmful)
    )


def test_every_worst_error_has_credits_from_a_faithful_method():
    found = ONCE(subject(), Lab())
    looked = found.error_explanation
    assert looked is not None
    assert (
        looked.faithfulness.value > 0.9
    )  # a linear model, and explanations that are linear functions
    assert looked.method in looked.why
    for error in found.worst:
        assert len(looked.errors[error.query.index]) == 4


def test_an_attribution_without_curvature_gives_no_self_influence_and_says_so():
    found = replace(ONCE, attribution=GradientSimilarity())(subject(), Lab())
    assert not found.self_influential
    assert "self-influence" in found.skipped
    assert found.worst
