"""Small tables with one planted fault each, and null tables with none.

Patients of four hospitals: seven inputs, of which five carry a logistic signal (AUC about 0.83,
half of the patients are ill), 900 rows, the same law at every hospital. The strength of each fault
stands in the docstring of its generator and was written before the first audit; it is never
adjusted to what an audit finds. A draw has a random stream of its own, so that the same number
gives the same table everywhere.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

SITES = ("north", "south", "east", "west")
ODD = "north"
"""The hospital where a fault of one site is planted."""
ROWS = 900


@dataclass(frozen=True)
class PlantedTable:
    """A table, what its columns mean, and the rows whose label is wrong."""

    frame: pd.DataFrame
    columns: Mapping[str, str | Sequence[str]] = field(
        default_factory=lambda: {"target": "ill", "site": "site"}
    )
    flipped: Sequence[int] = ()


@dataclass(frozen=True)
class Fault:
    """What is planted, and what an audit has to say of it."""

    plant: Callable[[Generator], PlantedTable]
    codes: Sequence[str]
    """A finding with one of these."""
    words: Sequence[str]
    """The feature, the sites, the level: all must stand in that finding."""
    actions: Sequence[str]
    """One of these phrases must stand in it, too."""


def table(kind: str, draw: int) -> PlantedTable:
    """The table of a fault or of a null kind."""
    rng = np.random.default_rng([20261129, zlib.crc32(kind.encode()), draw])
    return FAULTS[kind].plant(rng) if kind in FAULTS else NULLS[kind](rng)


# patients ---------------------------------------------------------------------------------------


def patients(rng: Generator, rows: int = ROWS, sites: Sequence[str] = SITES) -> pd.DataFrame:
    """Inputs and hospital; hospitals are of one size, and their rows stand in random order."""
    return pd.DataFrame(
        {
            "age": rng.normal(60, 11, rows).round(1),
            "weight": rng.normal(75, 13, rows).round(1),
            "pressure": rng.normal(132, 17, rows).round(1),
            "marker": np.exp(rng.normal(0, 0.5, rows)).round(3),
            "glucose": (5.5 * np.exp(rng.normal(0, 0.2, rows))).round(2),
            "sex": rng.choice(["f", "m"], rows),
            "ward": rng.choice(["a", "b", "c"], rows),
            "site": rng.permutation(np.resize(np.array(sites), rows)),
        }
    )


def log_odds(frame: pd.DataFrame, age: float | NDArray[np.float64] = 1.0) -> NDArray[np.float64]:
    """Of being ill; `age` is the weight of that feature. Glucose and ward say nothing."""
    return np.asarray(
        age * (frame["age"] - 60) / 11
        + 0.8 * (frame["pressure"] - 132) / 17
        + 0.8 * np.log(frame["marker"]) / 0.5
        + 0.4 * (frame["weight"] - 75) / 13
        + 0.5 * (frame["sex"] == "m")
        - 0.25
    )


def outcome(rng: Generator, odds: NDArray[np.float64]) -> NDArray[np.int64]:
    return (rng.random(len(odds)) < 1 / (1 + np.exp(-odds))).astype(np.int64)


def at_odd_site(frame: pd.DataFrame) -> NDArray[np.bool_]:
    return np.asarray(frame["site"] == ODD)


def _with_outcome(rng: Generator, frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ill=outcome(rng, log_odds(frame)))


def _after_outcome(rng: Generator, y: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number whose two classes lie four standard deviations apart: AUC 0.998."""
    return (4 * y + rng.normal(size=len(y))).round(2)


# faults -----------------------------------------------------------------------------------------


def leak_everywhere(rng: Generator) -> PlantedTable:
    """`followup` separates the classes by four standard deviations (AUC 0.998) at every site."""
    frame = _with_outcome(rng, patients(rng))
    return PlantedTable(frame.assign(followup=_after_outcome(rng, frame["ill"].to_numpy())))


def leak_at_one_site(rng: Generator) -> PlantedTable:
    """`followup` separates the classes by four standard deviations at one of four sites; elsewhere
    it has the same distribution and says nothing.
    """
    frame = _with_outcome(rng, patients(rng))
    y = frame["ill"].to_numpy()
    source = np.where(at_odd_site(frame), y, rng.permutation(y))
    return PlantedTable(frame.assign(followup=_after_outcome(rng, source)))


def leak_by_missingness(rng: Generator) -> PlantedTable:
    """`discharge` is filled for 99 % of the ill and for nobody else; its values say nothing."""
    frame = _with_outcome(rng, patients(rng))
    filled = (frame["ill"] == 1) & (rng.random(len(frame)) < 0.99)
    days = rng.normal(12, 4, len(frame)).round(1)
    return PlantedTable(frame.assign(discharge=np.where(filled, days, np.nan)))


def flipped_labels(rng: Generator) -> PlantedTable:
    """30 of 225 labels of one site are flipped, in a table of 900. Log odds are eight times those
    of the other tables, so that 5 % of the labels are surprising by nature.
    """
    frame = patients(rng)
    y = outcome(rng, 8 * log_odds(frame))
    flipped = rng.choice(np.flatnonzero(at_odd_site(frame)), 30, replace=False)
    y[flipped] = 1 - y[flipped]
    return PlantedTable(frame.assign(ill=y), flipped=sorted(flipped.tolist()))


def copied_rows(rng: Generator) -> PlantedTable:
    """45 of 225 rows of `south` are replaced by rows of `north`, target included."""
    frame = _with_outcome(rng, patients(rng))
    rows = frame["site"].to_numpy()
    source = rng.choice(np.flatnonzero(rows == "north"), 45, replace=False)
    to = rng.choice(np.flatnonzero(rows == "south"), 45, replace=False)
    inputs = [name for name in frame.columns if name != "site"]
    frame.loc[to, inputs] = frame.loc[source, inputs].to_numpy()
    return PlantedTable(frame.infer_objects())


def covariate_shift(rng: Generator) -> PlantedTable:
    """At one site patients are one standard deviation older; the outcome depends on age as
    everywhere.
    """
    frame = patients(rng)
    frame.loc[at_odd_site(frame), "age"] += 11
    return PlantedTable(_with_outcome(rng, frame.round({"age": 1})))


def prevalence_shift(rng: Generator) -> PlantedTable:
    """At one site 75 % are ill instead of 50 %; the inputs within each class are as everywhere."""
    pool = _with_outcome(rng, patients(rng, 8 * ROWS))
    ill, well = (np.flatnonzero(pool["ill"] == k) for k in (1, 0))
    size = ROWS // len(SITES)
    frames = []
    for site in SITES:
        count = round((0.75 if site == ODD else 0.5) * size)
        chosen, ill = ill[:count], ill[count:]
        others, well = well[: size - count], well[size - count :]
        frames.append(pool.iloc[np.concatenate([chosen, others])].assign(site=site))
    order = rng.permutation(ROWS)
    return PlantedTable(pd.concat(frames).iloc[order].reset_index(drop=True))


def concept_shift(rng: Generator) -> PlantedTable:
    """At one site the weight of age in the log odds is −1 instead of 1 (per standard deviation)."""
    frame = patients(rng)
    age = np.where(at_odd_site(frame), -1.0, 1.0)
    return PlantedTable(frame.assign(ill=outcome(rng, log_odds(frame, age))))


def bad_subgroup(rng: Generator) -> PlantedTable:
    """For 15 % of the patients, those of device C, all log odds have the other sign; the device is
    an input, and named as a group.
    """
    found = unnamed_subgroup(rng)
    return PlantedTable(found.frame, {**found.columns, "groups": ["device"]})


def unnamed_subgroup(rng: Generator) -> PlantedTable:
    """The same without naming the group."""
    frame = patients(rng)
    frame["device"] = rng.choice(["A", "B", "C"], len(frame), p=[0.5, 0.35, 0.15])
    sign = np.where(frame["device"] == "C", -1.0, 1.0)
    return PlantedTable(frame.assign(ill=outcome(rng, sign * log_odds(frame))))


def time_drift(rng: Generator) -> PlantedTable:
    """Admissions of four years; in the last one the weight of age is −1 instead of 1. The table has
    a time column and no site.
    """
    frame = patients(rng).drop(columns="site")
    days = np.sort(rng.integers(0, 4 * 365, len(frame)))
    frame["admitted"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D")
    age = np.where(days >= 3 * 365, -1.0, 1.0)
    frame["ill"] = outcome(rng, log_odds(frame, age))
    return PlantedTable(frame, {"target": "ill", "time": "admitted"})


def unit_of_one_site(rng: Generator) -> PlantedTable:
    """One site writes the weight in grams instead of kilograms: × 1000."""
    frame = _with_outcome(rng, patients(rng))
    frame.loc[at_odd_site(frame), "weight"] *= 1000
    return PlantedTable(frame)


def sentinel(rng: Generator) -> PlantedTable:
    """One site writes −999 for an unknown glucose, in 20 % of its rows."""
    frame = _with_outcome(rng, patients(rng))
    frame.loc[at_odd_site(frame) & (rng.random(len(frame)) < 0.2), "glucose"] = -999
    return PlantedTable(frame)


# null tables ------------------------------------------------------------------------------------

NULL_COLUMNS = {"target": "ill", "site": "site", "groups": ["ward"]}
"""The group says nothing either."""


def plain(rng: Generator) -> PlantedTable:
    """900 rows of four exchangeable hospitals."""
    return PlantedTable(_with_outcome(rng, patients(rng)), NULL_COLUMNS)


def small_sites(rng: Generator) -> PlantedTable:
    """Eight hospitals of 30 rows."""
    frame = patients(rng, 240, [f"clinic {k}" for k in range(1, 9)])
    return PlantedTable(_with_outcome(rng, frame), NULL_COLUMNS)


def rare(rng: Generator) -> PlantedTable:
    """1,200 rows of four hospitals, of which 6 % are ill."""
    frame = patients(rng, 1_200)
    return PlantedTable(frame.assign(ill=outcome(rng, log_odds(frame) - 3.7)), NULL_COLUMNS)


def wide(rng: Generator) -> PlantedTable:
    """600 rows of four hospitals and 300 inputs, of which 293 are noise."""
    frame = patients(rng, 600)
    noise = rng.normal(size=(600, 293)).round(3)
    frame = pd.concat([frame, pd.DataFrame(noise, columns=[f"lab{k}" for k in range(293)])], axis=1)
    return PlantedTable(_with_outcome(rng, frame), NULL_COLUMNS)


FAULTS = {
    "leak everywhere": Fault(leak_everywhere, ["U101"], ["followup"], ["--drop followup"]),
    "leak at one site": Fault(leak_at_one_site, ["U101"], ["followup", ODD], ["--drop followup"]),
    "leak by missingness": Fault(
        leak_by_missingness, ["U101"], ["discharge"], ["--drop discharge"]
    ),
    "flipped labels": Fault(flipped_labels, ["U103"], [ODD], ["Check the", "check the"]),
    "copied rows": Fault(copied_rows, ["U102"], ["north", "south"], ["remove them", "--entity"]),
    "covariate shift": Fault(covariate_shift, ["U207"], ["age", ODD], ["Weigh", "collect more"]),
    "prevalence shift": Fault(prevalence_shift, ["U208"], [ODD], ["threshold", "recalibrate"]),
    "concept shift": Fault(
        concept_shift, ["U206"], ["age", ODD], ["--drop age", "train with labels"]
    ),
    "bad subgroup, named": Fault(
        bad_subgroup, ["U210"], ["device", "C"], ["Collect labelled examples"]
    ),
    "bad subgroup, unnamed": Fault(
        unnamed_subgroup, ["U211"], ["device", "C"], ["Follow it as a group"]
    ),
    "time drift": Fault(
        time_drift, ["U206"], ["age", "future"], ["--drop age", "train with labels"]
    ),
    "units × 1000": Fault(unit_of_one_site, ["U105"], ["weight", ODD], ["Convert"]),
    "sentinel": Fault(sentinel, ["U105"], ["glucose", ODD, "-999"], ["Empty these cells"]),
}
NULLS: Mapping[str, Callable[[Generator], PlantedTable]] = {
    "null: plain": plain,
    "null: sites of 30": small_sites,
    "null: 6 % ill": rare,
    "null: 300 columns": wide,
}
