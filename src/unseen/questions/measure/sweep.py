"""Which measure foretells the generalization gap of a person's own models: a table with one row per
trained model, or a folder of such tables and of runs of the project's own store.

Columns: `gap` (larger is worse; another name may be given), hyperparameters, measures; `seed` tells
trainings of one configuration apart, `n_test` is how many test examples are behind a gap. Columns
that the catalogue knows are measures, the others hyperparameters, unless they are named.
"""

import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from unseen.errors import InvalidData, MissingFile
from unseen.questions.measure.catalogue import catalogue
from unseen.questions.measure.tables import TABLES, read_table
from unseen.reading import Direction
from unseen.stats.sweeps import Evaluation, evaluate_measures
from unseen.stats.sweeps.table import LEVELS
from unseen.text import count_noun, join_words

SEED, TEST_SIZE = "seed", "n_test"
EXAMPLE = "depth,width,seed,gap,distance,sharpness_origin"


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What `unseen measure --sweep` asks."""

    gap: str = "gap"
    axes: Sequence[str] = ()
    """Hyperparameters; none: every column that is no measure."""
    measures: Sequence[str] = ()
    """None: every column that the catalogue knows."""
    permutations: int = 199
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """Every measure of a sweep with how well it foretells the gap."""

    source: str
    models: int
    gap: str
    axes: Sequence[str]
    evaluations: Sequence[Evaluation]
    flipped: Sequence[str] = ()
    """Measures that are better when higher, and were taken with the opposite sign."""
    n_test: int | None = None
    permutations: int = 0
    left_out: int = 0
    """Rows without a gap."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Columns that are neither measure nor hyperparameter, where no measure was named → the measure
    of the catalogue whose name is nearest, or nothing.
    """


def evaluate_sweep(source: str | Path | pd.DataFrame, request: SweepRequest) -> SweepReport:
    table = source if isinstance(source, pd.DataFrame) else read_sweep(Path(source))
    rows = with_gap(table, request.gap)
    measures = list(request.measures) or known_measures(rows)
    axes = list(request.axes) or hyperparameters(rows, request.gap, measures)
    _refuse(rows, request, axes, measures)
    turned = [name for name in measures if direction_of(name) is Direction.HIGHER]
    signed = rows.assign(**{name: -rows[name] for name in turned})
    n_test = int(rows[TEST_SIZE].min()) if TEST_SIZE in rows else None
    found = evaluate_measures(
        signed,
        gap=request.gap,
        axes=axes,
        measures=measures,
        n_test=n_test,
        permutations=request.permutations,
        seed=request.seed,
    )
    return SweepReport(
        source="a DataFrame" if isinstance(source, pd.DataFrame) else str(source),
        models=len(rows),
        gap=request.gap,
        axes=axes,
        evaluations=found,
        flipped=turned,
        n_test=n_test,
        permutations=request.permutations,
        left_out=len(table) - len(rows),
        unread={} if request.measures else unread_columns(rows, {request.gap, *axes, *measures}),
    )


def read_sweep(path: Path) -> pd.DataFrame:
    """One row per model, of a table, or of all tables and stored runs below a folder."""
    if path.is_dir():
        parts = [*_stored_runs(path), *(read_table(file, EXAMPLE) for file in _tables(path))]
        if not parts:
            raise MissingFile(
                f"There is no model in `{path}`.",
                why=f"a sweep is read from files that end in {', '.join(TABLES)}, and from "
                "run.json of the project's own store.",
                fix=f"give a table with one row per model: {EXAMPLE}",
            )
        return pd.concat(parts, ignore_index=True)
    return read_table(path, EXAMPLE)


def _tables(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.name.lower().endswith(TABLES))


def _stored_runs(folder: Path) -> Iterator[pd.DataFrame]:
    """The rows of every finished cell."""
    for file in sorted(folder.rglob("run.json")):
        rows = json.loads(file.read_text("utf-8")).get("rows", [])
        if rows:
            yield pd.DataFrame(rows)


def with_gap(table: pd.DataFrame, gap: str) -> pd.DataFrame:
    """The rows that have a gap."""
    if gap not in table:
        raise InvalidData(
            f"There is no column `{gap}` ({', '.join(map(str, table.columns[:12]))}).",
            why="measures foretell it: test error minus training error, or a test error at a new "
            "site.",
            fix="name the column: --gap COLUMN.",
        )
    if not pd.api.types.is_numeric_dtype(table[gap]):
        raise InvalidData(
            f"The column `{gap}` holds words.",
            why="models are ordered by it.",
            fix="give numbers, or another column with --gap.",
        )
    return table[np.isfinite(table[gap].astype(float))].reset_index(drop=True)


def known_measures(table: pd.DataFrame) -> list[str]:
    """Columns that bear the name of a measure, with blanks or with `_`."""
    known = _directions()
    return [str(name) for name in table.columns if _plain(str(name)) in known]


def unread_columns(table: pd.DataFrame, read: Collection[str]) -> dict[str, str]:
    """The other columns, each with the measure of the catalogue that has the nearest name."""
    others = [str(c) for c in table.columns if c not in (SEED, TEST_SIZE) and c not in read]
    return {name: nearest_measure(name) for name in others}


def nearest_measure(name: str) -> str:
    """The shortest name that begins with these words, else one that is spelled like them."""
    known = {_plain(entry.name): entry.name for entry in catalogue()}
    longer = [one for one in known if one.startswith(f"{_plain(name)} ")]
    near = sorted(longer, key=len) or difflib.get_close_matches(_plain(name), known, 1, 0.75)
    return known[near[0]] if near else ""


def direction_of(name: str) -> Direction:
    """Of columns that the catalogue does not know larger means a larger gap."""
    return _directions().get(_plain(name), Direction.LOWER)


def _directions() -> dict[str, Direction]:
    found = {entry.name: entry.direction for entry in catalogue()}
    raw = {getattr(entry.measure, "name", entry.name): entry.direction for entry in catalogue()}
    return {_plain(name): direction for name, direction in {**raw, **found}.items()}


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").strip()


def hyperparameters(table: pd.DataFrame, gap: str, measures: Sequence[str]) -> list[str]:
    """Columns with few values that are neither gap, measure nor seed, and that vary."""
    others = [c for c in table.columns if c not in (gap, SEED, TEST_SIZE, *measures)]
    counts = {str(name): table[name].nunique() for name in others}
    return [name for name, n in counts.items() if 1 < n <= min(LEVELS, len(table) // 2)]


def _refuse(
    table: pd.DataFrame, request: SweepRequest, axes: Sequence[str], measures: Sequence[str]
) -> None:
    missing = [name for name in (*axes, *measures) if name not in table]
    if missing:
        raise InvalidData(
            f"There is no column {join_words([f'`{name}`' for name in missing])}.",
            why=f"the columns are {', '.join(map(str, table.columns[:20]))}.",
            fix="correct the name.",
        )
    if not measures:
        raise InvalidData(
            "No column is a measure of the catalogue.",
            why=f"the columns are {', '.join(map(str, table.columns[:20]))}.",
            fix="name those that should foretell the gap: --measure COLUMN (repeatable).",
        )
    words = [name for name in measures if not pd.api.types.is_numeric_dtype(table[name])]
    if words:
        raise InvalidData(
            f"The measure {join_words([f'`{name}`' for name in words])} holds words.",
            why="models are ordered by it.",
            fix="give numbers, and an empty cell where there is none.",
        )
    if not axes:
        raise InvalidData(
            "No column is a hyperparameter that varies.",
            why="models are compared along hyperparameters, all others being equal.",
            fix="name them: --axis depth --axis width. Columns with one value, or with another "
            "one in nearly every row, are none.",
        )
    if len(table) < 3:
        raise InvalidData(
            f"The sweep has {count_noun(len(table), 'model')} with a gap.",
            why="pairs of models are ordered.",
            fix="give at least three, better dozens.",
        )
