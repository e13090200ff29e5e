"""Two decoders that are no transformers: an LSTM over tokens, and one that sees the source as a bag
of words.

Both map tokens to logits of the next one at every position and read piece by piece, as
`engine/decode.py` asks; prompts that are read together have no padding.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.errors import InvalidData

State = tuple[Tensor, Tensor]


class TokenLSTM(nn.Module):
    """Hochreiter & Schmidhuber (1997), its output compared with the embeddings of all tokens."""

    def __init__(self, vocabulary: int, width: int = 64, layers: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        return self.head(self.lstm(self.embed(tokens))[0])

    def read(
        self, tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b read"], state: State | None
    ) -> tuple[Float[Tensor, "b s v"], State]:
        refuse_padding(real)
        found, state = self.lstm(self.embed(tokens), state)
        return self.head(found), state


class BagDecoder(nn.Module):
    """The next token from the words of the source in any order, the last two tokens and how many
    tokens the answer has.

    A step of the answer knows nothing else of what was written before.
    """

    def __init__(self, vocabulary: int, to: int, width: int = 64, longest: int = 128) -> None:
        super().__init__()
        self.arrow, self.longest = to, longest
        self.bag = nn.Embedding(vocabulary, width)
        self.last, self.before = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)
        self.step = nn.Embedding(longest, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        answering = (tokens == self.arrow).cumsum(1) > 0
        source = (~answering)[..., None] * self.bag(tokens)
        bag = source.sum(1, keepdim=True) / (~answering).sum(1)[:, None, None].clamp_min(1)
        before = torch.cat([tokens[:, :1], tokens[:, :-1]], 1)
        step = (answering.cumsum(1) - 1).clamp(0, self.longest - 1)
        hidden = bag + self.last(tokens) + self.before(before) + self.step(step)
        return self.head(hidden.tanh())

    def read(
        self, tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b read"], state: Tensor | None
    ) -> tuple[Float[Tensor, "b s v"], Tensor]:
        refuse_padding(real)
        every = tokens if state is None else torch.cat([state, tokens], 1)
        return self(every)[:, -tokens.shape[1] :], every


def refuse_padding(real: Bool[Tensor, "b read"]) -> None:
    """Raises where a prompt is filled up: its padding would count as words."""
    if not bool(real.all()):
        raise InvalidData(
            "Prompts of unequal length are read together.",
            why="this decoder cannot tell padding from tokens.",
            fix="read prompts of one length at a time.",
        )
