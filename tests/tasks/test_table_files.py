"""Tables as people have them: each kind of file, column and site is read rightly and said, or
refused in three lines that name what to correct.

All files are small and made up here.
"""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.errors import InvalidConfig, InvalidData, UnknownName, UnseenError
from unseen.lab import Lab
from unseen.subjects.tables import TableColumns, is_table, largest_sites, table_name
from unseen.tasks.table import Table, Tabular, parse_table
from unseen.tasks.table.cells import Kind, format_of, numbers
from unseen.tasks.table.encoding import mean_and_deviation, tidy
from unseen.tasks.table.reading import read, read_table

LAB = Lab(seed=1)
N = 96


def visits() -> pd.DataFrame:
    """Visits to three wards, every cell as a text."""
    rng = np.random.default_rng(0)
    dose = rng.uniform(1, 9, N).round(2)
    return pd.DataFrame(
        {
            "ward": np.resize(["North", "South", "West"], N),
            "age": rng.integers(20, 90, N).astype(str),
            "dose": [f"{x:.2f}" for x in dose],
            "kind": rng.choice(["a", "b"], N),
            "ill": (dose + rng.normal(0, 2, N) > 5).astype(int).astype(str),
        }
    )


def text(frame: pd.DataFrame, separator: str = ",") -> str:
    return frame.to_csv(index=False, sep=separator)


@pytest.fixture
def write(tmp_path) -> Callable[[str | bytes, str], Path]:
    def to_file(content: str | bytes, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


def prepare(data: Path | pd.DataFrame, **options) -> Tabular:
    return Table(data, **{"target": "ill", "site": "ward", **options}).prepare(LAB)


def refusal(kind: type[UnseenError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) == 3, text
    return text


def said(made: Tabular, *parts: str) -> bool:
    """Whether one sentence of the report holds all parts."""
    return any(all(part in line for part in parts) for line in (*made.decisions, *made.warnings))


def values(cells: Sequence[object]) -> list[float]:
    """What the cells of a column are read as."""
    column = tidy(pd.DataFrame({"x": list(cells)}))["x"]
    return numbers(column, format_of(column)).tolist()


def kind(cells: Sequence[object]) -> Kind:
    return format_of(tidy(pd.DataFrame({"x": list(cells)}))["x"]).kind


# files


@pytest.mark.parametrize(
    ("name", "separator", "is_packed"),
    [
        ("t.csv.gz", ",", True),
        ("t.tsv.gz", "\t", True),
        ("t.csv", ",", True),  # gzip that lost its suffix
        ("t.tsv", "\t", False),
        ("t.txt", " ", False),
        ("t.data", ",", False),
        ("t.dat", ";", False),
        ("t.measured", "|", False),
    ],
)
def test_every_suffix_and_separator_gives_the_same_rows(write, name, separator, is_packed):
    content = text(visits(), separator).encode()
    path = write(gzip.compress(content) if is_packed else content, name)
    assert is_table(path)
    assert read(path).equals(read(write(text(visits()), "plain.csv")))


def test_names_of_tables_need_no_file_and_python_files_are_none(write):
    assert is_table("nowhere.csv.gz")
    assert is_table("nowhere.txt")
    assert not is_table("nowhere.xyz")
    assert not is_table(write("subject = 1", "mine.py"))
    assert not is_table("mine.py:subject")
    assert table_name("folder/visits.csv.gz") == "visits"


@pytest.mark.parametrize("name", ["audit", "compare", "explain", "influence"])
def test_the_four_questions_read_packed_tables_in_their_encoding(write, name):
    frame = visits().replace({"kind": {"a": "Müller"}})
    path = write(gzip.compress(text(frame).encode("latin-1")), "t.csv.gz")
    ask = getattr(unseen, name)
    message = refusal(InvalidData, lambda: ask(path, target="ill", site="ward", progress=False))
    assert 'encoding="latin-1"' in message
    # the encoding is taken, and the next thing that is wrong is found
    with pytest.raises(UnknownName):
        ask(path, target="il", site="ward", encoding="latin-1", progress=False)


def test_latin_letters_are_proposed_by_line_and_name(write):
    frame = visits().replace({"kind": {"a": "Zoë"}})
    at = int(np.flatnonzero(frame["kind"] == "Zoë")[0])
    path = write(text(frame).encode("latin-1"))
    message = refusal(InvalidData, lambda: read(path))
    assert f"line {at + 2}" in message
    assert "0xeb" in message
    assert 'encoding="latin-1"' in message
    assert "Zoë" in message
    assert set(read(path, "latin-1")["kind"]) == {"Zoë", "b"}


def test_letters_of_windows_are_proposed_as_such(write):
    path = write(text(visits().replace({"kind": {"a": "“a”"}})).encode("cp1252"))
    assert 'encoding="cp1252"' in refusal(InvalidData, lambda: read(path))


def test_encodings_are_checked_and_marked_ones_need_no_name(write):
    frame = visits().replace({"kind": {"a": "Müller"}})
    assert "Müller" in set(read(write(text(frame).encode("utf-16")))["kind"])
    bare = write(text(frame).encode("utf-16-le"))
    assert 'encoding="utf-16-le"' in refusal(InvalidData, lambda: read(bare))
    assert "Müller" in set(read(bare, "utf-16-le")["kind"])
    assert "nonsense" in refusal(InvalidConfig, lambda: read(bare, "nonsense"))
    columns = TableColumns(target="ill", encoding="latin-1")
    assert "no text" in refusal(InvalidConfig, lambda: columns.table(visits()))


@pytest.mark.parametrize(
    ("before", "count", "example"),
    [
        ("# exported by device 3\n# 2024-02-01\n", "2 lines were", "# exported by device 3"),
        ("Ward report 2024\n\n", "1 line was", "Ward report 2024"),
        ("Ward report 2024,,,,\n", "1 line was", "Ward report 2024"),
        ("Clinic,Basel\nSince,2019\n", "2 lines were", "Clinic,Basel"),
        ("# a, comment, with, five, fields\n", "1 line was", "# a"),
    ],
)
def test_titles_and_comments_above_the_header_are_skipped_and_said(write, before, count, example):
    made = read_table(write(before + text(visits())))
    assert made.frame.equals(read(write(text(visits()), "plain.csv")))
    assert len(made.notes) == 1
    assert count in made.notes[0]
    assert example in made.notes[0]


def test_a_header_may_begin_with_a_number_sign(write):
    assert list(read(write("#id,age,ill\n1,30,0\n2,40,1\n")).columns) == ["#id", "age", "ill"]


def test_separators_at_the_end_of_lines_are_left_out_and_said(write):
    lines = text(visits()).splitlines()
    plain = read(write("\n".join(lines)))
    rows_only = read_table(write("\n".join([lines[0], *(f"{line}," for line in lines[1:])])))
    everywhere = read_table(write("\n".join(f"{line}," for line in lines)))
    assert rows_only.frame.equals(plain)
    assert everywhere.frame.equals(plain)
    assert f"{N} rows end in a separator" in rows_only.notes[0]
    assert "1 column without name" in everywhere.notes[0]


def test_a_field_too_many_names_its_line_and_shows_it(write):
    lines = text(visits()).splitlines()
    lines[7] += ",extra"
    message = refusal(InvalidData, lambda: read(write("\n".join(lines))))
    assert "Line 8" in message
    assert "extra" in message


def test_a_table_without_header_is_recognized(write):
    path = write("\n".join(text(visits()).splitlines()[1:]))
    assert "no header" in refusal(UnknownName, lambda: prepare(path))


def test_a_damaged_gzip_file_is_refused(write):
    packed = gzip.compress(text(visits()).encode())
    for content in (packed[: len(packed) // 2], b"\x1f\x8b" + b"no gzip" * 9):
        refusal(InvalidData, lambda content=content: read(write(content, "t.csv.gz")))


def test_a_site_may_be_the_index_of_a_parquet_file_or_data_frame(tmp_path):
    pytest.importorskip("pyarrow")
    frame = visits().set_index("ward")
    frame.to_parquet(tmp_path / "t.parquet")
    for data in (tmp_path / "t.parquet", frame):
        made = prepare(data)
        assert made.sites == ("North", "South", "West")
        assert "ward" not in made.encoder.origin
    # without a role it stays an index, not a feature
    assert "ward" not in prepare(frame, site=None).encoder.origin


# numbers


@pytest.mark.parametrize(
    ("cells", "first"),
    [
        (["39,384", "31119", "50092"], 39384),
        (["1,234,567", "12"], 1234567),
        (["1.234,56", "17,5", "1.000.000"], 1234.56),
        (["1,5", "2.25", "3"], 1.5),
        (["0,298", "0.298", "1.5"], 0.298),
        (["1'234.5", "17"], 1234.5),
        (["1 234", "17"], 1234),
        (["1\u202f234,5", "17,25"], 1234.5),
        (["91.3%", "12 %", "5.0%"], 91.3),
        (["$1,234.50", "$7.00", "-$3"], 1234.5),
        (["12.50 €", "7 €"], 12.5),
        (["CHF 12.50", "CHF 7"], 12.5),
        (["34 min", "7 min"], 34),
        (["12mg", "7.5mg"], 12),
        (["<0.01", "0.5", "17"], 0.01),
        (["> 200", "180", "195"], 200),
        (["≤5 mg", "8 mg", "9 mg"], 5),
        (["−4.5", "3"], -4.5),
        (["1e3", "2.5E-2"], 1000),
    ],
)
def test_numbers_as_people_write_them(cells, first):
    assert values(cells)[0] == pytest.approx(first)


@pytest.mark.parametrize(
    "cells",
    [
        ["grade 1", "grade 2", "grade 3"],
        ["E11", "V45", "250.83"],
        ["1a", "2a", "3b"],
        ["34 min", "2 h", "7 min"],  # two units have no common scale
        ["<30", ">30", "NO"],
        ["<=50K", ">50K"],
        ["[70-80)", "[80-90)"],
        ["20-39", "40-59", "60"],
        ["1,5", "1,500,000"],
        ["192.168.1.1", "10.0.0.1"],
        ["12,34,56", "7"],
        ["1_000", "20"],
    ],
)
def test_words_with_digits_are_no_numbers(cells):
    assert kind(cells) is Kind.CATEGORY


def test_each_conversion_is_said_once_with_count_and_example():
    frame = visits()
    frame["income"] = [f"{900 + 37 * k:,}" for k in range(N)]
    frame["cost"] = [f"${10 + k}.50" for k in range(N)]
    frame["sat"] = [f"{80 + k % 17}.5%" for k in range(N)]
    frame["trop"] = ["<0.01" if k % 4 == 0 else f"{k % 9}.5" for k in range(N)]
    made = prepare(frame)
    assert {"income", "cost", "sat", "trop"} <= set(made.encoder.names)
    assert said(made, "`income`", "“1,011” (row 3) is 1011", f"93 of {N} cells")
    assert said(made, "`cost`", "“$”", "“$10.50” (row 0) is 10.5")
    assert said(made, "`sat`", "“%”", f"{N} of {N} cells")
    assert said(made, "`trop`", "24 of 96 cells are limits", "“<0.01” (row 0) is 0.01")
    for name in ("cost", "sat", "trop"):
        assert sum(f"`{name}`" in line for line in made.decisions) == 1


def test_thousands_beside_plain_numbers_are_a_doubt_that_is_said():
    made = prepare(visits().assign(votes=["39,384", *(str(5_000 + 577 * k) for k in range(N - 1))]))
    assert any("`votes`" in line and "39384" in line for line in made.warnings)
    certain = prepare(visits().assign(votes=["1,039,384", *map(str, range(5_000, 4_999 + N))]))
    assert not any("`votes`: “" in line for line in certain.warnings)


def test_points_beside_decimal_commas_are_a_doubt_that_is_said():
    frame = visits().assign(
        weight=[f"{k % 60 + 40},5" for k in range(N)], cost=[f"{k % 70 + 1}.250" for k in range(N)]
    )
    assert any("`cost`" in line and "thousands" in line for line in prepare(frame).warnings)
    assert not any("`cost`" in line for line in prepare(frame.drop(columns="weight")).warnings)


def test_a_way_of_writing_that_only_the_held_out_site_has_is_understood():
    frame = visits()
    inside = frame["ward"] == "West"
    frame.loc[inside, "dose"] = frame.loc[inside, "dose"].str.replace(".", ",")
    made, plain = prepare(frame, held_out="West"), prepare(visits(), held_out="West")
    np.testing.assert_array_equal(made.as_numpy("unseen")[0], plain.as_numpy("unseen")[0])


def test_a_unit_that_some_cells_lack_is_said():
    made = prepare(visits().assign(wait=[f"{k % 50}" + " min" * (k > 9) for k in range(N)]))
    assert any("`wait`" in line and "10 cells without unit" in line for line in made.warnings)


def test_single_mistakes_among_numbers_count_as_missing_and_are_named():
    dose = visits()["dose"].copy()
    dose[17] = "hemolyzed"
    made = prepare(visits().assign(dose=dose).pipe(lambda f: pd.concat([f] * 2)))
    assert "dose" in made.encoder.names
    assert any("`dose`" in line and "“hemolyzed”, row 17" in line for line in made.warnings)


def test_sentinels_are_missing_values_and_are_said():
    dose = visits()["dose"].copy()
    dose[[3, 5]] = "-999"
    made = prepare(visits().assign(dose=dose))
    assert "dose is missing" in made.encoder.names
    assert said(made, "`dose` is -999", "2 of 96 cells", "row 3", "missing")


def test_negative_numbers_are_no_sentinels_where_others_are_as_low():
    cold = [f"{-130 + 2 * k}" for k in range(N - 1)]
    made = prepare(visits().assign(cold=["-99", *cold]))
    assert not said(made, "`cold` is -99")
    assert "cold is missing" not in made.encoder.names


def test_a_sentinel_above_all_others_is_asked_about():
    made = prepare(visits().assign(score=["999", "999", *(str(k % 40) for k in range(N - 2))]))
    assert any("`score` is 999 in 2 cells" in line for line in made.warnings)
    assert "score is missing" not in made.encoder.names


def test_largest_numbers_stand_for_none_and_huge_ones_are_scaled():
    frame = visits().assign(
        mark=["1.7976931348623157e308", *(str(k % 40) for k in range(N - 1))],
        huge=[f"{1 + k % 17}e306" for k in range(N)],
        tiny=[f"{1 + k % 17}e-300" for k in range(N)],
    )
    made = prepare(frame)
    assert said(made, "`mark`", "row 0", "missing")
    x, _ = made.as_numpy("train")
    assert np.isfinite(x).all()
    for name in ("huge", "tiny"):
        column = x[:, made.encoder.names.index(name)]
        assert column.std() == pytest.approx(1, abs=0.01)


def test_one_number_beyond_all_others_is_named():
    plain = prepare(visits())
    row = int(plain.rows["train"][0])
    frame = visits()
    frame.loc[row, "dose"] = "1e30"
    assert any(f"`dose` is 1e+30 in row {row}" in line for line in prepare(frame).warnings)
    row = int(plain.rows["unseen"][0])
    other = visits()
    other.loc[row, "dose"] = "1e300"
    assert f"row {row}" in refusal(InvalidData, lambda: prepare(other))


def test_a_target_beyond_all_others_is_refused_by_its_value():
    """Scaled by the training rows it leaves float32, which was reported as an infinite cell."""
    row = int(prepare(visits()).rows["unseen"][0])
    frame = visits()
    frame.loc[row, "dose"] = "1e300"
    said = refusal(InvalidData, lambda: prepare(frame, target="dose"))
    assert "`dose` is 1e+300" in said


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_numbers_that_overflow_when_summed_are_scaled_without_a_warning():
    mean, deviation = mean_and_deviation(np.tile([1e308, -1e308], 32))  # ∞ − ∞
    assert (mean, deviation) == (0.0, 1e308)


def test_infinite_cells_are_named():
    frame = visits().assign(dose=["inf", *visits()["dose"][1:]])
    assert "row 0" in refusal(InvalidData, lambda: prepare(frame))


def test_identifiers_without_a_telling_name_are_asked_about():
    rng = np.random.default_rng(0)
    made = prepare(visits().assign(nr=rng.choice(10**6, N, replace=False).astype(str)))
    assert any("`nr`" in line and "--drop nr" in line for line in made.warnings)
    assert "nr" in made.encoder.names
    padded = prepare(visits().assign(zip=[f"0{1000 + k % 30}" for k in range(N)]))
    assert any("`zip`" in line and "leading zero" in line for line in padded.warnings)


# dates


@pytest.mark.parametrize(
    ("cells", "second"),
    [
        (["2020-01-01T00:00:00Z", "2020-01-07T12:00:00Z"], 18268.5),
        (["2020-01-01T00:00:00+02:00", "2020-01-07T01:00:00+01:00"], 18268.0),
        (["2020-01-01 00:00:00.5", "2020-01-07 12:00:00"], 18268.5),
        (["31/12/2023 14:30", "07/01/2020 12:00"], 18268.5),
        (["31-Dec-2023", "07-Jan-2020"], 18268),
        (["31 December 2023", "07 January 2020"], 18268),
        (["December 31, 2023", "January 7, 2020"], 18268),
        (["12/31/2023 01:00:00 PM", "01/07/2020 12:00:00 PM"], 18268.5),
        (["31.12.2023", "07.01.2020"], 18268),
        (["31.12.23", "07.01.20"], 18268),
        (["2023Q4", "2020Q1"], 18262),
        (["Q4 2023", "Q1 2020"], 18262),
        (["2023-12", "2020-01"], 18262),
        (["Dec 2023", "Jan 2020"], 18262),
        (["31.12.2023", "2020-01-07"], 18268),
    ],
)
def test_dates_as_people_write_them(cells, second):
    assert kind(cells) is Kind.DATE
    assert values(cells)[1] == pytest.approx(second)
    assert values(cells)[0] > values(cells)[1] or "T" in cells[0] or ".5" in cells[0]


def dated(cells: Sequence[str]) -> pd.DataFrame:
    return visits().assign(when=list(cells))


def days(form: str) -> list[str]:
    return [moment.strftime(form) for moment in pd.date_range("2020-01-01", periods=N, freq="9D")]


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%dT%H:%M:%SZ", "%d/%m/%Y %H:%M", "%d-%b-%Y", "%m/%d/%Y %I:%M:%S %p", "%Y%m%d"],
)
def test_time_orders_rows_in_any_format(form):
    made = prepare(dated(days(form)), site=None, time="when")
    assert made.rows["unseen"].min() > made.rows["train"].max()


@pytest.mark.parametrize("cell", ["9999-12-31", "0000-00-00"])
def test_dates_that_stand_for_none_are_left_out_and_named(cell):
    made = prepare(dated(["2020-01-01", cell, *days("%Y-%m-%d")[2:]]), site=None, time="when")
    assert said(made, "1 of 96 rows have no time", f"row 1: “{cell}”")
    row = int(prepare(visits()).rows["train"][0])
    frame = dated(days("%Y-%m-%d"))
    frame.loc[row, "when"] = cell
    assert "when is missing" in prepare(frame).encoder.names


@pytest.mark.parametrize("cell", ["2020-02-31", "soon", "31.31.2020"])
def test_a_bad_date_names_column_and_row(cell):
    frame = dated(["2020-01-01", cell, *days("%Y-%m-%d")[2:]])
    message = refusal(InvalidData, lambda: prepare(frame, site=None, time="when"))
    assert "`when`" in message
    assert cell in message
    assert "row 1" in message


def test_day_and_month_in_doubt_are_asked_about_for_time_and_said_for_features():
    cells = [f"{k % 12 + 1:02}/{k % 7 + 1:02}/2020" for k in range(N)]
    message = refusal(InvalidData, lambda: prepare(dated(cells), site=None, time="when"))
    assert "%d/%m/%Y" in message
    assert any(
        "`when`" in line and "month and day" in line for line in prepare(dated(cells)).warnings
    )


# targets


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({0: "x"}, ["“x” in row 0", "1 such cell"]),
        ({5: "2"}, ["“2” in row 5"]),
        ({3: "unknown"}, ["“unknown” in row 3"]),
        ({3: "True", 4: "False"}, ["`True`", "`False`"]),
        ({3: "0.0"}, ["`0.0`"]),
    ],
)
def test_a_dirty_cell_in_a_target_of_0_and_1_is_named(change, named):
    ill = visits()["ill"].copy()
    for row, cell in change.items():
        ill[row] = cell
    message = refusal(InvalidData, lambda: prepare(visits().assign(ill=ill)))
    for part in named:
        assert part in message


def test_spellings_of_classes_are_asked_about():
    names = visits()["ill"].map({"0": "well", "1": "Ill"})
    names[names.index[names == "Ill"][0]] = "ill"
    message = refusal(InvalidData, lambda: prepare(visits().assign(ill=names)))
    assert "`Ill`" in message
    assert "`ill` (1)" in message


@pytest.mark.parametrize(
    ("cell", "named"), [("n/k", "“n/k” in row 4"), ("-999", "“-999” in row 4"), ("<1", "a limit")]
)
def test_a_dirty_cell_in_a_measured_target_is_named(cell, named):
    dose = visits()["dose"].copy()
    dose[4] = cell
    frame = visits().assign(dose=dose)
    assert named in refusal(InvalidData, lambda: prepare(frame, target="dose"))


def test_measured_targets_are_read_as_features_are():
    frame = visits().assign(cost=[f"${1_000 + 7 * k:,}.50" for k in range(N)])
    made = prepare(frame, target="cost")
    assert made.target.classes == ()
    _, y = made.as_numpy("unseen")
    cells = made.frame["cost"].iloc[made.rows["unseen"]]
    expected = [float(cell.replace("$", "").replace(",", "")) for cell in cells]
    np.testing.assert_allclose(y * made.target.scale + made.target.centre, expected, rtol=1e-5)


def test_few_numbers_with_decimal_commas_are_classes_in_their_order():
    made = prepare(visits().assign(ill=np.resize(["10,5", "2,5"], N)))
    assert made.target.classes == ("2,5", "10,5")


# sites


def with_site(rows: dict[int, str]) -> pd.DataFrame:
    frame = visits()
    for row, name in rows.items():
        frame.loc[row, "ward"] = name
    return frame


def test_a_site_of_one_row_is_left_out_and_one_of_two_is_not_held_out():
    sheet = parse_table(Table(with_site({0: "Solo", 3: "Duo", 6: "Duo"}), "ill", site="ward"))
    assert largest_sites(sheet)[0] == ["North", "South", "West"]
    assert "Duo" in sheet.sites
    assert "Solo" not in sheet.sites
    assert any("`Solo`" in line for line in sheet.conversions)
    assert any("`Duo` (2 rows)" in line for line in sheet.warnings)


def test_a_site_of_one_class_is_not_held_out_but_trained_on():
    frame = visits()
    frame.loc[frame["ward"] == "West", "ill"] = "0"
    sheet = parse_table(Table(frame, "ill", site="ward"))
    assert largest_sites(sheet)[0] == ["North", "South"]
    assert any("`West`" in line and "32 of 32" in line for line in sheet.warnings)
    made = prepare(frame, held_out="North")
    assert "West" in set(made.frame["ward"].iloc[made.rows["train"]])


def test_many_sites_are_not_refused_for_the_smallest():
    names = [f"S{k // 6:03}" for k in range(600)]
    frame = pd.concat([visits()] * 7, ignore_index=True).head(600).assign(ward=names)
    frame.loc[[0, 10], "ward"] = ["alone", "lonely"]
    sheet = parse_table(Table(frame, "ill", site="ward"))
    assert len(largest_sites(sheet)[0]) == 12
    assert len(sheet.warnings) <= 4  # merged over sites


def test_spellings_of_sites_are_asked_about_and_letters_are_said():
    frame = with_site({0: "north", 3: "north"})
    message = refusal(InvalidData, lambda: prepare(frame))
    assert "`North`" in message
    assert "`north` (2)" in message
    letters = visits().assign(ward=np.resize(["a", "A", "b"], N))
    assert any("`A` and `a`" in line for line in prepare(letters).warnings)


def test_a_footer_is_a_site_of_one_row(write):
    made = prepare(write(text(visits()) + "Total,,,,49\n"))
    assert made.target.classes == ("0", "1")
    assert said(made, "`Total`", "left out")


# what the reader sees


@pytest.fixture(scope="module")
def audit(tmp_path_factory) -> unseen.Answer:
    """An audit of a table with a small site, a title, units and a doubt."""
    frame = with_site({0: "Duo", 3: "Duo"}).assign(
        wait=[f"{k % 50} min" for k in range(N)],
        votes=["39,384", *(str(5_000 + 577 * k) for k in range(N - 1))],
    )
    path = tmp_path_factory.mktemp("audit") / "visits.csv.gz"
    path.write_bytes(gzip.compress(("Ward report\n" + text(frame)).encode()))
    return unseen.audit(
        path, target="ill", site="ward", seeds=1, steps=5, remedies={}, progress=False
    )


@pytest.mark.parametrize("part", ["Ward report", "“min”", "“39,384” was read as 39384", "(2 rows)"])
def test_terminal_report_and_json_say_what_was_read_how(audit, tmp_path, part):
    assert part in " ".join(audit.summary().split())
    assert part in audit.json()
    page = audit.report(tmp_path / "page.md").read_text()
    assert page.count(part) == 1
    assert "How the data were read" in page


def test_the_mean_over_sites_counts_rows_and_says_so(audit):
    scores = [one.score("unseen", "AUC") for one in audit.results]
    n = sum(score.n for score in scores)
    mean = sum(score.value * score.n for score in scores) / n
    assert {one.task.split(": ")[1] for one in audit.results} == {"North", "South", "West"}
    assert f"AUC {mean:.2f} (mean of 3 sites, weighted by their examples)" in audit.document.lead
