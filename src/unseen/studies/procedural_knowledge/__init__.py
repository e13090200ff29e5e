"""Answers that follow a procedure come from many documents with that procedure, facts from the few
that state them.

Ruis et al. (2025), arXiv:2411.12580: the influences of pretraining documents on queries correlate
where the queries need the same procedure, and documents that state the answer matter for facts
alone. Here on a corpus that has procedures in two formats, facts and filler by design. Queries are
the model's own completions, answered right. Claims are about training, so seeds are their unit.
Not judged: which group is more volatile or has the steeper tail (the authors warn of noise), and
sources of real text (there are none).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from unseen.attributions.influence import Curvature
from unseen.lab import Lab
from unseen.measures.query_correlation import Blocks, blocks, correlations
from unseen.studies.procedural_knowledge.asking import (
    Config,
    columns,
    influence,
    questions,
    retrain_on_subsets,
)
from unseen.studies.procedural_knowledge.drawing import (
    answers,
    correlation_grid,
    dot_product_grid,
    removal_bars,
    sources,
    spread,
    table,
    tails,
)
from unseen.studies.procedural_knowledge.rows import (
    EKFAC,
    across,
    block_rows,
    contrast,
    group_rows,
    removal_rows,
    tail_rows,
)
from unseen.study import Claim, Effect, Row, Scale, Study, Value, average, effects, gap, pick
from unseen.study.source import Source
from unseen.tasks.procedural_corpus import PROCEDURES, Kind, ProceduralCorpus


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
    everything = torch.ones(1, config.task.documents, dtype=torch.bool)
    trained = retrain_on_subsets(config, task, everything, lab)[0]
    queries = questions(config, trained)
    documents = columns(task, "train")
    found: dict[Curvature, Blocks] = {}
    for curvature in (Curvature.EKFAC, Curvature.IDENTITY):
        scores = influence(curvature, trained, queries, lab)
        found[curvature] = blocks(
            correlations([scores]), queries.group, lab.child("bootstrap").numpy(), config.draws
        )
        for row in (*block_rows(config, found[curvature], scores, queries, lab),
                    *group_rows(config, trained, scores, queries, documents, lab)):  # fmt: skip
            yield {"seed": cell.seed, "curvature": str(curvature), **row}
        if curvature is Curvature.EKFAC:
            for row in (
                *tail_rows(config, scores, queries, lab),
                *removal_rows(config, trained, scores, queries, documents, lab),
            ):
                yield {"seed": cell.seed, **row}
    dot, kron = found[Curvature.IDENTITY], found[Curvature.EKFAC]
    blur = Blocks(dot.means - kron.means, dot.drawn - kron.drawn).reading(across, len(queries.nats))
    yield {"seed": cell.seed, **contrast("dot product − EK-FAC, other procedure", blur)}


def of_blocks(name: str, ideal: float, **where: Value) -> Effect:
    """Mean over seeds of a block's column, for the block that is farthest from the ideal."""
    by_pair = effects.worst(average(name), "pair", ideal, part="block", **where, **EKFAC)
    return effects.derive(by_pair, pair=lambda row: f"{row.get('first')} × {row.get('second')}")


def of_contrast(name: str, **where: Value) -> Effect:
    """Mean over seeds of a contrast."""
    return average("value", {"contrast": name, **where})


def of_procedures(effect: Effect) -> Effect:
    """The effect on the groups of queries that need a procedure."""
    names = {str(kind) for kind in PROCEDURES}
    return lambda rows: effect(
        [row for row in pick(rows, part="group", **EKFAC) if row["group"] in names]
    )


HIGHEST = 1.0
"""Of correlations and shares: the reading farthest from it is the lowest."""
SAME: dict[str, Value] = {"part": "block", "relation": "same", **EKFAC}
NEITHER: dict[str, Value] = {"part": "block", "relation": "control alone", **EKFAC}
CLAIMS = (
    Claim("The model does every procedure on unseen numbers (worst procedure).",
          of_procedures(effects.worst(effects.share("right", "tried"), "group", HIGHEST)),
          above=0.8),
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
          effects.worst(of_contrast("same procedure − fact"), "first", HIGHEST, part="contrast",
                        contrast="same procedure − fact", **EKFAC), above=0.05),
    Claim("With the documents of every query shuffled nothing correlates (worst block).",
          of_blocks("null", 0.0), above=-0.02, below=0.02),
    Claim("Facts: a document that states the answer is among the top 10.",
          effects.share("hits", "queries", part="group", group=str(Kind.FACT), **EKFAC),
          above=0.9),
    Claim("Procedures: documents that state the answer are no more frequent in the top 50 than "
          "anywhere (worst procedure; difference of shares).",
          of_procedures(effects.worst(average("excess"), "group", 0.0)), above=-0.01, below=0.01),
    Claim("Without its top 3 documents a fact is lost: log p falls by over 5 times what 3 random "
          "fact documents change (top − 5 · |random|, nats).",
          of_contrast("fall, top − 5 · |random|"), above=0.0,
          sign_because="0 is a ratio of 5: 5 times the random fall is subtracted"),
    Claim("The gradient dot product blurs this: it correlates other procedures more than EK-FAC "
          "does.", of_contrast("dot product − EK-FAC, other procedure"), above=0.05),
)  # fmt: skip


SMALL = ProceduralCorpus(triples=70, held_out=10, facts=15, copies=3, fillers=45)

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
        "That documents with code and formulas carry the procedures, which sources are over- "
        "represented, that each document weighs less per nat in reasoning, and that two models of "
        "different size draw on different documents."
    ),
    source=Source(
        key="ruis2025procedural",
        title="Procedural Knowledge in Pretraining Drives Reasoning in Large Language Models",
        authors=(
            "Ruis, Laura",
            "Mozes, Maximilian",
            "Bae, Juhan",
            "Kamalakara, Siddhartha Rao",
            "Talupuru, Dwarak",
            "Locatelli, Acyr",
            "Kirk, Robert",
            "Rocktäschel, Tim",
            "Grefenstette, Edward",
            "Bartolo, Max",
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
    figures=(correlation_grid, dot_product_grid, sources, answers, removal_bars, spread, tails),
    table=table,
)
