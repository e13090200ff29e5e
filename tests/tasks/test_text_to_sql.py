"""GeoQuery and Advising: every wording once, and query patterns apart."""

import gzip
import json

import pytest

from unseen.errors import CorruptFile
from unseen.tasks import text_to_sql
from unseen.tasks.text_to_sql import Source, TextToSql, Unit, read_questions


def test_geography_has_its_wordings_and_no_pattern_in_two_parts():
    questions = read_questions(Source.GEOGRAPHY)
    assert len(questions) == len({q.pair for q in questions}) == 607
    queries = TextToSql(unit=Unit.QUERY).pairs()
    train, test = ({one.target for one in p} for p in (queries.train, queries.evaluate["unseen"]))
    assert not train & test
    both = TextToSql(unit=Unit.QUESTION).pairs()
    shared = {one.target for one in both.train} & {one.target for one in both.evaluate["unseen"]}
    assert shared
    assert len(both.train) + len(both.evaluate["unseen"]) == 607


def test_wordings_that_the_release_excludes_are_left_out(monkeypatch, tmp_path):
    entry = {
        "query-split": "train",
        "sql": ["SELECT 1 ;", "SELECT 2 ;"],
        "sentences": [
            {"text": "one", "question-split": "test"},
            {"text": "one", "question-split": "train"},
            {"text": "two", "question-split": "exclude"},
        ],
    }
    path = tmp_path / "some.json.gz"
    monkeypatch.setattr(text_to_sql, "data_file", lambda name: path)
    path.write_bytes(gzip.compress(json.dumps([entry]).encode()))
    (one,) = read_questions(Source.ADVISING)
    assert one.pair == (("one",), ("SELECT", "1", ";"))
    path.write_bytes(gzip.compress(b'[{"sql": []}]'))
    with pytest.raises(CorruptFile):
        read_questions(Source.ADVISING)
