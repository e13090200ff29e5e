"""Influence functions against Bergson on the same checkpoint, sequences, layers, matrix (empirical
Fisher) and one thread.

    BERGSON_PYTHON=… python benchmarks/influence_bergson.py --json

The model is that of the case `gpt2` (peers/influence_cases.py): 4 layers of width 256, sequences of
128 tokens, biases included. Each side runs in a process of its own, Bergson's with the interpreter
that BERGSON_PYTHON names (an environment with torch, `pip install --no-deps bergson`, and of its
requirements all but bitsandbytes, torchaudio and torchvision, which it does not import here);
without it nothing is measured. Ratios are of CPU seconds, since machines are shared.

* `speedup_covariance_eigen_lambda`: factors, theirs / ours, in float32; `speedup_lambda`: of the
  corrected eigenvalues alone; `speedup_scores`: from the queries to all scores; `speedup_total`;
* `memory_ratio`: peak memory over what stood before, ours / theirs;
* `float32`, `float64`: the largest relative error of a layer, ‖ours − theirs‖ / ‖theirs‖, of A, S,
  the eigenvalues of K-FAC, the corrected ones, and the scores; eigenvectors, which are only known
  up to sign, by what G and (G + λ)⁻¹ make of random matrices;
* `solves`: relative error of scores after STEPS conjugate gradients on the Gauss–Newton matrix of
  all layers, both from EK-FAC's answer, and the ratio of CPU seconds.

What both sides mean, and where they differ:

* Loss: both sum over tokens; a score of theirs is ∇L_queryᵀ (G + λ)⁻¹ ∇L_train, ours, in nats of
  log-likelihood per added copy, is that divided by N (both signs turn, log p = −L).
* Positions: they leave the last of each sequence out of A and S: nothing is predicted there, so its
  gradient is zero. We and Kronfluence count every position that is no padding. Here `real` leaves
  it out on our side, too; `last_position` says what counting it changes: `scores` relative,
  `correlation`.
* Normalization: both divide A and S by positions and Λ by sequences, and multiply the eigenvalues
  of K-FAC by positions per sequence.
* Damping: both λ = 0.1 times the mean eigenvalue of a layer.
* Precision: both sum in float32 and decompose in float64. They keep the factors that are applied in
  float32 also where the rest is float64, so scores of the float64 run differ by float32's rounding.
  In float32 the eigenvectors of small eigenvalues are rounding on both sides: scores of few
  sequences differ by that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from influence import Clock, error, forget_peak, resident
from nested_table import lines
from peers.influence_cases import Case, gpt2_case
from safetensors.torch import load_file, save_file
from torch import Tensor

from unseen.attributions.influence import Curvature, Fisher, Influence, InfluenceScores
from unseen.attributions.influence import sequence_nats as nats
from unseen.engine.kron import blocks_of
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import next_token, sequence_log_probability
from unseen.task import Axis, Batch, Split, Task, Use

PEER = Path(__file__).parent / "peers" / "bergson_peer.py"
BAR = 1e-4
"""Relative error of factors that counts as equal."""
POSITIONS = 4_096
"""Rows of the table of positions that Bergson reads: as many as a batch may have tokens."""
SMALL = (16, 2)
"""Sequences and queries of the runs in float64 and of the solves."""
PROBES = 4
"""Random matrices that stand for eigenvectors, per layer."""
Found = tuple[dict[str, Any], dict[str, Tensor]]
"""What one side cost and what it found."""


def predicting(batch: Batch) -> Tensor:
    """The positions whose next token is predicted: all but the last."""
    marks = torch.ones(batch["tokens"].shape, dtype=torch.bool)
    marks[:, -1] = False
    return marks


def fit(case: Case, curvature: Curvature, steps: int, is_last_counted: bool) -> InfluenceScores:
    """Our factors; of the positions all, or those that Bergson counts."""
    splits = {"train": Split(case.train, Use.TRAIN)}
    task = Task(name=case.name, axis=Axis.IID, splits=splits, objective=next_token)
    config = Influence(
        curvature=curvature,
        fisher=Fisher.EMPIRICAL,
        layers=case.layers,
        iterations=steps,
        batch_size=8,
        memory=1 << 27,
        loss=nats,
    )
    if not is_last_counted:
        config = replace(config, real=predicting)
    return config.prepare(Trained(case.model, task), Lab())


def ours(case: Case, steps: int, out: Path) -> dict[str, Any]:
    """Factors and scores of our side; what they cost."""
    from unseen.attributions.influence.factors import Fit

    clock, queries, n = Clock(), case.queries[:], len(case.train)
    clock.inside(Fit, "_eigenvalue_correction", "lambda")
    forget_peak()
    before = resident()
    with clock("factors"):
        influences = fit(case, Curvature.EKFAC_CG if steps else Curvature.EKFAC, steps, False)
    with clock("scores"):
        scores = influences(queries, sequence_log_probability).scores * n
    memory, spent = resident("VmHWM") - before, deepcopy(clock.seconds)
    found = influences.factors.tensors() | {"scores": scores}
    if not steps:
        counted = fit(case, Curvature.EKFAC, 0, True)
        found["all_positions"] = counted(queries, sequence_log_probability).scores * n
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, out)
    return {"seconds": spent, "memory": memory}


def write_case(case: Case, folder: Path) -> None:
    """The checkpoint as Bergson reads it, and the tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

    inner = case.model.inner
    assert isinstance(inner, GPT2LMHeadModel)
    model = GPT2LMHeadModel(GPT2Config(**{**inner.config.to_dict(), "n_positions": POSITIONS}))
    state = dict(inner.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, Conv1D):
            state[f"{name}.weight"] = state[f"{name}.weight"].T.contiguous()
    read = state["transformer.wpe.weight"]
    table = torch.zeros(POSITIONS, read.shape[1])
    table[: len(read)] = read
    model.load_state_dict(state | {"transformer.wpe.weight": table})
    model.save_pretrained(str(folder / "checkpoint"))
    torch.save(case.train[:]["tokens"], folder / "train.pt")
    torch.save(case.queries[:]["tokens"], folder / "queries.pt")


def side(n: int, queries: int, precision: str, steps: int, out: str) -> None:
    """Our side, in this process."""
    case = gpt2_case(n, queries)
    if precision == "fp64":
        case.model.double()
    with torch.no_grad():
        case.model(case.train[:8]["tokens"])  # the libraries behind a pass are part of the baseline
    print(json.dumps(ours(case, steps, Path(out))))


def both(n: int, queries: int, precision: str, steps: int = 0) -> tuple[Found, Found]:
    """Ours and theirs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_case(gpt2_case(n, queries), folder)
        out = folder / "ours.safetensors"
        own = [str(part) for part in ("--side", n, queries, precision, steps, out)]
        commands = {
            out: [sys.executable, __file__, *own],
            folder / "found.safetensors": [
                os.environ["BERGSON_PYTHON"],
                str(PEER),
                name,
                precision,
                str(steps),
            ],
        }
        mine, theirs = (json_of(command) for command in commands.values())
        return (mine, load_file(out)), (theirs, load_file(folder / "found.safetensors"))


def json_of(command: list[str]) -> dict[str, Any]:
    """The last line that a side prints; its other words only where it fails."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=settings)
    if ran.returncode:
        raise SystemExit(f"{command[1]} failed:\n{ran.stderr[-2_000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def largest(parts: Iterator[dict[str, float]]) -> dict[str, float]:
    """The worst layer of each kind."""
    worst: dict[str, float] = {}
    for errors in parts:
        for kind, value in errors.items():
            worst[kind] = max(worst.get(kind, 0.0), value)
    return worst


def layer_errors(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> Iterator[dict[str, float]]:
    """Relative errors of every layer's factors."""
    blocks = blocks_of({k: t for k, t in mine.items() if "/" in k and not k.startswith("unseen/")})
    n = theirs["positions"].double()
    for name, block in blocks.items():
        layer = name.removeprefix("inner.transformer.")
        peer = {
            key.rpartition("/")[2]: tensor.double()
            for key, tensor in theirs.items()
            if key.startswith(f"{layer}/")
        }
        assert block.left is not None
        assert block.right is not None
        assert block.spread is not None
        left, right, values = block.left.double(), block.right.double(), block.values.double()
        s, a = (part.double() for part in block.spread)
        probes = torch.randn(
            PROBES, *values.shape, dtype=torch.float64, generator=Lab().generator()
        )

        def applied(left: Tensor, right: Tensor, weights: Tensor, v: Tensor = probes) -> Tensor:
            return left @ ((left.T @ v @ right) * weights) @ right.T

        def inverse(values: Tensor) -> Tensor:
            return 1 / (values + 0.1 * values.mean())

        pairs = {
            "A": ((right * a) @ right.T, peer["right_sum"] / n),
            "S": ((left * s) @ left.T, peer["left_sum"] / n),
            "K-FAC eigenvalues": (torch.outer(s, a) * block.positions, peer["kfac"]),
            "corrected eigenvalues": (values, peer["ekfac"]),
            "G applied": (
                applied(left, right, values),
                applied(peer["left"], peer["right"], peer["ekfac"]),
            ),
            "(G + λ)⁻¹ applied": (
                applied(left, right, inverse(values)),
                applied(peer["left"], peer["right"], inverse(peer["ekfac"])),
            ),
        }
        yield {kind: error(*pair) for kind, pair in pairs.items()}


def agreement(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """Errors of factors and scores."""
    scores = error(mine["scores"].double(), theirs["scores"].double())
    return largest(layer_errors(mine, theirs)) | {"scores": scores}


def scoring(spent: dict[str, list[float]]) -> float:
    """CPU seconds of theirs from the queries to all scores."""
    return sum(spent[part][0] for part in ("queries", "apply_hessian", "astra", "products")
               if part in spent)  # fmt: skip


def measured(sequences: int, queries: int, steps: int) -> dict[str, Any]:
    (mine, own), (theirs, peer) = both(sequences, queries, "fp32")
    cost, other = mine["seconds"], theirs["seconds"]
    factors, scores = other["factors"][0], scoring(other)
    counted = own["all_positions"].double(), own["scores"].double()
    found = {
        "speedup_covariance_eigen_lambda": factors / cost["factors"][0],
        "speedup_lambda": other["lambda"][0] / cost["lambda"][0],
        "speedup_scores": scores / cost["scores"][0],
        "speedup_total": (factors + scores) / (cost["factors"][0] + cost["scores"][0]),
        "memory_ratio": mine["memory"] / theirs["memory"],
        "float32": agreement(own, peer),
        "last_position": {
            "scores": error(*counted),
            "correlation": float(torch.corrcoef(torch.stack([t.flatten() for t in counted]))[0, 1]),
        },
        "cpu_seconds": {
            who: {part: spent[0] for part, spent in side["seconds"].items()}
            for who, side in (("ours", mine), ("theirs", theirs))
        },
        "memory_mib": {"ours": mine["memory"], "theirs": theirs["memory"]},
    }
    (_, own), (_, peer) = both(*SMALL, "fp64")
    found["float64"] = agreement(own, peer)
    (mine, own), (theirs, peer) = both(*SMALL, "fp32", steps)
    found["solves"] = {
        "scores": error(own["scores"].double(), peer["scores"].double()),
        "speedup": scoring(theirs["seconds"]) / mine["seconds"]["scores"][0],
    }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3, help="of conjugate gradients")
    parser.add_argument(
        "--side",
        nargs=5,
        metavar=("SEQUENCES", "QUERIES", "PRECISION", "STEPS", "OUT"),
        help="used by the parent process",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.side:
        n, queries, precision, steps, out = options.side
        side(int(n), int(queries), precision, int(steps), out)
        return 0
    if "BERGSON_PYTHON" not in os.environ:
        print("Nothing is measured: BERGSON_PYTHON names no interpreter that has Bergson.")
        return 0
    found = measured(options.sequences, options.queries, options.steps)
    print(json.dumps(found, indent=2) if options.json else "\n".join(lines(found)))
    factors = {kind: value for kind, value in found["float64"].items() if kind != "scores"}
    return int(max(factors.values()) > BAR)


if __name__ == "__main__":
    sys.exit(main())
