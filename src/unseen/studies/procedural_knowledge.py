"""Answers that follow a procedure come from many documents with that procedure, facts from the few
that state them.

Ruis et al. (2025), arXiv:2411.12580: the influences of pretraining documents on queries correlate
where the queries need the same procedure, and documents that state the answer matter for facts
alone. Here on a corpus that has procedures in two formats, facts and filler by design. Queries are
the model's own completions, answered right. Claims are about training, so seeds are their unit.
Not judged: which group is more volatile or has the steeper tail (the authors warn of noise), and
sources of real text (there are none).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen import stats
from unseen.attributions.influence import Curvature, Influence, sequence_nats
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule
from unseen.engine.retrain import retrain
from unseen.errors import InvalidData
from unseen.figure import Grid as Matrix
from unseen.lab import Lab
from unseen.measures.answer_recall import answer_excess, answer_recall
from unseen.measures.influence_volatility import per_nat, tail_mass, volatility
from unseen.measures.query_correlation import Blocks, blocks, correlations
from unseen.measures.source_enrichment import source_enrichment
from unseen.measures.tail_exponent import tail_exponent
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, gap, pick
from unseen.study.effects import derive, restrict, share, worst
from unseen.study.figures import bars, curves, matrix, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.task import Batch, Task
from unseen.tasks.procedural_corpus import (
    PROCEDURES,
    SPLITS,
    Kind,
    ProceduralCorpus,
    Queries,
    ask,
    states,
)

MLPS = ("blocks.*.mlp.*",)
"""The paper follows influence through the MLPs alone."""
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
    """Whether queries that the model answers wrongly are left out. A smoke model answers hardly any
    right.
    """
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
    seeds: int = 8


@dataclass(frozen=True, eq=False)
class Ranking:
    """What every document of a training adds to every completion."""

    config: Config
    trained: Trained
    documents: Batch
    queries: Queries
    scores: Float[Tensor, "query document"]

    def correlate(self, scores: Float[Tensor, "query document"], lab: Lab) -> Blocks:
        """Mean correlations of scores between the groups of queries."""
        rng = lab.child("bootstrap").numpy()
        return blocks(correlations([scores]), self.queries.group, rng, self.config.draws)


def run(cell: Cell[Config, None], lab: Lab) -> Iterator[Row]:
    return label(rows_of_training(cell.setting, lab), seed=cell.seed)


def rows_of_training(config: Config, lab: Lab) -> Iterator[Row]:
    task = config.task.build(lab.child("data"))
    everything = torch.ones(1, config.task.documents, dtype=torch.bool)
    (trained,) = retrain_on_subsets(config, task, everything, lab)
    queries = ask(trained, config.queries, config.is_right)
    correlated: dict[Curvature, Blocks] = {}
    for curvature in (Curvature.EKFAC, Curvature.IDENTITY):
        scores = influence(curvature, trained, queries, lab)
        ranking = Ranking(config, trained, columns(task, "train"), queries, scores)
        correlated[curvature] = ranking.correlate(scores, lab)
        yield from label(block_rows(ranking, correlated[curvature], lab), curvature=curvature)
        yield from label(group_rows(ranking, lab), curvature=curvature)
        if curvature is Curvature.EKFAC:
            yield from tail_rows(ranking, lab)
            yield from removal_rows(ranking, lab)
    dot, kron = correlated[Curvature.IDENTITY], correlated[Curvature.EKFAC]
    blur = Blocks(dot.means - kron.means, dot.drawn - kron.drawn)
    reading = blur.reading(across, len(queries.nats))
    yield contrast("dot product − EK-FAC, other procedure", reading)


def untrained_decoder(config: Config) -> nn.Module:
    """An untied decoder whose maps start as torch's do: with GPT-2's the reversal is not learned at
    this rate.
    """
    model = Transformer(
        Decoder(
            vocabulary=config.task.vocabulary,
            width=config.width,
            layers=config.layers,
            context=16,
            tied=False,
        )
    )
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return model


def retrain_on_subsets(
    config: Config, task: Task, masks: Bool[Tensor, "subset document"], lab: Lab
) -> list[Trained]:
    """One training per subset of documents, from the same start."""
    fit = lab.child("fit")
    repeats = retrain(lambda: untrained_decoder(config), task, masks, config.budget, fit)
    return [trained for (trained,) in repeats]


def columns(task: Task, split: str) -> Batch:
    data = task.split(split).data
    assert isinstance(data, Columns)
    return data.columns


def influence(
    curvature: Curvature, trained: Trained, queries: Queries, lab: Lab
) -> Float[Tensor, "query document"]:
    """Nats that a further copy of a document adds to a completion's log-probability."""
    plug = Influence(curvature, layers=MLPS, loss=sequence_nats, real=real, batch_size=250)
    attribute = plug.prepare(trained, lab.child("influence"))
    return attribute(queries.batch, sequence_log_probability).scores.double().cpu()


def real(batch: Batch) -> Tensor:
    """Positions that are no padding."""
    return batch["mask"]


def interval(name: str, reading: Reading) -> dict[str, Value]:
    limits = {f"{name}_low": reading.low, f"{name}_high": reading.high}
    return {name: reading.value, **limits, "n": reading.n}


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


def block_rows(ranking: Ranking, correlated: Blocks, lab: Lab) -> Iterator[Row]:
    """Mean correlations, the same with the documents of every query shuffled, and contrasts."""
    scores, n, kinds = ranking.scores, len(ranking.queries.nats), list(Kind)
    order = torch.rand(scores.shape, generator=lab.child("null").generator()).argsort(1)
    null = ranking.correlate(scores.gather(1, order), lab)
    for one, two in torch.triu_indices(len(kinds), len(kinds)).T.tolist():
        row = interval("value", correlated.of(one, two, n)) | interval("null", null.of(one, two, n))
        names = {"first": kinds[one], "second": kinds[two], "relation": relation(one, two)}
        yield {"part": "block", **names, **row}
    for kind in PROCEDURES:
        beyond = correlated.reading(partial(beyond_facts, kind.number), n)
        yield {"first": kind, **contrast("same procedure − fact", beyond)}
    yield contrast("other format − 1.3 · other procedure", correlated.reading(beyond_format, n))
    yield contrast("same format − other format", correlated.reading(same_format, n))


def group_rows(ranking: Ranking, lab: Lab) -> Iterator[Row]:
    """How well every group is answered, whether its top documents state the answers, and where they
    come from.
    """
    config, queries, documents = ranking.config, ranking.queries, ranking.documents
    model, task = ranking.trained.model, ranking.trained.task
    is_answer = states(queries.says, documents["says"])
    for kind, split in SPLITS.items():
        mine = queries.of(kind.number)
        right = per_example(model, task.split(split).data, task.objective.score, lab)
        row: dict[str, Value] = {
            "queries": int(mine.sum()),
            "right": int(right.sum()),
            "tried": len(right),
            "query_nats": float(queries.nats[mine].mean()),
        }
        scores = ranking.scores[mine]
        if kind is not Kind.FILLER:
            row |= answer_columns(config, scores, is_answer[mine])
        yield {"part": "group", "group": kind, **row}
        for bottom in (False, True):
            table = source_enrichment(scores, documents["kind"], config.top, bottom=bottom)
            facts = {"part": "source", "group": kind, "bottom": bottom}
            for source, value in zip(Kind, table.mean(0).tolist(), strict=True):
                yield {**facts, "source": source, "enrichment": value}


def answer_columns(config: Config, scores: Tensor, is_answer: Tensor) -> dict[str, Value]:
    """Queries whose answer is found, and how much more frequent answers are on top."""
    if not is_answer.any():  # what a smoke model makes up stands nowhere, so it is not found
        return {"hits": 0, "hit_share": 0.0}
    recall = answer_recall(scores, is_answer, config.found)
    excess = interval("excess", answer_excess(scores, is_answer, config.top))
    return {"hits": round(recall.value * recall.n), "hit_share": recall.value, **excess}


def tail_rows(ranking: Ranking, lab: Lab) -> Iterator[Row]:
    """Influence per nat of the strongest documents, how it varies between queries, and how steeply
    it falls with rank.
    """
    queries, scores = ranking.queries, ranking.scores
    normal = per_nat(scores, queries.nats)
    length = min(500, scores.shape[1] // 4)
    exponents = torch.tensor(
        [tail_exponent(row, length).value for row in scores], dtype=torch.float64
    )
    for kind in Kind:
        mine = queries.of(kind.number)
        yield {"part": "exponent", "group": kind, "exponent": float(exponents[mine].mean())}
        for part in ranking.config.shares:
            for side in ("helpful", "harmful"):
                mass = tail_mass(normal[mine], part, negative=side == "harmful")
                varies = interval("volatility", volatility(mass, lab.child(side, kind).numpy()))
                facts = {"part": "tail", "group": kind, "side": side, "share": part}
                yield {**facts, "mass": float(mass.mean()), **varies}
    worked, stated = (exponents[queries.of(*kinds)].numpy() for kinds in ((S, P, R), (F,)))
    yield contrast("tail exponent, procedures − facts", stats.welch(worked, stated))


def removal_rows(ranking: Ranking, lab: Lab) -> Iterator[Row]:
    """How far log p of a completion falls when documents are left out of training; intervals over
    queries.

    All asked facts lose their documents in one training, and the random documents state facts that
    are not asked: of three random fact documents one in fifty would be the fact's own.
    """
    config, queries, documents = ranking.config, ranking.queries, ranking.documents
    trained, n = ranking.trained, len(documents["kind"])
    *procedures, facts = (
        queries.of(kind.number).nonzero().squeeze(1)[: config.asked]
        for kind in (*PROCEDURES, Kind.FACT)
    )
    best = ranking.scores.topk(config.removed).indices
    chosen = best[facts].unique()
    asked = torch.isin(documents["fact"], queries.fact[queries.of(F)])
    others = ((documents["kind"] == F) & ~asked).nonzero().squeeze(1)
    if len(others) < len(chosen):
        raise InvalidData(
            f"{len(others)} documents state facts that are not asked, {len(chosen)} are to be "
            "removed.",
            why="the comparison removes as many.",
            fix="lower `queries`, or raise `task.facts`.",
        )
    order = torch.randperm(len(others), generator=lab.child("random").generator())
    luck, worked = others[order[: len(chosen)]], torch.cat(procedures)
    # as many documents are left out at random, so both of these train as one stack
    masks = without(n, chosen, luck), without(n, best[worked].unique())
    (by_top, by_luck), (by_worked,) = (
        retrain_on_subsets(config, trained.task, mask, lab) for mask in masks
    )
    falls = {
        "facts, top documents": fall(trained, by_top, queries, facts, lab),
        "facts, random documents": fall(trained, by_luck, queries, facts, lab),
        "procedures, top documents": fall(trained, by_worked, queries, worked, lab),
    }
    for name, values in falls.items():
        yield {"part": "removal", "left_out": name, **interval("fall", stats.mean(values.numpy()))}
    top, random, _ = (values.numpy() for values in falls.values())
    more = stats.bootstrap(
        lambda top, random: float(top.mean() - 5 * abs(random.mean())),
        top,
        random,
        rng=lab.child("falls").numpy(),
    )
    yield contrast("fall, top − 5 · |random|", more)


def without(n: int, *groups: Tensor) -> Bool[Tensor, "group n"]:
    """All documents but those of one group, for every group."""
    masks = torch.ones(len(groups), n, dtype=torch.bool)
    for mask, group in zip(masks, groups, strict=True):
        mask[group] = False
    return masks


def fall(
    before: Trained, after: Trained, queries: Queries, rows: Int[Tensor, " k"], lab: Lab
) -> Float[Tensor, " k"]:
    """Nats of log p(completion) that the second model has lost against the first."""
    asked = Columns(**{name: column[rows] for name, column in queries.batch.items()})
    old, new = (
        per_example(trained.model, asked, sequence_log_probability, lab).double()
        for trained in (before, after)
    )
    return old - new


EKFAC: dict[str, Value] = {"curvature": Curvature.EKFAC}


def of_blocks(name: str, ideal: float, **where: Value) -> Effect:
    """Mean over seeds of a block's column, for the block that is farthest from the ideal."""
    by_pair = worst(average(name), "pair", ideal, part="block", **where, **EKFAC)
    return derive(by_pair, pair=lambda row: f"{row.get('first')} × {row.get('second')}")


def of_contrast(name: str, **where: Value) -> Effect:
    """Mean over seeds of a contrast."""
    return average("value", {"contrast": name, **where})


def of_procedures(effect: Effect, ideal: float) -> Effect:
    """The effect on the group of queries that need a procedure and is farthest from the ideal."""
    by_group = worst(effect, "group", ideal)
    return restrict(by_group, lambda row: row["group"] in PROCEDURES, part="group", **EKFAC)


HIGHEST = 1.0
"""Of correlations and shares: the reading farthest from it is the lowest."""
SAME: dict[str, Value] = {"part": "block", "relation": "same", **EKFAC}
NEITHER: dict[str, Value] = {"part": "block", "relation": "control alone", **EKFAC}
ABOVE_FACTS: dict[str, Value] = {"part": "contrast", "contrast": "same procedure − fact", **EKFAC}
CLAIMS = (
    Claim("The model does every procedure on unseen numbers (worst procedure).",
          of_procedures(share("right", "tried"), HIGHEST), above=0.8),
    Claim("Queries that need the same procedure in the same format draw on the same documents "
          "(lowest mean correlation of three procedures).",
          of_blocks("value", HIGHEST, relation="same"), above=0.1),
    Claim("Procedure counts beyond format: in another format the same procedure correlates 1.3 "
          "times as much as another procedure does (difference).",
          of_contrast("other format − 1.3 · other procedure", **EKFAC), above=0.0,
          sign_because="0 is a ratio of 1.3: 1.3 times the other is subtracted"),
    Claim("Format counts, too: in the same format correlations are higher.",
          of_contrast("same format − other format", **EKFAC), above=0.05),
    Claim("Factual queries correlate neither with each other nor with procedures (worst block).",
          of_blocks("value", 0.0, relation="fact"), above=-0.05, below=0.05),
    Claim("Queries that need neither procedure nor fact correlate with no others (worst block).",
          of_blocks("value", 0.0, relation="control"), above=-0.05, below=0.05),
    Claim("Nor do these correlate with each other.",
          average("value", NEITHER), above=-0.05, below=0.05),
    Claim("Correlation is a sign of a procedure: queries that share one correlate by 0.05 more "
          "than those that need none.", gap("value", SAME, NEITHER), above=0.05),
    Claim("Queries of one procedure correlate more than factual ones (worst procedure).",
          worst(average("value"), "first", HIGHEST, **ABOVE_FACTS), above=0.05),
    Claim("With the documents of every query shuffled nothing correlates (worst block).",
          of_blocks("null", 0.0), above=-0.02, below=0.02),
    Claim("Facts: a document that states the answer is among the top 10.",
          share("hits", "queries", part="group", group=Kind.FACT, **EKFAC), above=0.9),
    Claim("Procedures: documents that state the answer are no more frequent in the top 50 than "
          "anywhere (worst procedure; difference of shares).",
          of_procedures(average("excess"), 0.0), above=-0.01, below=0.01),
    Claim("Without its top 3 documents a fact is lost: log p falls by over 5 times what 3 random "
          "fact documents change (top − 5 · |random|, nats).",
          of_contrast("fall, top − 5 · |random|"), above=0.0,
          sign_because="0 is a ratio of 5: 5 times the random fall is subtracted"),
    Claim("The gradient dot product blurs this: it correlates other procedures more than EK-FAC "
          "does.", of_contrast("dot product − EK-FAC, other procedure"), above=0.05),
)  # fmt: skip


def correlation_grid(curvature: Curvature, title: str) -> Callable[[Rows], Matrix]:
    """Means over seeds, group by group; a block is stored once."""
    draw = matrix("value", down="first", across="second", title=title, label="mean correlation")

    def draw_both_halves(rows: Rows) -> Matrix:
        upper = pick(rows, part="block", curvature=curvature)
        lower = [{**row, "first": row["second"], "second": row["first"]} for row in upper]
        return draw([*upper, *lower])

    return draw_both_halves


sources = matrix(
    "enrichment",
    down="group",
    across="source",
    title="Kinds of documents (columns) among the top 50 of each group of queries (rows)",
    label="share / share in the corpus",
    where={"part": "source", "bottom": False, **EKFAC},
)
answers = restrict(
    bars(
        share("hits", "queries"),
        by="group",
        title="A document that states the answer is among the top 10",
        label="share of queries",
    ),
    lambda row: "hit_share" in row,
    part="group",
    **EKFAC,
)
removals = bars(
    average("fall"),
    by="left_out",
    title="Fall of log p when documents are left out",
    label="nats",
    where={"part": "removal"},
)
spread = curves(
    "share",
    "volatility",
    by="group",
    title="Volatility of influence per nat between queries (not judged)",
    x_label="share of documents, the most helpful first",
    y_label="standard deviation / mean",
    log_x=True,
    where={"part": "tail", "side": "helpful"},
)
tails = bars(
    {
        **{str(kind): average("exponent", group=kind) for kind in Kind},
        "procedures − facts": of_contrast("tail exponent, procedures − facts"),
    },
    title="How steeply influence falls with rank (not judged)",
    label="exponent of the tail",
)
MEANS = {
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
SHOWN: dict[str, Value] = {"bottom": False, "side": "helpful", "share": 0.01}


def is_shown(row: Row) -> bool:
    """Rows of a group, with documents of its own kind, the strongest hundredth of them."""
    alike = all(row.get(name, value) == value for name, value in SHOWN.items())
    return "group" in row and row.get("source", row["group"]) == row["group"] and alike


# tails are those of EK-FAC
table = restrict(
    derive(
        summary(("curvature", "group"), MEANS),
        curvature=lambda row: row.get("curvature", Curvature.EKFAC),
    ),
    is_shown,
)

LAPTOP = Config()
study = Study(
    name="procedural_knowledge",
    system="27",
    differs=(
        "The paper ranks 5 million pre-training documents for models of 7 and 35 billion "
        "parameters and reads 100 queries; here a decoder with two layers of width 64 learns 2,950 "
        "invented documents of two procedures on digits (one in two formats), facts and filler, "
        "with 8 seeds of up to 200 queries. A procedure is one step long, so there is no chain of "
        "reasoning whose steps could be looked up. Correlations are lower than the paper's (0.2 to "
        "0.5 against 0.9 within a procedure and format), and queries that need no procedure "
        "correlate among themselves, unlike there."
    ),
    not_tested=(
        "That documents with code and formulas carry the procedures, which sources are "
        "over-represented, that each document weighs less per nat in reasoning, and that two "
        "models of different size draw on different documents."
    ),
    source=reference("ruis2025procedural"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            task=ProceduralCorpus(triples=70, held_out=10, facts=15, copies=3, fillers=45),
            width=16,
            layers=1,
            budget={"steps": 40, "lr": 1e-2, "warmup": 10},
            queries=5,
            is_right=False,
            top=10,
            asked=3,
            draws=200,
            shares=(0.01,),
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(LAPTOP, width=256, layers=4, queries=100, asked=50, seeds=10),
    },
    cells=lambda config: Grid((config,), (None,), config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(
        correlation_grid(
            Curvature.EKFAC,
            "Correlation between queries of the influences of all documents (EK-FAC)",
        ),
        correlation_grid(Curvature.IDENTITY, "The same by gradient dot products"),
        sources,
        answers,
        removals,
        spread,
        tails,
    ),
    table=table,
)
