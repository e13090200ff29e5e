"""Injuries of children under two at 98 emergency departments, 2002 to 2021, as a table for
`unseen audit`: is the child transferred, admitted, held or lost, instead of sent home?

    UNSEEN_DATA=/path/to/data python examples/infant_injuries.py infants.csv
    unseen audit infants.csv --target stays --time date --block date:month --no-remedies

Real people and hospitals: hospitals get numbers of no meaning; report aggregates only.
"""

import sys

import numpy as np
import pandas as pd

from unseen.data.files import data_file

STAYS = {2: "transferred", 4: "admitted", 5: "held", 8: "died"}
"""Codes of `disposition` other than being sent home (1) or leaving (6)."""


def frame() -> pd.DataFrame:
    """The records with the outcome as a word; the sampling weight and the numbers of records and
    hospitals are left out.
    """
    table = pd.read_csv(data_file("neiss-infants/neiss_infants_1of8.csv.xz"))
    table = table[table["disposition"].notna()]
    stays = table.pop("disposition").isin(list(STAYS))
    codes = pd.factorize(table.pop("psu"))[0]
    shuffled = np.random.default_rng(0).permutation(codes.max() + 1)
    table["hospital"] = [f"hospital {number + 1}" for number in shuffled[codes]]
    table["stays"] = np.where(stays, "yes", "no")
    return table.drop(columns=["id", "weight"])


if __name__ == "__main__":
    frame().to_csv(sys.argv[1], index=False)
