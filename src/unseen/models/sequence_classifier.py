"""Sequence-classification models of transformers behind the interface of every classifier:
`model(x) -> logits`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, MissingExtra, UnknownName
from unseen.models.pretrained import (
    refuse_broken,
    refuse_incomplete,
    refuse_no_model,
    refuse_no_tokenizer,
    refuse_pickles,
)


class SequenceClassifier(nn.Module):
    """Token numbers, filled up with `pad` on the right, to logits over classes; padding is attended
    by nobody.

    Padding is the run of `pad` at the end of a row, so the same token inside a text counts as text.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.training = model.training  # else restoring it would switch the model's dropout on
        pad = model.config.pad_token_id
        if pad is None:
            pad = getattr(tokenizer, "pad_token_id", None)
        if pad is None:
            raise InvalidConfig(
                f"{type(model).__name__} has no padding token.",
                why="texts of unequal length are filled up with it.",
                fix="set model.config.pad_token_id = tokenizer.pad_token_id = "
                "tokenizer.eos_token_id.",
            )
        self.pad = int(pad)
        model.config.pad_token_id = self.pad  # decoder classifiers read the last real token by it

    def forward(self, x: Int[Tensor, "b s"]) -> Float[Tensor, "b c"]:
        return self.model(input_ids=x, attention_mask=self.real(x).long()).logits

    def real(self, x: Int[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """The positions that are no padding; of an empty text the first one."""
        text = (x != self.pad).long().flip(1).cummax(1).values.flip(1).bool()
        return text | (torch.arange(x.shape[1], device=x.device) == 0)

    @property
    def classes(self) -> list[str]:
        names = self.model.config.id2label
        return [str(names[k]) for k in range(len(names))]

    def columns(
        self, texts: Sequence[str], labels: Sequence[str | int], length: int = 128
    ) -> Columns:
        """Examples `x`, `y` and `attention_mask`; longer texts keep their first `length` tokens."""
        if not len(texts) or len(texts) != len(labels):
            raise InvalidData(
                f"There are {len(texts)} texts and {len(labels)} labels.",
                why="each example is one text with one label.",
                fix="give two lists of equal length with at least one entry.",
            )
        known = {name: k for k, name in enumerate(self.classes)} | {
            k: k for k in range(len(self.classes))
        }
        for label in labels:
            if label not in known:
                raise UnknownName.near("class", str(label), self.classes)
        rows = [list(self.tokenizer.encode(text))[:length] for text in texts]
        x = torch.full((len(rows), max(1, *map(len, rows))), self.pad, dtype=torch.int64)
        for k, row in enumerate(rows):
            x[k, : len(row)] = torch.tensor(row, dtype=torch.int64)
        return Columns(
            x=x, y=torch.tensor([known[label] for label in labels]), attention_mask=self.real(x)
        )


def load_classifier(folder: Path | str) -> SequenceClassifier:
    """The classifier and tokenizer saved in a folder, from safetensors, without running any code
    that lies there.
    """
    folder = Path(folder)
    refuse_no_model(folder)
    refuse_no_tokenizer(folder)
    refuse_pickles(folder)
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise MissingExtra(
            "Text classifiers need the library transformers.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    safe = {"local_files_only": True, "trust_remote_code": False}
    with refuse_broken(folder):
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, **safe
        )
        refuse_incomplete(folder, model, loaded)
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
    return SequenceClassifier(model.eval(), tokenizer)
