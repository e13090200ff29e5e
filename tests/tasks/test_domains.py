"""Domain tasks: the protocol, what is divided how, other domains as validation, and data that
cannot be used.
"""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, draws
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks import domains
from unseen.tasks.domains import (
    Division,
    Domains,
    DomainSpec,
    LabelsIgnored,
    SingleClassDomain,
    drop_adapt_targets,
    leave_one_out,
    shifting_clusters,
    validate_on,
)
from unseen.tasks.table import Table, clinics
from unseen.tasks.table_domains import TableDomains, heart_sites


def columns(n, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    return Columns(x=torch.from_numpy(rng.normal(size=(n, 3))).float(), y=torch.arange(n) % classes)


class Made:
    """Own data as domains: sizes and numbers of classes."""

    def __init__(self, **sizes):
        self.sizes = sizes

    def __call__(self, lab):
        return {name: columns(*size, seed=k) for k, (name, size) in enumerate(self.sizes.items())}


def rows(split):
    return split.data.columns["index"].tolist()


def test_splits_names_uses_and_places_are_those_of_the_protocol():
    task = Domains(shifting_clusters, held_out="middle").build(Lab())
    assert {name: (split.use, split.at) for name, split in task.splits.items()} == {
        "train:west": (Use.TRAIN, "west"),
        "train:east": (Use.TRAIN, "east"),
        "select:west": (Use.SELECT, "west"),
        "select:east": (Use.SELECT, "east"),
        "seen:west": (Use.EVALUATE, "west"),
        "seen:east": (Use.EVALUATE, "east"),
        "unseen": (Use.EVALUATE, "middle"),
        "oracle": (Use.EVALUATE, "middle"),
    }
    assert set(task.unseen) == {"unseen", "oracle"}
    assert task.axis is Axis.DOMAIN
    assert task.splits["train:east"].data.columns["domain"].unique().tolist() == [2]


@given(
    sizes=st.lists(st.integers(20, 60), min_size=2, max_size=4),
    select=st.floats(0.1, 0.4),
    seen=st.floats(0.1, 0.4),
    oracle=st.floats(0.1, 0.7),
    seed=st.integers(0, 99),
)
def test_every_row_is_in_one_split_and_classes_are_divided_evenly(
    sizes, select, seen, oracle, seed
):
    spec = Domains(
        Made(**{f"d{k}": (n, 2) for k, n in enumerate(sizes)}), "d0", Division(select, seen, oracle)
    )
    task = spec.build(Lab(seed))
    for k, n in enumerate(sizes):
        parts = [rows(split) for split in task.splits.values() if split.at == f"d{k}"]
        assert sorted(row for part in parts for row in part) == list(range(n))
    for name, split in task.splits.items():
        counts = torch.bincount(split.data.columns["y"], minlength=2)
        # share · 1 + rounding of 1.5 is below 2 for shares below a half; the largest part gets what
        # the others leave
        assert abs(int(counts[0] - counts[1])) <= (1 if name.startswith(("select", "seen")) else 3)
    wanted = {"select": select, "seen": seen, "train": 1 - select - seen}
    for kind, share in wanted.items():
        assert len(task.splits[f"{kind}:d1"].data) == pytest.approx(share * sizes[1], abs=2)


def test_how_a_domain_is_divided_does_not_depend_on_the_one_left_out():
    first, second = (spec.build(Lab(3)) for spec in leave_one_out(Domains(shifting_clusters))[:2])
    assert rows(first.splits["train:east"]) == rows(second.splits["train:east"])
    assert rows(first.splits["train:east"]) != rows(
        Domains(shifting_clusters, "west").build(Lab(4)).splits["train:east"]
    )


def test_every_domain_is_left_out_once_and_the_last_by_default():
    specs = leave_one_out(heart_sites())
    assert [spec.held_out for spec in specs] == list(heart_sites().domains())
    assert Domains(shifting_clusters).build(Lab()).splits["unseen"].at == "east"
    assert all(isinstance(spec, DomainSpec) for spec in (*specs, Domains(shifting_clusters)))
    assert pickle.loads(pickle.dumps(specs[1])) == specs[1]


def test_a_validating_domain_is_not_fitted_and_selects_alone():
    task = Domains(shifting_clusters, held_out="east").build(Lab())
    inner = validate_on(task, "west")
    assert set(inner.of(Use.TRAIN)) == {"train:middle"}
    assert set(inner.of(Use.SELECT)) == {"select:west"}
    assert inner.of(Use.EVALUATE) == task.of(Use.EVALUATE)
    assert sorted(rows(inner.splits["select:west"])) == sorted(
        rows(task.splits["train:west"]) + rows(task.splits["select:west"])
    )


def test_a_validating_domain_must_be_fitted_and_not_alone():
    task = Domains(Made(a=(30, 2), b=(30, 2))).build(Lab())
    with pytest.raises(UnknownName, match="training domain"):
        validate_on(task, "b")
    with pytest.raises(InvalidData, match="only training domain"):
        validate_on(task, "a")


@pytest.mark.parametrize("sizes", [{"a": (30, 2)}, {}])
def test_fewer_than_two_domains_are_refused(sizes):
    with pytest.raises(InvalidData, match="one domain only: `a`" if sizes else "no domain"):
        Domains(Made(**sizes)).build(Lab())


def test_an_unknown_domain_is_named_with_near_ones():
    with pytest.raises(UnknownName, match="west"):
        Domains(shifting_clusters, held_out="wset").build(Lab())


def test_a_domain_of_one_class_is_said_and_all_of_one_class_are_refused():
    with pytest.warns(
        SingleClassDomain, match="`b` holds class 0 only: the domain tells the class"
    ):
        Domains(Made(a=(30, 2), b=(30, 1), c=(30, 2))).build(Lab())
    with pytest.warns(SingleClassDomain, match="recall"):
        Domains(Made(a=(30, 2), b=(30, 2), c=(30, 1))).build(Lab())
    with pytest.raises(InvalidData, match="class 0 only"):
        Domains(Made(a=(30, 1), b=(30, 1), c=(30, 2))).build(Lab())


def test_empty_parts_and_impossible_shares_are_refused():
    with pytest.raises(InvalidData, match="part `seen` of domain `a` is empty"):
        Domains(Made(a=(3, 2), b=(30, 2))).build(Lab())
    for shares in ({"select": 0.0}, {"select": 0.6, "seen": 0.4}, {"oracle": 1.0}, {"seen": -0.1}):
        with pytest.raises(InvalidConfig, match="Division"):
            Division(**shares)
    bare = Domains(shifting_clusters, division=Division(seen=0, oracle=0)).build(Lab())
    assert set(bare.of(Use.EVALUATE)) == {"unseen"}
    assert len(bare.splits["unseen"].data) == 120


class Mapped(Dataset):
    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns)

    def __getitem__(self, index):
        return self.columns[index]


class Streamed(IterableDataset):
    def __init__(self, columns):
        self.columns = columns

    def __iter__(self):
        return (self.columns[k] for k in range(len(self.columns)))


@pytest.mark.parametrize("kind", [lambda c: c, Mapped, Streamed])
def test_labels_in_an_unlabelled_split_are_said_and_never_reach_a_step(kind):
    data = columns(24)
    splits = {"train": Split(columns(24), Use.TRAIN), "more": Split(kind(data), Use.ADAPT)}
    task = Task(name="own", axis=Axis.DOMAIN, splits=splits, objective=classify)
    with pytest.warns(LabelsIgnored, match="`more` of `own` holds labels \\(y\\)"):
        bare = drop_adapt_targets(task)
    draw = next(draws(bare, Budget(steps=1, batch_size=8), Lab()))
    assert set(draw.adapt["more"]) == {"x"}
    assert set(draw.fit["train"]) == {"x", "y"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = drop_adapt_targets(bare)  # nothing left to say
    assert again.splits["more"].data is bare.splits["more"].data


def test_sites_of_a_table_are_the_same_rows_and_features_as_the_table():
    table = Table(clinics, target="ill", site="clinic", held_out="east")
    whole, parted = table.prepare(Lab(2)), TableDomains(table, "east").prepare(Lab(2))
    assert parted.encoder == whole.encoder
    for kind in ("train", "select", "seen"):
        mine = np.concatenate([parted.rows[f"{kind}:{site}"] for site in ("north", "west")])
        assert sorted(mine) == sorted(whole.rows[kind])
    assert sorted([*parted.rows["unseen"], *parted.rows["oracle"]]) == sorted(whole.rows["unseen"])
    for name, split in parted.task.splits.items():
        batch, frame = split.data.columns, parted.frame.iloc[parted.rows[name]]
        assert frame.clinic.unique().tolist() == [split.at]
        assert (batch["domain"] == parted.sites.index(split.at)).all()
        assert batch["y"].tolist() == frame.ill.tolist()
        assert batch["index"].tolist() == parted.rows[name].tolist()


def test_a_table_s_rows_in_another_order_give_domains_of_the_same_names():
    frame = clinics()
    one = TableDomains(Table(frame, target="ill", site="clinic"))
    other = TableDomains(
        Table(frame.iloc[::-1].reset_index(drop=True), target="ill", site="clinic")
    )
    assert one.domains() == other.domains() == ("east", "north", "west")


def test_local_rows_and_the_future_stay_whole():
    frame = clinics().assign(day=np.arange(240))
    task = TableDomains(Table(frame, target="ill", site="clinic", local=0.2)).build(Lab())
    assert (task.splits["local"].use, task.splits["local"].at) == (Use.TRAIN, "west")
    later = TableDomains(Table(frame, target="ill", site="clinic", time="day")).build(Lab())
    assert later.splits["later"].at == "future"
    assert {"train:east", "train:north"} <= set(later.splits)


def test_tables_without_sites_are_refused():
    with pytest.raises(InvalidData, match="column names them"):
        TableDomains(Table(clinics, target="ill"))
    with pytest.raises(InvalidConfig, match="oracle"):
        TableDomains(Table(clinics, target="ill", site="clinic"), oracle=1.0)
    one = clinics().assign(clinic="east")
    with pytest.raises(InvalidData, match="one site only"):
        TableDomains(Table(one, target="ill", site="clinic")).build(Lab())


def test_a_site_of_one_class_is_in_the_warnings():
    frame = clinics()
    frame.loc[frame.clinic == "north", "ill"] = 1
    made = TableDomains(Table(frame, target="ill", site="clinic")).prepare(Lab())
    assert any("one class" in said and "`north`" in said for said in made.warnings)


def test_a_tiny_site_without_seen_rows_is_said():
    frame = pd.concat(
        [clinics(), clinics().head(2).assign(clinic="tiny", ill=[0, 1])], ignore_index=True
    )
    made = TableDomains(Table(frame, target="ill", site="clinic", held_out="west")).prepare(Lab(1))
    absent = {f"{kind}:tiny" for kind in ("select", "seen")} - set(made.task.splits)
    assert absent
    assert all(any(name in said for said in made.decisions) for name in absent)


def test_heart_disease_has_four_domains_with_their_patients():
    task = heart_sites("Hungary").build(Lab())
    assert task.axis is Axis.SITE
    sizes = {
        site: sum(len(s.data) for s in task.splits.values() if s.at == site)
        for site in heart_sites().domains()
    }
    assert sizes == {"Cleveland": 303, "Hungary": 294, "Switzerland": 123, "VA Long Beach": 200}


def test_regression_targets_are_divided_at_random():
    def made(lab):
        return {name: Columns(x=torch.arange(20.0)[:, None], y=torch.arange(20.0)) for name in "ab"}

    task = domains.Domains(made).build(Lab())
    assert sum(len(split.data) for split in task.splits.values()) == 40
