"""The parts of an audit on every kind of subject: each works or is skipped by name, none ends the
audit.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.conv import cnn
from unseen.objectives import classify, exact_match, regress
from unseen.questions.audit import job, model, training_data
from unseen.questions.audit.job import Audit, Subject
from unseen.reading import Reading
from unseen.runs import progress
from unseen.runs.progress import Shares
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.images import Collection, Images

BUDGET = Budget(steps=10, batch_size=20)
ONCE = Audit(seeds=1, remedies={}, measures={})
G = torch.Generator().manual_seed(0)
X = torch.randn(120, 4, generator=G)
Y = (X[:, 0] > 0).long()


def columns(rows: slice) -> Columns:
    return Columns(x=X[rows], y=Y[rows])


def task_of(fit, judge, objective=classify, **more: Split) -> Task:
    splits = {
        "train": Split(fit, Use.TRAIN, "Bern"),
        "Basel": Split(judge, Use.EVALUATE, "Basel"),
        **more,
    }
    return Task(name="toy", axis=Axis.SITE, splits=splits, objective=objective)


TASK = task_of(columns(slice(60)), columns(slice(60, 120)))


SHARED = nn.Linear(4, 2)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def audited(job: Audit = ONCE, **subject):
    return job(Subject(**{"task": TASK, "model": net, "budget": BUDGET, **subject}), Lab())


def test_planted_copies_are_counted():
    x = X[60:].clone()
    x[:7] = X[:7]
    x[7:9] = X[7:9] + 1e-4
    found = audited(task=task_of(columns(slice(60)), Columns(x=x, y=Y[60:])))
    (overlap,) = found.overlaps
    assert (overlap.exact, overlap.near, overlap.n) == (7, 2, 60)


def test_every_reading_has_an_interval_and_n():
    found = audited(classes=("low", "high"), features={"first": [0], "rest": [1, 2, 3]})
    readings = (
        [s.reading for s in found.scores]
        + [g.worse for g in found.gaps]
        + [f.reliance for f in found.features]
    )
    readings += found.readings.values()
    assert "coherence α of high" in found.readings
    assert all(r.n > 0 and np.isfinite([r.low, r.high]).all() for r in readings)
    assert all(r.low <= r.value <= r.high for r in readings)


def test_a_feature_that_decides_is_relied_on_and_noise_is_not():
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-9.0, 0, 0, 0], [9.0, 0, 0, 0]]))
        model.bias.zero_()
    found = audited(trained=model, features={"first": [0], "rest": [1, 2, 3]})
    first, rest = found.features
    assert first.reliance.low > 0.3
    assert (rest.reliance.value, rest.reliance.high) == (0, 0)
    assert found.score("Basel", "accuracy").value == 1


@pytest.mark.parametrize("kind", ["instance", "function", "fitted"])
def test_an_estimator_is_a_subject_as_it_is(kind):
    forest = RandomForestClassifier(10, random_state=0)
    fitted = RandomForestClassifier(10, random_state=0).fit(X[:60].numpy(), Y[:60].numpy())
    given = {
        "instance": {"model": forest},
        "function": {"model": lambda: forest},
        "fitted": {"trained": fitted},
    }[kind]
    found = audited(**{"model": forest, **given})
    assert found.name == "RandomForestClassifier"
    want = fitted.score(X[60:].numpy(), Y[60:].numpy())
    assert found.score("Basel", "accuracy").value == pytest.approx(want)
    assert {"coherence", "self-influence"} <= set(found.skipped)
    assert found.worst
    assert found.checked["suspected labels"].rates
    assert "no gradients" in found.skipped["coherence"]


def test_a_regressor_is_a_subject():
    y = X @ torch.tensor([1.0, 2, 3, 4])
    task = task_of(Columns(x=X[:60], y=y[:60]), Columns(x=X[60:], y=y[60:]), regress)
    found = audited(task=task, model=LinearRegression())
    assert found.score_name == "mean absolute error"
    assert found.score("Basel", "R²").value == pytest.approx(1)


@pytest.mark.parametrize("model", [LinearRegression(), LinearSVC()])
def test_an_estimator_that_cannot_give_what_is_needed_is_refused(model):
    with pytest.raises(InvalidData):
        audited(model=model)


def test_what_the_subjects_own_code_raises_is_a_named_skip():
    def show(split: str, index: int) -> str:
        raise OSError("no picture")

    found = audited(groups={"ward": lambda batch: batch["ward"]}, features={"far": [99]}, show=show)
    assert "no column `ward`" in found.skipped["group ward on `Basel`"]
    assert "the columns are `x`, `y`" in found.skipped["group ward on `Basel`"]
    assert "no picture" in found.skipped["showing examples"]
    assert "features" in found.skipped
    assert found.score("Basel", "accuracy")
    assert found.conflicting


class Stream(IterableDataset):
    def __iter__(self):
        return ({"x": X[i], "y": Y[i]} for i in range(60))


def test_a_stream_is_fitted_and_what_needs_a_lookup_is_skipped():
    found = audited(task=task_of(Stream(), columns(slice(60, 120))))
    assert {"suspected labels", "worst errors"} <= set(found.skipped)
    assert found.readings["coherence α"].n == 60
    assert found.sizes["train"] in (0, 60)


class Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(7, 8), nn.LayerNorm(8), nn.Linear(8, 7)

    def forward(self, tokens):
        return self.head(self.norm(self.embed(tokens).cumsum(1)))


def test_tokens_without_x_and_y():
    tokens, mask = torch.randint(0, 7, (60, 6), generator=G), torch.ones(60, 6)
    judge = tokens[30:].clone()
    judge[0] = tokens[0]
    task = task_of(
        Columns(tokens=tokens[:30], mask=mask[:30]),
        Columns(tokens=judge, mask=mask[30:]),
        exact_match,
    )
    found = audited(task=task, model=Language)
    assert found.score("Basel", "accuracy")
    assert found.readings["coherence α"].n == 30
    assert (found.overlaps[0].exact, found.overlaps[0].near) == (1, None)
    assert {"calibration", "features"} <= set(found.skipped)


def test_a_given_model_keeps_its_mode_and_weights():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = audited(trained=model)
    assert found.seeds == 1
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "uses",
    [(Use.TRAIN,), (Use.TRAIN, Use.SELECT), (Use.TRAIN, Use.TRAIN, Use.EVALUATE, Use.EVALUATE)],
)
def test_any_set_of_splits(uses):
    splits = {
        f"s{k}": Split(columns(slice(30 * k, 30 * k + 30)), use, f"p{k}")
        for k, use in enumerate(uses)
    }
    task = Task(name="toy", axis=Axis.DOMAIN, splits=splits, objective=classify)
    found = audited(Audit(seeds=1, remedies={}), task=task)
    assert "largest curvature" in found.readings
    assert len(found.unseen) == sum(use is Use.EVALUATE for use in uses)


def test_one_judged_split_that_cannot_be_scored_is_left_out():
    broken = Split(Columns(x=torch.full((9, 4), torch.nan), y=Y[:9]), Use.EVALUATE, "Genf")
    found = audited(task=task_of(columns(slice(60)), columns(slice(60, 120)), Genf=broken))
    assert "not finite" in found.skipped["split `Genf`"]
    assert found.unseen == ["Basel"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": task_of(TensorDataset(X, Y, Y), columns(slice(60)))}, "a tuple of 3"),
        ({"model": lambda: nn.Linear(3, 2)}, "raised RuntimeError"),
        ({"model": lambda: SHARED}, "same model twice"),
        ({"task": task_of(columns(slice(60)), columns(slice(0)))}, "empty"),
    ],
)
def test_a_subject_that_cannot_run_says_so(change, said):
    with pytest.raises(InvalidData, match=said):
        audited(Audit(seeds=2, remedies={}, measures={}), **change)


def test_a_paired_comparison_is_the_difference_of_the_scores():
    from unseen.models.estimator import Estimator

    found = audited(references={"logistic regression": lambda: Estimator(LogisticRegression(), 2)})
    wanted = ("logistic regression", "accuracy")
    change = next(o.change for o in found.comparisons if (o.remedy, o.metric) == wanted)
    theirs, mine = (
        found.score("Basel", "accuracy", model="logistic regression"),
        found.score("Basel", "accuracy"),
    )
    assert change.value == pytest.approx(theirs.value - mine.value)


def test_flipped_labels_of_images_rank_first():
    task = Images(Collection.FASHION_MNIST_SMALL, 1_000, 100, side=14, label_noise=0.1).build(
        Lab(seed=0)
    )
    job = Audit(seeds=1, remedies={}, measures={}, worst=1)
    found = job(Subject(task=task, model=lambda: cnn((8, 16), 10), budget=Budget(steps=120)), Lab())
    wrong = task.splits["train"].data[torch.arange(1_000)]["wrong"]
    belief = found.checked["suspected labels"].detail
    assert stats.auc(list(belief.values()), wrong.numpy()).value > 0.88


def test_remedies_that_are_no_methods_are_refused_before_the_work():
    with pytest.raises(InvalidConfig, match="remedies=False"):
        Audit(remedies=False)  # type: ignore[arg-type]


def test_what_was_computed_from_a_part_only_is_told(monkeypatch):
    monkeypatch.setattr(training_data, "MOST_COMPARED", 1)
    monkeypatch.setattr(training_data, "FEWEST_SEARCHED", 20)
    monkeypatch.setattr(model, "MOST_SHUFFLED", 30)
    monkeypatch.setattr(model, "MOST_FEATURES", 2)
    moved = X[60:].clone()
    moved[:, 3] += 9.0
    task = task_of(columns(slice(60)), Columns(x=moved, y=Y[60:]))
    named = {f"x{k}": [k] for k in range(4)}
    found = audited(task=task, features=named)
    (overlap,) = found.overlaps
    assert (overlap.searched, overlap.n) == (20, 60)
    alone = {name: abs(np.corrcoef(X[:60, k], Y[:60])[0, 1]) for name, (k,) in named.items()}
    told = max(alone, key=lambda name: alone[name])
    assert {feature.name for feature in found.features} == {"x3", told}
    assert found.features[0].reliance.n == 30
    said = " ".join(found.decisions)
    for part in ("20 of the 60 examples", "30 of the 60 examples", "2 of 4 features"):
        assert part in said


def test_parts_are_named_in_the_order_in_which_they_are_run():
    job = replace(ONCE, measures={"norm": lambda trained, lab: Reading(1.0)})
    assert list(audited(job).seconds)[1:] == job._order([])


def test_examples_of_a_sample_keep_their_own_positions(monkeypatch):
    """Of 60 training examples every third is a candidate, and so is what is named."""
    monkeypatch.setattr(model, "MOST_CANDIDATES", 21)
    monkeypatch.setattr(training_data, "MOST_ALIKE", 11)
    monkeypatch.setattr(training_data, "MOST_STEPS", 3)
    seen = []
    data = columns(slice(60))
    data.columns["index"] = torch.arange(1_000, 1_060)

    def show(split: str, index: int) -> str:
        seen.append((split, index))
        return f"{split} {index}"

    task = task_of(data, columns(slice(60, 120)), more=Split(columns(slice(9)), Use.TRAIN))
    found = audited(task=task, show=show)
    among = {round(59 * k / 20) for k in range(21)}
    errors = [one for error in found.worst for one in (*error.helpful, *error.harmful)]
    named = [one for one in (*errors, *found.self_influential) if one.split != "more"]
    assert named
    assert {one.index for one in named} <= among
    assert {one.row - 1_000 - one.index for one in named} == {0}
    alike = {round(59 * k / 10) for k in range(11)}
    assert {one.index for one in found.conflicting} <= alike
    assert len(found.conflicting) == 10
    said = " ".join(found.decisions)
    for part in ("11 of the 60 examples", "21 of the 60 of", "trained for 3 steps"):
        assert part in said


def test_the_share_that_is_done_never_falls_and_training_alone_has_none(monkeypatch):
    monkeypatch.setattr(progress, "_REDRAW", 0.0)
    shares: list[float] = []
    sink = Shares(lambda path, share: shares.append(share))
    Audit(seeds=2, measures={})(Subject(task=TASK, model=net, budget=BUDGET), Lab(sink=sink))
    training = shares[: shares.index(next(share for share in shares if share))]
    assert len(training) >= BUDGET.steps  # it is shown to run
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("name", ["remedy: SAM", "suspected labels", "measures of the model"])
def test_parts_that_train_count_by_the_time_of_training(name):
    assert job._steps_of(name, 100.0) > 20 * job._steps_of("leaks", 100.0)
    assert job._steps_of(name, 0.0) <= 10
