"""Time of ghost batch norm (32 ghosts per batch) as a ratio to batch norm in the same run, forward
and backward.

    python benchmarks/ghost_batch_norm.py [--json]

`layer` is the layer alone, `step` a whole training step of a network with it, `loop` the layer as a
Python loop over ghosts. CPU seconds, contestants interleaved, medians; bar: 1.3 for the layer and
for the step.
"""

import copy
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unseen.methods.ghost_batch_norm import GhostBatchNorm1d, GhostBatchNorm2d, convert
from unseen.models.conv import Norm, resnet
from unseen.models.mlp import mlp

GHOSTS = 32
LAYERS = {
    "vectors 1024×128": (1024, 128),
    "vectors 4096×128": (4096, 128),
    "maps 1024×16×16×16": (1024, 16, 16, 16),
}
STEPS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp, batch 1024": (lambda: mlp([196, 128, 128, 128, 10], norm=nn.BatchNorm1d), (1024, 196)),
    "resnet, batch 512": (lambda: resnet((8, 16), 1, norm=Norm.BATCH), (512, 1, 14, 14)),
}


def seconds(contestants: dict[str, Callable[[], None]], rounds: int = 15) -> dict[str, float]:
    """Median CPU seconds of each, one call after the other in turn, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    repeat = {}
    for name, call in contestants.items():
        call()
        start = time.process_time()
        call()
        repeat[name] = max(1, round(0.01 / max(time.process_time() - start, 1e-6)))
    for _ in range(rounds):
        for name, call in contestants.items():
            start = time.process_time()
            for _ in range(repeat[name]):
                call()
            times[name].append((time.process_time() - start) / repeat[name])
    return {name: statistics.median(values) for name, values in times.items()}


def passes(model: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """One forward and one backward pass."""
    weighting = torch.randn_like(model(x).detach())

    def call() -> None:
        x.grad = None
        model(x).backward(weighting)

    return call


def layer(shape: tuple[int, ...]) -> dict[str, float]:
    x, ghost = torch.randn(shape, requires_grad=True), shape[0] // GHOSTS
    plain = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(shape[1])
    looped = copy.deepcopy(plain)
    ghosts = (GhostBatchNorm1d if len(shape) == 2 else GhostBatchNorm2d)(shape[1], ghost)
    time_of = seconds(
        {
            "batch norm": passes(plain, x),
            "ghosts": passes(ghosts, x),
            "loop": passes(lambda x: torch.cat([looped(part) for part in x.split(ghost)]), x),
        }
    )
    return {
        "layer_vs_batch_norm": time_of["ghosts"] / time_of["batch norm"],
        "loop_vs_batch_norm": time_of["loop"] / time_of["batch norm"],
        "batch_norm_microseconds": 1e6 * time_of["batch norm"],
    }


def step(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> dict[str, float]:
    x, y = torch.randn(shape), torch.randint(10, shape[:1])
    plain = build()
    networks = {"batch norm": plain, "ghosts": convert(copy.deepcopy(plain), shape[0] // GHOSTS)}

    def training(model: nn.Module) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)

        def call() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        return call

    time_of = seconds({name: training(model) for name, model in networks.items()})
    return {"step_vs_batch_norm": time_of["ghosts"] / time_of["batch norm"]}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("error")
    found = [{"case": name, "ghosts": GHOSTS, **layer(shape)} for name, shape in LAYERS.items()]
    found += [
        {"case": name, "ghosts": GHOSTS, **step(build, shape)}
        for name, (build, shape) in STEPS.items()
    ]
    if "--json" in sys.argv:
        print(json.dumps(found, indent=2))
        return
    for row in found:
        numbers = ", ".join(
            f"{name} {value:.2f}" for name, value in row.items() if isinstance(value, float)
        )
        print(f"{row['case']:22} {numbers}")


if __name__ == "__main__":
    main()
