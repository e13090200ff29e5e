"""A training step of nested learners over the same step of plain autograd, an MLP 784-1024-1024-10
at batch 256 with SGD.

    python benchmarks/nested.py [--json]

CPU seconds, contestants interleaved, medians; bar: 1.3.
"""

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from unseen.models.nested import Descent, Symbols, chain, cost, layer, supervise
from unseen.models.nested.machine import step

BAR = 1.3


def plain(modules: list[nn.Module], x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    net = nn.Sequential(*copy.deepcopy(modules))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def call() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return call


def nested(modules: list[nn.Module], x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    descent, shapes = Descent(0.01), ((784,), (1024,), (1024,))
    layers = {
        f"layer{k}": layer(module, shape, descent)
        for k, (module, shape) in enumerate(zip(modules, shapes, strict=True))
    }
    end = cost(nn.functional.cross_entropy, (10,), Symbols(tuple(range(10))))
    machine = supervise(chain(**layers), end)
    state = machine.start

    def call() -> None:
        nonlocal state
        _, state = step(machine, state, {"x": x, "target": y})

    return call


def measure(rounds: int = 21) -> dict[str, float]:
    torch.manual_seed(0)
    modules: list[nn.Module] = [
        nn.Sequential(nn.Linear(784, 1024), nn.ReLU()),
        nn.Sequential(nn.Linear(1024, 1024), nn.ReLU()),
        nn.Linear(1024, 10),
    ]
    x, y = torch.randn(256, 784), torch.randint(10, (256,))
    contestants = {"plain": plain(modules, x, y), "nested": nested(modules, x, y)}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, call in contestants.items():
            start = time.process_time()
            call()
            if turn > 1:  # after a warm-up
                times[name].append(time.process_time() - start)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return {**seconds, "nested_overhead": seconds["nested"] / seconds["plain"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = measure()
    if "--json" in sys.argv:
        print(json.dumps(found))
    else:
        print(f"nested / plain: {found['nested_overhead']:.2f} (bar {BAR})")
