"""Instruction files are read as published; encodings show what they name, and evaluated instances
are never examples.
"""

import gzip
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers

from unseen.errors import CorruptFile, InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks.instructions import (
    INSTRUCTION,
    NONE,
    VARIANTS,
    By,
    Encoding,
    Example,
    Instance,
    Instructions,
    InstructionTask,
    TaskSplit,
    arithmetic_tasks,
    published_indices,
    published_split,
    read_instructions,
    split_by_name,
    split_tasks,
)

DATA = os.environ.get("UNSEEN_DATA", "/nowhere")
ROWS = [
    {"task": "antonym", "instruction": "Write the opposite.", "input": "hot", "output": "cold",
     "category": "words", "dataset": "made up"},
    {"task": "antonym", "input": "big", "output": ["small", "little"],
     "examples": [{"input": "wet", "output": "dry"}]},
    {"task": "antonym", "input": "wet", "output": "dry"},
    {"task": "length", "instruction": "Count the letters.", "input": "hot", "output": "3"},
]  # fmt: skip
V1 = {
    "Title": "Opposites",
    "Prompt": "Write the opposite.",
    "Definition": "A word is given; answer with its opposite.",
    "Things to Avoid": "-",
    "Emphasis & Caution": "One word.",
    "Examples": {
        "Positive Examples": [
            {"input": "wet", "output": "dry", "reason": "They exclude each other."},
            {"input": "up", "output": "down", "reason": "-"},
        ],
        "Negative Examples": [
            {"input": "big", "output": "huge", "reason": "Same meaning.", "suggestion": "small"}
        ],
    },
    "Instances": [
        {"input": "hot", "output": ["cold", "chilly"]},
        {"input": "wet", "output": ["dry"]},
        {"input": "big", "output": ["small"]},
    ],
}
V2 = {
    "Contributors": ["-"],
    "Source": ["words"],
    "Categories": ["Opposites"],
    "Definition": ["Answer with the opposite."],
    "Positive Examples": [{"input": "wet", "output": "dry", "explanation": "Clear."}],
    "Negative Examples": [],
    "Instances": [{"id": "1", "input": "hot", "output": ["cold"]}],
}


def write_lines(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_json_lines_are_grouped_by_task(tmp_path):
    antonym, length = read_instructions(write_lines(tmp_path / "a.jsonl", ROWS))
    assert antonym.fields == (("Instruction", "Write the opposite."),)
    assert antonym.instances == (Instance("hot", ("cold",)), Instance("big", ("small", "little")))
    assert antonym.positive == (Example("wet", "dry"),)
    assert (antonym.category, antonym.dataset, length.name) == ("words", "made up", "length")


def test_without_names_what_has_one_instruction_is_one_task(tmp_path):
    rows = [
        {"instruction": text, "input": x, "output": y}
        for text, x, y in (
            ("Opposite.", "hot", "cold"),
            ("Count.", "hot", "3"),
            ("Opposite.", "a", "b"),
        )
    ]
    tasks = read_instructions(write_lines(tmp_path / "a.jsonl", rows))
    assert [(task.name, len(task.instances)) for task in tasks] == [("Opposite.", 2), ("Count.", 1)]


@pytest.mark.parametrize("form", ["folder", "archive", "gzip"])
def test_both_published_versions_are_read_from_folders_and_archives(form, tmp_path):
    files = {"subtask007_words_opposite.json": V1, "task900_words_opposite.json": V2}
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, entry in files.items():
        raw = json.dumps(entry).encode()
        path = folder / (name + ".gz" * (form == "gzip"))
        path.write_bytes(gzip.compress(raw) if form == "gzip" else raw)
    source = folder
    if form == "archive":
        source = tmp_path / "tasks.tar.xz"
        with tarfile.open(source, "w:xz") as archive:
            archive.add(folder, "tasks")
    first, second = read_instructions(source)
    assert [name for name, _ in first.fields] == [
        "Title", "Prompt", "Definition", "Emphasis & Caution"
    ]  # fmt: skip
    # examples, right or wrong, are not asked
    assert first.instances == (Instance("hot", ("cold", "chilly")),)
    assert first.positive[0] == Example("wet", "dry", "They exclude each other.")
    assert first.positive[1].reason == ""
    assert (first.dataset, second.dataset, second.category) == ("words", "words", "Opposites")
    assert second.fields == (("Definition", "Answer with the opposite."),)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"Instances": None}, "Instances"),
        ({"Instances": [{"input": "a", "output": "b"}]}, r"Instances\[0\].output"),
        ({"Instances": [{"output": ["b"]}]}, r"Instances\[0\].input"),
        ({"Hints": "none"}, "Hints"),
    ],
)
@pytest.mark.parametrize("entry", [V1, V2])
def test_published_files_with_faults_name_file_task_and_field(entry, change, match, tmp_path):
    path = tmp_path / "subtask001_words_x.json"
    path.write_text(json.dumps({**entry, **change}))
    with pytest.raises(InvalidData, match=match) as found:
        read_instructions(path)
    assert "subtask001_words_x.json" in str(found.value)
    assert "task `subtask001_words_x`" in str(found.value)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"task": "a", "input": "x"}, "task `a`.*output"),
        ({"task": "a", "input": "x", "output": [1]}, "output"),
        ({"task": "a", "input": "x", "output": ""}, "output"),
        ({"task": "a", "output": "y"}, "`input`"),
        ({"input": "x", "output": "y"}, "`task`"),
        ({"task": "a", "input": "x", "output": "y", "answer": 1}, "unknown field `answer`"),
        ({"task": "antonym", "instruction": "Other.", "input": "x", "output": "y"}, "another"),
        ({"task": "a", "input": "x", "output": "y", "examples": ["z"]}, "example without"),
    ],
)
def test_lines_with_faults_are_named(row, match, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [*ROWS, row])
    with pytest.raises(InvalidData, match=match) as found:
        read_instructions(path)
    assert "Line 5" in str(found.value)


def test_files_that_are_missing_or_broken_are_refused(tmp_path):
    with pytest.raises(MissingFile):
        read_instructions(tmp_path / "none.jsonl")
    with pytest.raises(InvalidData, match="no task"):
        read_instructions(tmp_path)
    (tmp_path / "task1.json").write_text("{")
    with pytest.raises(CorruptFile):
        read_instructions(tmp_path)
    (tmp_path / "broken.tar.xz").write_bytes(b"nothing")
    with pytest.raises(CorruptFile):
        read_instructions(tmp_path / "broken.tar.xz")
    only = {"task": "a", "input": "x", "output": "y", "examples": [{"input": "x", "output": "y"}]}
    with pytest.raises(InvalidData, match="are its examples"):
        read_instructions(write_lines(tmp_path / "a.jsonl", [only]))


def first_version(tmp_path: Path) -> InstructionTask:
    path = tmp_path / "subtask007_words_opposite.json"
    path.write_text(json.dumps(V1))
    return read_instructions(path)[0]


def test_encodings_show_the_fields_that_they_name(tmp_path):
    task = first_version(tmp_path)
    assert NONE.prompt(task, "hot").text == "input: hot\noutput:"
    full = VARIANTS["full"].prompt(task, "hot")
    lines = full.text.split("\n")
    # every field that is not empty once, in the order of the source, then the examples
    assert [line.split(":")[0] for line in lines[:4]] == [name for name, _ in task.fields]
    assert full.text.count("Definition:") == 1
    assert "Things to Avoid" not in full.text
    assert (full.examples, full.examples_cut) == (3, 0)
    assert full.text.index("example 2:") < full.text.index("wrong example 1:")
    assert full.text.endswith("input: hot\noutput:")
    two = VARIANTS["definition+prompt"].prompt(task, "hot").text.split("\n")
    assert [line.split(":")[0] for line in two] == ["Definition", "Prompt", "input", "output"]
    with pytest.raises(UnknownName):
        Encoding(("Definitoin",)).prompt(task, "hot")
    with pytest.raises(InvalidConfig):
        Encoding(positive=-1)


def test_examples_go_first_where_a_prompt_is_too_long(tmp_path):
    task = first_version(tmp_path)
    encoding = Encoding(positive=2, negative=1)
    whole = encoding.prompt(task, "hot")
    short = encoding.prompt(task, "hot", most=len(whole.text) - 1)
    assert (short.examples, short.examples_cut, short.is_shortened) == (2, 1, False)
    assert "wrong example" not in short.text
    bare = INSTRUCTION.prompt(task, "hot").text
    none = encoding.prompt(task, "hot", most=len(bare))
    assert (none.text, none.examples, none.examples_cut) == (bare, 0, 3)
    # then the input loses its start; the instruction stays
    words = " ".join(f"w{k}" for k in range(100))
    cut = encoding.prompt(task, words, most=len(bare) + 40)
    assert cut.is_shortened
    assert cut.text.endswith("w99\noutput:")
    assert len(cut.text) <= len(bare) + 40
    assert all(line in cut.text for line in INSTRUCTION.lines(task))


def test_another_instruction_changes_nothing_but_the_instruction(tmp_path):
    task = first_version(tmp_path)
    other = arithmetic_tasks()[0]
    found = INSTRUCTION.prompt(task, "hot", instruction=other).text
    assert found == "Instruction: Add the numbers.\ninput: hot\noutput:"


def words(n, groups):
    return [
        InstructionTask(
            f"task {k}", (), (Instance("a", ("b",)),), category=f"c{k % groups}",
            dataset=f"d{k % (groups + 1)}",
        )
        for k in range(n)
    ]  # fmt: skip


@given(n=integers(8, 40), groups=integers(3, 7), share=floats(0.1, 0.5), seed=integers(0, 99))
def test_what_tasks_are_split_by_is_on_one_side(n, groups, share, seed):
    tasks = words(n, groups)
    for by in By:
        split = split_tasks(tasks, by, share, Lab(seed))
        assert split.overlap(by) == []
        assert sorted(t.name for t in (*split.seen, *split.unseen)) == sorted(t.name for t in tasks)
        if by is By.TASK:
            assert len(split.unseen) == max(2, round(share * n))


def test_unseen_tasks_may_be_named():
    tasks = words(8, 3)
    split = split_by_name(tasks, By.TASK, ["task 1", "task 4"])
    assert [task.name for task in split.unseen] == ["task 1", "task 4"]
    assert len(split.seen) == 6
    with pytest.raises(UnknownName, match="task 44"):
        split_by_name(tasks, By.TASK, ["task 44"])
    with pytest.raises(InvalidData, match="category `c1` is on both sides"):
        split_by_name(tasks, By.CATEGORY, ["task 1", "task 4"])


def test_splits_that_show_nothing_are_refused():
    tasks = words(8, 3)
    with pytest.raises(InvalidConfig):
        split_tasks(tasks, By.TASK, 1.0, Lab())
    with pytest.raises(InvalidData, match="side has 1 task"):
        split_tasks(tasks[:3], By.TASK, 0.5, Lab())
    with pytest.raises(InvalidData, match="no category"):
        split_tasks([replace(task, category="") for task in tasks], By.CATEGORY, 0.3, Lab())
    with pytest.raises(InvalidData, match="All tasks have the dataset"):
        split_tasks([replace(task, dataset="d") for task in tasks], By.DATASET, 0.3, Lab())
    with pytest.raises(InvalidData, match="dataset `d0` is on both sides"):
        TaskSplit(By.DATASET, tuple(tasks[:4]), tuple(tasks[4:]))


@pytest.mark.parametrize("n", [160, 161, 259, 260, 6_500])
def test_the_published_rule_gives_a_hundred_instances_from_60_on(n):
    found = published_indices(n)
    assert len(set(found)) == 100
    assert min(found) == 60
    assert max(found) < n


@pytest.mark.parametrize("n", [0, 60, 159])
def test_the_published_rule_refuses_fewer_than_160(n):
    with pytest.raises(ValueError, match="too few for the published rule"):
        published_indices(n)


def test_the_task_trains_on_seen_tasks_and_scores_answers_only():
    tasks = arithmetic_tasks()
    split = split_tasks(tasks, By.TASK, 0.4, Lab(1))
    spec = Instructions(split, n_train=5, n_test=4, length=96, response=8)
    task = spec.build(Lab(1))
    assert set(task.of(Use.EVALUATE)) == {one.name for one in split.unseen}
    data = task.split("seen tasks").data
    assert len(data) == 5 * len(split.seen)
    row = data[0]
    answer = bytes((row["tokens"][row["mask"]] - 1).clamp_min(0).tolist()).decode()
    assert answer.strip("\0").strip().isdigit()
    prompt = bytes(row["tokens"][~row["mask"]].sub(1).clamp_min(0).tolist()).decode().strip("\0")
    assert prompt.startswith("Instruction: ")
    assert prompt.endswith("output:")


@pytest.mark.skipif(not Path(DATA, "natural-instructions-v1-subset").is_dir(), reason="no data")
def test_the_published_subsets_are_read_whole():
    first = read_instructions(f"{DATA}/natural-instructions-v1-subset")
    second = read_instructions(f"{DATA}/natural-instructions-v2-subset")
    assert (len(first), len(second)) == (49, 120)
    assert {task.name for task in first} >= {"subtask002_quoref_answer_generation_rebuilt"}
    for task in (*first, *second):
        shown = {(one.input, one.output) for one in task.positive}
        assert not any((one.input, y) in shown for one in task.instances for y in one.outputs)
        assert task.dataset
    split = split_tasks(first, By.DATASET, 0.2, Lab())
    assert not split.overlap(By.DATASET)
    published = published_split(first)
    assert (len(published.seen), len(published.unseen)) == (37, 12)
    assert sum(task.name.endswith("_rebuilt") for task in published.unseen) == 1
