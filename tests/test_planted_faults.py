"""The tables that `benchmarks/audit_peers.py` audits hold what their generators say."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

# by its path: the folder is no package, and others may install one of its name
PATH = Path(__file__).parents[1] / "benchmarks" / "peers" / "planted_faults.py"
spec = importlib.util.spec_from_file_location("planted_faults", PATH)
assert spec is not None
assert spec.loader is not None
sys.modules["planted_faults"] = planted_faults = importlib.util.module_from_spec(spec)
spec.loader.exec_module(planted_faults)
FAULTS, NULLS = planted_faults.FAULTS, planted_faults.NULLS
ODD, table = planted_faults.ODD, planted_faults.table


@pytest.mark.parametrize("kind", [*FAULTS, *NULLS])
def test_a_draw_is_the_same_table_every_time_and_another_one_is_not(kind):
    first, again, other = table(kind, 0), table(kind, 0), table(kind, 1)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert first.flipped == again.flipped
    assert not first.frame.equals(other.frame)


def test_a_leak_at_one_site_separates_the_classes_there_only():
    frame = table("leak at one site", 0).frame
    inside = frame["site"] == ODD
    there, elsewhere = (
        roc_auc_score(part["ill"], part["followup"]) for part in (frame[inside], frame[~inside])
    )
    assert there > 0.99
    assert 0.4 < elsewhere < 0.6


def test_flipped_labels_are_thirty_at_one_site():
    planted = table("flipped labels", 0)
    assert len(set(planted.flipped)) == 30
    assert set(planted.frame["site"].iloc[list(planted.flipped)]) == {ODD}


def test_copies_are_at_the_other_site_with_their_target():
    frame = table("copied rows", 0).frame
    inputs = [name for name in frame.columns if name != "site"]
    north, south = (
        set(frame.loc[frame["site"] == site, inputs].itertuples(index=False, name=None))
        for site in ("north", "south")
    )
    assert len(north & south) == 45
    assert frame.dtypes["ill"] == np.int64


def test_prevalence_is_changed_at_one_site_only():
    shares = table("prevalence shift", 0).frame.groupby("site")["ill"].mean()
    assert shares[ODD] == pytest.approx(0.75, abs=0.003)
    assert shares.drop(ODD).tolist() == pytest.approx([0.5] * 3, abs=0.003)
