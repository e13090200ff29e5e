"""Cost of generalization measures, as ratios to references of the same run, in CPU seconds.

    UNSEEN_DATA=… python benchmarks/measures.py --json [--only NAME]

* `closed_form_vs_evaluation`: every closed form (norms, margins, spectra, paths) of a CNN over one
  evaluation of 10,000 images.
* `protocol_seconds`: every statistic of 40 measures of 10,000 models, 199 permutations of Ψ.
* `spectral_speedup`: all singular values of a 512 × 512 matrix over its norm from the vector of a
  matrix that differs by one in a thousand.
* `curvature_vs_curvlinops`: our Hessian products per second over those of curvlinops, a peer to be
  installed beside (its dependency asks for torchvision):
  pip install --target DIR --no-deps curvlinops-for-pytorch backpack-for-pytorch unfoldNd
  linear_operator, then PYTHONPATH=DIR.
* `inversion`: `inversion_speedup`, 10⁶ sampled functions of a Gaussian process over the exact
  probability, at three errors; `inversion_bits_error`, the largest difference of their bits where
  at least 1 in 1,000 functions lies (`inversion_bits_allowed`: three standard errors of the samples
  and 0.02).
* `hypotheses_speedup`: 64 networks trained one by one over the same trained together, by their
  number of weights.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from math import log, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from unseen.engine.batches import Columns, once
from unseen.engine.curvature import hessian
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, erm_step, train
from unseen.engine.parameters import copy_parameters, trainable
from unseen.engine.vectorized.choose import train_many
from unseen.lab import Lab
from unseen.measures.bounds import MEASURES, Family, SharedPass
from unseen.measures.bounds.spectral import spectral_norm
from unseen.measures.inductive_bias.gaussian_process import GaussianProcess, PosteriorError
from unseen.method import Trained
from unseen.models.conv import cnn
from unseen.models.mlp import mlp
from unseen.objectives import classify, cross_entropy
from unseen.stats.sweeps import evaluate_measures
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.images import Collection, Images

SAMPLES, PROBABILITIES = 1_000_000, (0.1, 0.01, 0.001)
HYPOTHESES, STEPS, TURNS = 64, 100, 3
CLOSED = (Family.NORM, Family.MARGIN, Family.SPECTRAL, Family.PATH)


def cpu_seconds(run: Callable[[], Any], rounds: int = 5) -> float:
    """The median of a few runs after a warm-up."""
    run()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return statistics.median(found)


def closed_form_vs_evaluation() -> dict[str, float]:
    """All closed forms, the margins' pass included, over one evaluation of the same images."""
    lab = Lab()
    task = Images(Collection.FASHION_MNIST, n_train=10_000).build(lab)
    with lab.child("init").seeded():
        model = cnn()
    start = copy_parameters(model)
    train(model, task, erm_step, Budget(steps=300), lab.child("fit"))
    trained = Trained(model, task, start=start)

    def measure() -> None:
        shared = SharedPass(trained, lab)
        shared.__dict__["margin"] = float(shared.margins.abs().quantile(0.1))  # of any sign
        for one in MEASURES:
            if one.family in CLOSED:
                one(shared, lab)

    data = task.split("train").data
    ours = cpu_seconds(measure, 3)
    reference = cpu_seconds(lambda: per_example(model, data, classify.score, lab), 3)
    return {"closed_form_vs_evaluation": ours / reference, "seconds": ours}


def protocol() -> dict[str, float]:
    """Seven axes of three values, five seeds, of which 10,000 models."""
    rng = np.random.default_rng(0)
    grid = np.array(list(itertools.product(range(3), repeat=7)))
    codes = np.repeat(grid, 5, axis=0)[:10_000]
    gap = codes @ rng.normal(0, 0.02, 7) + rng.normal(0.2, 0.02, len(codes))
    table = {f"axis {k}": codes[:, k] for k in range(7)} | {"gap": gap}
    measures = [f"measure {k}" for k in range(40)]
    for k, name in enumerate(measures):
        table[name] = rng.normal() * gap + rng.normal(0, 0.03, len(codes)) + 0.1 * codes[:, k % 7]
    axes = [f"axis {k}" for k in range(7)]
    start = time.process_time()
    evaluate_measures(table, gap="gap", axes=axes, measures=measures, n_test=10_000)
    return {"protocol_seconds": time.process_time() - start}


def spectral_speedup() -> dict[str, float]:
    """The norm of a trained-like matrix (noise and a few strong directions) that has moved by one
    in a thousand.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    before = normal(512, 512) / 512**0.5 + normal(512, 8) @ normal(8, 512) / 256
    after = before + 1e-3 * before.norm() / 512 * normal(512, 512)
    vector = spectral_norm(before).vector
    warm = cpu_seconds(lambda: spectral_norm(after, vector), 20)
    values = cpu_seconds(lambda: torch.linalg.svdvals(after), 20)
    vectors = cpu_seconds(lambda: torch.linalg.svd(after), 5)
    exact = float(torch.linalg.svdvals(after)[0])
    return {
        "spectral_speedup": vectors / warm,
        "spectral_speedup_over_values_only": values / warm,
        "relative_error": abs(spectral_norm(after, vector).value / exact - 1),
    }


def curvature_vs_curvlinops() -> dict[str, float | str]:
    """Hessian products of an MLP on 1,000 examples, both after a warm-up."""
    try:
        from curvlinops import HessianLinearOperator
    except ImportError as error:
        return {"curvature_vs_curvlinops": f"skipped, curvlinops is not installed ({error})"}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1_000, 64, generator=generator)
    y = torch.randint(10, (1_000,), generator=generator)
    with Lab().seeded():
        model = mlp([64, 128, 128, 10]).eval()
    task = Task(
        name="noise",
        axis=Axis.IID,
        splits={"train": Split(Columns(x=x, y=y), Use.TRAIN)},
        objective=classify,
    )
    batches = list(once(task.split("train").data, 500, Lab()))
    params = trainable(model)
    direction = {name: torch.randn(p.shape, generator=generator) for name, p in params.items()}
    product = hessian(model, batches, cross_entropy)
    pairs = [(batch["x"], batch["y"]) for batch in batches]
    peer = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(params.values()), pairs, check_deterministic=False
    )
    theirs_in = list(direction.values())
    ours, theirs = product(direction), peer @ theirs_in
    gap = max(float((a - b).abs().max()) for a, b in zip(ours.values(), theirs, strict=True)) / max(
        float(a.abs().max()) for a in ours.values()
    )
    ours_seconds = cpu_seconds(lambda: product(direction), 10)
    theirs_seconds = cpu_seconds(lambda: peer @ theirs_in, 10)
    return {"curvature_vs_curvlinops": theirs_seconds / ours_seconds, "relative_difference": gap}


def once_seconds(run: Callable[[], Any]) -> float:
    """Of a single run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def inversion() -> dict[str, Any]:
    """Exact probabilities against sampled functions."""
    error = gaussian_process_error(train=40, test=60, d=3)
    drawn = np.empty(0)

    def sample() -> None:
        nonlocal drawn
        drawn = error.form.sample(SAMPLES, Lab().numpy())

    by_sampling = once_seconds(sample)
    half = SAMPLES // 2
    at = [float(np.quantile(drawn[:half], p)) for p in PROBABILITIES]
    exact = [error.form.log_probability(x) for x in at]
    by_inversion = cpu_seconds(lambda: [error.form.log_probability(x) for x in at], 9)
    shares = [float((drawn[half:] <= x).mean()) for x in at]
    bits = [abs(found - log(share)) / log(2) for found, share in zip(exact, shares, strict=True)]
    worst = max(range(len(at)), key=bits.__getitem__)
    return {
        "inversion_speedup": round(by_sampling / by_inversion, 1),
        "inversion_bits_error": round(bits[worst], 5),
        "inversion_bits_allowed": round(3 / sqrt(shares[worst] * half) / log(2) + 0.02, 5),
    }


def gaussian_process_error(train: int, test: int, d: int) -> PosteriorError:
    """A target drawn from the Gaussian process itself."""
    process, generator = GaussianProcess(), Lab(0).child("task").generator()
    x = torch.randn(train + test, d, generator=generator, dtype=torch.float64)
    covariance = process.covariance(x, x)
    covariance.diagonal().add_(process.jitter)
    normal = torch.randn(train + test, 1, generator=generator, dtype=torch.float64)
    y = torch.linalg.cholesky(covariance) @ normal
    return process.error(x[:train], y[:train], x[train:], y[train:])


def hypotheses() -> dict[str, Any]:
    """Networks trained together and one by one, in turns, so that a busy machine slows both."""
    found = {}
    for widths in ([64, 64, 10], [196, 32, 10]):
        task = teacher_task(widths[0])
        budget, labs = Budget(steps=STEPS, batch_size=32), [Lab(k) for k in range(HYPOTHESES)]
        train_many(networks(widths, labs[:4]), task, erm_step, budget, labs[:4])
        train(networks(widths, labs[:1])[0], task, erm_step, budget, labs[0])
        together, alone = [], []
        for turn in range(TURNS):
            models = networks(widths, labs)
            together.append(once_seconds(lambda: train_many(models, task, erm_step, budget, labs)))  # noqa: B023
            for k in range(turn, HYPOTHESES, 4 * TURNS):
                model = networks(widths, labs[k : k + 1])[0]
                alone.append(once_seconds(lambda: train(model, task, erm_step, budget, labs[k])))  # noqa: B023
        weights = sum(p.numel() for p in mlp(widths).parameters())
        found[str(weights)] = round(
            statistics.median(alone) * HYPOTHESES / statistics.median(together), 2
        )
    return found


def networks(widths: list[int], labs: list[Lab]) -> list[nn.Module]:
    """Untrained networks, one per lab."""
    models: list[nn.Module] = []
    for lab in labs:
        with lab.child("init").seeded():
            models.append(mlp(widths))
    return models


def teacher_task(d: int) -> Task:
    """1,000 normal inputs, labelled by a linear teacher."""
    generator = Lab(0).child("teacher").generator()
    x = torch.randn(1_000, d, generator=generator)
    y = (x @ torch.randn(d, 10, generator=generator)).argmax(1)
    splits = {"train": Split(Columns(x=x, y=y), Use.TRAIN)}
    return Task(name="teacher", axis=Axis.IID, splits=splits, objective=classify)


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "closed_form_vs_evaluation": closed_form_vs_evaluation,
    "protocol_seconds": protocol,
    "spectral_speedup": spectral_speedup,
    "curvature_vs_curvlinops": curvature_vs_curvlinops,
    "inversion": inversion,
    "hypotheses_speedup": hypotheses,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", choices=tuple(BENCHMARKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = {name: run() for name, run in BENCHMARKS.items() if options.only in (None, name)}
    if options.json:
        print(json.dumps(out, indent=2))
        return
    for name, row in out.items():
        print(name, *(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
