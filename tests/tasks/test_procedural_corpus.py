"""Documents read back token by token state what their columns say, and no judged triple is
fitted.
"""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.tasks.procedural_corpus import (
    ARROW,
    EQUALS,
    HASH,
    IS,
    LENGTH,
    NONE,
    PLUS,
    PROCEDURES,
    REVERSE,
    Kind,
    ProceduralCorpus,
    nats_per_position,
    states,
)
from unseen.tasks.reversal import BOS, EOS, PAD, SPECIAL

SPEC = ProceduralCorpus()
TASK = SPEC.build(Lab(3))


def rows(split: str) -> list[dict[str, list[int]]]:
    columns = TASK.splits[split].data.columns
    return [
        {name: column[k].tolist() for name, column in columns.items()}
        for k in range(len(columns["tokens"]))
    ]


def read(tokens: list[int]) -> tuple[Kind, list[int], list[int]]:
    """Kind, digits asked and digits answered, from the tokens alone."""
    inside = tokens[1 : tokens.index(EOS)]
    digits = [t - SPECIAL for t in inside]
    if inside[0] in (PLUS, REVERSE):
        assert inside[4] == EQUALS
        return Kind.SUCCESSOR if inside[0] == PLUS else Kind.REVERSAL, digits[1:4], digits[5:]
    if HASH in inside:
        assert inside[3:5] == [HASH, ARROW]
        return Kind.POSTFIX, digits[:3], digits[5:]
    return (Kind.FACT if IS in inside else Kind.FILLER), [], []


def right(kind: Kind, digits: list[int]) -> list[int]:
    return digits[::-1] if kind is Kind.REVERSAL else [(d + 1) % 10 for d in digits]


def test_every_document_states_what_its_columns_say():
    wrong = total = 0
    for row in rows("train"):
        tokens, kind = row["tokens"], list(Kind)[row["kind"]]
        found, digits, answer = read(tokens)
        assert found is kind
        assert tokens[0] == BOS
        assert row["mask"] == [t != PAD for t in tokens]
        assert max(tokens) < SPEC.vocabulary == 200
        asked = [t for t, m in zip(tokens, row["answer"], strict=True) if m]
        if kind is Kind.FILLER:
            assert row["says"] == row["operands"] == [NONE] * 3
            assert asked == tokens[LENGTH - 4 : LENGTH - 1]
        else:
            assert asked == [t for t in row["says"] if t != NONE]
        if kind in PROCEDURES:
            assert row["operands"] == digits
            wrong += sum(a != b for a, b in zip(answer, right(kind, digits), strict=True))
            total += 3
        assert (row["fact"] == NONE) == (kind is not Kind.FACT)
    assert total == 3 * 2_100
    assert 0.075 < wrong / total < 0.105  # one in ten is drawn, one in ten of these is right again


def test_counts_are_those_of_the_sheet_and_facts_are_different():
    kinds = TASK.splits["train"].data.columns["kind"]
    assert torch.bincount(kinds).tolist() == [700, 700, 700, 450, 400]
    assert len(kinds) == SPEC.documents == 2_950
    facts = [row for row in rows("train") if row["fact"] != NONE]
    stated = {
        (row["fact"], *row["tokens"][(at := row["tokens"].index(IS)) - 2 : at + 3]) for row in facts
    }
    assert len(stated) == 150 == len({s[1:3] for s in stated}) == len({s[4:6] for s in stated})
    assert {row["tokens"].index(IS) for row in facts} == {3, 4, 5, 6}
    asked = {(row["fact"], *row["tokens"][1:6]) for row in rows("facts")}
    assert asked == stated


@pytest.mark.parametrize("kind", PROCEDURES)
def test_judged_triples_are_answered_rightly_and_unseen_ones_are_in_no_document_of_the_procedure(
    kind,
):
    fitted = {tuple(row["operands"]) for row in rows("train") if row["kind"] == kind.number}
    unseen, seen = (
        {tuple(row["operands"]) for row in rows(f"{name}/{kind}")} for name in ("unseen", "seen")
    )
    assert len(fitted) == 700
    assert len(unseen) == len(seen) == 300
    assert not unseen & fitted
    assert seen <= fitted
    for name in ("unseen", "seen"):
        for row in rows(f"{name}/{kind}"):
            found, digits, answer = read(row["tokens"])
            assert (found, answer) == (kind, right(kind, digits))
    assert set(TASK.unseen) == {f"unseen/{k}" for k in PROCEDURES} | {"control"}


def test_filler_words_follow_zipf():
    words = TASK.splits["train"].data.columns["tokens"][-400:, 1:-1].flatten() - (200 - 61)
    counts = torch.bincount(words, minlength=61).double()
    harmonic = sum(1 / k for k in range(1, 62))
    for k in (1, 2, 5):
        assert counts[k - 1] / counts.sum() == pytest.approx(1 / k / harmonic, rel=0.1)
    assert (words >= 0).all()


def test_kinds_have_streams_of_their_own():
    other = replace(SPEC, facts=20, fillers=30).build(Lab(3)).splits
    for name in ("tokens", "says"):
        mine = TASK.splits["train"].data.columns[name][:2_100]
        assert torch.equal(other["train"].data.columns[name][:2_100], mine)
    here, there = (
        splits["unseen/reversal"].data.columns["tokens"] for splits in (TASK.splits, other)
    )
    assert torch.equal(here, there)


def test_without_noise_every_answer_is_right():
    data = replace(SPEC, noise=0.0).build(Lab()).splits["train"].data.columns["tokens"][:2_100]
    for tokens in data.tolist():
        kind, digits, answer = read(tokens)
        assert answer == right(kind, digits)


def test_the_loss_is_proportional_to_the_nats_of_the_document_and_blind_to_padding():
    batch = TASK.splits["train"].data[torch.tensor([0, 2_200, 2_800])]
    model = Transformer(Decoder(vocabulary=200, width=8, layers=1, heads=2, context=LENGTH)).eval()
    found = nats_per_position(model, batch)
    assert_close(found, -sequence_log_probability(model, batch) / 15)
    changed = {**batch, "tokens": torch.where(batch["mask"], batch["tokens"], 7)}
    assert_close(nats_per_position(model, changed), found)


def test_states_compares_whole_answers():
    answers, documents = (
        torch.randint(-1, 2, (n, 3), generator=Lab(n).generator()) for n in (40, 50)
    )
    found = states(answers, documents)
    for a, row in zip(answers.tolist(), found.tolist(), strict=True):
        assert row == [a == d and a != [NONE] * 3 for d in documents.tolist()]
    assert found.any()
    assert isinstance(TASK.splits["train"].data, Columns)


@pytest.mark.parametrize(
    "change",
    [
        {"triples": 701},
        {"noise": 1.0},
        {"noise": -0.1},
        {"facts": 901},
        {"copies": 0},
        {"fillers": 0},
    ],
)
def test_what_cannot_be_is_refused(change):
    with pytest.raises(InvalidConfig, match=f"{next(iter(change))}={next(iter(change.values()))}"):
        ProceduralCorpus(**change)
