"""An LSTM that reads sequences of vectors: as many parameters as a decoder, a smaller state."""

from jaxtyping import Float
from torch import Tensor, nn


class Recurrent(nn.Module):
    """Vectors to logits at every position (Hochreiter & Schmidhuber, 1997)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, outputs, bias=False)

    @property
    def state_size(self) -> int:
        """Numbers that carry the past: hidden and cell state of every layer."""
        return 2 * self.lstm.hidden_size * self.lstm.num_layers

    def forward(self, x: Float[Tensor, "b s i"]) -> Float[Tensor, "b s o"]:
        return self.head(self.lstm(x)[0])


def hidden_like(parameters: int, inputs: int, outputs: int, layers: int = 2) -> int:
    """The largest width whose LSTM has at most so many parameters."""
    hidden = 1
    while lstm_parameters(inputs, hidden + 1, outputs, layers) <= parameters:
        hidden += 1
    return hidden


def lstm_parameters(inputs: int, hidden: int, outputs: int, layers: int) -> int:
    """Four gates of weights and two biases in every layer, and the head."""
    first = 4 * hidden * (inputs + hidden + 2)
    return first + (layers - 1) * 4 * hidden * (2 * hidden + 2) + hidden * outputs
