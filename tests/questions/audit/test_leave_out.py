"""What the advice says can be typed: columns by option, and nothing of the kind for words."""

from unseen.questions.audit.leave_out import ways_to_leave_out


def test_columns_are_named_as_a_shell_takes_them():
    assert ways_to_leave_out(["age", "blood pressure"]) == "--drop age --drop 'blood pressure'"


def test_a_word_of_a_text_is_no_column_that_could_be_dropped():
    ways = ways_to_leave_out(["“frail”", "age", "words in note"])
    assert ways == "--drop age; “frail” cut out of the texts; texts cut to one length"
    assert ways_to_leave_out(["“frail”"]) == "“frail” cut out of the texts"
