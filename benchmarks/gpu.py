"""What one large GPU makes of the three heaviest jobs, in at most eight minutes.

    PYTHONPATH=src python benchmarks/gpu.py --json gpu.json    # on a GPU, sizes for one H200
    PYTHONPATH=src python benchmarks/gpu.py --tiny             # the same code on a CPU, 20 seconds

So far it was run on a CPU only: no GPU was lent when it was written.

Four parts, each within its own seconds (`BUDGETS`; `--only PART …` chooses). A line is printed and
the JSON file rewritten, whole, as soon as a figure is known: a kill loses the running part only,
and a part that reaches its limit keeps what it had.

* `peak`: operations per second of a large product in bfloat16 and float32 (the ceilings below), and
  seconds of one eigendecomposition in float64;
* `coherence`: `measures.coherence` over images with a ViT-B/16-sized model (86 million weights),
  beside an ordinary forward and backward pass over the same batches, both under bfloat16 autocast;
* `ensemble`: 1,000 small models trained at once by `train_many`, beside the loop over a few of
  them;
* `influence`: EK-FAC factors (sampled Fisher) and scores of a model shaped like Pythia-410M
  (GPT-NeoX, random weights, bfloat16) on 10,000 sequences of 128 tokens × 100 queries. A trial with
  two of the 24 blocks comes first; if what it foretells does not fit into the seconds left, the run
  takes fewer sequences, and says so.

`share_of_peak` is the operations of products and convolutions, counted on a small batch of the same
run and scaled, per second, over the measured bfloat16 peak; eigendecompositions have time and no
operations. `BERGSON` are published figures of another program on another machine (one GH200, 10⁸
tokens) for other sizes of Pythia: what they time is a pass that gathers gradients, so they stand
beside our passes, not beside our totals. Labels are drawn on the device here: the library's
`drawn_tokens` draws on the CPU, so that numbers do not depend on the device, and would take most of
the time.
"""

import argparse
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unseen.attributions.influence import Influence, InfluenceScores, Precision, sequence_nats
from unseen.attributions.influence.factors import Fit, squares_in_basis
from unseen.attributions.influence.layers import pairs, restrict_gradients
from unseen.engine.batches import Columns, gather, once
from unseen.engine.kron import Covariances
from unseen.engine.loop import Budget, erm_step
from unseen.engine.operation_count import CountOperations
from unseen.engine.vectorized.choose import train_looped, train_many
from unseen.engine.vectorized.loop import TrainingRuns
from unseen.lab import Lab
from unseen.measures.coherence import coherence
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.models.pretrained import CausalLM
from unseen.objectives import classify, cross_entropy, sequence_log_probability
from unseen.runs.store import write_atomic
from unseen.task import Axis, Batch, Objective, Split, Task, Use

BUDGETS = {"peak": 20.0, "coherence": 90.0, "ensemble": 90.0, "influence": 265.0}
"""Seconds of each part, at most; together under eight minutes."""
BERGSON = {"Pythia-160M": 38_000, "Pythia-1B": 28_000, "Pythia-6.9B": 13_000}
"""Tokens per second, published."""
MARGIN = 0.7
"""The part of the seconds left that a run may be foretold to take."""


@dataclass(frozen=True)
class Sizes:
    """Of everything; the defaults are those of the GPU."""

    product: int = 8192
    spectrum: int = 4096
    image: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    images: int = 2_048
    image_batch: int = 64
    models: int = 1_000
    looped: int = 4
    steps: int = 150
    hidden: int = 1024
    blocks: int = 24
    vocabulary: int = 50_304
    sequences: int = 10_000
    trial: int = 512
    length: int = 128
    queries: int = 100
    text_batch: int = 64


TINY = Sizes(
    product=256,
    spectrum=64,
    image=16,
    patch=4,
    width=32,
    depth=2,
    images=32,
    image_batch=8,
    models=8,
    looped=2,
    steps=50,
    hidden=32,
    blocks=4,
    vocabulary=97,
    sequences=48,
    trial=16,
    length=12,
    queries=3,
    text_batch=8,
)


class OutOfTime(Exception):
    """A part took longer than it may."""


@dataclass
class Report:
    """Figures by part, printed and written as they come."""

    device: torch.device
    path: Path | None
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    part: str = ""

    def add(self, **figures: Any) -> None:
        # JSON knows no NaN
        figures = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in figures.items()
        }
        self.figures.setdefault(self.part, {}).update(figures)
        for name, value in figures.items():
            shown = f"{value:.4g}" if isinstance(value, float) else value
            print(f"{self.part:10} {name:34} {shown}", flush=True)
        if self.path is not None:
            write_atomic(self.path, json.dumps(self.figures, indent=1).encode())

    @property
    def peak(self) -> float:
        """bfloat16 operations per second; NaN where it was not measured."""
        return float(self.figures.get("peak", {}).get("bfloat16_tflops", "nan")) * 1e12

    def run(self, part: str, seconds: float, work: Callable[[], None]) -> None:
        """The part, ended after its seconds; an error of one leaves the others."""
        self.part = part
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        try:
            with limit(seconds):
                work()
        except OutOfTime:
            self.add(stopped=f"after {seconds:.0f} s; the figures above stand")
        except Exception as error:  # the next part may still say something
            self.add(error=f"{type(error).__name__}: {str(error).splitlines()[0]}")
        self.add(seconds=time.perf_counter() - began, peak_memory_gib=self.memory())

    def memory(self) -> float:
        """The most that was allocated on the device in this part; on a CPU by this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**30
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) / 2**20

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds_of(self, work: Callable[[], object], rounds: int = 1) -> float:
        """Wall seconds on a device that is idle before and after: the best of so many rounds."""
        best = float("inf")
        for _ in range(rounds):
            self.synchronize()
            began = time.perf_counter()
            work()
            self.synchronize()
            best = min(best, time.perf_counter() - began)
        return best


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises `OutOfTime` in the block after so many seconds."""

    def ring(number: int, frame: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ceilings(report: Report, sizes: Sizes) -> None:
    n, name = sizes.product, "processor"
    if report.device.type == "cuda":
        name = torch.cuda.get_device_name()
    report.add(device=name, torch=torch.__version__)
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (torch.randn(n, n, device=report.device, dtype=dtype) for _ in range(2))
        partial(torch.matmul, a, b)()
        seconds = report.seconds_of(partial(repeat, partial(torch.matmul, a, b), 5), rounds=3) / 5
        report.add(**{f"{str(dtype).rpartition('.')[2]}_tflops": 2e-12 * n**3 / seconds})
    x = torch.randn(sizes.spectrum, sizes.spectrum, device=report.device, dtype=torch.float64)
    torch.linalg.eigh(x[:8, :8])  # loads the library
    report.add(
        **{f"eigh_{sizes.spectrum}_seconds": report.seconds_of(partial(torch.linalg.eigh, x @ x.T))}
    )


def repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 64)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, s, d = x.shape
        q, k, v = self.qkv(self.first(x)).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(b, s, d))
        return x + self.down(F.gelu(self.up(self.second(x))))


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al., 2021) with the mean of the patches instead of a class token."""

    def __init__(self, sizes: Sizes, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, sizes.width, sizes.patch, stride=sizes.patch)
        self.positions = nn.Embedding((sizes.image // sizes.patch) ** 2, sizes.width)
        self.blocks = nn.Sequential(*(Block(sizes.width) for _ in range(sizes.depth)))
        self.norm, self.head = nn.LayerNorm(sizes.width), nn.Linear(sizes.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).mT
        places = torch.arange(patches.shape[1], device=x.device)[None]
        return self.head(self.norm(self.blocks(patches + self.positions(places))).mean(1))


def measured_coherence(report: Report, sizes: Sizes) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(sizes).to(report.device)
    report.add(parameters=sum(p.numel() for p in model.parameters()))
    # data stay on the CPU, batches are moved
    x = torch.randn(sizes.images, 3, sizes.image, sizes.image)
    y = torch.randint(0, 1000, (sizes.images,))
    lab = Lab(device=report.device)

    def read(n: int) -> float:
        few = Columns(x=x[:n], y=y[:n])
        return coherence(model, cross_entropy, few, lab, batch_size=sizes.image_batch).alpha

    def backward(n: int) -> None:
        model.zero_grad()
        for batch in once(Columns(x=x[:n], y=y[:n]), sizes.image_batch, lab):
            cross_entropy(model, batch).sum().backward()

    few, half = 2 * sizes.image_batch, torch.bfloat16
    with torch.autocast(report.device.type, half):
        read(few)
        backward(few)
        seconds = report.seconds_of(partial(read, few), rounds=2)
        report.add(images_per_second_of_few=few / seconds)
        with CountOperations() as counted:
            read(few)
        plain = report.seconds_of(partial(backward, sizes.images))
        report.add(backward_images_per_second=sizes.images / plain)
        seconds = report.seconds_of(partial(read, sizes.images))
    model.zero_grad()
    report.add(
        images_per_second=sizes.images / seconds,
        times_of_backward=seconds / plain,
        share_of_peak=counted.total * sizes.images / few / seconds / report.peak,
    )


def many_models(report: Report, sizes: Sizes) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2_000, 64, generator=generator)
    teacher = torch.randn(64, 10, generator=generator)
    split = Split(Columns(x=x, y=(x @ teacher).argmax(1)), Use.TRAIN)
    task = Task(name="teacher", axis=Axis.IID, objective=classify, splits={"train": split})
    budget = Budget(steps=sizes.steps, batch_size=32)
    labs = [Lab(k, device=report.device) for k in range(sizes.models)]

    def untrained(n: int) -> list[nn.Module]:
        models = []
        for lab in labs[:n]:
            with lab.child("init").seeded():
                models.append(mlp([64, 64, 10]).to(report.device))
        return models

    few = sizes.looped
    runs = TrainingRuns(untrained(few), [task] * few, [erm_step] * few, [budget] * few, labs[:few])
    train_looped(runs.shorten(5, labs[0].sink))
    loop = report.seconds_of(partial(train_looped, runs)) / few
    report.add(models_per_second_looped=1 / loop)
    for n in sorted({min(64, sizes.models), sizes.models}):
        models, found = untrained(n), list[Trained]()
        seconds = report.seconds_of(
            lambda: found.extend(train_many(models, task, erm_step, budget, labs[:n]))  # noqa: B023
        )
        report.add(
            **{
                f"models_per_second_{n}": n / seconds,
                f"speedup_{n}": loop * n / seconds,
                f"stacked_{n}": bool(found[0].curves["stacked"][0]),
            }
        )


def drawn_on_device(model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    """`objectives.drawn_tokens` by inverse distribution functions, where the model is."""
    with torch.no_grad():
        heights = model(batch["tokens"])[:, :-1].float().softmax(-1).cumsum(-1)
    draw = torch.rand(heights.shape[:2], generator=generator).to(heights.device)[..., None]
    drawn = torch.searchsorted(heights, draw * heights[..., -1:]).clamp_max(heights.shape[-1] - 1)
    return {**batch, "labels": torch.cat([batch["tokens"][:, :1], drawn[..., 0]], 1)}


SEQUENCES = Objective(sequence_nats, sequence_log_probability, drawn_on_device)


class Clock:
    """Wall seconds of methods by name, the device idle before and after."""

    def __init__(self, report: Report) -> None:
        self.report, self.seconds = report, dict[str, float]()

    @contextmanager
    def inside(self, owner: type, method: str, name: str) -> Iterator[None]:
        plain: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            found: list[Any] = []
            spent = self.report.seconds_of(lambda: found.append(plain(*args, **kwargs)))
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            return found[0]

        setattr(owner, method, timed)
        try:
            yield
        finally:
            setattr(owner, method, plain)


def influence(report: Report, sizes: Sizes) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    began = time.perf_counter()
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.blocks,
        num_attention_heads=max(1, sizes.hidden // 64),
        intermediate_size=4 * sizes.hidden,
        max_position_embeddings=2048,
        rotary_pct=0.25,
    )
    network = GPTNeoXForCausalLM(config).to(report.device, torch.bfloat16)
    model = CausalLM(network, None).eval()
    weights = sum(p.numel() for p in model.parameters())
    report.add(parameters=weights)
    shape = (sizes.sequences + sizes.queries, sizes.length)
    tokens = torch.randint(0, sizes.vocabulary, shape, generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[:, 0] = 0  # context only
    few = max(1, sizes.blocks // 12)
    chosen = [f"*layers.{k}.*" for k in range(few)]
    maps = (
        "attention.query_key_value",
        "attention.dense",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    )
    trial = tuple(f"{one}{name}" for one in chosen for name in maps)
    whole = tuple(f"*layers.*.{name}" for name in maps)
    asked = {"tokens": tokens[sizes.sequences :], "mask": mask[sizes.sequences :]}
    asked = {name: t.to(report.device) for name, t in asked.items()}

    def run(n: int, layers: Sequence[str], prefix: str) -> dict[str, float]:
        """Seconds by phase, added to the report under the prefix."""
        split = Split(Columns(tokens=tokens[:n], mask=mask[:n]), Use.TRAIN)
        task = Task(name="text", axis=Axis.IID, objective=SEQUENCES, splits={"train": split})
        settings = Influence(
            layers=tuple(layers),
            precision=Precision.BFLOAT16,
            batch_size=sizes.text_batch,
            memory=0,
            loss=sequence_nats,
        )
        clock, found = Clock(report), list[InfluenceScores]()
        lab = Lab(device=report.device)
        with (
            clock.inside(Fit, "_bases", "first pass"),
            clock.inside(Covariances, "basis", "eigenvectors"),
            clock.inside(Fit, "_eigenvalue_correction", "second pass"),
        ):
            fit = report.seconds_of(
                lambda: found.append(settings.prepare(Trained(model, task), lab))
            )
        spent = clock.seconds | {"fit": fit}
        spent["first pass"] -= spent["eigenvectors"]
        named = {f"{prefix}{name.replace(' ', '_')}_seconds": s for name, s in spent.items()}
        report.add(**{f"{prefix}sequences": n, **named})
        passes = spent["first pass"] + spent["second pass"]
        read = n * sizes.length
        report.add(**{f"{prefix}fit_tokens_per_second": read / fit})
        report.add(**{f"{prefix}passes_tokens_per_second": read / passes})
        at_once, precision, solving, scores = scored(report, found[0], asked)
        spent |= {"queries": solving, "scores": scores}
        counts = operations(found[0], task, sizes, asked)
        work = (counts["first pass"] + counts["second pass"]) * n
        report.add(
            **{
                f"{prefix}queries_at_once": at_once,
                f"{prefix}score_precision": str(precision),
                f"{prefix}query_seconds": solving,
                f"{prefix}score_seconds": scores,
                f"{prefix}score_tokens_per_second": read / scores,
                f"{prefix}total_tokens_per_second": read / (fit + solving + scores),
                f"{prefix}share_of_peak_passes": work / passes / report.peak,
                f"{prefix}share_of_peak_scores": counts["scores"] * n / scores / report.peak,
            }
        )
        return spent

    spent = run(min(sizes.trial, sizes.sequences), trial, "trial_")
    left = BUDGETS["influence"] - (time.perf_counter() - began)
    ratio = sizes.blocks / few
    fixed = (spent["eigenvectors"] + spent["queries"]) * ratio
    # products of tracked layers grow with their number, the model's own passes do not: half each
    each = (spent["first pass"] + spent["second pass"]) * (1 + ratio / 4) + spent["scores"] * ratio
    n = int((MARGIN * left - fixed) / (each / min(sizes.trial, sizes.sequences)))
    n = min(sizes.sequences, n // sizes.text_batch * sizes.text_batch)
    report.add(foretold_seconds=fixed + each * n / min(sizes.trial, sizes.sequences))
    if n <= 0:
        report.add(left_out=f"eigenvectors alone would take {fixed:.0f} of {left:.0f} s left")
        return
    if n < sizes.sequences:
        report.add(shortened=f"{n} of {sizes.sequences} sequences fit into {left:.0f} s")
    run(n, whole, "")
    report.add(published_tokens_per_second=BERGSON)


def scored(
    report: Report, found: InfluenceScores, asked: Batch
) -> tuple[int, Precision, float, float]:
    """(queries scored together, the precision that was confirmed, seconds of solving for the
    queries, seconds of the scores): fewer queries at once where memory ends.
    """
    n = at_once = len(asked["tokens"])
    while True:
        try:
            solving = scores = 0.0
            for start in range(0, n, at_once):
                part = {name: tensor[start : start + at_once] for name, tensor in asked.items()}
                made: list[tuple[Any, Precision]] = []
                solving += report.seconds_of(
                    lambda: made.append(found.prepare_queries(part, sequence_log_probability))  # noqa: B023
                )
                scores += report.seconds_of(lambda: found._matrix(*made[0]))  # noqa: B023
                precision = made[0][1]
            return at_once, precision, solving, scores
        except torch.OutOfMemoryError:
            if at_once == 1:
                raise
        made.clear()
        torch.cuda.empty_cache()
        at_once = (at_once + 1) // 2


def operations(found: InfluenceScores, task: Task, sizes: Sizes, asked: Batch) -> dict[str, float]:
    """Of products per sequence, counted on two: each pass of the fit, and the scores."""
    model, blocks = found.trained.model, found.factors.blocks
    batch = {
        name: t.to(found.lab.device)
        for name, t in gather(task.splits["train"].data, torch.arange(2)).items()
    }
    with restrict_gradients(model, found.layers):
        with CountOperations() as first:
            drawn = drawn_on_device(model, batch, torch.Generator())
            given = pairs(model, drawn, sequence_nats)
            for pair in given.values():
                Covariances().add(pair, None)
        with CountOperations() as second:
            drawn = drawn_on_device(model, batch, torch.Generator())
            for name, pair in pairs(model, drawn, sequence_nats, False, True).items():
                squares_in_basis(blocks[name], pair)
    few = {name: tensor[:2] for name, tensor in asked.items()}
    ready, precision = found.prepare_queries(few, sequence_log_probability)
    rows = torch.arange(2)
    with CountOperations() as model_only:
        found._pairs(found.stream.at(rows), precision)
    with CountOperations() as scores:
        list(found.columns(ready, precision, rows))
    products = (scores.total - model_only.total) * len(asked["tokens"]) / 2
    return {
        "first pass": first.total / 2,
        "second pass": second.total / 2,
        "scores": (model_only.total + products) / 2,
    }


PARTS: dict[str, Callable[[Report, Sizes], None]] = {
    "peak": ceilings,
    "coherence": measured_coherence,
    "ensemble": many_models,
    "influence": influence,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="rewritten with every figure")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU, to try the script")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    sizes = TINY if options.tiny or options.device == "cpu" else Sizes()
    if options.device == "cpu":
        torch.set_num_threads(1)
        if not options.tiny:
            print("no GPU: tiny sizes, which try the script and measure nothing")
    report = Report(torch.device(options.device), options.json)
    for part in options.only:
        report.run(part, BUDGETS[part], partial(PARTS[part], report, sizes))


if __name__ == "__main__":
    main()
