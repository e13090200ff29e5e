"""Structural equation models: covariances, interventions, and what is no such model."""

import networkx as nx
import numpy as np
import pytest
import torch

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.tasks.linear_sem import Intervention, LinearSEM, Sites

LAB = Lab(seed=5)
CHAIN = ((0, 1, 0.8), (1, 2, -1.0), (2, 3, 0.5))


def test_the_covariance_is_that_of_drawn_examples():
    spec = LinearSEM(nodes=6, environments=1, unseen=1, n=400_000)
    many, task = spec.intervene(2, LAB), spec.build(LAB)
    for e, name in enumerate(("train:e1", "unseen:e2")):
        columns = task.splits[name].data.columns
        found = torch.cat([columns["x"], columns["y"][:, None]], 1).double().T.cov()
        moments = many.moments()
        torch.testing.assert_close(found[:-1, :-1], moments.xx[e], rtol=0.03, atol=0.1)
        torch.testing.assert_close(found[:-1, -1], moments.xy[e], rtol=0.03, atol=0.1)
        assert float(found[-1, -1]) == pytest.approx(float(moments.yy[e]), rel=0.03)


def test_a_chain_by_hand():
    spec = LinearSEM(nodes=4, edges=CHAIN, target=2)
    base = spec.mechanisms(LAB)
    assert base.inputs == [0, 1, 3]
    assert base.parents == [1]
    # v₁ = 0.8 u₀ + u₁, v₂ = −v₁ + u₂, v₃ = 0.5 v₂ + u₃
    v1 = 0.8**2 + 1
    expected = [[1, 0.8, -0.4], [0.8, v1, -0.5 * v1], [-0.4, -0.5 * v1, 0.25 * (v1 + 1) + 1]]
    np.testing.assert_allclose(base.moments().xx, expected)
    np.testing.assert_allclose(base.moments().xy, [-0.8, -v1, 0.5 * (v1 + 1)])
    assert float(base.moments().yy) == pytest.approx(v1 + 1)


@pytest.mark.parametrize("kind", list(Intervention))
@pytest.mark.parametrize("sites", list(Sites))
def test_an_environment_changes_one_mechanism_and_never_that_of_the_target(kind, sites):
    spec = LinearSEM(nodes=12, kind=kind, sites=sites)
    base, many = spec.mechanisms(LAB), spec.intervene(50, LAB)
    moved = (many.weights != base.weights).any(-1) | (many.noise2 != base.noise2)
    assert bool((moved.sum(1) == 1).all())
    assert not bool(moved[:, spec.y].any())
    touched = moved.any(0).nonzero()[:, 0].tolist()
    assert set(touched) <= set(spec.intervention_sites)
    if kind is Intervention.HARD:
        assert not bool(many.weights[moved].any())
    # no new parent
    assert not bool(many.weights[:, base.weights == 0].any())


def test_more_environments_leave_the_first_ones_alone():
    spec = LinearSEM(nodes=8)
    few, many = spec.intervene(5, LAB), spec.intervene(9, LAB)
    assert torch.equal(few.weights, many.weights[:5])
    assert torch.equal(few.noise2, many.noise2[:5])


def test_latent_variables_are_seen_through_a_matrix():
    moments = LinearSEM(nodes=6).intervene(3, LAB).moments()
    a = torch.randn(12, 5, generator=LAB.generator(), dtype=torch.float64)
    seen = moments.seen_through(a)
    torch.testing.assert_close(seen.xx[1], a @ moments.xx[1] @ a.T)
    torch.testing.assert_close(seen.xy[2], a @ moments.xy[2])
    back = seen.seen_through(torch.linalg.pinv(a))
    torch.testing.assert_close(back.xx, moments.xx)


def test_a_graph_of_networkx_is_taken():
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(CHAIN)
    assert LinearSEM.of_graph(graph, 2).mechanisms(LAB).parents == [1]


def test_cycles_are_refused_by_name():
    with pytest.raises(InvalidData, match="has a cycle: 1 → 2 → 1"):
        LinearSEM(nodes=4, edges=(*CHAIN, (2, 1, 0.3)))
    with pytest.raises(InvalidConfig, match="edge 0 → 1 is given 2 times"):
        LinearSEM(nodes=4, edges=(*CHAIN, (0, 1, 0.3)))
    with pytest.raises(InvalidConfig, match="has a node 7"):
        LinearSEM(nodes=4, edges=(*CHAIN, (3, 7, 0.3)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sites": (5, 6)}, "Node 6 is the target"),
        ({"sites": (12,)}, "of 12"),
        ({"sites": ()}, "of 12"),
        ({"nodes": 1}, "out of range"),
        ({"target": 12}, "The target is node 12"),
        ({"noise2": (0.0, 1.0)}, "two positive limits"),
    ],
)
def test_impossible_models_are_refused(fields, words):
    with pytest.raises(InvalidConfig, match=words):
        LinearSEM(**fields)
