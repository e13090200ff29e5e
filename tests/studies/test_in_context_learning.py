"""Arms differ in their problems only; the LSTM has as many parameters and a smaller state."""

from unseen.lab import Lab
from unseen.methods.meta_learning import MetaLearning
from unseen.studies.in_context_learning import (
    CLAIMS,
    LAPTOP,
    Arm,
    build_model,
    method,
    state_size,
    study,
)
from unseen.study import Scale
from unseen.tasks.random_projections import NEW_INSTANCES, NEW_TASKS, SEEN


def test_smoke_runs_hold_a_curve_for_every_split(smoke_runs):
    rows = smoke_runs.rows("in_context_learning")
    for arm in Arm:
        for split in (SEEN, NEW_INSTANCES, NEW_TASKS):
            curve = [r for r in rows if r["arm"] == arm and r.get("curve") == split]
            assert [row["position"] for row in curve] == [1, 2, 3, 4, 5, 6]
            (row,) = (r for r in rows if r["arm"] == arm and r.get("split") == split)
            assert abs(float(row["accuracy"]) - float(curve[-1]["at"])) < 1e-9


def test_the_lstm_has_as_many_parameters_and_less_state():
    with Lab().seeded():
        models = {arm: build_model(LAPTOP, arm) for arm in (Arm.BIASED, Arm.RECURRENT)}
    sizes = {arm: sum(p.numel() for p in model.parameters()) for arm, model in models.items()}
    assert 0.97 < sizes[Arm.RECURRENT] / sizes[Arm.BIASED] <= 1
    state = {arm: state_size(LAPTOP, model) for arm, model in models.items()}
    assert state[Arm.BIASED] == 2 * LAPTOP.layers * LAPTOP.task.n_examples * LAPTOP.width
    assert state[Arm.RECURRENT] < state[Arm.BIASED] / 10


def test_arms_differ_in_bias_only():
    fresh, biased = method(LAPTOP, Arm.FRESH), method(LAPTOP, Arm.BIASED)
    assert isinstance(fresh, MetaLearning)
    assert isinstance(biased, MetaLearning)
    assert (fresh.bias, biased.bias) == (0.0, 0.5)
    assert fresh.budget == biased.budget
    assert sum(cell.arm is Arm.RECURRENT for cell in study.cells(LAPTOP)) == 1


def rows(seen, new, fresh, biased):
    found = []
    for seed in range(3):
        for arm, split, right in (
            (Arm.FEW, SEEN, seen),
            (Arm.FEW, NEW_INSTANCES, seen),
            (Arm.FEW, NEW_TASKS, new),
            (Arm.FRESH, NEW_TASKS, fresh),
            (Arm.BIASED, NEW_TASKS, biased),
        ):
            right = right + 3 * seed * (arm is Arm.BIASED)
            facts = {"seed": seed, "arm": arm, "split": split, "n": 1_000, "right": right}
            found.append({**facts, "accuracy": right / 1_000, "gain": right / 1_000 - 0.2})
    return found


def test_claims():
    def verdicts(found):
        return [claim.judge(found, Scale.LAPTOP).verdict.value for claim in CLAIMS]

    assert verdicts(rows(960, 200, 200, 470)) == ["supported"] * 7
    assert verdicts(rows(700, 400, 470, 210)) == ["refuted"] * 7
