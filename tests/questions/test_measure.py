"""`unseen measure`: every measure that applies, once, with its reason where it does not."""

import json
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import unseen
from unseen.cli.measure import main
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.measures.coherence import alignment
from unseen.measures.worst_group import lowest
from unseen.objectives import classify, regress
from unseen.questions.audit.job import Audit
from unseen.questions.measure.catalogue import catalogue, select_measures
from unseen.questions.measure.differences import better_model, values_per_example
from unseen.questions.measure.document import MOST_COLUMNS, chunks, document
from unseen.questions.measure.evaluate import MeasureReader, as_tensors, from_tensors
from unseen.questions.measure.job import MeasureJob, counterpart
from unseen.questions.measure.results import Difference, Measurement, MeasureReport
from unseen.reading import Direction, MeasureEntry, Need, Reading, Scope
from unseen.subjects.session import open_session
from unseen.subjects.subject import Subject
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.table import clinics

TABLE = {"target": "ill", "site": "clinic", "steps": 20, "seeds": 2, "progress": False}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))


def subject(**more) -> Subject:
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
    parts = {"train": (0, 60, "here"), "seen": (60, 90, "here"), "unseen": (90, 120, "there")}
    splits = {
        name: Split(Columns(x=x[a:b], y=y[a:b]), Use.TRAIN if name == "train" else Use.EVALUATE, at)
        for name, (a, b, at) in parts.items()
    }
    task = Task(name="toy", axis=Axis.SITE, splits=splits, objective=classify)
    budget = unseen.Budget(steps=40, batch_size=16, lr=1e-2)
    made = Subject(task=task, model=lambda: nn.Linear(4, 2), classes=("low", "high"), budget=budget)
    return replace(made, **more)


def by_name(report: MeasureReport) -> dict[tuple[str, str], Measurement]:
    return {(m.name, m.split): m for m in report.measurements}


def test_every_entry_says_what_a_reader_needs():
    names = [entry.name for entry in catalogue()]
    assert len(names) == len({*names}) > 15
    for entry in catalogue():
        assert entry.meaning.endswith(".")
        assert entry.passes >= 0
        assert entry.family


def test_the_worst_group_is_one_of_the_groups_that_the_user_names():
    name = "score of the worst group"
    asked = {"measures": [name], **TABLE, "seeds": 1}
    table = clinics()
    asked["holdout"] = str(table["clinic"].iloc[0])
    table["sex"] = ["f", "m"] * (len(table) // 2) + ["f"] * (len(table) % 2)
    (without,) = unseen.measure(table, **asked).results
    assert all("--group COLUMN" in why for why in without.left_out.values())
    (named,) = unseen.measure(table, groups=["sex"], **asked).results
    assert {m.name for m in named.measurements} == {name}
    assert not named.left_out


def test_examples_in_no_group_are_no_worst_group():
    values, groups = np.repeat([0.0, 1.0], 20), np.repeat([-1, 3], 20)
    assert lowest(values, groups, 10).value == 1.0


def test_coherence_is_explained_as_it_is_computed():
    """Below 1/n where gradients oppose each other: α = ‖E g‖² / E‖g‖²."""
    (entry,) = select_measures(["coherence α"])
    assert "less, down to 0" in entry.meaning
    n = 4
    assert alignment(n * 1.0, n * 1.0, n) == pytest.approx(1 / n)  # orthogonal, of length 1
    assert alignment(0.0, n * 1.0, n) == 0.0  # they cancel
    assert alignment(n**2 * 1.0, n * 1.0, n) == 1.0


def test_a_chosen_measure_is_found_by_name_or_refused_with_its_neighbours():
    assert [one.name for one in select_measures(["oddness"])] == ["oddness"]
    with pytest.raises(UnknownName, match="no measure `odness`") as caught:
        MeasureJob(names=["odness"])
    assert "oddness" in caught.value.fix
    with pytest.raises(InvalidConfig, match="seeds=0"):
        MeasureJob(seeds=0)


def test_scores_are_measures_that_can_be_named():
    found = MeasureJob(seeds=1, names=["accuracy", "R²", "gap of accuracy"])(subject(), Lab())
    assert {m.name for m in found.measurements} == {"accuracy", "gap of accuracy"}
    assert {*found.left_out} == {"R²"}
    both = MeasureJob(seeds=1, names=["loss", "oddness"])(subject(), Lab())
    assert {m.name for m in both.measurements} == {"loss", "oddness"}
    with pytest.raises(UnknownName) as caught:
        select_measures(["?"], ["accuracy"])
    assert '"accuracy", ' in caught.value.fix


@pytest.mark.parametrize(("seeds", "over"), [(1, "examples"), (2, "examples and trainings")])
def test_intervals_are_over_trainings_where_there_are_several(seeds, over):
    found = MeasureJob(seeds=seeds, names=["accuracy", "gap of accuracy"])(subject(), Lab())
    assert {m.interval for m in found.measurements} == {over}


def test_a_trained_subject_has_every_measure_or_its_reason():
    found = MeasureJob(seeds=2)(subject(), Lab())
    rows = by_name(found)
    for entry in catalogue():
        shown = any(name == entry.name for name, _ in rows)
        assert shown or any(name.startswith(entry.name) for name in found.left_out), entry.name
    sharp = rows["sharpness within radius 0.05", ""]
    assert sharp.reading.low <= sharp.reading.value <= sharp.reading.high
    assert len(sharp.trainings) == 2
    assert sharp.trainings[0] is sharp.reading
    assert sharp.covered == 1.0
    assert rows["distance", ""].covered == 1.0  # of all weights; biases are none
    assert "no convolution" in found.left_out["spectral product, circular"]
    assert {split for name, split in rows if name == "calibration slope"} == {"seen", "unseen"}
    assert "neuron alignment" in found.left_out


def test_numbers_that_are_all_0_or_1_have_no_margins():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    parts = {"train": Use.TRAIN, "unseen": Use.EVALUATE}
    data = Columns(x=x, y=(x[:, 0] > 0).float())
    splits = {name: Split(data, use, "here") for name, use in parts.items()}
    task = Task(name="numbers", axis=Axis.SITE, splits=splits, objective=regress)
    names = ["inverse margin", "pac bayes flatness", "sharpness flatness", "weight norm"]
    given = Subject(task=task, model=lambda: nn.Linear(4, 1), trained=nn.Linear(4, 1))
    found = MeasureJob(names=names)(given, Lab())
    assert {m.name for m in found.measurements} == {"weight norm"}
    assert all("The target is a number" in found.left_out[name] for name in names[:3])


def test_a_given_model_has_no_start_and_no_other_training():
    given = subject(trained=nn.Linear(4, 2))
    found = MeasureJob()(given, Lab())
    assert "weights before training are not known" in found.left_out["landscape roughness"]
    assert "distance" in found.left_out
    assert all(not m.trainings for m in found.measurements)
    assert any("one training" in why for why in found.left_out.values())


def test_a_frozen_part_is_not_covered():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    found = by_name(MeasureJob()(subject(trained=model), Lab()))
    assert found["sharpness within radius 0.05", ""].covered == pytest.approx(10 / 30)
    assert found["calibration slope", "seen"].covered is None


def test_a_measure_that_takes_too_long_is_left_out_unless_it_is_named():
    session = open_session(subject(trained=nn.Linear(4, 2)), Lab())
    (entry,) = select_measures(["largest curvature"])
    found, left_out = MeasureReader(session, minutes=1e-9)([entry], trainings=False)
    assert not found
    assert '--measure "largest curvature"' in left_out["largest curvature"]
    assert MeasureJob(names=["largest curvature"])(subject(), Lab()).measurements


def test_a_kept_reading_comes_back_whole():
    reading = Reading(1.5, 1.0, 2.0, 7, "log odds", torch.arange(7.0), 3.0)
    again = from_tensors(as_tensors(reading))
    assert torch.equal(again.detail, reading.detail)
    assert replace(again, detail=None) == replace(reading, detail=None)
    assert from_tensors(as_tensors(Reading(1.0))).detail is None


def test_a_measure_that_takes_long_is_read_once(monkeypatch, tmp_path):
    from unseen.runs.tensors import home_cache

    monkeypatch.setattr("unseen.questions.measure.evaluate.WORTH_KEEPING", 0.0)
    lab = Lab(keeper=home_cache("audits"))
    (entry,) = select_measures(["sharpness within radius 0.05"])

    def read() -> Reading:
        session = open_session(subject(), lab, seeds=2)
        (found,), left_out = MeasureReader(session)([entry], trainings=True)
        assert not left_out
        return found

    first = read()
    monkeypatch.setattr("unseen.measures.sharpness.losses", None)
    assert replace(read().reading, detail=None) == replace(first.reading, detail=None)


def test_what_a_kept_reading_was_read_from_is_said_in_the_same_order(monkeypatch):
    from unseen.runs.tensors import home_cache

    monkeypatch.setattr("unseen.questions.measure.evaluate.WORTH_KEEPING", 0.0)
    lab = Lab(keeper=home_cache("audits"))
    (entry,) = select_measures(["flips under one perturbation of length 0.5"])
    entries = [replace(entry, most=20)]

    def caps() -> list[str]:
        session = open_session(subject(), lab, seeds=1)
        MeasureReader(session)(entries, trainings=False)
        return session.caps

    first = caps()
    assert [text.split("examples of ")[1] for text in first[:2]] == [
        "`seen`, evenly spaced.",
        "`train`, evenly spaced.",
    ]
    assert caps() == first


def test_the_command_prints_json_and_writes_a_report(capsys):
    clinics().to_csv("table.csv", index=False)
    arguments = ["--target", "ill", "--site", "clinic", "--steps", "5", "--seeds", "1"]
    assert main(["table.csv", *arguments, "--json", "--report", "page.md"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["held_out"] for row in said["measures"]} == {*clinics()["clinic"]}
    for row in said["measures"]:
        assert row["better"] in ("higher", "lower", "neither")
        assert row["meaning"]
    assert all(row["why"] for row in said["left_out"])
    page = Path("page.md").read_text("utf-8")
    assert "What they say" in page
    assert "largest curvature" in page


def test_an_estimator_has_the_measures_that_need_no_gradient():
    found = unseen.measure(
        clinics(), estimator="sklearn.linear_model:LogisticRegression", **TABLE
    ).results[0]
    assert "has no gradients" in found.left_out["largest curvature"]
    assert ("calibration slope", "unseen") in by_name(found)


def test_the_job_can_be_sent_to_another_process():
    make = pickle.loads(pickle.dumps(partial(MeasureJob, seeds=2, names=("oddness",))))
    assert make() == MeasureJob(seeds=2, names=("oddness",))


def test_members_are_the_trainings_and_keep_their_mode():
    session = open_session(subject(), Lab(), seeds=2)
    entry = next(e for e in catalogue() if Need.MEMBERS in e.needs)
    MeasureReader(session).measurement(entry, "seen", trainings=True)
    assert not any(run.model.training for run in session.models)


def test_a_plug_of_your_own_is_one_entry():
    entry = MeasureEntry(
        name="largest weight",
        measure=lambda trained, lab: Reading(float(trained.model.weight.detach().abs().max())),
        meaning="Largest weight.",
        direction=Direction.LOWER,
        family="norms",
        passes=0,
        scope=Scope.TRAINING,
    )
    session = open_session(subject(), Lab(), seeds=1)
    found, left_out = MeasureReader(session)([entry], trainings=False)
    assert not left_out
    assert found[0].reading.value == float(session.first.model.weight.detach().abs().max())


def measured(name: str, **more) -> Measurement:
    about = {"family": "sharpness", "meaning": "…", "direction": Direction.LOWER, "passes": 1}
    about |= {"interval": "examples", "reading": Reading(1.0)} | more
    return Measurement(name=name, **about)


def test_values_per_example_are_paired_over_examples_and_trainings():
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 3.0])
    readings = [Reading(float(x.mean()), n=3, detail=x) for x in (a, b)]
    mine = measured("rise", reading=readings[0], trainings=readings)
    assert values_per_example(mine).tolist() == [a.tolist(), b.tolist()]
    norms = replace(readings[0], value=7.0)  # detail that is no part of a mean
    assert values_per_example(measured("rise", reading=norms)) is None


def test_two_models_differ_over_what_pairs_there_are():
    reports = [
        MeasureJob(seeds=2, against=lambda lab: [subject(model=lambda: nn.Linear(4, 2))])(
            subject(model=lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))), Lab()
        )
    ]
    how = {(d.name, d.split): d.how for d in reports[0].differences}
    assert how["accuracy", "unseen"] == "examples and trainings, paired"
    assert how["sharpness within radius 0.05", ""] == "examples and trainings, paired"
    assert how["largest curvature", ""] == "trainings, paired by seed"
    assert "no interval" in how["mutual information of members", "seen"]
    assert not any(name.startswith("gap") or "copies" in name for name, _ in how)
    text = document(reports).sections[1].title
    assert text == "Against network"


@pytest.mark.parametrize(
    ("models", "sizes"), [(1, [1]), (3, [3]), (4, [2, 2]), (5, [2, 3]), (7, [2, 3, 2])]
)
def test_models_stand_beside_each_other_as_far_as_a_page_holds_them(models, sizes):
    reports = [MeasureReport(name=f"m{k}", task="t") for k in range(models)]
    parts = chunks(reports, MOST_COLUMNS)
    assert [len(part) for part in parts] == sizes
    assert [one for part in parts for one in part] == reports


def test_a_clear_difference_says_which_is_better():
    def difference(value: float, half: float, direction: Direction) -> Difference:
        reading = Reading(value, value - half, value + half, 9)
        return Difference(name="x", direction=direction, reading=reading, how="examples, paired")

    found = [
        difference(-1.0, 0.1, Direction.LOWER),
        difference(1.0, 0.1, Direction.LOWER),
        difference(1.0, 0.1, Direction.HIGHER),
        difference(0.1, 1.0, Direction.HIGHER),
        difference(1.0, 0.1, Direction.NEITHER),
    ]
    assert better_model(found) == ["this", "other", "this", "", ""]


def test_a_model_without_a_counterpart_is_refused():
    with pytest.raises(InvalidConfig, match="no model to compare with"):
        counterpart(subject(held_out="A"), [subject(held_out="B")])
    with pytest.raises(InvalidConfig, match="is no model"):
        unseen.measure(subject(), against="table.csv", progress=False)
    with pytest.raises(InvalidConfig, match="no table was given"):
        unseen.measure(subject(), against=LogisticRegression(), progress=False)


def test_the_audit_shows_the_same_numbers():
    lab = Lab()
    measured_here = {
        (m.name, m.split): m.reading for m in MeasureJob(seeds=2)(subject(), lab).measurements
    }
    found = Audit(seeds=2, remedies={})(subject(), lab)
    assert found.measured
    for m in found.measured:
        mine, theirs = measured_here[m.name, m.split], m.reading
        assert (theirs.value, theirs.low, theirs.high) == pytest.approx(
            (mine.value, mine.low, mine.high), nan_ok=True
        )
    for name, reading in found.readings.items():
        key = tuple(name.split(": ")) if ": " in name else (name, "")
        if key in measured_here:
            assert reading.value == pytest.approx(measured_here[key].value), name
            assert reading.low == pytest.approx(measured_here[key].low, nan_ok=True), name
    shown = {m.name for m in found.measured} | {name.split(": ")[0] for name in found.readings}
    of_model = {n for n, _ in measured_here} - {"loss", "accuracy", "AUC"}
    missing = {n for n in of_model if not n.startswith(("gap", "copies"))} - shown
    assert not missing
