"""A table of one's own as a task: CSV, Parquet or DataFrame; a site left out, the future is for
evaluation, or random rows.

Splits: "train" (TRAIN), "select" (SELECT) and "seen" (EVALUATE) are random parts of the training
sites or of the past; "unseen" (EVALUATE) is the site left out or the future; "later" (EVALUATE),
with both site and time, is the training sites' future. With `local` > 0, "local" (TRAIN) is a part
of the site left out, for fine-tuning there (with time: its past), and "unseen" the rest of it.
Without site and time only random rows can be evaluated, and `decisions` says so. Batches hold `x`
(encoded features), `y`, `index` (the row in the user's table, from 0), `site` (index into
`Tabular.sites`), `block` where one is named, and one `group:<spec>` per group (index into
`Tabular.groups[spec]`).
"""

import numpy as np
import pandas as pd

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.tasks.table.description import InMemory, Table
from unseen.tasks.table.parsing import ParsedTable, parse_table
from unseen.tasks.table.tabular import Tabular, split_table

__all__ = ["InMemory", "ParsedTable", "Table", "Tabular", "parse_table", "split_table"]


def leave_one_out(table: Table, lab: Lab) -> list[Tabular]:
    """One task per site: trained without the site, evaluated on it."""
    if not table.site:
        raise InvalidData(
            "Leaving one site out needs a site column.",
            why="without it, nothing says which rows belong together.",
            fix='name it: Table(…, site="hospital").',
        )
    sheet = parse_table(table)
    return [split_table(sheet, site, lab) for site in sheet.evaluable]


def clinics() -> pd.DataFrame:
    """Generated: 240 visits to three clinics; the illness follows blood pressure, and one clinic
    measures higher.
    """
    rng = np.random.default_rng(0)
    clinic = rng.choice(["east", "north", "west"], 240)
    pressure = rng.normal(120, 15, 240)
    ill = (pressure + rng.normal(0, 8, 240) > 125).astype(int)
    return pd.DataFrame(
        {
            "clinic": clinic,
            "age": rng.integers(20, 90, 240),
            "sex": rng.choice(["female", "male"], 240),
            "pressure": np.where(rng.random(240) < 0.1, np.nan, pressure + 10 * (clinic == "west")),
            "ill": ill,
        }
    )


def example() -> Table:
    return Table(clinics, target="ill", site="clinic", groups=("sex", "age:40,60"))
