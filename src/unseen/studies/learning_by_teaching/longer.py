"""Beyond choosing: a teacher tuned on its students' results, and demonstrations refined by them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from unseen.engine.decode import greedy
from unseen.engine.exams import (
    Lesson,
    Student,
    different_programs,
    neighbour_exams,
    score_explanations,
)
from unseen.engine.program_writing import read_program
from unseen.engine.programs import Program, Value, execute, is_correct
from unseen.engine.solution_buffer import Executable
from unseen.engine.teaching import Explanations, LearnByTeaching
from unseen.lab import Lab
from unseen.methods.dpo import DPO, preference_columns
from unseen.models.encoder_decoder import EncoderDecoder
from unseen.objectives import exact_match
from unseen.studies.learning_by_teaching.classroom import Classroom
from unseen.studies.learning_by_teaching.exam_scores import add_scores, read_choices, without_exam
from unseen.study import Value as Number
from unseen.task import Axis, Split, Task, Use

ROUNDS, DEMONSTRATIONS, QUESTIONS, PROPOSALS = 4, 8, 60, 4


def tune_teacher(room: Classroom, lab: Lab) -> Iterator[dict[str, Number]]:
    """The teacher before and after DPO on pairs of its explanations of exam problems: by what both
    students got right with them, or by their answers.
    """
    problems = room.parts.bank
    found = room.explain(room.teacher, problems, lab.child("explanations"))
    programs = [
        different_programs(problem, row)
        for problem, row in zip(problems, found.programs, strict=True)
    ]
    able = [k for k, row in enumerate(programs) if len(row) > 1]
    problems, programs = tuple(problems[k] for k in able), [programs[k] for k in able]
    exams = neighbour_exams(problems, room.parts.bank, room.exams)
    small, large = (
        score_explanations(one, problems, programs, exams) for one in (room.small, room.large)
    )
    right = [
        Explanations(
            tuple(map(str, row)),
            tuple(float(is_correct(execute(p, problem.constants), problem.answer)) for p in row),
        )
        for problem, row in zip(problems, programs, strict=True)
    ]
    sources = {
        "teacher tuned on exams": add_scores(small, large),
        "teacher tuned on right answers": right,
    }
    yield {"arm": "teacher before", **_read_teacher(room, room.teacher, lab)}
    for arm, scored in sources.items():
        pairs = LearnByTeaching(margin=1.0).preferences(scored)
        model = room.copy_teacher()
        if pairs:
            notation = room.parts.notation
            write = [
                [[*notation.encode(str(program)), notation.end] for program in row]
                for row in programs
            ]
            columns = preference_columns(
                [notation.prompt(problems[p.problem].question) for p in pairs],
                [write[p.problem][p.better] for p in pairs],
                [write[p.problem][p.worse] for p in pairs],
            )
            split = Split(columns, Use.TRAIN)
            task = Task(name="pairs", axis=Axis.IID, splits={"train": split}, objective=exact_match)
            DPO().fit(model, task, lab.child("dpo"))
        yield {"arm": arm, "pairs": len(pairs), **_read_teacher(room, model, lab)}


def _read_teacher(room: Classroom, model: EncoderDecoder, lab: Lab) -> dict[str, Number]:
    found = room.explain(model, room.parts.test, lab.child("test"))
    return {
        "one sample": float(found.correct.float().mean()),
        **read_choices(without_exam(found), found),
    }


@dataclass(frozen=True)
class Demonstration:
    """A question with a program that a teacher wrote for it, right or wrong."""

    question: str
    program: Program
    constants: Mapping[str, Value] = field(hash=False, compare=False)
    name: str = ""
    answer: Value = Fraction(0)


def refine_lessons(room: Classroom, lab: Lab) -> Iterator[dict[str, Number]]:
    """Demonstrations that the teacher wrote, improved by the small student's results on exam
    problems; both students on the test problems after every round.
    """
    rng = lab.numpy()
    bank = [room.parts.bank[k] for k in rng.permutation(len(room.parts.bank))]
    count = min(QUESTIONS, len(bank) // 2)
    questions, others = bank[:count], bank[count:]
    written = write_demonstrations(room, [*questions, *others])
    start = [d for p in others if (d := written.get(p.question))][:DEMONSTRATIONS]
    if not start:
        return  # the teacher has written no program that can be run

    def propose(
        shown: tuple[Demonstration, ...], wrong: Sequence[int]
    ) -> list[tuple[Demonstration, ...]]:
        """The teacher explains some of the failed questions, each in place of another one."""
        proposals = []
        for k in rng.permutation(wrong)[:PROPOSALS]:
            new = written.get(questions[k].question)
            if new is not None and new not in shown:
                at = int(rng.integers(len(shown)))
                proposals.append((*shown[:at], new, *shown[at + 1 :]))
        return proposals

    found = LearnByTeaching().refine(
        start, lambda shown: examine(room.small, shown, questions), propose, ROUNDS
    )
    for number, (shown, score) in enumerate(zip(found.rounds, found.scores, strict=True)):
        yield {
            "arm": f"round {number}",
            "exam": score,
            "small student on test": _share(examine(room.small, shown, room.parts.test)),
            "large student, which took no part": _share(
                examine(room.large, shown, room.parts.test)
            ),
            "examined": found.examined,
        }


def write_demonstrations(
    room: Classroom, problems: Sequence[Executable]
) -> dict[str, Demonstration]:
    """By question, where the teacher's likeliest program has an answer."""
    notation = room.parts.notation
    prompts = [notation.prompt(p.question) for p in problems]
    rows = greedy(room.teacher, prompts, room.length, notation.end)
    found = {}
    for problem, row in zip(problems, rows, strict=True):
        program = read_program(notation.decode(row))
        if program is not None and execute(program, problem.constants).answer is not None:
            found[problem.question] = Demonstration(problem.question, program, problem.constants)
    return found


def examine(
    student: Student, shown: Sequence[Demonstration], questions: Sequence[Executable]
) -> list[bool]:
    """Each question behind the demonstration that is most like it, or behind the first."""
    nearest = neighbour_exams(questions, shown, 1)
    return student.answer(
        [
            Lesson(question, one.question, one.program)
            for question, (one, *_) in zip(
                questions, (found or [shown[0]] for found in nearest), strict=True
            )
        ]
    )


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)
