"""Word problems with programs: published counts, conversions and refusals."""

import json
from collections import Counter, defaultdict
from fractions import Fraction

import pytest

from unseen.data.files import data_folders
from unseen.engine.program_writing import read_program, tokens_of
from unseen.errors import InvalidData
from unseen.tasks.math_programs import MathPrograms, example, read_problems
from unseen.tasks.math_programs.numbers import name_numbers
from unseen.tasks.math_programs.problem import problem_of, program_of_marks, program_of_prefix
from unseen.tasks.math_programs.published import (
    asdiv_a,
    equations,
    gsm8k,
    published_solutions,
    text_key,
)


def needs(name):
    here = any((folder / name).is_file() for folder in data_folders())
    return pytest.mark.skipif(not here, reason=f"{name} is not in UNSEEN_DATA")


needs_gsm8k = needs("gsm8k/train.jsonl.gz")
needs_svamp = needs("svamp/mawps-asdiv-a_svamp_train.csv.gz")


@needs_gsm8k
def test_gsm8k_converts_as_published():
    train, left_out = gsm8k("train")
    assert (len(train), left_out) == (7_001, 472)
    lengths = Counter(min(len(problem.program), 6) for problem in train)
    assert lengths == {1: 257, 2: 2_078, 3: 2_072, 4: 1_391, 5: 764, 6: 439}
    assert len(gsm8k("test")[0]) == 1_208
    assert str(train[0].program) == "t0 = 48 / 2; answer = 48 + t0"


@needs_gsm8k
def test_the_solutions_of_four_models():
    by_model = defaultdict(list)
    for solution in published_solutions():
        by_model[solution.model].append(solution)
    correct = {model: sum(s.is_correct for s in found) / 1_319 for model, found in by_model.items()}
    assert list(correct.values()) == pytest.approx([0.217, 0.390, 0.347, 0.563], abs=1e-3)
    shares = [
        sum(s.shares_states for s in found if not s.is_correct)
        / sum(not s.is_correct for s in found)
        for found in by_model.values()
    ]
    assert shares == pytest.approx([0.34, 0.36, 0.36, 0.39], abs=0.02)


@needs_svamp
def test_equations_and_asdiv_a():
    assert (len(equations("train")), len(equations("dev"))) == (3_138, 1_000)
    found = asdiv_a()
    assert len(found) == 1_236
    assert len({text_key(problem.question) for problem in found}) == 882
    assert Counter(len(problem.program) for problem in found) == {1: 855, 2: 380, 3: 1}


def test_marks_become_statements_that_refer_to_each_other():
    solution = "He has 48/2 = <<48/2=24>>24. In all <<48+24=72>>72."
    assert str(program_of_marks(solution, Fraction(72))) == "t0 = 48 / 2; answer = 48 + t0"
    assert program_of_marks("no calculation", Fraction(1)) is None
    assert program_of_marks("<<1+1=3>>", Fraction(3)) is None
    assert program_of_marks("<<1+1=2>>", Fraction(3)) is None
    assert program_of_marks("<<1+x=2>>", Fraction(2)) is None
    # 1/3 is printed as 0.33: with the variable the answer would be 100/3, with the number 33
    rounded = program_of_marks("<<1/3=0.33333>> <<0.33333*100=33.333>>", Fraction("33.333"))
    assert str(rounded) == "t0 = 1 / 3; answer = 0.33333 * 100"


@pytest.mark.parametrize(
    ("equation", "program"),
    [
        ("* a b", "answer = a * b"),
        ("+ a * b c", "t0 = b * c; answer = a + t0"),
        ("* / - a b a 100.0", "t0 = a - b; t1 = t0 / a; answer = t1 * 100"),
        ("a", "answer = a"),
    ],
)
def test_prefix_equations(equation, program):
    assert str(program_of_prefix(equation)) == program


@pytest.mark.parametrize("equation", ["", "+ a", "a b", "+ a b c"])
def test_what_is_no_equation_is_refused(equation):
    with pytest.raises(InvalidData, match="no equation in prefix form"):
        program_of_prefix(equation)


def test_own_problems(tmp_path):
    file = tmp_path / "problems.jsonl"
    lines = [
        {"question": "half of 48?", "program": "t0 = 48/2; answer = 48+t0", "answer": "72"},
        {"question": "Half?", "answer": "It is <<48/2=24>>24.\n#### 24"},
        {
            "question": "n0?",
            "program": "answer = 2 * n0",
            "answer": 7,
            "constants": {"n0": 3.5},
        },
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    found = read_problems(file)
    assert [problem.answer for problem in found] == [72, 24, 7]
    assert found[1].name == "Line 2 of problems.jsonl"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"question": "q", "answer": "3", "program": "answer = 2"},
            "p 1` does not compute 3: .* 2",
        ),
        ({"question": "q", "answer": "3", "program": "answer = 1/0"}, "a division by zero"),
        ({"question": "q", "answer": "3", "program": "t0 = 3"}, "it has no answer"),
        ({"question": "q", "answer": "three"}, "the answer `three`"),
        ({"question": "q", "answer": "3"}, "has no program: 0 marked"),
        ({"answer": "3"}, "has no `question`"),
        ({"question": "q", "answer": "3", "constants": {"n": "x"}}, "the constant `x`"),
    ],
)
def test_problems_that_do_not_hold_are_named(entry, words):
    with pytest.raises(InvalidData, match=words):
        problem_of(entry, "p 1")


def test_a_question_is_on_one_side():
    problems = example()
    with pytest.raises(InvalidData, match="1 questions are in training"):
        MathPrograms(problems.train, (*problems.unseen, problems.train[0]))


def test_programs_survive_as_tokens():
    spec = example()
    for problem in (*spec.train, *spec.unseen):
        program = read_program(spec.notation.decode(spec.notation.encode(str(problem.program))))
        assert program is not None
        assert problem.run(program).answer == problem.answer
    assert read_program("answer +") is None
    assert tokens_of("Ann has 3.5, or number0?") == ("ann", "has", "3.5", ",", "or", "number0", "?")


@pytest.mark.parametrize("rest", ["x = 'abc'", "x = 1e999", "x = " + "(" * 10_000])
def test_what_stands_behind_the_answer_is_not_read(rest):
    entry = {"question": "3 plums and 5", "program": f"answer = 3 + 5; {rest}", "answer": 8}
    found = name_numbers(problem_of(entry, "Line 1"))
    assert str(found.program) == "answer = number0 + number1"


@pytest.mark.parametrize("constants", [[3], 3, "n"])
def test_constants_without_names_are_refused(constants):
    entry = {"question": "q", "program": "answer = 8", "answer": 8, "constants": constants}
    with pytest.raises(InvalidData, match="`constants` that are no object"):
        problem_of(entry, "Line 1")


def test_texts_of_any_script_are_told_apart():
    texts = [
        "小明有3个苹果",
        "小红有3个苹果",
        "У Ани 3 яблока",
        "У Бори 3 яблока",
        "राम के पास 3 आम",
        "रम के पास 3 आम",
    ]
    assert len(set(map(text_key, texts))) == len(texts)
    assert text_key("小明有3个苹果?") == text_key("小明有 12 个苹果。")
    assert text_key("Cafe\u0301 number0!") == text_key("CAF\u00c9 7")
    assert text_key("Ann has 3 pens. (How many?)") == "annhaspenshowmany"


@pytest.mark.parametrize(
    "program",
    [
        "answer = 1 + 1; " + "t = 1; " * 3_000,
        "answer = " + " + ".join(["x"] * 5_000),
        "answer = " + "y" * 20_000,
        "hello " * 4_000,
    ],
)
def test_a_long_wrong_program_is_shortened(program):
    entry = {"question": "1 and 2?", "program": program, "answer": 3, "id": "z" * 5_000}
    with pytest.raises(InvalidData) as caught:
        problem_of(entry, "Line 2 of problems.jsonl")
    assert len(str(caught.value)) < 500
    assert ("Line 2" in caught.value.what) == program.startswith("hello")
