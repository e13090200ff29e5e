"""`unseen compare items.jsonl --forget TASK`: a file of one's own, its report, and refusals."""

import json

import pytest
from language import llama

import unseen
from unseen.cli.main import main
from unseen.errors import InvalidData, UnknownName
from unseen.subjects.item_forgetting import ItemForgetting


@pytest.fixture
def folder(tmp_path):
    lines = [
        {"question": f"{a}>{b}?", "choices": ["yes", "no"], "answer": int(a <= b), "task": "larger"}
        for a in range(5)
        for b in range(5)
    ]
    lines += [
        {"question": f"after {k}?", "choices": [str(k), str(k + 1)], "answer": 1, "task": "next"}
        for k in range(2, 8)
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "model").mkdir()
    llama(tmp_path / "model")
    return tmp_path


def test_a_file_of_tasks_is_forgotten_task_by_task(folder):
    setting = ItemForgetting(n=8, epochs=1, layers=(-1,))
    found = unseen.forget_items(
        folder / "items.jsonl", "larger", model=folder / "model", setting=setting, progress=False,
        report=folder / "page.html",
    )  # fmt: skip
    assert {row["test"] for row in found.results.rows()} == {
        "train", "reworded", "held out", "next",
    }  # fmt: skip
    page = (folder / "page.html").read_text()
    for text in ("Forgetting larger", "true answers (control)", "What is still inside"):
        assert text in page
    assert len(json.loads(found.json())["rows"]) == 8
    assert "The random answers were not memorised." in page
    assert "25, of which 25 different ones are used" in page


def test_where_no_probe_can_be_trained_the_reason_stands_there(folder):
    setting = ItemForgetting(n=23, epochs=1, layers=(-1,))
    options = {"model": folder / "model", "setting": setting, "progress": False}
    found = unseen.forget_items(folder / "items.jsonl", "larger", **options)
    (section,) = [one for one in found.document.sections if one.title == "What is still inside"]
    assert "No probe could be trained: 2 held-out items" in section.blocks[0].text


def test_the_command_writes_its_report(folder):
    code = main(
        ["compare", str(folder / "items.jsonl"), "--forget", "larger", "--model",
         str(folder / "model"), "--train-items", "8", "--test-items", "9", "--quiet",
         "--report", str(folder / "page.html")]
    )  # fmt: skip
    assert code == 0
    assert "held out" in (folder / "page.html").read_text()


def test_unknown_tasks_and_items_without_one_are_named(folder):
    options = {"model": folder / "model", "progress": False}
    with pytest.raises(UnknownName, match="larg"):
        unseen.forget_items(folder / "items.jsonl", "larg", **options)
    bare = folder / "bare.jsonl"
    bare.write_text(json.dumps({"question": "a?", "choices": ["b", "c"], "answer": 0}))
    with pytest.raises(InvalidData, match="has no `task`"):
        unseen.forget_items(bare, "larger", **options)
