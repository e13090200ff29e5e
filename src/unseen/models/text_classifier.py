"""A linear head on a text encoder, trained with it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.models.text_encoder import LongText, TextEncoder, refuse_no_texts

MOST_WINDOWS = 8
"""Of a long text that is averaged over windows: what follows them is cut."""


class TextClassifier(nn.Module):
    """Token numbers in windows of `length`, one behind the other, to outputs: the mean of those of
    the head over the windows that hold text. Columns behind the windows are not read.
    """

    def __init__(self, encoder: TextEncoder, outputs: int, windows: int = 1) -> None:
        super().__init__()
        self.encoder, self.windows, self.length = encoder, windows, encoder.length
        self.head = nn.Linear(encoder.dimension, outputs)

    def forward(self, x: Int[Tensor, "b s"]) -> Float[Tensor, "b c"]:
        tokens = x[:, : self.windows * self.length].reshape(-1, self.length)
        is_text = (tokens != self.encoder.pad).any(1).reshape(len(x), self.windows)
        is_text[:, 0] = True
        read = tokens[is_text.flatten()]
        longest = int(self.encoder.real(read).sum(1).max())
        # vectors have length 1: a head that starts with weights of 1/√d needs inputs of about 1
        z = self.head(self.encoder(read[:, :longest]) * self.encoder.dimension**0.5)
        owner = torch.arange(len(x), device=x.device).repeat_interleave(is_text.sum(1))
        total = z.new_zeros(len(x), z.shape[1]).index_add(0, owner, z)
        return total / is_text.sum(1, keepdim=True)


def token_windows(encoder: TextEncoder, texts: Sequence[str]) -> tuple[Int[Tensor, "b s"], int]:
    """The windows of each text, one behind the other and padded, and how many windows there are."""
    refuse_no_texts(texts)
    most = 1 if encoder.long_text is LongText.CUT else MOST_WINDOWS
    rows = [encoder.windows(text)[:most] for text in texts]
    windows = max(map(len, rows))
    x = torch.full((len(rows), windows, encoder.length), encoder.pad, dtype=torch.int64)
    for k, row in enumerate(rows):
        for j, window in enumerate(row):
            x[k, j, : len(window)] = torch.tensor(window, dtype=torch.int64)
    return x.flatten(1), windows
