"""The hinting study: the probe reads the model's own attention, temperatures begin as identities,
and claims read their rows.
"""

from dataclasses import replace

import pytest
import torch

from unseen.lab import Lab
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.studies.task_hinting import (
    FIXED,
    Arm,
    attention_targets,
    run,
    study,
    successor_attention,
)
from unseen.study import Scale, Verdict, pick
from unseen.study.grid import Cell
from unseen.tasks.algorithmic import Sort

SMOKE = study.scales[Scale.SMOKE]


@pytest.fixture(scope="module")
def model():
    shape = Decoder(vocabulary=50, width=16, layers=2, heads=2, positions=Positions.NONE)
    with Lab(1).seeded():
        model = Transformer(shape).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(20)
    return model


def test_targets_are_where_the_softmax_is_largest(model):
    tokens = torch.randint(50, (4, 7), generator=Lab().generator())
    found = attention_targets(model, tokens)
    assert found.shape == (2, 2, 4, 7)
    assert (found <= torch.arange(7)).all()
    # a value that only the target holds decides what the head writes: the first layer by hand
    x = model.blocks[0].attention_norm(model.embed(tokens))
    q, k, _ = model.blocks[0].attention.qkv(x).view(4, 7, 3, 2, 8).unbind(2)
    for b in range(4):
        for head in range(2):
            for i in range(7):
                weights = torch.stack([q[b, i, head] @ k[b, j, head] for j in range(i + 1)])
                assert int(weights.argmax()) == int(found[0, head, b, i])


def test_a_head_that_always_looks_at_the_successor_is_found(model, monkeypatch):
    data = Sort(20).draw(5, 8, Lab().generator())
    tokens = data.columns["tokens"]
    looked = torch.zeros(2, 2, *tokens.shape, dtype=torch.long)
    for b, row in enumerate(tokens.tolist()):
        source, written = row[1:6], row[7:12]
        for k in range(4):
            looked[1, 0, b, 7 + k] = 1 + source.index(written[k + 1])
    monkeypatch.setattr("unseen.studies.task_hinting.attention_targets", lambda *_: looked)
    assert successor_attention(model, data)[1, 0] == 1
    assert successor_attention(model, data)[0, 0] == 0


def test_at_the_trained_length_a_fixed_temperature_changes_nothing():
    rows = list(run(Cell(replace(SMOKE, n=50), Arm.PLAIN, 0), Lab()))
    (plain,) = pick(rows, arm="plain", times=1)
    (tempered,) = pick(rows, arm=FIXED, times=1)
    assert plain["hits"] == tempered["hits"]


def test_claims_read_their_rows():
    rows = []
    for seed in range(3):
        for arm, far in (("plain", 0.0), (FIXED, 0.7), (Arm.HINT.value, 0.0)):
            for times, value in ((1, 1.0), (3, 0.85), (5, far + 0.01 * seed)):
                exact = min(1.0, value)
                rows.append(
                    {"arm": arm, "times": times, "exact": exact, "hits": round(300 * exact)}
                    | {"n": 300, "seed": seed}
                )
    by_says = {claim.says: claim.judge(rows, Scale.LAPTOP).verdict for claim in study.claims[:8]}
    fails = "Plain sorting fails at five times the trained length (at most 0.1)."
    lifts = "A temperature fixed beforehand, ln n / ln L, lifts it there by at least 0.3."
    hint = "It does at five times the length, by at least 0.1, at equal steps."
    assert by_says[fails] is Verdict.SUPPORTED
    assert by_says[lifts] is not Verdict.REFUTED
    assert by_says[hint] is not Verdict.SUPPORTED
