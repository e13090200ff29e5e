"""General instruction data beside few examples of a broad target help, and their wrong facts hurt a
target that asks for facts (Shi et al., 2023, arXiv:2310.15326).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import nn

from unseen.engine.batches import Columns, forever
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget
from unseen.engine.token_pairs import cut_padding
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.finetune import Finetune
from unseen.models.small_decoders import COSINE, DecoderSize, untrained_decoder
from unseen.study import Claim, Row, Scale, Study, Value, average, gap
from unseen.study.effects import highest
from unseen.study.figures import bars, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.task import Task
from unseen.tasks.skills_and_facts import VOCABULARY, SkillsAndFacts, Target

BUDGET = replace(COSINE, steps=400, warmup=50)


@dataclass(frozen=True)
class Arm:
    """A training on a target."""

    target: Target
    n: int
    mixed: bool = False
    hallucination: float = 0.0
    replace: float = 0.0

    @property
    def facts(self) -> dict[str, Value]:
        return {
            "target": self.target.value,
            "n": self.n,
            "mixed": self.mixed,
            "hallucination": self.hallucination,
            "replaced": self.replace,
        }


@dataclass(frozen=True)
class Config:
    task: SkillsAndFacts = SkillsAndFacts()
    pretraining: Budget = field(
        default_factory=lambda: replace(BUDGET, steps=1_500, batch_size=64, warmup=100)
    )
    budget: Budget = field(default_factory=lambda: BUDGET)
    """Of every arm: batches of the target; a mixture reads as many general examples beside."""
    few: int = 100
    many: int = 1_000
    hallucinations: tuple[float, ...] = (0.0, 0.25, 0.5)
    replace: float = 0.2
    """Share of the target's `many` examples that are other skills instead: constant size."""
    others: tuple[Target, ...] = ()
    """Targets with fewer skills, which are reported only."""
    decoder: DecoderSize = DecoderSize()
    seeds: int = 3

    def cells(self) -> Iterator[Cell["Config", None]]:
        """One per seed: its arms start at one pretrained model."""
        yield from Grid((self,), (None,), self.seeds)

    def arms(self) -> Iterator[Arm]:
        for target in (Target.BROAD, *self.others):
            for n in (self.few, self.many):
                yield Arm(target, n)
                yield Arm(target, n, mixed=True)
        yield Arm(Target.BROAD, self.many, replace=self.replace)
        yield Arm(Target.FACTS, self.few)
        for share in self.hallucinations:
            yield Arm(Target.FACTS, self.few, mixed=True, hallucination=share)

    def spec(self, arm: Arm) -> SkillsAndFacts:
        return replace(
            self.task,
            target=arm.target,
            n=arm.n,
            general=self.task.general if arm.mixed else 0,
            hallucination=arm.hallucination,
            replace=arm.replace,
        )


def run(cell: Cell[Config, None], lab: Lab) -> Iterator[Row]:
    config, data = cell.setting, lab.child("data")
    model = untrained_decoder(len(VOCABULARY), config.decoder, lab)
    base = tune(model, config.task.pretraining(data), config.pretraining, lab.child("pretraining"))
    exact: dict[Arm, float] = {}
    for arm in config.arms():
        task = config.spec(arm).build(data)
        # one stream for all: every arm of a size sees the target's examples in the same order
        trained = tune(copy.deepcopy(base.model), task, config.budget, lab.child("fit"))
        hits = per_example(
            trained.model, task.split("test").data, task.objective.score, lab.child("score")
        )
        exact[arm] = hits.mean().item()
        yield {
            "seed": cell.seed,
            **arm.facts,
            "exact": exact[arm],
            "tested": len(hits),
            "loss": trained.curves["loss"][-1],
            "target_tokens": count_targets(task, config.budget, lab.child("fit")),
        }
    for arm, score in exact.items():
        if arm.mixed or arm.replace:
            alone = exact[Arm(arm.target, arm.n)]
            yield {"seed": cell.seed, **arm.facts, "gain": score - alone}


def tune(model: nn.Module, task: Task, budget: Budget, lab: Lab) -> Trained:
    short = replace(task, objective=cut_padding(task.objective))
    return Finetune(budget).fit(model, short, lab)


def count_targets(task: Task, budget: Budget, lab: Lab) -> int:
    """Tokens of the target's answers that training has read."""
    data = task.split("target").data
    assert isinstance(data, Columns)
    stream = forever(data, budget.batch_size, lab.child("target"))
    return sum(int(next(stream)["mask"].sum()) for _ in range(budget.steps))


def gain_of(target: Target, n: int, share: float = 0.0) -> dict[str, Value]:
    """The rows of a gain: mixed − specialist at so many target examples."""
    return {"target": target.value, "n": n, "mixed": True, "hallucination": share}


LAPTOP = Config()
BROAD_FEW, BROAD_MANY = (gain_of(Target.BROAD, n) for n in (LAPTOP.few, LAPTOP.many))
TRUE, QUARTER, HALF = (gain_of(Target.FACTS, LAPTOP.few, share) for share in LAPTOP.hallucinations)
CLAIMS = (
    Claim("With 100 examples of a broad target general data help (gain in exact match).",
          average("gain", BROAD_FEW), above=0.05),
    Claim("They help more with 100 target examples than with 1,000 (difference of gains).",
          gap("gain", BROAD_FEW, BROAD_MANY), above=0.0,
          sign_because="where the curve of the specialist rises is no matter of size"),
    Claim("General data whose facts are true do not hurt a target that asks for other facts.",
          average("gain", TRUE), above=-0.05),
    Claim("The gain on facts falls where half of the general data's facts are wrong, against none.",
          gap("gain", HALF, TRUE), below=-0.05),
    Claim("It falls at every step, from no wrong facts to a quarter and to half (the smaller).",
          highest(gap("gain", QUARTER, TRUE), gap("gain", HALF, QUARTER)), below=0.0,
          sign_because="the order is the claim, the size is the one before"),
    Claim("At constant size: other skills instead of a fifth of 1,000 examples of a broad target "
          "cost less than five points.",
          average("gain", target=Target.BROAD.value, replaced=LAPTOP.replace), above=-0.05),
)  # fmt: skip

gains = bars(
    average("gain"),
    by=("target", "n", "hallucination", "replaced"),
    title="Gain over the specialist (target, examples, share of wrong facts, share replaced)",
    label="exact match",
)
table = summary(
    ("target", "n", "mixed", "hallucination", "replaced"),
    ("exact", "gain", "tested", "target_tokens", "loss"),
)
study = Study(
    name="specialist_generalist",
    system="23",
    differs=(
        "The paper tunes LLaMA-7B and 13B on targets of natural language with GPT-4-made general "
        "instructions; here a decoder of three layers of width 64 is pretrained on strings and on "
        "400 facts, then tuned on 100 or 1,000 examples of compositions of two string skills, or "
        "of questions about facts, with 3 seeds. General data are 8,000 examples of twelve single "
        "skills. Every step takes 32 target examples and, in a mixture, 32 general ones: shuffling "
        "both together at equal target updates would take 121,000 steps. Wrong facts are planted "
        "in the general data in known shares, which the paper could only suspect."
    ),
    not_tested=(
        "Pretrained language models; targets of little coverage (`others`, at the longer scale); "
        "gains in reasoning and understanding; unions and sequences of both data. `unseen compare "
        "target.jsonl --mix general.jsonl` does the comparison with a language model."
    ),
    source=reference("shi2023specialist"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            task={"general": 100, "n_test": 20},
            pretraining={"steps": 5, "batch_size": 8, "warmup": 2},
            budget={"steps": 5, "batch_size": 4, "warmup": 2},
            others=(Target.NARROW, Target.MID),
            decoder={"width": 16, "layers": 1, "heads": 2},
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            pretraining={"steps": 3_000},
            budget={"steps": 1_500, "batch_size": 64},
            others=(Target.NARROW, Target.MID),
            decoder={"width": 128, "layers": 4},
            seeds=5,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(gains,),
    table=table,
)
