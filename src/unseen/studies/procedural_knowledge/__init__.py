"""Answers that follow a procedure come from many documents with that procedure, facts from the few
that state them.

Ruis et al. (2025), arXiv:2411.12580: the influences of pretraining documents on queries correlate
where the queries need the same procedure, and documents that state the answer matter for facts
alone. Here on a corpus that has procedures in two formats, facts and filler by design. Queries are
the model's own completions, answered right. Not judged: which group is more volatile or has the
steeper tail (the authors warn of noise), and sources of real text (there are none).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from unseen.attributions.influence import Curvature
from unseen.lab import Lab
from unseen.measures.query_correlation import Blocks, blocks, correlations
from unseen.reading import Reading
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
from unseen.study import (
    Claim,
    Effect,
    Groups,
    Row,
    Rows,
    Scale,
    Study,
    Value,
    column,
    effects,
    pick,
)
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


def row_reading(row: Row, name: str) -> Reading:
    """The reading that a row holds."""
    value, low, high = (float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return Reading(value, low, high, int(row["n"]))


ROW_NAMES = ("seed", "group", "first", "second")
"""Columns that say of which groups of queries a row is."""


def worst(name: str, ideal: float, **where: Value) -> Effect:
    """The readings of all seeds and blocks, shown by the one farthest from the ideal."""

    def read(rows: Rows) -> Reading:
        column(rows, name, **where)  # raises with the reason when empty
        chosen = [row for row in pick(rows, **where) if name in row]
        labels = [", ".join(str(row[key]) for key in ROW_NAMES if key in row) for row in chosen]
        readings = {
            f"{n}. {label}": row_reading(row, name)
            for n, (label, row) in enumerate(zip(labels, chosen, strict=True), 1)
        }
        return Groups.of(readings, lambda reading: abs(reading.value - ideal))

    return read


FAR = 1e6
"""An ideal so far up that the reading with the lowest lower limit is the worst."""


def worst_contrast(name: str, **where: Value) -> Effect:
    """A contrast in its worst seed."""
    return worst("value", FAR, contrast=name, **where)


def of_procedures(effect: Effect) -> Effect:
    """The effect on the groups of queries that need a procedure."""
    names = {str(kind) for kind in PROCEDURES}
    return lambda rows: effect(
        [row for row in pick(rows, part="group", **EKFAC) if row["group"] in names]
    )


CLAIMS = (
    Claim(
        says="The model does every procedure on unseen numbers (worst procedure).",
        effect=of_procedures(effects.worst(effects.share("right", "tried"), "group", 1.0)),
        above=0.8,
    ),
    Claim(
        says="Queries that need the same procedure in the same format draw on the same documents "
        "(lowest mean "
        "correlation of three procedures and all seeds).",
        effect=worst("value", FAR, part="block", relation="same", **EKFAC),
        above=0.1,
    ),
    Claim(
        says="Procedure counts beyond format: in another format the same procedure correlates 1.3 "
        "times as much as "
        "another procedure does (worst seed; difference).",
        effect=worst_contrast("other format − 1.3 · other procedure", **EKFAC),
        above=0.0,
        sign_because="0 is a ratio of 1.3: 1.3 times the other is subtracted",
    ),
    Claim(
        says="Format counts, too: in the same format correlations are higher (worst seed).",
        effect=worst_contrast("same format − other format", **EKFAC),
        above=0.05,
    ),
    Claim(
        says="Factual queries correlate neither with each other nor with procedures (worst block "
        "and seed).",
        effect=worst("value", 0.0, part="block", relation="fact", **EKFAC),
        above=-0.05,
        below=0.05,
    ),
    Claim(
        says="Queries that need neither procedure nor fact correlate with no others (worst block "
        "and seed).",
        effect=worst("value", 0.0, part="block", relation="control", **EKFAC),
        above=-0.05,
        below=0.05,
    ),
    Claim(
        says="Queries of one procedure correlate more than factual ones (worst procedure and "
        "seed).",
        effect=worst_contrast("same procedure − fact", **EKFAC),
        above=0.05,
    ),
    Claim(
        says="With the documents of every query shuffled nothing correlates (worst block and "
        "seed).",
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
        says="Procedures: documents that state the answer are no more frequent in the top 50 than "
        "anywhere (worst "
        "procedure and seed; difference of shares).",
        effect=of_procedures(worst("excess", 0.0)),
        above=-0.01,
        below=0.01,
    ),
    Claim(
        says="Without its top 3 documents a fact is lost: log p falls by over 5 times what 3 "
        "random fact documents "
        "change (worst seed; top − 5 · |random|, nats).",
        effect=worst_contrast("fall, top − 5 · |random|"),
        above=0.0,
        sign_because="0 is a ratio of 5: 5 times the random fall is subtracted",
    ),
    Claim(
        says="The gradient dot product blurs this: it correlates other procedures more than EK-FAC "
        "does (worst seed).",
        effect=worst_contrast("dot product − EK-FAC, other procedure"),
        above=0.05,
    ),
)


SMALL = ProceduralCorpus(triples=70, held_out=10, facts=15, copies=3, fillers=45)

study = Study(
    name="procedural_knowledge",
    system="27",
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
