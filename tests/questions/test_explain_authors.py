"""`unseen explain --text --estimator`: exact credits of a user's texts, rows, reports, refusals."""

import json

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.cli.explain import main
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab

HABITS = {"Ada": ["whilst", "upon", "shall"], "Bob": ["while", "on", "will"]}
COLUMNS = {"text": "essay", "target": "author"}


def essays(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    authors = rng.choice(list(HABITS), n)
    texts = [
        " ".join(rng.permutation([*HABITS[author], *rng.choice(["ship", "road", "dawn"], 4)]))
        for author in authors
    ]
    return pd.DataFrame({"essay": texts, "author": authors, "book": rng.choice(["x", "y"], n)})


def explain(frame, **more):
    return unseen.explain_authors(frame, progress=False, lab=Lab(), **(COLUMNS | more))


def test_credits_sum_to_the_logit_and_stand_on_the_text():
    frame = essays()
    found = explain(frame, rows=[3, 7]).results
    assert [one.row for one in found.texts] == [3, 7]
    for one in found.texts:
        shift = one.credits.logit - one.credits.mean_logit
        assert one.credits.credits.sum() == pytest.approx(shift, abs=1e-9)
        assert "".join(one.passage.pieces) == frame["essay"][one.row]
        assert one.author == frame["author"][one.row]
        weights = dict(zip(map(str.strip, one.passage.pieces), one.passage.weights, strict=True))
        habits = [weights[word] for word in HABITS[one.author]]
        assert one.predicted == one.author
        assert sum(habits) > abs(sum(weights.values()) - sum(habits))


def test_the_credits_of_the_other_of_two_authors_are_opposite():
    frame = essays()
    ada, bob = (explain(frame, rows=[3], author=name).results.texts[0] for name in HABITS)
    np.testing.assert_allclose(ada.credits.credits, -bob.credits.credits)


def test_style_has_credits_and_no_passage():
    found = explain(essays(), estimator="unseen.models:Stylometry", examples=2).results
    assert found.estimator == "Stylometry"
    assert len(found.texts) == 2
    assert all(one.passage is None for one in found.texts)


def test_the_command_writes_a_report_of_the_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    path, page = tmp_path / "essays.csv", tmp_path / "page.html"
    essays().to_csv(path, index=False)
    columns = ["--text", "essay", "--target", "author", "--site", "book", "--rows", "0,2"]
    options = ["--estimator", "unseen.models:CharNgram", "--json", "--report", str(page)]
    assert main([str(path), *columns, *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["row"] for one in told["texts"]] == [0, 2]
    assert "Never proof about a person" in page.read_text()


def test_what_has_no_exact_credits_is_refused(tmp_path):
    frame = essays()
    with pytest.raises(InvalidConfig, match="BurrowsDelta has no exact credits"):
        explain(frame, estimator="unseen.models:BurrowsDelta")
    with pytest.raises(InvalidConfig, match="No column of texts"):
        unseen.explain_authors(frame, target="author", progress=False)
    with pytest.raises(UnknownName, match="Eve"):
        explain(frame, author="Eve")
    with pytest.raises(InvalidConfig, match="--method was given"):
        main(["a.csv", "--text", "essay", "--estimator", "m:E", "--method", "lime"])
