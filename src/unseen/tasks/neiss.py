"""Emergency visits after injuries with a nurse's narrative, the hospital and what became of the
patient: the yearly files of NEISS (US Consumer Product Safety Commission), as published.

The Commission offers a file per year (https://www.cpsc.gov/cgibin/NEISSQuery/, "Archived annual
data"); nothing is shipped. Real people and hospitals: report aggregates only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unseen.data.files import data_file
from unseen.errors import InvalidData, MissingFile
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.table import Table

NEEDED = ("Treatment_Date", "Age", "Sex", "Disposition", "PSU")
NARRATIVES = ("Narrative", "Narrative_1", "Narrative_2")
"""One column since 2019, two before."""
STAYS = frozenset({2, 4, 5, 8})
"""Dispositions: transferred, admitted, held for observation, died."""
LEAVES = frozenset({1, 6})
"""Released, left without being seen; 9 is not known."""
MONTHS = 200
"""Ages under two years are written as 200 and the months."""
SEXES: Mapping[int, str] = {1: "male", 2: "female"}
PAGE = "https://www.cpsc.gov/cgibin/NEISSQuery/"

Maker = Callable[[], pd.DataFrame]


@dataclass(frozen=True)
class NeissFiles:
    """Rows of yearly files (.tsv, .csv, also .gz), with the columns `narrative`, `stays`,
    `hospital`, `date`, `age` in years, and `sex`.
    """

    files: tuple[str, ...]

    def __call__(self) -> pd.DataFrame:
        if not self.files:
            raise MissingFile(
                "No file of NEISS was named.",
                why="the data are not part of the package.",
                fix=f"download one or more years from {PAGE} and give their paths.",
            )
        return pd.concat([read_year(Path(file)) for file in self.files], ignore_index=True)


def read_year(path: Path) -> pd.DataFrame:
    """One published file."""
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`.",
            why="a year of NEISS is read from it.",
            fix=f"download it from {PAGE}.",
        )
    separator = "," if ".csv" in path.name.lower() else "\t"
    # some years are written in Windows' letters
    frame = pd.read_csv(
        path, sep=separator, dtype=str, encoding="cp1252", encoding_errors="replace"
    )
    return tidy_year(frame, str(path))


def tidy_year(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The columns that are used, under plain names; visits whose outcome is not known are left
    out.
    """
    missing = [column for column in NEEDED if column not in frame]
    narratives = [column for column in NARRATIVES if column in frame]
    if missing or not narratives:
        lacks = ", ".join(missing or [NARRATIVES[0]])
        raise InvalidData(
            f"`{name}` has no column {lacks}.",
            why=f"its columns are {', '.join(map(str, frame.columns[:12]))}.",
            fix="give a yearly file of NEISS as it is published, with its header.",
        )
    disposition = pd.to_numeric(frame["Disposition"], errors="coerce")
    age = pd.to_numeric(frame["Age"], errors="coerce")
    years = np.where(age > MONTHS, (age - MONTHS) / 12, age)
    parts = frame[narratives].fillna("").agg(" ".join, axis=1).str.strip()
    sex = pd.to_numeric(frame["Sex"], errors="coerce").map(SEXES)
    found = pd.DataFrame(
        {
            "narrative": parts,
            "stays": np.where(disposition.isin(STAYS), "stays", "leaves"),
            "hospital": "hospital " + frame["PSU"].str.strip(),
            "date": pd.to_datetime(frame["Treatment_Date"], format="%m/%d/%Y", errors="coerce"),
            "age": np.where(age == 0, np.nan, years),  # 0: not known
            "sex": sex,
        }
    )
    return found[disposition.isin(STAYS | LEAVES).to_numpy()].reset_index(drop=True)


@dataclass(frozen=True)
class Neiss:
    """Whether a patient stays (transferred, admitted, held or died), at a hospital left out and
    with `by_time` after a moment. `table()` names the narrative as its column of texts: the task
    itself reads age, sex and the length of the narrative, `unseen audit` the words.
    """

    files: tuple[str, ...] = ()
    by_time: bool = False
    held_out: str | None = None
    read: Maker | None = None
    """Makes the rows instead of `files`."""

    def table(self) -> Table:
        return Table(
            self.read or NeissFiles(self.files),
            target="stays",
            site="hospital",
            time="date" if self.by_time else None,
            groups=("age:18,65", "sex"),
            drop=() if self.by_time else ("date",),
            held_out=self.held_out,
            text="narrative",
        )

    def build(self, lab: Lab) -> Task:
        return self.table().build(lab)


def synthetic_visits(n: int = 240, columns: Sequence[str] = ("Narrative_1",)) -> pd.DataFrame:
    """Made-up rows with the columns of a published file. Not data."""
    rng = np.random.default_rng(0)
    severe = rng.random(n) < 0.25
    words = np.where(severe, "FELL FROM ROOF, FRACTURE", "TRIPPED, SPRAIN")
    more = [" ".join(rng.choice(["WHILE", "PLAYING", "AT", "SCHOOL"], k)) for k in range(n)]
    narrative = [f"{word} {rest}" for word, rest in zip(words, more, strict=True)]
    ages = 2 + np.arange(n) // 2
    ages[::10] = MONTHS + 1 + np.arange(len(ages[::10])) % 23
    ages[5::80] = 0
    frame = pd.DataFrame(
        {
            "CPSC_Case_Number": np.arange(n) + 190_000_000,
            "Treatment_Date": [f"{month}/1/2019" for month in rng.integers(1, 13, n)],
            "Age": ages,
            "Sex": rng.choice([1, 2], n),
            "Disposition": np.where(severe, rng.choice([2, 4, 5], n), rng.choice([1, 1, 6, 9], n)),
            "PSU": rng.choice([12, 37, 61], n),
            columns[0]: narrative,
        }
    )
    for column in columns[1:]:
        frame[column] = np.where(rng.random(n) < 0.5, "AT HOME", "")
    return frame.astype(str)


def synthetic_year() -> pd.DataFrame:
    """The made-up rows, read as a published file is."""
    return tidy_year(synthetic_visits(), "made-up rows")


def infants_frame() -> pd.DataFrame:
    """Injuries of children under two at 98 emergency departments, 2002 to 2021, coded fields
    without narratives: every eighth record. Hospitals get numbers of no meaning; the sampling
    weight and the numbers of records are left out.
    """
    table = pd.read_csv(data_file("neiss-infants/neiss_infants_1of8.csv.xz"))
    table = table[table["disposition"].notna()]
    stays = table.pop("disposition").isin(list(STAYS))
    codes = pd.factorize(table.pop("psu"))[0]
    shuffled = np.random.default_rng(0).permutation(codes.max() + 1)
    table["hospital"] = [f"hospital {number + 1}" for number in shuffled[codes]]
    table["stays"] = np.where(stays, "yes", "no")
    return table.drop(columns=["id", "weight"]).reset_index(drop=True)


def synthetic_infants(n: int = 800) -> pd.DataFrame:
    """Made-up rows with the columns of `infants_frame`. Not data."""
    rng = np.random.default_rng(0)
    age = rng.integers(1, 24, n)
    hospital = np.minimum(rng.geometric(0.25, n), 9)
    return pd.DataFrame(
        {
            "date": [f"{year}-01-01" for year in rng.integers(2002, 2012, n)],
            "age": age,
            "sex": rng.choice(["F", "M"], n),
            "race": rng.choice([1.0, 2.0, np.nan], n),
            "location": rng.choice([1.0, 5.0], n),
            "fire": np.nan,
            "stratum": rng.choice(["C", "V"], n),
            "hospital": [f"hospital {k}" for k in hospital],
            "stays": np.where(rng.random(n) < 0.1 + 0.3 * (age < 6), "yes", "no"),
        }
    )


def example() -> Neiss:
    """On made-up rows: the data are not part of the package."""
    return Neiss(read=synthetic_year)
