"""Texts under a scoring language model, and a second one as sampler or observer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from unseen.errors import InvalidData
from unseen.measures.machine_text.token_statistics import TokenStatistics, token_statistics
from unseen.models.pretrained import CausalLM

FEWEST = 20
"""Tokens of a text below which nothing is said about it."""
PROBE = "The 3 naïve foxes jumped; 100% sure? “Yes”, said Ångström.\n\tend\n"


@dataclass(frozen=True)
class TextScorer:
    """Scores texts with `model`; `sampler` writes what each token is compared with (None: `model`
    itself). Longer texts are read in windows of `length` tokens (or as many as the models have
    positions for), each after the last token of the one before. Before every window stands what
    the tokenizer puts before a text.
    """

    model: CausalLM
    sampler: CausalLM | None = None
    length: int = 512
    batch_tokens: int = 1_024
    """Tokens that go through the model together."""

    def __post_init__(self) -> None:
        if self.sampler is not None:
            refuse_other_tokenizer(self.model, self.sampler)
        if self.length < 2 or self.batch_tokens < 1:
            raise InvalidData(
                f"Windows of {self.length} tokens, {self.batch_tokens} together.",
                why="a token is predicted from the one before.",
                fix="read at least two.",
            )

    @property
    def window(self) -> int:
        """Tokens of a text that are read at once."""
        models = [self.model] if self.sampler is None else [self.model, self.sampler]
        known = [most for one in models if (most := getattr(one, "context", None))]
        return min([self.length, *(max(2, most - len(self.model.start)) for most in known)])

    def encode(self, text: str, name: str = "The text") -> Int[Tensor, " t"]:
        """The tokens; a text that is too short is refused with its length."""
        tokens = self.model.encode(text)
        if len(tokens) < FEWEST:
            raise InvalidData(
                f"{name} has {len(tokens)} tokens.",
                why=f"below {FEWEST} tokens the statistics are noise.",
                fix="give a longer text.",
            )
        return torch.tensor(tokens)

    def ends(self, text: str) -> list[int]:
        """Where each token ends in the text, in characters."""
        return token_ends(self.model.tokenizer, text, self.model.encode(text))

    def score(self, texts: Sequence[str]) -> list[TokenStatistics]:
        """Of every text the statistics of its tokens from the second on."""
        encoded = [self.encode(text, f"Text {k + 1}") for k, text in enumerate(texts)]
        windows = [(k, window) for k, tokens in enumerate(encoded) for window in self._cut(tokens)]
        found: dict[int, list[TokenStatistics]] = {}
        # those of one length together; stable, so that the windows of a text stay in order
        for batch in self._batches(sorted(windows, key=lambda one: -len(one[1]))):
            for (k, _), statistics in zip(batch, self._read([w for _, w in batch]), strict=True):
                found.setdefault(k, []).append(statistics)
        return [_join(found[k]) for k in range(len(texts))]

    def _cut(self, tokens: Int[Tensor, " t"]) -> list[Int[Tensor, " w"]]:
        """Windows that share one token each, so that every token but the first is predicted once;
        a window that would predict nothing is none."""
        size = self.window
        starts = range(0, len(tokens) - 1, size - 1)
        return [tokens[start : start + size] for start in starts]

    def _batches(self, windows: Sequence[tuple[int, Tensor]]) -> Iterator[list[tuple[int, Tensor]]]:
        batch: list[tuple[int, Tensor]] = []
        for one in windows:
            if batch and (len(batch) + 1) * len(batch[0][1]) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch

    @torch.no_grad()
    def _read(self, windows: Sequence[Tensor]) -> list[TokenStatistics]:
        # padding stands behind the text, where no token of a causal model looks
        before = torch.tensor(self.model.start, dtype=torch.long)
        rows = [torch.cat([before, window]) for window in windows]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        first = len(before)
        logits = self._logits(self.model, padded)[:, first:]
        others = None if self.sampler is None else self._logits(self.sampler, padded)[:, first:]
        return [
            token_statistics(
                logits[k, : len(w) - 1],
                w[1:].to(logits.device),
                None if others is None else others[k, : len(w) - 1].to(logits.device),
            )
            for k, w in enumerate(windows)
        ]

    @staticmethod
    def _logits(model: CausalLM, tokens: Tensor) -> Tensor:
        was_training = model.training
        model.eval()
        try:
            return model(tokens.to(next(model.parameters()).device))
        finally:
            model.train(was_training)


def _join(parts: Sequence[TokenStatistics]) -> TokenStatistics:
    return TokenStatistics(
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("log_probability", "mean", "variance", "rank")
        )
    )


def token_ends(tokenizer: Any, text: str, tokens: Sequence[int]) -> list[int]:
    """Where each token ends in the text: as the tokenizer says, else by decoding ever more
    tokens."""
    if getattr(tokenizer, "is_fast", False):
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in found["offset_mapping"]]
    else:
        ends = [len(tokenizer.decode(tokens[: k + 1])) for k in range(len(tokens))]
    # a character of several tokens ends with its last one
    return np.minimum(np.maximum.accumulate(np.array(ends, dtype=int)), len(text)).tolist()


def refuse_other_tokenizer(model: CausalLM, other: CausalLM) -> None:
    """Raises where two models do not cut text into the same numbered tokens."""
    vocabularies = [one.tokenizer.get_vocab() for one in (model, other)]
    if vocabularies[0] != vocabularies[1] or model.encode(PROBE) != other.encode(PROBE):
        raise InvalidData(
            "The two models have different tokenizers "
            f"({len(vocabularies[0]):,} and {len(vocabularies[1]):,} tokens).",
            why="their probabilities are compared token by token; cutting the longer vocabulary "
            "would give wrong numbers.",
            fix="use two models of one family, for example a base model and its instruct version.",
        )
