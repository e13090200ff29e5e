"""The clinical study: effects on rows made by hand, cells that repeat, and a smoke run that every
claim can read.
"""

from dataclasses import replace

import numpy as np
import pytest

from unseen import stats
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.studies.clinical_sites import (
    CLAIMS,
    Corpus,
    better,
    drivers_figure,
    gain_by_size,
    gap_to_seen,
    groups_figure,
    run,
    seed_by_site,
    share_of_expected_causes,
    sites_figure,
    study,
    sufficient,
    table,
    why_sites,
    within_age,
)
from unseen.study import Scale, pick


def made(gain, seeds: int = 3, sites: int = 8) -> list[dict]:
    """AUC 0.7 unseen, 0.72 on seen sites, and `gain(site)` more by local fine-tuning; site 7 has
    too few positives.
    """
    rng = np.random.default_rng(0)
    means = rng.random((sites, 3))
    rows = []
    for seed in range(seeds):
        for site in range(sites):
            base = {
                "corpus": Corpus.DEPARTMENTS.value,
                "site": f"s{site}",
                "seed": seed,
                "n_local": 100 * 2**site,
                "n": 80,
                "positives": 8 + site % 3,
                "age": 50 + means[site, 0],
                "number_diagnoses": 6 + means[site, 1],
                "coded_items": 5 + means[site, 2],
                "judged": site != 7,
            }
            unseen = 0.7 + 0.01 * rng.normal()
            rows.append(base | {"variant": "unseen", "auc": unseen, "seen_auc": 0.72})
            rows.append(base | {"variant": "local", "auc": unseen + gain(site)})
    return rows


def test_differences_pair_seeds_and_sites_and_leave_out_small_ones():
    rows = made(lambda site: 0.01 * site)
    mine = sufficient(rows, Corpus.DEPARTMENTS)
    found = seed_by_site(mine, "local") - seed_by_site(mine, "unseen")
    np.testing.assert_allclose(found, np.tile(0.01 * np.arange(7), (3, 1)), atol=1e-12)
    reading = better(Corpus.DEPARTMENTS, "local", "unseen")(rows)
    assert reading == stats.crossed_mean(found, unit="AUC")
    assert reading.value == pytest.approx(0.03)
    once = [
        row | {"judged": row["judged"] and (row["site"], row["seed"]) != ("s6", 1)} for row in rows
    ]
    assert better(Corpus.DEPARTMENTS, "local", "unseen")(once).value == pytest.approx(0.025), (
        "one seed is enough to leave out"
    )


def test_gains_by_size_and_gaps():
    reading = gain_by_size(Corpus.DEPARTMENTS)(
        made(lambda site: 0.05 - 0.02 * np.log10(100 * 2**site))
    )
    assert reading.value == pytest.approx(-0.02)
    assert gap_to_seen(Corpus.DEPARTMENTS)(made(lambda site: 0.0)).value == pytest.approx(
        -0.02, abs=0.01
    )


def test_bands_are_weighted_by_precision():
    rows = [
        {"contrast": "Medicare in band", "seed": 0, "difference": 0.0, "variance": 0.01},
        {"contrast": "Medicare in band", "seed": 0, "difference": 0.3, "variance": 0.02},
    ]
    reading = within_age(rows)
    assert reading.value == pytest.approx(0.1)
    assert reading.high - reading.value == pytest.approx(1.96 * (1 / 150) ** 0.5, rel=1e-4)


def test_named_causes_count_within_the_first_four():
    rows = [{"cause": "age", "rank": 4 + seed, "named": 1, "seed": seed} for seed in range(2)]
    rows += [{"cause": "x", "rank": 1, "named": 0, "seed": seed} for seed in range(2)]
    assert share_of_expected_causes(rows) == stats.proportion(1, 2)


def test_effects_without_rows_say_so():
    for effect in (
        better(Corpus.HEART, "local", "unseen"),
        gap_to_seen(Corpus.HEART),
        within_age,
        share_of_expected_causes,
    ):
        with pytest.raises(InvalidData):
            effect([])


def test_why_sites_differ_has_a_slope_for_each_driver():
    rows = made(lambda site: 0.0, sites=12)
    assert set(why_sites(rows)) == {"log n", "base rate", "age", "number_diagnoses", "coded_items"}
    assert drivers_figure(rows).values.keys() == why_sites(rows).keys()


@pytest.fixture(scope="module")
def smoke(smoke_runs) -> list[dict]:
    return smoke_runs.rows("clinical_sites")


def test_smoke_rows_are_flat_and_complete(smoke):
    assert all(
        isinstance(value, float | int | str | bool) for row in smoke for value in row.values()
    )
    assert all(
        np.isfinite(value) for row in smoke for value in row.values() if isinstance(value, float)
    )
    heart = pick(smoke, corpus=Corpus.HEART.value, seed=0)
    assert [row["variant"] for row in heart] == [
        "unseen",
        "local",
        "instances",
        "clusters",
        "scratch",
        "pooled",
    ] * 3
    assert {row["site"] for row in heart} == {"Cleveland", "Hungary", "Switzerland"}
    assert len({row["n"] for row in heart if row["site"] == "Hungary"}) == 1
    assert 0.7 < np.mean([row["auc"] for row in heart if row["site"] != "Switzerland"]) < 0.95


def test_every_claim_reads_smoke_rows(smoke):
    for claim in CLAIMS:
        judged = claim.judge(smoke, Scale.SMOKE)
        assert judged.verdict == "not judged"
        assert isinstance(judged.reading, Reading), claim.says
    assert table(smoke)[0]["sites"] >= 2
    assert "all patients" in groups_figure(smoke).values
    assert Corpus.HEART.value in sites_figure(smoke).groups


def test_a_cell_repeats(smoke):
    cell = next(iter(study.cells(replace(study.scales[Scale.SMOKE], seeds=1, sites=1))))
    first = [dict(row) for row in run(cell, Lab(seed=0))]
    assert (
        first
        == [row for row in smoke if row["corpus"] == cell.arm and row["seed"] == 0][: len(first)]
    )
