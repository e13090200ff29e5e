"""EK-FAC influence foretells what training examples do, nearly as well as the exact curvature and far better than dot products.

Grosse et al. (2023), arXiv:2308.03296, section 5.1, at the size of one core. Judged against four truths: models trained
again on half of the data (linear datamodeling score), on all but the most helpful images of a query, on all but one image
(leave-one-out), and the proximal Bregman response. A fifth part looks for wrong labels by self-influence.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen import stats, views
from unseen.attributions.influence import Curvature, Fisher, Influence, Influences
from unseen.engine.batches import whole
from unseen.engine.evaluate import per_example, score
from unseen.engine.loop import Budget, Optimizer, Schedule
from unseen.engine.retrain import answers, retrain
from unseen.figure import Bars
from unseen.lab import Lab
from unseen.measures.bregman_response import Proximal
from unseen.measures.datamodeling_score import datamodeling_score, random_subsets
from unseen.measures.leave_one_out import correlation, foretold, proportionality, removal_effects, without
from unseen.measures.mislabel_detection import detection, found
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.source import Source
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, column, gap
from unseen.task import Batch, Task
from unseen.tasks.images import CLASSES, Collection, Images
from unseen.tasks.principal_images import PrincipalImages

SGD = Budget(optimizer=Optimizer.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3, schedule=Schedule.COSINE, batch_size=100)


@dataclass(frozen=True)
class Strategy:
    """One way to score examples."""

    label: str
    curvature: Curvature | None
    """None: random scores."""
    fisher: Fisher = Fisher.SAMPLED
    many: bool = False
    """Whether labels are drawn as often as the cell says, or once."""
    damping: float = 0.1

    def prepare(self, trained: Trained, draws: int, lab: Lab) -> Influences:
        assert self.curvature is not None
        draws = draws if self.many else 1
        plug = Influence(self.curvature, self.fisher, draws, self.damping, batch_size=250)
        return plug.prepare(trained, lab.child(self.label))

    def scores(self, trained: Trained, queries: Batch, draws: int, lab: Lab) -> Float[Tensor, "query example"]:
        if self.curvature is None:
            shape = len(queries["y"]), len(whole(trained.task.split("train").data, lab)["y"])
            return torch.randn(*shape, generator=lab.child(self.label).generator(), dtype=torch.float64)
        return self.prepare(trained, draws, lab)(queries, margin).scores.double()


RANDOM, DOT = Strategy("random", None), Strategy("gradient dot", Curvature.IDENTITY)
DIAGONAL = Strategy("diagonal", Curvature.DIAGONAL, Fisher.EXACT)
KFAC, EKFAC = Strategy("K-FAC", Curvature.KFAC, many=True), Strategy("EK-FAC", Curvature.EKFAC, many=True)
ONE_DRAW = Strategy("EK-FAC, one draw", Curvature.EKFAC)
KFAC_EVERY = Strategy("K-FAC, every class", Curvature.KFAC, Fisher.EXACT)
EVERY_CLASS = Strategy("EK-FAC, every class", Curvature.EKFAC, Fisher.EXACT)
GAUSS_NEWTON = Strategy("exact Gauss–Newton", Curvature.EXACT, Fisher.EXACT)
DAMPED = replace(GAUSS_NEWTON, label="exact Gauss–Newton, λ = mean", damping=1.0)
"""A mean over all parameters is far below that over one layer, most of whose directions matter."""
STRATEGIES = (RANDOM, DOT, DIAGONAL, KFAC, ONE_DRAW, EKFAC, EVERY_CLASS, GAUSS_NEWTON, DAMPED)


@dataclass(frozen=True)
class Setting:
    """Data, network and descent."""

    images: Images
    components: int = 50
    width: int = 64
    budget: Budget = SGD
    epochs: int = 60
    smooth: bool = False
    """tanh instead of ReLU."""

    def task(self, lab: Lab) -> Task:
        return PrincipalImages(self.images, self.components).build(lab.child("data"))

    def model(self) -> nn.Module:
        if self.smooth:
            return nn.Sequential(nn.Linear(self.components, self.width), nn.Tanh(), nn.Linear(self.width, CLASSES))
        return mlp([self.components, self.width, CLASSES])

    def steps(self, n: int) -> Budget:
        """The budget of all epochs over n images."""
        return replace(self.budget, steps=self.epochs * max(1, n // self.budget.batch_size))

    def fitted(self, task: Task, lab: Lab) -> Trained:
        n = self.images.n_train
        everything = torch.ones(1, n, dtype=torch.bool)
        return retrain(self.model, task, everything, self.steps(n), lab.child("fit"))[0][0]


@dataclass(frozen=True)
class Config:
    scored: Setting = Setting(Images(Collection.FASHION_MNIST, n_train=1_000, n_test=100))
    draws: int = 20
    """Label samples per image for K-FAC and EK-FAC: with few images one is too few."""
    subsets: int = 100
    repeats: int = 2
    """Models per subset."""
    asked: int = 20
    """Queries of which the most helpful images are removed."""
    removed: int = 50
    near: Setting = Setting(
        Images(Collection.FASHION_MNIST, n_train=60, n_test=40),
        width=32,
        budget=replace(SGD, weight_decay=1e-2),
        epochs=150,
        smooth=True,
    )
    """For leave-one-out and the proximal response: full batches, so that nothing is random but the start."""
    copies: float = -0.1
    """What the proximal response adds of an image."""
    labels: Setting = Setting(Images(Collection.FASHION_MNIST, n_train=1_000, n_test=100, label_noise=0.1))
    seeds: int = 3


@dataclass(frozen=True)
class ScoreCell:
    setting: Setting
    draws: int
    subsets: int
    repeats: int
    asked: int
    removed: int
    seed: int


@dataclass(frozen=True)
class ResponseCell:
    setting: Setting
    copies: float
    seed: int


@dataclass(frozen=True)
class LabelCell:
    setting: Setting
    draws: int
    seed: int


Cell = ScoreCell | ResponseCell | LabelCell


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        yield ScoreCell(config.scored, config.draws, config.subsets, config.repeats, config.asked, config.removed, seed)
        yield ResponseCell(config.near, config.copies, seed)
        yield LabelCell(config.labels, config.draws, seed)


def run(cell: Cell, lab: Lab) -> Iterable[Row]:
    if isinstance(cell, ScoreCell):
        return score_rows(cell, lab)
    return response_rows(cell, lab) if isinstance(cell, ResponseCell) else label_rows(cell, lab)


def margin(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p(y)/(1 − p(y)): the logit of the right class against all others together (Park et al., 2023)."""
    logits, y = model(batch["x"]), batch["y"][:, None]
    return logits.gather(1, y).squeeze(1) - logits.scatter(1, y, -torch.inf).logsumexp(1)


def output_loss(outputs: Float[Tensor, "b c"], batch: Batch) -> Float[Tensor, " b"]:
    return F.cross_entropy(outputs, batch["y"], reduction="none")


def logits(model: nn.Module, batch: Batch) -> Float[Tensor, "b c"]:
    return model(batch["x"])


def score_rows(cell: ScoreCell, lab: Lab) -> Iterator[Row]:
    """Every strategy against the models retrained on halves, and without the most helpful images of single queries."""
    setting, n = cell.setting, cell.setting.images.n_train
    task = setting.task(lab)
    data = task.split("test").data
    trained, queries = setting.fitted(task, lab), whole(data, lab)
    kept = random_subsets(n, cell.subsets, lab.child("subsets"))
    again = retrain(setting.model, task, kept, setting.steps(n // 2), lab.child("halves"), repeats=cell.repeats)
    outputs = answers(again, data, margin, lab).mean(1)
    accuracy = {name: score(trained.model, task, task.split(name), lab).value for name in ("train", "test")}
    scores = {strategy: strategy.scores(trained, queries, cell.draws, lab) for strategy in STRATEGIES}
    drops = removal(cell, task, {s: scores[s] for s in (RANDOM, DOT, EKFAC)}, lab)
    for strategy, table in scores.items():
        lds = datamodeling_score(table, kept, outputs)
        row: dict[str, Value] = {
            "part": "score",
            "strategy": strategy.label,
            "seed": cell.seed,
            "lds": lds.value,
            **accuracy,
        }
        yield row | ({"drop": drops[strategy]} if strategy in drops else {})


def removal(
    cell: ScoreCell, task: Task, scores: Mapping[Strategy, Float[Tensor, "query example"]], lab: Lab
) -> dict[Strategy, float]:
    """Mean fall of a query's margin when its `removed` most helpful images are left out of training."""
    setting, n, asked = cell.setting, cell.setting.images.n_train, torch.arange(cell.asked)
    groups = [row for table in scores.values() for row in table[asked].topk(cell.removed).indices]
    place = lab.child("removal")
    budget = setting.steps(n - cell.removed)
    left = retrain(setting.model, task, without(n, groups), budget, place, repeats=cell.repeats)
    everything = torch.ones(1, n, dtype=torch.bool)
    full = retrain(setting.model, task, everything, setting.steps(n), place, repeats=cell.repeats)
    data = task.split("test").data
    effects = removal_effects(answers(left, data, margin, lab), answers(full, data, margin, lab)[0])
    own = effects[asked.repeat(len(scores)), torch.arange(len(groups))].view(len(scores), -1)
    return {strategy: -float(fall) for strategy, fall in zip(scores, own.mean(1), strict=True)}


def response_rows(cell: ResponseCell, lab: Lab) -> Iterator[Row]:
    """Every strategy against the proximal response at the exact matrix's λ, and against leave-one-out at λ = weight decay."""
    setting, n = cell.setting, cell.setting.images.n_train
    setting = replace(setting, budget=replace(setting.budget, batch_size=n))
    lab = replace(lab, dtype=torch.float64)
    task = setting.task(lab)
    data, queries = whole(task.split("train").data, lab), whole(task.split("test").data, lab)
    trained = setting.fitted(task, lab)
    damping = GAUSS_NEWTON.prepare(trained, 1, lab).factors.blocks["all"].damping
    every = torch.arange(n)
    responses = Proximal(damping, cell.copies, tolerance=1e-3).responses(
        trained.model, data, every, logits, output_loss, queries, margin
    )
    kept = without(n, every)
    left = retrain(setting.model, task, kept, setting.steps(n - 1), lab.child("fit"))
    full = per_example(trained.model, task.split("test").data, margin, lab)
    effects = removal_effects(answers(left, task.split("test").data, margin, lab), full[None])
    decay = setting.budget.weight_decay / damping * GAUSS_NEWTON.damping
    for strategy in (DOT, DIAGONAL, KFAC_EVERY, EVERY_CLASS, GAUSS_NEWTON):
        near = strategy.scores(trained, queries, 1, lab)
        removing = foretold(replace(strategy, damping=decay).scores(trained, queries, 1, lab), kept)
        yield {
            "part": "response",
            "strategy": strategy.label,
            "seed": cell.seed,
            "response_r": correlation(near, responses).value,
            "leave_one_out_r": correlation(removing, effects).value,
            **({"slope": proportionality(near, responses).value} if strategy is GAUSS_NEWTON else {}),
        }


def label_rows(cell: LabelCell, lab: Lab) -> Iterator[Row]:
    """Wrong labels by self-influence and by loss."""
    task = cell.setting.task(lab)
    train = task.split("train").data
    wrong = whole(train, lab)["wrong"]
    trained = cell.setting.fitted(task, lab)
    suspicions = {"loss": per_example(trained.model, train, task.objective.loss, lab)}
    for strategy in (DOT, EKFAC):
        suspicions[strategy.label] = strategy.prepare(trained, cell.draws, lab).own()
    for label, suspicion in suspicions.items():
        yield {
            "part": "labels",
            "strategy": label,
            "seed": cell.seed,
            "auc": detection(suspicion, wrong).value,
            "found": found(suspicion, wrong).value,
            "train": score(trained.model, task, task.split("train"), lab).value,
        }


def lead(name: str, of: Strategy, over: Strategy) -> Effect:
    """Mean over seeds of the paired difference between two strategies."""
    return gap(name, {"strategy": of.label}, {"strategy": over.label})


CLAIMS = (
    Claim(
        says="EK-FAC foretells retraining: linear datamodeling score of at least 0.45 with 20 label draws per image.",
        effect=average("lds", within=(-1, 1), strategy=EKFAC.label),
        above=0.45,
    ),
    Claim(
        says="It is far above the gradient dot product.",
        effect=lead("lds", EKFAC, DOT),
        above=0.15,
    ),
    Claim(
        says="Random scores foretell nothing.", effect=average("lds", strategy=RANDOM.label), above=-0.05, below=0.05
    ),
    Claim(says="K-FAC, too, is above the gradient dot product.", effect=lead("lds", KFAC, DOT), above=0.0),
    Claim(
        says="The eigenvalue correction does not hurt: EK-FAC at most 0.02 below K-FAC.",
        effect=lead("lds", EKFAC, KFAC),
        above=-0.02,
    ),
    Claim(
        says="EK-FAC is at most 0.1 below the exact Gauss–Newton matrix, damped by its mean eigenvalue.",
        effect=lead("lds", EKFAC, DAMPED),
        above=-0.1,
    ),
    Claim(
        says="With few examples one label draw is too few: 20 draws do better by 0.03.",
        effect=lead("lds", EKFAC, ONE_DRAW),
        above=0.03,
    ),
    Claim(
        says="Without the images that EK-FAC calls most helpful a query's margin falls further than without dot's.",
        effect=lead("drop", EKFAC, DOT),
        above=0.0,
    ),
    Claim(
        says="Exact Gauss–Newton influence is the proximal response (correlation).",
        effect=average("response_r", within=(-1, 1), strategy=GAUSS_NEWTON.label),
        above=0.95,
    ),
    Claim(
        says="… and has its size (slope of the response on the influence).",
        effect=average("slope", strategy=GAUSS_NEWTON.label),
        above=0.9,
        below=1.1,
    ),
    Claim(
        says="EK-FAC correlates with the proximal response better than the dot product does.",
        effect=lead("response_r", EVERY_CLASS, DOT),
        above=0.1,
    ),
    Claim(
        says="Leave-one-out is foretold better with the exact curvature than without any.",
        effect=lead("leave_one_out_r", GAUSS_NEWTON, DOT),
        above=0.0,
    ),
    Claim(
        says="Wrong labels have large self-influence: area under the ROC curve.",
        effect=average("auc", within=(0, 1), strategy=EKFAC.label, part="labels"),
        above=0.8,
    ),
)


def seen(rows: Rows, name: str) -> dict[str, stats.Reading]:
    """Mean over seeds by strategy, of the strategies that have it."""
    labels = dict.fromkeys(str(row["strategy"]) for row in rows if name in row)
    return {label: stats.mean(column(rows, name, strategy=label)) for label in labels}


def datamodeling(rows: Rows) -> Bars:
    """Linear datamodeling scores."""
    return views.bars(seen(rows, "lds"), title="How well credits foretell retraining on halves", label="LDS")


def falls(rows: Rows) -> Bars:
    """Counterfactual removal."""
    return views.bars(
        seen(rows, "drop"), title="Fall of a query's margin without its most helpful images", label="logits"
    )


def proximal(rows: Rows) -> Bars:
    """Correlation with the proximal response."""
    return views.bars(seen(rows, "response_r"), title="Correlation with the proximal response", label="r")


def single(rows: Rows) -> Bars:
    """Correlation with leave-one-out."""
    return views.bars(seen(rows, "leave_one_out_r"), title="Correlation with leave-one-out retraining", label="r")


def labels(rows: Rows) -> Bars:
    """Detection of wrong labels."""
    return views.bars(seen(rows, "auc"), title="Detection of wrong labels", label="AUC")


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds."""
    titles = {
        "LDS": "lds",
        "fall without the most helpful": "drop",
        "r with proximal response": "response_r",
        "slope": "slope",
        "r with leave-one-out": "leave_one_out_r",
        "AUC of wrong labels": "auc",
        "found in the top tenth": "found",
    }
    return views.summary(rows, ("strategy",), titles)


study = Study(
    name="influence_accuracy",
    system="14",
    source=Source(
        key="grosse2023influence",
        title="Studying Large Language Model Generalization with Influence Functions",
        authors=(
            "Grosse, Roger", "Bae, Juhan", "Anil, Cem", "Elhage, Nelson", "Tamkin, Alex", "Tajdini, Amirhossein",
            "Steiner, Benoit", "Li, Dustin", "Durmus, Esin", "Perez, Ethan", "Hubinger, Evan", "Lukošiūtė, Kamilė",
            "Nguyen, Karina", "Joseph, Nicholas", "McCandlish, Sam", "Kaplan, Jared", "Bowman, Samuel R.",
        ),
        year=2023,
        arxiv="2308.03296",
    ),
    scales={
        Scale.SMOKE: Config(
            scored=Setting(Images(n_train=120, n_test=12), components=10, width=12, epochs=10),
            draws=3,
            subsets=8,
            repeats=1,
            asked=2,
            removed=10,
            near=Setting(
                Images(n_train=6, n_test=3), components=3, width=2, budget=replace(SGD, weight_decay=1e-2),
                epochs=10, smooth=True,
            ),
            labels=Setting(Images(n_train=120, n_test=12, label_noise=0.2), components=10, width=12, epochs=10),
            seeds=1,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(
            scored=Setting(Images(Collection.FASHION_MNIST, n_train=10_000, n_test=1_000), width=160),
            subsets=400,
            repeats=5,
            asked=100,
            removed=500,
            labels=Setting(Images(Collection.FASHION_MNIST, n_train=10_000, n_test=1_000, label_noise=0.1), width=160),
            seeds=5,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(datamodeling, falls, proximal, single, labels),
    table=table,
)  # fmt: skip
