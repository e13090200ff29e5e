"""The dense study: its baselines, what is stored, and claims that read its rows."""

from dataclasses import replace

import pytest
import torch

from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.studies.dense_generalist import (
    CLAIMS,
    RECOMBINED,
    Config,
    Constant,
    constants,
    first_shots,
    load_generalist,
    study,
    train_generalist,
)
from unseen.study import Scale, Verdict
from unseen.tasks.procedural_scenes import Label

SMOKE = study.scales[Scale.SMOKE]


def few(n: int):
    spec = replace(SMOKE.scenes, labels=(Label.BORDER,), n_train=12)
    return first_shots(spec.build(Lab()), n)


def test_constants_are_means_of_the_shots():
    task = few(5)
    data = task.split("train").data
    assert isinstance(data, Columns)
    assert len(data) == 5
    y, x = data.columns["y"], torch.zeros(2, 3, 16, 16)
    found = {name: model(x).sigmoid() for name, model in constants(task).items()}
    torch.testing.assert_close(found["constant"], y.mean().expand(2, 1, 16, 16))
    torch.testing.assert_close(
        found["pixel mean"][0], y.mean(0).clamp(1e-6, 1 - 1e-6), atol=1e-6, rtol=0
    )
    assert found["zero"].max() < 1e-5
    assert Constant(torch.tensor([0.5]))(x).abs().max() == 0


def test_weights_that_are_stored_are_the_generalist():
    assert isinstance(SMOKE, Config)
    trained = train_generalist(SMOKE, Lab())
    again = load_generalist(SMOKE, trained.weights())
    assert again.switch.tasks == trained.switch.tasks == [str(x) for x in SMOKE.scenes.labels]
    for name, tensor in trained.switch.state_dict().items():
        assert torch.equal(again.switch.state_dict()[name], tensor)
    encoder = trained.switch.module.image_encoder.state_dict()
    assert any(not torch.equal(encoder[name], w) for name, w in again.encoder.items())


def rows(**arms: float) -> list[dict]:
    """Three seeds around these errors, the same for both tasks, and equal ones for all shots."""
    usual = {"constant": 0.2, "matching": 0.13, "biases": 0.129, "biases and decoder": 0.12,
             "scratch": 0.19, "fine-tuned": 0.14, "all labels": 0.09}  # fmt: skip
    spread = {0: -0.0002, 1: 0.0001, 2: 0.00013}
    found: list[dict] = []
    for seed, shift in spread.items():
        for task in RECOMBINED:
            for k, (arm, value) in enumerate((usual | arms).items()):
                moved = value + shift * (1 + 0.1 * k)
                found.append({"part": "arm", "task": task, "arm": arm, "seed": seed, "rmse": moved})
            for shots in (1, 5, 10, 20):
                value = 0.15 - 0.001 * shots + shift / shots
                found.append(
                    {"part": "shots", "task": task, "shots": shots, "seed": seed, "rmse": value}
                )
    return found


def verdicts(found: list[dict]) -> list[Verdict]:
    return [claim.judge(found, Scale.LAPTOP).verdict for claim in CLAIMS]


def test_claims_follow_the_errors():
    assert set(verdicts(rows())) == {Verdict.SUPPORTED}
    worse = verdicts(rows(**{"matching": 0.16}))
    assert worse[0] is Verdict.REFUTED  # three quarters of .2 are .15
    assert verdicts(rows(**{"biases": 0.135}))[1] is Verdict.REFUTED
    assert verdicts(rows(**{"fine-tuned": 0.1}))[4] is Verdict.REFUTED


def test_claims_are_not_judged_at_smoke(smoke_runs):
    found = smoke_runs.rows("dense_generalist")
    assert {claim.judge(found, Scale.SMOKE).verdict for claim in study.claims} == {
        Verdict.NOT_JUDGED
    }
    shares = [row["share"] for row in found if row.get("arm") == "biases"]
    assert shares == pytest.approx([shares[0]] * len(shares))
