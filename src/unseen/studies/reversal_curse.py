"""A model trained on "A is B" does not learn "B is A" (Berglund et al., 2024, arXiv:2309.12288).

Generated facts and instructions, decoders from scratch; published facts and a causal LM of
transformers with `--folder`. Controls show that the questions can be answered: facts stated in both
orders, half of the p2d facts stated in reverse.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import fmean

from torch import nn

from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule
from unseen.figure import Bars, Points
from unseen.lab import Lab
from unseen.measures.reversal_gap import ReversalGap, farthest_mean
from unseen.method import Trained
from unseen.methods.finetune import Finetune
from unseen.models.pretrained import load_causal
from unseen.models.transformer import Activation, Decoder, Norm, Positions, Transformer
from unseen.reading import Reading
from unseen.stats import mean
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, column, pick, rate
from unseen.study.effects import distinct, share, worst
from unseen.study.figures import draw_bars, points, summary
from unseen.study.source import Source
from unseen.task import Task, Use
from unseen.tasks.published_reversal import PublishedReversal, celebrities, toy
from unseen.tasks.reversal import Reversal
from unseen.tasks.reversed_instructions import ReversedInstructions, Wording

# the sheet's recipe: loss on the whole sequence, so that the prompts' entropy stays in it
SCRATCH = Budget(
    steps=600,
    batch_size=128,
    lr=1e-3,
    betas=(0.9, 0.98),
    weight_decay=0.1,
    schedule=Schedule.COSINE,
    warmup=100,
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
    QUESTION_FIRST = "instructions, question first"
    ANSWER_FIRST = "instructions, answer first"
    MEDIUM = "GPT-2"
    """As `untied`, with fewer facts; the following differ from it in what they say."""
    SMALL = "half as wide, one layer"
    LARGE = "1.5 times as wide, three layers"
    LLAMA = "Llama"
    UNPLACED = "no positions"
    FEW = "few paraphrases"
    """One sixth of the templates; every opening and every middle token once."""
    ALONE = "no facts in both orders"
    FEW_ALONE = "few paraphrases, no facts in both orders"


INSTRUCTED = {Variant.QUESTION_FIRST: Wording.QUESTION, Variant.ANSWER_FIRST: Wording.ANSWER}
VARIED = tuple(list(Variant)[list(Variant).index(Variant.MEDIUM) :])


@dataclass(frozen=True)
class Config:
    task: Reversal = Reversal()
    varied: Reversal = Reversal(facts=50)
    """For the models and statements that vary."""
    instructions: ReversedInstructions = ReversedInstructions()
    width: int = 128
    layers: int = 2
    heads: int = 4
    budget: Budget = SCRATCH
    varied_budget: Budget = replace(SCRATCH, steps=300, batch_size=64, warmup=50)
    small_steps: int = 900
    """Of the narrow model with one layer, which after 300 does not yet know the facts as they were
    stated.
    """
    seeds: int = 5
    control_seeds: int = 3
    """For everything but the model trained from scratch or fine-tuned: effects are large."""
    folder: str = ""
    """Of a transformers causal LM, fine-tuned on the published facts instead of training on
    generated ones.
    """
    data: str = ""
    """Archive or folder with the published facts; empty: looked up and fetched."""
    published: bool = True
    """Whether the published celebrity pairs are counted; else two invented ones stand in, so that
    no file is needed.
    """
    batch_size: int = 256
    """For judging."""

    @property
    def source(self) -> Path | None:
        return Path(self.data) if self.data else None


@dataclass(frozen=True)
class Cell:
    config: Config
    variant: Variant
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    main = Variant.PRETRAINED if config.folder else Variant.UNTIED
    others = () if config.folder else (Variant.RESTATED, Variant.TIED, *INSTRUCTED, *VARIED)
    for seed in range(config.seeds):
        yield Cell(config, main, seed)
        yield from (
            Cell(config, variant, seed) for variant in others if seed < config.control_seeds
        )
    yield Cell(config, Variant.CELEBRITIES, 0)


def run(cell: Cell, lab: Lab) -> Iterable[Row]:
    main = cell.variant in (Variant.UNTIED, Variant.PRETRAINED)
    facts: dict[str, Value] = {"variant": cell.variant.value, "main": main, "seed": cell.seed}
    if cell.variant is Variant.CELEBRITIES:
        found = celebrities(cell.config.source if cell.config.published else toy())
        return [{**facts, "pairs": found.pairs, "reversible": found.reversible}]
    model, task = prepare(cell, lab)
    varied = cell.variant in VARIED
    budget = cell.config.varied_budget if varied else cell.config.budget
    budget = (
        replace(budget, steps=cell.config.small_steps) if cell.variant is Variant.SMALL else budget
    )
    trained = Finetune(budget).fit(model, task, lab.child("fit"))
    loss = fmean(trained.curves["loss"][-20:])
    rows = []
    for row in evaluate_splits(trained, lab, cell.config.batch_size):
        kind = str(row["split"]).partition("/")[
            0
        ]  # "same" and "reverse": where the worst varied model is looked for
        rows.append(
            {
                **facts,
                "loss": loss,
                **row,
                **({kind: f"{cell.variant} {row['split']}"} if varied else {}),
            }
        )
    return rows


def prepare(cell: Cell, lab: Lab) -> tuple[nn.Module, Task]:
    """The model before training and its task."""
    config = cell.config
    if cell.variant is Variant.PRETRAINED:
        model = load_causal(config.folder)
        return model, PublishedReversal(model.encode, config.source).build(lab.child("data"))
    spec = task_spec(config, cell.variant)
    with lab.child("init").seeded():
        return Transformer(shape(config, cell.variant, spec.vocabulary)), spec.build(
            lab.child("data")
        )


def task_spec(config: Config, variant: Variant) -> Reversal | ReversedInstructions:
    """What is stated and asked."""
    if variant in INSTRUCTED:
        return replace(config.instructions, wording=INSTRUCTED[variant])
    if variant is Variant.RESTATED:
        return replace(config.task, restated=config.task.facts // 2)
    if variant not in VARIED:
        return config.task
    shown = 1 if variant in (Variant.FEW, Variant.FEW_ALONE) else None
    return replace(
        config.varied, shown=shown, both=variant not in (Variant.ALONE, Variant.FEW_ALONE)
    )


def shape(config: Config, variant: Variant, vocabulary: int) -> Decoder:
    size = Decoder(
        vocabulary=vocabulary,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        context=16,
    )
    base = replace(size, tied=variant is Variant.TIED)
    match variant:
        case Variant.SMALL:
            return replace(base, width=base.width // 2, layers=1)
        case Variant.LARGE:
            return replace(base, width=3 * base.width // 2, layers=3)
        case (
            Variant.LLAMA
        ):  # two thirds of the width inside, so that three maps have the weights of two
            kind = replace(
                base, positions=Positions.ROTARY, norm=Norm.RMS, activation=Activation.SWIGLU
            )
            return replace(kind, hidden=8 * base.width // 3, bias=False)
        case Variant.UNPLACED:
            return replace(base, positions=Positions.NONE)
    return base


def evaluate_splits(trained: Trained, lab: Lab, batch_size: int) -> Iterator[dict[str, Value]]:
    """Exact match and likelihood of right and wrong answers on every judged split."""
    for name, split in trained.task.of(Use.EVALUATE).items():
        right = per_example(
            trained.model, split.data, trained.task.objective.score, lab, batch_size
        )
        gap = ReversalGap(name, batch_size).tests(trained, lab)
        found = right.double().mean().item()
        # questions about one fact are not independent: hits are counted in facts
        yield {"split": name, "exact": found, "hits": found * gap.facts, "n": len(right), **gap.row}


LARGEST_T, NATS = 3.0, 1.0  # same-order gaps are t > 10 and some 14 nats
CHANCE, CHANCE_VARIED, CHANCE_INSTRUCTED = (
    2 / n + 0.02
    for n in (Config().task.facts, Config().varied.facts, Config().instructions.unrealized)
)


FOUND = share("hits", "facts")


def where(split: str, variant: Variant | None) -> dict[str, Value]:
    """Rows of a variant; without one, of the model trained from scratch with an untied head, or the
    fine-tuned one.
    """
    return {"split": split, **({"main": True} if variant is None else {"variant": variant.value})}


def exact(split: str, variant: Variant | None = None) -> Effect:
    return share("hits", "facts", **where(split, variant))


def of(name: str, split: str, variant: Variant | None = None) -> Effect:
    return lambda rows: mean(column(rows, name, **where(split, variant)))


def farthest_t(rows: Rows) -> Reading:
    """The mean t in reverse that is farthest from 0, over varied models and groups."""
    return farthest_mean(
        [column(rows, "t", reverse=place) for (place,) in distinct(rows, "reverse")]
    )


def near_zero(says: str, effect: Effect, most: float) -> Claim:
    return Claim(says=says, effect=effect, above=-most, below=most)


def about(group: str, given: str, asked: str) -> tuple[Claim, ...]:
    """What is claimed of the facts of a group, whose reversed questions ask for one `asked` from
    `given`.
    """
    many, same, reverse = f"{asked}s", f"same/{group}", f"reverse/{group}"
    learned = f"{given.capitalize()} are recalled from {many} where training had that order."
    not_found = f"{many.capitalize()} are not found from {given} in the reverse order."
    no_likelier = f"In reverse the right {asked} is no likelier than another (Welch t over facts)."
    alike = (
        f"In reverse the two distributions of log-probabilities of {many} are alike "
        "(Kolmogorov–Smirnov p)."
    )
    nats = f"In reverse the right {asked}'s log-probability is that of another (nats)."
    control = f"The same test sees the knowledge of {group} facts in their own order."
    told_twice = f"Control: facts stated in both orders give {given}."
    tied = f"A tied head does not lift the curse for {many}."
    return (
        Claim(says=learned, effect=exact(same), above=0.95),
        Claim(says=not_found, effect=exact(reverse), below=CHANCE),
        near_zero(no_likelier, of("t", reverse), LARGEST_T),
        Claim(says=alike, effect=of("ks_p", reverse), above=0.05),
        near_zero(nats, of("gap", reverse), NATS),
        Claim(says=control, effect=of("t", same), above=10),
        Claim(says=told_twice, effect=exact(f"both/{group}"), above=0.95),
        Claim(says=tied, effect=exact(reverse, Variant.TIED), below=CHANCE),
    )


VARY = "Whatever the size, family, number of paraphrases, and with or without facts in both orders,"
FIRST, SECOND = INSTRUCTED
CLAIMS = (
    *about("p2d", "descriptions", "name"),
    *about("d2p", "names", "description"),
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
        says=f"{VARY} facts are recalled as stated (worst).",
        effect=worst(FOUND, "same", 1.0),
        above=0.95,
    ),
    Claim(
        says=f"{VARY} they are not in reverse (worst).",
        effect=worst(FOUND, "reverse", 0.0),
        below=CHANCE_VARIED,
    ),
    near_zero(
        f"{VARY} in reverse the right answer is no likelier (farthest Welch t).",
        farthest_t,
        LARGEST_T,
    ),
    Claim(
        says="Instructions naming the question first do without examples.",
        effect=exact("unrealized", FIRST),
        above=0.8,
    ),
    Claim(
        says="Instructions naming the answer first are not followed where no example was seen.",
        effect=exact("unrealized", SECOND),
        below=CHANCE_INSTRUCTED,
    ),
    near_zero(
        "There the right answer is no likelier (Welch t).", of("t", "unrealized", SECOND), LARGEST_T
    ),
    Claim(
        says="Control: where examples were, they are.", effect=exact("realized", SECOND), above=0.95
    ),
    Claim(
        says="GPT-4 names the child from the parent for a third of the pairs whose parent it names "
        "(published counts).",
        effect=rate("reversible", "pairs", variant=Variant.CELEBRITIES.value),
        above=0.30,
        below=0.36,
    ),
)


def recall(rows: Rows) -> Bars:
    """Exact match per kind of question."""
    chosen = [
        (Variant(str(v)), str(s)) for v, s in distinct(rows, "variant", "split") if v not in VARIED
    ]
    readings = {
        f"{variant} {split}": exact(split, variant)(rows) for variant, split in sorted(chosen)
    }
    return draw_bars(
        readings, title="Answers found on unseen templates (mean over seeds)", label="exact match"
    )


def robustness(rows: Rows) -> Bars:
    """Exact match of the varied models."""
    kinds = [(kind, place) for kind in ("same", "reverse") for (place,) in distinct(rows, kind)]
    readings = {str(place): FOUND(pick(rows, **{kind: place})) for kind, place in kinds}
    return draw_bars(
        readings, title="Sizes, families, statements: answers found", label="exact match"
    )


def likelihoods(rows: Rows) -> Points:
    """Right against wrong answers: reversed questions lie on the diagonal."""
    title = "Log-probability of right and wrong answers (one point per seed)"
    shown = points(x="wrong", y="right", by="split", title=title, x_label="wrong answer [nats]")(
        pick(rows, main=True)
    )
    return replace(shown, y_label="right answer [nats]", diagonal=True)


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds per variant and kind of question."""
    shown = [
        row for row in rows if row["variant"] not in VARIED or "same" in row or "reverse" in row
    ]
    return summary(("variant", "split"), ("exact", "right", "wrong", "t", "paired_t", "ks_p"))(
        shown
    )


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
            varied=Reversal(facts=6, firsts=12, lasts=12, words=20, slots=4),
            instructions=ReversedInstructions(realized=20, unrealized=6, words=20, slots=3),
            width=32,
            heads=2,
            budget=replace(SCRATCH, steps=30, batch_size=64, warmup=5),
            varied_budget=replace(SCRATCH, steps=15, batch_size=64, warmup=5),
            seeds=2,
            small_steps=15,
            control_seeds=1,
            published=False,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(
            # 15 passes over 3,600 statements
            budget=Budget(
                steps=6_750, batch_size=8, lr=2e-5, schedule=Schedule.COSINE, warmup=100, clip=1.0
            ),
            seeds=3,
            folder="models/pythia-1.4b",
            batch_size=32,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(recall, robustness, likelihoods),
    table=table,
)
