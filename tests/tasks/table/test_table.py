"""Tables as tasks: every bad input has its three lines; nothing evaluated reaches the encoder;
splits keep their promises.
"""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, sampled_from
from properties import examples

from unseen.engine.batches import whole
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName, UnseenError
from unseen.lab import Lab
from unseen.task import Axis, Use
from unseen.tasks.table import Table, clinics, example, leave_one_out
from unseen.tasks.table.reading import read
from unseen.tasks.table.splitting import Shares

LAB = Lab(seed=3)


def refused(kind: type[UnseenError], call) -> str:
    """The error's text, after its three lines were found to be there."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert error.what
    assert error.why
    assert error.fix
    assert len(str(error).splitlines()) == 3
    return str(error)


def written(tmp_path, text: str | bytes, name: str = "t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def visits(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return pd.DataFrame(
        {
            "x": x,
            "colour": rng.choice(["red", "green", "blue"], n),
            "place": rng.choice(["a", "b", "c"], n),
            "person": [f"p{k}" for k in rng.integers(0, n, n)],
            "day": rng.permutation(n),
            "y": (x + rng.normal(size=n) > 0).astype(int),
        }
    )


# bad files


def test_a_missing_file_names_tables_nearby(tmp_path):
    written(tmp_path, "a,b\n1,2\n", "other.csv")
    assert "other.csv" in refused(MissingFile, lambda: read(tmp_path / "t.csv"))
    assert "folder" in refused(MissingFile, lambda: read(tmp_path))


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path, text):
    assert "is empty" in refused(InvalidData, lambda: read(written(tmp_path, text)))


@pytest.mark.parametrize(("text", "rows"), [("a,b\n", "0 rows"), ("a,b\n1,2\n", "1 row ")])
def test_a_file_with_less_than_two_rows_is_refused(tmp_path, text, rows):
    assert rows in refused(InvalidData, lambda: read(written(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b\n1,2\n3,4,5\n6,7\n", "Line 3"),
        ("a,b\n1,2\n3\n6,7\n", "Line 3"),
        ("a,b\n1,2,3\n3,4,5\n", "Line 2"),  # pandas would take the first column for an index
        ('a,b\n"1\n1",2\n3,4\n5,6,7\n', "Line 5"),  # a quoted line break counts
    ],
)
def test_a_ragged_line_is_named(tmp_path, text, line):
    assert line in refused(InvalidData, lambda: read(written(tmp_path, text)))


def test_an_open_quote_is_refused_and_long_fields_are_read(tmp_path):
    assert "quote" in refused(InvalidData, lambda: read(written(tmp_path, 'a,b\n1,2\n3,"4\n5,6\n')))
    note = "word " * 40_000
    assert len(read(written(tmp_path, f"a,b\n1,{note}\n2,y\n"))["b"][0]) == len(note.strip())


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\0\0", b"PK\x03\x04abc", b"a,b\n\x00\x01,2\n", b"PAR1abcdef"]
)
def test_a_binary_file_named_csv_is_refused(tmp_path, content):
    assert "binary" in refused(InvalidData, lambda: read(written(tmp_path, content)))


def test_another_encoding_is_named_and_can_be_given(tmp_path):
    path = written(tmp_path, "name,b\nZoë,1\nMüller,2\n".encode("latin1"))
    assert "UTF-8" in refused(InvalidData, lambda: read(path))
    assert read(path, "latin1")["name"].tolist() == ["Zoë", "Müller"]


def test_duplicate_columns_are_refused(tmp_path):
    assert "`a`" in refused(InvalidData, lambda: read(written(tmp_path, "a,b,a\n1,2,3\n1,2,3\n")))
    twice = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    assert "`a`" in refused(InvalidData, lambda: Table(twice, "a").build(LAB))


def test_a_file_without_header_is_refused(tmp_path):
    assert "not column names" in refused(
        InvalidData, lambda: read(written(tmp_path, "63.0,1.0\n67,2\n3,4\n"))
    )


def test_a_broken_parquet_file_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    assert "Parquet" in refused(
        InvalidData, lambda: read(written(tmp_path, b"PAR1 no", "t.parquet"))
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_byte_order_mark_blanks_and_gzip(tmp_path, delimiter):
    text = "\ufeff a ,b\n1, x \n\n2,y\n".replace(",", delimiter)
    expected = [["1", "x"], ["2", "y"]]
    assert read(written(tmp_path, text)).values.tolist() == expected
    packed = written(tmp_path, gzip.compress(text.encode()), "t.csv.gz")
    assert read(packed).values.tolist() == expected
    assert list(read(packed).columns) == ["a", "b"]


def test_parquet_and_csv_give_the_same_batches(tmp_path):
    pytest.importorskip("pyarrow")
    visits().to_parquet(tmp_path / "t.parquet")
    visits().to_csv(tmp_path / "t.csv", index=False)
    a, b = (
        whole(Table(tmp_path / name, "y", site="place").build(LAB).splits["unseen"].data, LAB)
        for name in ("t.parquet", "t.csv")
    )
    for key in a:
        torch.testing.assert_close(a[key], b[key])


# bad columns


@pytest.mark.parametrize("role", ["target", "site", "time", "entity", "drop", "groups"])
def test_an_unknown_column_names_near_ones(role):
    roles = {"target": "y", role: ("colur",) if role in ("drop", "groups") else "colur"}
    assert "colour" in refused(UnknownName, lambda: Table(visits(), **roles).build(LAB))


def test_a_target_with_one_class_is_refused():
    assert "`y` is `1`" in refused(InvalidData, lambda: Table(visits().assign(y=1), "y").build(LAB))


def test_a_target_with_one_class_where_fitted_is_refused():
    frame = visits()
    frame["y"] = (frame.place == "c").astype(int)
    assert "training rows" in refused(
        InvalidData, lambda: Table(frame, "y", site="place", held_out="c").build(LAB)
    )


def test_a_target_that_names_rows_is_refused():
    frame = visits().assign(y=[f"text {k}" for k in range(200)])
    assert "200 classes" in refused(InvalidData, lambda: Table(frame, "y").build(LAB))


def test_rows_without_target_are_dropped_and_counted_and_all_missing_is_refused():
    frame = visits().astype({"y": object})
    frame.loc[[3, 7], "y"] = ["", "?"]
    made = Table(frame, "y").prepare(LAB)
    assert any("2 of 200 rows have no target (`y`)" in sentence for sentence in made.decisions)
    assert not {3, 7} & {int(k) for rows in made.rows.values() for k in rows}
    assert "empty in all" in refused(
        InvalidData, lambda: Table(frame.assign(y=None), "y").build(LAB)
    )


def test_a_site_with_one_row_is_left_out_and_named():
    frame = visits()
    frame.loc[0, "place"] = "tiny"
    made = Table(frame, "y", site="place").prepare(LAB)
    assert made.sites == ("a", "b", "c")
    assert not any(0 in rows for rows in made.rows.values())
    assert any("`tiny`" in sentence and "left out" in sentence for sentence in made.decisions)


def test_one_site_and_unknown_site_are_refused():
    assert "one site" in refused(
        InvalidData, lambda: Table(visits().assign(place="a"), "y", site="place").build(LAB)
    )
    assert "`z`" in refused(
        UnknownName, lambda: Table(visits(), "y", site="place", held_out="z").build(LAB)
    )
    assert "site" in refused(InvalidData, lambda: leave_one_out(Table(visits(), "y"), LAB))


def test_a_label_constant_inside_a_site_is_a_warning_that_names_it():
    frame = visits()
    frame.loc[frame.place == "b", "y"] = 1
    made = Table(frame, "y", site="place").prepare(LAB)
    assert any("`b`" in sentence and "`1`" in sentence for sentence in made.warnings)


@pytest.mark.parametrize("value", [np.inf, -np.inf, "inf"])
@pytest.mark.parametrize("row", [0, 199])
def test_infinite_features_name_column_and_row(value, row):
    frame = visits().astype({"x": object})
    frame.loc[row, "x"] = value
    text = refused(InvalidData, lambda: Table(frame, "y").build(LAB))
    assert "`x`" in text
    assert f"row {row}" in text


def test_unsortable_and_constant_time_are_refused():
    assert "`colour` cannot be sorted" in refused(
        InvalidData, lambda: Table(visits(), "y", time="colour").build(LAB)
    )
    assert "one value" in refused(
        InvalidData, lambda: Table(visits().assign(day=1), "y", time="day").build(LAB)
    )


def test_no_usable_feature_is_refused():
    frame = visits()[["y", "person"]].assign(one=1)
    frame["person"] = range(200)
    assert "None of the 2" in refused(InvalidData, lambda: Table(frame, "y").build(LAB))


def test_bad_bands_and_shares_are_refused():
    assert "bands" in refused(
        InvalidConfig, lambda: Table(visits(), "y", groups=("x:foo",)).build(LAB)
    )
    assert "words" in refused(
        InvalidConfig, lambda: Table(visits(), "y", groups=("colour:decade",)).build(LAB)
    )
    assert "shares" in refused(InvalidConfig, lambda: Shares(select=0.5, seen=0.5))


# splits


def test_leave_one_out_positions_and_uses():
    made = leave_one_out(Table(visits(), "y", site="place"), LAB)
    assert [each.held_out for each in made] == ["a", "b", "c"]
    for each in made:
        assert each.task.axis is Axis.SITE
        assert list(each.task.unseen) == ["unseen"]
        assert {name: split.use for name, split in each.task.splits.items()} == {
            "train": Use.TRAIN,
            "select": Use.SELECT,
            "seen": Use.EVALUATE,
            "unseen": Use.EVALUATE,
        }
        assert set(each.frame.place.iloc[each.rows["unseen"]]) == {each.held_out}
        assert sum(rows.size for rows in each.rows.values()) == 200
        for name in ("train", "select", "seen"):
            assert each.held_out not in set(each.frame.place.iloc[each.rows[name]])


@given(
    seed=integers(0, 999),
    place=sampled_from([None, "place"]),
    day=sampled_from([None, "day"]),
    n=integers(100, 200),
)
@examples(25)
def test_splits_are_disjoint_by_row_and_person_and_in_order_of_time(seed, place, day, n):
    made = Table(visits(n, seed), "y", site=place, time=day, entity="person").prepare(LAB)
    frame = made.frame
    people = {name: set(frame.person.iloc[rows]) for name, rows in made.rows.items()}
    pairs = [(a, b) for a in people for b in people if a < b and {a, b} != {"later", "unseen"}]
    for a, b in pairs:
        assert not people[a] & people[b]
    every = np.concatenate(list(made.rows.values()))
    assert every.size == np.unique(every).size
    if day:
        before = max(frame.day.iloc[made.rows[name]].max() for name in ("train", "select", "seen"))
        after = [
            frame.day.iloc[made.rows[name]].min()
            for name in ("unseen", "later")
            if name in made.rows
        ]
        assert before < min(after)


def test_rows_of_one_day_stay_together_and_the_future_is_unseen():
    frame = visits().assign(
        day=lambda f: pd.to_datetime("2020-01-01") + pd.to_timedelta(f.day // 50, "D")
    )
    made = Table(frame, "y", time="day", shares=Shares(later=0.3)).prepare(LAB)
    assert list(made.task.unseen) == ["unseen"]
    assert made.task.axis is Axis.TIME
    assert made.rows["unseen"].size == 50
    assert any("2020-01-03" in sentence for sentence in made.decisions)


def test_without_site_and_time_only_random_rows_are_judged_and_it_is_said():
    made = Table(visits(), "y").prepare(LAB)
    assert made.task.axis is Axis.IID
    assert not made.task.unseen
    assert any("only random rows" in sentence for sentence in made.decisions)


def test_random_parts_keep_their_shares_within_site_and_class():
    made = Table(visits(1_000), "y", site="place", held_out="c").prepare(LAB)
    cell = made.frame.place + made.frame.y.astype(str)
    of_all = cell[made.frame.place != "c"].value_counts()
    assert ((cell.iloc[made.rows["seen"]].value_counts() - 0.2 * of_all).abs() <= 1).all()


def test_the_same_lab_gives_the_same_rows_and_another_seed_others():
    table = Table(visits(), "y")
    a, b, c = (table.prepare(lab).rows["train"].tolist() for lab in (LAB, LAB, Lab(seed=4)))
    assert a == b
    assert a != c


@pytest.mark.parametrize("day", [None, "day"])
def test_a_part_of_the_site_left_out_may_be_fitted(day):
    made = Table(
        visits(400), "y", site="place", time=day, entity="person", held_out="b", local=0.6
    ).prepare(LAB)
    frame, local, unseen = made.frame, made.rows["local"], made.rows["unseen"]
    assert made.task.splits["local"].use is Use.TRAIN
    assert set(frame.place.iloc[np.r_[local, unseen]]) == {"b"}
    assert not set(frame.person.iloc[local]) & set(frame.person.iloc[unseen])
    assert set(made.task.unseen) <= {"later"}
    if day:
        assert frame.day.iloc[local].max() < frame.day.iloc[unseen].min()
    else:
        assert local.size == pytest.approx(0.6 * (frame.place == "b").sum(), abs=15)
        alone = Table(visits(400), "y", site="place", held_out="b").prepare(LAB)
        assert "local" not in alone.rows
    with pytest.raises(InvalidConfig, match="local"):
        Table(visits(), "y", local=0.5)


# batches and the way back


def test_batches_lead_back_to_the_users_rows():
    made = Table(
        visits(), "y", site="place", groups=("colour", "x:quartiles", "x:-1,1"), entity="person"
    ).prepare(LAB)
    for name, split in made.task.splits.items():
        batch = whole(split.data, LAB)
        cells = made.frame.iloc[batch["index"].numpy()]
        assert batch["index"].tolist() == made.rows[name].tolist()
        assert batch["x"].dtype is torch.float32
        assert batch["y"].tolist() == cells.y.tolist()
        assert [made.sites[k] for k in batch["site"]] == cells.place.tolist()
        assert [made.groups["colour"][k] for k in batch["group:colour"]] == cells.colour.tolist()
        assert batch["group:x:-1,1"].tolist() == [
            0 if x < -1 else 1 if x < 1 else 2 for x in cells.x
        ]
        x, y = made.as_numpy(name)
        assert (x == batch["x"].numpy()).all()
        assert (y == batch["y"].numpy()).all()
    assert made.groups["x:-1,1"] == ("< -1", "-1 to < 1", "≥ 1")
    quarters = whole(made.task.splits["train"].data, LAB)["group:x:quartiles"].bincount()
    assert quarters.max() - quarters.min() <= 1


def test_decades_and_missing_values_form_groups():
    frame = visits().assign(age=[19, 20, 29, 30, None] * 40)
    made = Table(frame, "y", groups=("age:decade",)).prepare(LAB)
    assert made.groups["age:decade"] == ("< 20", "20 to < 30", "≥ 30", "missing")
    batch = whole(made.task.splits["train"].data, LAB)
    assert batch["group:age:decade"].tolist() == [
        [0, 1, 1, 2, 3][k % 5] for k in batch["index"].tolist()
    ]


def test_a_frame_with_any_index_gives_the_same_task():
    frame = visits()
    other = frame.set_axis([f"row {k}" for k in range(200)]).astype(
        {"colour": "category", "y": "Int64", "x": "float32"}
    )
    a, b = (
        whole(Table(f, "y", site="place").build(LAB).splits["train"].data, LAB)
        for f in (frame, other)
    )
    torch.testing.assert_close(a["x"], b["x"])


def test_a_table_is_a_value():
    assert Table("a.csv", "y") == Table("a.csv", "y")
    assert hash(Table(clinics, "ill")) == hash(Table(clinics, "ill"))
    assert Table(visits(), "y") != Table(visits(), "y")
    assert len({Table(visits(), "y")}) == 1


# targets


def test_the_kind_of_target_is_inferred_and_said():
    frame = visits()
    classes = Table(frame.assign(y=frame.y.map({0: "well", 1: "ill"})), "y").prepare(LAB)
    assert classes.target.classes == ("ill", "well")
    assert any("2 classes" in sentence for sentence in classes.decisions)
    ordered = Table(frame.assign(y=np.arange(200) % 3 * 5), "y").prepare(LAB)
    assert ordered.target.classes == ("0", "5", "10")
    number = Table(frame.assign(y=frame.x * 3 + 7), "y", drop=("x",)).prepare(LAB)
    assert number.target.outputs == 1
    assert any("regression" in sentence for sentence in number.decisions)


def test_a_number_is_scaled_by_its_fitted_rows():
    frame = visits().assign(y=lambda f: f.x * 3 + 7)
    made = Table(frame, "y", site="place").prepare(LAB)
    _, y = made.as_numpy("train")
    assert y.dtype == np.float32
    assert abs(y.mean()) < 1e-6
    assert abs(y.std() - 1) < 1e-6
    _, unseen = made.as_numpy("unseen")
    np.testing.assert_allclose(
        unseen * made.target.scale + made.target.centre,
        frame.y.iloc[made.rows["unseen"]],
        rtol=1e-5,
    )


def test_the_example_builds():
    task = example().build(LAB)
    assert len(task.splits["unseen"].data) > 50


def test_blocks_are_spans_of_time_and_no_feature():
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2019-12-30") + pd.to_timedelta(rng.integers(0, 70, 90), "D")
    frame = pd.DataFrame(
        {"when": days, "x": rng.normal(size=90), "y": np.arange(90) % 2, "house": rng.choice(9, 90)}
    )
    spans = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
    for span, form in spans.items():
        made = Table(frame, "y", block=f"when:{span}").prepare(LAB)
        names = sorted(set(days.strftime(form)))
        for name, rows in made.rows.items():
            codes = made.task.splits[name].data.columns["block"].tolist()
            assert [names[code] for code in codes] == days[rows].strftime(form).tolist()
        assert list(made.encoder.blocks) == ["x", "house"]
        assert any(f"the {len(names)} blocks anew" in said for said in made.decisions)
    weeks = Table(frame.assign(when=days.astype(str)), "y", block="when:week").prepare(LAB)
    split = weeks.task.splits["train"].data.columns["block"]
    in_weeks = days.to_numpy().astype("datetime64[W]")[weeks.rows["train"]]
    assert [int(code) for code in split] == np.searchsorted(
        np.unique(days.to_numpy().astype("datetime64[W]")), in_weeks
    ).tolist()
    houses = Table(frame, "y", block="house").prepare(LAB)
    assert list(houses.encoder.blocks) == ["when", "x"]
    assert "unknown bands `month`" in refused(
        InvalidConfig, lambda: Table(frame, "y", block="x:month").build(LAB)
    )
    assert "`hous`" in refused(UnknownName, lambda: Table(frame, "y", block="hous").build(LAB))
