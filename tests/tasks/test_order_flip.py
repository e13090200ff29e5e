import pytest
import torch

from unseen.engine.batches import whole
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.tasks.order_flip import IS, Document, OrderFlip, name_tokens, with_name

SPEC = OrderFlip(facts=30, new=8, tokens=8, fillers=5, copies=4)
LAB = Lab(seed=4)


def sides(tokens: torch.Tensor) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The pairs before and after "is", row by row."""
    rows = tokens.tolist()
    at = [row.index(IS) for row in rows]
    return [((r[k - 2], r[k - 1]), (r[k + 1], r[k + 2])) for r, k in zip(rows, at, strict=True)]


def facts() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    names, attributes = SPEC.pairs(LAB)
    return [tuple(p) for p in names.tolist()], [tuple(p) for p in attributes.tolist()]


def test_every_trained_fact_is_stated_in_its_order_and_as_often_as_asked():
    names, attributes = facts()
    assert len(set(names)) == len(set(attributes)) == 38
    assert not {t for pair in names for t in pair} & {t for pair in attributes for t in pair}
    train = whole(SPEC.build(LAB).splits["train"].data, LAB)
    found = sides(train["tokens"])
    wanted = [
        (names[f], attributes[f]) if f % 2 == 0 else (attributes[f], names[f])
        for f in range(30)
        for _ in range(4)
    ]
    assert found == wanted
    assert train["fact"].tolist() == [f for f in range(30) for _ in range(4)]
    at = (train["tokens"] == IS).long().argmax(1)
    assert set(at.tolist()) == {3, 4, 5, 6}  # 0 to 3 fillers in front


def test_questions_ask_the_attribute_and_name_a_wrong_one():
    names, attributes = facts()
    task = SPEC.build(LAB)
    for split, wanted in (
        ("stated", range(0, 30, 2)),
        ("flipped", range(1, 30, 2)),
        ("new", range(30, 38)),
    ):
        batch = whole(task.splits[split].data, LAB)
        assert batch["fact"].tolist() == list(wanted)
        assert sides(batch["tokens"]) == [(names[f], attributes[f]) for f in wanted]
        assert batch["tokens"][batch["answer"]].view(-1, 2).tolist() == [
            list(attributes[f]) for f in wanted
        ]
        wrong = [side[1] for side in sides(batch["other"])]
        assert all(
            w in attributes and w != attributes[f] for w, f in zip(wrong, wanted, strict=True)
        )
        assert torch.equal(batch["tokens"][~batch["answer"]], batch["other"][~batch["answer"]])
    assert set(task.unseen) == {"flipped", "new"}


def test_documents_of_new_facts_differ_in_the_fact_alone():
    names, attributes = facts()
    made = {kind: columns.columns["tokens"] for kind, columns in SPEC.documents(LAB).items()}
    new = range(30, 38)
    assert sides(made[Document.FORWARD]) == [(names[f], attributes[f]) for f in new]
    assert sides(made[Document.FLIPPED]) == [(attributes[f], names[f]) for f in new]
    others = sides(made[Document.OTHER])
    assert all(
        b == attributes[f] and a in names[30:] and a != names[f]
        for (a, b), f in zip(others, new, strict=True)
    )
    alone, forward = made[Document.ALONE], made[Document.FORWARD]
    assert not (alone == IS).any()
    assert ((alone != forward).sum(1) == 3).all()
    for f, row in zip(new, alone.tolist(), strict=True):
        assert set(attributes[f]) <= set(row)
        assert not set(names[f]) & set(row)
    fact = (made[Document.FLIPPED] != forward) | (forward == IS)
    assert (fact.sum(1) == 5).all()  # two names, "is", two attributes; fillers are shared
    trained = set(sides(whole(SPEC.build(LAB).splits["train"].data, LAB)["tokens"]))
    assert not trained & {
        pair for kind in (Document.FORWARD, Document.FLIPPED) for pair in sides(made[kind])
    }


def test_names_can_be_exchanged():
    data = SPEC.build(LAB).splits["new"].data
    names = name_tokens(data)
    assert torch.equal(with_name(data, names).columns["tokens"], data.columns["tokens"])
    shifted = with_name(data, names.roll(1, 0))
    assert torch.equal(name_tokens(shifted), names.roll(1, 0))
    assert ((shifted.columns["tokens"] != data.columns["tokens"]).sum(1) <= 2).all()


def test_too_many_facts_for_the_tokens_are_refused():
    with pytest.raises(InvalidConfig, match="different pairs"):
        OrderFlip(facts=60, new=5, tokens=8)
