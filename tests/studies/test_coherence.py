"""Study 01: rows of the smoke scale say what they should, and every verdict can go either way."""

from dataclasses import replace
from math import log

import pytest
import torch
from made_rows import add_noise

from unseen.lab import Lab
from unseen.methods.robust_gradients import MedianOfMicrobatches, RollingMedian
from unseen.studies import coherence
from unseen.studies.coherence import Labels, Networks, study
from unseen.study import Scale, Verdict, pick

CONFIG = study.scales[Scale.SMOKE]


@pytest.fixture(scope="module")
def rows(smoke_runs):
    return smoke_runs.rows("coherence")


def test_smoke_shows_that_real_labels_are_coherent(rows):
    judgement = study.claims[0].judge(rows, Scale.SMOKE)
    assert judgement.verdict is Verdict.SUPPORTED, judgement.because
    others = [claim.judge(rows, Scale.SMOKE).verdict for claim in study.claims[1:]]
    assert set(others) == {Verdict.NOT_JUDGED}


def test_every_figure_and_the_table_can_be_drawn(rows):
    for figure in study.figures:
        drawn = figure(rows)
        assert drawn.y
        assert all(len(line) == len(drawn.x) for line in drawn.y.values())
    assert [row["rule"] for row in study.table(rows)] == [
        "SGD",
        "winsorized c=2",
        "winsorized c=6",
        "RM3",
        "M3",
    ]


def test_random_labels_change_labels_only():
    real, random = (
        CONFIG.coherence.images.__class__(
            **{**vars(CONFIG.coherence.images), "label_noise": noise}
        ).build(Lab())
        for noise in (0.0, 1.0)
    )
    a, b = real.splits["train"].data.columns, random.splits["train"].data.columns
    assert torch.equal(a["x"], b["x"])
    assert not torch.equal(a["y"], b["y"])


def test_first_epochs_do_not_depend_on_later_ones():
    """Readings come after every epoch, so a longer run repeats a shorter one."""
    order = replace(CONFIG.order, epochs=3)
    short, long = (
        list(coherence.order_rows(replace(order, epochs=epochs), Networks(), Lab()))
        for epochs in (3, 5)
    )
    assert pick(short, part="order") == pick(long, part="order")[:3]


def test_winsorizing_at_level_0_and_a_window_of_1_are_sgd():
    def summary(rule):
        found = list(coherence.suppression_rows(CONFIG.suppression, rule, Lab()))[-1]
        return {name: value for name, value in found.items() if name != "rule"}

    assert summary(RollingMedian(1)) == summary(None)
    assert summary(MedianOfMicrobatches(1)) == pytest.approx(summary(None), abs=0.02)


def made(**changes):
    """Rows as they would be if the paper were right, with changes by (part, labels or rule)."""
    rows = []
    for seed in range(3):
        jitter = 0.001 * seed
        for labels, start in (("real", log(20)), ("random", 0.0)):
            rows.append(
                {
                    "part": "coherence summary",
                    "labels": labels,
                    "seed": seed,
                    "log_start": start + jitter,
                }
                | {
                    "early": 1 + jitter,
                    "rise": 5 + jitter,
                    "fit": 0.9 + jitter,
                    "final_test": 0.1 + jitter,
                }
            )
        rows.append(
            {"part": "order summary", "seed": seed, "later": 20 + jitter, "agreement": 0.9 + jitter}
            | {"agreement_clean": 0.8 + jitter, "gain_of_stopping": 0.2 + jitter}
        )
        for rule, wrong, test in (
            ("SGD", 0.98, 0.5),
            ("winsorized c=6", 0.2, 0.65),
            ("M3", 0.6, 0.6),
            ("RM3", 0.6, 0.6),
        ):
            rows.append(
                {"part": "suppression summary", "rule": rule, "lr": 0.1, "seed": seed}
                | {"wrong_fit": wrong + jitter, "test": test - 2 * jitter}
            )
    for row in rows:
        row.update(
            {name: value + 0.001 * row["seed"] for name, value in changes.items() if name in row}
        )
    return add_noise(rows, "log_start", "wrong_fit", "test")


def test_all_claims_are_supported_by_rows_as_the_paper_has_them():
    assert {claim.judge(made(), Scale.PAPER).verdict for claim in study.claims} == {
        Verdict.SUPPORTED
    }


@pytest.mark.parametrize(
    ("change", "refuted"),
    [
        ({"log_start": 1.0}, [0]),
        ({"early": 9.0}, [1]),
        ({"rise": 0.0}, [2]),
        ({"fit": 0.3}, [3]),
        ({"final_test": 0.8}, [4]),
        ({"later": 1.0}, [5]),
        ({"agreement": 0.1, "agreement_clean": 0.0}, [6, 7]),
        ({"gain_of_stopping": 0.0}, [8]),
        ({"wrong_fit": 0.5}, [9, 11, 12]),
        ({"test": 0.5}, [10]),
    ],
)
def test_every_claim_is_refuted_by_rows_that_contradict_it(change, refuted):
    verdicts = [claim.judge(made(**change), Scale.PAPER).verdict for claim in study.claims]
    assert [k for k, verdict in enumerate(verdicts) if verdict is Verdict.REFUTED] == refuted


def test_cells_of_the_other_scales_are_as_the_sheet_has_them():
    laptop = list(study.cells(study.scales[Scale.LAPTOP]))
    assert len({cell.seed for cell in laptop}) >= 3
    first = [cell for cell in laptop if cell.seed == 0]
    assert [cell.arm.noise for cell in first if isinstance(cell.arm, Labels)] == [0.0, 1.0]
    suppression = next(cell for cell in first if cell.setting.epochs == 220).setting
    assert suppression.budget_with_readings(10).steps == 220 * 15
    paper = list(study.cells(study.scales[Scale.PAPER]))
    assert {cell.arm.noise for cell in paper if isinstance(cell.arm, Labels)} == {
        0,
        0.25,
        0.5,
        0.75,
        1,
    }


def test_the_paper_scale_runs_on_few_images():
    """Its network and rules, with data and budgets cut."""
    paper = study.scales[Scale.PAPER]

    def cut(setting, **changes):
        images = replace(
            CONFIG.coherence.images, n_train=24, n_test=10, n_select=10, label_noise=0.5, side=14
        )
        return replace(
            setting, images=images, budget=replace(setting.budget, batch_size=24, **changes)
        )

    small = replace(
        paper,
        coherence=cut(paper.coherence, steps=2, watch_at=(0, 2)),
        order=replace(cut(paper.order), epochs=1),
        suppression=replace(cut(paper.suppression), epochs=1),
        noises=(0.0,),
        sample=20,
        rates=(0.1,),
        seeds=1,
    )
    cells = [cell for cell in study.cells(small) if not isinstance(cell.arm, Networks)]
    rows = [row for cell in cells for row in study.run(cell, Lab())]
    assert {row["rule"] for row in pick(rows, part="suppression summary")} == {
        "SGD",
        "winsorized c=6",
        "RM3",
        "M3",
    }
    assert 0 < pick(rows, part="coherence", step=2)[0]["m_alpha"] <= 20
