"""One number per example, or the reason why there is none.

Losses and scores are functions that users write. What they get wrong is said here, once for
training, evaluation and curvature: a shape that is not one number per example, a column that the
examples do not have, a model that returns no tensor, data that are not finite.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen.engine.batches import once, size
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Batch, Objective, PerExample, Split

BATCHES_SEARCHED = 1_000
"""So many batches are searched for numbers that are not finite: a stream may have no end."""


def example_values(f: PerExample, model: nn.Module, batch: Batch) -> Tensor:
    """f(model, batch), refused unless it is one number per example."""
    try:
        values = f(model, batch)
    except Exception as error:  # the user's own loss, score or model
        refuse_missing_column(error, batch)
        _refuse_output(model, batch)
        raise
    refuse_shape(values, size(batch))
    return values


def check_objective(objective: Objective) -> Objective:
    """The objective with a loss and a score that are refused unless they are one number per
    example.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return example_values(objective.loss, model, batch)

    def score(model: nn.Module, batch: Batch) -> Tensor:
        return example_values(objective.score, model, batch)

    return replace(objective, loss=loss, score=score)


def refuse_shape(values: Any, n: int) -> None:
    """Raises unless `values` has the shape [n]."""
    if isinstance(values, Tensor) and values.shape == (n,):
        return
    if not isinstance(values, Tensor):
        raise InvalidData(
            f"A loss or score returned a {type(values).__name__} for a batch of {n} examples.",
            why=f"it must be a tensor with one number per example, shape [{n}].",
            fix="return a tensor.",
        )
    shape = list(values.shape)
    fixes = {
        (): 'leave out the mean or sum: F.cross_entropy(…, reduction="none").',
        (n, n): "predictions [n, 1] against targets [n] give every pair: use "
        "predictions.squeeze(1), or targets[:, None] and .mean(1).",
        (n, 1): "drop the last axis: .squeeze(1).",
    }
    raise InvalidData(
        f"A loss or score has the shape {shape} for a batch of {n} examples; it must be [{n}].",
        why="other numbers would be counted as further examples: n too large, intervals too narrow."
        if values.numel() > 1
        else "without a number per example there are no intervals and no per-example gradients.",
        fix=fixes.get(
            tuple(shape), "return one number per example, for example .flatten(1).mean(1)."
        ),
    )


def refuse_missing_column(error: Exception, batch: Batch) -> None:
    """Raises `UnknownName` where the error is that of a column which the batch does not have."""
    name = error.args[0] if isinstance(error, KeyError) and error.args else None
    if isinstance(name, str) and name not in batch:
        raise missing_column(name, batch) from error


def missing_column(name: str, columns: Iterable[str]) -> UnknownName:
    """The error for a column that examples lack; the columns that exist, near names first."""
    known = list(columns)
    near = difflib.get_close_matches(name, known, n=len(known) or 1, cutoff=0.5)
    ordered = [*near, *(one for one in known if one not in near)]
    return UnknownName(
        f"The examples have no column `{name}`.",
        why=f"the columns are {', '.join(f'`{one}`' for one in ordered)}.",
        fix=f"call it so where the data are made: Columns({name}=…), or write a loss and a score "
        "that read the columns you have.",
    )


def _refuse_output(model: nn.Module, batch: Batch) -> None:
    """Raises where the model returns no tensor for the inputs: the outputs of transformers are
    such.
    """
    column = next((name for name in ("x", "tokens") if name in batch), None)
    if column is None or not isinstance(model, nn.Module):
        return
    try:
        with torch.no_grad():
            output = model(batch[column])
    except Exception:
        return  # the model itself fails, and its own message says how
    if isinstance(output, Tensor):
        return
    kind = type(output).__name__
    adapter = (
        "wrap it: unseen.models.sequence_classifier.SequenceClassifier(model, tokenizer), or for "
        "language models unseen.models.pretrained.CausalLM(model, tokenizer)."
        if hasattr(output, "logits")
        else "return the logits or predictions alone, from a module around it."
    )
    raise InvalidData(
        f"The model returned a {kind}, not a tensor.",
        why="losses and scores read logits or predictions [batch, …].",
        fix=adapter,
    )


def refuse_nonfinite(data: Dataset[Any], name: str, lab: Lab) -> None:
    """Raises where examples of the split `name` hold NaN or infinite numbers: which column, which
    example.
    """
    start = 0
    for batch in islice(once(data, 4_096, lab), BATCHES_SEARCHED):
        for column, tensor in batch.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                entries = tensor.reshape(len(tensor), -1)
                raise _nonfinite_error(name, column, entries, start)
        start += size(batch)


def _nonfinite_error(
    split: str, column: str, values: Float[Tensor, "n entry"], start: int
) -> InvalidData:
    bad = ~torch.isfinite(values)
    row, entry = (int(k) for k in bad.nonzero()[0])
    kind = "NaN" if values[row, entry].isnan() else "an infinite number"
    where = f", entry {entry} of {values.shape[1]}" if values.shape[1] > 1 else ""
    return InvalidData(
        f"Column `{column}` of split `{split}` holds {kind}: example {start + row}{where}; of "
        f"{len(values):,} examples read there {int(bad.any(1).sum()):,} are not finite.",
        why="every loss and gradient that such an example takes part in is NaN.",
        fix="fill or drop what is missing, for example torch.nan_to_num, or impute it beforehand.",
    )


def refuse_nonfinite_splits(splits: Mapping[str, Split], lab: Lab) -> None:
    """`refuse_nonfinite` of every split."""
    for name, split in splits.items():
        refuse_nonfinite(split.data, name, lab)
