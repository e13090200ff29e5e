"""Problems made by projection: norms, permutations and streams, and that no label leaks."""

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from unseen.engine.batches import Columns
from unseen.engine.in_context import (
    change_task,
    label_tokens,
    random_maps,
    random_permutations,
)
from unseen.engine.loop import Draw
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.in_context_curve import (
    InContextCurve,
    Regime,
    nearest_neighbour,
    regime,
    ridge,
)
from unseen.method import Trained
from unseen.methods.meta_learning import MetaLearning, renew_tasks
from unseen.models.recurrent import Recurrent, hidden_like, lstm_parameters
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.task import Split, Use
from unseen.tasks.random_projections import (
    NEW_INSTANCES,
    NEW_TASKS,
    SEEN,
    RandomProjections,
    standardise,
)

SPEC = RandomProjections(tasks=3, classes=4, dim=6, n_examples=8, n_train=200, n_test=50)


@pytest.fixture(scope="module")
def task():
    return SPEC.build(Lab(1))


def columns(task, split):
    return task.splits[split].data.columns


def test_maps_keep_squared_norms_in_proportion():
    x = torch.randn(1, 1, 64)
    maps = random_maps(20_000, 16, 64, torch.Generator().manual_seed(0))
    ratio = (x @ maps.mT).square().sum(-1).mean() / x.square().sum()
    assert ratio.item() == pytest.approx(16 / 64, rel=0.02)


def test_permutations_are_uniform_bijections():
    drawn = random_permutations(12_000, 3, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.sort(1).values, torch.arange(3).expand(12_000, 3))
    counts = torch.unique(drawn, dim=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 1_800


def test_a_problem_is_the_same_whenever_it_is_made(task):
    one, other = SPEC.problems([2, 0], 64, Lab(1)), SPEC.problems([0, 1, 2], 64, Lab(1))
    assert torch.equal(one[0][0], other[0][2])
    assert torch.equal(one[1][1], other[1][0])
    again = SPEC.build(Lab(1))
    for name in task.splits:
        for key, column in columns(task, name).items():
            assert torch.equal(column, columns(again, name)[key])


def test_contexts_are_projections_of_their_instances_by_one_of_the_problems(task):
    maps, permutations = SPEC.problems([0, 1, 2], 64, Lab(1))
    train = columns(task, "train")
    used = set()
    for k in range(40):
        fits = [
            torch.allclose(train["raw"][k] @ maps[t].T, train["x"][k], atol=1e-5)
            and torch.equal(permutations[t][train["label"][k]], train["y"][k])
            for t in range(3)
        ]
        assert sum(fits) == 1
        used.add(fits.index(True))
    assert used == {0, 1, 2}


def test_evaluation_keeps_instances_and_problems_apart(task):
    """Inputs of the seen problems can be told by the instances behind them."""
    maps, _ = SPEC.problems([0, 1, 2], 64, Lab(1))
    instances = columns(task, "train")["raw"].flatten(0, 1).unique(dim=0)
    known = torch.cat([instances @ m.T for m in maps])
    for split, expected in ((SEEN, 1.0), (NEW_INSTANCES, 0.0), (NEW_TASKS, 0.0)):
        x = columns(task, split)["x"].flatten(0, 1)[:60]
        near = (torch.cdist(x, known).min(1).values < 1e-3).float().mean().item()
        assert near == pytest.approx(expected, abs=0.15)


def decoder(spec=SPEC):
    shape = Decoder(
        vocabulary=spec.classes,
        inputs=spec.dim + spec.classes,
        tied=False,
        width=16,
        layers=2,
        heads=2,
        context=spec.n_examples,
    )
    with Lab(2).seeded():
        return Transformer(shape).double().eval()


@pytest.mark.parametrize("kind", ["decoder", "LSTM"])
def test_no_position_sees_its_own_label_or_what_follows(task, kind):
    model = decoder()
    if kind == "LSTM":
        model = Recurrent(SPEC.dim + SPEC.classes, 9, SPEC.classes).double()
    x, y = columns(task, SEEN)["x"][:4].double(), columns(task, SEEN)["y"][:4]
    j = 4
    before = model(label_tokens(x, y, SPEC.classes))
    changed = y.clone()
    changed[:, j:] = (changed[:, j:] + 1) % SPEC.classes
    later = x.clone()
    later[:, j + 1 :] += 1
    after = model(label_tokens(later, changed, SPEC.classes))
    assert (before - after)[:, : j + 1].abs().max() < 1e-6
    assert (before - after)[:, j + 1 :].abs().max() > 1e-6
    changed = y.clone()
    changed[:, j - 1] = (changed[:, j - 1] + 1) % SPEC.classes
    assert (model(label_tokens(x, changed, SPEC.classes)) - before)[:, j].abs().max() > 1e-6


def test_another_projection_of_unseen_problems_leaves_the_references_alone(task):
    """Nearest neighbours ignore a rotation of a context and the names of its classes."""
    x, y = columns(task, NEW_TASKS)["x"], columns(task, NEW_TASKS)["y"]
    turn = torch.linalg.qr(torch.randn(len(x), SPEC.dim, SPEC.dim))[0]
    names = random_permutations(len(x), SPEC.classes, torch.Generator().manual_seed(3))
    changed = change_task(x, y, turn, names)
    assert torch.equal(nearest_neighbour(x, y), nearest_neighbour(*changed))
    assert ridge(x, y, 4).mean() == pytest.approx(ridge(*changed, 4).mean().item(), abs=0.05)


def test_references_are_those_of_scikit_learn(task):
    x, y = columns(task, NEW_TASKS)["x"], columns(task, NEW_TASKS)["y"]
    for k in range(20):
        given, labels = x[k, :-1].numpy(), y[k, :-1].numpy()
        one = KNeighborsClassifier(1).fit(given, labels).predict(x[k, -1:].numpy())[0]
        signs = 2 * torch.nn.functional.one_hot(y[k, :-1], 4).numpy() - 1
        two = Ridge(alpha=1.0).fit(given, signs).predict(x[k, -1:].numpy())[0].argmax()
        assert nearest_neighbour(x[k : k + 1], y[k : k + 1]).item() == (one == y[k, -1])
        assert ridge(x[k : k + 1], y[k : k + 1], 4).item() == (two == y[k, -1])


class Neighbours(torch.nn.Module):
    """Predicts the label of the nearest input before: an in-context learner without weights."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, tokens):
        x, labels = tokens[..., :-4], tokens[:, 1:, -4:]
        distance = torch.cdist(x, x)
        later = torch.ones_like(distance).triu().bool()
        nearest = distance.masked_fill(later, float("inf"))[:, 1:].argmin(-1)
        picked = labels.gather(1, nearest[..., None].expand(-1, -1, 4))
        return torch.cat([torch.zeros_like(picked[:, :1]), picked], 1)


def test_the_curve_of_a_neighbour_rule_ends_at_the_neighbours_accuracy(task):
    curve = InContextCurve(classes=4)
    trained = Trained(Neighbours(), task)
    reading, beside = curve(trained, Lab()), curve.references(trained)
    assert reading.value == beside["nearest neighbour"].value
    assert len(reading.detail) == SPEC.n_examples
    assert reading.detail[0].item() == pytest.approx(0.25, abs=0.2)  # no label yet
    assert beside["chance"].value == 0.25
    with pytest.raises(InvalidConfig, match="classes=4"):
        InContextCurve(classes=2)(trained, Lab())
    masked = Columns(**columns(task, NEW_TASKS))
    masked.columns["y"] = masked.columns["y"].clone()
    masked.columns["y"][0, 0] = -100
    split = Split(masked, Use.EVALUATE)
    with pytest.raises(InvalidData, match="begin at -100"):
        curve(replace(trained, task=replace(task, splits={**task.splits, NEW_TASKS: split})), Lab())


@pytest.mark.parametrize(
    ("accuracies", "kind"),
    [
        ((0.2, 0.2, 0.2, 0.0), Regime.FAILS),
        ((1.0, 0.3, 0.2, 0.0), Regime.MEMORISES),
        ((1.0, 0.95, 0.2, 0.0), Regime.IDENTIFIES),
        ((0.5, 0.5, 0.47, 0.26), Regime.LEARNS),
        ((0.9, 0.9, 0.47, 0.05), Regime.IDENTIFIES),
    ],
)
def test_regimes(accuracies, kind):
    assert regime(*accuracies, chance=0.2) is kind


def test_an_lstm_of_equal_parameters_carries_less():
    model = decoder()
    n = sum(p.numel() for p in model.parameters())
    hidden = hidden_like(n, 10, 4)
    lstm = Recurrent(10, hidden, 4)
    size = sum(p.numel() for p in lstm.parameters())
    assert size == lstm_parameters(10, hidden, 4, 2) <= n < lstm_parameters(10, hidden + 1, 4, 2)
    assert lstm.state_size == 4 * hidden


def test_own_rows_and_what_is_refused():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    x = torch.randn(90, 5, generator=generator) + y[:, None]
    task = RandomProjections(tasks=2, classes=3, dim=4, n_train=20, n_test=10).build_from(
        x, y, Lab()
    )
    assert columns(task, NEW_TASKS)["x"].shape == (10, 30, 4)
    with pytest.raises(InvalidData, match="at most 3 classes"):
        RandomProjections(classes=4).build_from(x, y, Lab())
    for fields in ({"tasks": 0}, {"n_examples": 1}, {"classes": 1}):
        with pytest.raises(InvalidConfig, match="out of range"):
            RandomProjections(**fields)
    with pytest.raises(InvalidConfig, match="share of the contexts"):
        MetaLearning(bias=1.5)
    bare = replace(task, splits={"train": Split(task.splits[NEW_TASKS].data, Use.TRAIN)})
    with pytest.raises(InvalidData, match="`raw` and `label`"):
        MetaLearning().fit(decoder(), bare, Lab())
    with pytest.raises(InvalidConfig, match="tied=False"):
        Decoder(vocabulary=4, inputs=3)


def test_constant_inputs_count_as_zero_with_a_warning():
    x = torch.tensor([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0]])
    with pytest.warns(UserWarning, match="1 of 2 inputs"):
        scaled = standardise(x, x)
    assert scaled[:, 1].abs().max() == 0
    assert scaled[:, 0].std().item() == pytest.approx(1)
    with pytest.raises(InvalidData, match="constant"):
        standardise(x[:, 1:], x[:, 1:])


def test_vectors_of_one_hot_tokens_are_tokens():
    """A decoder of vectors, given one-hot rows and the table as its map, is a decoder of tokens."""
    tokens = torch.randint(7, (3, 5))
    common = {"vocabulary": 7, "width": 16, "layers": 2, "heads": 2, "tied": False}
    for positions in (Positions.LEARNED, Positions.ROTARY):
        with Lab(3).seeded():
            words = Transformer(Decoder(**common, positions=positions))
            vectors = Transformer(Decoder(**common, positions=positions, inputs=7))
        state = words.state_dict()
        state["embed.weight"] = state["embed.weight"].T
        state["embed.bias"] = torch.zeros(16)
        vectors.load_state_dict(state)
        one_hot = torch.nn.functional.one_hot(tokens, 7).float()
        assert torch.allclose(words(tokens), vectors(one_hot), atol=1e-6)


def test_new_problems_are_fresh_but_for_the_biased_ones():
    raw = torch.randn(400, 5, 6)
    batch = {"raw": raw, "label": torch.randint(3, (400, 5))}
    fixed = random_maps(1, 4, 6, torch.Generator().manual_seed(1))[0]
    for bias in (0.0, 0.5, 1.0):
        draw = Draw({}, {}, generator=torch.Generator().manual_seed(2))
        new = renew_tasks(batch, fixed, 3, bias, draw)
        same = (new["x"] - raw @ fixed.T).abs().amax((1, 2)) < 1e-6
        assert same.float().mean().item() == pytest.approx(bias, abs=0.08)
        assert set(new["y"].flatten().tolist()) == {0, 1, 2}
    assert isinstance(Columns(**new), Columns)
