"""The runs of a comparison, trained together where they share a shape: seeds, draws and sites left
out as one batch of models.

Scores are kept block by block (`lab.keep`), so that an interrupted sweep goes on where it stopped,
and other processes may have computed them.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from unseen.engine.batches import length
from unseen.engine.vectorized.choose import Backend, choose_backend, train_looped
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.errors import Divergence, InvalidData
from unseen.identity import Identity, identify
from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.questions.compare.candidates import MethodSpec
from unseen.questions.compare.run_groups import Run, RunGroup, RunScores
from unseen.questions.compare.scoring import scores
from unseen.search_space import Space
from unseen.subjects.fresh_models import fresh_model
from unseen.subjects.stacking import most_together, step_of, train_alone, visible_to_training
from unseen.subjects.subject import Subject
from unseen.task import Split, Task, Use
from unseen.tasks.domains import validate_on


@dataclass
class Sweep:
    """Trains blocks of runs on subjects. Weights, order of minibatches and draws depend on the seed
    of a run only.
    """

    subjects: Sequence[Subject]
    lab: Lab
    space: Space = field(default_factory=dict)
    is_stacked: bool = True
    """Whether models may be trained together; without it one after the other, for comparison."""
    _plans: dict[str, Backend] = field(default_factory=dict)
    _tasks: dict[tuple[str, str], Task] = field(default_factory=dict)
    _data: dict[tuple[str, str], Identity] = field(default_factory=dict)
    _starts: dict[tuple[str, int], Identity] = field(default_factory=dict)

    def __call__(self, blocks: Sequence[RunGroup]) -> list[RunScores]:
        """The scores of the blocks' models: kept ones, or those of models that are trained now, all
        at once.
        """
        made: dict[RunGroup, dict[str, Tensor]] = {}

        def maker(k: int) -> Callable[[], dict[str, Tensor]]:
            def make() -> dict[str, Tensor]:
                if blocks[k] not in made:
                    made.update(zip(blocks[k:], self._score_groups(blocks[k:]), strict=True))
                return made[blocks[k]]

            return make

        return [self.lab.keep(self.key(block), maker(k)) for k, block in enumerate(blocks)]

    def groups(self, blocks: Sequence[RunGroup]) -> list[list[RunGroup]]:
        """The blocks in order, those of one method and shape together, as many as are trained at
        once.
        """
        alike: dict[str, list[list[RunGroup]]] = {}
        for block in blocks:
            model = self.initial_model(block, block.runs[0].seed)
            shapes, most = (
                [shape(split) for split in self.task(block).of(Use.TRAIN).values()],
                most_together(model),
            )
            found = alike.setdefault(f"{block.entrant.name} {shapes} {model}", [[]])
            if sum(len(other.runs) for other in found[-1]) + len(block.runs) > most and found[-1]:
                found.append([])
            found[-1].append(block)
        return [group for found in alike.values() for group in found]

    def task(self, block: RunGroup) -> Task:
        """The subject's task, without the domain that validates."""
        where = (block.at, block.without)
        if where not in self._tasks:
            task = self.subject(block.at).task
            self._tasks[where] = (
                validate_on(positions_as_text(task), block.without) if block.without else task
            )
        return self._tasks[where]

    def subject(self, label: str) -> Subject:
        """The subject of this label."""
        return next(one for one in self.subjects if one.label == label)

    def method(self, entrant: MethodSpec, at: str, run: Run) -> Method:
        """The method with the hyperparameters of the run's draw, under the budget of the
        subject.
        """
        return entrant.draw_method(
            self.subject(at).budget, run.draw, self.lab.child("search", run.seed), self.space
        )

    def key(self, block: RunGroup) -> Identity:
        """Everything that decides the block's scores."""
        where = (block.at, block.without)
        if where not in self._data:
            task = self.task(block)
            self._data[where] = identify(
                "task", objective=task.objective, axis=task.axis, splits=task.splits
            )
        return identify(
            f"scores of {block.says}",
            task=self._data[where],
            without=block.without,
            methods=[self.method(block.entrant, block.at, run) for run in block.runs],
            runs=[(run.seed, run.draw) for run in block.runs],
            is_stacked=self.is_stacked,
            lab=self.lab.signature,
            code=Sweep,
            **{
                f"model {seed}": self._start(block, seed)
                for seed in sorted({run.seed for run in block.runs})
            },
        )

    def _start(self, block: RunGroup, seed: int) -> Identity:
        """Of the untrained model of a seed."""
        where = (block.at, seed)
        if where not in self._starts:
            self._starts[where] = identify("model", model=self.initial_model(block, seed))
        return self._starts[where]

    def initial_model(self, block: RunGroup, seed: int) -> nn.Module:
        """The untrained model of a seed: the same for all methods."""
        with self.lab.child("init", seed).seeded():
            return network_of(self.subject(block.at))

    def refuses_one_domain(self, entrant: MethodSpec, subject: Subject, without: str) -> bool:
        """Whether the method refuses the task when one of its two training domains is left out:
        asked by a single step.
        """
        block = RunGroup(entrant, subject.label, without, (Run(0, 0),))
        method: Any = self.method(entrant, subject.label, block.runs[0])
        if not hasattr(method, "budget"):
            return False
        step = replace(method, budget=replace(method.budget, steps=1, warmup=0, drops=()))
        try:
            step.fit(self.initial_model(block, 0), self.task(block), self.lab.child("probe"))
        except InvalidData:
            return True
        except Exception:  # whatever else is wrong is named when the method is trained
            return False
        return False

    def _score_groups(self, blocks: Sequence[RunGroup]) -> list[dict[str, Tensor]]:
        made = []
        results, together = self.train_groups(blocks)
        for block in blocks:
            mine, results = results[: len(block.runs)], results[len(block.runs) :]
            models = [result.model for result in mine if isinstance(result, Trained)]
            finite = torch.tensor([isinstance(result, Trained) for result in mine])
            kept = {"diverged": ~finite, "together": torch.full(finite.shape, together)}
            if models:
                for name, values in scores(
                    models, self.task(block), self.lab, judge=not block.without
                ).items():
                    kept[name] = values.new_full((len(mine), *values.shape[1:]), torch.nan)
                    kept[name][finite] = values
            made.append(kept)
        return made

    def train_groups(self, blocks: Sequence[RunGroup]) -> tuple[list[Trained | Divergence], bool]:
        """The blocks' models after training, in the order of their runs, and whether they were
        trained together.
        """
        models, methods, labs, tasks = [], [], [], []
        for block in blocks:
            fresh = {
                seed: self.initial_model(block, seed)
                for seed in sorted({run.seed for run in block.runs})
            }
            models += [copy.deepcopy(fresh[run.seed]) for run in block.runs]
            methods += [self.method(block.entrant, block.at, run) for run in block.runs]
            labs += [self.lab.child("fit", run.seed) for run in block.runs]
            tasks += [align_split_names(self.task(block))] * len(block.runs)
        parts = [part for method in methods if (part := step_of(method)) is not None]
        if len(parts) < len(methods):
            return [
                train_alone(*each) for each in zip(methods, models, tasks, labs, strict=True)
            ], False
        steps, budgets = zip(*parts, strict=True)
        selects = any(budget.select_every for budget in budgets)
        bare = {id(task): visible_to_training(task, selects=selects) for task in tasks}
        results, together, most = [], self.is_stacked, most_together(models[0])
        for k in range(0, len(models), most):
            now = slice(k, k + most)
            given = [bare[id(task)] for task in tasks[now]]
            jobs = TrainingRuns(models[now], given, steps[now], budgets[now], labs[now])
            is_stacked = self.is_stacked and self._plan(blocks[0].entrant.name, jobs).stacked
            results += train_stacked(jobs) if is_stacked else train_looped(jobs)
            together = together and is_stacked
        return results, together

    def _plan(self, name: str, jobs: TrainingRuns) -> Backend:
        """Together or not: one probe for all groups of this shape."""
        about = f"{name} {len(jobs.models)} {len(jobs.tasks[0].of(Use.TRAIN))} {jobs.models[0]}"
        if about not in self._plans:
            self._plans[about] = choose_backend(jobs)
        return self._plans[about]


def network_of(subject: Subject) -> nn.Module:
    """A fresh model, which methods must be able to train."""
    model = subject.model if isinstance(subject.model, BaseEstimator) else fresh_model(subject)
    if isinstance(model, BaseEstimator):
        raise InvalidData(
            f"The model of `{subject.name}` is a scikit-learn estimator.",
            why="training methods change how a network is trained by gradients.",
            fix="give a function that makes a torch module: Subject(model=lambda: "
            "nn.Sequential(…), …).",
        )
    return model


def shape(split: Split) -> str:
    """What minibatches of a split look like; streams are only like themselves."""
    n = length(split.data)
    if n is None:
        return f"stream {id(split.data)}"
    return f"{n} { {name: tuple(tensor.shape) for name, tensor in split.data[0].items()} }"


def positions_as_text(task: Task) -> Task:
    """Positions as words: blocks name them so."""
    words = {
        name: None if split.at is None else str(split.at) for name, split in task.splits.items()
    }
    return replace(
        task, splits={name: replace(split, at=words[name]) for name, split in task.splits.items()}
    )


def align_split_names(task: Task) -> Task:
    """The task with its training splits named by position, so that minibatches come in one order
    whichever site is left out.
    """
    if len(task.of(Use.TRAIN)) < 2:
        return task
    names = {name: f"fit {k}" for k, name in enumerate(task.of(Use.TRAIN))}
    return replace(
        task, splits={names.get(name, name): split for name, split in task.splits.items()}
    )
