"""Predictions that somebody else made, as a model that can be evaluated and nothing else."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RecordedModel(nn.Module):
    """Returns the outputs that stand in the inputs from position `start` on: log-probabilities of
    the classes, or a number. There is no model behind it to ask anything else.
    """

    def __init__(self, start: int, is_probability: bool = True) -> None:
        super().__init__()
        self.start = start
        self.is_probability = is_probability
        """False where only the class was predicted: then its loss means nothing."""

    def forward(self, x: Float[Tensor, "batch input"]) -> Float[Tensor, "batch output"]:
        return x[:, self.start :]


def example() -> tuple[RecordedModel, Tensor]:
    """Two inputs, then the log-probabilities of two classes."""
    return RecordedModel(2), torch.tensor([[0.3, 1.0, -0.1, -2.4], [0.7, 2.0, -1.2, -0.4]])
