"""Eight explanation methods are one local function approximation, and none of them is best everywhere.

Han, Srinivas & Lakkaraju (2022), arXiv:2206.01254. Parts: "same" (each method, coded by its own definition, against its
instance of the approximation), "lunch" (explanation i judged on neighbourhood j, on fresh samples), "recovery" (linear
and logistic models, whose weights are known), "test" (top-k and bottom-k features perturbed). The authors' tables (WHO
life expectancy, HELOC) are not public packages: two tables of scikit-learn stand for them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen import effects, views
from unseen.attributions.explanation import eight
from unseen.attributions.explanation.solve import Approximation, explained
from unseen.engine.approximation import Explanation, Family, Loss, Slopes, Values, on, seen
from unseen.engine.around import Around, around
from unseen.engine.batches import whole
from unseen.engine.inputs import Inputs
from unseen.engine.loop import Budget, Optimizer
from unseen.engine.neighbourhoods import Coalitions, Gaussian, Map, Segment
from unseen.figure import Bars, Grid
from unseen.lab import Lab
from unseen.measures.faithfulness import Noise, Order, changes
from unseen.methods.early_stopping import EarlyStopping
from unseen.source import Source
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, column, gap, pick
from unseen.task import Batch
from unseen.tasks.tabular import Known, Tabular

TIES = ({"C-LIME", "SmoothGrad"}, {"Vanilla Gradients", "Gradient × Input"})
"""Equal in expectation: Stein's lemma; the same gradient in two units."""
ADDITIVE = ("C-LIME", "SmoothGrad", "Vanilla Gradients")
BINARY = ("LIME", "KernelSHAP", "Occlusion")


@dataclass(frozen=True)
class Config:
    tables: tuple[Known, ...] = (Known.DIABETES, Known.CANCER)
    hidden: tuple[int, ...] = (2,)
    """Numbers of hidden layers of width 8; linear models are always trained beside them."""
    points: int = 60
    noise: int = 20_000
    """Gaussian samples."""
    masks: int = 4_096
    sigma: float = 0.1
    width: float = 1.0
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    """Of the features, perturbed in the perturbation tests."""
    steps: int = 500
    seeds: int = 10


@dataclass(frozen=True)
class Cell:
    config: Config
    table: Known
    hidden: int
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        for table in config.tables:
            for hidden in config.hidden:
                yield Cell(config, table, hidden, seed)


def output(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """The prediction, or the logit of the second class."""
    return model(batch["x"])[:, 0]


def probability(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    return output(model, batch).sigmoid()


def network(d: int, hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k in range(hidden):
        layers += [nn.Linear(8 if k else d, 8), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(8 if hidden else d, 1))


def run(cell: Cell, lab: Lab) -> Iterable[Row]:
    # float64: losses of matching pairs are differences of nearly equal numbers
    lab = Lab(lab.seed, lab.device, torch.float64, lab.path, lab.ranks, lab.sink, lab.keeper)
    config, net = cell.config, trained(cell, cell.hidden, lab)
    at = near(cell, net, output, lab)
    answers = {name: explained(at, how, lab.child("explain", name)) for name, how in instances(config).items()}
    facts: Row = {"table": str(cell.table), "hidden": cell.hidden, "seed": cell.seed}
    rows = [*lunch(at, answers, config, lab), *same(at, answers, config, lab), *tests(at, answers, config, lab)]
    rows += recovery(cell, trained(cell, 0, lab), lab)
    return [{**facts, **row} for row in rows]


def trained(cell: Cell, hidden: int, lab: Lab) -> nn.Module:
    task = Tabular(cell.table).build(lab.child("data"))
    with lab.child("init", hidden).seeded():
        model = network(len(task.splits["train"].data[0]["x"]), hidden).to(lab.device, lab.dtype)
    budget = Budget(steps=cell.config.steps, batch_size=64, lr=1e-2, optimizer=Optimizer.ADAM)
    return EarlyStopping(every=20, budget=budget).fit(model, task, lab.child("fit", hidden)).model


def near(cell: Cell, model: nn.Module, behaviour: Callable[[nn.Module, Batch], Tensor], lab: Lab) -> Around:
    """The model around the first judged rows; the baseline is 0, the smallest value of each feature."""
    batch = whole(Tabular(cell.table).build(lab.child("data")).splits["test"].data, lab)
    return around(model, {name: t[: cell.config.points] for name, t in batch.items()}, behaviour, Inputs(), lab)


def instances(config: Config) -> dict[str, Approximation]:
    """The eight rows of the paper's table, with its kernel and without scaling."""
    made = {name: preset.approximation(nn.Identity()) for name, preset in eight().items()}
    noise, masks = Gaussian(config.sigma, config.noise), made["LIME"].neighbourhood
    return made | {
        "LIME": Approximation(type(masks)(config.width, config.masks, scaled=False)),  # type: ignore[call-arg]
        "C-LIME": Approximation(noise),
        "SmoothGrad": Approximation(noise, Loss.GRADIENT),
        "KernelSHAP": Approximation(Coalitions(config.masks)),
        "Integrated Gradients": Approximation(Segment(), Loss.GRADIENT),
    }


def lunch(at: Around, answers: Mapping[str, Explanation], config: Config, lab: Lab) -> Iterator[Row]:
    """Every explanation on every neighbourhood, drawn anew: the share of the null loss that it leaves."""
    ratios: list[float] = []
    won = 0
    for place, how in instances(config).items():
        found = seen(at, how.neighbourhood, how.loss, lab.child("judge", place))
        left = {name: unexplained(at, found, answer, how) for name, answer in answers.items()}
        best = min(left, key=left.__getitem__)
        ties = next((tie for tie in TIES if place in tie), {place})
        won += best in ties
        if left[place] > 1e-9:  # single gradients and removals are exact at home: any ratio to that is infinite
            ratios += [log(left[name] / left[place]) for name in left if name not in ties]
        for name, value in left.items():
            yield {"part": "lunch", "explanation": name, "neighbourhood": place, "unexplained": value}
    yield {"part": "columns", "won": won, "n": len(answers), "log_ratio": fmean(ratios)}


def unexplained(at: Around, found: Values | Slopes, answer: Explanation, how: Approximation) -> float:
    w = on(at, answer, how.neighbourhood.map)
    return (found.loss(w).sum() / found.null.sum()).item()


def same(at: Around, answers: Mapping[str, Explanation], config: Config, lab: Lab) -> Iterator[Row]:
    """Cosine and mean absolute distance between each method by its own definition and each instance."""
    classic = {name: make(at, config, lab.child("classic", name)) for name, make in CLASSIC.items()}
    for name, ours in classic.items():
        for other, answer in answers.items():
            theirs = answer.scores
            cosine = 1 - torch.cosine_similarity(ours, theirs, dim=1).mean().item()
            scale = theirs.abs().mean()
            yield {
                "part": "same",
                "classic": name,
                "instance": other,
                "matched": name == other,
                "cosine": max(0.0, cosine),
                "absolute": ((ours - theirs).abs().mean() / scale).item(),
            }


def tests(at: Around, answers: Mapping[str, Explanation], config: Config, lab: Lab) -> Iterator[Row]:
    """Change of f in its standard deviations, averaged over numbers of perturbed features. Credits as the method gives them."""
    spread = at.at_point.std()
    for name, answer in answers.items():
        for order in Order:
            for noise in Noise:
                ks = sorted({max(1, round(share * at.d)) for share in config.shares})
                moved = [
                    changes(at, answer.scores, k, order, noise, lab.child("perturb", k), config.sigma).mean()
                    for k in ks
                ]
                yield {
                    "part": "test",
                    "explanation": name,
                    "kind": kind(name),
                    "order": str(order),
                    "noise": str(noise),
                    "change": (torch.stack(moved).mean() / spread).item(),
                }


def kind(name: str) -> str:
    return "additive" if name in ADDITIVE else "binary" if name in BINARY else "gradual"


def recovery(cell: Cell, model: nn.Module, lab: Lab) -> Iterator[Row]:
    """Relative errors on a linear model: of w by additive methods, of w·x₀ and of w by multiplicative ones; logistic g."""
    weight = model[-1].weight.detach()  # type: ignore[index]
    at = near(cell, model, output, lab)
    for name, how in instances(cell.config).items():
        scores = explained(at, how, lab.child("recover", name)).scores
        yield {
            "part": "recovery",
            "explanation": name,
            "additive": how.neighbourhood.map is Map.ADDITIVE,
            "error_w": distance(scores, weight.expand_as(scores)),
            "error_wx": distance(scores, weight * at.point),
        }
    likely = near(cell, model, probability, lab)
    noise = Gaussian(cell.config.sigma, min(cell.config.noise, 500))
    for family in Family:
        found = explained(likely, Approximation(noise, Loss.GRADIENT, family), lab.child("logistic"))
        yield {
            "part": "logistic",
            "family": str(family),
            "error_w": distance(found.scores, weight.expand_as(found.scores)),
        }


def distance(found: Tensor, true: Tensor) -> float:
    return ((found - true).norm() / true.norm()).item()


def _gradient(at: Around, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(at.model(x)[:, 0].sum(), x)[0]


def _smooth(at: Around, config: Config, lab: Lab) -> Tensor:
    g, n = lab.generator(), config.noise
    return torch.stack([
        _gradient(at, x + config.sigma * torch.randn(n, at.d, generator=g, dtype=x.dtype)).mean(0) for x in at.point
    ])  # fmt: skip


def _integrated(at: Around, config: Config, lab: Lab) -> Tensor:
    ways = (torch.arange(300) + 0.5) / 300
    return torch.stack([x * _gradient(at, ways[:, None].to(x) * x).mean(0) for x in at.point])


@torch.no_grad()
def _occluded(at: Around, config: Config, lab: Lab) -> Tensor:
    whole_output = at.model(at.point)
    left = [at.model(at.point * (torch.arange(at.d) != j)) for j in range(at.d)]
    return whole_output - torch.cat(left, 1)


@torch.no_grad()
def _noisy(at: Around, config: Config, lab: Lab) -> Tensor:
    """Ordinary least squares per point on its own noise."""
    rng, rows = lab.numpy(), []
    for x in at.point:
        xi = torch.as_tensor(config.sigma * rng.normal(size=(config.noise, at.d)))
        rows.append(_fit(xi, at.model(x + xi)[:, 0], torch.ones(len(xi), dtype=x.dtype)))
    return torch.stack(rows)


@torch.no_grad()
def _masked(at: Around, config: Config, lab: Lab) -> Tensor:
    rng, rows = lab.numpy(), []
    for x in at.point:
        xi = torch.as_tensor(rng.integers(2, size=(config.masks, at.d)).astype(float))
        distance2 = (x * (1 - xi)).square().sum(1)
        rows.append(_fit(xi, at.model(xi * x)[:, 0], (-distance2 / config.width**2).exp()))
    return torch.stack(rows)


@torch.no_grad()
def _shapley(at: Around, config: Config, lab: Lab) -> Tensor:
    """Mean marginal contributions over random orders and their reverses (Castro et al., 2009)."""
    rng, total, n = lab.numpy(), torch.zeros_like(at.point), max(1, config.masks // 8)
    for _ in range(n):
        order = rng.permutation(at.d)
        for way in (order, order[::-1]):
            kept = torch.as_tensor(np.argsort(way)[None] < np.arange(at.d + 1)[:, None]).to(
                at.point
            )  # first k of the order
            f = at.model((kept[:, None] * at.point).flatten(0, 1)).view(at.d + 1, -1)
            total[:, way.copy()] += (f[1:] - f[:-1]).T / (2 * n)
    return total


def _fit(xi: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    design = torch.cat([xi, torch.ones_like(xi[:, :1])], 1)
    weighted = (weight[:, None] * design).T  # lstsq gives other last digits in other memory
    return torch.linalg.solve(weighted @ design, weighted @ y)[:-1]


CLASSIC: Mapping[str, Callable[[Around, Config, Lab], Tensor]] = {
    "LIME": _masked,
    "C-LIME": _noisy,
    "KernelSHAP": _shapley,
    "Occlusion": _occluded,
    "Vanilla Gradients": lambda at, config, lab: _gradient(at, at.point),
    "Gradient × Input": lambda at, config, lab: at.point * _gradient(at, at.point),
    "SmoothGrad": _smooth,
    "Integrated Gradients": _integrated,
}


def mismatched(rows: Rows) -> list[Row]:
    """Pairs of methods that are neither one nor tied."""
    return [
        row
        for row in pick(rows, part="same", matched=False)
        if not any({row["classic"], row["instance"]} <= tie for tie in TIES)
    ]


def versus(order: Order, noise: Noise, of: str, against: str) -> Effect:
    """Mean change under a perturbation test by methods of one kind minus those of another, paired by table and seed."""
    where = {"part": "test", "order": str(order), "noise": str(noise)}
    return gap("change", {**where, "kind": of}, {**where, "kind": against}, pair=("table", "hidden", "seed"))


CLAIMS = (
    Claim(
        says="Each method, by its own definition, is its instance of the local approximation (worst method; cosine distance).",
        effect=effects.worst(average("cosine", part="same", matched=True, within=(0, 2)), "classic", 0.0),
        below=0.02,
    ),
    Claim(
        says="Different methods are not: their explanations point elsewhere (mean cosine distance).",
        effect=lambda rows: average("cosine", within=(0, 2))(mismatched(rows)),
        above=0.05,
    ),
    Claim(
        says="On every neighbourhood the explanation made for it, or its tie, is the most faithful (share of columns).",
        effect=effects.share("won", "n", part="columns"),
        above=0.9,
    ),
    Claim(
        says="No free lunch: an explanation loses more than the one made for the place (mean log ratio of losses).",
        effect=average("log_ratio", part="columns"),
        above=0.2,  # the sheet's prototype saw ratios of 1.07 to 20
    ),
    Claim(
        says="Additive methods recover the weights w of a linear model (worst method, relative error).",
        effect=effects.worst(average("error_w"), "explanation", 0.0, part="recovery", additive=True),
        below=0.01,
    ),
    Claim(
        says="Multiplicative methods recover w·x₀ of a linear model (worst method, relative error).",
        effect=effects.worst(average("error_wx"), "explanation", 0.0, part="recovery", additive=False),
        below=0.01,
    ),
    Claim(
        says="Multiplicative methods do not recover w (mean relative error).",
        effect=average("error_w", part="recovery", additive=False),
        above=0.2,
    ),
    Claim(
        says="A logistic g recovers the weights of a logistic model.",
        effect=average("error_w", part="logistic", family="logistic"),
        below=0.01,
    ),
    Claim(
        says="A linear g does not.",
        effect=average("error_w", part="logistic", family="linear"),
        above=0.2,
    ),
    Claim(
        says="Removing the top features moves the output more by binary than by additive methods.",
        effect=versus(Order.TOP, Noise.BINARY, "binary", "additive"),
        above=0.0,
    ),
    Claim(
        says="Removing the bottom features moves the output less by binary than by additive methods.",
        effect=versus(Order.BOTTOM, Noise.BINARY, "binary", "additive"),
        below=0.0,
    ),
    Claim(
        says="Gaussian noise on the top features moves the output more by additive than by binary methods.",
        effect=versus(Order.TOP, Noise.GAUSSIAN, "additive", "binary"),
        above=0.0,
    ),
    Claim(
        says="Gaussian noise on the bottom features moves the output less by additive than by binary methods.",
        effect=versus(Order.BOTTOM, Noise.GAUSSIAN, "additive", "binary"),
        below=0.0,
    ),
)


def matrix(rows: Rows) -> Grid:
    """Explanation i on neighbourhood j."""
    return _grid(pick(rows, part="lunch"), "explanation", "neighbourhood", "unexplained",
                 "Share left unexplained: explanation (row) on neighbourhood (column)")  # fmt: skip


def distances(rows: Rows) -> Grid:
    """Classic i against instance j."""
    return _grid(pick(rows, part="same"), "classic", "instance", "cosine",
                 "Cosine distance: method by its own definition (row), instance of the approximation (column)")  # fmt: skip


def _grid(rows: Rows, down: str, across: str, name: str, title: str) -> Grid:
    names = list(eight())
    values = [[average(name)(pick(rows, **{down: a, across: b})).value for b in names] for a in names]
    return Grid(title=title, rows=names, columns=names, values=values, label=across)


def ranked(noise: Noise, order: Order) -> Callable[[Rows], Bars]:
    """How far the output moves when the features at one end of each method's ranking are perturbed."""

    def draw(rows: Rows) -> Bars:
        mine = pick(rows, part="test", noise=str(noise), order=str(order))
        readings = {name: average("change", explanation=name)(mine) for name in eight()}
        done = "removed" if noise is Noise.BINARY else "jittered"
        return views.bars(readings, title=f"Change of the output when {order} features are {done}",
                          label="standard deviations of the output")  # fmt: skip

    return draw


def table(rows: Rows) -> Sequence[Row]:
    """Per method: distance to its definition, how much it leaves at home and elsewhere, recovery, perturbation tests."""
    made: list[Row] = []
    for name in eight():
        lunches = pick(rows, part="lunch", explanation=name)
        tested = pick(rows, part="test", explanation=name)
        (recovered,) = {bool(row["additive"]) for row in pick(rows, part="recovery", explanation=name)}
        error = "error_w" if recovered else "error_wx"
        made.append(
            {
                "explanation": name,
                "cosine distance to its definition": _mean(rows, "cosine", part="same", classic=name, instance=name),
                "unexplained at home": _mean(lunches, "unexplained", neighbourhood=name),
                "unexplained, worst place": max(
                    _mean(lunches, "unexplained", neighbourhood=place) for place in eight()
                ),
                "recovers": "w" if recovered else "w·x₀",
                "error on a linear model": _mean(rows, error, part="recovery", explanation=name),
                **{
                    f"{order}, {noise}": _mean(tested, "change", order=str(order), noise=str(noise))
                    for noise in Noise
                    for order in Order
                },
            }
        )
    return made


def _mean(rows: Rows, name: str, **where: Value) -> float:
    return fmean(column(rows, name, **where))


study = Study(
    name="which_explanation",
    system="34",
    source=Source(
        key="han2022which",
        title="Which Explanation Should I Choose? A Function Approximation Perspective to Characterizing Post Hoc Explanations",
        authors=("Han, Tessa", "Srinivas, Suraj", "Lakkaraju, Himabindu"),
        year=2022,
        venue="NeurIPS",
        arxiv="2206.01254",
    ),
    scales={
        Scale.SMOKE: Config(tables=(Known.WAVES,), points=5, noise=500, masks=128, steps=100, seeds=2),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(hidden=(2, 4, 7), points=100, noise=50_000, masks=20_000, seeds=20),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(
        matrix,
        distances,
        ranked(Noise.BINARY, Order.TOP),
        ranked(Noise.BINARY, Order.BOTTOM),
        ranked(Noise.GAUSSIAN, Order.TOP),
        ranked(Noise.GAUSSIAN, Order.BOTTOM),
    ),
    table=table,
)
