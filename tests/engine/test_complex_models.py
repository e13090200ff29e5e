"""A model with complex weights is audited as it is: nothing drops the imaginary parts."""

import torch
from oracles import gradients as oracle
from torch import nn

from unseen.engine.batches import Columns, model_to_device
from unseen.engine.evaluate import per_example
from unseen.lab import Lab
from unseen.measures.coherence import coherence
from unseen.objectives import cross_entropy


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))
        self.out = nn.Linear(16, 2)

    def forward(self, x):
        return self.out(torch.fft.irfft2(torch.fft.rfft2(x) * self.w, s=(4, 4)).flatten(1))


def test_moving_a_model_keeps_imaginary_parts():
    model = Fourier()
    before = model.w.detach().clone()
    model_to_device(model, Lab(dtype=torch.float64))
    assert model.w.dtype is torch.complex128
    assert model.out.weight.dtype is torch.float64
    assert torch.equal(model.w.detach(), before.to(torch.complex128))
    assert model_to_device(model, Lab()).w.dtype is torch.complex64


def test_coherence_counts_both_parts():
    model = model_to_device(Fourier(), Lab(dtype=torch.float64))
    columns = {"x": torch.randn(12, 4, 4).double(), "y": torch.randint(2, (12,))}
    rows = oracle.per_example_gradients(model, columns, cross_entropy)
    real = {n: torch.view_as_real(g) if g.is_complex() else g for n, g in rows.items()}
    lab = Lab(dtype=torch.float64)
    found = coherence(model, cross_entropy, Columns(**columns), lab)
    expected = oracle.coherence(oracle.flattened(real))
    assert abs(found.alpha - expected) < 1e-12
    assert len(per_example(model, Columns(**columns), cross_entropy, lab)) == 12
