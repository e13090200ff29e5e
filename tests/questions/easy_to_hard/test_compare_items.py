"""`unseen compare items.jsonl --hardness …` on files of our own making."""

import json
from dataclasses import replace

import pytest

import unseen
from unseen.cli.main import main
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.questions.easy_to_hard.document import easy_to_hard_document
from unseen.reading import Reading
from unseen.tasks.graded_questions import Stratum, sums

OPTIONS = {"cuts": (9, 14), "n_train": 12, "n_test": 25, "runs": 2, "progress": False}


class Memory(dict):
    """A keeper in memory that counts what it makes."""

    made = 0

    def __call__(self, key, make):
        if key.digest not in self:
            self.made += 1
            self[key.digest] = make()
        return self[key.digest]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """200 sums with their larger summand as `grade`."""
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    path = tmp_path / "items.jsonl"
    lines = [
        {
            "question": item.question,
            "choices": item.choices,
            "answer": item.choices[item.answer],
            "grade": item.level("grade"),
        }
        for item in sums(200, 20)
    ]
    path.write_text("\n".join(map(json.dumps, [*lines, lines[0]])))
    return path


def test_a_file_is_compared_and_its_report_written(file, capsys):
    report = file.parent / "report.html"
    words = ["compare", str(file), "--hardness", "grade", "--cuts", "9:14", "--train-items", "12"]
    words += ["--test-items", "25", "--seeds", "2", "--report", str(report)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"easy": 45, "medium": 46, "hard": 109}
    assert [one["trained_on"] for one in found["accuracies"]] == ["easy", "medium", "hard", "all"]
    assert found["gaps"]["linear_head"]["baseline"] == "guessing"
    assert main([*words, "--quiet"]) == 0
    page = report.read_text("utf-8")
    assert "Easy training items, hard questions" in page
    assert "1 item repeated another" in page


def test_the_same_items_and_seed_give_the_same_numbers(file):
    one, other = (unseen.easy_to_hard(file, hardness="grade", **OPTIONS) for _ in range(2))
    assert one.json() == other.json()
    assert one.results.draw.test[Stratum.HARD] == other.results.draw.test[Stratum.HARD]


def test_hardness_without_annotations(file):
    options = {**OPTIONS, "cuts": None}
    with pytest.raises(InvalidData, match="or all are alike"):  # all sums have as many words
        unseen.easy_to_hard(file, hardness="length", **options)
    found = unseen.easy_to_hard(file, hardness="probe", **options)
    assert "did not train on the item" in found.results.decisions[0]
    with pytest.raises(InvalidConfig, match="needs a language model"):
        unseen.easy_to_hard(file, hardness="likelihood", **options)


def test_a_language_model_answers_by_every_method(file, tmp_path):
    pytest.importorskip("transformers")
    from language import llama

    folder, memory = llama(tmp_path / "model", context=256), Memory()
    asked = {"model": folder, "shots": 2, "lab": replace(Lab(), keeper=memory)}
    options = {**OPTIONS, **asked, "n_test": 20}
    found = unseen.easy_to_hard(file, hardness="grade", **options)
    methods = [(one.method, one.source) for one in found.results.methods]
    assert ("zero_shot", "nothing") in methods
    assert {source for method, source in methods if method == "in_context"} == {"easy", "hard"}
    assert found.results.baseline == {"in_context": "zero-shot", "linear_head": "guessing"}
    assert "of the same" not in found.summary()
    # the readings, and the answers of two runs from two sources: asked again, nothing is read
    assert memory.made == 5
    assert unseen.easy_to_hard(file, hardness="grade", **options).json() == found.json()
    assert memory.made == 5


def test_equal_answers_are_not_said_to_exclude_a_difference(file):
    found = unseen.easy_to_hard(file, hardness="grade", **OPTIONS)
    gap = found.results.gaps["linear_head"]
    equal = replace(gap, difference=Reading(0.0, 0.0, 0.0, n=gap.difference.n))
    page = easy_to_hard_document(replace(found.results, gaps={"linear_head": equal}))
    assert "nothing is known of a difference" in page.lead
    assert "by at most" not in page.lead


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"methods": ["zero_shot"]}, InvalidConfig, "needs a language model"),
        ({"methods": ["zero_shoot"]}, UnknownName, "did you mean zero_shot"),
        ({"train": "hard"}, InvalidConfig, "Both --train and --evaluate are hard"),
        ({"train": "eazy"}, UnknownName, "did you mean easy"),
        ({"n_train": 40}, InvalidData, "45 items are easy; 40 to train on and 20"),
        ({"shots": 0}, InvalidConfig, "shots=0"),
        ({"hardness": "grades"}, UnknownName, "did you mean grade"),
    ],
)
def test_what_cannot_be_asked_is_refused(file, change, error, words):
    with pytest.raises(error, match=words):
        unseen.easy_to_hard(file, **{"hardness": "grade", **OPTIONS, **change})


def test_cuts_are_two_numbers(file, capsys):
    assert main(["compare", str(file), "--hardness", "grade", "--cuts", "five"]) != 0
    assert "are no two numbers" in capsys.readouterr().err


def test_examples_that_leave_no_room_are_named_before_any_item_is_read(file, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    from language import llama

    folder = llama(tmp_path / "model", context=256)
    monkeypatch.setattr("unseen.subjects.easy_to_hard.choice_likelihoods", None)
    with pytest.raises(InvalidData, match="With 12 examples before it, the item"):
        unseen.easy_to_hard(file, hardness="grade", model=folder, shots=12, **OPTIONS)
