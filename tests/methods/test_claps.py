"""Contrast with adversarial perturbations on a random T5, in float64."""

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.adversarial_states import cosines, random_directions
from unseen.engine.loop import Budget, Draw
from unseen.engine.response_losses import info_nce
from unseen.engine.token_pairs import encode_pairs, pair
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.claps import (
    CLAPS,
    Perturbation,
    ReadPairs,
    _WithProjection,
    example,
    word_probabilities,
)
from unseen.methods.finetune import Finetune
from unseen.models.encoder_decoder import t5
from unseen.models.response_loss import response_log_likelihood
from unseen.models.transformer import Decoder, Transformer
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.token_pairs import TokenPairs

transformers = pytest.importorskip("transformers")

LETTERS = "abcdefgh"
PAIRS = tuple(
    pair(" ".join(LETTERS[k : k + 3]), " ".join(reversed(LETTERS[k : k + 2 + k % 3])))
    for k in range(6)
)
SPEC = TokenPairs("pairs", PAIRS, {"same": PAIRS}, repeats=True)


def batch():
    return dict(encode_pairs(PAIRS, SPEC.vocabulary).columns)


def random_model(seed=0, width=32):
    """A T5 far from uniform predictions with a projection, both in float64."""
    with Lab(seed).child("init").seeded():
        model = t5(len(SPEC.vocabulary), width=width, layers=2, heads=4, dropout=0.0)
        for name, p in model.named_parameters():
            nn.init.normal_(p, std=1.0 if "norm" in name else 0.3)
        projection = nn.Sequential(nn.Linear(width, width), nn.ReLU())
    return _WithProjection(model, projection).double().eval()


def read(both=None, columns=None, temperature=0.1):
    both = random_model() if both is None else both
    return ReadPairs.of(
        both.model, both.projection, batch() if columns is None else columns, temperature
    )


def gradient_norms(pairs):
    z = pairs.states.target.detach().requires_grad_()
    (g,) = torch.autograd.grad(pairs.likelihood_loss(z), z)
    return g.norm(dim=1).sum()


def test_an_imposters_loss_rises_by_the_radius_times_the_norms_of_the_gradient():
    """Σ_t ‖g_t‖ of the summed loss, to first order: the error falls in proportion to ε."""
    pairs = read()
    slope, here = gradient_norms(pairs), pairs.likelihood_loss(pairs.states.target)
    errors = []
    for radius in (1e-1, 1e-2, 1e-3, 1e-4):
        rise = pairs.likelihood_loss(pairs.imposter(radius)) - here
        errors.append((rise / (radius * slope) - 1).abs().item())
    assert errors[0] < 0.2
    for larger, smaller in pairwise(errors):
        assert smaller == pytest.approx(larger / 10, rel=0.3)


def test_an_imposter_beats_fifty_random_directions():
    pairs = read()
    here = pairs.likelihood_loss(pairs.states.target)
    states, generator = pairs.states.target.detach(), Lab().generator()
    moved = [states + 0.1 * random_directions(states, generator) for _ in range(50)]
    best = max((pairs.likelihood_loss(one) - here).item() for one in moved)
    assert (pairs.likelihood_loss(pairs.imposter(0.1)) - here).item() > 2 * best


def test_tokens_move_by_the_radius():
    pairs = read()
    lengths = (pairs.imposter(1.0) - pairs.states.target).norm(dim=1)
    assert_close(lengths, torch.ones_like(lengths), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_the_first_step_raises_the_contrast_and_the_second_descends_the_divergence(seed):
    pairs = read(random_model(seed))
    states, radius = pairs.states.target.detach(), 0.02
    away = states + radius * _directions(pairs.contrast_loss, states)
    assert pairs.contrast_loss(away) > pairs.contrast_loss(states)
    # on average over rows: the loss of a row also rises through its negatives
    assert pairs.similarity(away).mean() < pairs.similarity(states).mean()
    down = _directions(pairs.divergence, away)
    # a short step: as long as the first one it may overshoot, since both lengths scale alike
    assert pairs.divergence(away - 0.01 * radius * down) < pairs.divergence(away)
    assert_close(pairs.distant_target(radius), away - radius * down)


def _directions(loss, states):
    z = states.detach().requires_grad_()
    (g,) = torch.autograd.grad(loss(z), z)
    return g / g.norm(dim=1, keepdim=True)


def test_the_divergence_equals_a_loop():
    pairs = read()
    moved = pairs.imposter(0.3)
    p = pairs.states.logits.softmax(1).detach().numpy()
    head = pairs.model.model.get_output_embeddings().weight.detach().numpy()
    logits = moved.detach().numpy() @ head.T
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    total = sum(
        p[t, v] * np.log(p[t, v] / q[t, v]) for t in range(len(p)) for v in range(p.shape[1])
    )
    assert pairs.divergence(moved).item() == pytest.approx(total / len(p), rel=1e-6)


def double_loop(anchors, views, imposters, distant, tau, positive_tau):
    """L_neg and L_pos as they are written, a pair at a time."""

    def cos(a, b):
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))

    n = len(anchors)
    l_neg = l_pos = 0.0
    for i in range(n):
        hard = cos(anchors[i], imposters[i])
        positive = cos(anchors[i], distant[i])
        s = [cos(anchors[i], views[j]) for j in range(n)]
        below = sum(np.exp(x / tau) for x in s) + np.exp(hard / tau)
        l_neg -= np.log(np.exp(s[i] / tau) / below)
        s[i] = positive
        below = sum(np.exp(x / positive_tau) for x in s) + np.exp(hard / positive_tau)
        l_pos -= np.log(np.exp(positive / positive_tau) / below)
    return l_neg / n, l_pos / n


@pytest.mark.parametrize("released_code", [False, True])
def test_losses_equal_a_double_loop(released_code):
    """The authors' code leaves L_pos undivided by the temperature."""
    both = random_model()
    pairs = read(both)
    method = CLAPS(relative=False, released_code=released_code)
    found = method.contrast(pairs, None)
    one = lambda states: pairs.view(states).detach().numpy()  # noqa: E731
    l_neg, l_pos = double_loop(
        pairs.anchors.detach().numpy(),
        one(pairs.states.target),
        one(pairs.imposter(method.imposter_radius)),
        one(pairs.distant_target(method.distant_radius)),
        0.1,
        1.0 if released_code else 0.1,
    )
    assert found.item() == pytest.approx((l_neg + l_pos) / 2, abs=1e-6)


def test_without_perturbations_it_is_in_batch_contrast():
    """Peer: cross-entropy of cosines over the temperature, as SimCSE and sentence-transformers
    have it.
    """
    pairs = read()
    similarity = nn.functional.cosine_similarity(
        pairs.anchors[:, None], pairs.view(pairs.states.target)[None], dim=2
    )
    expected = nn.functional.cross_entropy(similarity / 0.1, torch.arange(len(PAIRS)))
    assert_close(CLAPS(Perturbation.NONE).contrast(pairs, None), expected)
    # positives that did not move
    still = CLAPS(Perturbation.NOISE, distant_radius=0.0).contrast(pairs, Lab().generator())
    assert_close(still, expected)
    assert_close(pairs.contrast_loss(pairs.states.target), expected)
    similarity = cosines(pairs.anchors, pairs.view(pairs.states.target))
    assert_close(info_nce(similarity, 0.1).mean(), expected)


def test_one_pair_without_an_imposter_has_no_contrast():
    columns = {k: v[:1] for k, v in batch().items()}
    loss = CLAPS(Perturbation.NONE).contrast(read(columns=columns), None)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("perturbation", [Perturbation.NONE, Perturbation.ADVERSARIAL])
def test_padding_changes_no_loss(perturbation):
    both, draw = random_model(), Draw({}, {}, 1)
    method = CLAPS(perturbation)
    wide = {k: nn.functional.pad(v, (0, 5)) if v.dim() == 2 else v for k, v in batch().items()}
    plain, padded = (method.losses(both, one, draw) for one in (batch(), wide))
    assert_close(padded.nll, plain.nll, atol=1e-6, rtol=0)
    assert_close(padded.contrast, plain.contrast, atol=1e-6, rtol=0)
    # padding inside the joined rows: each source and target alone, whatever the batch's widths
    long = {k: torch.cat([v, v[5:]]) for k, v in batch().items()}
    pairs, more = read(both), read(both, long)
    n = len(pairs.states.target)
    assert_close(more.states.target[:n], pairs.states.target, atol=1e-6, rtol=0)


def test_the_likelihood_is_the_mean_over_tokens():
    both = random_model()
    found = CLAPS().losses(both, batch(), Draw({}, {}, 1)).nll
    total = response_log_likelihood(both.model, batch())
    assert_close(found, -total.sum() / batch()["mask"].sum())


def test_perturbing_leaves_accumulated_gradients_alone():
    both = random_model()
    CLAPS().losses(both, batch(), Draw({}, {}, 1)).nll.backward()
    before = {k: None if p.grad is None else p.grad.clone() for k, p in both.named_parameters()}
    pairs = read(both)
    pairs.imposter(0.1)
    pairs.distant_target(0.1)
    CLAPS().contrast(pairs, None)
    for name, p in both.named_parameters():
        same = p.grad is None if before[name] is None else torch.equal(p.grad, before[name])
        assert same, name


def test_contrast_reaches_projection_encoder_and_decoder_but_not_through_what_moved():
    both = random_model()
    pairs = read(both)
    CLAPS().contrast(pairs, None).backward()
    asking = [name for name, p in both.named_parameters() if p.grad is not None and p.grad.any()]
    for part in ("projection", "model.model.encoder", "model.model.decoder"):
        assert any(name.startswith(part) for name in asking)
    # the perturbed states as plain numbers give the same gradient
    found = {name: p.grad.clone() for name, p in both.named_parameters() if p.grad is not None}
    both.zero_grad()
    pairs = read(both)
    norm = CLAPS().unit(pairs.states.target)
    imposters = pairs.imposter(0.1 * norm).numpy().copy()
    distant = pairs.distant_target(0.3 * norm).numpy().copy()
    similarity = cosines(pairs.anchors, pairs.view(pairs.states.target))
    negatives = pairs.similarity(torch.tensor(imposters))[:, None]
    own = torch.eye(len(PAIRS), dtype=torch.bool)
    positives = torch.where(own, pairs.similarity(torch.tensor(distant))[:, None], similarity)
    loss = sum(
        -(torch.cat([one, negatives], 1) / 0.1).log_softmax(1).diagonal().mean() / 2
        for one in (similarity, positives)
    )
    loss.backward()
    for name, p in both.named_parameters():
        if name in found:
            assert_close(found[name], p.grad, atol=1e-9, rtol=1e-6)


def fit(method, model=None, pairs=PAIRS):
    if model is None:
        with Lab().child("init").seeded():
            model = t5(len(SPEC.vocabulary), width=16, layers=1, heads=2, dropout=0.0)
    task = replace(SPEC, train=tuple(pairs)).build(Lab())
    return method.fit(model, task, Lab())


BUDGET = Budget(steps=6, batch_size=6, lr=1e-2)


def test_weight_zero_is_likelihood_and_draws_nothing_more():
    with Lab().child("init").seeded():
        model = t5(len(SPEC.vocabulary), width=16, layers=1, heads=2, dropout=0.0)
    pairs = tuple(pair(x, y) for x, y in zip("abcdef", "fedcba", strict=True))  # equal lengths
    plain = fit(CLAPS(weight=0.0, budget=BUDGET), copy.deepcopy(model), pairs)
    task = replace(SPEC, train=pairs).build(Lab())
    other = Finetune(BUDGET).fit(copy.deepcopy(model), task, Lab())
    assert_close(torch.tensor(plain.curves["loss"]), torch.tensor(other.curves["loss"]))
    assert plain.projection is None
    assert set(plain.start) == set(other.start)


@pytest.mark.parametrize("perturbation", list(Perturbation))
def test_it_trains_the_model_that_it_was_given(perturbation):
    method, subject = example()
    start = copy.deepcopy(subject.model)
    trained = replace(method, perturbation=perturbation).fit(subject.model, subject.task, Lab())
    assert trained.model is subject.model
    assert trained.curves["nll"][-1] < trained.curves["nll"][0]
    assert trained.curves["contrast"][-1] < trained.curves["contrast"][0]
    for name, p in start.named_parameters():
        assert torch.equal(trained.start[name], p)
    assert not any("projection" in name for name in trained.model.state_dict())


def test_imposters_are_less_likely_than_distant_targets_of_equal_norm():
    method, subject = example()
    method = replace(method, budget=replace(method.budget, steps=60))
    trained = method.fit(subject.model, subject.task, Lab())
    columns = subject.task.splits["unseen"].data.columns
    found = word_probabilities(trained, dict(columns), method)
    assert found["imposter"] < found["distant"]
    with pytest.raises(InvalidConfig, match="without contrast"):
        word_probabilities(replace(trained, projection=None), dict(columns), method)


def test_refusals():
    for wrong in ({"temperature": 0.0}, {"imposter_radius": -0.1}, {"distant_radius": -1.0}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name}={wrong[name]:g}"):
            CLAPS(**wrong)
    with pytest.raises(InvalidConfig, match="temperature=nan"):
        CLAPS(temperature=float("nan"))
    decoder = Transformer(Decoder(vocabulary=len(SPEC.vocabulary), width=16, heads=2, context=16))
    with pytest.raises(UnsupportedLayer, match="Transformer has no two parts"):
        fit(CLAPS(budget=BUDGET), decoder)


def test_rows_of_padding_and_unsupervised_targets_are_refused():
    data = encode_pairs(PAIRS, SPEC.vocabulary)
    both = random_model()
    empty = {k: v.clone() for k, v in data.columns.items()}
    empty["tokens"][2] = 0
    with pytest.raises(InvalidData, match="Row 2 has no start token"):
        read(both, empty)
    bare = {k: v.clone() for k, v in data.columns.items()}
    bare["mask"][3] = False
    with pytest.raises(InvalidData, match="Row 3 of the batch has padding only"):
        CLAPS().contrast(read(both, bare), None)
    none = data.subset(torch.arange(6))
    none.columns["mask"][:] = False
    task = Task(
        name="none",
        axis=Axis.IID,
        splits={"train": Split(none, Use.TRAIN)},
        objective=SPEC.build(Lab()).objective,
    )
    with pytest.raises(InvalidData, match="No target token of the split `train` is supervised"):
        CLAPS(budget=BUDGET).fit(both.model.float(), task, Lab())
