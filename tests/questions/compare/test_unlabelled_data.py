"""A comparison takes a method that learns from inputs alone where the task has some, and says what
is missing where it has none.
"""

import numpy as np
import pandas as pd

import unseen
from unseen.questions.compare.candidates import methods_named


def table(unlabelled):
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(300, 2))
    values = factors @ rng.normal(size=(2, 8)) + rng.normal(size=(300, 8))
    frame = pd.DataFrame(values, columns=[f"m{k}" for k in range(8)])
    frame["site"] = rng.choice(["Basel", "Bern"], 300)
    frame["ill"] = np.where(factors[:, 0] > 0, "yes", "no")
    frame.loc[rng.random(300) < unlabelled, "ill"] = None
    return frame


def compare(frame, methods):
    return unseen.compare(
        frame,
        target="ill",
        site="site",
        methods=methods,
        seeds=2,
        draws=1,
        steps=10,
        protocols=["training"],
    ).results


def test_rows_without_a_target_serve_pretraining():
    results = compare(table(0.5), ["erm", "pretrain then fit"])
    assert results.methods == ["ERM", "pretrain then fit"]
    assert 0.6 < results.cell("pretrain then fit", "average", "AUC").reading.value <= 1
    assert any("are unlabelled data" in text for text in results.decisions)


def test_without_such_rows_the_method_is_missing_with_the_reason():
    results = compare(table(0.0), ["erm", "pretrain then fit"])
    said = " ".join(results.missing.values())
    assert "no ADAPT split" in said
    assert "rows whose target is empty" in said


def test_it_is_found_by_its_name():
    for name in ("pretrain then fit", "pretrain_then_fit", "PretrainThenFit"):
        assert methods_named([name])[0].name == "pretrain then fit"
