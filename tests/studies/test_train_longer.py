"""The study of training longer at smoke scale, on embedded images."""

import numpy as np
import pytest

from unseen.lab import Lab
from unseen.studies.train_longer import Gap, over, slope_ratio, study, variants
from unseen.study import Row, Scale, Verdict, pick
from unseen.study.grid import resize

SMOKE = study.scales[Scale.SMOKE]


def test_smoke_runs_and_can_be_judged(smoke_runs):
    rows = smoke_runs.rows(study.name)
    assert all(
        isinstance(value, str | int | float | bool) for row in rows for value in row.values()
    )
    assert {claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    assert len(study.table(rows)) == 7 + 6
    for figure in study.figures:
        assert figure(rows).title
    assert {row["variant"]: row["updates"] for row in pick(rows, part="gap")} == {
        "small batch": 64,
        "large": 8,
        "large + √lr": 8,
        "large + √lr + GBN": 8,
        "large + √lr + RA": 64,
        "large + √lr + RA + GBN": 64,
    }
    # momentum, weight decay, B = 32: a logarithm; eight updates of a large batch fit the training
    # data worse than 64
    (first,) = pick(rows, part="diffusion", regime="B=32")
    assert first["r2_log"] > 0.9
    train = {row["variant"]: row["train"] for row in pick(rows, part="gap")}
    assert train["large"] < train["large + √lr + RA"]


def test_variants_of_a_seed_share_data_and_initial_weights(smoke_runs):
    gaps = [cell for cell in study.cells(SMOKE) if isinstance(cell.setting, Gap)]
    pair = [cell for cell in gaps if cell.setting.variant in ("small batch", "large")]
    still = [resize(cell, setting={"method": {"small": {"lr": 1e-12}}}) for cell in pair]
    (one,), (two,) = (list(study.run(cell, Lab(seed=0))) for cell in still)
    assert one["updates"] != two["updates"]
    # weights that do not move: equal up to the running statistics of batch norm, which see other
    # batches
    assert one["test"] == pytest.approx(two["test"], abs=0.2)
    assert list(study.run(gaps[0], Lab(seed=gaps[0].seed))) == smoke_runs.rows_of(
        study.name, gaps[0]
    )


def test_differences_of_ways_with_many_updates_are_over_their_seeds():
    def row(variant: str, seed: int, test: float) -> Row:
        return {"part": "gap", "variant": variant, "seed": seed, "test": test + 0.001 * seed}

    rows = [row("large", seed, 0.8) for seed in range(12)]
    rows += [row("large + √lr + GBN", seed, 0.82 + 0.001 * (seed % 2)) for seed in range(12)]
    rows += [row("small batch", seed, 0.83 + 0.001 * (seed % 2)) for seed in range(6)]
    assert over("large + √lr + GBN", "large")(rows).n == 12
    assert over("small batch", "large")(rows).n == 6


def test_paper_scale_is_the_papers():
    config = study.scales[Scale.PAPER]
    methods = variants(config)
    assert methods["large"].batch_size == 4_096
    assert methods["large + √lr + RA"].budget.steps == methods["small batch"].budget.steps
    assert methods["large + √lr + RA + GBN"].ghost == 128
    assert methods["large + √lr"].budget.lr == pytest.approx(0.1 * 32**0.5)


def test_effects_read_the_batch_sizes_they_name():
    rows = [
        {
            "part": "diffusion",
            "regime": f"B={size}",
            "batch_size": size,
            "role": role,
            "seed": seed,
            "slope": slope + seed,
            "exponent": exponent,
            "log_over_root": exponent,
            "r2_log": exponent + 0.01 * seed,
        }
        for size, role, slope, exponent in (
            (32, "scaled", 1.0, 0.3),
            (128, "scaled", 7.0, 0.35),
            (512, "scaled", 2.0, 0.4),
            (2_000, "half", 9.0, 0.9),
        )
        for seed in range(3)
    ]
    lowest, highest, slopes, breaking = (study.claims[k].effect(rows) for k in range(4))
    assert lowest.value == pytest.approx(0.3)
    assert highest.value == pytest.approx(0.4)
    assert slopes.value == slope_ratio(rows).value == pytest.approx(np.mean([2 / 1, 3 / 2, 4 / 3]))
    assert breaking.value == pytest.approx(0.55)
