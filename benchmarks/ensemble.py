"""Training 32 small models at once against training them one after the other.

`python benchmarks/ensemble.py --json` prints a list of `model`, `parameters`, `speedup_vs_loop` (CPU seconds; the loop is
`engine.loop.train`), `speedup_vs_bare` (against a loop with nothing but the forward pass, `backward` and the optimiser),
`wall_speedup_vs_loop`, `stacked` (what the probe chose), and the largest difference between the final weights (asserted ≤ 1e-5).

The MLPs take AdamW, the convolutional network SGD: stacked and single convolutions round differently (1e-7), and Adam
turns a gradient of rounding size into a step of full size, whichever way the models are trained.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from unseen.engine.batches import Columns, orders
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.engine.together import train_many
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

MODELS, EXAMPLES = 32, 2_000


@dataclass(frozen=True)
class Case:
    model: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    budget: Budget


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
    Case("mlp 64-64-10", lambda: mlp([64, 64, 10]), (64,), Budget(steps=150)),
    Case("mlp 64-112-96-10", lambda: mlp([64, 112, 96, 10]), (64,), Budget(steps=150)),
    Case("mlp 784-220-110-10", lambda: mlp([784, 220, 110, 10]), (784,), Budget(steps=150)),
    Case("cnn 8-16 channels, 14 × 14", cnn, (1, 14, 14), Budget(steps=100, lr=0.05, optimizer=Optimizer.SGD)),
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


def measured(case: Case, batch_size: int) -> dict[str, float | int | str | bool]:
    x, y = data(case)
    task = Task(name=case.model, axis=Axis.IID, objective=classify, splits={"train": Split(Columns(x=x, y=y), Use.FIT)})
    budget, labs = replace(case.budget, batch_size=batch_size), [Lab(k) for k in range(MODELS)]
    fresh = []
    for lab in labs:
        with lab.child("init").seeded():
            fresh.append(case.make())
    together, alone, by_hand = (copy.deepcopy(fresh) for _ in range(3))
    for warm in copy.deepcopy(fresh[:1]):
        train(warm, task, erm_step, Budget(steps=20, batch_size=batch_size), Lab())
    train_many(copy.deepcopy(fresh[:2]), task, erm_step, Budget(steps=50, batch_size=batch_size), labs[:2])
    stacked, trained = [0.0, 0.0], []
    loop, hand = [0.0, 0.0], [0.0, 0.0]
    # interleaved in quarters, so that a busy neighbour slows all contestants alike
    quarter = MODELS // 4
    for part in range(4):
        chosen = slice(part * quarter, (part + 1) * quarter)
        if part == 0:
            stacked = list(timed(lambda: trained.extend(train_many(together, task, erm_step, budget, labs))))
        for a, h, lab in zip(alone[chosen], by_hand[chosen], labs[chosen], strict=True):
            loop = [s + t for s, t in zip(loop, timed(partial(train, a, task, erm_step, budget, lab)), strict=True)]
            hand = [s + t for s, t in zip(hand, timed(partial(bare, h, x, y, budget, lab.child("train"))), strict=True)]
    difference = max(
        float((p - q).detach().abs().max())
        for a, b in zip(together, alone, strict=True)
        for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )
    assert difference <= 1e-5, f"{case.model}: final weights differ by {difference}"
    return {
        "model": case.model,
        "parameters": sum(p.numel() for p in fresh[0].parameters()),
        "speedup_vs_loop": round(loop[0] / stacked[0], 2),
        "speedup_vs_bare": round(hand[0] / stacked[0], 2),
        "wall_speedup_vs_loop": round(loop[1] / stacked[1], 2),
        "stacked": bool(trained[0].curves["stacked"][0]),
        "largest_difference": difference,
        "loop_seconds": round(loop[0], 2),
        "stacked_seconds": round(stacked[0], 2),
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
