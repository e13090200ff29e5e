"""Answers that follow a procedure come from many documents with that procedure, facts from the few that state them.

Ruis et al. (2025), arXiv:2411.12580: the influences of pretraining documents on queries correlate where the queries need
the same procedure, and documents that state the answer matter for facts alone. Here on a corpus that has procedures in two
formats, facts and filler by design. Queries are the model's own completions, answered right. Not judged: which group is
more volatile or has the steeper tail (the authors warn of noise), and sources of real text (there are none).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen import effects, stats, views
from unseen.attributions.influence import Curvature, Influence, sequence_nats
from unseen.engine.batches import Columns
from unseen.engine.decode import greedy, log_probability
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule
from unseen.engine.retrain import retrain
from unseen.errors import InvalidData
from unseen.figure import Bars, Curves, Grid
from unseen.lab import Lab
from unseen.measure import Reading
from unseen.measures.answer_recall import answer_excess, answer_recall
from unseen.measures.influence_volatility import per_nat, tail_mass, volatility
from unseen.measures.query_correlation import Blocks, blocks, correlations
from unseen.measures.source_enrichment import source_enrichment
from unseen.measures.tail_exponent import tail_exponent
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.source import Source
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, column, pick
from unseen.task import Batch, Task
from unseen.tasks.procedural_corpus import NONE, PROCEDURES, Kind, ProceduralCorpus, states

MLPS = ("blocks.*.mlp.*",)
"""The paper follows influence through the MLPs alone."""
SPLITS = {**{kind: f"unseen/{kind}" for kind in PROCEDURES}, Kind.FACT: "facts", Kind.FILLER: "control"}
"""Where the queries of each group come from; filler, which needs neither procedure nor fact, is the control."""
S, P, R, F, C = (kind.number for kind in Kind)


@dataclass(frozen=True)
class Config:
    task: ProceduralCorpus = ProceduralCorpus()
    width: int = 64
    layers: int = 2
    budget: Budget = Budget(
        steps=600,
        batch_size=64,
        lr=2e-3,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        schedule=Schedule.COSINE,
        warmup=180,
        clip=1.0,
    )
    queries: int = 40
    """Per group, at most."""
    is_right: bool = True
    """Whether queries that the model answers wrongly are left out. A smoke model answers hardly any right."""
    top: int = 50
    """Documents that count as a query's top."""
    found: int = 10
    """Documents among which the answer is sought."""
    asked: int = 20
    """Queries per group whose `removed` most helpful documents are left out of another training."""
    removed: int = 3
    shares: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    """Parts of all documents, the strongest first, whose influence is summed up."""
    draws: int = 1_000
    seeds: int = 3


@dataclass(frozen=True)
class Cell:
    config: Config
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        yield Cell(config, seed)


@dataclass(frozen=True, eq=False)
class Queries:
    """Prompts with the model's own completions."""

    tokens: Int[Tensor, "query position"]
    mask: Bool[Tensor, "query position"]
    """Of the completion."""
    nats: Float[Tensor, " query"]
    group: Int[Tensor, " query"]
    says: Int[Tensor, "query 3"]
    fact: Int[Tensor, " query"]

    @property
    def batch(self) -> Batch:
        return {"tokens": self.tokens, "mask": self.mask}

    def of(self, *groups: int) -> Bool[Tensor, " query"]:
        return torch.isin(self.group, torch.tensor(groups))


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    config = cell.config
    task = config.task.build(lab.child("data"))
    everything = torch.ones(1, config.task.documents, dtype=torch.bool)
    trained = again(config, task, everything, lab)[0]
    queries = questions(config, trained)
    documents = columns(task, "train")
    found: dict[Curvature, Blocks] = {}
    for curvature in (Curvature.EKFAC, Curvature.IDENTITY):
        scores = influence(curvature, trained, queries, lab)
        found[curvature] = blocks(correlations([scores]), queries.group, lab.child("bootstrap").numpy(), config.draws)
        for row in (*block_rows(config, found[curvature], scores, queries, lab),
                    *group_rows(config, trained, scores, queries, documents, lab)):  # fmt: skip
            yield {"seed": cell.seed, "curvature": str(curvature), **row}
        if curvature is Curvature.EKFAC:
            for row in (*tail_rows(config, scores, queries, lab),
                        *removal_rows(config, trained, scores, queries, documents, lab)):  # fmt: skip
                yield {"seed": cell.seed, **row}
    dot, kron = found[Curvature.IDENTITY], found[Curvature.EKFAC]
    blur = Blocks(dot.means - kron.means, dot.drawn - kron.drawn).reading(across, len(queries.nats))
    yield {"seed": cell.seed, **contrast("dot product − EK-FAC, other procedure", blur)}


def fresh(config: Config) -> nn.Module:
    """An untied decoder whose maps start as torch's do: with GPT-2's the reversal is not learned in 600 steps."""
    model = Transformer(
        Decoder(vocabulary=config.task.vocabulary, width=config.width, layers=config.layers, context=16, tied=False)
    )
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return model


def again(config: Config, task: Task, kept: Bool[Tensor, "subset document"], lab: Lab) -> list[Trained]:
    """One training per subset of documents, from the same start."""
    return [each[0] for each in retrain(lambda: fresh(config), task, kept, config.budget, lab.child("fit"))]


def columns(task: Task, split: str) -> Batch:
    data = task.split(split).data
    assert isinstance(data, Columns)
    return data.columns


def questions(config: Config, trained: Trained) -> Queries:
    """The first held-out triples, facts and texts of each group that the model completes rightly; control: any."""
    parts = []
    for kind, name in SPLITS.items():
        data = columns(trained.task, name)
        tokens, answer = data["tokens"].clone(), data["answer"]
        start, length = int(answer[0].long().argmax()), int(answer[0].sum())
        prompts = tokens[:, :start].tolist()
        made = torch.tensor(greedy(trained.model, prompts, length))
        right = (made == tokens[:, start : start + length]).all(1)
        tokens[:, start : start + length] = made
        rows = (right | (kind is Kind.FILLER or not config.is_right)).nonzero().squeeze(1)[: config.queries]
        if not len(rows):
            raise InvalidData(
                f"None of the {len(right)} queries of “{kind}” is answered right.",
                why="influence on wrong answers is another question.",
                fix="train longer: raise budget.steps.",
            )
        nats = -log_probability(trained.model, [prompts[k] for k in rows], made[rows].tolist())
        says = torch.full((len(rows), 3), NONE)
        if kind is not Kind.FILLER:
            says[:, :length] = made[rows]
        group = torch.full((len(rows),), kind.number)
        parts.append(Queries(tokens[rows], answer[rows], nats, group, says, data["fact"][rows]))
    return Queries(*(torch.cat([getattr(part, name) for part in parts]) for name in Queries.__annotations__))


def influence(curvature: Curvature, trained: Trained, queries: Queries, lab: Lab) -> Float[Tensor, "query document"]:
    """Nats that a further copy of a document adds to a completion's log-probability."""
    plug = Influence(curvature, layers=MLPS, loss=sequence_nats, real=real, batch_size=250)
    return plug.prepare(trained, lab.child("influence"))(queries.batch, sequence_log_probability).scores.double().cpu()


def real(batch: Batch) -> Tensor:
    """Positions that are no padding."""
    return batch["mask"]


def interval(name: str, reading: Reading) -> dict[str, Value]:
    return {name: reading.value, f"{name}_low": reading.low, f"{name}_high": reading.high, "n": reading.n}


def contrast(name: str, reading: Reading) -> dict[str, Value]:
    return {"part": "contrast", "contrast": name, **interval("value", reading)}


def across(means: Float[Tensor, "... group group"]) -> Float[Tensor, "..."]:
    """Mean correlation of the reversal with either format of the successor."""
    return (means[..., S, R] + means[..., P, R]) / 2


def beyond_format(means: Float[Tensor, "... group group"]) -> Float[Tensor, "..."]:
    """Same procedure in the other format, minus 1.3 times the larger of the other procedures."""
    return means[..., S, P] - 1.3 * torch.maximum(means[..., S, R], means[..., P, R])


def same_format(means: Float[Tensor, "... group group"]) -> Float[Tensor, "..."]:
    """Same procedure in the same format, minus in the other."""
    return (means[..., S, S] + means[..., P, P]) / 2 - means[..., S, P]


def beyond_facts(kind: int, means: Float[Tensor, "... group group"]) -> Float[Tensor, "..."]:
    """Within a procedure, minus within facts."""
    return means[..., kind, kind] - means[..., F, F]


def relation(one: int, two: int) -> str:
    """What the queries of two groups have in common."""
    if C in (one, two):
        return "control" if one != two else "control alone"
    if F in (one, two):
        return "fact"
    return "same" if one == two else "other format" if (one, two) == (S, P) else "other procedure"


def block_rows(
    config: Config, found: Blocks, scores: Float[Tensor, "query document"], queries: Queries, lab: Lab
) -> Iterator[dict[str, Value]]:
    """Mean correlations, the same with the documents of every query shuffled, and contrasts."""
    order = torch.rand(scores.shape, generator=lab.child("null").generator()).argsort(1)
    null = blocks(correlations([scores.gather(1, order)]), queries.group, lab.child("bootstrap").numpy(), config.draws)
    n, kinds = len(queries.nats), list(Kind)
    for one in range(len(kinds)):
        for two in range(one, len(kinds)):
            names: dict[str, Value] = {"first": str(kinds[one]), "second": str(kinds[two])}
            yield {"part": "block", **names, "relation": relation(one, two), **interval("value", found.of(one, two, n)),
                   **interval("null", null.of(one, two, n))}  # fmt: skip
    for kind in PROCEDURES:
        gap = found.reading(partial(beyond_facts, kind.number), n)
        yield {"first": str(kind), **contrast("same procedure − fact", gap)}
    yield contrast("other format − 1.3 · other procedure", found.reading(beyond_format, n))
    yield contrast("same format − other format", found.reading(same_format, n))


def group_rows(
    config: Config, trained: Trained, scores: Tensor, queries: Queries, documents: Batch, lab: Lab
) -> Iterator[dict[str, Value]]:
    """How well every group is answered, whether its top documents state the answers, and where they come from."""
    is_answer = states(queries.says, documents["says"])
    for kind, split in SPLITS.items():
        mine = queries.of(kind.number)
        right = per_example(trained.model, trained.task.split(split).data, trained.task.objective.score, lab)
        row: dict[str, Value] = {
            "part": "group",
            "group": str(kind),
            "queries": int(mine.sum()),
            "right": int(right.sum()),
            "tried": len(right),
            "query_nats": float(queries.nats[mine].mean()),
        }
        if kind is not Kind.FILLER:
            row |= answer_columns(config, scores[mine], is_answer[mine])
        yield row
        for bottom in (False, True):
            table = source_enrichment(scores[mine], documents["kind"], config.top, bottom=bottom)
            for source, value in zip(Kind, table.mean(0), strict=True):
                yield {"part": "source", "group": str(kind), "source": str(source), "bottom": bottom,
                       "enrichment": float(value)}  # fmt: skip


def answer_columns(config: Config, scores: Tensor, is_answer: Tensor) -> dict[str, Value]:
    """Queries whose answer is found, and how much more frequent answers are on top."""
    if not is_answer.any():  # what a smoke model makes up stands nowhere, so it is not found
        return {"hits": 0, "hit_share": 0.0}
    recall, excess = answer_recall(scores, is_answer, config.found), answer_excess(scores, is_answer, config.top)
    return {"hits": round(recall.value * recall.n), "hit_share": recall.value, **interval("excess", excess)}


def tail_rows(config: Config, scores: Tensor, queries: Queries, lab: Lab) -> Iterator[dict[str, Value]]:
    """Influence per nat of the strongest documents, how it varies between queries, and how steeply it falls with rank."""
    normal = per_nat(scores, queries.nats)
    steps = torch.tensor([tail_exponent(row, min(500, len(row) // 4)).value for row in scores], dtype=torch.float64)
    for kind in Kind:
        mine = queries.of(kind.number)
        yield {"part": "exponent", "group": str(kind), "exponent": float(steps[mine].mean())}
        for share in config.shares:
            for side, negative in (("helpful", False), ("harmful", True)):
                mass = tail_mass(normal[mine], share, negative=negative)
                varies = volatility(mass, lab.child(side, kind).numpy())
                yield {"part": "tail", "group": str(kind), "side": side, "share": share, "mass": float(mass.mean()),
                       **interval("volatility", varies)}  # fmt: skip
    steeper = stats.welch(steps[queries.of(S, P, R)].numpy(), steps[queries.of(F)].numpy())
    yield contrast("tail exponent, procedures − facts", steeper)


def removal_rows(
    config: Config, trained: Trained, scores: Tensor, queries: Queries, documents: Batch, lab: Lab
) -> Iterator[dict[str, Value]]:
    """How far log p of a completion falls when documents are left out of training; intervals over queries.

    All asked facts lose their documents in one training, and the random documents state facts that are not asked: of
    three random fact documents one in fifty would be the fact's own.
    """
    few = {kind: queries.of(kind.number).nonzero().squeeze(1)[: config.asked] for kind in (*PROCEDURES, Kind.FACT)}
    facts = few[Kind.FACT]
    asked = torch.isin(documents["fact"], queries.fact[queries.of(F)])
    others = ((documents["kind"] == F) & ~asked).nonzero().squeeze(1)
    best = scores.topk(config.removed).indices
    chosen = best[facts].unique()
    if len(others) < len(chosen):
        raise InvalidData(
            f"{len(others)} documents state facts that are not asked, {len(chosen)} are to be removed.",
            why="the comparison removes as many.",
            fix="lower `queries`, or raise `task.facts`.",
        )
    luck = others[torch.randperm(len(others), generator=lab.child("random").generator())[: len(chosen)]]
    fact_models = again(config, trained.task, without(len(documents["kind"]), chosen, luck), lab)
    procedures = torch.cat([few[kind] for kind in PROCEDURES])
    shared = again(config, trained.task, without(len(documents["kind"]), best[procedures].unique()), lab)
    by_top, by_luck = (fall(trained, model, queries, facts, lab) for model in fact_models)
    for name, values in (
        ("facts, top documents", by_top),
        ("facts, random documents", by_luck),
        ("procedures, top documents", fall(trained, shared[0], queries, procedures, lab)),
    ):
        yield {"part": "removal", "left_out": name, **interval("fall", stats.mean(values.numpy()))}
    more = stats.bootstrap(
        lambda top, luck: float(top.mean() - 5 * abs(luck.mean())),
        by_top.numpy(),
        by_luck.numpy(),
        rng=lab.child("falls").numpy(),
    )
    yield contrast("fall, top − 5 · |random|", more)


def without(n: int, *groups: Tensor) -> Bool[Tensor, "group n"]:
    """All documents but those of one group, for every group."""
    kept = torch.ones(len(groups), n, dtype=torch.bool)
    for row, group in zip(kept, groups, strict=True):
        row[group] = False
    return kept


def fall(before: Trained, after: Trained, queries: Queries, rows: Int[Tensor, " k"], lab: Lab) -> Float[Tensor, " k"]:
    """Nats of log p(completion) that the second model has lost against the first."""
    asked = Columns(**{name: column[rows] for name, column in queries.batch.items()})
    old, new = (per_example(each.model, asked, sequence_log_probability, lab).double() for each in (before, after))
    return old - new


def stored(row: Row, name: str) -> Reading:
    """The reading that a row holds."""
    value, low, high = (float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return Reading(value, low, high, int(row["n"]))


def worst(name: str, ideal: float, **where: Value) -> Effect:
    """The reading whose interval reaches farthest from the ideal, over seeds and blocks: what it clears, all do."""

    def read(rows: Rows) -> Reading:
        column(rows, name, **where)  # raises with the reason when empty
        readings = [stored(row, name) for row in pick(rows, **where) if name in row]
        return max(readings, key=lambda reading: max(abs(reading.low - ideal), abs(reading.high - ideal)))

    return read


EKFAC: dict[str, Value] = {"curvature": str(Curvature.EKFAC)}


FAR = 1e6
"""An ideal so far up that the reading with the lowest lower limit is the worst."""


def compared(name: str, **where: Value) -> Effect:
    """A contrast in its worst seed."""
    return worst("value", FAR, contrast=name, **where)


def of_procedures(effect: Effect) -> Effect:
    """The effect on the groups of queries that need a procedure."""
    names = {str(kind) for kind in PROCEDURES}
    return lambda rows: effect([row for row in pick(rows, part="group", **EKFAC) if row["group"] in names])


CLAIMS = (
    Claim(
        says="The model does every procedure on unseen numbers (worst procedure).",
        effect=of_procedures(effects.worst(effects.share("right", "tried"), "group", 1.0)),
        above=0.8,
    ),
    Claim(
        says="Queries that need the same procedure in the same format draw on the same documents (lowest mean "
        "correlation of three procedures and all seeds).",
        effect=worst("value", FAR, part="block", relation="same", **EKFAC),
        above=0.1,
    ),
    Claim(
        says="Procedure counts beyond format: in another format the same procedure correlates 1.3 times as much as "
        "another procedure does (worst seed; difference).",
        effect=compared("other format − 1.3 · other procedure", **EKFAC),
        above=0.0,
    ),
    Claim(
        says="Format counts, too: in the same format correlations are higher (worst seed).",
        effect=compared("same format − other format", **EKFAC),
        above=0.0,
    ),
    Claim(
        says="Factual queries correlate neither with each other nor with procedures (worst block and seed).",
        effect=worst("value", 0.0, part="block", relation="fact", **EKFAC),
        above=-0.05,
        below=0.05,
    ),
    Claim(
        says="Queries that need neither procedure nor fact correlate with no others (worst block and seed).",
        effect=worst("value", 0.0, part="block", relation="control", **EKFAC),
        above=-0.05,
        below=0.05,
    ),
    Claim(
        says="Queries of one procedure correlate more than factual ones (worst procedure and seed).",
        effect=compared("same procedure − fact", **EKFAC),
        above=0.0,
    ),
    Claim(
        says="With the documents of every query shuffled nothing correlates (worst block and seed).",
        effect=worst("null", 0.0, part="block", **EKFAC),
        above=-0.02,
        below=0.02,
    ),
    Claim(
        says="Facts: a document that states the answer is among the top 10.",
        effect=effects.share("hits", "queries", part="group", group=str(Kind.FACT), **EKFAC),
        above=0.9,
    ),
    Claim(
        says="Procedures: documents that state the answer are no more frequent in the top 50 than anywhere (worst "
        "procedure and seed; difference of shares).",
        effect=of_procedures(worst("excess", 0.0)),
        above=-0.01,
        below=0.01,
    ),
    Claim(
        says="Without its top 3 documents a fact is lost: log p falls by over 5 times what 3 random fact documents "
        "change (worst seed; top − 5 · |random|, nats).",
        effect=compared("fall, top − 5 · |random|"),
        above=0.0,
    ),
    Claim(
        says="The gradient dot product blurs this: it correlates other procedures more than EK-FAC does (worst seed).",
        effect=compared("dot product − EK-FAC, other procedure"),
        above=0.0,
    ),
)


def heat(rows: Rows, title: str, label: str, name: str, **where: Value) -> Grid:
    """Means over seeds, group by group or group by source; a block is stored once."""
    mine, names = pick(rows, **where), [str(kind) for kind in Kind]

    def mean(one: str, two: str) -> float:
        pairs = ({"first": one, "second": two}, {"first": two, "second": one}, {"group": one, "source": two})
        return fmean(float(row[name]) for row in mine if any(pair.items() <= row.items() for pair in pairs))

    return Grid(
        title=title, rows=names, columns=names, values=[[mean(a, b) for b in names] for a in names], label=label
    )


def correlated(rows: Rows) -> Grid:
    title = "Correlation between queries of the influences of all documents (EK-FAC)"
    return heat(rows, title, "mean correlation", "value", part="block", **EKFAC)


def blurred(rows: Rows) -> Grid:
    where: dict[str, Value] = {"part": "block", "curvature": str(Curvature.IDENTITY)}
    return heat(rows, "The same by gradient dot products", "mean correlation", "value", **where)


def sources(rows: Rows) -> Grid:
    title = "Kinds of documents (columns) among the top 50 of each group of queries (rows)"
    return heat(rows, title, "share / share in the corpus", "enrichment", part="source", bottom=False, **EKFAC)


def answers(rows: Rows) -> Bars:
    """Recall of answers by group."""
    mine = [row for row in pick(rows, part="group", **EKFAC) if "hit_share" in row]
    readings = {
        str(kind): effects.share("hits", "queries", group=kind)(mine) for (kind,) in effects.distinct(mine, "group")
    }
    return views.bars(readings, title="A document that states the answer is among the top 10", label="share of queries")


def lost(rows: Rows) -> Bars:
    """Counterfactual removal."""
    mine = pick(rows, part="removal")
    names = [str(name) for (name,) in effects.distinct(mine, "left_out")]
    readings = {name: stats.mean(column(mine, "fall", left_out=name)) for name in names}
    return views.bars(readings, title="Fall of log p when documents are left out", label="nats")


def spread(rows: Rows) -> Curves:
    """Not judged."""
    return views.curves(
        pick(rows, part="tail", side="helpful"),
        x="share",
        y="volatility",
        by="group",
        title="Volatility of influence per nat between queries (not judged)",
        x_label="share of documents, the most helpful first",
        y_label="standard deviation / mean",
        log_x=True,
    )


def tails(rows: Rows) -> Bars:
    """Not judged."""
    mine = pick(rows, part="exponent")
    readings = {
        str(kind): stats.mean(column(mine, "exponent", group=kind)) for (kind,) in effects.distinct(mine, "group")
    }
    steeper = column(rows, "value", contrast="tail exponent, procedures − facts")
    readings["procedures − facts"] = stats.mean(steeper)
    return views.bars(
        readings, title="How steeply influence falls with rank (not judged)", label="exponent of the tail"
    )


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds; tails of EK-FAC only."""
    merged: list[Row] = []
    for row in pick(rows, part="group"):
        where = {"group": row["group"], "seed": row["seed"]}
        parts = pick(rows, part="source", source=row["group"], curvature=row["curvature"], bottom=False, **where)
        if row["curvature"] == str(Curvature.EKFAC):
            parts += pick(rows, part="exponent", **where) + pick(rows, part="tail", side="helpful", share=0.01, **where)
        merged.append({name: value for part in (*parts, row) for name, value in part.items()})
    titles = {
        "queries": "queries",
        "right": "right",
        "of": "tried",
        "nats": "query_nats",
        "answer in top 10": "hit_share",
        "excess of answers in top 50": "excess",
        "own kind in top 50 (ratio)": "enrichment",
        "top 1 % per nat": "mass",
        "volatility": "volatility",
        "tail exponent": "exponent",
    }
    return views.summary(merged, ("curvature", "group"), titles)


SMALL = ProceduralCorpus(triples=70, held_out=10, facts=15, copies=3, fillers=45)

study = Study(
    name="procedural_knowledge",
    system="27",
    source=Source(
        key="ruis2025procedural",
        title="Procedural Knowledge in Pretraining Drives Reasoning in Large Language Models",
        authors=(
            "Ruis, Laura", "Mozes, Maximilian", "Bae, Juhan", "Kamalakara, Siddhartha Rao", "Talupuru, Dwarak",
            "Locatelli, Acyr", "Kirk, Robert", "Rocktäschel, Tim", "Grefenstette, Edward", "Bartolo, Max",
        ),
        year=2025,
        venue="ICLR",
        arxiv="2411.12580",
    ),
    scales={
        Scale.SMOKE: Config(
            task=SMALL,
            width=16,
            layers=1,
            budget=replace(Config().budget, steps=40, lr=1e-2, warmup=10),
            queries=5,
            is_right=False,
            top=10,
            asked=3,
            draws=200,
            shares=(0.01,),
            seeds=1,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(width=256, layers=4, queries=100, asked=50, seeds=10),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(correlated, blurred, sources, answers, lost, spread, tails),
    table=table,
)  # fmt: skip
