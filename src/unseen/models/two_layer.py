"""The two-layer ReLU network of the theory: trained first layer, fixed ±1/√m head, no bias."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.errors import InvalidConfig


class TwoLayer(nn.Module):
    """f(x) = Σ_j a_j φ(⟨w_j, x⟩) with φ = ReLU, a_j = ±1/√width drawn once, and w_j(0) ~ N(0, init²
    I).
    """

    head: Tensor

    def __init__(self, dim: int, width: int, *, init: float = 1e-6) -> None:
        super().__init__()
        if dim < 1 or width < 1 or not init >= 0:
            raise InvalidConfig(
                f"TwoLayer(dim={dim}, width={width}, init={init}) is out of range.",
                why="a network needs an input and a neuron, and a standard deviation is not "
                "negative.",
                fix="use dim ≥ 1, width ≥ 1, init ≥ 0.",
            )
        # skip_init: the default initialisation of a large layer would be drawn and thrown away
        self.hidden = nn.utils.skip_init(nn.Linear, dim, width, bias=False)
        nn.init.normal_(self.hidden.weight, std=init)
        self.register_buffer("head", (2.0 * torch.randint(2, (width,)) - 1) / width**0.5)

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        return self.hidden(x).relu() @ self.head
