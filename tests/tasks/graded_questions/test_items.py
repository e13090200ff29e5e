"""Items as users write them: what is read, what is refused, and how hardness divides them."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from unseen.errors import CorruptFile, InvalidData, MissingFile, UnknownName
from unseen.tasks.graded_questions import (
    Item,
    Stratum,
    annotation_level,
    chance,
    contradictions,
    level_hardness,
    read_items,
    remove_repeats,
    stratify,
)

ITEM = {"question": "Which is a metal?", "choices": ["tin", "tea", "fur"], "answer": 0}


def write(tmp_path, *entries, name="items.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(entry) for entry in entries), "utf-8")
    return path


def only(tmp_path, **change):
    """The one item of a file, after a change."""
    (item,) = read_items(write(tmp_path, {**ITEM, **change}))
    return item


@pytest.mark.parametrize(
    "change",
    [
        {"answer": 1},
        {"answer": "tea"},
        {"answer": "B"},
        {"answer": "2", "labels": ["1", "2", "3"]},
        {"answer": "y", "labels": ["x", "y", "z"]},
        {"answer": "B", "choices": [{"label": "A", "text": "tin"}, {"label": "B", "text": "tea"}]},
        {"answer": "B", "choices": {"text": ["tin", "tea"], "label": ["A", "B"]}},
    ],
)
def test_an_answer_is_an_index_a_label_or_the_text(tmp_path, change):
    item = only(tmp_path, **change)
    assert item.choices[item.answer] == "tea"


def test_the_published_form_of_arc_is_read(tmp_path):
    choices = [{"label": "A", "text": "tin"}, {"label": "B", "text": "tea"}]
    arc = {"id": "M_1", "question": {"stem": "A metal?", "choices": choices}, "answerKey": "A"}
    (item,) = read_items(write(tmp_path, arc))
    assert item == Item("A metal?", ("tin", "tea"), 0, "M_1")


def test_labels_of_the_file_come_before_texts(tmp_path):
    item = only(tmp_path, choices=["2", "1", "3"], labels=["1", "2", "3"], answer="1")
    assert item.choices[item.answer] == "2"


def test_yes_and_no_may_be_truth_values(tmp_path):
    assert only(tmp_path, choices=["Yes", "No"], answer=False).answer == 1


def test_questions_are_put_into_a_frame_and_prompts_are_not(tmp_path):
    assert only(tmp_path).prompt == "Question: Which is a metal?\nAnswer:"
    assert only(tmp_path).continuations == (" tin", " tea", " fur")
    entry = {"prompt": "The {metal} is ", "choices": ["tin", "tea"], "answer": 0}
    (item,) = read_items(write(tmp_path, entry))
    assert item.prompt == "The {metal} is "
    assert item.continuations == ("tin", "tea")


def test_other_fields_are_annotations(tmp_path):
    item = only(tmp_path, id=7, grade="Grade 08", bloom="Applying", steps=3, tags=["a"])
    assert item.name == "7"
    assert (item.level("grade"), item.level("bloom"), item.level("steps")) == (8, 3, 3)
    assert item.level("tags") is None


def test_a_gzipped_file_is_read(tmp_path):
    path = tmp_path / "items.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ITEM).encode()))
    assert read_items(path) == [Item("Which is a metal?", ("tin", "tea", "fur"), 0)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"choices": ["tin"]}, "Line 1 of items.jsonl: .* has 1 choice"),
        ({"choices": ["tin", " "]}, "Choice 1 of .* is empty"),
        ({"choices": ["tin", "tin"]}, "has a choice twice"),
        ({"choices": "tin"}, "no list in `choices`"),
        ({"choices": ["tin", None]}, "a choice that is no text"),
        ({"answer": "gold"}, "'gold' of 3 choices .* is not among them"),
        ({"answer": 3}, "3 of 3 choices .* is not among them"),
        ({"answer": -1}, "is not among them"),
        ({"answer": None}, "no index, label or text in `answer`"),
        ({"answer": 1, "choices": ["0", "2", "1"]}, "can mean 2 of them"),
        ({"answer": "A", "choices": ["B", "A"]}, "can mean 2 of them"),
        ({"labels": ["A"]}, "labels of another number"),
        ({"question": " "}, "no text in `question`"),
    ],
)
def test_faulty_items_are_refused_with_their_line(tmp_path, change, words):
    with pytest.raises(InvalidData, match=words):
        only(tmp_path, **change)


def test_faulty_files_are_refused(tmp_path):
    with pytest.raises(MissingFile, match=r"no file .*absent\.jsonl"):
        read_items(tmp_path / "absent.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(ITEM) + "\n\n{")
    with pytest.raises(InvalidData, match=r"Line 3 of broken\.jsonl is no JSON"):
        read_items(broken)
    broken.write_text("[1]")
    with pytest.raises(InvalidData, match="holds a list"):
        read_items(broken)
    broken.write_text("")
    with pytest.raises(InvalidData, match="holds no item"):
        read_items(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptFile, match="cannot be read as text"):
        read_items(broken)


def test_chance_follows_the_number_of_choices():
    two, four = Item("?", ("a", "b"), 0), Item("?", ("a", "b", "c", "d"), 0)
    assert chance([two, four]) == 0.375
    with pytest.raises(InvalidData, match="no items"):
        chance([])


def test_copies_are_found_whatever_case_and_order():
    first = Item("Which one?", ("a", "b"), 0, "first")
    copy = Item("which  ONE?", ("b", "a"), 1, "copy")
    assert remove_repeats([first, copy, Item("Which?", ("a", "b"), 0)])[0] is first
    assert len(remove_repeats([first, copy])) == 1


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (3, 3),
        ("Grade 08", 8),
        ("Creating", 6),
        ("III", 3),
        ("Low", 1),
        ("hard", 3),
        ("2.5", 2.5),
        ("-0.4", -0.4),
        (".5", 0.5),
    ],
)
def test_annotations_become_numbers(value, level):
    assert annotation_level(value) == level


@pytest.mark.parametrize(
    "value", ["Biology", "grades 3 to 5", "", "nan", float("nan"), float("inf")]
)
def test_annotations_without_order_are_none(value):
    assert annotation_level(value) is None


@given(values=lists(integers(0, 6), min_size=2, max_size=60))
def test_strata_divide_the_items_and_never_a_tie(values):
    if len(set(values)) == 1:
        with pytest.raises(InvalidData, match="all are alike"):
            stratify(values)
        return
    strata = stratify(values)
    parts = [strata.of(stratum) for stratum in Stratum]
    assert sorted(k for part in parts for k in part) == list(range(len(values)))
    levels = [{values[k] for k in part} for part in parts]
    assert levels[0]
    assert levels[2]
    assert max(levels[0]) < min(levels[2])
    assert not levels[1] & (levels[0] | levels[2])


def test_percentiles_are_thirty_forty_thirty():
    strata = stratify(list(range(100)))
    assert [len(strata.of(stratum)) for stratum in Stratum] == [30, 40, 30]


def test_cuts_of_the_paper_include_both_ends_and_unknown_levels_are_counted():
    strata = stratify([3, 5, 6, 8, None], cuts=(5, 8))
    assert (strata.easy, strata.medium, strata.hard) == ((0, 1), (2,), (3,))
    assert strata.without == (4,)
    with pytest.raises(InvalidData, match="Easy ends at 8 and hard begins at 5"):
        stratify([3, 9], cuts=(8, 5))
    with pytest.raises(InvalidData, match="No item has a hardness"):
        stratify([None])


def test_an_unknown_or_unordered_annotation_is_refused():
    items = [Item("?", ("a", "b"), 0, annotations=(("subject", "art"), ("grade", 3.0)))]
    with pytest.raises(UnknownName, match="did you mean grade"):
        level_hardness(items, "grades")
    with pytest.raises(InvalidData, match="has no order: art"):
        level_hardness(items, "subject")


def test_a_copy_with_another_right_choice_is_named():
    first, copy = Item(**ITEM), Item("which is a  metal?", ["fur", "Tin", "tea"], 1)
    other = Item("Which is a metal?", ["tin", "tea", "fur"], 2)
    assert contradictions([first, copy]) == []
    assert contradictions([first, copy, other]) == [other]
    assert remove_repeats([first, copy, other]) == (first,)
