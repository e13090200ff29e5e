"""Texts that combine up to three skills teach to combine four and five, and held-out skills
(Zhao et al., 2024, arXiv:2409.19808).

A base model learns every skill alone; fine-tuning shows single skills only, or sets of up to three,
with as many target tokens, and replays single skills of everything. A program is the grader.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.engine.token_pairs import write_answers
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.finetune import Finetune
from unseen.models.small_decoders import COSINE, DecoderSize, untrained_decoder
from unseen.models.transformer import Positions
from unseen.study import Claim, Effect, Row, Scale, Study, Value, gap
from unseen.study.effects import limit, share
from unseen.study.figures import curves, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.task import Task, Use
from unseen.tasks.skill_mix import SkillMix, grade, longest, prompts_of


class Arm(StrEnum):
    """What fine-tuning shows."""

    BASE = "base model"
    SINGLE = "single skills"
    SETS = "up to three skills"


BUDGET = replace(COSINE, steps=900, batch_size=64)


@dataclass(frozen=True)
class Config:
    task: SkillMix = SkillMix()
    budget: Budget = field(default_factory=lambda: BUDGET)
    """Of the base model; fine-tuning has other numbers of steps."""
    target_tokens: float = 2.0e6
    """Of fine-tuning, in every arm."""
    positions: Positions = Positions.NONE
    width: int = 64
    layers: int = 3
    heads: int = 4
    seeds: int = 3

    def cells(self) -> Iterator[Cell["Config", Arm]]:
        yield from Grid((self,), (Arm.SETS, Arm.SINGLE), self.seeds)

    def spec(self, arm: Arm) -> SkillMix:
        most = {Arm.BASE: 0, Arm.SINGLE: 1, Arm.SETS: self.task.most}
        return replace(self.task, most=most[arm])

    def steps(self, arm: Arm) -> int:
        """So that fine-tuning predicts as many target tokens in every arm."""
        return round(self.target_tokens / (self.budget.batch_size * answer_size(self.spec(arm))))


def answer_size(spec: SkillMix) -> float:
    """Mean tokens of a training answer: three a motif, half a filler between two, and the end."""
    weights = spec.weights[: spec.most]
    sizes = [3 * k + (k - 1) / 2 + 1 for k in range(1, spec.most + 1)]
    mixed = sum(w * n for w, n in zip(weights, sizes, strict=True)) / sum(weights)
    return spec.replay * sizes[0] + (1 - spec.replay) * mixed


def run(cell: Cell[Config, Arm], lab: Lab) -> Iterator[Row]:
    config, data = cell.setting, lab.child("data")
    base = config.spec(Arm.BASE).build(data)
    size = DecoderSize(config.width, config.layers, config.heads)
    words = len(config.task.vocabulary)
    model = untrained_decoder(words, size, lab, config.positions)
    trained = Finetune(config.budget).fit(model, base, lab.child("base"))
    # both arms start at the same weights: the base model is trained anew in each, from one stream
    if cell.arm is Arm.SETS:
        yield from label(graded_rows(trained, base, lab), arm=Arm.BASE, seed=cell.seed)
    budget = replace(config.budget, steps=config.steps(cell.arm))
    task = config.spec(cell.arm).build(data)
    trained = Finetune(budget).fit(trained.model, task, lab.child("fine-tuning"))
    yield from label(graded_rows(trained, task, lab), arm=cell.arm, seed=cell.seed)


def graded_rows(trained: Trained, task: Task, lab: Lab) -> Iterator[Row]:
    """Points of the greedy texts for the prompts of every evaluated split."""
    for name, split in task.of(Use.EVALUATE).items():
        assert isinstance(split.data, Columns)
        prompts = prompts_of(split.data)
        k = len(prompts[0].skills)
        # two tokens more than a text may have, so that too long ones are seen
        size = longest(k) + 2
        texts = write_answers(trained.model, [p.source for p in prompts], VOCABULARY, size)
        points = [grade(p, text) for p, text in zip(prompts, texts, strict=True)]
        skills = [[v for name, v in one.items() if re.fullmatch(r"s\d+", name)] for one in points]
        full = sum(all(one.values()) for one in points)
        yield {
            "split": name,
            "k": k,
            "part": name.partition(", ")[2],
            "full": full,
            "n": len(points),
            "full_marks": full / len(points),
            "all_skills": sum(map(all, skills)) / len(points),
            "clean": sum(one["clean"] for one in points) / len(points),
            "in_length": sum(one["length"] for one in points) / len(points),
            "loss": trained.curves["loss"][-1],
        }


VOCABULARY = SkillMix().vocabulary


def over(k: int, part: str, of: Arm, against: Arm) -> Effect:
    where: dict[str, Value] = {"split": f"k={k}, {part}"}
    return limit(gap("full_marks", {**where, "arm": of}, {**where, "arm": against}), -1.0, 1.0)


LAPTOP = Config()
CLAIMS = (
    Claim("Control: after fine-tuning on sets single skills of everything, held-out ones too, "
          "still have full marks.", share("full", "n", arm=Arm.SETS, split="k=1, everything"),
          above=0.9),
    Claim("Control: sets of two in training have full marks.",
          share("full", "n", arm=Arm.SETS, split="k=2, training sets"), above=0.9),
    Claim("Control: sets of three in training have full marks.",
          share("full", "n", arm=Arm.SETS, split="k=3, training sets"), above=0.9),
    Claim("Unseen sets of two: sets in training do better than as many tokens of single skills, by "
          "at least 0.5 (difference of shares of full marks).",
          over(2, "unseen sets", Arm.SETS, Arm.SINGLE), above=0.5),
    Claim("Unseen sets of three likewise, by at least 0.5.",
          over(3, "unseen sets", Arm.SETS, Arm.SINGLE), above=0.5),
    Claim("Sets of four, which nobody trained on, likewise, by at least 0.2.",
          over(4, "unseen sets", Arm.SETS, Arm.SINGLE), above=0.2),
    Claim("Two held-out skills on a held-out topic: better than the base model, by at least 0.2.",
          over(2, "held-out skills", Arm.SETS, Arm.BASE), above=0.2),
)  # fmt: skip

table = summary(("arm", "split"), ("full_marks", "all_skills", "clean", "in_length", "n", "loss"))
marks = curves(
    "k",
    "full_marks",
    by="arm",
    title="Full marks on unseen sets of training skills (mean over seeds)",
    x_label="skills in the prompt",
    y_label="share of texts",
    where={"part": "unseen sets"},
)
study = Study(
    name="skill_composition",
    system="31",
    differs=(
        "The paper fine-tunes LLaMA-2-13B and Mistral-7B on texts by GPT-4 that show one to three "
        "of its skills, graded by GPT-4; here skills are motifs of three signs, four letters are "
        "shared by four kinds of motifs, a decoder of three layers of width 64 without positions "
        "first learns every skill alone, and a program grades, with 3 seeds. Fine-tuning replays "
        "single skills of everything, without which held-out topics are forgotten. Held-out "
        "skills are asked with as many prompts as exist: 12 for two skills."
    ),
    not_tested=(
        "That language models, graded by another one, gain as much; what data with one and two "
        "skills only teach; that richer texts are more efficient per token than one size of sets "
        "at a time."
    ),
    source=reference("zhao2024can"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            task={"n_train": 100, "n_test": 10},
            budget={"steps": 5, "batch_size": 8, "warmup": 2},
            target_tokens=400.0,
            width=16,
            layers=1,
            heads=2,
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            target_tokens=2.0e7,
            task={"n_train": 200_000},
            width=256,
            layers=6,
            seeds=5,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(marks,),
    table=table,
)
