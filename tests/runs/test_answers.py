"""Stored answers: whole or absent, one per content, nothing outside their folder."""

import json

import numpy as np
import pytest
from stored_audits import predictions, store_audit

from unseen.errors import CorruptFile, UnknownName
from unseen.report.json import plain
from unseen.runs.answers import Answers, key_of
from unseen.subjects.predictions import SplitPredictions
from unseen.subjects.stored_predictions import MOST, as_plain, from_plain, why_not_paired


def test_an_answer_is_found_again_with_its_numbers_and_its_page(tmp_path):
    stored = store_audit(tmp_path, codes=("U203", "U101"))
    answers = Answers(tmp_path)
    assert answers.get(stored.key) == stored
    assert answers.listing() == [stored]
    assert stored.codes == ["U101", "U203"]
    assert answers.report(stored.key).startswith("<!doctype html>")
    results = answers.results(stored.key)
    (first, second) = results["predictions"]
    assert (first["subject"], first["split"]) == ("clinics: Basel", "unseen")
    assert len(second["score"]) == 3
    assert "predictions" not in results["machine"]["findings"][0], "not in what --json prints"


def test_the_same_answer_is_stored_once_and_another_one_beside_it(tmp_path):
    first = store_audit(tmp_path)
    again = store_audit(tmp_path)
    assert again.key == first.key
    other = store_audit(tmp_path, skill=1.1)
    assert {one.key for one in Answers(tmp_path).listing()} == {first.key, other.key}


def test_what_the_machine_took_is_no_part_of_the_key_of_influences():
    one = {"score": 0.8, "facts": {"seconds to train": 3.1, "peak memory in GiB": 0.5}}
    two = {"score": 0.8, "facts": {"seconds to train": 2.0, "peak memory in GiB": 0.6}}
    assert key_of("influence", one) == key_of("influence", two)


def test_seconds_and_dates_are_no_part_of_a_key():
    assert key_of("audit", {"a": {"seconds": 1, "b": 2}}) == key_of("audit", {"a": {"b": 2}})
    assert key_of("audit", {"a": 1}) != key_of("compare", {"a": 1})


@pytest.mark.parametrize("key", ["", "..", "../../etc", "0" * 15, "0" * 17, "A" * 16, "0" * 16])
def test_only_keys_of_stored_answers_become_paths(key, tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "report.html").write_text("secret")
    store_audit(tmp_path)
    for read in (Answers(tmp_path).get, Answers(tmp_path).report, Answers(tmp_path).results):
        with pytest.raises(UnknownName):
            read(key)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2}', '{"format": 1, "key": "KEY", "title": "x"}']
)
def test_a_damaged_answer_is_counted_and_left_out(text, tmp_path):
    stored = store_audit(tmp_path)
    store_audit(tmp_path, skill=2.0)
    folder = tmp_path / "answers" / stored.key
    (folder / "answer.json").write_text(text.replace("KEY", stored.key))
    answers = Answers(tmp_path)
    with pytest.raises(CorruptFile):
        answers.get(stored.key)
    assert len(answers.listing()) == 1
    assert answers.count_damaged() == 1


def test_unfinished_answers_do_not_exist(tmp_path):
    stored = store_audit(tmp_path)
    (tmp_path / "answers" / stored.key / "answer.json").unlink()
    assert Answers(tmp_path).listing() == []


def test_predictions_give_the_same_paired_changes_after_they_were_stored():
    before, after = predictions(0, 1.0), predictions(1, 1.4)
    stored = [from_plain(json.loads(json.dumps(as_plain(one)))) for one in (before, after)]
    direct, read = after.changes(before), stored[1].changes(stored[0])
    assert direct.keys() == read.keys() >= {"accuracy", "AUC", "loss"}
    for metric, reading in direct.items():
        numbers = (reading.value, reading.low, reading.high)
        assert numbers == pytest.approx(
            (read[metric].value, read[metric].low, read[metric].high), rel=1e-5, abs=1e-6
        )


def test_only_the_same_examples_are_paired():
    one = as_plain(predictions(0, 1.0))
    assert why_not_paired(one, as_plain(predictions(5, 2.0))) == ""
    other = predictions(0, 1.0)
    flipped = SplitPredictions(other.loss, other.score, 1 - other.y, other.margin)
    assert "not the same" in why_not_paired(one, as_plain(flipped))
    assert "not the same" in why_not_paired(one, as_plain(predictions(0, 1.0, n=61)))
    assert "3 and 2 models" in why_not_paired(one, as_plain(predictions(0, 1.0, models=2)))
    unlabelled = SplitPredictions(other.loss, other.score, None)
    assert "no labels" in why_not_paired(one, as_plain(unlabelled))
    zeros = np.zeros((1, MOST + 1))
    assert "20,000 predictions" in why_not_paired(
        one, as_plain(SplitPredictions(zeros, zeros, None))
    )


def test_results_for_machines_hold_no_single_predictions():
    from stored_audits import findings

    assert "predictions" not in plain(findings(0, 1.0)[0])
