"""`unseen measure --text`: statistics against human texts, the place of a takeover, refusals."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import unseen
from unseen.cli.measure import main
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.machine_text import Statistic
from unseen.measures.machine_text.scorer import TextScorer
from unseen.models.tiny_causal import tiny_causal
from unseen.questions.measure.authorship import (
    MOST_TOKENS,
    AuthorshipJob,
    column_texts,
    measure_texts,
    read_texts,
    score_texts,
)
from unseen.questions.measure.authorship_document import NEVER_PROOF, document, passages
from unseen.report.html import html
from unseen.studies.authorship.corpora import ByteModel

SENTENCES = ("The ship left at dawn. ", "Nobody on the road saw it go! ", "Why would they? ")


@pytest.fixture(scope="module")
def model():
    return ByteModel().eval()


def people(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(SENTENCES, 4)) + str(k) for k in range(n)]


def job(model, texts, human=(), **more) -> AuthorshipJob:
    return AuthorshipJob(
        texts=texts, human=human, scorer=TextScorer(model, length=64), model="bytes", **more
    )


def test_thresholds_shares_and_medians_are_those_of_the_human_texts(model):
    human = people(120)
    found = measure_texts(job(model, {"a": human[0]}, human[1:]), Lab())
    (text,) = found.texts
    assert (found.human, found.rate, text.compared) == (119, 0.01, 119)
    scorer = TextScorer(model, length=64)
    own = scorer.score([human[0]])[0]
    for one in text.statistics:
        others = []
        for other in scorer.score(human[1:]):
            cut = type(other)(*(x[: len(own)] for x in vars(other).values()))
            others.append(one.statistic.of(cut))
        assert one.value == pytest.approx(one.statistic.of(own), rel=1e-5)
        assert one.human == pytest.approx(np.median(others), rel=1e-5)
        assert one.threshold.value == pytest.approx(max(others), rel=1e-5)
        as_high = sum(x >= one.value for x in others)
        assert one.share == pytest.approx((1 + as_high) / 120, abs=1 / 119)
        assert one.exceeds == (one.value > one.threshold.value)


def test_copies_are_no_further_people_and_a_text_is_none_for_itself(model):
    human = people(10)
    found = measure_texts(job(model, {"a": human[0]}, [*human, *human]), Lab())
    assert (found.human, found.repeats, found.texts[0].compared) == (9, 11, 9)
    assert "11 human texts left out" in html(document(found))
    with pytest.raises(InvalidData, match="0 of 120 human texts"):
        measure_texts(job(model, {"a": human[0]}, human[:1] * 120), Lab())


def test_few_human_texts_give_the_rate_that_they_allow(model):
    found = measure_texts(job(model, {"a": f"{people(1)[0]}!"}, people(9)), Lab())
    assert found.rate == pytest.approx(0.1)
    page = document(found)
    said = " ".join(note.text for note in page.sections[0].blocks)
    assert "9 human texts of comparable length give no threshold at 1 %" in said
    assert "1 in 10" in page.lead
    assert measure_texts(job(model, {"a": people(1)[0]}), Lab()).texts[0].statistics[0].share != 0


def test_without_human_texts_there_is_no_threshold(model):
    found = measure_texts(job(model, {"a": people(1)[0]}), Lab())
    assert all(one.threshold is None and one.exceeds is None for one in found.texts[0].statistics)
    assert "no threshold" in document(found).lead


def test_every_report_says_that_it_is_no_proof(model):
    found = measure_texts(job(model, {"a": people(1)[0]}, people(5)), Lab())
    page = html(document(found))
    assert "never proof about a person" in page
    assert "never proof about a person" in NEVER_PROOF


def test_tokens_and_sentences_make_the_text(model):
    text = people(3)[2]
    found = measure_texts(job(model, {"a": text}), Lab()).texts[0]
    assert "".join(found.pieces) == text
    assert len(found.pieces) == len(found.excess) == found.tokens
    assert found.excess[0] == 0
    scored = TextScorer(model, length=64).score([text])[0]
    np.testing.assert_allclose(
        found.excess[1:], (scored.log_probability - scored.mean).numpy(), rtol=1e-4, atol=1e-5
    )


class Planted(ByteModel):
    """A model that knows one letter: text of that letter is expected, all else a surprise."""

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, 256)
        logits[..., ord("a")] = 6.0
        return logits


def test_the_place_where_another_author_begins_is_found_and_marked():
    before, after = "zq xw kvn. " * 8, "aaa aaa aa. " * 8
    found = measure_texts(job(Planted(), {"a": before + after}), Lab()).texts[0]
    assert found.takeover.stands_out
    assert found.takeover.change.index == 8
    assert found.takeover.character == len(before)
    halves = passages(found)
    assert ["".join(half.pieces) for half in halves] == [before, after]
    other = measure_texts(job(Planted(), {"a": after + before}), Lab()).texts[0]
    assert not other.takeover.stands_out  # it falls there
    assert len(passages(other)) == 1


def test_three_sentences_have_no_place(model):
    found = measure_texts(job(model, {"a": "".join(SENTENCES)}), Lab())
    assert found.texts[0].takeover is None


def test_long_texts_are_cut_and_it_is_said(model):
    text = "a long one. " * 100
    found = measure_texts(job(model, {"a": text}), Lab())
    assert (found.texts[0].tokens, found.texts[0].is_cut) == (MOST_TOKENS, True)
    assert "first 1,024 tokens" in html(document(found))


def test_short_texts_are_refused_with_their_length_and_short_human_ones_left_out(model):
    with pytest.raises(InvalidData, match=r"note\.txt has 9 tokens"):
        measure_texts(job(model, {"note.txt": "too short"}), Lab())
    found = measure_texts(job(model, {"a": f"{people(1)[0]}!"}, [*people(3), "no"]), Lab())
    assert (found.human, found.left_out) == (3, 1)
    with pytest.raises(InvalidData, match="1 of 2 human texts"):
        measure_texts(job(model, {"a": f"{people(1)[0]}!"}, [people(1)[0], "no"]), Lab())


def test_the_second_model_changes_binoculars_alone(model):
    with Lab(3).child("other").seeded():
        other = ByteModel()
        for p in other.parameters():
            torch.nn.init.normal_(p, std=0.3)
    scorer = TextScorer(model, other.eval(), length=64)
    texts = {"a": people(1)[0]}
    two = measure_texts(
        AuthorshipJob(texts=texts, scorer=scorer, model="bytes", observer="other"), Lab()
    )
    one = measure_texts(job(model, texts), Lab())
    values = [{s.statistic: s.value for s in found.texts[0].statistics} for found in (one, two)]
    assert values[0][Statistic.LIKELIHOOD] == pytest.approx(values[1][Statistic.LIKELIHOOD])
    assert values[0][Statistic.BINOCULARS] != pytest.approx(values[1][Statistic.BINOCULARS])


def test_files_folders_and_lines_are_texts(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.jsonl").write_text('{"note": "two"}\n{"note": "three"}\n')
    found = read_texts([str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")], "note")
    assert list(found.values()) == ["one", "two", "three"]
    assert list(found)[1].endswith("b.jsonl, line 1")


def test_the_function_takes_texts_by_name_and_writes_a_report(model, tmp_path):
    path = tmp_path / "page.html"
    answer = unseen.measure_authorship(
        {"letter": people(1)[0]}, model=model, progress=False, report=path
    )
    assert "letter" in path.read_text()
    values = json.loads(answer.json())["texts"][0]["statistics"]
    assert {one["statistic"] for one in values} >= {"curvature", "Binoculars"}
    assert all(math.isfinite(one["value"]) for one in values)
    assert "Never proof" in answer.summary()


def test_the_command_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(InvalidConfig, match="--executor processes was given with --text"):
        main(["--text", "a.txt", "--executor", "processes"])
    with pytest.raises(InvalidConfig, match="no --text"):
        main(["--human", "people.jsonl"])
    with pytest.raises(InvalidConfig, match="2 columns were given"):
        main(["table.csv", "--text", "a", "b"])
    with pytest.raises(InvalidConfig, match="with 2 columns"):
        main(["table.csv", "--text", "a", "b", "--target", "y"])
    with pytest.raises(InvalidConfig, match="with --human"):
        main(["table.csv", "--text", "a", "--target", "y", "--human", "people.txt"])


def test_the_cells_of_a_column_are_texts_by_row(tmp_path, model):
    path = tmp_path / "essays.csv"
    essays = people(3)
    frame = pd.DataFrame({"essay": [essays[0], None, essays[2]], "grade": [1, 2, 3]})
    frame.to_csv(path, index=False, encoding="latin-1")
    named, notes = column_texts(path, "essay")
    assert named == {"row 0": essays[0], "row 2": essays[2]}
    assert notes == ["1 row without a text left out (row 1)."]
    answer = unseen.measure_authorship(frame, column="essay", model=model, progress=False)
    by_file = unseen.measure_authorship(path, column="essay", model=model, progress=False)
    assert answer.results.texts == by_file.results.texts
    assert "left out (row 1)" in answer.document.sections[0].blocks[-1].text
    alone = unseen.measure_authorship({"row 0": essays[0]}, model=model, progress=False)
    assert alone.results.texts[0].statistics == answer.results.texts[0].statistics


def test_a_column_that_holds_no_texts_is_refused(model):
    frame = pd.DataFrame({"essay": [1, 2], "empty": [None, " "]})
    with pytest.raises(UnknownName, match="essays"):
        column_texts(frame, "essays")
    with pytest.raises(InvalidData, match="holds no texts"):
        column_texts(frame, "essay")
    with pytest.raises(InvalidData, match="has no text"):
        column_texts(frame.assign(empty=None), "empty")
    with pytest.raises(InvalidConfig, match="one table"):
        unseen.measure_authorship(frame, model=model)
    with pytest.raises(InvalidConfig, match="one table"):
        unseen.measure_authorship(["a.csv", "b.csv"], column="essay", model=model)
    short = pd.DataFrame({"essay": ["too short"]})
    with pytest.raises(InvalidData, match="row 0"):
        unseen.measure_authorship(short, column="essay", model=model)


def test_a_model_that_reads_a_column_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 90)
    words = [" ".join([*rng.choice(["a", "b", "c"], 4), "frail" if k else "well"]) for k in y]
    frame = pd.DataFrame({"note": words, "y": y, "ward": rng.choice(["x", "z"], 90)})
    path, report = tmp_path / "notes.csv", tmp_path / "page.json"
    frame.to_csv(path, index=False)
    options = ["--target", "y", "--site", "ward", "--holdout", "x", "--seeds", "1", "--quiet"]
    more = ["--measure", "score", "--text", "note", "--report", str(report)]
    assert main([str(path), *options, *more]) == 0
    assert "TF-IDF" in report.read_text()


class Interrupted(dict):
    """A keeper in memory that is interrupted at the second value it makes."""

    made = 0

    def __call__(self, key, make):
        if key.digest not in self:
            self.made += 1
            if self.made == 2:
                raise KeyboardInterrupt
            self[key.digest] = make()
        return self[key.digest]


def test_an_interrupted_command_goes_on_and_people_are_read_once(model):
    human, scorer, memory = people(20), TextScorer(model, length=64), Interrupted()
    lab = replace(Lab(), keeper=memory)
    with pytest.raises(KeyboardInterrupt):
        score_texts(scorer, [human[:1], human], lab)
    found = score_texts(scorer, [human[:1], human], lab)
    assert memory.made == 5  # the text, the interrupted chunk, and three of people
    score_texts(scorer, [human[1:2], human], lab)
    assert memory.made == 6
    for one, plain in zip(found, scorer.score([human[0], *human]), strict=True):
        torch.testing.assert_close(one.mean, plain.mean, atol=1e-4, rtol=1e-4)
        assert one.rank.tolist() == plain.rank.tolist()


def test_windows_are_no_longer_than_the_context_of_either_model():
    short, long = tiny_causal(context=40), tiny_causal(seed=1)
    letter = "".join(SENTENCES) * 4
    for pair in ({"model": short}, {"model": long, "against": short}):
        answer = unseen.measure_authorship({"letter": letter}, **pair, progress=False)
        assert answer.results.texts[0].tokens > 40


def test_a_text_without_human_texts_of_its_length_is_said_to_have_no_threshold(model):
    texts = {"long": "".join(SENTENCES) * 6, "short": "".join(SENTENCES)}
    found = measure_texts(job(model, texts, people(120)), Lab())
    assert [one.is_compared for one in found.texts] == [False, True]
    page = document(found)
    assert "of 1 text." in page.lead
    assert "1 text could not be compared" in page.lead
    said = html(page)
    assert "long: no threshold, 0 human texts of its length." in said
    assert "one in 1 human texts" not in said
