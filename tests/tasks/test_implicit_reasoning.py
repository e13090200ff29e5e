"""Two hops and comparisons: counts, labels by reading the stated facts, what training may hold."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from unseen import testing
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Task, Use
from unseen.tasks.implicit_reasoning import Comparison, Composition

compositions = st.builds(
    Composition,
    entities=st.integers(8, 20),
    relations=st.integers(5, 9),
    out_degree=st.integers(4, 5),
    ood_share=st.sampled_from([0.0, 0.1, 0.3]),
    iid_share=st.sampled_from([0.03, 0.2]),
    phi=st.none() | st.just(0.5),
)
comparisons = st.builds(
    Comparison,
    entities=st.integers(12, 25),
    attributes=st.integers(1, 3),
    values=st.integers(2, 6),
    phi=st.none() | st.just(1.0),
    ood_share=st.sampled_from([0.2, 0.3]),
)


def rows(task: Task, split: str) -> list[tuple[tuple[int, ...], int]]:
    """Prompt and answer of every question, read off tokens and mask."""
    columns = task.splits[split].data.columns
    found = []
    for tokens, mask in zip(columns["tokens"].tolist(), columns["mask"].tolist(), strict=True):
        at = mask.index(True)
        assert sum(mask) == 1
        assert not any(tokens[at + 1 :])
        found.append((tuple(tokens[:at]), tokens[at]))
    return found


def facts_of(task: Task) -> dict[tuple[int, ...], int]:
    atomic = rows(task, "id_atomic") + (rows(task, "ood_atomic") if "ood_atomic" in task.splits
                                        else [])  # fmt: skip
    facts = dict(atomic)
    assert len(facts) == len(atomic)
    return facts


@examples(6)
@given(spec=compositions, seed=st.integers(0, 99))
def test_two_hops_through_the_stated_facts_give_every_answer(spec, seed):
    task = spec.build(Lab(seed))
    facts = facts_of(task)
    assert len(facts) == spec.entities * spec.out_degree
    for split in ("train_inferred", "iid", "ood"):
        if split not in task.splits:
            continue
        bridges = task.splits[split].data.columns["bridge"].tolist()
        for ((head, first, second), answer), bridge in zip(rows(task, split), bridges, strict=True):
            assert facts[head, first] == bridge
            assert facts[bridge, second] == answer


@examples(6)
@given(spec=compositions | comparisons, seed=st.integers(0, 99))
def test_training_holds_all_atomic_facts_and_no_evaluated_combination(spec, seed):
    task = spec.build(Lab(seed))
    train = rows(task, "train")
    assert set(facts_of(task).items()) <= set(train)
    assert set(train) == set(facts_of(task).items()) | set(rows(task, "train_inferred"))
    for split in ("iid", "ood"):
        if split in task.splits:
            assert not set(train) & set(rows(task, split))
    assert {n for n, s in task.splits.items() if s.use is Use.TRAIN} == {"train"}
    assert max(max((*p, a)) for p, a in train) < spec.vocabulary


@examples(6)
@given(spec=compositions, seed=st.integers(0, 99))
def test_the_pool_uses_combinable_facts_only_and_ood_the_others_only(spec, seed):
    task = spec.build(Lab(seed))
    known, others = (
        set(rows(task, name)) if name in task.splits else set()
        for name in ("id_atomic", "ood_atomic")
    )
    for split, allowed in (("train_inferred", known), ("iid", known), ("ood", others)):
        if split not in task.splits:
            continue
        bridges = task.splits[split].data.columns["bridge"].tolist()
        for ((head, first, second), answer), bridge in zip(rows(task, split), bridges, strict=True):
            assert ((head, first), bridge) in allowed
            assert ((bridge, second), answer) in allowed


@examples(6)
@given(spec=comparisons, seed=st.integers(0, 99))
def test_comparisons_follow_from_the_stated_values(spec, seed):
    task = spec.build(Lab(seed))
    facts = facts_of(task)
    known = {prompt for prompt, _ in rows(task, "id_atomic")}
    smallest = 1 + spec.values
    first_attribute = smallest + 3 * spec.attributes
    for split in ("train_inferred", "iid", "ood"):
        for (attribute, one, other), answer in rows(task, split):
            difference = facts[attribute, one] - facts[attribute, other]
            place = (difference > 0) - (difference < 0)
            assert answer == smallest + 3 * (attribute - first_attribute) + 1 + place
            pair = {(attribute, one), (attribute, other)}
            assert pair & known == (set() if split == "ood" else pair)


def test_counts_are_those_of_the_sheet():
    knowledge = Composition().knowledge(Lab(0))
    paths = 64 * 16 * 16
    assert (len(knowledge.id_atomic), len(knowledge.ood_atomic)) == (973, 51)
    both = len(knowledge.pool) + len(knowledge.iid)
    # paths that share a fact are not independent: their number spreads more than a binomial one
    assert both == pytest.approx(0.95**2 * paths, abs=4 * math.sqrt(64 * 0.05) * 2 * 16)
    assert len(knowledge.iid) == round(0.03 * both)
    assert 10 <= len(knowledge.ood) <= 80
    compared = Comparison(entities=100, attributes=20, values=20).knowledge(Lab(0))
    assert (len(compared.id_atomic), len(compared.ood_atomic)) == (1_800, 200)
    assert len(compared.ood) == 20 * 10 * 9
    assert len(compared.pool) + len(compared.iid) == 20 * 90 * 89


def test_published_sizes():
    knowledge = Composition(
        entities=2000, relations=200, out_degree=20, iid_share=0.005
    ).knowledge(Lab(0))  # fmt: skip
    assert (len(knowledge.id_atomic), len(knowledge.ood_atomic)) == (38_000, 2_000)
    both = len(knowledge.pool) + len(knowledge.iid)
    assert both == pytest.approx(722_000, rel=0.01)
    assert len(knowledge.ood) == pytest.approx(2_000, rel=0.2)
    assert Composition(entities=2000, relations=200).vocabulary == 2_201


@pytest.mark.parametrize("phi", [2, 6])
def test_phi_is_the_number_of_inferred_facts_per_atomic_one(phi):
    task = Composition(phi=phi).build(Lab(0))
    assert len(task.splits["train_inferred"].data) == phi * 973
    other = Composition().build(Lab(0))
    for name in ("id_atomic", "ood_atomic", "iid", "ood"):  # only training changes
        assert rows(task, name) == rows(other, name)


@pytest.mark.parametrize("spec", [Comparison(entities=12, attributes=2, values=4, phi=2)])
def test_contract(spec):
    testing.check_task(spec)


def test_refusals():
    with pytest.raises(InvalidConfig, match=r"(?s)phi=15 .*use at most 14\.\d\d"):
        Composition(phi=15).build(Lab(0))
    with pytest.raises(InvalidConfig, match="phi=0 "):
        Composition(phi=0).build(Lab(0))
    with pytest.raises(InvalidConfig, match="out_degree from 1 to 32"):
        Composition(out_degree=33)
    with pytest.raises(InvalidConfig, match="ood_share=1"):
        replace(Composition(), ood_share=1.0)
    with pytest.raises(InvalidConfig, match="iid_share=-1"):
        Comparison(iid_share=-1)
    with pytest.raises(InvalidConfig, match="values=1"):
        Comparison(values=1)
