"""Influence vanishes when the order of a fact is flipped, and the documents that state a fact get
the credit for it.

Grosse et al. (2023), arXiv:2308.03296, sections 5.2 and 5.3.4, on facts made of tokens. Asked are
facts that no document states: how much would "A is B", "B is A", "C is B" or B alone have taught?
Their *binding*, log p(B | A) − mean over other names C of log p(B | C), leaves out what a document
teaches about B under any name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.attributions.influence import Curvature, Influence, InfluenceScores, sequence_nats
from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, erm_step, train
from unseen.lab import Lab
from unseen.measures.document_recall import document_recall
from unseen.measures.tail_exponent import tail_exponent, top_share
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.study import Claim, Effect, Row, Scale, Study, Value, average, gap
from unseen.study.figures import bars, points, stack, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
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


def run(cell: Cell[Config, Curvature], lab: Lab) -> Iterator[Row]:
    """Seeds share data and model between curvatures."""
    config, spec = cell.setting, cell.setting.task
    trained = fit(config, spec.build(lab.child("data")), lab)
    influences = prepare(cell.arm, trained, spec.documents(lab.child("data")), lab)
    rows = (*binding(config, influences, lab), statements(config, influences, lab))
    yield from label(rows, curvature=cell.arm, seed=cell.seed)


def fit(config: Config, task: Task, lab: Lab) -> Trained:
    vocabulary, width = config.task.vocabulary, config.width
    shape = Decoder(vocabulary=vocabulary, width=width, layers=config.layers, heads=4, context=16)
    model = untrained_model(lambda: Transformer(shape), lab)
    return train(model, task, erm_step, config.budget, lab.child("fit"))


def prepare(
    curvature: Curvature, trained: Trained, documents: dict[Document, Columns], lab: Lab
) -> InfluenceScores:
    """InfluenceScores of the training documents and, behind them, of those of the new facts, by
    kind.

    The curvature is that of the training documents alone: `most` of them.
    """
    task = trained.task
    train = whole(task.split("train").data, lab)["tokens"]
    new = torch.cat([columns.columns["tokens"] for columns in documents.values()])
    splits = {
        "train": Split(Columns(tokens=train), Use.TRAIN),
        "what if": Split(Columns(tokens=new), Use.TRAIN),
    }
    subject = replace(trained, task=replace(task, splits={**task.splits, **splits}))
    plug = Influence(curvature, most=len(train), loss=sequence_nats, batch_size=200)
    return plug.prepare(subject, lab.child("influence"))


def answer(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """log p(B | A is), in nats."""
    return sequence_log_probability(model, {"tokens": batch["tokens"], "mask": batch["answer"]})


def binding(config: Config, influences: InfluenceScores, lab: Lab) -> Iterator[Row]:
    """What a copy of each kind of document adds to log p(B | A) and to the binding, in nats.

    Means over the new facts.
    """
    new = influences.trained.task.split("new").data
    assert isinstance(new, Columns)
    names = name_tokens(new)
    plain = effect(influences, new)
    shifts = range(1, config.contrasts + 1)
    others = [effect(influences, with_name(new, names.roll(shift, 0))) for shift in shifts]
    bound = plain - torch.stack(others).mean(0)
    for kind, log_p, tied in zip(Document, plain.T, bound.T, strict=True):
        yield {
            "part": "order",
            "document": kind,
            "log_p": float(log_p.mean()),
            "log_p_share": float(log_p.mean() / plain[:, 0].mean()),
            "binding": float(tied.mean()),
            "binding_share": float(tied.mean() / bound[:, 0].mean()),
            "t": float(tied.mean() / tied.std() * len(tied) ** 0.5),
        }


def effect(influences: InfluenceScores, questions: Columns) -> Float[Tensor, "fact kind"]:
    """The influence of each fact's own four documents on its question."""
    n, kinds = len(questions), len(Document)
    scores = influences(questions.columns, answer).scores
    total = scores.shape[1]
    trained = total - kinds * n
    own = scores[:, trained:].view(n, kinds, n).diagonal(dim1=0, dim2=2).T
    # the documents of new facts were not trained on: N counts them all the same
    return own.double() * (total / trained)


def statements(config: Config, influences: InfluenceScores, lab: Lab) -> Row:
    """Recall of the documents that state an asked fact, and how concentrated influence is."""
    model, task = influences.trained.model, influences.trained.task
    data = task.split("stated").data
    assert isinstance(data, Columns)
    stated = torch.arange(config.task.facts).repeat_interleave(config.task.copies)
    scores = influences(data.columns, answer).scores[:, : len(stated)]
    flipped = per_example(model, task.split("flipped").data, answer, lab)
    return {
        "part": "own",
        "recall": document_recall(scores, stated, data.columns["fact"]).value,
        "nats": -float(per_example(model, data, answer, lab).mean()),
        "flipped_nats": -float(flipped.mean()),
        "exponent": fmean(tail_exponent(row, 500).value for row in scores),
        "top_share": fmean(top_share(row) for row in scores),
    }


EKFAC: dict[str, Value] = {"curvature": Curvature.EKFAC}
DOT: dict[str, Value] = {"curvature": Curvature.IDENTITY}
ORDER: dict[str, Value] = {"part": "order", **EKFAC}
SHARE = (0.0, 1.0)


def of(kind: Document, column: str = "binding_share") -> Effect:
    """Mean over seeds of a kind's effect, by default as a share of that of "A is B"."""
    return average(column, EKFAC, document=kind)


CLAIMS = (
    Claim("A document “A is B” binds B to A (t over facts).", of(Document.FORWARD, "t"), above=5.0),
    Claim("Flipped, “B is A”, it has less than 5 % of that effect.",
          of(Document.FLIPPED), above=-0.05, below=0.05),
    Claim("On log p(B | A) itself, which the paper reads, flipped it has less than 5 %, too.",
          of(Document.FLIPPED, "log_p_share"), above=-0.05, below=0.05),
    Claim("“C is B” has less than 5 % of the effect on the binding.",
          of(Document.OTHER), above=-0.05, below=0.05),
    Claim("B alone has less than 5 % of the effect on the binding.",
          of(Document.ALONE), above=-0.05, below=0.05),
    Claim("Without the contrast “C is B” looks helpful: more than 5 % of the forward effect on "
          "log p(B | A).", of(Document.OTHER, "log_p_share"), above=0.05),
    Claim("EK-FAC puts the documents of a trained fact first: recall among as many places.",
          average("recall", EKFAC, within=SHARE), above=0.7),
    Claim("The gradient dot product finds far fewer of them.",
          gap("recall", EKFAC, DOT), above=0.3),
    Claim("Influence is sparse: the top 1 % of the documents carry at least 12 % of all positive "
          "influence.", average("top_share", EKFAC, within=SHARE), above=0.12),
)  # fmt: skip

kinds = bars(
    average("binding_share"),
    by="document",
    title="Effect of one document on the binding of B to A",
    label="share of “A is B”",
    where=ORDER,
)
plain_kinds = bars(
    average("log_p_share"),
    by="document",
    title="Effect of one document on log p(B | A)",
    label="share of “A is B”",
    where=ORDER,
)
# against how well the facts are known: fully fitted facts have no gradient
recalls = points(
    x="nats",
    y="recall",
    by="curvature",
    title="Own documents among the first places (one point per seed)",
    x_label="−log p of the asked fact (nats)",
    y_label="recall",
    where={"part": "own"},
)
table = stack(
    summary(
        ("curvature", "document"),
        {
            "log p": "log_p",
            "share of log p": "log_p_share",
            "binding": "binding",
            "share of binding": "binding_share",
            "t": "t",
        },
        where={"part": "order"},
    ),
    summary(
        "curvature",
        {
            "recall": "recall",
            "nats": "nats",
            "nats of flipped": "flipped_nats",
            "tail exponent": "exponent",
            "top 1 %": "top_share",
        },
        where={"part": "own"},
    ),
)

LAPTOP = Config()
study = Study(
    name="influence_order_flip",
    system="14",
    differs=(
        "The paper asks models of up to 52 billion parameters about real and invented people and "
        "reads influence on log p of a completion; here a decoder with two layers of width 64 "
        "learns 200 facts of two-token names and attributes, half of them in each order, and 100 "
        "further facts are asked, with 5 seeds. In so small a world any document with B makes B "
        "likelier under every name, so most claims read the binding of B to A, the rise of log p(B "
        "| A) beyond that under other names; the paper's own quantity stands beside it."
    ),
    not_tested=(
        "That larger models draw on more abstract documents, across languages, in mathematics, "
        "code and role-play; that influence spreads over layers by what is asked; memorisation of "
        "single documents."
    ),
    source=reference("grosse2023influence"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            task=OrderFlip(facts=20, new=6, tokens=6, fillers=4),
            width=16,
            layers=1,
            budget=Budget(steps=40, batch_size=40, lr=1e-2),
            contrasts=2,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            task=OrderFlip(facts=2_000, new=400, tokens=100, fillers=100),
            width=256,
            layers=4,
            budget={"steps": 3_000, "lr": 1e-3},
            contrasts=16,
        ),
    },
    cells=lambda config: Grid((config,), config.curvatures, config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(kinds, plain_kinds, recalls),
    table=table,
)
