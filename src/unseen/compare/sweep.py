"""The runs of a comparison: every method, seed and draw on every task, trained together where they share a shape.

A block is what is trained at once: the seeds and draws of one method on one task. Its scores are kept (`lab.keep`), so that
an interrupted sweep goes on where it stopped, and other processes may have computed them.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.compare.contest import Contest, judged, seen
from unseen.compare.entrants import Entrant
from unseen.engine.batches import Columns, once
from unseen.engine.ensemble import Ensemble
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Step
from unseen.engine.stacked import Jobs, stacked
from unseen.engine.together import Plan, looped, plan
from unseen.errors import Diverged, UnseenError
from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.search import Space
from unseen.task import Batch, PerExample, Split, Task, Use
from unseen.tasks.domains import ORACLE, validated_on

MOST = 60
"""Models in one block: more gain nothing, and an interruption loses at most one block."""
FORMAT = 1
"""Part of every key: what the kept tensors mean."""

Kept = Mapping[str, Tensor]
"""Of every model of a block [model, …]: `select`, `oracle`, `seen` (mean scores), `score` and `margin` by place, `diverged`."""


@dataclass(frozen=True)
class Run:
    """One model: which seed, which draw of the hyperparameters."""

    seed: int
    draw: int


@dataclass(frozen=True)
class Block:
    """Models of one method that are trained at once on one task."""

    entrant: Entrant
    at: str
    """Name of the task in the contest."""
    without: str = ""
    """The training domain that is left out for validation."""
    runs: tuple[Run, ...] = ()

    @property
    def says(self) -> str:
        return f"{self.entrant.name} · {self.at}" + (f" without {self.without}" if self.without else "")


@dataclass
class Sweep:
    """Trains blocks on a contest. Weights, order of minibatches and draws depend on the seed of a run only."""

    contest: Contest
    lab: Lab
    space: Space = field(default_factory=dict)
    stack: bool = True
    """Whether models may be trained together; `False` for comparison with one after the other."""
    ways: dict[str, str] = field(default_factory=dict)
    """Method → how its models were trained here."""
    _plans: dict[str, Plan] = field(default_factory=dict)
    _data: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def __call__(self, block: Block) -> Kept:
        """The scores of the block's models: kept ones, or those of models trained now."""
        key = self.key(block)
        make = partial(self._made, block)
        return make() if key is None else self.lab.keep(key, make)

    def task(self, block: Block) -> Task:
        task = self.contest.tasks[block.at]
        return validated_on(task, block.without) if block.without else task

    def method(self, entrant: Entrant, run: Run) -> Method:
        return entrant.drawn(self.contest.budget, run.draw, self.lab.child("search", run.seed), self.space)

    def key(self, block: Block) -> str | None:
        """Everything that decides the block's scores but the code; None where the data cannot be known (streams)."""
        where = (block.at, block.without)
        if where not in self._data:
            self._data[where] = fingerprint(self.task(block))
        data = self._data[where]
        if data is None:
            return None
        seeds = sorted({run.seed for run in block.runs})
        fresh = [
            f"{seed} {hash_of(model.state_dict())} {model}" for seed in seeds for model in [self._fresh(block, seed)]
        ]
        methods = [f"{run} {self.method(block.entrant, run)!r}" for run in block.runs]
        lab = self.lab
        text = "\n".join([data, *fresh, *methods, f"{'/'.join(lab.path)} {lab.seed} {lab.device} {lab.dtype} {FORMAT}"])
        return f"{block.says} {hashlib.sha256(text.encode()).hexdigest()}"

    def _fresh(self, block: Block, seed: int) -> nn.Module:
        with self.lab.child("init", seed).seeded():
            return self.contest.model(self.contest.tasks[block.at])

    def _made(self, block: Block) -> dict[str, Tensor]:
        task = self.task(block)
        results = self.trained(block, task)
        models = [result.model for result in results if isinstance(result, Trained)]
        finite = torch.tensor([isinstance(result, Trained) for result in results])
        made = {"diverged": ~finite}
        if models:
            for name, values in scores(models, task, self.lab, judge=not block.without).items():
                made[name] = values.new_full((len(results), *values.shape[1:]), torch.nan)
                made[name][finite] = values
        return made

    def trained(self, block: Block, task: Task) -> list[Trained | Diverged]:
        """The block's models after training, in the order of its runs."""
        fresh = {seed: self._fresh(block, seed) for seed in sorted({run.seed for run in block.runs})}
        models = [copy.deepcopy(fresh[run.seed]) for run in block.runs]
        methods = [self.method(block.entrant, run) for run in block.runs]
        labs = [self.lab.child("fit", run.seed) for run in block.runs]
        parts = [stepped(method) for method in methods]
        if any(part is None for part in parts):
            self.ways[block.entrant.name] = "one model after the other: the method has no step of its own"
            return [alone(m, model, task, lab) for m, model, lab in zip(methods, models, labs, strict=True)]
        steps, budgets = zip(*(part for part in parts if part is not None), strict=True)
        jobs = Jobs(models, [task] * len(models), steps, budgets, labs)
        if not self.stack:
            return looped(jobs)
        about = f"{block.entrant.name} {len(models)} {len(task.of(Use.FIT))} {models[0]}"
        if about not in self._plans:  # one probe for all tasks of this shape
            self._plans[about] = plan(jobs)
        chosen = self._plans[about]
        together = f"{len(models)} models together" if chosen.stacked else "one model after the other"
        self.ways[block.entrant.name] = f"{together}: {chosen.why}"
        return stacked(jobs) if chosen.stacked else looped(jobs)


def stepped(method: Method) -> tuple[Step, Budget] | None:
    """Step and budget of a method whose `fit` is `loop.train` with them; such methods have a property `step`."""
    if not isinstance(getattr(type(method), "step", None), property):
        return None
    step, budget = getattr(method, "step", None), getattr(method, "budget", None)
    return (step, budget) if step is not None and isinstance(budget, Budget) else None


def alone(method: Method, model: nn.Module, task: Task, lab: Lab) -> Trained | Diverged:
    """One model by its method's own `fit`."""
    try:
        return method.fit(model, task, lab)
    except Diverged as error:
        return error


def scores(models: Sequence[nn.Module], task: Task, lab: Lab, judge: bool) -> dict[str, Tensor]:
    """Mean score of every model on what may select, and its scores of every judged example; float32 on the CPU."""
    evaluate = Evaluated(models, lab)
    score = task.objective.score

    def mean(splits: Mapping[str, Split]) -> Float[Tensor, " model"]:
        """Every split counts alike, however many examples it has."""
        return torch.stack([evaluate(split, score).double().mean(1) for split in splits.values()]).mean(0)

    found: dict[str, Tensor] = {}
    if select := task.of(Use.SELECT):
        found["select"] = mean(select)
    if not judge:
        return found
    if ORACLE in task.splits:
        found["oracle"] = mean({ORACLE: task.splits[ORACLE]})
    if known := seen(task):
        found["seen"] = mean(known)
    for place, name in judged(task).items():
        split = task.splits[name]
        found[f"score {place}"] = evaluate(split, score)
        if has_two_classes(split, task, lab):
            found[f"margin {place}"] = evaluate(split, margin)
    return found


class Evaluated:
    """Values of every example for many models at once, or for one after the other where vmap refuses."""

    def __init__(self, models: Sequence[nn.Module], lab: Lab) -> None:
        self.models, self.lab = models, lab
        self.together = cache(partial(Ensemble, models))

    @torch.no_grad()
    def __call__(self, split: Split, f: PerExample) -> Float[Tensor, "model n"]:
        if len(self.models) > 1:
            try:
                return self._stacked(split, f)
            except (RuntimeError, UnseenError):  # data-dependent control flow, or models of several shapes
                pass
        return torch.stack([per_example(model, split.data, f, self.lab) for model in self.models])

    def _stacked(self, split: Split, f: PerExample) -> Float[Tensor, "model n"]:
        ensemble, k = self.together(), len(self.models)
        ensemble.eval()
        parts = []
        for batch in once(split.data, 1024, self.lab):
            shared = {name: tensor.expand(k, *tensor.shape) for name, tensor in batch.items()}
            parts.append(ensemble.each(f, shared).cpu())
        return torch.cat(parts, 1)


def margin(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """Logit of class 1 minus logit of class 0, or the one logit."""
    z = model(batch["x"])
    z = z.reshape(len(z), -1)
    return z[:, 1] - z[:, 0] if z.shape[1] == 2 else z[:, 0]


def has_two_classes(split: Split, task: Task, lab: Lab) -> bool:
    """Whether the classes 0 and 1 are fitted, and the split holds no other."""
    fitted = set().union(*(_classes(each, lab) for each in task.of(Use.FIT).values()))
    return fitted == {0, 1} and _classes(split, lab) <= fitted


def _classes(split: Split, lab: Lab) -> set[int]:
    found: set[int] = set()
    for batch in once(split.data, 4096, lab):
        if "x" not in batch or "y" not in batch or batch["y"].is_floating_point() or batch["y"].dim() > 1:
            return {-1}
        found |= set(batch["y"].unique().tolist())
    return found


def fingerprint(task: Task) -> str | None:
    """A hash of the objective and of all examples, or None where a split is not a table of columns."""
    objective = task.objective
    found = [f"{f.__module__}.{f.__qualname__}" for f in (objective.loss, objective.score)]
    for name, split in task.splits.items():
        if not isinstance(split.data, Columns):
            return None
        found.append(f"{name} {split.use} {split.at} {hash_of(split.data.columns)}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
