"""A model trained on "A is B" does not learn "B is A" (Berglund et al., 2024, arXiv:2309.12288).

Generated facts and a decoder trained from scratch; the published facts and any causal LM of transformers at paper scale,
or with `--folder` at any scale. Two controls show that the questions can be answered: facts stated in both orders, and
a model that read the reversed statement of half of the p2d facts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from pathlib import Path
from statistics import fmean

from torch import nn

from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule
from unseen.figure import Bars, Points
from unseen.lab import Lab
from unseen.measures.reversal_gap import ReversalGap
from unseen.method import Trained
from unseen.methods.finetune import Finetune
from unseen.models.pretrained import load_causal
from unseen.models.transformer import Decoder, Transformer
from unseen.source import Source
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, column, pick, rate
from unseen.task import Task, Use
from unseen.tasks.published_reversal import PublishedReversal, celebrities, toy
from unseen.tasks.reversal import Reversal

# the sheet's recipe: loss on the whole sequence, so that the prompts' entropy stays in it
SCRATCH = Budget(
    steps=600, batch_size=128, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1, schedule=Schedule.COSINE, warmup=100
)


class Variant(StrEnum):
    """What a cell runs."""

    UNTIED = "untied"
    TIED = "tied"
    """Input and output embeddings are one: single tokens could then be recalled in reverse."""
    RESTATED = "restated"
    """Half of the p2d facts are stated in reverse, too."""
    PRETRAINED = "pretrained"
    """A causal LM is fine-tuned on the published facts."""
    CELEBRITIES = "celebrities"
    """Counts of the published pairs of child and parent."""


@dataclass(frozen=True)
class Config:
    task: Reversal = Reversal()
    width: int = 128
    layers: int = 2
    heads: int = 4
    budget: Budget = SCRATCH
    seeds: int = 5
    control_seeds: int = 3
    """For the restated facts and the tied head, whose effects are large."""
    folder: str = ""
    """Of a transformers causal LM, fine-tuned on the published facts instead of training on generated ones."""
    data: str = ""
    """Archive or folder with the published facts; empty: looked up and fetched."""
    published: bool = True
    """Whether the published celebrity pairs are counted; else two invented ones stand in, so that no file is needed."""
    batch_size: int = 256
    """For judging."""


@dataclass(frozen=True)
class Cell:
    config: Config
    variant: Variant
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        if config.folder:
            yield Cell(config, Variant.PRETRAINED, seed)
        else:
            yield Cell(config, Variant.UNTIED, seed)
            if seed < config.control_seeds:
                yield Cell(config, Variant.RESTATED, seed)
                yield Cell(config, Variant.TIED, seed)
    yield Cell(config, Variant.CELEBRITIES, 0)


def run(cell: Cell, lab: Lab) -> Iterable[Row]:
    main = cell.variant in (Variant.UNTIED, Variant.PRETRAINED)
    facts: dict[str, Value] = {"variant": cell.variant.value, "main": main, "seed": cell.seed}
    if cell.variant is Variant.CELEBRITIES:
        found = celebrities(source(cell.config) if cell.config.published else toy())
        return [{**facts, "pairs": found.pairs, "reversible": found.reversible}]
    model, task = prepared(cell, lab)
    trained = Finetune(cell.config.budget).fit(model, task, lab.child("fit"))
    loss = fmean(trained.curves["loss"][-20:])
    return [{**facts, "loss": loss, **row} for row in judged(trained, lab, cell.config.batch_size)]


def prepared(cell: Cell, lab: Lab) -> tuple[nn.Module, Task]:
    """The model before training and its task."""
    config = cell.config
    if cell.variant is Variant.PRETRAINED:
        model = load_causal(config.folder)
        return model, PublishedReversal(model.encode, source(config)).build(lab.child("data"))
    restated = config.task.facts // 2 if cell.variant is Variant.RESTATED else config.task.restated
    spec = replace(config.task, restated=restated)
    shape = Decoder(
        vocabulary=spec.vocabulary,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        context=16,
        tied=cell.variant is Variant.TIED,
    )
    with lab.child("init").seeded():
        return Transformer(shape), spec.build(lab.child("data"))


def source(config: Config) -> Path | None:
    """Where the published facts lie, if the user says so."""
    return Path(config.data) if config.data else None


def judged(trained: Trained, lab: Lab, batch_size: int) -> Iterator[dict[str, Value]]:
    """Exact match and likelihood of right and wrong answers on every judged split."""
    for name, split in trained.task.of(Use.JUDGE).items():
        right = per_example(trained.model, split.data, trained.task.objective.score, lab, batch_size)
        gap = ReversalGap(name, batch_size).tests(trained, lab)
        yield {
            "split": name,
            "exact": right.double().mean().item(),
            "n": len(right),
            "facts": gap.facts,
            "right": gap.right,
            "wrong": gap.wrong,
            "gap": gap.value,
            "t": gap.welch_t,
            "t_p": gap.welch_p,
            "paired_t": gap.paired_t,
            "ks_p": gap.ks_p,
        }


LARGEST_T, NATS = 3.0, 1.0  # same-order gaps are t > 10 and some 14 nats
CHANCE = 2 / Reversal().facts + 0.02


def of(name: str, split: str, within: tuple[float, float] = (-inf, inf), variant: Variant | None = None) -> Effect:
    """Mean over seeds; without a variant, of the model trained from scratch with an untied head, or the fine-tuned one."""
    where: dict[str, Value] = {"main": True} if variant is None else {"variant": variant.value}
    return average(name, within=within, split=split, **where)


def exact(split: str, variant: Variant | None = None) -> Effect:
    return of("exact", split, (0, 1), variant)


CLAIMS = (
    Claim(
        says="Descriptions are recalled from names where training had that order.", effect=exact("same/p2d"), above=0.95
    ),
    Claim(
        says="Names are recalled from descriptions where training had that order.", effect=exact("same/d2p"), above=0.95
    ),
    Claim(
        says="Names are not found from descriptions in the reverse order.", effect=exact("reverse/p2d"), below=CHANCE
    ),
    Claim(
        says="Descriptions are not found from names in the reverse order.", effect=exact("reverse/d2p"), below=CHANCE
    ),
    Claim(
        says="In reverse the right name is no likelier than another (Welch t over facts).",
        effect=of("t", "reverse/p2d"),
        above=-LARGEST_T,
        below=LARGEST_T,
    ),
    Claim(
        says="In reverse the right description is no likelier than another (Welch t over facts).",
        effect=of("t", "reverse/d2p"),
        above=-LARGEST_T,
        below=LARGEST_T,
    ),
    Claim(
        says="In reverse the two distributions of log-probabilities of names are alike (Kolmogorov–Smirnov p).",
        effect=of("ks_p", "reverse/p2d"),
        above=0.05,
    ),
    Claim(
        says="In reverse the two distributions of log-probabilities of descriptions are alike (Kolmogorov–Smirnov p).",
        effect=of("ks_p", "reverse/d2p"),
        above=0.05,
    ),
    Claim(
        says="In reverse the right name's log-probability is that of another (nats).",
        effect=of("gap", "reverse/p2d"),
        above=-NATS,
        below=NATS,
    ),
    Claim(
        says="In reverse the right description's log-probability is that of another (nats).",
        effect=of("gap", "reverse/d2p"),
        above=-NATS,
        below=NATS,
    ),
    Claim(
        says="The same test sees the knowledge of p2d facts in their own order.", effect=of("t", "same/p2d"), above=10
    ),
    Claim(
        says="The same test sees the knowledge of d2p facts in their own order.", effect=of("t", "same/d2p"), above=10
    ),
    Claim(says="Control: facts stated in both orders give descriptions.", effect=exact("both/p2d"), above=0.95),
    Claim(says="Control: facts stated in both orders give names.", effect=exact("both/d2p"), above=0.95),
    Claim(
        says="Control: p2d facts that were also stated in reverse give names.",
        effect=exact("restated/p2d", Variant.RESTATED),
        above=0.95,
    ),
    Claim(
        says="The reversed statement of half of the p2d facts does not help the other half.",
        effect=exact("reverse/p2d", Variant.RESTATED),
        below=0.05,
    ),
    Claim(
        says="A tied head does not lift the curse for names.", effect=exact("reverse/p2d", Variant.TIED), below=CHANCE
    ),
    Claim(
        says="A tied head does not lift the curse for descriptions.",
        effect=exact("reverse/d2p", Variant.TIED),
        below=CHANCE,
    ),
    Claim(
        says="GPT-4 names the child from the parent for a third of the pairs whose parent it names (published counts).",
        effect=rate("reversible", "pairs", variant=Variant.CELEBRITIES.value),
        above=0.30,
        below=0.36,
    ),
)


def _splits(rows: Rows, variant: str) -> list[str]:
    return list(dict.fromkeys(str(row["split"]) for row in pick(rows, variant=variant) if "split" in row))


def _trained(rows: Rows) -> list[str]:
    return list(dict.fromkeys(str(row["variant"]) for row in rows if "split" in row))


def recall(rows: Rows) -> Bars:
    """Exact match per kind of question."""
    chosen = {(variant, split) for variant in _trained(rows) for split in _splits(rows, variant)}
    effects = {f"{v} {s}": exact(s, Variant(v))(rows) for v, s in sorted(chosen)}
    return Bars(
        title="Answers found on unseen templates (mean over seeds)",
        values={name: reading.value for name, reading in effects.items()},
        intervals={
            name: (reading.low, reading.high) for name, reading in effects.items() if reading.low == reading.low
        },
        label="exact match",
    )


def likelihoods(rows: Rows) -> Points:
    """Right against wrong answers: reversed questions lie on the diagonal."""
    rows = pick(rows, variant=_trained(rows)[0])
    return Points(
        title="Log-probability of right and wrong answers (one point per seed)",
        groups={
            split: list(zip(column(rows, "wrong", split=split), column(rows, "right", split=split), strict=True))
            for split in list(dict.fromkeys(str(row["split"]) for row in rows))
        },
        x_label="answer of another fact [nats]",
        y_label="right answer [nats]",
        diagonal=True,
    )


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds per variant and kind of question."""
    summary: list[Row] = []
    for variant in _trained(rows):
        for split in _splits(rows, variant):
            row: dict[str, Value] = {"variant": variant, "questions": split}
            for name in ("exact", "right", "wrong", "t", "paired_t", "ks_p"):
                row[name] = fmean(column(rows, name, variant=variant, split=split))
            summary.append(row)
    return summary


study = Study(
    name="reversal_curse",
    system="37",
    source=Source(
        key="berglund2024reversal",
        title='The Reversal Curse: LLMs trained on "A is B" fail to learn "B is A"',
        authors=(
            "Berglund, Lukas",
            "Tong, Meg",
            "Kaufmann, Max",
            "Balesni, Mikita",
            "Stickland, Asa Cooper",
            "Korbak, Tomasz",
            "Evans, Owain",
        ),
        year=2024,
        venue="ICLR",
        arxiv="2309.12288",
    ),
    scales={
        Scale.SMOKE: Config(
            task=Reversal(facts=12, firsts=12, lasts=12, words=20, slots=4),
            width=32,
            heads=2,
            budget=replace(SCRATCH, steps=30, batch_size=64, warmup=5),
            seeds=2,
            control_seeds=2,
            published=False,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(
            # 15 passes over 3,600 statements
            budget=Budget(steps=6_750, batch_size=8, lr=2e-5, schedule=Schedule.COSINE, warmup=100, clip=1.0),
            seeds=3,
            folder="models/pythia-1.4b",
            batch_size=32,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(recall, likelihoods),
    table=table,
)
