"""`unseen measure scores.csv --concurrence`."""

import json

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.cli.measure import main
from unseen.errors import InvalidConfig, InvalidData


def table(**columns) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for source in ("scan", "geo"):
        skill = rng.normal(size=6)
        for strategy in ("length", "template", "lexical"):
            rows += [
                {
                    "model": f"m{m}",
                    "split": f"{source} {strategy}",
                    "source": source,
                    "strategy": strategy,
                    "seed": seed,
                    "score": 50 + 10 * skill[m] + rng.normal(),
                }
                for m in range(6)
                for seed in range(3)
            ]
    return pd.DataFrame(rows).assign(**columns)


def test_splits_of_one_source_agree(tmp_path, capsys):
    file = tmp_path / "scores.csv"
    table().to_csv(file, index=False)
    page = tmp_path / "page.html"
    assert main([str(file), "--concurrence", "--json", "--report", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    same = [one for one in found["pairs"] if one["first"][:4] == one["second"][:4]]
    assert len(found["pairs"]) == 15
    assert min(one["p"] for one in same) < 0.01
    labels = found["source_against_strategy"]
    assert labels["same_source"] > labels["same_strategy"]
    assert labels["relabelings"] == 60
    text = page.read_text()
    assert "geo length with geo template" in text
    assert "one-sided p" in text


def test_missing_scores_are_counted_and_named():
    scores = table()
    absent = (scores.model == "m0") & (scores.split == "geo length")
    scores.loc[absent, "score"] = np.nan
    report = unseen.concurrence(scores).results
    assert report.left_out == 3
    assert report.missing == ["m0 on geo length"]
    assert {one.models for one in report.pairs if "geo length" in (one.first, one.second)} == {5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="score"), "no column `score`"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "occurs more than once"),
        (lambda t: t.drop(columns="seed"), "occurs more than once"),
        (lambda t: t.assign(score=["x", *t.score[1:]]), "row 2 is `x`"),
        (lambda t: t.assign(model=[None, *t.model[1:]]), "`model` is empty in row 2"),
        (lambda t: t[t.split == "geo length"], "of 1 split"),
        (lambda t: t.assign(source=["other", *t.source[1:]]), "more than one source"),
        (lambda t: t.assign(source=None), "`source` is empty for the split"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, words):
    with pytest.raises(InvalidData, match=words):
        unseen.concurrence(change(table()))


def test_labels_that_cannot_be_compared_say_why():
    report = unseen.concurrence(table(strategy="one")).results
    assert report.labels is None
    assert "shares the source and not the strategy" in report.labels_reason


def test_the_table_must_be_named(capsys):
    with pytest.raises(InvalidConfig, match="without a table"):
        main(["--concurrence"])


def test_splits_that_reverse_the_order_are_said_apart_from_those_that_agree():
    scores = table()
    there = scores.split == "scan lexical"
    scores.loc[there, "score"] = -scores.score[there]
    lead = unseen.concurrence(scores).document.lead
    alike, reverse = lead.split(". ")[:2]
    assert "order the models alike beyond chance" in alike
    assert "scan lexical" not in alike
    assert "the other way round" in reverse
    assert "scan lexical" in reverse
