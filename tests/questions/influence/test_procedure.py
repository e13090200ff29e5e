"""What is asked of influence functions where nobody says anything."""

import pytest
import torch
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.questions.influence.procedure import default_influence, for_session
from unseen.subjects.session import open_session
from unseen.subjects.subject import Subject
from unseen.task import Axis, Split, Task, Use


@pytest.mark.parametrize(("most", "layers"), [(8, ()), (7, ("2", "4")), (2, ())])
def test_a_layer_of_very_many_inputs_is_left_out_where_others_remain(most, layers, monkeypatch):
    monkeypatch.setattr("unseen.questions.influence.procedure.MOST_INPUTS", most)
    x = torch.randn(20, 8, generator=Lab().generator())
    data = Columns(x=x, y=(x[:, 0] > 0).long())
    splits = {"train": Split(data, Use.TRAIN), "test": Split(data, Use.EVALUATE)}
    task = Task(name="wide", axis=Axis.IID, splits=splits, objective=classify)

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
        )

    session = open_session(Subject(task=task, model=model, budget=Budget(steps=2)), Lab())
    config = for_session(default_influence(), session)
    assert config.layers == layers
    said = session.attributor(config).sentences()
    assert any("leaves out `0`" in sentence for sentence in said) == bool(layers)
