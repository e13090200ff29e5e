"""What a person's own model brings along: its number format, and outputs that are no logits."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from unseen.engine.batches import once
from unseen.lab import Lab
from unseen.objectives import correct, correct_sign, cross_entropy, logistic_loss
from unseen.subjects.subject import Subject
from unseen.task import Batch, Task, Use

SUM_TOLERANCE = 1e-2
"""Of probabilities in bfloat16; logits do not sum to 1 by chance in every row."""
FEWEST = 8
"""Examples below which outputs may look like probabilities by chance."""


def in_dtype_of(subject: Subject, lab: Lab) -> Lab:
    """The lab in the number format of the subject's model, unless another one than the default was
    asked for.

    A model whose parameters have several formats is computed in the widest, which loses nothing.
    """
    if lab.dtype is not Lab.dtype:
        return lab
    model = subject.trained
    if model is None:
        with lab.child("kind").seeded():
            model = subject.model()
    if not isinstance(model, nn.Module):
        return lab
    found = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if not found:
        return lab
    widest = max(found, key=lambda dtype: torch.finfo(dtype).bits)
    if len(found) > 1:
        widest = torch.promote_types(widest, lab.dtype)
    return replace(lab, dtype=widest)


@torch.no_grad()
def probability_warnings(model: nn.Module, task: Task, lab: Lab) -> list[str]:
    """What to say where an objective that reads logits is given probabilities."""
    objective = task.objective
    reads_logits = objective.loss in (cross_entropy, logistic_loss) or objective.score in (
        correct,
        correct_sign,
    )
    if not reads_logits:
        return []
    split = next(iter(task.of(Use.TRAIN).values()))
    batch = next(once(split.data, 256, lab))
    outputs = _outputs(model, batch)
    if outputs is None or len(outputs) < FEWEST:
        return []
    last = _last_module(model)
    if outputs.shape[1] > 1 and is_distribution(outputs):
        return [
            f"The model's outputs are probabilities (each row sums to 1{_ends_in(last)}), and the "
            "objective reads them as logits: loss, calibration and gradients are those of a "
            "softmax of a softmax. Leave the softmax out of the model; accuracy stays as it is."
        ]
    if outputs.shape[1] == 1 and (isinstance(last, nn.Sigmoid) or _is_probability(outputs)):
        return [
            f"The model's outputs lie between 0 and 1{_ends_in(last)}, and the objective reads "
            "them as logits: every example counts as class 1. Leave the sigmoid out of the model."
        ]
    if isinstance(last, nn.LogSoftmax):
        return [
            "The model ends in LogSoftmax: the objective's cross-entropy takes it again, which "
            "changes no loss; explanations are of log-probabilities."
        ]
    return []


def is_distribution(outputs: Tensor) -> bool:
    """Whether every row is non-negative and sums to 1."""
    sums = outputs.double().sum(1)
    return bool((outputs >= 0).all()) and bool(((sums - 1).abs() < SUM_TOLERANCE).all())


def _is_probability(outputs: Tensor) -> bool:
    return bool(((outputs >= 0) & (outputs <= 1)).all()) and bool((outputs != outputs[0]).any())


def _outputs(model: nn.Module, batch: Batch) -> Tensor | None:
    """[example, output] of the model in evaluation mode; None where it gives no such thing."""
    if "x" not in batch:
        return None
    was_training = model.training
    model.eval()
    try:
        found = model(batch["x"])
    except Exception:  # said where the model is trained or evaluated
        return None
    finally:
        model.train(was_training)
    if not isinstance(found, Tensor) or found.dim() not in (1, 2):
        return None
    return found.reshape(len(found), -1)


def _last_module(model: nn.Module) -> nn.Module:
    """The module that was registered last: the end of a chain of layers."""
    children = list(model.children())
    return _last_module(children[-1]) if children else model


def _ends_in(last: nn.Module) -> str:
    kinds = (nn.Softmax, nn.Sigmoid)
    return f"; it ends in {type(last).__name__}" if isinstance(last, kinds) else ""
