"""Sentences with a blank and their rules: the published counts, and what is refused."""

import pytest

from unseen.errors import InvalidData
from unseen.tasks.graded_questions.winogrande import (
    ExplainedSentence,
    Level,
    explained_sentences,
    generated_rules,
    read_sentences,
)

ROW = "The _ was stable.\twall\track\track\tagree\tIf X is stable, use X."


def test_the_published_counts():
    for level in Level:
        sentences = explained_sentences(level)
        assert len(sentences) == len(generated_rules(level)) == 100
        assert sum(not one.agrees for one in sentences) == (14 if level is Level.HARD else 0)
        assert all(one.rule for one in sentences)
    assert {len(explained_sentences(level, "pool_400")) for level in (Level.EASY, Level.HARD)} == {
        400
    }


def test_a_row_is_a_sentence_and_an_item():
    (one,) = read_sentences(ROW, "rows.tsv")
    assert one.options[one.answer] == "rack"
    assert one.sentence_with_answer == "The rack was stable."
    assert one.parts == ("The ", " was stable.")
    item = one.item("If X, then Y.")
    assert item.prompt == "If X, then Y.\nThe _ was stable.\nThe blank stands for"
    assert item.continuations == (" wall", " rack")
    assert one.mask("A Rack beats a wall, not wallpaper.") == "A Y beats a X, not wallpaper."


def test_braces_in_a_rule_are_text():
    (one,) = read_sentences(ROW, "rows.tsv")
    assert one.item("Use {question}.").prompt.startswith("Use {question}.\nThe _")


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (ROW.replace("_", "rack"), "Line 2 of rows.tsv has 0 blanks"),
        (ROW.replace("stable.\t", "_.\t", 1), "Line 2 of rows.tsv has 2 blanks"),
        (ROW.replace("\track\tagree", "\tfloor\tagree"), "`floor` on line 2 of rows.tsv"),
        (ROW.replace("\tagree", ""), "5 columns"),
    ],
)
def test_faults_are_named_with_their_line(row, named):
    with pytest.raises(InvalidData, match=named) as caught:
        read_sentences(f"{ROW}\n{row}", "rows.tsv")
    assert isinstance(caught.value, ValueError)


def test_a_sentence_needs_its_blank():
    with pytest.raises(InvalidData, match="0 blanks"):
        ExplainedSentence("No blank.", ("a", "b"), 0, "rule")
