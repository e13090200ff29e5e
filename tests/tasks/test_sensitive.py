"""Sensitive attributes: who has `a` = 1, bands and quarters as domains, published counts, and true
counterfactuals.
"""

import gzip
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats as sp

from unseen.data.files import content_sha256
from unseen.data.registry import compas as registered_compas
from unseen.data.registry import files_of
from unseen.data.registry import german_credit as registered_credit
from unseen.engine.batches import whole
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Axis, Use
from unseen.tasks import census_bands, compas, drifting_fairness, german_credit, sensitive
from unseen.tasks.census_bands import Band, CensusBands, band_names
from unseen.tasks.compas import Compas, compas_frame, two_year_frame
from unseen.tasks.domains import DomainSpec, leave_one_out
from unseen.tasks.drifting_fairness import DriftingFairness, World
from unseen.tasks.german_credit import GermanCredit, credit_frame
from unseen.tasks.sensitive import Sensitive
from unseen.tasks.table import Table, clinics

DATA = Path(os.environ.get("UNSEEN_DATA", "/nonexistent"))


def local(name):
    return pytest.mark.skipif(not (DATA / name).is_file(), reason=f"{name} is not in UNSEEN_DATA")


# A table


def test_a_is_read_from_the_row_of_the_table_and_group_is_label_and_a():
    made = sensitive.example().prepare(Lab())
    for name, split in made.task.splits.items():
        batch, frame = split.data.columns, made.frame.iloc[made.rows[name]]
        assert batch["a"].tolist() == (frame.sex == "female").astype(int).tolist()
        assert torch.equal(batch["group"], 2 * batch["y"] + batch["a"])
    assert any("`a` is 1 where `sex` is `female`" in said for said in made.decisions)


def test_hiding_the_column_takes_it_out_of_the_features_and_leaves_a():
    shown, hidden = sensitive.example(), replace(sensitive.example(), visible=False)
    one, two = shown.prepare(Lab()), hidden.prepare(Lab())
    assert [name for name in one.encoder.names if name.startswith("sex")] == [
        "sex = female",
        "sex = male",
    ]
    assert two.encoder.names == [name for name in one.encoder.names if not name.startswith("sex")]
    for name in one.task.splits:
        assert torch.equal(
            one.task.splits[name].data.columns["a"], two.task.splits[name].data.columns["a"]
        )
    bands = Sensitive(
        Table(clinics, target="ill", site="clinic"), "age:65", "≥ 65", visible=False
    ).prepare(Lab())
    assert not any(name.startswith("age") for name in bands.encoder.names)
    assert 0 < whole(bands.task.splits["unseen"].data, Lab())["a"].double().mean() < 1


def test_without_sites_the_splits_are_those_of_the_table():
    spec = Sensitive(Table(clinics, target="ill", drop=("clinic",)), "sex", "male")
    assert spec.domains() == ()
    assert set(spec.build(Lab()).splits) == {"train", "select", "seen"}


def test_unusable_sensitive_columns_are_refused():
    table = Table(clinics, target="ill", site="clinic")
    with pytest.raises(UnknownName, match="level of `sex`"):
        Sensitive(table, "sex", "Female").build(Lab())
    with pytest.raises(UnknownName, match="column"):
        Sensitive(table, "gender", "female").build(Lab())
    gone = clinics()
    gone.loc[3, "sex"] = None
    with pytest.raises(InvalidData, match="no value in 1 of 240 rows"):
        Sensitive(replace(table, data=gone), "sex", "female").build(Lab())
    alone = clinics()
    alone.loc[alone.clinic != "west", "sex"] = "female"
    with pytest.raises(InvalidData, match="training rows have the same `sex`"):
        Sensitive(replace(table, data=alone), "sex", "female").build(Lab())


def test_a_domain_of_one_group_is_said():
    frame = clinics()
    frame.loc[frame.clinic == "north", "sex"] = "male"
    made = Sensitive(Table(frame, target="ill", site="clinic"), "sex", "female").prepare(Lab())
    assert any("split `train:north` nobody has `sex` = `female`" in said for said in made.warnings)


# Census


def test_bands_are_named_in_the_order_of_their_numbers():
    assert band_names(np.array([17.0, 24, 25, 64, 65, 90]), (25.0, 65.0)) == [
        *["17 to 24"] * 2,
        *["25 to 64"] * 2,
        *["65 to 90"] * 2,
    ]
    named = band_names(np.arange(1.0, 17), (9.0, 10.0, 13.0))
    assert (
        sorted(set(named))
        == list(dict.fromkeys(named))
        == ["01 to 08", "09 to 09", "10 to 12", "13 to 16"]
    )


@pytest.mark.parametrize("edges", [(), (30.0, 20.0), (20.0, 20.0), (17.0, 30.0), (30.0, 91.0)])
def test_impossible_bands_are_refused(edges):
    with pytest.raises(InvalidConfig, match="do not divide"):
        band_names(np.array([17.0, 40.0, 90.0]), edges)


def test_the_column_that_makes_the_bands_is_no_feature():
    made = census_bands.example().sensitive_table().prepare(Lab())
    assert not {"age", "band", "income", "fnlwgt", "education_num"} & set(made.encoder.origin)
    assert made.held_out == "65 to 89"
    assert isinstance(census_bands.example(), DomainSpec)


@local("adult/adult.data.gz")
def test_census_bands_hold_everybody():
    sizes = {}
    for spec in leave_one_out(CensusBands(by=Band.SCHOOLING))[:1]:
        task = spec.build(Lab())
        for split in task.splits.values():
            sizes[split.at] = sizes.get(split.at, 0) + len(split.data)
    assert sum(sizes.values()) == 48_842
    assert tuple(sorted(sizes)) == CensusBands(by=Band.SCHOOLING).domains()
    assert len(CensusBands().domains()) == 6


# COMPAS


@local("compas/compas-scores-two-years-columns.csv.gz")
def test_compas_has_propublica_s_counts():
    frame = compas_frame()
    assert len(frame) == 6_172
    assert (frame.charged_again == "yes").mean() == pytest.approx(0.455, abs=5e-4)
    assert frame.race.value_counts()["African-American"] == 3_175
    assert frame.race.value_counts()["Caucasian"] == 2_103


@local("compas/compas-scores-two-years-columns.csv.gz")
def test_late_quarters_hold_only_people_who_were_charged_again_so_they_are_no_domains():
    late = compas_frame()[lambda f: f.quarter >= "2014 Q3"]
    assert (late.charged_again == "yes").all()
    assert len(late) == 600
    kept = two_year_frame()
    assert len(kept) == 5_297
    assert Compas().domains() == ("2013 Q1", "2013 Q2", "2013 Q3", "2013 Q4", "2014 Q1")
    rates = kept.groupby("quarter").charged_again.apply(lambda c: (c == "yes").mean())
    assert rates.between(0.34, 0.40).all()


@local("compas/compas-scores-two-years-columns.csv.gz")
def test_the_registered_compas_file_is_the_shared_one():
    ((name, file),) = files_of("compas").items()
    assert content_sha256(DATA / name) == file.sha256


def test_compas_keeps_its_columns_when_it_is_fetched(tmp_path):
    raw = tmp_path / "raw.csv"
    names = ["name", *registered_compas.COLUMNS, "dob"]
    raw.write_text(",".join(names) + "\n" + ",".join(["x"] * len(names)) + "\n")
    packed = registered_compas.pack([raw])
    (tmp_path / "made.csv.gz").write_bytes(packed)
    assert gzip.decompress(packed).decode().splitlines() == [
        ",".join(registered_compas.COLUMNS),
        ",".join(["x"] * 24),
    ]


def test_scores_and_days_are_no_features():
    made = compas.example().sensitive_table().prepare(Lab())
    assert set(made.encoder.origin) <= set(compas.FEATURES)
    random = replace(compas.example(), by_quarter=False)
    assert set(random.sensitive_table().prepare(Lab()).encoder.origin) <= set(compas.FEATURES)
    assert random.domains() == ()


# German credit


@local("german-credit/german.csv")
def test_german_credit_has_its_published_counts():
    frame = credit_frame()
    assert len(frame) == 1_000
    assert (frame.credit == "good").sum() == 700
    assert (frame.sex == "female").sum() == 310
    assert (
        not frame.map(lambda cell: isinstance(cell, str) and cell[:1] == "A" and cell[1:].isdigit())
        .any()
        .any()
    )
    young = GermanCredit().build(Lab())
    assert young.axis is Axis.IID
    assert (
        sum(int((1 - s.data.columns["a"]).sum()) for s in young.splits.values())
        == (frame.age < 25).sum()
    )
    ((name, file),) = files_of("german-credit").items()
    assert content_sha256(DATA / name) == file.sha256


def test_spaces_of_the_uci_file_become_commas(tmp_path):
    (tmp_path / "german.data").write_text("A11 6 A34  1 \nA12 48 A32 2\n")
    packed = registered_credit.pack([tmp_path / "german.data"])
    assert packed == b"A11,6,A34,1\nA12,48,A32,2\n"


def test_rare_purposes_are_left_out_as_domains():
    spec = german_credit.example()
    counts = german_credit.synthetic_loans().purpose.value_counts()
    fewer = replace(spec, min_rows=int(counts.max()))
    assert spec.domains() == tuple(sorted(counts.index))
    with pytest.raises(InvalidData, match="one site only"):
        fewer.domains()
    assert replace(spec, by_purpose=False).domains() == ()


# Drift

WORLDS = [
    DriftingFairness(world=world, fitted=2, future=1, n=50, n_evaluate=8_000) for world in World
]


@pytest.mark.parametrize("spec", WORLDS)
def test_the_counterfactual_of_the_counterfactual_is_the_person(spec):
    batch = spec.build(Lab(1)).splits["unseen:3"].data.columns
    a = batch["a"].bool()
    assert torch.equal(spec.features(batch["u"], a, 3, Lab(1)), batch["x"])
    assert torch.equal(spec.features(batch["u"], ~a, 3, Lab(1)), batch["counterfactual"])
    assert torch.equal(spec.features(batch["u"], a ^ True ^ True, 3, Lab(1)), batch["x"])
    assert (batch["x"][:, -1] == -batch["counterfactual"][:, -1]).all()  # a − ½


def test_only_coordinates_under_the_influence_of_a_differ():
    spec = replace(WORLDS[1], visible=False)  # on the circle a moves people along the radius only
    u, a = torch.randn(200, 4, generator=Lab().generator()), torch.arange(200) % 2 == 0
    moved = spec.features(u, ~a, 2, Lab()) - spec.features(u, a, 2, Lab())
    theta = torch.tensor(2 * torch.pi * 20 / 360)
    radial, along = (
        torch.stack([theta.cos(), theta.sin()]),
        torch.stack([-theta.sin(), theta.cos()]),
    )
    torch.testing.assert_close((moved @ radial).abs(), torch.full((200,), 0.7), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved @ along, torch.zeros(200), atol=1e-5, rtol=0)


@pytest.mark.parametrize("spec", WORLDS)
def test_a_rule_on_u_has_no_effect_of_a_and_a_rule_on_a_has_all_of_it(spec):
    batch = spec.build(Lab()).splits["unseen:3"].data.columns
    effect = (batch["x"][:, -1] > 0).double() - (batch["counterfactual"][:, -1] > 0).double()
    assert effect.abs().mean() == 1
    assert torch.equal(batch["fair"], spec.fair(batch["u"]))
    unbiased = replace(spec, bias=0.0)
    fair = unbiased.build(Lab()).splits["unseen:3"].data.columns
    gap = fair["y"][fair["a"] == 1].double().mean() - fair["y"][fair["a"] == 0].double().mean()
    assert abs(gap) < 5 * (1 / 8_000) ** 0.5
    biased = (
        batch["y"][batch["a"] == 1].double().mean() - batch["y"][batch["a"] == 0].double().mean()
    )
    assert biased > 0.15


def test_the_plane_s_fair_and_biased_rules_score_what_their_equations_say():
    """P(sign(z) = sign(z + 0.4 s + 0.3 η)), z ~ N(0, 2), by numerical integration."""
    z = np.linspace(-9, 9, 20_001)
    weight = sp.norm.pdf(z, scale=2**0.5)

    def accuracy(knows_a):
        total = 0.0
        for side in (-0.4, 0.4):
            positive = sp.norm.cdf((z + side) / 0.3)
            says = z + side > 0 if knows_a else z > 0
            total += np.trapezoid(weight * np.where(says, positive, 1 - positive), z) / 2
        return total

    assert accuracy(False) == pytest.approx(
        0.8839, abs=1e-4
    )  # 88.0 % was measured on 4,500 people: 1.5 deviations
    batch = WORLDS[0].build(Lab()).splits["unseen:3"].data.columns
    for knows_a in (False, True):
        merit = batch["u"][:, 0] + batch["u"][:, 1] + (0.8 * (batch["a"] - 0.5) if knows_a else 0)
        expected = accuracy(knows_a)
        found = ((merit > 0).long() == batch["y"]).double().mean().item()
        assert found == pytest.approx(expected, abs=5 * (expected * (1 - expected) / 8_000) ** 0.5)


def test_domains_are_in_order_of_time_and_the_judged_ones_come_last():
    task = DriftingFairness(fitted=3, future=2, n=40, n_evaluate=30).build(Lab())
    assert task.axis is Axis.TIME
    assert list(task.of(Use.TRAIN)) == ["train:1", "train:2", "train:3"]
    assert list(task.of(Use.SELECT)) == ["select:1", "select:2", "select:3"]
    assert list(task.unseen) == ["unseen:4", "unseen:5"]
    assert "counterfactual" not in task.splits["train:1"].data.columns
    assert [
        split.data.columns["domain"].unique().item() for split in task.of(Use.EVALUATE).values()
    ] == [2, 3, 4]


def test_a_longer_history_changes_no_other_domain():
    short, long = (replace(drifting_fairness.example(), fitted=k).build(Lab()) for k in (2, 3))
    assert torch.equal(
        short.splits["train:2"].data.columns["x"], long.splits["train:2"].data.columns["x"]
    )


@pytest.mark.parametrize("change", [{"fitted": 1}, {"future": 0}, {"n": 4}, {"n_evaluate": 0}])
def test_impossible_drifts_are_refused(change):
    with pytest.raises(InvalidConfig, match="DriftingFairness"):
        replace(drifting_fairness.example(), **change)
