"""The page over stored answers, over HTTP: list, filter, report, comparison, refusals."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from stored_audits import SITES, findings, predictions, store_audit

from unseen import stats
from unseen.document import Document, Paragraph, Table
from unseen.questions.storage import store_answer
from unseen.runs.answers import Answers
from unseen.serve.changes import Side, claim_changes, document_of_changes, score_changes
from unseen.serve.library import listing

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from unseen.serve.answers import answers_app

LOCAL = "http://127.0.0.1:8766"


def client(home: Path, base_url: str = LOCAL) -> TestClient:
    return TestClient(answers_app(home), base_url=base_url, raise_server_exceptions=False)


def two_audits(home: Path, **after) -> list[str]:
    """Keys of an earlier and a later audit of the same data."""
    before = store_audit(home, seed=0, skill=0.3, codes=("U203", "U101"))
    later = store_audit(home, **({"seed": 0, "skill": 3.0, "codes": ("U203", "U301")} | after))
    return [before.key, later.key]


def sides(home: Path, keys: list[str]) -> list[Side]:
    answers = Answers(home)
    return [Side(answers.get(key), answers.results(key)) for key in keys]


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_list_has_every_answer_with_its_command(tmp_path):
    keys = two_audits(tmp_path)
    page = client(tmp_path).get("/")
    assert page.status_code == 200
    for key in keys:
        assert f'href="/answers/{key}"' in page.text
    assert f"cd {Path.cwd()}\nunseen audit clinics.csv --seed 0" in unescape(page.text)
    assert "What changed since the one before" in page.text
    assert "<script" not in page.text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("words=u301", 1),
        ("words=network", 2),
        ("words=NETWORK+u301", 1),
        ("words=seed+0", 2),
        ("words=nothing-like-it", 0),
        ("kind=audit", 2),
        ("kind=compare", 0),
        ("kind=..%2F..", 2),
        ("words=%3Cscript%3Ealert(1)%3C/script%3E", 0),
    ],
)
def test_the_filter(query, shown, tmp_path):
    two_audits(tmp_path)
    page = client(tmp_path).get(f"/?{query}")
    assert page.text.count('type="checkbox"') == shown
    assert "<script" not in page.text


def test_a_report_is_the_page_as_it_was_written_and_runs_nothing(tmp_path):
    key = store_audit(tmp_path, title="<script>alert(1)</script>").key
    page = client(tmp_path).get(f"/answers/{key}")
    assert page.status_code == 200
    assert "Something about U203" in page.text
    assert '<a href="/">' in page.text
    assert "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_what_changed_between_two_audits(tmp_path):
    keys = two_audits(tmp_path)
    page = client(tmp_path).get("/compare", params={"one": keys[::-1]})
    assert page.status_code == 200
    text = text_of(page.text)
    assert "New: Something about U301 <b>." in text
    assert "Gone: Something about U101 <b>." in text
    assert "As before: U203." in text
    assert "Findings new: U301, gone: U101. AUC: better at Basel and Chur." in text
    assert "on the same examples, in pairs" in text


def test_paired_changes_are_those_of_the_predictions_widened_for_the_sites(tmp_path):
    before, after = sides(tmp_path, two_audits(tmp_path))
    found = {(one.site, one.metric): one for one in score_changes(before, after)}
    for k, site in enumerate(SITES):
        old, new = (predictions(10 * k, skill) for skill in (0.3, 3.0))
        for metric, reading in new.changes(old).items():
            wide = stats.widen(reading, 2)
            shown = found[site, metric].change
            ends = (
                (max(wide.low, -1.0), min(wide.high, 1.0))
                if metric != "loss"
                else (wide.low, wide.high)
            )
            assert (shown.value, shown.low, shown.high) == pytest.approx(
                (wide.value, *ends), rel=1e-4, abs=1e-5
            )
    backwards = score_changes(after, before)
    changes = {(one.site, one.metric): one.change.value for one in backwards}
    assert all(changes[key] == pytest.approx(-one.change.value) for key, one in found.items())


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ({"n": 50}, "the examples are not the same"),
        ({"models": 2}, "they trained 3 and 2 models"),
    ],
)
def test_what_cannot_be_paired_says_why(after, why, tmp_path):
    before, later = sides(tmp_path, two_audits(tmp_path, **after))
    page = document_of_changes(before, later)
    assert "No score could be compared in pairs." in page.lead
    tables = [block for block in page.sections[-1].blocks if isinstance(block, Table)]
    assert why in tables[0].footnotes[0]


def test_an_equal_audit_shows_no_difference_and_what_the_data_exclude(tmp_path):
    first = store_audit(tmp_path, seed=0, skill=1.0)
    second = store_audit(tmp_path, seed=3, skill=1.0)
    page = document_of_changes(*sides(tmp_path, [first.key, second.key]))
    assert page.lead.startswith("The same findings are raised. AUC: no difference shown at 2 of 2")
    assert "the data exclude that it is worse there by more than 0." in page.lead


@pytest.mark.parametrize(("models", "words"), [(1, "One model"), (2, "Two models"), (3, "")])
def test_few_trained_models_are_said(models, words, tmp_path):
    keys = [store_audit(tmp_path, skill=skill, models=models).key for skill in (1.0, 2.0)]
    page = document_of_changes(*sides(tmp_path, keys))
    said = [block.text for block in page.sections[-1].blocks if isinstance(block, Paragraph)]
    assert [text[: len(words)] for text in said] == [words] * bool(words)


def test_other_data_and_other_titles_are_said(tmp_path):
    keys = two_audits(tmp_path, title="SVC on clinics", data="clinics.csv, SHA-256 0000")
    text = text_of(client(tmp_path).get("/compare", params={"one": keys}).text)
    assert "The titles are not the same" in text
    assert "The file of the data has changed in between." in text
    assert "Network on clinics → SVC on clinics" in text
    entries = listing(tmp_path).entries
    assert entries[0].before == entries[1].answer.key, "the same file: the one before is known"


def test_verdicts_of_a_study_side_by_side(tmp_path):
    def store(verdict: str, value: float) -> str:
        line = {
            "says": "It holds.",
            "verdict": verdict,
            "value": value,
            "low": 0.1,
            "high": 0.9,
            "n": 3,
        }
        page = Document(title="coins", lead=f"{value}", facts={"command": "unseen run coins"})
        return store_answer(tmp_path, "run", page, {"claims": [line]}).key

    before, after = sides(tmp_path, [store("supported", 0.5), store("undecided", 0.4)])
    said, table = claim_changes(before, after)
    assert said.text == "1 of 1 verdicts are not the same."
    assert (table.rows[0]["earlier"], table.rows[0]["later"]) == ("supported", "undecided")
    audit = store_audit(tmp_path).key
    answer = client(tmp_path).get("/compare", params={"one": [before.answer.key, audit]})
    assert answer.status_code == 422
    assert "nothing to compare" in answer.text


def test_studies_in_the_store_without_a_report_are_named(tmp_path):
    cell = tmp_path / "runs" / "coins" / "0123"
    cell.mkdir(parents=True)
    (cell / "run.json").write_text("{}")
    text = text_of(client(tmp_path).get("/").text)
    assert "coins: 1 cell · unseen report coins" in text


REFUSED = {
    "unknown": ("/answers/0000000000000000", 404, "no stored answer"),
    "traversal": ("/answers/..%2F..%2Fsecret", 404, ""),
    "encoded": ("/answers/%2e%2e%2fsecret.html", 404, ""),
    "dots": ("/../secret.html", 404, ""),
    "a file": ("/answers.css/../secret.html", 404, ""),
    "a long name": (f"/answers/{'0' * 4000}", 404, ""),
    "none ticked": ("/compare", 422, "tick two"),
    "one ticked": ("/compare?one=0123456789abcdef", 422, "tick two"),
    "the same twice": ("/compare?one=0123456789abcdef&one=0123456789abcdef", 422, "tick two"),
    "three": ("/compare?one=a&one=b&one=c", 422, "tick two"),
    "no keys": ("/compare?one=..&one=../..", 404, "no stored answer"),
    "elsewhere": ("/nothing", 404, "nothing at this address"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_pages_that_say_why(case, tmp_path):
    home = tmp_path / "home"
    (tmp_path / "secret.html").write_text("secret")
    (home / "answers").mkdir(parents=True)
    (home / "secret").mkdir()
    (home / "secret" / "report.html").write_text("secret")
    path, status, words = REFUSED[case]
    answer = client(home).get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert words in answer.text
    assert "secret" not in answer.text.replace("secret.html", "")


def test_a_damaged_answer_is_no_bug(tmp_path):
    keys = two_audits(tmp_path)
    (tmp_path / "answers" / keys[0] / "results.json").write_text("{")
    (tmp_path / "answers" / keys[1] / "answer.json").write_text("[]")
    served = client(tmp_path)
    assert "1 folder in" in text_of(served.get("/").text)
    answer = served.get("/compare", params={"one": keys})
    assert answer.status_code == 500
    assert "Delete the folder" in answer.text


@pytest.mark.parametrize(
    "damage",
    [
        {"facts": []},
        {"facts": {"data": 1}},
        {"kicker": 3},
        {"folder": 7},
        {"version": None},
        {"notes": [1]},
    ],
)
def test_one_damaged_answer_does_not_take_the_list_down(damage, tmp_path):
    keys = two_audits(tmp_path)
    path = tmp_path / "answers" / keys[0] / "answer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    page = client(tmp_path).get("/")
    assert page.status_code == 200
    assert "1 folder in" in text_of(page.text)
    assert f'href="/answers/{keys[1]}"' in page.text


def test_a_report_that_is_no_text_is_damaged(tmp_path):
    key = store_audit(tmp_path).key
    (tmp_path / "answers" / key / "report.html").write_bytes(b"\xff\xfe")
    answer = client(tmp_path).get(f"/answers/{key}")
    assert answer.status_code == 500
    assert "Delete the folder" in answer.text


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_nothing_can_be_written(method, tmp_path):
    key = store_audit(tmp_path).key
    for path in ("/", f"/answers/{key}", "/compare"):
        assert getattr(client(tmp_path), method)(path).status_code == 405


@pytest.mark.parametrize("host", ["http://evil.example", "http://127.0.0.1.evil.example:8766"])
def test_foreign_hosts_and_origins_are_refused(host, tmp_path):
    assert client(tmp_path, host).get("/").status_code == 403
    assert client(tmp_path).get("/", headers={"origin": host}).status_code == 403
    for name in ("http://localhost:8766", "http://[::1]:8766"):
        assert client(tmp_path, name).get("/").status_code == 200


def test_every_answer_has_the_headers(tmp_path):
    key = store_audit(tmp_path).key
    served = client(tmp_path)
    for path in ("/", f"/answers/{key}", "/compare", "/answers.css", "/favicon.svg", "/nothing"):
        headers = served.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_reading_the_page_changes_no_file(tmp_path):
    keys = two_audits(tmp_path)

    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = state()
    served = client(tmp_path)
    for path in ("/", f"/answers/{keys[0]}", f"/compare?one={keys[0]}&one={keys[1]}"):
        assert served.get(path).status_code == 200
    assert state() == before


def test_an_empty_home_says_how_to_fill_it(tmp_path):
    page = client(tmp_path / "none").get("/")
    assert page.status_code == 200
    assert "Nothing is stored yet" in page.text
    assert not (tmp_path / "none").exists()
    assert len(findings(0, 1.0)) == 2
