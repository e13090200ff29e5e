"""Task hinting mixes minibatches of a hint into training, and nothing else."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from unseen.engine.batches import Columns, forever
from unseen.engine.loop import Budget, erm_step, train
from unseen.engine.parameters import state
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.task_hinting import TaskHinting
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.study.trial import untrained_model
from unseen.task import Split, Use
from unseen.tasks.algorithmic import Algorithmic, Sort, Successor
from unseen.tasks.algorithmic.problems import start_token

MAIN = Algorithmic(Sort(12), longest=3, lengths=(3, 5), n=20)
HINT = replace(MAIN, problem=Successor(12))


def example():
    shape = Decoder(
        vocabulary=MAIN.vocabulary, width=16, layers=1, heads=2, positions=Positions.NONE
    )
    with Lab().seeded():
        model = Transformer(shape)
    method = TaskHinting(HINT, budget=Budget(steps=20, batch_size=8))
    return method, Trained(model, MAIN.build(Lab()))


def starts(method, n=400):
    task, hint = MAIN.build(Lab()), HINT.build(Lab().child("hint"))
    data = method.mix(task, hint, Lab()).split("train").data
    return [int(batch["tokens"][0, 0]) for batch in islice(forever(data, 4, Lab()), n)]


def test_hint_batches_come_with_their_probability():
    for probability in (0.0, 0.25):
        share = starts(TaskHinting(HINT, probability)).count(start_token("successor")) / 400
        assert abs(share - probability) <= 5 * (probability * (1 - probability) / 400) ** 0.5


def test_equal_batches_of_the_task_need_more_steps():
    method = TaskHinting(HINT, 0.2, replace(example()[0].budget, steps=80))
    assert method.at_equal_batches().budget.steps == 100
    assert TaskHinting(HINT, 0.0).at_equal_batches() == TaskHinting(HINT, 0.0)


def test_the_result_is_about_the_task():
    method, subject = example()
    trained = method.fit(subject.model, subject.task, Lab())
    assert trained.task is subject.task
    assert len(trained.curves["loss"]) == method.budget.steps


def test_without_hints_it_is_plain_training_on_the_same_mixture():
    method, subject = example()
    method = replace(method, probability=0.0)
    build = lambda: example()[1].model  # noqa: E731
    one, other = (untrained_model(build, Lab()) for _ in range(2))
    method.fit(one, subject.task, Lab())
    mixed = method.mix(subject.task, HINT.build(Lab().child("hint")), Lab())
    train(other, mixed, erm_step, method.budget, Lab())
    assert all(
        torch.equal(a, b) for a, b in zip(state(one).values(), state(other).values(), strict=True)
    )


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_probabilities_out_of_range_are_refused(probability):
    with pytest.raises(InvalidConfig, match="probability"):
        TaskHinting(HINT, probability)


def test_a_hint_in_another_format_is_refused():
    class Other:
        def build(self, lab):
            task = MAIN.build(lab)
            data = Columns(x=torch.zeros(3, 2), y=torch.zeros(3))
            return replace(task, name="other", splits={"train": Split(data, Use.TRAIN)})

    method, subject = example()
    with pytest.raises(InvalidData, match="hint `other`"):
        replace(method, hint=Other()).fit(subject.model, subject.task, Lab())
