"""Votes counted exactly, two seeds, fine-tuning averaged with its start, and how balance decides."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.loop import Budget, Optimizer
from unseen.lab import Lab
from unseen.measures.correctness_transitions import Overconfidence, right, transitions
from unseen.method import Trained
from unseen.methods.output_ensemble import OutputEnsemble
from unseen.methods.weight_average import BANG, WeightEnsemble, WiSEFT, interpolate_weights
from unseen.models.ensemble_model import Committee, MeanProbability
from unseen.models.mlp import mlp
from unseen.studies.spurious_diversification.votes import Voters, Voting, closed_form
from unseen.study import Row, Value
from unseen.task import Task
from unseen.tasks.images import CLASSES
from unseen.tasks.patch_digits import SIDE, Palette, PatchDigits


class Part(StrEnum):
    """The studies in the study."""

    VOTES = "votes"
    SEEDS = "two seeds"
    WISE = "fine-tuned"


@dataclass(frozen=True)
class Sheet:
    """Patches and network of a pair of models that differ in their seeds."""

    label: str
    patches: int
    palette: Palette = Palette.OWN
    hidden: int = 16


MANY = Sheet("32 patches", 32)
ONE = Sheet("1 patch", 1)
SHARED = Sheet("32 patches, one palette, wide", 32, Palette.SHARED, 128)


@dataclass(frozen=True)
class Config:
    digits: PatchDigits = PatchDigits(n_select=1)
    """Of the pairs; its patches and palette are those of a sheet."""
    sheets: tuple[Sheet, ...] = (MANY, ONE, SHARED)
    pair: Budget = Budget(steps=300, batch_size=100, lr=1e-2, optimizer=Optimizer.ADAM)
    tuned: PatchDigits = PatchDigits(n=4_000, n_select=1)
    """For pre-training and for fine-tuning, each with half of the patches and digits of its own."""
    hidden: int = 64
    before: Budget = Budget(steps=300, batch_size=100, lr=3e-3, optimizer=Optimizer.ADAM, weight_decay=3e-3)
    """Weight decay of Adam is L2: without it fine-tuning keeps the old features and is an ensemble already."""
    after: Budget = Budget(steps=600, batch_size=100, lr=3e-3, optimizer=Optimizer.ADAM, weight_decay=3e-3)
    alphas: tuple[float, ...] = tuple(k / 10 for k in range(11))
    scales: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    smoothing: float = 0.1
    mixing: float = 0.2
    chances: tuple[float, ...] = (0.5, 0.7, 0.9)
    """p of the vote model."""
    seeds: int = 10


@dataclass(frozen=True)
class Cell:
    config: Config
    part: Part
    sheet: Sheet | None
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    yield Cell(config, Part.VOTES, None, 0)
    for seed in range(config.seeds):
        for sheet in config.sheets:
            yield Cell(config, Part.SEEDS, sheet, seed)
        yield Cell(config, Part.WISE, None, seed)


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    if cell.part is Part.VOTES:
        rows = (*formulas(), *rankings(cell.config.chances))
    elif cell.sheet is not None:
        rows = tuple(pair_rows(cell.config, cell.sheet, lab))
    else:
        rows = tuple(finetuning_rows(cell.config, lab))
    yield from ({"part": str(cell.part), "seed": cell.seed, **row} for row in rows)


def formulas() -> Iterator[Row]:
    """Enumeration − closed form for two invariant and three spurious features."""
    for voting in Voting:
        for p in (k / 20 for k in range(21)):
            accuracy = Voters(2, 3).accuracy(voting, p)
            yield {"check": "closed form", "voting": str(voting), "p": p, "exact": accuracy,
                   "error": abs(accuracy - closed_form(voting, p))}  # fmt: skip


def rankings(chances: Sequence[float]) -> Iterator[Row]:
    """Which pairs of votings the normal approximation ranks as enumeration does, for all overlaps."""
    for p in chances:
        for n_v in (1, 2, 3):
            for n_s in (2, 3, 4, 5, 6):
                voters = [Voters(n_v, n_s, a, b) for a in range(n_v + 1) for b in range(n_s + 1)]
                for each in voters:
                    exact = {v: each.accuracy(v, p) for v in Voting}
                    signal = {v: each.signal(v, p) for v in Voting}
                    apart = [(a, b) for a, b in combinations(Voting, 2) if abs(exact[a] - exact[b]) > 1e-12]
                    agree = [(a, b) for a, b in apart if (exact[a] - exact[b]) * (signal[a] - signal[b]) > 0]
                    yield {"check": "ranking", "p": p, "invariant": n_v, "spurious": n_s,
                           "shared_invariant": each.shared_invariant, "shared_spurious": each.shared_spurious,
                           **{str(v): value for v, value in exact.items()},
                           "pairs": len(apart), "ranked": len(agree)}  # fmt: skip


def network(hidden: int, lab: Lab) -> nn.Sequential:
    with lab.seeded():
        model = mlp([3 * SIDE**2, hidden, CLASSES])
    return model.to(lab.device, lab.dtype)


def pair_rows(config: Config, sheet: Sheet, lab: Lab) -> Iterator[Row]:
    """Two models of different seeds, and the mean of their probabilities."""
    spec = replace(config.digits, n_patches=sheet.patches, palette=sheet.palette)
    task = spec.build(lab.child("data"))
    trained = OutputEnsemble(budget=config.pair).fit(network(sheet.hidden, lab.child("init")), task, lab.child("fit"))
    assert isinstance(trained.model, Committee)
    first, second = trained.model.members
    for p in spec.shifts:
        answers = [right(model, task, f"shift {p:g}", lab) for model in (first, second, trained.model)]
        yield {"sheet": sheet.label, "p": p, **compare_with_average(*answers)}


def compare_with_average(
    first: Bool[Tensor, " n"], second: Bool[Tensor, " n"], both: Bool[Tensor, " n"]
) -> dict[str, Value]:
    """Accuracies, the gain over the mean and over the better of the two, and the shares of all eight transitions."""
    a, b, c = (float(each.double().mean()) for each in (first, second, both))
    found = transitions(first, second, both)
    return {
        "first": a,
        "second": b,
        "ensemble": c,
        "gain": c - (a + b) / 2,
        "over better": c - max(a, b),
        **{pattern: reading.value for pattern, reading in found.items()},
        "FFT − TTF": found["FFT"].value - found["TTF"].value,
    }


@dataclass(frozen=True)
class Pair:
    """A network before and after fine-tuning, on the task of the fine-tuning."""

    task: Task
    before: nn.Module
    after: nn.Module

    def average(self, alpha: float, after: Mapping[str, Tensor] | None = None) -> nn.Module:
        """(1 − α) before + α after."""
        model = copy.deepcopy(self.before)
        model.load_state_dict(
            interpolate_weights(parameters.state(self.before), after or parameters.state(self.after), alpha)
        )
        return model


def finetuning_rows(config: Config, lab: Lab) -> Iterator[Row]:
    """Everything that begins with pre-training on the first half of the patches and fine-tuning on the second."""
    pair, unrelated = finetune_pair(config, lab)
    yield from averages(config, pair, unrelated, lab)
    for alpha in config.alphas:
        yield from evaluation_rows({"what": "sweep", "alpha": alpha}, pair.average(alpha), pair.task, lab)
    yield from balance_rows(config, pair, lab)
    yield from soft_label_rows(config, pair, lab)


def finetune_pair(config: Config, lab: Lab) -> tuple[Pair, nn.Module]:
    """The pair, and a network fine-tuned like it from weights that have nothing to do with the pre-trained ones."""
    spec, half = config.tuned, config.tuned.n_patches // 2
    early, late = tuple(range(half)), tuple(range(half, spec.n_patches))
    data = lab.child("data")
    first = replace(spec, active=early).build(data)
    second = replace(spec, active=late, skip=spec.n + spec.n_select).build(data)
    whole = WiSEFT(alpha=1.0, budget=config.before)
    before = whole.fit(network(config.hidden, lab.child("init")), first, lab.child("before")).model
    fit = WiSEFT(alpha=1.0, budget=config.after).fit
    after = fit(copy.deepcopy(before), second, lab.child("after")).model
    unrelated = fit(network(config.hidden, lab.child("unrelated")), second, lab.child("after")).model
    return Pair(second, before, after), unrelated


def averages(config: Config, pair: Pair, unrelated: nn.Module, lab: Lab) -> Iterator[Row]:
    """Averages of weights and of probabilities, and two controls."""
    task = pair.task
    two = WeightEnsemble(budget=config.after).fit(copy.deepcopy(pair.before), task, lab.child("two")).model
    kinds = {
        "weights": (pair.after, pair.average(0.5)),
        "probabilities": (pair.after, Committee([pair.before, pair.after], MeanProbability()).eval()),
        "weights, unrelated": (unrelated, pair.average(0.5, parameters.state(unrelated))),
        "weights, two fine-tunings": (pair.after, two),
    }
    for p in config.tuned.shifts:
        before = right(pair.before, task, f"shift {p:g}", lab)
        for kind, (member, model) in kinds.items():
            answers = (right(m, task, f"shift {p:g}", lab) for m in (member, model))
            yield {"what": "average", "kind": kind, "p": p, **compare_with_average(before, *answers)}


def balance_rows(config: Config, pair: Pair, lab: Lab) -> Iterator[Row]:
    """One of the two made surer or less sure without another answer: what the averages become."""
    for scale in config.scales:
        model = scale_outputs(pair.after, scale)
        kinds = {
            "weights": pair.average(0.5, parameters.state(model)),
            "probabilities": Committee([pair.before, model], MeanProbability()).eval(),
            "member": model,
        }
        for kind, each in kinds.items():
            yield from evaluation_rows({"what": "balance", "kind": kind, "scale": scale}, each, pair.task, lab)


def scale_outputs(model: nn.Module, scale: float) -> nn.Module:
    """A perceptron whose outputs are λ^L times as large, L the number of layers: layer l has λ W and λ^l b."""
    made, depth = copy.deepcopy(model), 0
    with torch.no_grad():
        for layer in made.modules():
            if isinstance(layer, nn.Linear):
                depth += 1
                layer.weight.mul_(scale)
                layer.bias.mul_(scale**depth)
    return made


def soft_label_rows(config: Config, pair: Pair, lab: Lab) -> Iterator[Row]:
    """Fine-tuning with soft labels, alone and averaged half way."""
    ways = {
        "plain": (0.0, 0.0),
        "smoothing": (config.smoothing, 0.0),
        "mixup": (0.0, config.mixing),
        "both": (config.smoothing, config.mixing),
    }
    for way, (smoothing, mixing) in ways.items():
        method = BANG(alpha=1.0, smoothing=smoothing, mixing_alpha=mixing, budget=config.after)
        after = method.fit(copy.deepcopy(pair.before), pair.task, lab.child("after")).model
        kinds = {"member": after, "weights": pair.average(0.5, parameters.state(after))}
        for kind, model in kinds.items():
            yield from evaluation_rows({"what": "soft", "way": way, "kind": kind}, model, pair.task, lab)


def evaluation_rows(facts: Row, model: nn.Module, task: Task, lab: Lab) -> Iterator[Row]:
    """Accuracy and certainty at every shift, and where it was fitted."""
    for name in (n for n in task.splits if n == "same" or n.startswith("shift")):
        reading = Overconfidence(split=name)(Trained(model, task), lab)
        assert reading.detail is not None
        confidence = float(reading.detail.mean())
        place: Row = {"p": 0.0, "split": "same"} if name == "same" else {"p": float(name[6:]), "split": "shift"}
        yield {**facts, **place, "accuracy": confidence - reading.value, "confidence": confidence}
