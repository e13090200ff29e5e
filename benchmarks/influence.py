"""Influence functions against Kronfluence on the same checkpoints, data, layers, matrix (empirical
Fisher) and threads.

    UNSEEN_DATA=… python benchmarks/influence.py --json

Cases (peers/influence_cases.py): `mlp`, 784-512-256-10 on 10,000 images × 500 queries; `gpt2`, 4
layers of width 256 on 1,000 sequences of 128 tokens × 32 queries. Each side runs in a process of
its own, with one thread. The peer: in float32 (its defaults, batch sizes tuned), with its automatic
mixed precision, and in its bfloat16 preset; its best setting is the fastest that still gives its
own ranks. Ours: with the accuracy of float32 (`Precision.MIXED`, our default) and in bfloat16.
Ratios are of CPU seconds, since machines are shared; wall seconds stand beside them. For sequences
ours writes the gradients of the first pass into a temporary file and reads them twice (`disk`):
4.2 MB per sequence in bfloat16, twice that in float32. `disk_mib` is what it took; its reads and
writes are in the CPU seconds, the system's page cache is not in the memory.

* `speedup_factors`: covariances, eigenvectors and corrected eigenvalues, float32; `speedup_lambda`:
  the last of these;
* `speedup_total_*`: factors and all scores; against the peer in float32, and under `best` against
  its best setting;
* `speedup_topk`: the peer's scores of all pairs against our exact 20 most helpful and harmful
  examples of each query;
* `speedup_total_one_pass`, `memory_ratio_one_pass`: in bfloat16 with memory for all activations and
  gradients (sequences);
* `memory_ratio`: peak memory over what stood before the factors, ours / the peer's, float32;
  `memory_ratio_bfloat16`, under `best`: ours in bfloat16 / the peer's best setting;
* `relative_error`, `spearman`: ‖N · ours − peer‖ / ‖peer‖ in float32; rank correlation of our
  bfloat16 scores with the peer's float32 ones, mean over queries;
* `gemm_fraction`: floating-point operations of the score product per CPU second, over those of a
  square product of the same run in float32 (above 1 where bfloat16 carries most of it);
  `gemm_fraction_bfloat16`: in bfloat16, over its peak.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peers.influence_cases import CASES, Case
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor, nn

from unseen.attributions.influence import Fisher, Influence, sequence_nats
from unseen.attributions.influence.preconditioned_queries import Precision
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import classify, cross_entropy, next_token, sequence_log_probability
from unseen.task import Axis, Batch, Split, Task, Use

TARGETS = {
    "mlp": {
        "speedup_factors": 100,
        "speedup_total_float32": 5,
        "speedup_total_bfloat16": 15,
        "speedup_topk": 100,
    },
    "gpt2": {"speedup_lambda": 2.3, "speedup_total_bfloat16": 2.5},
}
BOTH = {"memory_ratio": -1.0, "relative_error": -1e-4, "spearman": 0.9995, "gemm_fraction": 0.6}
"""Negative: at most so much."""
OURS = {"mlp": (1_000, 1 << 30), "gpt2": (8, 1 << 28)}
"""Our batch sizes, and the bytes of activations and gradients that are held, and that a batch may
take: no more than brings us to the peer's memory.
"""
DISK = {"mlp": 0, "gpt2": 12 << 30}
"""Bytes of gradients that may wait on disk: one pass of the model instead of three."""
HELD = 6 << 30
"""Memory where everything is held there (setting `held`, sequences only)."""
K = 20
PEER = ("float32", "amp", "bfloat16")
VALID = 0.999
"""Rank correlation with its own float32 scores that a setting of the peer needs to count as its
best.
"""


def log_likelihood(model: nn.Module, batch: Batch) -> Tensor:
    return -cross_entropy(model, batch)


class Clock:
    """CPU and wall seconds by name, summed over what is timed."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        spent = self.seconds.setdefault(name, [0.0, 0.0])
        spent[0] += time.process_time() - cpu
        spent[1] += time.perf_counter() - wall

    def inside(self, owner: type, method: str, name: str) -> None:
        """Times a method wherever it is called."""
        plain: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(name):
                return plain(*args, **kwargs)

        setattr(owner, method, timed)


def resident(of: str = "VmRSS") -> float:
    """MiB of this process: now (`VmRSS`) or at its peak (`VmHWM`)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[of].split()[0]) / 1024


def forget_peak() -> None:
    """The kernel's record of peak memory starts again from now."""
    Path("/proc/self/clear_refs").write_text("5")


def ours(case: Case, setting: str, clock: Clock) -> dict[str, Tensor]:
    """Our scores in nats per added copy; in float32 also the top k."""
    from unseen.attributions.influence.factors import Fit
    from unseen.attributions.influence.query_forms import ScaledQueries

    clock.inside(Fit, "_eigenvalue_correction", "lambda")
    clock.inside(ScaledQueries, "score", "product")
    is_text = "tokens" in case.train.columns
    objective, behaviour = (
        (next_token, sequence_log_probability) if is_text else (classify, log_likelihood)
    )
    splits = {"train": Split(case.train, Use.TRAIN)}
    task = Task(name=case.name, axis=Axis.IID, splits=splits, objective=objective)
    batch_size, memory = OURS[case.name]
    memory, disk = (HELD, 0) if setting == "held" else (memory, DISK[case.name])
    precision = Precision.MIXED if setting == "float32" else Precision.BFLOAT16
    config = Influence(
        fisher=Fisher.EMPIRICAL,
        layers=case.layers,
        precision=precision,
        batch_size=batch_size,
        memory=memory,
        disk=disk,
        loss=sequence_nats if is_text else None,
    )
    with clock("factors"):
        influences = config.prepare(Trained(case.model, task), Lab())
    queries = case.queries[:]
    with clock("scores"):
        scores = influences(queries, behaviour).scores
    clock.seconds["peak"] = [resident("VmHWM"), 0.0]
    clock.seconds["disk"] = [influences.cache.bytes_on_disk / 2**20, 0.0]
    product = clock.seconds["product"].copy()
    with clock("top"):
        top = influences.top(queries, behaviour, K)
    clock.seconds["product"] = product
    return {"scores": scores.float().contiguous(), "top": top.index, "worst": top.worst_index}


def peer(case: Case, setting: str, clock: Clock) -> dict[str, Tensor]:
    from peers import kronfluence_peer as kf

    loss = kf.language if "tokens" in case.train.columns else kf.classification
    sizes = kf.BATCHES[case.name]
    run = kf.kronfluence(
        case.model, loss, case.train, case.queries, case.layers, sizes, kf.Setting(setting)
    )
    clock.seconds |= {name: [s.cpu, s.wall] for name, s in run.spent.items()}
    parts = [run.spent[name] for name in ("covariance", "eigen", "lambda")]
    clock.seconds["factors"] = [sum(s.cpu for s in parts), sum(s.wall for s in parts)]
    clock.seconds["peak"] = [resident("VmHWM"), 0.0]
    return {"scores": run.scores.contiguous()}


def side(name: str, who: str, setting: str, out: str) -> None:
    """One side, in this process: writes what it found, prints what it cost."""
    case, clock = CASES[name](), Clock()
    with torch.no_grad():
        case.model(
            next(iter(case.train[:8].values()))
        )  # the libraries behind a forward pass are part of the baseline
    forget_peak()
    before = resident()
    found = (peer if who == "peer" else ours)(case, setting, clock)
    save_file(found, out)
    memory = clock.seconds.pop("peak")[0] - before
    disk = clock.seconds.pop("disk", [0.0])[0]
    print(json.dumps({"seconds": clock.seconds, "memory": memory, "disk": disk}))


Run = tuple[dict[str, Any], dict[str, Tensor]]
"""What one side cost and what it found."""


def run_side(name: str, who: str, setting: str, folder: Path) -> Run:
    """One side in a process of its own, or what it left in the folder."""
    out = folder / f"{name}-{who}-{setting}.safetensors"
    cost = out.with_suffix(".json")
    if not cost.exists():
        command = [sys.executable, __file__, "--side", name, who, setting, str(out)]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        found = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=one_thread
        )
        cost.write_text(found.stdout.splitlines()[-1])
    return json.loads(cost.read_text()), load_file(out)


def peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Operations per CPU second of a square product: the best of ten."""
    a, b, best = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype), float("inf")
    for _ in range(10):
        start = time.process_time()
        a @ b
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def operations(case: Case) -> float:
    """Of all scores: the product, and for sequences the gradients that enter it."""
    maps = [case.model.get_submodule(name) for name in case.layers]
    entries = sum(m.weight.numel() + m.bias.numel() for m in maps)  # type: ignore[union-attr, operator]
    positions = case.train.columns["tokens"].shape[1] if "tokens" in case.train.columns else 0
    return 2.0 * entries * len(case.train) * (len(case.queries) + positions)


def recall(found: Tensor, scores: Tensor) -> float:
    """Share of the true top k that was found."""
    true = scores.topk(found.shape[1], 1).indices
    return (found[:, :, None] == true[:, None, :]).any(2).double().mean().item()


def ranks(found: Tensor, reference: Tensor) -> float:
    """Rank correlation, mean over queries."""
    rows = zip(found.numpy(), reference.numpy(), strict=True)
    return sum(float(spearmanr(a, b).statistic) for a, b in rows) / len(reference)


def error(found: Tensor, reference: Tensor) -> float:
    return ((found - reference).norm() / reference.norm()).item()


def speedups(
    theirs: dict[str, float], ours32: dict[str, float], ours16: dict[str, float]
) -> dict[str, float]:
    """Ratios of CPU seconds against one setting of the peer."""
    total = theirs["factors"] + theirs["scores"]
    return {
        "speedup_factors": theirs["factors"] / ours32["factors"],
        "speedup_lambda": theirs["lambda"] / ours32["lambda"],
        "speedup_total_float32": total / (ours32["factors"] + ours32["scores"]),
        "speedup_total_bfloat16": total / (ours16["factors"] + ours16["scores"]),
        "speedup_topk": theirs["scores"] / ours32["top"],
    }


def measured(name: str, kept: Path | None) -> dict[str, Any]:
    peaks = {dtype: peak(getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
    load, case = os.getloadavg()[0], CASES[name]()
    with tempfile.TemporaryDirectory() as folder:
        peers = {s: run_side(name, "peer", s, kept or Path(folder)) for s in PEER}
        settings = (
            ("float32", "bfloat16", "held")
            if "tokens" in case.train.columns
            else ("float32", "bfloat16")
        )
        own = {s: run_side(name, "ours", s, Path(folder)) for s in settings}
    runs = {f"peer {s}": run for s, run in peers.items()} | {
        f"ours {s}": run for s, run in own.items()
    }
    cpu = {who: {part: s[0] for part, s in run[0]["seconds"].items()} for who, run in runs.items()}
    wall = {who: {part: s[1] for part, s in run[0]["seconds"].items()} for who, run in runs.items()}
    memory = {who: run[0]["memory"] for who, run in runs.items()}
    scores = {who: run[1]["scores"].double() for who, run in runs.items()}
    reference = scores["peer float32"]
    scores |= {
        who: reference.shape[1] * found for who, found in scores.items() if who.startswith("ours")
    }
    same = {
        who: {"relative_error": error(s, reference), "spearman": ranks(s, reference)}
        for who, s in scores.items()
    }
    valid = [s for s in PEER if same[f"peer {s}"]["spearman"] >= VALID]
    best = min(valid, key=lambda s: cpu[f"peer {s}"]["factors"] + cpu[f"peer {s}"]["scores"])
    speed = {d: operations(case) / cpu[f"ours {d}"]["product"] / peaks[d] for d in peaks}
    top = own["float32"][1]
    one_pass = {}
    if "held" in own:
        spent, theirs = cpu["ours held"], cpu["peer float32"]
        ratio = (theirs["factors"] + theirs["scores"]) / (spent["factors"] + spent["scores"])
        held = memory["ours held"] / memory["peer float32"]
        one_pass = {
            "speedup_total_one_pass": ratio,
            "memory_ratio_one_pass": held,
            "speedup_lambda_bfloat16": theirs["lambda"] / cpu["ours bfloat16"]["lambda"],
        }
    return {
        **one_pass,
        **speedups(cpu["peer float32"], cpu["ours float32"], cpu["ours bfloat16"]),
        "memory_ratio": memory["ours float32"] / memory["peer float32"],
        "relative_error": same["ours float32"]["relative_error"],
        "spearman": same["ours bfloat16"]["spearman"],
        "gemm_fraction": speed["float32"],
        "gemm_fraction_bfloat16": speed["bfloat16"],
        "topk_recall": min(recall(top["top"], reference), recall(top["worst"], -reference)),
        "best": {
            "setting": best,
            **speedups(cpu[f"peer {best}"], cpu["ours float32"], cpu["ours bfloat16"]),
            "memory_ratio_bfloat16": memory["ours bfloat16"] / memory[f"peer {best}"],
        },
        "agreement": same,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "memory_mib": memory,
        "disk_mib": {who: run[0].get("disk", 0.0) for who, run in runs.items()},
        "gemm_peak_gflops": {dtype: value / 1e9 for dtype, value in peaks.items()},
        "load_before": load,
    }


def table(name: str, row: dict[str, Any]) -> str:
    goals = TARGETS[name] | BOTH
    lines = [f"{name:20} against the peer's defaults   best ({row['best']['setting']})   to reach"]
    for key, value in row.items():
        if isinstance(value, float):
            goal = goals.get(key)
            wanted = "" if goal is None else f"≤ {-goal:g}" if goal < 0 else f"≥ {goal:g}"
            other = row["best"].get(key) if key.startswith("speedup") else None
            lines.append(
                f"  {key:32} {value:14.4g}   {'' if other is None else f'{other:.4g}':>16}   "
                f"{wanted}"
            )
    for who, parts in row["cpu_seconds"].items():
        spent = ", ".join(f"{part} {seconds:.2f}" for part, seconds in parts.items())
        same, mib = row["agreement"][who], row["memory_mib"][who]
        disk = f" and {row['disk_mib'][who]:.0f} on disk" if row["disk_mib"][who] else ""
        lines.append(
            f"  CPU seconds, {who:14} {spent}; {mib:.0f} MiB{disk}; "
            f"error {same['relative_error']:.1e}, ranks {same['spearman']:.5f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", choices=CASES)
    parser.add_argument(
        "--side",
        nargs=4,
        metavar=("CASE", "WHO", "SETTING", "OUT"),
        help="used by the parent process",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the peer's runs there, or use those kept"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.side:
        side(*options.side)
        return
    for name in CASES:
        if options.only in (None, name):
            CASES[name]()  # trained and kept before anything is timed
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    out = {name: measured(name, options.keep) for name in CASES if options.only in (None, name)}
    print(
        json.dumps(out, indent=2)
        if options.json
        else "\n\n".join(table(name, row) for name, row in out.items())
    )


if __name__ == "__main__":
    main()
