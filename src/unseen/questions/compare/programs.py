"""Problems with executable answers: does a model gain from its own right programs?

Every method trains on the same problems with the same seeds, first weights and steps: on the given
programs alone, and with sampled right ones (and beginnings of them) beside. Programs sampled for
unseen problems are judged by what they compute.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen import stats
from unseen.engine.loop import Budget, Schedule
from unseen.engine.program_writing import (
    Notation,
    ProgramRows,
    ProgramSamples,
    TextNotation,
    read_program,
    tokens_of,
)
from unseen.engine.programs import is_correct, shorten
from unseen.engine.response_losses import mml
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.identity import Identity, identify
from unseen.lab import Lab
from unseen.measures.pass_at_k import PassAtK
from unseen.methods.self_sampling import SelfSampled, SelfSampling
from unseen.models.encoder_decoder import t5
from unseen.models.pretrained import CausalLM
from unseen.objectives import exact_match
from unseen.questions.compare.teaching import SCRATCH_STUDENT, Choices, Examiner
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.math_programs import MathProblem, MathPrograms
from unseen.tasks.math_programs.numbers import name_numbers
from unseen.tasks.math_programs.published import text_key

GIVEN = "given programs"
METHODS: Mapping[str, SelfSampling] = {
    GIVEN: SelfSampling(samples=0),
    "own right programs": SelfSampling(partial=False),
    "own right programs and beginnings": SelfSampling(),
    "own right programs, MML": SelfSampling(mml, partial=False),
}
"""The last is not compared by default."""
SCRATCH = Budget(steps=500, batch_size=64, lr=2e-3, schedule=Schedule.COSINE, clip=1.0)
CHOICE = "choice "
FINE_TUNING = Budget(steps=200, batch_size=8, lr=5e-5, schedule=Schedule.COSINE, clip=1.0)


@dataclass(frozen=True)
class ProgramComparison:
    """What is compared, on which problems, and how long."""

    problems: tuple[MathProblem, ...]
    methods: tuple[str, ...] = tuple(METHODS)[:3]
    model: CausalLM | None = None
    """Fine-tuned; None: an encoder–decoder from scratch, which reads numbers by name."""
    samples: int = 20
    share: float = 0.2
    seeds: int = 3
    steps: int | None = None
    length: int = 60
    """Most tokens of a program."""
    student: CausalLM | str | None = None
    """Whose exam results choose among the samples; `SCRATCH_STUDENT` trains one; None: nobody."""

    def __post_init__(self) -> None:
        if self.student == SCRATCH_STUDENT and self.model is not None:
            raise InvalidConfig(
                "A student from scratch was asked for, beside a language model that teaches.",
                why="it knows the words of the problems alone, and a language model writes others.",
                fix="give a language model as student, too: --teach FOLDER",
            )
        for name in self.methods:
            if name not in METHODS:
                raise UnknownName.near("method for programs", name, METHODS)
        if self.steps is not None and self.steps < 1:
            raise InvalidConfig(
                f"steps={self.steps}.",
                why="methods are compared by what training made of a model.",
                fix="--steps 500, or leave it out.",
            )
        if min(self.samples, self.seeds) < 1 or not 0 < self.share < 1:
            raise InvalidConfig(
                f"{self.samples} samples, {self.seeds} seeds, a share of {self.share:g} unseen.",
                why="something is sampled, trained and left out.",
                fix="--samples 20 --seeds 3 --share 0.2",
            )

    @property
    def ks(self) -> list[int]:
        return [k for k in (1, 5, 10, 20, 50, 100) if k <= self.samples]

    @property
    def budget(self) -> Budget:
        plain = SCRATCH if self.model is None else FINE_TUNING
        steps = plain.steps if self.steps is None else self.steps
        return replace(plain, steps=steps, warmup=min(100, steps // 10))


@dataclass(frozen=True)
class ProgramRun:
    """What one method reached with one seed."""

    chances: Mapping[int, Float[Tensor, " problem"]]
    """pass@k of every unseen problem."""
    distinct: float
    """Different programs with an answer among the samples of a problem."""
    right: float
    """Different right programs."""
    outcomes: Mapping[str, int]
    programs: int
    """Further right programs that were kept."""
    beginnings: tuple[tuple[str, str], ...]
    """Some of the kept beginnings, with their question."""
    choices: Choices | None = None
    """What a student's exam results choose among the samples."""


@dataclass(frozen=True)
class ProgramResults:
    """Runs of every method, seed by seed."""

    runs: Mapping[str, tuple[ProgramRun, ...]]
    asked: ProgramComparison
    trained_on: int
    unseen: int

    def pass_at(self, method: str, k: int) -> Reading:
        """Mean over seeds, interval over problems: these models on other problems."""
        chances = torch.stack([run.chances[k] for run in self.runs[method]]).mean(0)
        if len(chances) < 2:
            return Reading(chances.mean().item(), unit="fraction")
        found = stats.of_scores(chances.numpy())
        return replace(found, low=max(0.0, found.low), high=min(1.0, found.high), unit="fraction")

    def gain(self, method: str, k: int) -> Reading:
        """Over the given programs alone, paired by seed: other trainings of the method."""
        here, given = (
            [run.chances[k].mean().item() for run in self.runs[name]] for name in (method, GIVEN)
        )
        return stats.difference(here, given, "fraction")

    @property
    def is_taught(self) -> bool:
        return self.asked.student is not None

    def choice(self, method: str, name: str, against: str | None = None) -> Reading:
        """Share of problems that a choice answers right, or its difference from another choice:
        mean over seeds, interval over problems.
        """
        right = self._choices(method, name)
        if against is not None:
            right = right - self._choices(method, against)
        if len(right) < 2:
            return Reading(right.mean().item(), unit="fraction")
        if against is not None:
            # equal everywhere: no spread, so that no interval exists
            alike = bool((right == right[0]).all())
            value = Reading(right[0].item(), n=len(right), unit="fraction")
            return value if alike else stats.mean(right.numpy(), unit="fraction")
        found = stats.of_scores(right.numpy())
        return replace(found, low=max(0.0, found.low), high=min(1.0, found.high), unit="fraction")

    def _choices(self, method: str, name: str) -> Float[Tensor, " problem"]:
        found = [run.choices.right[name] for run in self.runs[method] if run.choices is not None]
        return torch.stack(found).mean(0)

    def mean(self, method: str, read: Callable[[ProgramRun], float]) -> float:
        values = [read(run) for run in self.runs[method]]
        return sum(values) / len(values)


def evaluate_programs(
    asked: ProgramComparison, lab: Lab, on_finish: Callable[[object], None]
) -> ProgramResults:
    """Trains every method with every seed on one split of the problems."""
    refuse_long(asked)
    spec = split_problems(asked, lab.child("split"))
    methods = list(dict.fromkeys((GIVEN, *asked.methods)))
    # before anything is read: reading leaves buffers in a model that decide no answer
    about = identify("language models", model=asked.model, student=asked.student)
    runs: dict[str, list[ProgramRun]] = {name: [] for name in methods}
    for seed in range(asked.seeds):
        place = replace(lab, seed=lab.seed + seed)
        examiner = examiner_of(asked, spec, place.child("student"))
        for name in methods:
            runs[name].append(stored_run(asked, name, spec, about, place, examiner))
            on_finish(name)
    found = {name: tuple(own) for name, own in runs.items()}
    return ProgramResults(found, asked, len(spec.train), len(spec.unseen))


def examiner_of(asked: ProgramComparison, spec: MathPrograms, lab: Lab) -> Examiner | None:
    """Every method's samples of a seed meet the same student."""
    if asked.student is None:
        return None
    language = asked.student if isinstance(asked.student, CausalLM) else None
    steps = SCRATCH.steps if asked.steps is None else asked.steps
    budget = replace(SCRATCH, steps=steps, warmup=min(100, steps // 10))
    return Examiner(spec, language, budget, asked.length, lab)


def split_problems(asked: ProgramComparison, lab: Lab) -> MathPrograms:
    """A text, numbers aside, is on one side; a question is asked once."""
    problems = [name_numbers(p) for p in asked.problems] if asked.model is None else asked.problems
    if asked.model is None:
        refuse_unspeakable(problems)
    texts = sorted({text_key(p.question) for p in problems})
    if len(texts) < 2:
        raise InvalidData(
            f"The problems have {len(texts)} different text, numbers aside.",
            why="some texts are trained on and others are unseen.",
            fix="give more problems.",
        )
    order = lab.numpy().permutation(len(texts))
    # both sides have a text
    count = min(max(1, round(asked.share * len(texts))), len(texts) - 1)
    unseen = {texts[k] for k in order[:count]}
    train = [p for p in problems if text_key(p.question) not in unseen]
    test = {p.question: p for p in problems if text_key(p.question) in unseen}
    return MathPrograms(tuple(train), tuple(test.values()), "problems")


def refuse_unspeakable(problems: Sequence[MathProblem]) -> None:
    """Programs that are lost where they are written as words, as a model from scratch has them."""
    for problem in problems:
        words = " ".join(tokens_of(str(problem.program)))
        program = read_program(words)
        if program is None or not is_correct(problem.run(program), problem.answer):
            raise InvalidData(
                f"The program of problem `{shorten(problem.name)}` is another one in words: "
                f"`{shorten(words)}`.",
                why="a model from scratch writes it in words, numbers and single signs, in lower "
                "case; its programs could not be right.",
                fix="name values by letters and then digits (t0, number1), without `_`, `**` and "
                "`//`, or fine-tune a language model, which writes any text: --model FOLDER.",
            )


def refuse_long(asked: ProgramComparison) -> None:
    """Problems that have, with what is written behind them, more tokens than a language model has
    positions.
    """
    if asked.model is not None:
        begins = any(METHODS[name].partial and METHODS[name].samples for name in asked.methods)
        _refuse_long(asked, asked.model, "the model", 2 if begins else 1)
    if isinstance(asked.student, CausalLM):
        _refuse_long(asked, asked.student, "the student", 2, others=1)


def _refuse_long(
    asked: ProgramComparison, model: CausalLM, who: str, programs: int, others: int = 0
) -> None:
    """Where a problem, `programs` of them behind it and `others` of the problems do not fit."""
    if model.context is None:
        return
    notation = TextNotation(model)
    sizes = [len(notation.prompt(p.question)) for p in asked.problems]
    for problem, size in zip(asked.problems, sizes, strict=True):
        program = max(asked.length, len(notation.encode(str(problem.program))) + 1)
        whole = size + programs * program + others * max(sizes)
        if whole > model.context:
            beside = " with the longest question beside it" if others else ""
            raise InvalidData(
                f"Problem `{shorten(problem.name)}` has {size:,} tokens, and {whole:,} with what "
                f"is written behind it{beside}.",
                why=f"{who} has {model.context:,} positions.",
                fix="leave the problem out, or take a model that reads more.",
            )


def stored_run(
    asked: ProgramComparison,
    name: str,
    spec: MathPrograms,
    about: Identity,
    lab: Lab,
    examiner: Examiner | None,
) -> ProgramRun:
    """What a method reached, kept as soon as it is known."""
    key = identify(
        "run on programs",
        method=METHODS[name],
        model=about,
        settings=(asked.budget, asked.samples, asked.length),
        train=[decisive(problem) for problem in spec.train],
        unseen=[decisive(problem) for problem in spec.unseen],
        lab=lab.signature,
        code=run_method,
    )
    return unpack(
        lab.keep(key, lambda: pack(run_method(asked, METHODS[name], spec, lab, examiner)))
    )


def decisive(problem: MathProblem) -> tuple[str, ...]:
    """Numbers that the given program does not read decide what other programs compute."""
    constants = [f"{name} = {value}" for name, value in sorted(problem.constants.items())]
    return problem.question, str(problem.answer), str(problem.program), *constants


def pack(run: ProgramRun) -> dict[str, Tensor]:
    """A run as tensors; words are bytes of JSON."""
    words = json.dumps([run.outcomes, run.beginnings]).encode()
    chosen = (
        {} if run.choices is None else {f"{CHOICE}{k}": v for k, v in run.choices.right.items()}
    )
    unexamined = 0 if run.choices is None else run.choices.not_examined
    return {
        **chosen,
        "not examined": torch.tensor(unexamined),
        "chances": torch.stack(list(run.chances.values())),
        "ks": torch.tensor(list(run.chances)),
        "means": torch.tensor([run.distinct, run.right, run.programs], dtype=torch.float64),
        "words": torch.tensor(list(words), dtype=torch.uint8),
    }


def unpack(stored: Mapping[str, Tensor]) -> ProgramRun:
    outcomes, beginnings = json.loads(bytes(stored["words"].tolist()))
    distinct, right, programs = stored["means"].tolist()
    chances = dict(zip(stored["ks"].tolist(), stored["chances"], strict=True))
    pairs = tuple((question, program) for question, program in beginnings)
    chosen = {k.removeprefix(CHOICE): v for k, v in stored.items() if k.startswith(CHOICE)}
    choices = Choices(chosen, int(stored["not examined"])) if chosen else None
    return ProgramRun(chances, distinct, right, outcomes, int(programs), pairs, choices)


def run_method(
    asked: ProgramComparison,
    method: SelfSampling,
    spec: MathPrograms,
    lab: Lab,
    examiner: Examiner | None = None,
) -> ProgramRun:
    model, notation = new_model(asked, spec, lab)
    split = Split(ProgramRows(spec.train, notation), Use.TRAIN)
    task = Task(name="programs", axis=Axis.IID, splits={"train": split}, objective=exact_match)
    method = replace(method, budget=asked.budget, length=asked.length)
    trained = method.fit(model, task, lab.child("fit"))
    found = ProgramSamples.of(
        trained.model,
        spec.unseen,
        notation,
        lab.child("test"),
        samples=asked.samples,
        temperature=method.temperature,
        length=asked.length,
    )
    correct = found.correct
    chances = {k: PassAtK(k)(correct, lab).detail for k in asked.ks}
    return ProgramRun(
        {k: chance for k, chance in chances.items() if chance is not None},
        mean(found.distinct()),
        mean(found.distinct(correct=True)),
        trained.outcomes,
        sum(len(buffer.correct) - 1 for buffer in trained.buffers),
        show_beginnings(trained),
        None if examiner is None else examiner.choose(found),
    )


def new_model(asked: ProgramComparison, spec: MathPrograms, lab: Lab) -> tuple[nn.Module, Notation]:
    if asked.model is not None:
        model = copy.deepcopy(asked.model)
        return model, TextNotation(model)
    with lab.child("init").seeded():
        return t5(len(spec.notation.vocabulary), dropout=0.1), spec.notation


def show_beginnings(trained: SelfSampled, most: int = 5) -> tuple[tuple[str, str], ...]:
    found = [
        (buffer.problem.question, str(program))
        for buffer in trained.buffers
        for program in buffer.beginnings
    ]
    return tuple(found[:most])


def mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
