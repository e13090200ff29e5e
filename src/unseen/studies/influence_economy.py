"""Low-rank queries keep influence scores, and a word filter keeps the examples that matter.

Grosse et al. (2023), arXiv:2308.03296, section 3.2, on a decoder small enough to compute every
score.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.attributions.influence import Influence, sequence_nats
from unseen.attributions.influence.bm25 import candidates
from unseen.engine.batches import whole
from unseen.engine.loop import Budget, erm_step, train
from unseen.lab import Lab
from unseen.measures.datamodeling_score import rank_correlations
from unseen.measures.leave_one_out import correlation
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.study import Claim, Row, Scale, Study, average
from unseen.study.figures import curves, stack, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
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


def run(cell: Cell[Config, None], lab: Lab) -> Iterator[Row]:
    return label(compare(cell.setting, lab), seed=cell.seed)


def compare(config: Config, lab: Lab) -> Iterator[Row]:
    """Low ranks and filters against the scores of full rank and all sequences."""
    task = config.task.build(lab.child("data"))
    trained = train_decoder(config, task, lab)
    queries = whole(task.split("query").data, lab)
    full = Influence(loss=sequence_nats, batch_size=50).prepare(trained, lab.child("influence"))
    exact = full(queries, likelihood).scores
    for rank in config.ranks:
        # the same factors for all
        low = replace(full, config=replace(full.config, rank=rank))(queries, likelihood).scores
        best = low.topk(config.best, 1).indices
        yield {
            "part": "rank",
            "rank": rank,
            "r": correlation(low, exact).value,
            "rho": float(rank_correlations(low, exact).mean()),
            "kept": recall_of_best(exact, best, config.best),
        }
    for share in config.shares:
        most = max(config.best, round(share * config.task.sequences))
        found = candidates(queries, task, most, lab).index
        recall = recall_of_best(exact, found, config.best)
        yield {"part": "filter", "share": share, "kept": recall}


def train_decoder(config: Config, task: Task, lab: Lab) -> Trained:
    shape = Decoder(
        vocabulary=config.task.vocabulary,
        width=config.width,
        layers=config.layers,
        heads=4,
        context=config.task.length,
    )
    model = untrained_model(lambda: Transformer(shape), lab)
    return train(model, task, erm_step, config.budget, lab.child("fit"))


def likelihood(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p of the whole sequence, in nats."""
    return sequence_log_probability(model, {"tokens": batch["tokens"]})


def recall_of_best(
    exact: Float[Tensor, "query sequence"], found: Int[Tensor, "query m"], best: int
) -> float:
    """Mean share of each query's `best` most helpful sequences that are among those found."""
    wanted = exact.topk(best, 1).indices
    return float((wanted[:, :, None] == found[:, None]).any(2).double().mean())


CLAIMS = (
    Claim("Rank 32 is enough: low-rank queries keep the scores (correlation over sequences above "
          "0.98).",
          average("r", rank=32, within=(-1.0, 1.0)), above=0.98),
    Claim("Rank 1 loses them (correlation below 0.95).",
          average("r", rank=1, within=(-1.0, 1.0)), below=0.95),
    Claim("The tenth of the sequences that shares most words with a query holds 9 of its 10 most "
          "helpful.", average("kept", part="filter", share=0.1, within=(0.0, 1.0)), above=0.9),
)  # fmt: skip

AGREEMENT = {"correlation": "r", "rank correlation": "rho", "of the 10 most helpful": "kept"}
ranks = curves(
    x="rank",
    y=AGREEMENT,
    title="Low-rank queries against full rank",
    x_label="rank",
    y_label="agreement",
    log_x=True,
    where={"part": "rank"},
)
filters = curves(
    x="share",
    y={"kept": "kept"},
    title="Most helpful sequences among the candidates",
    x_label="share of the sequences that are candidates",
    y_label="share of the 10 most helpful",
    log_x=True,
    where={"part": "filter"},
)
table = stack(
    summary(("part", "rank"), AGREEMENT, where={"part": "rank"}),
    summary(("part", "share"), AGREEMENT, where={"part": "filter"}),
)

LAPTOP = Config()
study = Study(
    name="influence_economy",
    system="14",
    differs=(
        "The paper saves gradients of candidate sequences for models of up to 52 billion "
        "parameters by TF-IDF over a pre-training corpus and queries of rank 32; here a decoder "
        "with two layers of width 256 learns 400 sequences about 16 topics of 512 tokens, with 3 "
        "seeds, so that every score can be computed exactly. Topics are told by words, which is "
        "what a word filter needs: on text whose influence is abstract it would keep less."
    ),
    not_tested=(
        "How much time and memory is saved at the paper's size, and whether influential sequences "
        "without shared words, which the paper finds in its largest models, would be lost."
    ),
    source=reference("grosse2023influence"),
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
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            task=Topics(sequences=20_000, queries=100, length=512, vocabulary=8_192, topics=64),
            width=768,
            layers=12,
            budget={"steps": 2_000, "lr": 3e-4},
        ),
    },
    cells=lambda config: Grid((config,), (None,), config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(ranks, filters),
    table=table,
)
