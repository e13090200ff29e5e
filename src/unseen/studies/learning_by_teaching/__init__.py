"""A teacher's answers are chosen by how well students do with its explanations of them.

Ning et al. (2024), arXiv:2406.14629, on one- and two-step word problems: the teacher is the solver
of `self_sampled`, explanations are its programs, and students read one explained problem before
they solve others like it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from unseen.engine.exams import Student, draw_lessons, neighbour_exams, score_explanations
from unseen.engine.loop import Budget, Schedule
from unseen.engine.teaching import Explanations
from unseen.lab import Lab
from unseen.studies.learning_by_teaching.classroom import (
    Classroom,
    Problems,
    divide,
    train_writer,
    untrained_writer,
)
from unseen.studies.learning_by_teaching.exam_scores import (
    add_scores,
    executed_scores,
    other_explanations,
    random_scores,
    read_choices,
    score_correlation,
    share_right,
    without_exam,
)
from unseen.studies.learning_by_teaching.longer import refine_lessons, tune_teacher
from unseen.study import Claim, Row, Scale, Study, Value, average
from unseen.study.figures import bars, stack, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label


class Arm(StrEnum):
    """Whose exam results choose among the teacher's answers."""

    SMALL = "small student (weaker than the teacher)"
    LARGE = "large student"
    BOTH = "both students"
    SHUFFLED = "both, explanations of other problems"
    TEACHER = "the teacher itself"
    RANDOM = "random student"
    VARIANTS = "variants, programs executed (the oracle)"
    TUNED = "no student; teacher fine-tuned on the exam problems"


@dataclass(frozen=True)
class Config:
    problems: Problems = Problems.ASDIV
    teacher: int = 64
    """Width."""
    small: int = 32
    large: int = 64
    layers: int = 2
    heads: int = 4
    budget: Budget = Budget(
        steps=500, batch_size=16, lr=2e-3, schedule=Schedule.COSINE, warmup=60, clip=1.0
    )
    lessons: Budget = Budget(
        steps=500, batch_size=16, lr=3e-3, schedule=Schedule.COSINE, warmup=60, clip=1.0
    )
    """Of a student."""
    tuning: Budget = Budget(
        steps=120, batch_size=16, lr=5e-4, schedule=Schedule.COSINE, warmup=10, clip=1.0
    )
    """Of the teacher on the exam problems: the baseline."""
    samples: int = 16
    exams: int = 3
    length: int = 24
    """Most tokens of a program."""
    learn: bool = False
    """Tune the teacher on preferences of its students (DPO), too."""
    iterate: bool = False
    """Refine demonstrations in four rounds, too."""
    seeds: int = 3

    def cells(self) -> Iterator["Job"]:
        yield from Grid((self,), (None,), self.seeds)


Job: TypeAlias = Cell[Config, None]


def run(cell: Job, lab: Lab) -> Iterator[Row]:
    config = cell.setting
    room = open_classroom(config, lab)
    yield from label(compare_students(config, room, lab), seed=cell.seed, part="select")
    if config.learn:
        yield from label(tune_teacher(room, lab.child("learn")), seed=cell.seed, part="learn")
    if config.iterate:
        yield from label(refine_lessons(room, lab.child("iterate")), seed=cell.seed, part="iterate")


def open_classroom(config: Config, lab: Lab) -> Classroom:
    """Teacher and students learn from the same problems; exam problems are others."""
    parts = divide(config.problems, lab.child("split"))
    count = config.lessons.steps * config.lessons.batch_size // 2
    lessons = draw_lessons(parts.train, count, lab.child("lessons"))
    widths = {"teacher": config.teacher, "small": config.small, "large": config.large}
    models = {
        name: untrained_writer(parts.notation, width, config.layers, config.heads, lab.child(name))
        for name, width in widths.items()
    }
    for name, model in models.items():
        problems, budget = (
            (parts.train, config.budget) if name == "teacher" else (lessons, config.lessons)
        )
        train_writer(model, problems, parts.notation, budget, lab.child(name, "fit"))
    small, large = (Student(models[k], parts.notation, config.length) for k in ("small", "large"))
    return Classroom(
        parts, models["teacher"], small, large, config.samples, config.exams, config.length
    )


def compare_students(config: Config, room: Classroom, lab: Lab) -> Iterator[dict[str, Value]]:
    """Every rule with every student's scores, on the same explanations."""
    problems, notation = room.parts.test, room.parts.notation
    found = room.explain(room.teacher, problems, lab.child("explanations"))
    exams = neighbour_exams(problems, room.parts.bank, room.exams)
    shown = other_explanations(found, lab.child("shuffle"))

    def examine(student: Student, control: bool = False) -> list[Explanations]:
        return score_explanations(
            student, problems, found.programs, exams, shown if control else None
        )

    scores = {
        Arm.SMALL: examine(room.small),
        Arm.LARGE: examine(room.large),
        Arm.TEACHER: examine(Student(room.teacher, notation, room.length)),
        Arm.SHUFFLED: add_scores(examine(room.small, True), examine(room.large, True)),
        Arm.VARIANTS: executed_scores(problems, found, room.exams, lab.child("variants")),
    }
    rates = {arm: share_right(scores[arm], room.exams) for arm in STUDENTS}
    scores[Arm.BOTH] = add_scores(scores[Arm.SMALL], scores[Arm.LARGE])
    scores[Arm.RANDOM] = random_scores(
        scores[Arm.SMALL], room.exams, rates[Arm.SMALL], lab.child("random")
    )
    read = {arm: read_choices(one, found) for arm, one in scores.items()}
    better = max(float(read[arm]["sum"]) for arm in (Arm.SMALL, Arm.LARGE))
    read[Arm.BOTH]["beyond the better one"] = float(read[Arm.BOTH]["sum"]) - better
    alike = score_correlation(scores[Arm.SMALL], scores[Arm.LARGE])
    if alike is not None:
        read[Arm.BOTH]["correlation of scores"] = alike
    for arm, rate in rates.items():
        read[arm]["exam"] = rate
    read[Arm.TUNED] = read_tuned(config, room, lab)
    for arm in Arm:
        yield {"arm": str(arm), **read[arm]}


STUDENTS = (Arm.SMALL, Arm.LARGE, Arm.TEACHER)


def read_tuned(config: Config, room: Classroom, lab: Lab) -> dict[str, Value]:
    """Self-consistency of the teacher after training on the exam problems and their programs."""
    model = room.copy_teacher()
    train_writer(model, room.parts.bank, room.parts.notation, config.tuning, lab.child("tuning"))
    found = room.explain(model, room.parts.test, lab.child("explanations"))
    return read_choices(without_exam(found), found)


CLAIMS = (
    Claim(
        says="The answer whose explanations help two students most in exams on similar problems is "
        "right more often than the most frequent answer.",
        effect=average("gain", arm=str(Arm.BOTH)),
        above=0.02,
    ),
    Claim(
        says="It is what is explained that helps: with explanations of other problems nothing is "
        "gained.",
        effect=average("gain", arm=str(Arm.SHUFFLED)),
        below=0.02,
    ),
)

LAPTOP = Config()
study = Study(
    name="learning_by_teaching",
    system="32",
    differs=(
        "The paper samples 256 explanations of 181 problems of MATH500 from LLaMA3 and others and "
        "examines students of 7 to 70 billion parameters three times on three variants with other "
        "numbers. Here teacher and students are T5 models with 2 + 2 layers from scratch (widths "
        "64, 32 and 64) on ASDiv-A with numbers by name: half of the texts to learn from, three "
        "tenths for exams, a fifth to test; 3 seeds, 16 explanations of each problem, and one exam "
        "of the 3 problems whose words are most alike and whose answers are known. An explanation "
        "is a program without words. Students were trained to solve a problem behind another one, "
        "with the same program in 70 % of cases; the teacher as its own student was not. The "
        "random student is right as often as the small one, whatever was explained. Variants with "
        "other numbers are executed, which makes them the oracle by construction: no claim rests "
        "on them. Exam problems are labelled data that self-consistency does not use, so a teacher "
        "fine-tuned on them stands beside. --learn (DPO) and --iterate (refined demonstrations, "
        "tested on the student that took no part) run beyond the ledger, on one seed."
    ),
    not_tested=(
        "That several diverse students teach more than one, and a teacher's own exam less than "
        "another student's (reported, not judged); that weak students improve strong teachers; "
        "learning from feedback and iterating, which are reported for one seed; code competitions "
        "and fallacies."
    ),
    source=reference("ning2024teaching"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            problems=Problems.GENERATED,
            teacher=16,
            small=16,
            large=32,
            layers=1,
            heads=2,
            budget={"steps": 80, "batch_size": 8, "lr": 1e-2, "warmup": 2},
            lessons={"steps": 40, "batch_size": 8, "lr": 1e-2, "warmup": 2},
            tuning={"steps": 4, "batch_size": 8, "warmup": 1},
            samples=6,
            length=8,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            teacher=512,
            small=256,
            large=512,
            layers=6,
            heads=8,
            budget={"steps": 10_000, "batch_size": 64, "lr": 3e-4},
            lessons={"steps": 20_000, "batch_size": 64, "lr": 3e-4},
            tuning={"steps": 1_000, "batch_size": 64, "lr": 1e-4},
            samples=256,
            learn=True,
            iterate=True,
            seeds=5,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(
        bars(
            average("sum"),
            by="arm",
            where={"part": "select"},
            title="The chosen answer is right",
            label="share of problems",
        ),
    ),
    table=stack(
        summary(
            ("arm",),
            (
                "majority",
                "max",
                "sum",
                "mean",
                "oracle",
                "gain",
                "exam",
                "correlation of scores",
                "beyond the better one",
                "not examined",
            ),
            where={"part": "select"},
        ),
        summary(("arm",), ("one sample", "majority", "oracle", "pairs"), where={"part": "learn"}),
        summary(
            ("arm",),
            ("exam", "small student on test", "large student, which took no part"),
            where={"part": "iterate"},
        ),
    ),
)
