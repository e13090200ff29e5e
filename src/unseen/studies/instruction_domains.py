"""Many rules of one family do not carry to other families; as many rules of several families do
(Zhang et al., 2024, arXiv:2410.04717).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import fmean

from unseen import stats
from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.models.small_decoders import DecoderSize
from unseen.reading import Reading
from unseen.studies.instruction_diversity import BUDGET, exact_rows, train_decoder
from unseen.study import Claim, Row, Rows, Scale, Study, Value, column, gap, match, pick
from unseen.study.effects import share, worst
from unseen.study.figures import bars, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.tasks.rewriting import Rewriting


class Families(StrEnum):
    """Of training rules."""

    RESTRICTED = "one family"
    MIXED = "several families"


DOUBLED = ("aabb",)
"""Two letters, each doubled."""
SEVERAL = ("aabb", "abab", "abba", "aabc", "abcc", "abac")
NEVER = ("abcd", "abca", "abcb", "abbc")
"""Patterns that no arm trains on."""


@dataclass(frozen=True)
class Config:
    task: Rewriting = Rewriting(
        rule_length=4, input_length=8, families=DOUBLED, unseen_families=NEVER, n_unseen=500
    )
    several: tuple[str, ...] = SEVERAL
    budget: Budget = field(default_factory=lambda: BUDGET)
    decoder: DecoderSize = DecoderSize()
    seeds: int = 3

    def cells(self) -> Iterator[Cell["Config", Families]]:
        yield from Grid((self,), tuple(Families), self.seeds)


def run(cell: Cell[Config, Families], lab: Lab) -> Iterator[Row]:
    config = cell.setting
    families = config.several if cell.arm is Families.MIXED else config.task.families
    examples = config.budget.steps * config.budget.batch_size
    spec = replace(config.task, families=families, n_train=examples)
    trained = train_decoder(spec, config.decoder, config.budget, lab)
    for row in label(exact_rows(trained, lab), seed=cell.seed):
        name = str(row["split"])
        kind = "never trained" if name.startswith("family ") else name
        yield {"families": cell.arm, "rules": spec.rules, "kind": kind, **row}


def half_of_mixed(rows: Rows) -> Reading:
    """Exact match of the restricted arm minus half of the mixed one's, on families never
    trained.
    """

    def by_seed(arm: Families) -> dict[Value, float]:
        chosen = pick(rows, families=arm, kind="never trained")
        seeds = sorted({row["seed"] for row in chosen})
        return {seed: fmean(column(chosen, "exact", seed=seed)) for seed in seeds}

    restricted, mixed = match(by_seed(Families.RESTRICTED), by_seed(Families.MIXED))
    return stats.mean([a - b / 2 for a, b in zip(restricted, mixed, strict=True)], within=(-1, 1))


NEW = {"kind": "never trained"}
LAPTOP = Config()
CLAIMS = (
    Claim("Control: training rules are applied to new inputs in both arms (worst of both).",
          worst(share("right", "n", split="seen rules"), "families", 1.0, split="seen rules"),
          above=0.9),
    Claim("On families that nobody trained on, as many rules of several families do better than "
          "rules of one, by at least 0.2 (difference of exact match).",
          gap("exact", {**NEW, "families": Families.MIXED},
              {**NEW, "families": Families.RESTRICTED}), above=0.2),
    Claim("There the exact match of the rules of one family is at most half of that of several "
          "(difference to the half).", half_of_mixed, below=0.0,
          sign_because="half of the mixed arm's exact match is the margin itself"),
)  # fmt: skip

table = summary(("families", "split"), ("exact", "copied", "n", "loss"))
answers = bars(
    share("right", "n"),
    by=("families", "kind"),
    title="Exact answers (mean over seeds)",
    label="share",
)
study = Study(
    name="instruction_domains",
    system="18",
    differs=(
        "The paper restricts rules to letters repeated k times and to palindromes; here a family "
        "is a pattern of equal letters of rules of four letters, restricted training sees `aabb` "
        "only, mixed training six patterns, with 2,000 rules each and the same examples and "
        "steps, and four other patterns are asked. A decoder of three layers of width 64 with "
        "rotary positions learns, with 3 seeds."
    ),
    not_tested=(
        "Instructions of code models that are partly replaced by general ones at constant size; "
        "how much diversity within a family and across families is worth at other sizes."
    ),
    source=reference("zhang2024onlyif"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            task={"rules": 60, "n_test": 20, "n_unseen": 20},
            budget={"steps": 10, "batch_size": 16, "warmup": 2},
            decoder={"width": 16, "layers": 1, "heads": 2},
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            task={"alphabet": 26, "rules": 10_000, "n_unseen": 10_000, "n_test": 10_000},
            budget={"steps": 15_625, "batch_size": 64},
            decoder={"width": 256, "layers": 6},
            seeds=5,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(answers,),
    table=table,
)
