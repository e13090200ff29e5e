"""A model trained on "A is B" does not learn "B is A" (Berglund et al., 2024, arXiv:2309.12288).

Generated facts and instructions, decoders from scratch; published facts and a causal LM of
transformers with `--folder`. Controls show that the questions can be answered: facts stated in both
orders, half of the p2d facts stated in reverse.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import fmean

from torch import nn

from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule
from unseen.figure import Bars
from unseen.lab import Lab
from unseen.measures.reversal_gap import ReversalGap
from unseen.method import Trained
from unseen.methods.finetune import Finetune
from unseen.models.pretrained import load_causal
from unseen.models.transformer import Activation, Decoder, Norm, Positions, Transformer
from unseen.study import (
    Claim,
    Effect,
    Row,
    Rows,
    Scale,
    Study,
    Value,
    average,
    pick,
)
from unseen.study.effects import distinct, restrict, share, worst
from unseen.study.figures import bars, draw_bars, points, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
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
    """Of the narrow model with one layer, which after 300 does not yet know facts as stated."""
    seeds: int = 5
    control_seeds: int = 3
    """For everything but the main model: effects are large."""
    folder: str = ""
    """Of a transformers causal LM to fine-tune on published facts, not train on generated ones."""
    data: str = ""
    """Archive or folder with the published facts; empty: looked up and fetched."""
    published: bool = True
    """Whether the published celebrity pairs are counted; else two invented ones, without a file."""
    batch_size: int = 256
    """For evaluation."""

    @property
    def source(self) -> Path | None:
        return Path(self.data) if self.data else None

    def cells(self) -> Iterator[Cell["Config", Variant]]:
        main, others = (Variant.UNTIED,), (Variant.RESTATED, Variant.TIED, *INSTRUCTED, *VARIED)
        if self.folder:
            main, others = (Variant.PRETRAINED,), ()
        config = (self,)
        yield from interleave(
            Grid(config, main, self.seeds), Grid(config, others, self.control_seeds)
        )
        yield Cell(self, Variant.CELEBRITIES, 0)


def run(cell: Cell[Config, Variant], lab: Lab) -> list[Row]:
    config, variant = cell.setting, cell.arm
    rows = count(config) if variant is Variant.CELEBRITIES else questions(config, variant, lab)
    main = variant in (Variant.UNTIED, Variant.PRETRAINED)
    return list(label(rows, variant=variant, main=main, seed=cell.seed))


def count(config: Config) -> list[Row]:
    """The published pairs of child and parent."""
    found = celebrities(config.source if config.published else toy())
    return [{"pairs": found.pairs, "reversible": found.reversible}]


def questions(config: Config, variant: Variant, lab: Lab) -> Iterator[Row]:
    """Every kind of question after training."""
    model, task = prepare(config, variant, lab)
    trained = Finetune(budget(config, variant)).fit(model, task, lab.child("fit"))
    loss = fmean(trained.curves["loss"][-20:])
    for row in evaluate_splits(trained, lab, config.batch_size):
        facts: dict[str, Value] = {"loss": loss, **row}
        if variant in VARIED:
            # "same" and "reverse": where the worst varied model is looked for
            kind = str(row["split"]).partition("/")[0]
            facts[kind] = f"{variant} {row['split']}"
        yield facts


def budget(config: Config, variant: Variant) -> Budget:
    if variant is Variant.SMALL:
        return replace(config.varied_budget, steps=config.small_steps)
    return config.varied_budget if variant in VARIED else config.budget


def prepare(config: Config, variant: Variant, lab: Lab) -> tuple[nn.Module, Task]:
    """The model before training and its task."""
    data = lab.child("data")
    if variant is Variant.PRETRAINED:
        model = load_causal(config.folder)
        return model, PublishedReversal(model.encode, config.source).build(data)
    spec = task_spec(config, variant)
    decoder = shape(config, variant, spec.vocabulary)
    return untrained_model(lambda: Transformer(decoder), lab), spec.build(data)


def task_spec(config: Config, variant: Variant) -> Reversal | ReversedInstructions:
    """What is stated and asked."""
    if variant in INSTRUCTED:
        return replace(config.instructions, wording=INSTRUCTED[variant])
    if variant is Variant.RESTATED:
        return replace(config.task, restated=config.task.facts // 2)
    if variant not in VARIED:
        return config.task
    shown = 1 if variant in (Variant.FEW, Variant.FEW_ALONE) else None
    both = variant not in (Variant.ALONE, Variant.FEW_ALONE)
    return replace(config.varied, shown=shown, both=both)


def shape(config: Config, variant: Variant, vocabulary: int) -> Decoder:
    base = Decoder(
        vocabulary=vocabulary,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        context=16,
        tied=variant is Variant.TIED,
    )
    match variant:
        case Variant.SMALL:
            return replace(base, width=base.width // 2, layers=1)
        case Variant.LARGE:
            return replace(base, width=3 * base.width // 2, layers=3)
        case Variant.LLAMA:
            return replace(
                base,
                positions=Positions.ROTARY,
                norm=Norm.RMS,
                activation=Activation.SWIGLU,
                # two thirds of the width inside, so that three maps have the weights of two
                hidden=8 * base.width // 3,
                bias=False,
            )
        case Variant.UNPLACED:
            return replace(base, positions=Positions.NONE)
    return base


def evaluate_splits(trained: Trained, lab: Lab, batch_size: int) -> Iterator[dict[str, Value]]:
    """Exact match and likelihood of right and wrong answers on every evaluated split."""
    model, task = trained.model, trained.task
    for name, split in task.of(Use.EVALUATE).items():
        right = per_example(model, split.data, task.objective.score, lab, batch_size)
        gap = ReversalGap(name, batch_size).tests(trained, lab)
        exact = right.double().mean().item()
        # questions about one fact are not independent: hits are counted in facts
        hits = exact * gap.facts
        yield {"split": name, "exact": exact, "hits": hits, "n": len(right), **gap.row}


LAPTOP = Config()
LARGEST_T, NATS = 3.0, 1.0  # same-order gaps are t > 10 and some 14 nats
CHANCE, CHANCE_VARIED, CHANCE_INSTRUCTED = (
    2 / n + 0.02 for n in (LAPTOP.task.facts, LAPTOP.varied.facts, LAPTOP.instructions.unrealized)
)
FOUND = share("hits", "facts")


def where(split: str, variant: Variant | None) -> dict[str, Value]:
    """Rows of a variant; without one, of the main model."""
    if variant is None:
        return {"split": split, "main": True}
    return {"split": split, "variant": variant}


def exact(split: str, variant: Variant | None = None) -> Effect:
    return share("hits", "facts", where(split, variant))


def of(name: str, split: str, variant: Variant | None = None) -> Effect:
    return average(name, where(split, variant))


# the mean t in reverse, for every varied model and group
farthest_t = worst(average("t"), "reverse", 0.0)


def near_zero(says: str, effect: Effect, most: float) -> Claim:
    return Claim(says, effect, above=-most, below=most)


def about(group: str, given: str, asked: str) -> tuple[Claim, ...]:
    """Claims about a group of facts, whose reversed questions ask for one `asked` from `given`."""
    many, same, reverse = f"{asked}s", f"same/{group}", f"reverse/{group}"
    first = "name" if group == "p2d" else "description"
    return (
        Claim(f"{given.capitalize()} are recalled from {many} where training had that order.",
              exact(same), above=0.95),
        Claim(f"{many.capitalize()} are not found from {given} in the reverse order.",
              exact(reverse), below=CHANCE),
        # bounds on the mean over seeds: a single t of 2.9 would be significant
        near_zero(f"In reverse the right {asked} is hardly likelier than another, if at all: "
                  f"Welch's t over facts within ±3 (mean over seeds).",
                  of("t", reverse), LARGEST_T),
        Claim(f"In reverse no difference between the two distributions of log-probabilities of "
              f"{many} is seen, which is no proof that they are equal (mean Kolmogorov–Smirnov p "
              "above 0.05).", of("ks_p", reverse), above=0.05),
        near_zero(f"In reverse the right {asked}'s log-probability is within a nat of another's.",
                  of("gap", reverse), NATS),
        Claim(f"The same test sees the knowledge of facts that state the {first} first ({group}) "
              f"in their own order (t above 10).", of("t", same), above=10),
        Claim(f"Control: facts stated in both orders give {given}.",
              exact(f"both/{group}"), above=0.95),
        Claim(f"A tied head does not lift the curse for {many}.",
              exact(reverse, Variant.TIED), below=CHANCE),
    )  # fmt: skip


VARY = "Whatever the size, family, number of paraphrases, and with or without facts in both orders,"
FIRST, SECOND = INSTRUCTED
CLAIMS = (
    *about("p2d", "descriptions", "name"),
    *about("d2p", "names", "description"),
    Claim("Control: facts that state the name first and were also stated in reverse give names.",
          exact("restated/p2d", Variant.RESTATED), above=0.95),
    Claim("The reversed statement of half of the facts that state the name first does not help the "
          "other half.",
          exact("reverse/p2d", Variant.RESTATED), below=0.05),
    Claim(f"{VARY} facts are recalled as stated (worst).",
          worst(FOUND, "same", 1.0), above=0.95),
    Claim(f"{VARY} facts are not recalled in reverse (worst).",
          worst(FOUND, "reverse", 0.0), below=CHANCE_VARIED),
    near_zero(f"{VARY} in reverse the right answer is hardly likelier, if at all (farthest mean of "
              "Welch's t within ±3).", farthest_t, LARGEST_T),
    Claim("Instructions naming the question first do without examples.",
          exact("unrealized", FIRST), above=0.8),
    Claim("Instructions naming the answer first are not followed where no example was seen.",
          exact("unrealized", SECOND), below=CHANCE_INSTRUCTED),
    near_zero("There the right answer is hardly likelier, if at all (mean of Welch's t within ±3).",
              of("t", "unrealized", SECOND), LARGEST_T),
    Claim("Control: where examples were, they are.", exact("realized", SECOND), above=0.95),
)  # fmt: skip


def recall(rows: Rows) -> Bars:
    """Exact match per kind of question."""
    chosen = [row for row in rows if "split" in row and row["variant"] not in VARIED]
    chosen.sort(key=lambda row: (str(row["variant"]), str(row["split"])))
    title = "Answers found on unseen templates (mean over seeds)"
    return bars(FOUND, by=("variant", "split"), title=title, label="exact match")(chosen)


def robustness(rows: Rows) -> Bars:
    """Exact match of the varied models."""
    readings = {
        str(model): FOUND(pick(rows, **{kind: model}))
        for kind in ("same", "reverse")
        for (model,) in distinct(rows, kind)
    }
    return draw_bars(readings, "Sizes, families, statements: answers found", "exact match")


# reversed questions lie on the diagonal
likelihoods = points(
    x="wrong",
    y="right",
    by="split",
    title="Log-probability of right and wrong answers (one point per seed)",
    x_label="wrong answer [nats]",
    y_label="right answer [nats]",
    diagonal=True,
    where={"main": True},
)
table = restrict(
    summary(("variant", "split"), ("exact", "right", "wrong", "t", "paired_t", "ks_p")),
    lambda row: row["variant"] not in VARIED or "same" in row or "reverse" in row,
)

WORDS = Reversal(facts=12, firsts=12, lasts=12, words=20, slots=4)
study = Study(
    name="reversal_curse",
    system="37",
    differs=(
        "The paper fine-tunes GPT-3 (350M to 175B) and Llama-1 (7B, 30B) on 30 facts a group in "
        "English; here decoders with two layers of width 128 are trained from scratch on 100 facts "
        "a group made of tokens, with 5 seeds (3 for variants and controls), and a causal language "
        "model of transformers can be fine-tuned on the published facts with --folder. A model "
        "from scratch has no language in which a fact could be turned around, so the curse is no "
        "surprise here; controls show that the questions can be answered."
    ),
    not_tested=(
        "The curse in pre-trained models, and in the wild: GPT-4 on 1,513 pairs of child and "
        "parent needs its interface, and only the published counts are checked, by a test of the "
        "data."
    ),
    source=reference("berglund2024reversal"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            task=WORDS,
            varied=replace(WORDS, facts=6),
            instructions=ReversedInstructions(realized=20, unrealized=6, words=20, slots=3),
            width=32,
            heads=2,
            budget={"steps": 30, "batch_size": 64, "warmup": 5},
            varied_budget={"steps": 15, "warmup": 5},
            small_steps=15,
            seeds=2,
            control_seeds=1,
            published=False,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: Config(
            # 15 passes over 3,600 statements
            budget=Budget(
                steps=6_750,
                batch_size=8,
                lr=2e-5,
                schedule=Schedule.COSINE,
                warmup=100,
                clip=1.0,
            ),
            seeds=3,
            folder="models/pythia-1.4b",
            batch_size=32,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(recall, robustness, likelihoods),
    table=table,
)
