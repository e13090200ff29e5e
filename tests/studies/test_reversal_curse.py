"""The study end to end at smoke scale, on a transformers model, and its claims on rows made by
hand.
"""

from dataclasses import replace

import pytest
import torch
from made_rows import add_noise

from tests.models.test_pretrained import tiny
from unseen.engine.loop import Budget
from unseen.errors import CorruptFile, MissingFile
from unseen.lab import Lab
from unseen.models.transformer import Transformer
from unseen.studies.reversal_curse import (
    CLAIMS,
    INSTRUCTED,
    VARIED,
    Config,
    Variant,
    exact,
    run,
    shape,
    study,
    task_spec,
)
from unseen.study import Scale, Verdict
from unseen.study.grid import Cell
from unseen.tasks.published_reversal import toy

SMOKE = study.scales[Scale.SMOKE]


def test_smoke_has_every_variant_and_can_be_drawn(smoke_runs):
    rows = smoke_runs.rows(study.name)
    assert {row["variant"] for row in rows} == set(Variant) - {Variant.PRETRAINED}
    assert all(claim.judge(rows, Scale.SMOKE).verdict is Verdict.NOT_JUDGED for claim in CLAIMS)
    assert len(study.table(rows)) == 6 + 7 + 6 + 2 * 2 + 8 * 4  # kinds of questions
    for figure in study.figures:
        assert figure(rows).title


def test_memorised_facts_are_recalled_in_the_stated_order_only():
    """Not the claim at laptop size, but enough that every number has to come out right."""
    task = replace(SMOKE.task, facts=8)
    config = replace(SMOKE, task=task, width=64, budget=replace(SMOKE.budget, steps=250, lr=3e-3))
    rows = {row["split"]: row for row in run(Cell(config, Variant.RESTATED, 0), Lab())}
    for split in ("same/p2d", "same/d2p", "both/p2d", "both/d2p", "restated/p2d"):
        assert rows[split]["exact"] > 0.9
        assert rows[split]["gap"] > 3
    for split in ("reverse/p2d", "reverse/d2p"):
        assert rows[split]["exact"] < 0.3
        assert rows[split]["gap"] < rows["same/p2d"]["gap"] / 2
    assert rows["reverse/p2d"]["facts"] == 4


def fake(reverse, t):
    """Rows as a run would give them, with these values for reversed questions."""
    rows = [{"variant": "celebrities", "main": False, "seed": 0, "pairs": 1513, "reversible": 495}]
    made = [Cell(Config(), variant, seed) for variant in Variant for seed in range(3)]
    for cell in made:
        if cell.arm in (Variant.PRETRAINED, Variant.CELEBRITIES):
            continue
        splits = (
            "same/p2d",
            "same/d2p",
            "both/p2d",
            "both/d2p",
            "reverse/p2d",
            "reverse/d2p",
            "restated/p2d",
        )
        for split in ("realized", "unrealized") if cell.arm in INSTRUCTED else splits:
            curse = split.startswith("reverse") or (
                split == "unrealized" and cell.arm is Variant.ANSWER_FIRST
            )
            values = {"hits": 99.0, "facts": 100, "t": 40.0, "gap": 14.0, "ks_p": 0.0}
            if curse:
                values |= {
                    "hits": 100 * reverse,
                    "t": t,
                    "gap": t / 10,
                    "ks_p": 0.0 if abs(t) > 3 else 0.5,
                }
            where = {split.split("/")[0]: f"{cell.arm} {split}"} if cell.arm in VARIED else {}
            main = cell.arm is Variant.UNTIED
            rows.append(
                {
                    "variant": cell.arm.value,
                    "main": main,
                    "seed": cell.seed,
                    "split": split,
                    **values,
                    **where,
                }
            )
    return add_noise(rows, "t", "gap", "ks_p")


def test_claims_follow_the_rows():
    curse = {claim.judge(fake(0.0, 1.0), Scale.LAPTOP).verdict for claim in CLAIMS}
    assert curse == {Verdict.SUPPORTED}
    lifted = [claim.judge(fake(0.9, 20.0), Scale.LAPTOP) for claim in CLAIMS]
    refuted = [judgement.says for judgement in lifted if judgement.verdict is Verdict.REFUTED]
    # two of exact match, two of t, two of KS, two of nats, the untold half, two of the tied head,
    # two of the varied models, two of the instructions
    assert len(refuted) == 15


def test_one_varied_model_that_answers_in_reverse_refutes_robustness():
    rows = [{**row} for row in fake(0.0, 1.0)]
    for row in rows:
        if row.get("reverse") == f"{Variant.LLAMA} reverse/d2p":
            row.update(hits=90.0, t=row["t"] + 20.0)
    verdicts = [claim.judge(rows, Scale.LAPTOP) for claim in CLAIMS]
    assert sum(judgement.verdict is Verdict.REFUTED for judgement in verdicts) == 2
    assert all(
        verdict.says.startswith("Whatever")
        for verdict in verdicts
        if verdict.verdict is Verdict.REFUTED
    )


def test_shares_have_an_interval_where_no_seed_differs():
    reading = exact("same/p2d")(
        [{**row, "hits": row.get("hits") and 100.0} for row in fake(0.0, 1.0) if "split" in row]
    )
    assert reading.value == reading.high == 1.0
    assert 0.98 < reading.low < 0.99  # Wilson's for 300 of 300: 0.987


def test_varied_cells_differ_in_what_they_say():
    base = shape(Config(), Variant.MEDIUM, 9)
    assert shape(Config(), Variant.UNTIED, 9) == base
    small, large = (shape(Config(), variant, 9) for variant in (Variant.SMALL, Variant.LARGE))
    assert [(d.width, d.layers) for d in (small, base, large)] == [(64, 1), (128, 2), (192, 3)]
    kinds = {
        variant: Transformer(shape(Config(), variant, 9))
        for variant in (Variant.MEDIUM, Variant.LLAMA)
    }
    counts = [sum(p.numel() for p in model.parameters()) for model in kinds.values()]
    assert abs(counts[0] - counts[1]) < 0.02 * counts[0]
    assert [len(task_spec(Config(), v).build(Lab()).splits["train"].data) for v in VARIED[5:]] == [
        1200,
        3000,
        600,
    ]


def test_the_same_study_fine_tunes_a_causal_lm_on_the_published_format(tmp_path):
    data = tmp_path / "data"
    for name, text in toy().texts:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text)
    config = Config(
        budget=Budget(steps=80, batch_size=8, lr=1e-2),
        seeds=1,
        folder=str(tiny(tmp_path / "model")),
        data=str(data),
    )
    made = list(study.cells(config))
    assert [cell.arm for cell in made] == [Variant.PRETRAINED, Variant.CELEBRITIES]
    rows = [row for cell in made for row in run(cell, Lab(seed=cell.seed))]
    splits = {row["split"]: row for row in rows if "split" in row}
    assert set(splits) == {
        "same/p2d",
        "same/d2p",
        "both/p2d",
        "both/d2p",
        "reverse/p2d",
        "reverse/d2p",
    }
    assert splits["same/p2d"]["main"]
    assert splits["same/p2d"]["loss"] < 3.0 < torch.tensor(95.0).log()
    assert all(value == value for row in rows for value in row.values())
    assert (rows[-1]["pairs"], rows[-1]["reversible"]) == (2, 1)


def test_a_missing_model_or_broken_archive_is_named(tmp_path):
    config = replace(SMOKE, folder=str(tmp_path / "nothing"))
    with pytest.raises(MissingFile, match="nothing"):
        run(next(iter(study.cells(config))), Lab())
    (tmp_path / "facts.tar.xz").write_bytes(b"\x00" * 64)
    config = replace(SMOKE, data=str(tmp_path / "facts.tar.xz"), published=True)
    with pytest.raises(CorruptFile, match=r"facts\.tar\.xz"):
        run(Cell(config, Variant.CELEBRITIES, 0), Lab())
