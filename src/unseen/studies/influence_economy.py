"""Influence at a fraction of the cost: low-rank queries keep the scores, a word filter keeps the examples that matter.

Grosse et al. (2023), arXiv:2308.03296, section 3.2, on a decoder small enough to compute every score.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.attributions.influence import Influence, sequence_nats
from unseen.attributions.influence.bm25 import candidates
from unseen.engine.batches import whole
from unseen.engine.loop import Budget, erm_step, train
from unseen.figure import Curves
from unseen.lab import Lab
from unseen.measures.datamodeling_score import rank_correlations
from unseen.measures.leave_one_out import correlation
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.study import Claim, Row, Rows, Scale, Study, average, figures, pick
from unseen.study.source import Source
from unseen.task import Batch, Task
from unseen.tasks.topics import Topics


@dataclass(frozen=True)
class Config:
    task: Topics = Topics()
    width: int = 256
    layers: int = 2
    budget: Budget = Budget(steps=40, batch_size=32, lr=1e-3)
    ranks: tuple[int, ...] = (1, 4, 16, 32)
    shares: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5)
    """Of the sequences that the filter keeps for each query."""
    best: int = 10
    """Most helpful sequences that it should keep."""
    seeds: int = 3


@dataclass(frozen=True)
class Cell:
    config: Config
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        yield Cell(config, seed)


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    config = cell.config
    task = config.task.build(lab.child("data"))
    trained, queries = train_decoder(config, task, lab), whole(task.split("query").data, lab)
    full = Influence(loss=sequence_nats, batch_size=50).prepare(trained, lab.child("influence"))
    exact = full(queries, likelihood).scores
    for rank in config.ranks:  # the same factors for all
        low = replace(full, config=replace(full.config, rank=rank))(queries, likelihood).scores
        yield {
            "part": "rank",
            "rank": rank,
            "seed": cell.seed,
            "r": correlation(low, exact).value,
            "rho": float(rank_correlations(low, exact).mean()),
            "kept": recall_of_best(exact, low.topk(config.best, 1).indices, config.best),
        }
    n = config.task.sequences
    for share in config.shares:
        found = candidates(queries, task, max(config.best, round(share * n)), lab)
        yield {
            "part": "filter",
            "share": share,
            "seed": cell.seed,
            "kept": recall_of_best(exact, found.index, config.best),
        }


def train_decoder(config: Config, task: Task, lab: Lab) -> Trained:
    shape = Decoder(
        vocabulary=config.task.vocabulary, width=config.width, layers=config.layers, heads=4, context=config.task.length
    )
    with lab.child("init").seeded():
        model = Transformer(shape)
    return train(model, task, erm_step, config.budget, lab.child("fit"))


def likelihood(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p of the whole sequence, in nats."""
    return sequence_log_probability(model, {"tokens": batch["tokens"]})


def recall_of_best(exact: Float[Tensor, "query sequence"], found: Int[Tensor, "query m"], best: int) -> float:
    """Mean share of each query's `best` most helpful sequences that are among those found."""
    wanted = exact.topk(best, 1).indices
    return float((wanted[:, :, None] == found[:, None]).any(2).double().mean())


CLAIMS = (
    Claim(
        says="Rank 32 is enough: low-rank queries keep the scores (correlation over sequences).",
        effect=average("r", within=(-1.0, 1.0), rank=32),
        above=0.98,
    ),
    Claim(says="Rank 1 is not.", effect=average("r", within=(-1.0, 1.0), rank=1), below=0.95),
    Claim(
        says="The tenth of the sequences that shares most words with a query holds 9 of its 10 most helpful.",
        effect=average("kept", within=(0.0, 1.0), part="filter", share=0.1),
        above=0.9,
    ),
)


def ranks(rows: Rows) -> Curves:
    """Agreement with full rank."""
    return figures.curves(
        x="rank",
        y={"correlation": "r", "rank correlation": "rho", "of the 10 most helpful": "kept"},
        title="Low-rank queries against full rank",
        x_label="rank",
        y_label="agreement",
        log_x=True,
    )(pick(rows, part="rank"))


def filters(rows: Rows) -> Curves:
    """What the word filter keeps."""
    return figures.curves(
        x="share",
        y={"kept": "kept"},
        title="Most helpful sequences among the candidates",
        x_label="share of the sequences that are candidates",
        y_label="share of the 10 most helpful",
        log_x=True,
    )(pick(rows, part="filter"))


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds."""
    titles = {"correlation": "r", "rank correlation": "rho", "of the 10 most helpful": "kept"}
    return [
        *figures.summary(("part", "rank"), titles)(pick(rows, part="rank")),
        *figures.summary(("part", "share"), titles)(pick(rows, part="filter")),
    ]


study = Study(
    name="influence_economy",
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
            task=Topics(sequences=40, queries=4, length=12, vocabulary=40, topics=4),
            width=16,
            layers=1,
            budget=Budget(steps=10, batch_size=20, lr=1e-2),
            ranks=(1, 32),
            shares=(0.1, 0.5),
            best=3,
            seeds=2,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(
            task=Topics(sequences=20_000, queries=100, length=512, vocabulary=8_192, topics=64),
            width=768,
            layers=12,
            budget=Budget(steps=2_000, batch_size=32, lr=3e-4),
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(ranks, filters),
    table=table,
)  # fmt: skip
