"""Bergson (EleutherAI, 2025, github.com/EleutherAI/bergson) 2.5.1 on a checkpoint of ours: EK-FAC
with the empirical Fisher, and its conjugate gradients.

    python benchmarks/peers/bergson_peer.py FOLDER fp32 STEPS

Runs in an environment of its own: `influence_bergson.py` calls it with the interpreter that
BERGSON_PYTHON names. FOLDER holds `checkpoint` (transformers), `train.pt` and `queries.pt`
(tokens); `found.safetensors` is written beside them, and one JSON line is printed last. With STEPS
above 0 the queries are solved for by so many steps on all sequences.

Its own pipeline `hessian_pipeline` runs as it is, in one process on the CPU, which it supports;
functions that it calls are wrapped by clocks, nothing that it computes is changed. What it asks for
beside the data: a tokenizer (an empty one, since the data are tokens already), and a table of
positions as long as a batch has tokens (it refuses larger batches): the checkpoint's is longer by
rows that no sequence reads. One thing is mended: its conjugate gradients write into the file of
their start, which is open for reading only (`.to` copies to a GPU, and is the same memory on a
CPU): the process dies of a segmentation fault. `read_copies` hands them a copy.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bergson.config import (
    DataConfig,
    HessianConfig,
    HessianPipelineConfig,
    IndexConfig,
    PreprocessConfig,
    ScoreConfig,
)
from bergson.config.config import AstraConfig, InversionConfig, QuerySetConfig
from bergson.data import load_scores
from bergson.hessians import astra, hessian_approximations, pipeline
from datasets import Dataset
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

SEQUENCES = 2
"""Per batch. From 2 to 32 its CPU seconds are the same within a twentieth, and two need least
memory.
"""
DAMPING = 0.1
"""Times the mean eigenvalue of a layer: its default, and ours."""
SAVED = {
    "left_sum": "gradient_sharded",
    "right_sum": "activation_sharded",
    "left": "eigen_gradient_sharded",
    "right": "eigen_activation_sharded",
    "kfac": "eigenvalue_sharded",
    "ekfac": "eigenvalue_correction_sharded",
}
"""Our names for what it saves."""
Spent = dict[str, list[float]]
"""CPU and wall seconds by part."""


def resident(of: str) -> float:
    """MiB of this process: now (`VmRSS`) or at its peak (`VmHWM`)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[of].split()[0]) / 1024


def clock(spent: Spent, owner: Any, function: str, name: Callable[..., str]) -> None:
    """Times a function of a module wherever that module calls it, under the name that its arguments
    give.
    """
    plain = getattr(owner, function)

    def timed(*args: Any, **kwargs: Any) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        found = plain(*args, **kwargs)
        seconds = spent.setdefault(name(*args, **kwargs), [0.0, 0.0])
        seconds[0] += time.process_time() - cpu
        seconds[1] += time.perf_counter() - wall
        return found

    setattr(owner, function, timed)


def clocks() -> Spent:
    """Counts from now on."""
    spent: Spent = {}
    clock(
        spent,
        hessian_approximations,
        "collect_hessians",
        lambda *_, ev_correction=False, **__: "lambda" if ev_correction else "covariance",
    )
    clock(spent, hessian_approximations, "eigendecompose_owned", lambda *_, **__: "eigen")
    clock(spent, pipeline, "approximate_hessians", lambda *_, **__: "factors")
    clock(spent, pipeline, "build_query", lambda *_, **__: "queries")
    clock(spent, pipeline, "launch_distributed_run", lambda name, *_, **__: name)
    clock(spent, pipeline, "score_dataset", lambda *_, **__: "products")
    return spent


def read_copies() -> None:
    """Rows that are read may be written."""
    plain = astra.Astra._read_row

    def read_row(self: astra.Astra, *given: Any) -> dict[str, torch.Tensor]:
        return {name: row.clone() for name, row in plain(self, *given).items()}

    astra.Astra._read_row = read_row


def write_data(folder: Path) -> None:
    """The tokens as its data sets, and a tokenizer beside the checkpoint."""
    for name in ("train", "queries"):
        tokens = torch.load(folder / f"{name}.pt")
        lengths = [tokens.shape[1]] * len(tokens)
        Dataset.from_dict({"input_ids": tokens.tolist(), "length": lengths}).save_to_disk(
            str(folder / name)
        )
    empty = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=empty, unk_token="?").save_pretrained(
        str(folder / "checkpoint")
    )


def run(folder: Path, precision: Any, steps: int) -> Spent:
    """The whole pipeline; what it finds stays in the folder `run`."""
    n, length = torch.load(folder / "train.pt").shape
    index = IndexConfig(
        run_path=str(folder / "run"),
        model=str(folder / "checkpoint"),
        precision=precision,
        data=DataConfig(dataset=str(folder / "train")),
        include_bias=True,
        loss_reduction="sum",
        token_batch_size=SEQUENCES * length,
    )
    fisher = HessianConfig(
        "kfac", ev_correction=True, use_dataset_labels=True, hessian_dtype=precision
    )
    asked = HessianPipelineConfig(
        query=QuerySetConfig(dataset=str(folder / "queries"), aggregation="none"),
        inversion_cfg=InversionConfig(damping_factor=DAMPING),
        astra=AstraConfig(num_steps=steps, solver="cg", batch_size=n),
    )
    read_copies()
    spent = clocks()
    pipeline.hessian_pipeline(index, fisher, ScoreConfig(), PreprocessConfig(), asked)
    return spent


def found(folder: Path) -> dict[str, torch.Tensor]:
    """Its sums of outer products, eigenvectors and eigenvalues by layer, their positions, and the
    scores [query, train].
    """
    factors = folder / "run" / "hessian" / "kfac"
    tensors = {
        f"{layer}/{name}": tensor.contiguous()
        for name, where in SAVED.items()
        for layer, tensor in load_file(factors / where / "shard_0.safetensors").items()
    }
    total = torch.load(factors / "total_processed.pt")
    scores = torch.from_numpy(np.asarray(load_scores(folder / "run" / "scores")[:]).copy())
    return tensors | {"positions": total, "scores": scores.T.contiguous()}


def main() -> None:
    folder, precision, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):
        write_data(folder)
        Path("/proc/self/clear_refs").write_text("5")  # the record of peak memory starts from now
        before = resident("VmRSS")
        spent = run(folder, precision, steps)
        memory = resident("VmHWM") - before
        save_file(found(folder), folder / "found.safetensors")
    print(json.dumps({"seconds": spent, "memory": memory}))


if __name__ == "__main__":
    main()
