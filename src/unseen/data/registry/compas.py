"""COMPAS: risk scores and new charges of defendants of Broward County (Larson et al., 2016).

Real people: report aggregates only.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/propublica/compas-analysis"
COMMIT = "bafff5da3f2e45eca6c2d5055faad269defd135a"
COLUMNS = [
    *("id", "compas_screening_date", "sex", "age", "age_cat", "race"),
    *("juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count"),
    *("days_b_screening_arrest", "c_charge_degree", "c_days_from_compas", "is_recid"),
    *("r_charge_degree", "is_violent_recid", "decile_score", "score_text", "v_decile_score"),
    *("v_score_text", "start", "end", "event", "two_year_recid"),
]
"""Columns of the file: no name, birth date, case number or text of a charge."""


def pack(downloads: Sequence[Path]) -> bytes:
    """The table with `COLUMNS` only."""
    table = pd.read_csv(downloads[0])[COLUMNS]
    return gzip.compress(table.to_csv(index=False).encode(), 9, mtime=0)


FILES = {
    "compas/compas-scores-two-years-columns.csv.gz": RegisteredFile(
        sha256="f14c28ceefd160524ae9341cd484367f04c49530b3537962705bfb1b56b2545b",
        size=2_546_489,
        licence="public records; no licence stated by the authors, not redistributed",
        page=REPOSITORY,
        origins=((f"{REPOSITORY}/raw/{COMMIT}/compas-scores-two-years.csv",),),
        pack=pack,
    ),
}
