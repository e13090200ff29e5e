"""Training 32 small models at once against training them one after the other.

`python benchmarks/ensemble.py --json` prints a list of `model`, `parameters`, `speedup_vs_loop`
(CPU seconds; the loop is `engine.loop.train`), `speedup_vs_bare` (against a loop with nothing but
the forward pass, `backward` and the optimiser), `wall_speedup_vs_loop`, `first_speedup_vs_loop`
(with the probe, which only the first models of a kind need), `probe_seconds`, `stacked` (what the
probe chose), the largest difference between the weights after ten steps (asserted ≤ 1e-5) and at
the end, `share_of_peak` (the products' operations per second over those of a large product; with 1
the speed-up would be `largest_possible_speedup_vs_loop`), `shares` (of a profiled stacked run: the
time within operators of each kind, and what is between them) and `why` it is not more.

Ten steps, because stacked and single products round differently (1e-7) on some processors, and Adam
turns a gradient of rounding size into a step of full size, whichever way the models are trained:
after 150 steps a single weight in 6 million may be 0.01 off. The convolutional network takes SGD.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from unseen.engine.batches import Columns, orders
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.engine.vectorized.choose import train_looped, train_many
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.engine.vectorized.probe import forget_speedups
from unseen.lab import Lab, Silent
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

MODELS, EXAMPLES, TURNS = 32, 2_000, 3
EARLY = 10
"""Steps after which the two ways must agree."""


@dataclass(frozen=True)
class Case:
    model: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    budget: Budget
    why: str
    """What keeps the stacked run from being faster."""


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


CASES = (
    Case(
        "mlp 64-64-10",
        lambda: mlp([64, 64, 10]),
        (64,),
        Budget(steps=150),
        "a fifth of the operators' time is products, a third what is too small to be named; then "
        "the softmax of the losses and Adam",
    ),
    Case(
        "mlp 64-112-96-10",
        lambda: mlp([64, 112, 96, 10]),
        (64,),
        Budget(steps=150),
        "half of the time is products, which a loop must do as well; then Adam, the softmax of the "
        "losses, ReLU",
    ),
    Case(
        "mlp 784-220-110-10",
        lambda: mlp([784, 220, 110, 10]),
        (784,),
        Budget(steps=150),
        "products and, a fifth of a profiled run, Adam over 25 MB of weights that no private cache "
        "holds",
    ),
    Case(
        "cnn 8-16 channels, 14 × 14",
        cnn,
        (1, 14, 14),
        Budget(steps=100, lr=0.05, optimizer=Optimizer.SGD),
        "the maps, not the 1,418 parameters, are the work, and grouped convolutions do it no "
        "faster; products of shifted "
        "copies gave 1.65 in one noisy run (grouped: 1.54 to 1.63), and round "
        "otherwise: where two entries of a pooling window are equal to 1e-7 "
        "another one wins, and 2 of 32 models ended 1.3e-5 from the loop's weights",
    ),
)


def data(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal inputs, labelled by a linear teacher."""
    generator = Lab(0).child(case.model).generator()
    x = torch.randn(EXAMPLES, *case.shape, generator=generator)
    teacher = torch.randn(x[0].numel(), 10, generator=generator)
    return x, (x.flatten(1) @ teacher).argmax(1)


def bare(model: nn.Module, x: torch.Tensor, y: torch.Tensor, budget: Budget, lab: Lab) -> None:
    """The loop that one would write by hand."""
    optimizer = budget.optimizer_of(model)
    batches = orders(len(x), budget.batch_size, lab)
    for _ in range(budget.steps):
        index = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()


def timed(run: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def peak() -> float:
    """Floating-point operations per CPU second of the best of 20 products of 512 × 512 matrices."""
    a = torch.randn(512, 512)
    return 2 * 512**3 / min(timed(lambda: [a @ a for _ in range(8)])[0] / 8 for _ in range(20))


def operations(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """Floating-point operations in the products of one step of one model."""
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(x), y).backward()
    return counter.get_total_flops()


def largest_difference(some: Sequence[nn.Module], others: Sequence[nn.Module]) -> float:
    """The largest difference between two weights in the same place."""
    return max(
        float((p - q).detach().abs().max())
        for a, b in zip(some, others, strict=True)
        for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


def early_difference(
    untrained: list[nn.Module], task: Task, budget: Budget, labs: list[Lab]
) -> float:
    """The same after a few steps, stacked against one after the other."""
    n = len(untrained)
    runs = TrainingRuns(untrained, [task] * n, [erm_step] * n, [budget] * n, labs)
    together, alone = runs.shorten(EARLY, Silent()), runs.shorten(EARLY, Silent())
    train_stacked(together)
    train_looped(alone)
    return largest_difference(together.models, alone.models)


KINDS = {
    "products": ("bmm", "addmm", "aten::mm", "convolution", "conv2d", "mkldnn"),
    "optimiser": ("fused_adam", "fused_sgd", "Optimizer."),
    "loss": ("softmax", "nll_loss"),
    "activations": ("threshold", "clamp_min", "relu", "pool"),
    "minibatches": ("index_select", "randperm", "aten::stack", "aten::cat"),
}
"""Parts of operators' names."""


def shares(run: Callable[[], object]) -> dict[str, float]:
    """Of the operators' own time in a run, that of each kind. The profiler itself is no part of it,
    Python between the operators neither.
    """
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    spent = {one.key: one.self_cpu_time_total for one in found.key_averages()}
    found_shares = dict.fromkeys((*KINDS, "other"), 0.0)
    for name, time_ in spent.items():
        kind = next((k for k, parts in KINDS.items() if any(p in name for p in parts)), "other")
        found_shares[kind] += time_ / sum(spent.values())
    return {kind: round(share, 3) for kind, share in found_shares.items()}


def measured(case: Case, batch_size: int) -> dict[str, float | int | str | bool]:
    x, y = data(case)
    task = Task(
        name=case.model,
        axis=Axis.IID,
        objective=classify,
        splits={"train": Split(Columns(x=x, y=y), Use.TRAIN)},
    )
    budget, labs = replace(case.budget, batch_size=batch_size), [Lab(k) for k in range(MODELS)]
    fresh = []
    for lab in labs:
        with lab.child("init").seeded():
            fresh.append(case.make())
    alone, by_hand = copy.deepcopy(fresh), copy.deepcopy(fresh)
    for warm in copy.deepcopy(fresh[:1]):
        train(warm, task, erm_step, Budget(steps=20, batch_size=batch_size), Lab())
    train_many(
        copy.deepcopy(fresh[:2]), task, erm_step, Budget(steps=50, batch_size=batch_size), labs[:2]
    )
    stacks, loops, hands, peaks = [], [], [], []
    forget_speedups()
    firsts = [copy.deepcopy(fresh) for _ in range(2)]
    first, again = (
        timed(partial(train_many, models, task, erm_step, budget, labs)) for models in firsts
    )
    # in turns, so that a busy neighbour slows all contestants alike; medians, so that a burst of
    # his does not count
    for turn in range(TURNS):
        together = copy.deepcopy(fresh)
        trained: list[Trained] = []
        stacks.append(
            timed(lambda: trained.extend(train_many(together, task, erm_step, budget, labs)))  # noqa: B023
        )
        for k in range(turn, MODELS, TURNS):
            loops.append(timed(partial(train, alone[k], task, erm_step, budget, labs[k])))
            hands.append(timed(partial(bare, by_hand[k], x, y, budget, labs[k].child("train"))))
        peaks.append(peak())
    early = early_difference(fresh, task, budget, labs)
    assert early <= 1e-5, f"{case.model}: weights differ by {early} after {EARLY} steps"
    stacked, loop, hand = (
        [median(times) * scale for times in zip(*each, strict=True)]
        for each, scale in ((stacks, 1), (loops, MODELS), (hands, MODELS))
    )
    n = len(fresh)
    runs = TrainingRuns(fresh, [task] * n, [erm_step] * n, [budget] * n, labs)
    products = operations(fresh[0], x[:batch_size], y[:batch_size]) * budget.steps * MODELS
    return {
        "model": case.model,
        "parameters": sum(p.numel() for p in fresh[0].parameters()),
        "speedup_vs_loop": round(loop[0] / stacked[0], 2),
        "speedup_vs_bare": round(hand[0] / stacked[0], 2),
        "wall_speedup_vs_loop": round(loop[1] / stacked[1], 2),
        "first_speedup_vs_loop": round(loop[0] / first[0], 2),
        "probe_seconds": round(first[0] - again[0], 3),
        "stacked": bool(trained[0].curves["stacked"][0]),
        "largest_difference": largest_difference(together, alone),
        f"largest_difference_after_{EARLY}": early,
        "loop_seconds": round(loop[0], 2),
        "bare_seconds": round(hand[0], 2),
        "stacked_seconds": round(stacked[0], 2),
        "share_of_peak": round(products / stacked[0] / max(peaks), 3),
        "share_of_peak_bare": round(products / hand[0] / max(peaks), 3),
        "largest_possible_speedup_vs_loop": round(loop[0] / (products / max(peaks)), 2),
        "shares": shares(partial(train_stacked, runs)),
        "why": case.why,
        "batch_size": batch_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured(case, options.batch_size) for case in CASES]
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
