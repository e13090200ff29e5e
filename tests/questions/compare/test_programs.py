"""A file of problems, methods that train on own right programs, and the report."""

import json
from dataclasses import replace
from math import isnan

import pytest

import unseen
from unseen.cli.main import main
from unseen.engine.program_writing import TextNotation, read_program
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.models.tiny_causal import tiny_causal
from unseen.questions.compare.programs import (
    GIVEN,
    SCRATCH,
    ProgramComparison,
    evaluate_programs,
    split_problems,
)
from unseen.questions.compare.teaching import CHOICES, MAJORITY, ORACLE, SUM, Examiner
from unseen.tasks.math_programs import read_problems
from unseen.tasks.math_programs.problem import problem_of
from unseen.tasks.math_programs.published import text_key


@pytest.fixture
def file(tmp_path):
    lines = [
        {
            "question": f"{who} has {a} {what} and finds {b} more. How many {what}?",
            "program": f"answer = {a} + {b}",
            "answer": a + b,
        }
        for who in ("Ann", "Bob", "Cleo")
        for what in ("plums", "nuts", "pens", "cups")
        for a, b in ((3, 5), (12, 7))
    ]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_command_on_a_file(file, tmp_path, capsys):
    page = tmp_path / "page.html"
    options = ["--steps", "8", "--seeds", "2", "--samples", "5", "--report", str(page)]
    assert main(["compare", str(file), "--programs", *options]) == 0
    shown = capsys.readouterr().out
    for words in ("pass@5", GIVEN, "own right programs and beginnings"):
        assert words in shown
    assert "What became of sampled programs" in page.read_text()


def test_a_language_model_is_fine_tuned(file):
    """An untrained one: its samples are no programs, and that is what the report counts."""
    answer = unseen.compare_programs(
        read_problems(file)[:6],
        methods=["own right programs"],
        model=tiny_causal(),
        samples=2,
        seeds=1,
        steps=2,
        progress=False,
    )
    found = answer.results
    assert list(found.runs) == [GIVEN, "own right programs"]
    (run,) = found.runs["own right programs"]
    assert sum(run.outcomes.values()) > 0
    assert found.pass_at(GIVEN, 1).value == 0.0
    assert "--seeds 3" in str(answer.document)


def test_a_student_chooses_among_the_samples(file, tmp_path, capsys):
    """Beside the most frequent answer and the oracle, which no choice exceeds."""
    page = tmp_path / "page.html"
    options = ["--steps", "25", "--seeds", "2", "--samples", "4", "--method", GIVEN, "--json"]
    command = ["compare", str(file), "--programs", "--teach", "scratch", *options]
    assert main([*command, "--report", str(page)]) == 0
    chosen = json.loads(capsys.readouterr().out)[GIVEN]["chosen"]
    assert set(chosen) == {*CHOICES, ORACLE}
    assert all(chosen[name]["value"] <= chosen[ORACLE]["value"] for name in CHOICES)
    for words in ("What a student would choose", MAJORITY, "half of the training texts"):
        assert words in page.read_text()


def test_a_language_model_as_student_is_not_trained(file):
    model, memory = tiny_causal(), Memory()
    before = {name: p.clone() for name, p in model.named_parameters()}
    asked = ProgramComparison(
        tuple(read_problems(file)), (GIVEN,), samples=2, seeds=1, steps=2, length=8, student=model
    )
    lab = unseen.Lab(keeper=memory)
    found = evaluate_programs(asked, lab, lambda _: None)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    (run,) = found.runs[GIVEN]
    assert set(run.choices.right) == {*CHOICES, ORACLE}
    again = evaluate_programs(asked, lab, lambda _: None).runs[GIVEN][0]
    assert again.choices.not_examined == run.choices.not_examined
    assert all(again.choices.right[k].equal(v) for k, v in run.choices.right.items())
    evaluate_programs(replace(asked, student=tiny_causal(seed=1)), lab, lambda _: None)
    assert len(memory) == 2
    gain = found.choice(GIVEN, SUM, MAJORITY)
    assert gain.value == 0
    assert isnan(gain.low)  # choices are equal everywhere: no spread, no interval


def test_exam_problems_are_no_lessons(file):
    asked = ProgramComparison(tuple(read_problems(file)))
    spec = split_problems(asked, unseen.Lab())
    examiner = Examiner(spec, None, SCRATCH, 8, unseen.Lab())
    lessons, exams = examiner.parts
    assert len(lessons) + len(exams) == len(spec.train)
    assert not {text_key(p.question) for p in lessons} & {text_key(p.question) for p in exams}


class Memory(dict):
    """A keeper that counts what it made."""

    def __call__(self, key, make):
        if key.digest not in self:
            self[key.digest] = make()
        return self[key.digest]


@pytest.mark.parametrize("model", [None, tiny_causal()])
def test_a_finished_training_is_kept(file, model):
    problems, memory = tuple(read_problems(file)), Memory()
    lab = unseen.Lab(keeper=memory)
    asked = ProgramComparison(problems, (GIVEN, "own right programs"), model, 2, seeds=1, steps=2)
    first = evaluate_programs(asked, lab, lambda _: None)
    kept = set(memory)
    assert len(kept) == 2
    again = evaluate_programs(asked, lab, lambda _: None)
    assert set(memory) == kept
    for name, (run,) in first.runs.items():
        (other,) = again.runs[name]
        assert (run.outcomes, run.beginnings, run.programs) == (
            other.outcomes,
            other.beginnings,
            other.programs,
        )
        assert all(run.chances[k].equal(other.chances[k]) for k in run.chances)
    evaluate_programs(replace(asked, steps=3), lab, lambda _: None)
    assert len(memory) == 4


def test_texts_are_on_one_side(file):
    problems = tuple(read_problems(file))
    spec = split_problems(ProgramComparison(problems), unseen.Lab())
    assert len(spec.train) == 20
    assert len(spec.unseen) == 2  # of four with two texts: equal ones, numbers by name, once
    assert "number0" in spec.unseen[0].question


def test_plain_text_comes_back():
    notation = TextNotation(tiny_causal())
    program = read_program("t0 = 48 / 2; answer = 48 + t0")
    assert read_program(notation.decode(notation.encode(str(program)))) == program
    assert notation.decode([notation.end]) == "\n"


def test_odd_requests_are_refused(file, capsys):
    problems = tuple(read_problems(file))
    with pytest.raises(UnknownName, match="method for programs"):
        ProgramComparison(problems, methods=("own",))
    with pytest.raises(InvalidConfig, match="student from scratch"):
        ProgramComparison(problems, model=tiny_causal(), student="scratch")
    with pytest.raises(InvalidConfig, match="share of 1"):
        ProgramComparison(problems, share=1.0)
    with pytest.raises(InvalidData, match="1 different text"):
        split_problems(ProgramComparison(problems[:2]), unseen.Lab())
    few = split_problems(ProgramComparison(problems[:6]), unseen.Lab())
    with pytest.raises(InvalidData, match="2 different texts"):
        _ = Examiner(few, None, SCRATCH, 8, unseen.Lab()).parts
    assert main(["compare", "--programs"]) == 2
    assert "without a file of problems" in capsys.readouterr().err


def test_a_number_that_the_program_does_not_read_decides_what_is_kept():
    """Other programs may read it: equal texts and answers are not equal problems."""
    entries = [
        {
            "question": f"{who} has {a} plums, 5 nuts and {odd} pens. How many of the first two?",
            "program": f"answer = {a} + 5",
            "answer": a + 5,
        }
        for odd in (7, 9)
        for who, a in (("Ann", 3), ("Bob", 4), ("Cleo", 6))
    ]
    memory = Memory()
    for part in (entries[:3], entries[3:]):
        problems = tuple(problem_of(one, "line") for one in part)
        asked = ProgramComparison(problems, (GIVEN,), samples=1, seeds=1, steps=1, length=4)
        evaluate_programs(asked, unseen.Lab(keeper=memory), lambda _: None)
    assert len(memory) == 2


@pytest.mark.parametrize(
    ("program", "constants"),
    [
        ("t_0 = 4; answer = 2 * t_0", {}),
        ("answer = 2 ** 3", {}),
        ("answer = 17 // 2", {}),
        ("T = 8; t = 2; answer = T", {}),
        ("answer = N * 2", {"N": 4}),
    ],
)
def test_programs_that_words_cannot_write_are_refused(file, program, constants):
    entry = {"question": "Odd?", "program": program, "answer": 8, "constants": constants}
    problems = (*read_problems(file), problem_of(entry, "line 1"))
    with pytest.raises(InvalidData, match="problem `line 1` is another one in words"):
        split_problems(ProgramComparison(problems), unseen.Lab())
    split_problems(ProgramComparison(problems, model=tiny_causal()), unseen.Lab())


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_both_sides_have_a_text(file, share):
    problems = tuple(read_problems(file)[:8])
    spec = split_problems(ProgramComparison(problems, share=share), unseen.Lab())
    assert spec.train
    assert spec.unseen


def test_problems_in_chinese_are_many_texts():
    problems = [
        problem_of({"question": f"{who}有3个苹果", "program": "answer = 3", "answer": 3}, who)
        for who in ("小明", "小红", "小刚", "小丽", "小华")
    ]
    spec = split_problems(ProgramComparison(tuple(problems), model=tiny_causal()), unseen.Lab())
    assert (len(spec.train), len(spec.unseen)) == (4, 1)


def test_a_problem_beyond_the_positions_is_refused(file):
    """Before a training, by its row."""
    long = problem_of(
        {"question": "Why? " * 40 + "1 + 2", "program": "answer = 1 + 2", "answer": 3}, "Line 9"
    )
    problems = (*read_problems(file)[:6], long)
    model = tiny_causal(context=250)
    asked = ProgramComparison(problems, (GIVEN,), model, length=60)
    with pytest.raises(InvalidData, match=r"`Line 9` has 2\d\d tokens") as caught:
        evaluate_programs(asked, unseen.Lab(), lambda _: None)
    assert "250 positions" in caught.value.why
    student = ProgramComparison(problems, (GIVEN,), length=60, student=model)
    with pytest.raises(InvalidData, match="longest question beside it"):
        evaluate_programs(student, unseen.Lab(), lambda _: None)


def test_no_step_compares_nothing(file):
    with pytest.raises(InvalidConfig, match="steps=0"):
        unseen.compare_programs(file, steps=0, progress=False)
