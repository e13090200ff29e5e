"""Ready objectives against hand formulas; each gives one number per example, whatever else is in
the batch.
"""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.lab import Lab
from unseen.objectives import (
    all_tokens_right,
    binary,
    classify,
    exact_match,
    mean_token_loss,
    next_token,
    regress,
    sequence_log_probability,
)

G = Lab(0).generator()
X = torch.randn(7, 3, generator=G, dtype=torch.float64)
TOKENS = torch.randint(5, (7, 6), generator=G)


class Table(nn.Module):
    """Logits of the next token that depend on the current one only."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(
            torch.randn(5, 5, generator=Lab(1).generator(), dtype=torch.float64)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.logits[tokens]


def linear(outputs: int) -> nn.Module:
    with Lab(2).seeded():
        return nn.Linear(3, outputs).double()


MASK = (torch.arange(6) >= 3).long().expand(7, 6)
CASES = {
    "classify": (classify, linear(4), {"x": X, "y": torch.randint(4, (7,), generator=G)}),
    "regress": (
        regress,
        linear(2),
        {"x": X, "y": torch.randn(7, 2, generator=G, dtype=torch.float64)},
    ),
    "binary": (binary, linear(1), {"x": X, "y": torch.randint(2, (7,), generator=G)}),
    "next token": (next_token, Table(), {"tokens": TOKENS}),
    "exact match": (exact_match, Table(), {"tokens": TOKENS, "mask": MASK}),
}


@pytest.mark.parametrize("case", CASES)
def test_one_number_per_example_independent_of_the_batch(case):
    objective, model, batch = CASES[case]
    order = torch.randperm(7, generator=Lab(3).generator())
    for f in (objective.loss, objective.score):
        whole = f(model, batch)
        assert whole.shape == (7,)
        assert_close(f(model, {k: v[order] for k, v in batch.items()}), whole[order])
        assert_close(
            torch.cat([f(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(7)]),
            whole,
        )


@pytest.mark.parametrize("case", CASES)
def test_relabelled_targets_follow_the_generator_and_leave_the_rest(case):
    objective, model, batch = CASES[case]
    a, b, c = (objective.relabel(model, batch, Lab(s).generator()) for s in (0, 0, 1))
    assert_close(dict(a), dict(b), rtol=0, atol=0)
    key = "labels" if "tokens" in batch else "y"
    assert not torch.equal(a[key], c[key])
    assert all(torch.equal(a[k], batch[k]) for k in batch if k != "y")
    assert_close(objective.loss(model, a).shape, objective.loss(model, batch).shape)


def test_classification_by_hand():
    _, model, batch = CASES["classify"]
    p = model(X).detach().softmax(1)
    wanted = [-math.log(float(p[i, y])) for i, y in enumerate(batch["y"])]
    assert classify.loss(model, batch).tolist() == pytest.approx(wanted)
    assert classify.score(model, batch).tolist() == [
        float(p[i].argmax() == y) for i, y in enumerate(batch["y"])
    ]


def test_drawn_classes_have_the_models_frequencies():
    model = CASES["classify"][1]
    batch = {"x": X[:1].expand(20_000, 3), "y": torch.zeros(20_000, dtype=torch.int64)}
    drawn = classify.relabel(model, batch, Lab(5).generator())["y"]
    assert_close(
        drawn.bincount(minlength=4) / 20_000,
        model(X[0]).softmax(0).detach().float(),
        rtol=0,
        atol=0.02,
    )


def test_regression_by_hand_and_for_flat_targets():
    _, model, batch = CASES["regress"]
    error = (model(X) - batch["y"]).detach()
    assert_close(regress.loss(model, batch).detach(), error.square().sum(1) / 2)
    assert_close(regress.score(model, batch).detach(), -error.abs().mean(1))
    one = linear(1)
    flat, column = ({"x": X, "y": X[:, :1].reshape(shape)} for shape in ((7,), (7, 1)))
    assert_close(regress.loss(one, flat), regress.loss(one, column))  # no [7, 7] broadcast
    drawn = regress.relabel(
        one, {"x": X[:1].expand(20_000, 3), "y": torch.zeros(20_000, 1)}, Lab(5).generator()
    )["y"]
    assert float(drawn.std()) == pytest.approx(1, abs=0.02)


def test_logistic_by_hand():
    _, model, batch = CASES["binary"]
    logit, sign = model(X).detach().squeeze(1), 2 * batch["y"] - 1
    assert_close(binary.loss(model, batch).detach(), torch.log1p(torch.exp(-sign * logit)))
    assert (
        binary.score(model, batch).tolist() == ((logit > 0) == (batch["y"] == 1)).double().tolist()
    )


def test_token_losses_by_loop_with_and_without_mask():
    model = Table()
    log_p = model.logits.detach().log_softmax(1)
    for mask in (torch.ones_like(MASK), MASK):
        batch = {"tokens": TOKENS, "mask": mask}
        for i in range(7):
            terms = [
                float(log_p[TOKENS[i, s], TOKENS[i, s + 1]]) for s in range(5) if mask[i, s + 1]
            ]
            assert mean_token_loss(model, batch)[i].item() == pytest.approx(
                -sum(terms) / len(terms)
            )
            assert sequence_log_probability(model, batch)[i].item() == pytest.approx(sum(terms))


def test_exact_match_equals_greedy_decoding_and_reads_answer_before_mask():
    model = Table()
    best = model.logits.argmax(1)
    right = torch.stack([TOKENS[:, 0], *[torch.zeros(7, dtype=torch.int64)] * 5], 1)
    for s in range(5):
        right[:, s + 1] = best[right[:, s]]
    wrong = right.clone()
    wrong[3:, 4] = (wrong[3:, 4] + 1) % 5
    tail = (torch.arange(6) >= 5).long().expand(7, 6)
    assert all_tokens_right(model, {"tokens": right}).tolist() == [1.0] * 7
    assert (
        all_tokens_right(model, {"tokens": wrong, "mask": MASK}).tolist() == [1.0] * 3 + [0.0] * 4
    )
    early = {"tokens": right.clone(), "mask": torch.ones_like(MASK), "answer": tail}
    early["tokens"][:, 1] = (
        early["tokens"][:, 1] + 1
    ) % 5  # a mistake before the answer does not count
    early["tokens"][:, 2:] = right[:, 2:]
    assert all_tokens_right(model, early).tolist() == [1.0] * 7
