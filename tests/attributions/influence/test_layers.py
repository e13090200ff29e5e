"""What an influence says about the parameters that it goes through."""

import torch
import torch.nn.functional as F
from torch import nn

from unseen.attributions.influence import Curvature, Fisher, Influence
from unseen.attributions.influence.layers import coverage_sentence, select_layers
from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify, cross_entropy
from unseen.task import Axis, Split, Task, Use


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.cell(x)[0][:, -1])


def test_what_an_influence_leaves_out_is_said():
    model = Recurrent()
    said = coverage_sentence(model, select_layers(model, ()))
    assert said.startswith("Influence goes through 8 of 116 trainable parameters (7%)")
    assert "leaves out `cell`" in said
    assert coverage_sentence(model, select_layers(model, ("*",))) == ""


def test_convolutions_count_in_a_model_without_an_embedding():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv1d(2, 2, 1), nn.Flatten(), nn.Linear(8, 3))
    assert select_layers(model, ()) == ("0", "1", "3")
    assert coverage_sentence(model, select_layers(model, ())) == ""


def test_recurrent_layers_have_influence_where_they_are_asked_for():
    """Without curvature influence is −⟨∇f, ∇ℓ⟩ / n: autograd says so in a loop."""
    with Lab().seeded():
        model = Recurrent().double()
        columns = {"x": torch.randn(6, 5, 4).double(), "y": torch.randint(2, (6,))}
    split = Split(Columns(**columns), Use.TRAIN, at="a")
    task = Task(name="t", axis=Axis.SITE, objective=classify, splits={"train": split})
    lab = Lab(dtype=torch.float64)
    asked = Influence(
        layers=("*",), curvature=Curvature.IDENTITY, fisher=Fisher.EMPIRICAL, damping=0.0
    )
    scores = asked.prepare(Trained(model, task), lab)(columns, cross_entropy).scores
    rows = []
    for k in range(6):
        loss = F.cross_entropy(model(columns["x"][k : k + 1]), columns["y"][k : k + 1])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in grads]))
    g = torch.stack(rows)
    ratio = scores / (g @ g.T)
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
