"""Eight explanations of 64 inputs against captum, lime and shap, at equal numbers of model
evaluations.

    python benchmarks/explain.py --json

Table: 30 features, perceptron 30-64-32-2 on the breast-cancer data. Image: 28 × 28 pixels, 49
patches, a small convolutional network with random weights; gradients by pixel. One thread, float32,
ours and the peers in turn after a warm-up; CPU seconds decide, wall seconds are beside them. Peers
get their best setting (all perturbations of an input in one pass where they can); slow ones explain
the first inputs only, and their seconds are scaled per input.

C-LIME has no peer of its own: the nearest is lime's tabular explainer with Gaussian samples around
the instance, no discretisation, a flat kernel and plain least squares, which is C-LIME. For images
there is none.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import (
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
    NoiseTunnel,
    Saliency,
)
from captum.attr._core.lime import get_exp_kernel_similarity_function
from lime import lime_image, lime_tabular
from shap import KernelExplainer
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unseen.attributions import explanation as own
from unseen.engine.local.features import FeatureSpec, patches
from unseen.engine.local.neighbourhoods import Rule
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch
from unseen.testing import small_task

INPUTS, SAMPLES, NODES, SIGMA, WIDTH = 64, 1_000, 50, 0.1, 4.0
CLASS = 1


def logit(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["x"])[:, CLASS]


@dataclass(frozen=True)
class Scene:
    """A model and inputs; `mask` numbers the features of perturbation methods."""

    name: str
    model: nn.Module
    x: Tensor
    mask: Tensor | None = None
    train: Tensor | None = None

    @property
    def features(self) -> int:
        return self.x[0].numel() if self.mask is None else int(self.mask.max()) + 1


def table() -> Scene:
    data = load_breast_cancer()
    x = torch.tensor(data.data, dtype=torch.float32)
    x = (x - x.mean(0)) / x.std(0)
    y = torch.tensor(data.target)
    with Lab().child("table").seeded():
        model = nn.Sequential(
            nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return Scene("table", model.eval().requires_grad_(False), x[:INPUTS], None, x)


def image() -> Scene:
    with Lab().child("image").seeded():
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(784, 10),
        )
        x = torch.rand(INPUTS, 1, 28, 28)
    return Scene("image", model.eval().requires_grad_(False), x, patches((1, 28, 28), 4))


Run = Callable[[int], Tensor]
"""Explains the first so many inputs: credits [input, feature]."""


@dataclass(frozen=True)
class Race:
    """One method, ours and a peer's. `few`: inputs the peer is timed on. `evaluations`: per input,
    of both.
    """

    method: str
    peer: str
    ours: Run
    theirs: Run
    few: int
    evaluations: int
    gradients: bool = False


def races(scene: Scene) -> Iterator[Race]:
    model, x, d = scene.model, scene.x, scene.features
    masked, numbered = (
        FeatureSpec(mask=scene.mask),
        None if scene.mask is None else scene.mask[None],
    )
    trained = Trained(model, small_task())

    def ours(preset: own.Preset) -> Run:
        explain = preset.prepare(trained, Lab())
        return lambda n: explain({"x": x[:n]}, logit).scores

    def by_feature(credits: Tensor) -> Tensor:
        """Captum repeats a feature's credit at each of its entries."""
        if scene.mask is None:
            return credits.flatten(1)
        first = [int((scene.mask.flatten() == k).nonzero()[0]) for k in range(d)]
        return credits.flatten(1)[:, first]

    kernel = get_exp_kernel_similarity_function("euclidean", kernel_width=WIDTH)
    captum_lime = Lime(model, interpretable_model=SkLearnLinearRegression(), similarity_func=kernel)
    whole = {
        "target": CLASS,
        "feature_mask": numbered,
        "n_samples": SAMPLES,
        "perturbations_per_eval": SAMPLES,
    }
    lime = ours(own.Lime(WIDTH * 2**0.5, SAMPLES, scaled=False, inputs=masked))
    shapley = ours(own.KernelShap(SAMPLES, inputs=masked))

    def looped(explainer: Lime) -> Run:
        return lambda n: by_feature(
            torch.cat([explainer.attribute(x[k : k + 1], **whole) for k in range(n)])
        )

    yield Race("LIME", "captum", lime, looped(captum_lime), 4, SAMPLES)
    yield Race("KernelSHAP", "captum", shapley, looped(KernelShap(model)), 4, SAMPLES + 2)
    if scene.name == "table":
        yield Race("KernelSHAP", "shap", shapley, by_shap(scene), 8, SAMPLES + 2)
        clime = ours(own.CLime(SIGMA, SAMPLES))
        yield Race(
            "C-LIME",
            "lime (tabular, Gaussian samples around the instance)",
            clime,
            by_lime(scene),
            16,
            SAMPLES,
        )
    else:
        relative = ours(own.Lime(0.25, SAMPLES, inputs=masked))
        yield Race("LIME", "lime (image)", relative, by_lime_image(scene), 4, SAMPLES)
    ablation = FeatureAblation(model)
    yield Race(
        "Occlusion",
        "captum",
        ours(own.Occlusion(masked)),
        lambda n: by_feature(
            ablation.attribute(x[:n], target=CLASS, feature_mask=numbered, perturbations_per_eval=d)
        ),
        INPUTS,
        d + 1,
    )
    saliency, product, integrated = (
        Saliency(model),
        InputXGradient(model),
        IntegratedGradients(model),
    )

    def leaf(
        n: int,
    ) -> (
        Tensor
    ):  # captum warns, and switches it on itself, where the input does not ask for gradients
        return x[:n].clone().requires_grad_()

    yield Race(
        "Vanilla Gradients",
        "captum",
        ours(own.VanillaGradients()),
        lambda n: saliency.attribute(leaf(n), target=CLASS, abs=False).flatten(1),
        INPUTS,
        1,
        True,
    )
    yield Race(
        "Gradient × Input",
        "captum",
        ours(own.GradientTimesInput()),
        lambda n: product.attribute(leaf(n), target=CLASS).flatten(1).detach(),
        INPUTS,
        1,
        True,
    )
    tunnel = NoiseTunnel(saliency)
    yield Race(
        "SmoothGrad",
        "captum",
        ours(own.SmoothGrad(SIGMA, NODES)),
        lambda n: (
            tunnel.attribute(
                leaf(n),
                nt_type="smoothgrad",
                nt_samples=NODES,
                nt_samples_batch_size=NODES,
                stdevs=SIGMA,
                target=CLASS,
                abs=False,
            )
            .flatten(1)
            .detach()
        ),
        INPUTS,
        NODES,
        True,
    )
    yield Race(
        "Integrated Gradients",
        "captum",
        ours(own.IntegratedGradients(NODES, Rule.MIDPOINT)),
        lambda n: integrated.attribute(
            x[:n],
            target=CLASS,
            n_steps=NODES,
            method="riemann_middle",
            return_convergence_delta=True,
        )[0].flatten(1),
        INPUTS,
        NODES + 2,
        True,
    )


def by_shap(scene: Scene) -> Run:
    def f(rows: np.ndarray) -> np.ndarray:
        return scene.model(torch.as_tensor(rows, dtype=torch.float32))[:, CLASS].numpy()

    explainer = KernelExplainer(f, np.zeros((1, scene.features)), silent=True)
    return lambda n: torch.as_tensor(
        explainer.shap_values(scene.x[:n].numpy(), nsamples=SAMPLES, l1_reg=0, silent=True)
    ).float()


def by_lime(scene: Scene) -> Run:
    assert scene.train is not None
    noise = SIGMA * np.random.default_rng(0).normal(size=(20_000, scene.features))
    explainer = lime_tabular.LimeTabularExplainer(
        noise,
        mode="regression",
        kernel_width=1e6,
        discretize_continuous=False,
        sample_around_instance=True,
        feature_selection="none",
        random_state=0,
    )

    def f(rows: np.ndarray) -> np.ndarray:
        return scene.model(torch.as_tensor(rows, dtype=torch.float32))[:, CLASS].numpy()

    def run(n: int) -> Tensor:
        rows = []
        for row in scene.x[:n].numpy():
            found = explainer.explain_instance(
                row.astype(float),
                f,
                num_features=scene.features,
                num_samples=SAMPLES,
                model_regressor=LinearRegression(),
            )
            rows.append([w for _, w in sorted(found.local_exp[1])])
        return torch.tensor(rows) / torch.as_tensor(noise.std(0))

    return run


def by_lime_image(scene: Scene) -> Run:
    assert scene.mask is not None
    explainer, segments = lime_image.LimeImageExplainer(random_state=0), scene.mask[0].numpy()

    def f(images: np.ndarray) -> np.ndarray:
        return scene.model(torch.as_tensor(images[..., 0], dtype=torch.float32)[:, None]).numpy()

    def run(n: int) -> Tensor:
        rows = []
        for row in scene.x[:n, 0].numpy():
            found = explainer.explain_instance(
                row.astype(float),
                f,
                labels=(CLASS,),
                top_labels=None,
                hide_color=0,
                num_samples=SAMPLES,
                batch_size=SAMPLES,
                segmentation_fn=lambda _: segments,
                model_regressor=LinearRegression(),
            )
            rows.append([w for _, w in sorted(found.local_exp[CLASS])])
        return torch.tensor(rows)

    return run


@dataclass(frozen=True)
class Timed:
    cpu: float
    wall: float
    credits: Tensor


def timed(run: Run, n: int) -> Timed:
    cpu, wall = time.process_time(), time.perf_counter()
    credits = run(n)
    return Timed(time.process_time() - cpu, time.perf_counter() - wall, credits.detach())


def gemm_peak(size: int = 1024) -> float:
    """FLOP per CPU second of a square float32 product: the best of many."""
    a, b, best = torch.randn(size, size), torch.randn(size, size), float("inf")
    for _ in range(20):
        start = time.process_time()
        a @ b
        best = min(best, time.process_time() - start)
    return 2 * size**3 / best


def measured(race: Race, scene: Scene, rounds: int, peak: float) -> dict:
    repeats = 10 if race.evaluations < 200 else 1  # a clock tick is too coarse for a single call

    def often(run: Run, times: int) -> Run:
        def several(n: int) -> Tensor:
            for _ in range(times - 1):
                run(n)
            return run(n)

        return several

    slow = repeats if race.few == INPUTS else 1
    mine, theirs = often(race.ours, repeats), often(race.theirs, slow)
    race.ours(INPUTS), race.theirs(min(2, race.few))
    a, b = [], []
    for _ in range(
        7 * rounds if race.evaluations == 1 else rounds
    ):  # a ratio near 1 needs many looks
        a.append(timed(mine, INPUTS))
        b.append(timed(theirs, race.few))
    cpu = statistics.median(t.cpu for t in a) / repeats
    wall = statistics.median(t.wall for t in a) / repeats
    share = INPUTS / race.few / slow
    peer_cpu = statistics.median(t.cpu for t in b) * share
    peer_wall = statistics.median(t.wall for t in b) * share
    counter = FlopCounterMode(display=False)
    with counter:
        scene.model(scene.x)
    flop = counter.get_total_flops() * race.evaluations * (2 if race.gradients else 1)
    pairs = torch.stack(
        [a[-1].credits[: race.few].flatten().double(), b[-1].credits.flatten().double()]
    )
    return {
        "method": race.method,
        "input": scene.name,
        "peer": race.peer,
        "speedup": peer_cpu / cpu,
        "speedup_wall": peer_wall / wall,
        "agreement": float(torch.corrcoef(pairs)[0, 1]),
        "evaluations_per_input": race.evaluations,
        "cpu_seconds": cpu,
        "peer_cpu_seconds": peer_cpu,
        "peer_inputs_timed": race.few,
        "fraction_of_gemm_peak": flop / cpu / peak,
    }


def together(lines: list[dict]) -> dict:
    """All eight on the table, each against the fastest of its peers."""
    fastest: dict[str, dict] = {}
    for line in lines:
        if (
            line["input"] == "table"
            and line["peer_cpu_seconds"]
            < fastest.get(line["method"], line)["peer_cpu_seconds"] + 1e-12
        ):
            fastest[line["method"]] = line
    cpu, peer = (
        sum(line[key] for line in fastest.values()) for key in ("cpu_seconds", "peer_cpu_seconds")
    )
    return {
        "method": "all eight",
        "input": "table",
        "peer": "the fastest of captum, lime and shap for each",
        "speedup": peer / cpu,
        "agreement": min(line["agreement"] for line in fastest.values()),
        "cpu_seconds": cpu,
        "peer_cpu_seconds": peer,
        "methods": sorted(fastest),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("table", "image"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    peak, lines = gemm_peak(), []
    for make in (table, image):
        if options.only in (None, make.__name__):
            scene = make()
            lines += [measured(race, scene, options.rounds, peak) for race in races(scene)]
    if options.only != "image":
        lines.append(together(lines))
    if options.json:
        print(json.dumps(lines, indent=1, ensure_ascii=False))
        return
    print(f"GEMM peak {peak / 1e9:.0f} GFLOP/s")
    for line in lines:
        print(
            *(
                f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
                for key, value in line.items()
            )
        )


if __name__ == "__main__":
    main()
