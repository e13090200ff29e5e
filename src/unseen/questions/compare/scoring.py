"""Scores of many models on what may select and on what is evaluated."""

from collections.abc import Mapping, Sequence
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import once, size
from unseen.engine.evaluate import per_example
from unseen.engine.example_values import refuse_shape
from unseen.engine.vectorized.ensemble import Ensemble
from unseen.errors import UnseenError
from unseen.lab import Lab
from unseen.questions.compare.splits import evaluated_splits, known_splits
from unseen.task import Batch, PerExample, Split, Task, Use
from unseen.tasks.domains import ORACLE


def scores(models: Sequence[nn.Module], task: Task, lab: Lab, judge: bool) -> dict[str, Tensor]:
    """Mean score of every model on what may select, and its scores of every evaluation example;
    float32 on the CPU.
    """
    evaluate = ModelEvaluator(models, lab)
    score = task.objective.score

    def mean(splits: Mapping[str, Split]) -> Float[Tensor, " model"]:
        """Every split counts alike, however many examples it has."""
        return torch.stack(
            [evaluate(split, score).double().mean(1) for split in splits.values()]
        ).mean(0)

    found: dict[str, Tensor] = {}
    if select := task.of(Use.SELECT):
        found["select"] = mean(select)
    if not judge:
        return found
    if ORACLE in task.splits:
        found["oracle"] = mean({ORACLE: task.splits[ORACLE]})
    if known := known_splits(task):
        found["seen"] = mean(known)
    for site, name in evaluated_splits(task).items():
        split = task.splits[name]
        found[f"score {site}"] = evaluate(split, score)
        if has_two_classes(split, task, lab) and outputs(models[0], split, lab) in (1, 2):
            found[f"margin {site}"] = evaluate(split, margin)
    return found


class ModelEvaluator:
    """Values of every example for many models at once, or for one after the other where vmap
    refuses.
    """

    def __init__(self, models: Sequence[nn.Module], lab: Lab) -> None:
        self.models, self.lab = models, lab
        self.together = cache(partial(Ensemble, models))

    @torch.no_grad()
    def __call__(self, split: Split, f: PerExample) -> Float[Tensor, "model n"]:
        if len(self.models) > 1:
            try:
                return self._evaluate_stacked(split, f)
            except (
                RuntimeError,
                UnseenError,
            ):  # data-dependent control flow, or models of several shapes
                pass
        return torch.stack([per_example(model, split.data, f, self.lab) for model in self.models])

    def _evaluate_stacked(self, split: Split, f: PerExample) -> Float[Tensor, "model n"]:
        ensemble, k = self.together(), len(self.models)
        ensemble.eval()
        parts = []
        for batch in once(split.data, 1024, self.lab):
            shared = {name: tensor.expand(k, *tensor.shape) for name, tensor in batch.items()}
            values = ensemble.evaluate(f, shared).cpu()
            refuse_shape(values.flatten(0, 1) if values.dim() > 1 else values, k * size(batch))
            parts.append(values)
        return torch.cat(parts, 1)


def margin(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """Logit of class 1 minus logit of class 0, or the one logit."""
    z = model(batch["x"])
    z = z.reshape(len(z), -1)
    return z[:, 1] - z[:, 0] if z.shape[1] == 2 else z[:, 0]


@torch.no_grad()
def outputs(model: nn.Module, split: Split, lab: Lab) -> int:
    """How many numbers the model gives per example."""
    z = model.eval()(next(once(split.data, 1, lab))["x"])
    return z.numel() if isinstance(z, Tensor) else 0


def has_two_classes(split: Split, task: Task, lab: Lab) -> bool:
    """Whether the classes 0 and 1 are fitted, and the split holds no other."""
    fitted = set().union(*(_classes(each, lab) for each in task.of(Use.TRAIN).values()))
    return fitted == {0, 1} and _classes(split, lab) <= fitted


def _classes(split: Split, lab: Lab) -> set[int]:
    found: set[int] = set()
    for batch in once(split.data, 4096, lab):
        if (
            "x" not in batch
            or "y" not in batch
            or batch["y"].is_floating_point()
            or batch["y"].dim() > 1
        ):
            return {-1}
        found |= set(batch["y"].unique().tolist())
    return found
