"""Sizes of influence by retraining: equal to a plain loop, right where training stopped early, the
same in audit and command, and none where nothing was retrained.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.engine.retrain import retrain_reweighted, reweight_task
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.questions.audit.job import Audit
from unseen.questions.influence.document import document, size_in_words
from unseen.questions.influence.job import ErrorRequest, trace_errors
from unseen.questions.influence.optimum import training_gradient
from unseen.questions.influence.procedure import default_influence, negative
from unseen.questions.influence.results import Influencer
from unseen.questions.influence.retraining import Retraining
from unseen.reading import Reading
from unseen.report.markdown import markdown
from unseen.subjects.session import open_session
from unseen.subjects.subject import Subject
from unseen.task import Axis, Split, Task, Use

REQUEST = ErrorRequest(config=default_influence(), worst=2)


def subject(steps: int = 40, **more) -> Subject:
    """Two noisy classes and a small network whose training stops early."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(120, 4, generator=g)
    y = (x[:, 0] + x[:, 1] + torch.randn(120, generator=g) > 0).long()
    splits = {
        "train": Split(Columns(x=x[:80], y=y[:80]), Use.TRAIN, "Bern"),
        "Basel": Split(Columns(x=x[80:], y=y[80:]), Use.EVALUATE, "Basel"),
    }
    task = Task(name="toy", axis=Axis.SITE, splits=splits, objective=classify)
    budget = Budget(steps=steps, batch_size=20, lr=0.01)
    return Subject(task=task, model=lambda: mlp([4, 8, 2]), budget=budget, **more)


def test_removals_equal_a_plain_loop_of_retrainings():
    lab, one = Lab(), subject(steps=60)
    session, log_likelihood = open_session(one, lab), negative(classify.loss)
    queries = one.task.splits["Basel"].data[:3]
    found = Retraining(session, queries, log_likelihood, seeds=3).removals([[1, 5], [7]])

    def output(weights: torch.Tensor, seed: int) -> torch.Tensor:
        with lab.child("init", seed).seeded():
            model = one.model()
        task = reweight_task(one.task, weights)
        train(model, task, erm_step, one.budget, lab.child("fit", seed))
        return log_likelihood(model, queries).detach().double()

    for k, rows in enumerate([[1, 5], [7]]):
        weights = torch.ones(80)
        weights[rows] = 0
        for seed in range(3):
            wanted = output(weights, seed) - output(torch.ones(80), seed)
            torch.testing.assert_close(found[k, seed], wanted, atol=1e-4, rtol=1e-3)


def test_weight_zero_leaves_an_example_out_and_weight_two_adds_a_copy():
    """With all examples in every step the weighted loss is that of the other data."""
    lab, whole = Lab(dtype=torch.float64), subject().task
    data = whole.splits["train"].data
    rows = [*range(1, 80)], [*range(80), 0]
    weights = torch.ones(2, 80)
    weights[0, 0], weights[1, 0] = 0, 2
    budget = Budget(steps=20, batch_size=80, lr=0.1, optimizer=Optimizer.SGD)
    found = retrain_reweighted(lambda: nn.Linear(4, 2), whole, weights, budget, lab, seeds=[4])
    for (trained,), kept in zip(found, rows, strict=True):
        with lab.child("init", 4).seeded():
            model = nn.Linear(4, 2)
        alone = replace(whole, splits={"train": Split(data.subset(kept), Use.TRAIN)})
        train(model, alone, erm_step, replace(budget, batch_size=len(kept)), lab)
        for a, b in zip(model.parameters(), trained.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)


def test_printed_sizes_are_within_a_factor_of_two_where_training_stopped_early():
    lab = Lab()
    report = trace_errors(subject(), lab, replace(REQUEST, worst=1))
    session = open_session(subject(), lab)
    assert "It stopped before" in report.caveat
    (answer,), (index,) = report.answers, session.worst_examples("Basel", 1)
    shown = [*answer.helpful, *answer.harmful]
    assert len(shown) == 10
    queries = session.task.splits["Basel"].data[index : index + 1]
    retraining = Retraining(session, queries, negative(classify.loss), seeds=48)
    effects = retraining.copies([one.index for one in shown])
    right = sized = 0
    for one, values in zip(shown, effects[:, 8:, 0], strict=True):  # 40 seeds of their own
        assert one.retrained is not None
        if not one.has_size:
            continue
        sized += 1
        interval, size = stats.mean(values.numpy()), one.retrained.value
        low, high = sorted([size / 2, size * 2])
        right += interval.low <= high and low <= interval.high
    assert sized >= 3
    assert right >= 0.8 * sized


@pytest.mark.parametrize(
    ("low", "high", "has"), [(0.6, 1.4, True), (0.4, 1.6, False), (-0.2, 2.2, False)]
)
def test_a_size_that_retraining_leaves_open_is_an_interval_alone(low, high, has):
    one = Influencer(index=0, score=1.0, source="row 1", shown="x", retrained=Reading(1, low, high))
    for measured in (one, replace(one, retrained=Reading(-1, -high, -low))):
        assert measured.has_size is has
        assert size_in_words(measured).startswith("[") is not has
        assert "]" in size_in_words(measured)
    assert size_in_words(replace(one, retrained=None)) == ""


def test_audit_and_command_give_a_pair_the_same_number():
    lab, request = Lab(), replace(REQUEST, worst=3, k=3, retrainings=0)
    findings = Audit(seeds=1, remedies={}, measures={}, worst=3)(subject(), lab)
    report = trace_errors(subject(), lab, request)
    for error, answer in zip(findings.worst, report.answers, strict=True):
        pairs = [(e.index, e.value) for e in (*error.helpful, *error.harmful)]
        assert pairs == [
            (e.index, pytest.approx(e.score, rel=1e-3)) for e in (*answer.helpful, *answer.harmful)
        ]
    assert [len(error.confirmations) for error in findings.worst] == [1, 1, 0]
    confirmed = trace_errors(subject(), lab, replace(request, confirm=3))
    (harmed,) = [c for c in confirmed.answers[0].confirmations if c.role == "harmful"]
    (audited,) = findings.worst[0].confirmations
    assert list(audited.rows) == list(harmed.rows)
    assert audited.estimate == pytest.approx(harmed.estimate, rel=1e-3)
    assert audited.effect.low < harmed.effect.high
    assert harmed.effect.low < audited.effect.high


def test_no_size_is_printed_where_nothing_was_retrained():
    report = trace_errors(subject(), Lab(), replace(REQUEST, retrainings=0))
    text = markdown(document([report]))
    assert "nats per added copy" not in text
    assert text.count("No sizes are given: nothing was retrained, as asked.") == 2
    given = subject(trained=mlp([4, 8, 2]))
    report = trace_errors(given, Lab(), REQUEST)
    assert "it was given trained" in report.sizes
    assert all(one.retrained is None for one in report.answers[0].helpful)
    with pytest.raises(InvalidConfig, match="cannot be retrained"):
        trace_errors(given, Lab(), replace(REQUEST, confirm=3))
    with pytest.raises(InvalidConfig, match="two retrainings or more"):
        replace(REQUEST, retrainings=1)


def test_the_training_gradient_says_whether_training_ended_at_an_optimum():
    lab, early = Lab(dtype=torch.float64), subject().task
    model = nn.Linear(4, 2)
    step = Budget(steps=10, batch_size=80, lr=0.1, optimizer=Optimizer.SGD)
    started = training_gradient(train(model, early, erm_step, step, lab), classify.loss, lab)
    loss = classify.loss(model, early.splits["train"].data.columns | {"x": _doubles(early)}).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = sum(float(g.square().sum()) for g in gradients) ** 0.5
    assert started.norm == pytest.approx(norm, rel=1e-6)
    assert not started.is_optimum
    ended = train(model, early, erm_step, replace(step, steps=600, lr=1.0), lab)
    assert training_gradient(ended, classify.loss, lab).is_optimum


def _doubles(task: Task) -> torch.Tensor:
    return task.splits["train"].data.columns["x"].double()
