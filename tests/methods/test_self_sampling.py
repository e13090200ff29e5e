"""Learning from own right programs: gradients against the definition, and what is kept."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from unseen.engine.loop import Budget
from unseen.engine.program_writing import ProgramSamples, join_rows
from unseen.engine.programs import Program
from unseen.engine.response_losses import beta_mml, mle_aug, mml
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods import self_sampling
from unseen.methods.self_sampling import SelfSampling, example
from unseen.models.response_loss import response_log_likelihood
from unseen.models.transformer import Decoder, Transformer
from unseen.tasks import math_programs
from unseen.testing.stand_ins import small_task


def small(task_seed=0):
    spec = math_programs.example()
    with Lab(task_seed).child("init").seeded():
        model = Transformer(
            Decoder(vocabulary=len(spec.notation.vocabulary), width=16, heads=2, context=40)
        )
    return spec, spec.build(Lab()), model


@pytest.mark.parametrize("objective", [mle_aug, mml, partial(beta_mml, beta=0.25)])
@pytest.mark.parametrize("part_tokens", [30, 10_000])
def test_the_gradient_is_that_of_the_objective(objective, part_tokens):
    """Two problems, one with a second program and a beginning, against one sum over all."""
    spec, task, model = small()
    model = model.double()
    method = SelfSampling(objective, samples=0, longer=3, part_tokens=part_tokens)
    work = self_sampling._SelfSamplingStep(method, task.splits["train"].data, Lab())
    buffer = work.buffers[1]
    gold = buffer.problem.program.statements[0].expression
    left, sign, right = gold.split()
    for text in (
        f"answer = {right} {sign} {left}",
        f"number0 = {gold}; answer = number0",
    ):
        assert buffer.insert(Program.parse(text)) == "correct"
    wrong = f"number1 = {gold}; answer = number1 * number1"
    assert buffer.insert(Program.parse(wrong)) == "partial"
    work(model, [0, 1], 0)
    found = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    words = spec.notation
    rows = []
    for k in (0, 1):
        prompt = words.prompt(spec.train[k].question)
        targets = [[*words.encode(str(p)), words.end] for p in work.buffers[k].correct]
        # a beginning has no end token
        targets += [words.encode(f"{p};") for p in work.buffers[k].beginnings]
        rows.append([response_log_likelihood(model, join_rows([prompt], [t])) for t in targets])
    loss = sum(
        objective(torch.cat(one)[None], torch.ones(1, len(one), dtype=torch.bool)) for one in rows
    )
    (loss.sum() / 2).backward()
    assert len(rows[1]) == 4
    for name, p in model.named_parameters():
        assert_close(found[name], p.grad, atol=1e-9, rtol=1e-6)


def test_samples_that_are_right_become_targets(monkeypatch):
    """A model that is said to write `b + a` gets it as a second target of every sum."""
    spec, task, model = small()

    def write(model, problems, notation, generator, *, samples, beginnings, **settings):
        return [
            [Program.parse("answer = number1 + number0"), None, Program.parse("answer = 1 / 0")]
            for _ in problems
        ]

    monkeypatch.setattr(self_sampling, "sample_programs", write)
    budget = Budget(steps=12, batch_size=16, lr=1e-3)
    trained = SelfSampling(budget=budget, begin_at=0.5).fit(model, task, Lab())
    sums = ["+" in str(p.program) for p in spec.train]
    kept = [len(buffer.correct) for buffer in trained.buffers]
    assert kept == [2 if is_sum else 1 for is_sum in sums]
    assert (
        trained.outcomes["no program"]
        == trained.outcomes["correct"]
        + sum(trained.outcomes[key] for key in ("known", "wrong"))
        - 6 * 16
    )
    assert trained.curves["targets train"][5] == 1.0 < trained.curves["targets train"][-1]


def test_without_samples_all_objectives_are_maximum_likelihood():
    _, task, model = small()
    budget = Budget(steps=5, batch_size=8, lr=1e-2)
    fits = [
        SelfSampling(objective, samples=0, budget=budget).fit(copy.deepcopy(model), task, Lab())
        for objective in (mle_aug, mml)
    ]
    for one, other in zip(*(fit.model.parameters() for fit in fits), strict=True):
        assert_close(one, other)


def test_samples_of_a_trained_model_are_judged_by_execution():
    method, subject = example()
    trained = replace(method, budget=replace(method.budget, steps=80)).fit(
        subject.model, subject.task, Lab()
    )
    data = subject.task.splits["train"].data
    found = ProgramSamples.of(
        trained.model, data.problems, data.notation, Lab(), samples=6, length=8
    )
    assert found.correct.float().mean() > 0.8
    assert all(one >= 1 for one in found.distinct())
    right = found.distinct(correct=True)
    assert all(a <= b for a, b in zip(right, found.distinct(), strict=True))


def test_what_cannot_be_executed_is_refused():
    with pytest.raises(InvalidData, match="holds no problems with programs"):
        SelfSampling().fit(torch.nn.Linear(2, 2), small_task(Lab()), Lab())
    with pytest.raises(InvalidConfig, match="samples=-1"):
        SelfSampling(samples=-1)
