"""Cost of coherence over 10,000 Fashion-MNIST images, as ratios to references of the same run.

    UNSEEN_DATA=… python benchmarks/coherence.py --json

The references, on the same batches, interleaved with ours after a warm-up, in CPU seconds:

* `backward`: one ordinary forward and backward pass, gradients summed in `.grad`;
* `vmap`: `torch.func.vmap(grad)` of the loss of one example, as in PyTorch's tutorial on per-sample
  gradients;
* `opacus`: `GradSampleModule` and the sums and norms of `.grad_sample`;
* `opacus_ghost`: `GradSampleModuleFastGradientClipping` with ghost norms (`get_norm_sample`) and
  the sum in `.grad`.

All give Σ g and every ‖g‖². The slow ones see the first batches of each pass only; their seconds
are scaled per example.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.measures.coherence import _iterate_groups, alignment, coherence
from unseen.models.conv import resnet
from unseen.models.mlp import mlp
from unseen.objectives import cross_entropy
from unseen.task import Batch
from unseen.tasks.images import Collection, Images

Contestant = Callable[[Sequence[Batch]], float]
"""Reads the batches, returns α."""


def alpha(total: Sequence[Tensor], norms2: Sequence[Tensor]) -> float:
    square = torch.cat(list(norms2))
    return alignment(
        sum(t.double().square().sum().item() for t in total),
        square.double().sum().item(),
        len(square),
    )


def backward(model: nn.Module) -> Callable[[Iterable[Batch]], float]:
    def run(batches: Iterable[Batch]) -> float:
        model.zero_grad()
        for batch in batches:
            cross_entropy(model, batch).sum().backward()
        return float("nan")  # it has no norms

    return run


def vmapped(model: nn.Module) -> Contestant:
    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(model, parameters, (x[None],))
        return nn.functional.cross_entropy(logits, y[None])

    per_example = vmap(grad(loss), in_dims=(None, 0, 0))

    def run(batches: Sequence[Batch]) -> float:
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        total, norms2 = [torch.zeros_like(p) for p in parameters.values()], []
        for batch in batches:
            rows = list(per_example(parameters, batch["x"], batch["y"]).values())
            norms2.append(sum(row.flatten(1).square().sum(1) for row in rows))
            for sums, row in zip(total, rows, strict=True):
                sums += row.sum(0)
        return alpha(total, norms2)

    return run


def opacus(model: nn.Module) -> Contestant:
    from opacus.grad_sample import GradSampleModule

    wrapped = GradSampleModule(model, loss_reduction="sum")

    def run(batches: Sequence[Batch]) -> float:
        total, norms2 = [torch.zeros_like(p) for p in wrapped.parameters()], []
        for batch in batches:
            wrapped.zero_grad()
            cross_entropy(wrapped, batch).sum().backward()
            rows = [p.grad_sample for p in wrapped.parameters()]
            norms2.append(sum(row.flatten(1).square().sum(1) for row in rows))
            for sums, row in zip(total, rows, strict=True):
                sums += row.sum(0)
        return alpha(total, norms2)

    return run


def opacus_ghost(model: nn.Module) -> Contestant:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    wrapped = GradSampleModuleFastGradientClipping(
        model, loss_reduction="sum", use_ghost_clipping=True, max_grad_norm=1.0
    )

    def run(batches: Sequence[Batch]) -> float:
        norms2 = []
        wrapped.zero_grad()
        for batch in batches:
            cross_entropy(wrapped, batch).sum().backward()
            norms2.append(wrapped.get_norm_sample().square())
        return alpha([p.grad for p in wrapped.parameters()], norms2)

    return run


@dataclass(frozen=True)
class Timed:
    """Median CPU and wall seconds per example of one contestant, and what it found."""

    cpu: float
    wall: float
    examples: int
    alpha: float


def race(
    contestants: dict[str, tuple[Contestant, Sequence[Batch]]], rounds: int
) -> dict[str, Timed]:
    """Each contestant once per round, in turn, after a warm-up on its first batch; the slow ones
    every third round.
    """
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    found = {}
    for contestant, batches in contestants.values():
        contestant(batches[:1])
    most = max(len(batches) for _, batches in contestants.values())
    for k in range(rounds):
        for name, (contestant, batches) in contestants.items():
            if len(batches) < most and k % 3:
                continue
            cpu, wall = time.process_time(), time.perf_counter()
            found[name] = contestant(batches)
            seen[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    made = {}
    for name, pairs in seen.items():
        n = sum(len(batch["y"]) for batch in contestants[name][1])
        cpu, wall = (statistics.median(values) / n for values in zip(*pairs, strict=True))
        made[name] = Timed(cpu, wall, n, found[name])
    return made


def gemm_peak(size: int = 1024) -> float:
    """FLOP per CPU second of a square float32 product: the best of many."""
    a, b, best = torch.randn(size, size), torch.randn(size, size), float("inf")
    for _ in range(20):
        start = time.process_time()
        a @ b
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def measured(
    make: Callable[[], nn.Module], data: Columns, slow: int, batch_size: int, rounds: int
) -> dict:
    lab = Lab()

    def fresh() -> nn.Module:
        with lab.child("init").seeded():
            return make()

    ours = fresh()
    batches = [batch for _, _, batch in _iterate_groups(data, batch_size, 10, lab.child("groups"))]
    ordinary = backward(fresh())

    def pass_over_data(_: Sequence[Batch]) -> float:  # reads the shuffled batches as ours does
        return ordinary(
            batch for _, _, batch in _iterate_groups(data, batch_size, 10, lab.child("groups"))
        )

    few = batches[: -(-slow // len(batches[0]["y"]))]
    subset = Columns(**{name: torch.cat([batch[name] for batch in few]) for name in few[0]})
    times = race(
        {
            "backward": (pass_over_data, batches),
            "ours": (
                lambda _: coherence(ours, cross_entropy, data, lab, batch_size=batch_size).alpha,
                batches,
            ),
            "vmap": (vmapped(fresh()), few),
            "opacus": (opacus(fresh()), few),
            "opacus_ghost": (opacus_ghost(fresh()), batches),
        },
        rounds,
    )
    in_place = {
        torch.ops.aten.addmm_: lambda into, a, b, **_: 2 * a[0] * a[1] * b[1]
    }  # unknown to torch's counter
    counter = FlopCounterMode(display=False, custom_mapping=in_place)
    with counter:
        coherence(ours, cross_entropy, subset, lab, batch_size=batch_size)
    same = coherence(ours, cross_entropy, subset, lab).alpha
    own = times["ours"]
    peak = gemm_peak()
    return {
        "parameters": sum(p.numel() for p in ours.parameters()),
        "examples": own.examples,
        "batch_size": batch_size,
        "examples_of_vmap_and_opacus": times["vmap"].examples,
        "cost_vs_backward": own.cpu / times["backward"].cpu,
        "speedup_vs_vmap": times["vmap"].cpu / own.cpu,
        "speedup_vs_opacus": times["opacus"].cpu / own.cpu,
        "speedup_vs_opacus_ghost": times["opacus_ghost"].cpu / own.cpu,
        "cpu_seconds_per_10000": {name: 10_000 * timed.cpu for name, timed in times.items()},
        "wall_seconds_per_10000": {name: 10_000 * timed.wall for name, timed in times.items()},
        "flop_per_example": counter.get_total_flops() / len(subset),
        "fraction_of_gemm_peak": counter.get_total_flops() / len(subset) / own.cpu / peak,
        "gemm_peak_gflops": peak / 1e9,
        "alpha": own.alpha,
        "relative_difference": {
            "vmap": abs(times["vmap"].alpha / same - 1),
            "opacus": abs(times["opacus"].alpha / same - 1),
            "opacus_ghost": abs(times["opacus_ghost"].alpha / own.alpha - 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--n", type=int, default=10_000, help="number of images")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("mlp", "resnet"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="opacus")
    warnings.filterwarnings("ignore", message=".*backward hook.*")
    task = Images(Collection.FASHION_MNIST, n_train=options.n).build(Lab())
    columns = task.split("train").data.columns  # type: ignore[attr-defined]
    data = Columns(x=columns["x"], y=columns["y"])
    rows = {
        "mlp": lambda: measured(
            lambda: mlp([784, 512, 256, 10]),
            data,
            2 * options.batch_size,
            options.batch_size,
            options.rounds,
        ),
        "resnet": lambda: measured(
            resnet, data, options.batch_size, options.batch_size, max(1, options.rounds // 2)
        ),
    }
    out = {name: row() for name, row in rows.items() if options.only in (None, name)}
    if options.json:
        print(json.dumps(out, indent=2))
        return
    for name, row in out.items():
        print(
            name,
            *(f"{key}={value:.3g}" for key, value in row.items() if isinstance(value, float | int)),
        )


if __name__ == "__main__":
    main()
