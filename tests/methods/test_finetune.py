"""Fine-tuning starts at the given weights and leaves alone what it should."""

import pytest
import torch
from torch.testing import assert_close

from unseen.engine.loop import Budget
from unseen.engine.parameters import copy_parameters
from unseen.errors import UnknownName
from unseen.lab import Lab
from unseen.methods.finetune import Finetune
from unseen.models.mlp import mlp
from unseen.testing import small_task


def test_two_halves_continue_from_each_other():
    task, model = small_task(), mlp([4, 8, 2])
    before = copy_parameters(model)
    first = Finetune(Budget(steps=5, lr=0.1)).fit(model, task, Lab(1))
    middle = copy_parameters(first.model)
    second = Finetune(Budget(steps=5, lr=0.1)).fit(first.model, task, Lab(2))
    assert_close(dict(first.start), before)
    assert_close(dict(second.start), middle)
    assert second.curves["loss"][-1] < first.curves["loss"][0]


def test_no_steps_change_nothing():
    model = mlp([4, 8, 2])
    before = copy_parameters(model)
    assert_close(
        copy_parameters(Finetune(Budget(steps=0)).fit(model, small_task(), Lab()).model), before
    )


def test_only_the_named_parameters_move_and_all_ask_for_gradients_again():
    model = mlp([4, 8, 2])
    before = copy_parameters(model)
    Finetune(Budget(steps=5, lr=0.1), only=("3.",)).fit(model, small_task(), Lab())
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"3.weight", "3.bias"}
    assert all(p.requires_grad for p in model.parameters())


def test_an_unknown_prefix_is_named():
    with pytest.raises(UnknownName, match="nose"):
        Finetune(only=("nose",)).fit(mlp([4, 8, 2]), small_task(), Lab())
