"""The encoder against scikit-learn, and what it may know: the training rows only."""

from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis.strategies import integers
from properties import examples
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from unseen.lab import Lab
from unseen.tasks.table import Table
from unseen.tasks.table.cells import Kind, format_of
from unseen.tasks.table.encoding import Encoder, fit_encoder, tidy


def mixed(n: int, seed: int) -> pd.DataFrame:
    """Numbers with and without gaps, a frequent and a long-tailed category."""
    rng = np.random.default_rng(seed)
    gaps = rng.normal(50, 9, n)
    gaps[rng.random(n) < 0.2] = np.nan
    gaps[:2] = [np.nan, 1.0]
    return pd.DataFrame(
        {
            "full": rng.lognormal(size=n),
            "gaps": gaps,
            "colour": rng.choice(["red", "green", "blue"], n),
            "town": rng.choice(
                [f"t{k}" for k in range(9)], n, p=np.array([20, 15, 12, 9, 6, 1, 1, 1, 1]) / 66
            ),
        }
    )


def coded(frame: pd.DataFrame, **options) -> Encoder:
    return fit_encoder(tidy(frame), list(frame.columns), **options)


@given(n=integers(40, 300), seed=integers(0, 999))
@examples(25)
def test_equals_scikit_learn_on_fitted_and_new_rows(n, seed):
    frame, new = mixed(n, seed), mixed(n, seed + 1)
    new.loc[0, "town"] = "never seen"
    new.loc[1, "full"] = np.nan
    peer = ColumnTransformer(
        [
            ("full", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["full"]),
            ("gaps", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["gaps"]),
            ("flag", MissingIndicator(error_on_new=False), ["gaps"]),
            (
                "words",
                OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5),
                ["colour", "town"],
            ),
        ],
        sparse_threshold=0,
    ).fit(frame)
    encoder = coded(frame)
    for rows in (frame, new):
        np.testing.assert_allclose(
            encoder.transform(tidy(rows)), peer.transform(rows), rtol=1e-5, atol=1e-6
        )


def test_many_levels_keep_the_most_frequent_as_scikit_learn():
    counts = [40, 30, 20, 15, 10, 8, 6]
    frame = pd.DataFrame({"town": np.repeat([f"t{k}" for k in range(7)], counts)})
    encoder = coded(frame, max_levels=4)
    peer = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=4, sparse_output=False
    ).fit(frame)
    assert encoder.names == ["town = t0", "town = t1", "town = t2", "town = other"]
    assert (encoder.transform(tidy(frame)) == peer.transform(frame)).all()
    assert any("rare ones are `other`" in sentence for sentence in encoder.decisions)


def test_exactly_as_many_levels_as_allowed_are_all_kept():
    frame = pd.DataFrame({"town": np.repeat(["a", "b", "c", "d"], 10)})
    assert len(coded(frame, max_levels=4).names) == 4


@given(seed=integers(0, 999))
@examples(15)
def test_judged_rows_change_nothing_that_is_fitted(seed):
    """Everything in the evaluation rows is replaced, types included; encoder and fitted batches
    stay as they are.
    """
    frame = (
        mixed(240, seed).assign(site=["a", "b", "c"] * 80, y=[0, 1] * 120).astype({"full": object})
    )
    changed = frame.copy()
    judged = frame.site == "c"
    changed.loc[judged, "full"] = "not a number"
    changed.loc[judged, "gaps"] = 1e9
    changed.loc[judged, "colour"] = "violet"
    changed.loc[judged, "town"] = "t8"
    a, b = (
        Table(f, "y", site="site", held_out="c", groups=("gaps:quartiles",)).prepare(Lab())
        for f in (frame, changed)
    )
    assert a.encoder == b.encoder
    assert a.groups == b.groups
    for split in ("train", "select", "seen"):
        assert (a.as_numpy(split)[0] == b.as_numpy(split)[0]).all()
    assert any("`full`" in sentence and "not a number" in sentence for sentence in b.warnings)


def test_selecting_rows_are_not_fitted_either():
    frame = mixed(240, 0).assign(y=[0, 1] * 120)
    a = Table(frame, "y").prepare(Lab())
    changed = frame.copy()
    changed.loc[np.concatenate([a.rows["select"], a.rows["seen"]]), ["full", "gaps"]] = 1e6
    assert Table(changed, "y").prepare(Lab()).encoder == a.encoder


@pytest.mark.parametrize("word", ["?", "NA", "", "N/A", "nan", None, " "])
def test_words_for_missing(word):
    frame = pd.DataFrame({"a": ["1", word, "3", "5", "1"], "b": ["x", word, "y", "x", "y"]})
    encoder = coded(frame, min_count=1)
    assert encoder.names == ["a", "a is missing", "b = x", "b = y", "b is missing"]
    assert encoder.transform(tidy(frame))[1].tolist()[1:] == [1, 0, 0, 1]
    assert any("20.0% missing" in sentence for sentence in encoder.decisions)


def test_none_is_a_level_among_words_and_missing_among_numbers():
    frame = pd.DataFrame({"a": ["1", "None", "3", "5", "1"], "b": ["x", "None", "y", "x", "y"]})
    assert coded(frame, min_count=1).names == ["a", "a is missing", "b = None", "b = x", "b = y"]


@pytest.mark.parametrize(
    ("words", "kind", "first"),
    [
        (["1", "2.5", "-3e2"], Kind.NUMBER, 1),
        (["1,5", "2", "3,25"], Kind.DECIMAL_COMMA, 1.5),
        (["1,500", "20", "3,000,000"], Kind.THOUSANDS, 1500),
        (["yes", "no", "no"], Kind.TRUTH, 1),
        (["TRUE", "FALSE", "TRUE"], Kind.TRUTH, 1),
        (["1970-01-03", "2001-02-03", "1999-12-31"], Kind.DATE, 2),
        (["03.01.1970", "31.02.2001".replace("31.02", "28.02"), "31.12.1999"], Kind.DATE, 2),
        (["1/3/1970", "12/31/1999", "2/2/2002"], Kind.DATE, 2),
        (["250.83", "V45", "E885"], Kind.CATEGORY, None),
        (["[70-80)", "[80-90)", "[0-10)"], Kind.CATEGORY, None),
    ],
)
def test_how_words_are_read(words, kind, first):
    frame = tidy(pd.DataFrame({"a": words * 3}))
    assert format_of(frame["a"]).kind is kind
    if first is not None:
        code = fit_encoder(frame, ["a"]).codes[0]
        assert code.encode(frame["a"])[0, 0] * code.scale + code.centre == pytest.approx(first)


def test_types_of_a_data_frame():
    n = 40
    frame = pd.DataFrame(
        {
            "flag": pd.array([True, None] * 20, dtype="boolean"),
            "whole": pd.array([1, 2, None, 4] * 10, dtype="Int64"),
            "when": pd.date_range("2020-01-01", periods=n, tz="Europe/Zurich"),
            "span": pd.to_timedelta(np.arange(n) % 7, unit="h"),
            "level": pd.Categorical(["a", "b"] * 20),
            "lists": [[1, 2], [3]] * 20,
            "days": [date(2020, 1, 1), date(2021, 3, 1)] * 20,
            "exact": [Decimal("1.5"), Decimal("2.5")] * 20,
        }
    )
    encoder = coded(frame)
    # every present flag is true: only whether it is missing differs
    assert encoder.names[encoder.blocks["flag"]] == ["flag is missing"]
    assert set(encoder.blocks) == {
        "flag",
        "whole",
        "when",
        "span",
        "level",
        "lists",
        "days",
        "exact",
    }
    assert encoder.names[encoder.blocks["days"]] == ["days"]
    assert encoder.names[encoder.blocks["exact"]] == ["exact"]
    assert np.isfinite(encoder.transform(tidy(frame))).all()


def test_what_is_dropped_is_said():
    n = 60
    frame = pd.DataFrame(
        {
            "patient_id": np.random.default_rng(0).permutation(n) + 1_000,
            "line": np.arange(n),
            "note": [f"text {k}" for k in range(n)],
            "hospital": "only one",
            "one": 1.0,
            "void": np.nan,
            "rare": [f"r{k // 2}" for k in range(n)],
            "age": np.random.default_rng(1).permutation(n),
            "grid": np.arange(n) % 4,
        }
    )
    encoder = coded(frame)
    assert encoder.names == ["age", "grid"]
    said = " ".join(encoder.decisions)
    for name in ("patient_id", "line", "note", "hospital", "one", "void", "rare"):
        assert f"Column `{name}` was dropped" in said


def test_a_constant_with_gaps_keeps_only_the_gaps():
    frame = pd.DataFrame({"a": [3.0, np.nan, 3.0, np.nan]})
    assert coded(frame).names == ["a is missing"]


def test_blocks_and_origin_name_the_users_columns():
    encoder = coded(mixed(100, 0))
    x = encoder.transform(tidy(mixed(100, 0)))
    assert x.shape == (100, len(encoder.names)) == (100, len(encoder.origin))
    for name, block in encoder.blocks.items():
        assert set(encoder.origin[block]) == {name}
    assert encoder.names[encoder.blocks["gaps"]] == ["gaps", "gaps is missing"]


def sugar(word: str) -> pd.DataFrame:
    """Whole numbers, and nine cells of one word."""
    rng = np.random.default_rng(0)
    values = [str(k) for k in rng.integers(80, 200, 300)]
    values[:9] = [word] * 9
    return pd.DataFrame({"sugar": values, "x": rng.normal(size=300), "y": rng.integers(0, 2, 300)})


def test_numbers_spoiled_by_texts_are_a_warning():
    made = Table(sugar("too high"), "y").prepare(Lab())
    assert any("`sugar`" in sentence and "too high" in sentence for sentence in made.warnings)


def test_limits_among_numbers_are_numbers_and_it_is_said():
    made = Table(sugar(">200"), "y").prepare(Lab())
    assert made.encoder.names == ["sugar", "x"]
    assert any("9 of 300 cells" in sentence and "“>200”" in sentence for sentence in made.decisions)


@pytest.mark.parametrize(
    ("known", "names"), [(4, ["rare is missing"]), (5, ["rare", "rare is missing"])]
)
def test_values_that_few_training_rows_have_are_no_input(known: int, names: list[str]) -> None:
    """Their deviation among filled cells would be near 0, and a site that records the column lie
    far outside.
    """
    rare = np.full(100, np.nan)
    rare[:known] = np.arange(known)
    frame = tidy(pd.DataFrame({"rare": rare, "other": np.linspace(0, 1, 100)}))
    encoder = fit_encoder(frame, ["rare", "other"])
    assert encoder.names == [*names, "other"]
    if known == 4:
        (said,) = [text for text in encoder.decisions if "`rare`" in text]
        assert "only whether there is one is used" in said
        new = tidy(pd.DataFrame({"rare": [3.0, np.nan], "other": [0.5, 0.5]}))
        assert encoder.transform(new)[:, 0].tolist() == [0.0, 1.0]
