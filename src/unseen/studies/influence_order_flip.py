"""Influence vanishes when the order of a fact is flipped, and the documents that state a fact get the credit for it.

Grosse et al. (2023), arXiv:2308.03296, sections 5.2 and 5.3.4, on facts made of tokens. Asked are facts that no document
states: how much would "A is B", "B is A", "C is B" or B alone have taught? Their *binding*, log p(B | A) − mean over other
names C of log p(B | C), leaves out what a document teaches about B under any name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen import stats
from unseen.attributions.influence import Curvature, Influence, InfluenceScores, sequence_nats
from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, erm_step, train
from unseen.figure import Bars, Points
from unseen.lab import Lab
from unseen.measures.document_recall import document_recall
from unseen.measures.tail_exponent import tail_exponent, top_share
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, column, figures, gap, pick
from unseen.study.source import Source
from unseen.task import Batch, Split, Task, Use
from unseen.tasks.order_flip import Document, OrderFlip, name_tokens, with_name


@dataclass(frozen=True)
class Config:
    task: OrderFlip = OrderFlip(new=100)
    width: int = 64
    layers: int = 2
    budget: Budget = Budget(steps=350, batch_size=100, lr=3e-3, weight_decay=0.01)
    contrasts: int = 8
    """Other names under which B is asked."""
    curvatures: tuple[Curvature, ...] = (Curvature.EKFAC, Curvature.IDENTITY)
    seeds: int = 5


@dataclass(frozen=True)
class Cell:
    config: Config
    curvature: Curvature
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        for curvature in config.curvatures:
            yield Cell(config, curvature, seed)


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    """Seeds share data and model between curvatures."""
    spec = cell.config.task
    task = spec.build(lab.child("data"))
    trained = fitted(cell.config, task, lab)
    influences = over_all(cell.curvature, trained, spec.documents(lab.child("data")), lab)
    facts: dict[str, Value] = {"curvature": str(cell.curvature), "seed": cell.seed}
    for row in (*binding(cell, influences, lab), *own_documents(cell, influences, lab)):
        yield {**facts, **row}


def fitted(config: Config, task: Task, lab: Lab) -> Trained:
    shape = Decoder(vocabulary=config.task.vocabulary, width=config.width, layers=config.layers, heads=4, context=16)
    with lab.child("init").seeded():
        model = Transformer(shape)
    return train(model, task, erm_step, config.budget, lab.child("fit"))


def over_all(curvature: Curvature, trained: Trained, documents: dict[Document, Columns], lab: Lab) -> InfluenceScores:
    """Influences over the training documents and, behind them, those of the new facts, kind after kind.

    The curvature is that of the training documents alone: `most` of them.
    """
    task = trained.task
    train = whole(task.split("train").data, lab)["tokens"]
    asked = torch.cat([each.columns["tokens"] for each in documents.values()])
    splits = {"train": Split(Columns(tokens=train), Use.FIT), "what if": Split(Columns(tokens=asked), Use.FIT)}
    plug = Influence(curvature, most=len(train), loss=sequence_nats, batch_size=200)
    return plug.prepare(replace(trained, task=replace(task, splits={**task.splits, **splits})), lab.child("influence"))


def answer(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p(B | A is), in nats."""
    return sequence_log_probability(model, {"tokens": batch["tokens"], "mask": batch["answer"]})


def binding(cell: Cell, influences: InfluenceScores, lab: Lab) -> Iterator[dict[str, Value]]:
    """What one copy of each kind of document adds to log p(B | A) and to the binding, in nats; mean over new facts."""
    task, k = influences.trained.task, cell.config.contrasts
    new = task.split("new").data
    assert isinstance(new, Columns)
    names = name_tokens(new)
    raw = effect(influences, new)
    under_others = [effect(influences, with_name(new, names.roll(shift, 0))) for shift in range(1, k + 1)]
    bound = raw - torch.stack(under_others).mean(0)
    for kind, plain, tied in zip(Document, raw.T, bound.T, strict=True):
        yield {
            "part": "order",
            "document": str(kind),
            "log_p": float(plain.mean()),
            "log_p_share": float(plain.mean() / raw[:, 0].mean()),
            "binding": float(tied.mean()),
            "binding_share": float(tied.mean() / bound[:, 0].mean()),
            "t": float(tied.mean() / tied.std() * len(tied) ** 0.5),
        }


def effect(influences: InfluenceScores, questions: Columns) -> Float[Tensor, "fact kind"]:
    """The influence of each fact's own four documents on its question."""
    n = len(questions)
    scores = influences(questions.columns, answer).scores
    trained, total = scores.shape[1] - len(Document) * n, scores.shape[1]
    own = scores[:, trained:].view(n, len(Document), n).diagonal(dim1=0, dim2=2).T
    return own.double() * (
        total / trained
    )  # the documents of new facts were not trained on: N counts them all the same


def own_documents(cell: Cell, influences: InfluenceScores, lab: Lab) -> Iterator[dict[str, Value]]:
    """Recall of the documents that state an asked fact, and how concentrated the influences are."""
    task = influences.trained.task
    data = task.split("stated").data
    assert isinstance(data, Columns)
    stated = torch.arange(cell.config.task.facts).repeat_interleave(cell.config.task.copies)
    scores = influences(data.columns, answer).scores[:, : len(stated)]
    tails = [tail_exponent(row, 500).value for row in scores]
    yield {
        "part": "own",
        "recall": document_recall(scores, stated, data.columns["fact"]).value,
        "nats": -float(per_example(influences.trained.model, data, answer, lab).mean()),
        "flipped_nats": -float(per_example(influences.trained.model, task.split("flipped").data, answer, lab).mean()),
        "exponent": fmean(tails),
        "top_share": fmean(top_share(row) for row in scores),
    }


def share(kind: Document, curvature: Curvature = Curvature.EKFAC) -> Effect:
    """Mean over seeds of a kind's binding effect as a share of that of "A is B"."""
    return average("binding_share", document=str(kind), curvature=str(curvature))


def strength(rows: Rows) -> Reading:
    """Mean over seeds of the t statistic over facts of the binding effect of "A is B"."""
    return stats.mean(column(rows, "t", document=str(Document.FORWARD), curvature=str(Curvature.EKFAC)))


CLAIMS = (
    Claim(says="A document “A is B” binds B to A (t over facts).", effect=strength, above=5.0),
    Claim(
        says="Flipped, “B is A”, it has less than 5 % of that effect.",
        effect=share(Document.FLIPPED),
        above=-0.05,
        below=0.05,
    ),
    Claim(
        says="“C is B” has less than 5 % of it.",
        effect=share(Document.OTHER),
        above=-0.05,
        below=0.05,
    ),
    Claim(says="B alone has less than 5 % of it.", effect=share(Document.ALONE), above=-0.05, below=0.05),
    Claim(
        says="Without the contrast “C is B” looks helpful: more than 5 % of the forward effect on log p(B | A).",
        effect=average("log_p_share", document=str(Document.OTHER), curvature=str(Curvature.EKFAC)),
        above=0.05,
    ),
    Claim(
        says="EK-FAC puts the documents of a trained fact first: recall among as many places.",
        effect=average("recall", within=(0.0, 1.0), curvature=str(Curvature.EKFAC)),
        above=0.7,
    ),
    Claim(
        says="The gradient dot product finds far fewer of them.",
        effect=gap("recall", {"curvature": str(Curvature.EKFAC)}, {"curvature": str(Curvature.IDENTITY)}),
        above=0.3,
    ),
    Claim(
        says="Influence is sparse: the top 1 % of the documents carry at least 12 % of all positive influence.",
        effect=average("top_share", within=(0.0, 1.0), curvature=str(Curvature.EKFAC)),
        above=0.12,
    ),
)


def kinds(rows: Rows) -> Bars:
    """Binding effects relative to the forward one."""
    mine = pick(rows, part="order", curvature=str(Curvature.EKFAC))
    readings = {str(kind): stats.mean(column(mine, "binding_share", document=str(kind))) for kind in Document}
    return figures.bars(readings, title="Effect of one document on the binding of B to A", label="share of “A is B”")


def raw_kinds(rows: Rows) -> Bars:
    """The same on the plain log-probability."""
    mine = pick(rows, part="order", curvature=str(Curvature.EKFAC))
    readings = {str(kind): stats.mean(column(mine, "log_p_share", document=str(kind))) for kind in Document}
    return figures.bars(readings, title="Effect of one document on log p(B | A)", label="share of “A is B”")


def recalls(rows: Rows) -> Points:
    """Recall against how well the facts are known: fully fitted facts have no gradient."""
    return figures.points(
        pick(rows, part="own"),
        x="nats",
        y="recall",
        by="curvature",
        title="Own documents among the first places (one point per seed)",
        x_label="−log p of the asked fact (nats)",
        y_label="recall",
    )


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds."""
    order = {"log p": "log_p", "share of log p": "log_p_share", "binding": "binding", "share of binding": "binding_share",
             "t": "t"}  # fmt: skip
    own = {"recall": "recall", "nats": "nats", "nats of flipped": "flipped_nats", "tail exponent": "exponent",
           "top 1 %": "top_share"}  # fmt: skip
    return [
        *figures.summary(pick(rows, part="order"), ("curvature", "document"), order),
        *figures.summary(pick(rows, part="own"), ("curvature",), own),
    ]


study = Study(
    name="influence_order_flip",
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
            task=OrderFlip(facts=20, new=6, tokens=6, fillers=4),
            width=16,
            layers=1,
            budget=Budget(steps=40, batch_size=40, lr=1e-2),
            contrasts=2,
            seeds=2,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(
            task=OrderFlip(facts=2_000, new=400, tokens=100, fillers=100),
            width=256,
            layers=4,
            budget=Budget(steps=3_000, batch_size=100, lr=1e-3, weight_decay=0.01),
            contrasts=16,
            seeds=5,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(kinds, raw_kinds, recalls),
    table=table,
)  # fmt: skip
