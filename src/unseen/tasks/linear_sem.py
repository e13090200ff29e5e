"""Linear structural equation models under random interventions (Parulekar, Shanmugam & Shakkottai,
2023, arXiv:2205.15196).

V = B V + u with B of an acyclic graph and E[u uᵀ] = diag(s²), so Cov V = (I − B)⁻¹ diag(s²)
(I − B)⁻ᵀ. One node is the target Y, the others are the inputs X. An environment changes the
mechanism of one other node.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import regress
from unseen.task import Axis, Split, Task, Use


class Intervention(StrEnum):
    """What an environment does to the node that it intervenes on."""

    SOFT = "soft"
    """New weights of its parents and a new noise variance."""
    HARD = "hard"
    """No parents any more, and a new noise variance."""


class Sites(StrEnum):
    """Which nodes are intervened on."""

    ANY = "any"
    """Every node but the target."""
    NEIGHBOURS = "neighbours"
    """The nodes just before and after the target in the order: two, however large the graph."""


@dataclass(frozen=True, eq=False)
class Mechanisms:
    """Weights and noise variances of one environment, or of many on a leading axis."""

    weights: Float[Tensor, "*e v v"]
    """B: row j holds the weights of node j's parents."""
    noise2: Float[Tensor, "*e v"]
    target: int

    @property
    def covariance(self) -> Float[Tensor, "*e v v"]:
        """(I − B)⁻¹ diag(s²) (I − B)⁻ᵀ."""
        nodes = self.weights.shape[-1]
        mixing = torch.linalg.inv(torch.eye(nodes).to(self.weights) - self.weights)
        return (mixing * self.noise2[..., None, :]) @ mixing.mT

    @property
    def inputs(self) -> list[int]:
        """All nodes but the target, in order."""
        return [j for j in range(self.weights.shape[-1]) if j != self.target]

    @property
    def parents(self) -> list[int]:
        """Positions of the target's parents among the inputs."""
        row = self.weights.reshape(-1, *self.weights.shape[-2:])[0, self.target]
        return [k for k, j in enumerate(self.inputs) if row[j] != 0]

    def moments(self) -> "Moments":
        """Covariances of X, of X with Y, and the variance of Y."""
        found, y, x = self.covariance, self.target, self.inputs
        return Moments(found[..., x, :][..., x], found[..., x, y], found[..., y, y])


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of the inputs and the target in many environments."""

    xx: Float[Tensor, "*e d d"]
    xy: Float[Tensor, "*e d"]
    yy: Float[Tensor, "*e"]

    def seen_through(self, observation: Float[Tensor, "o d"]) -> "Moments":
        """Those of Z = A X: what is observed are linear functions of the inputs."""
        return Moments(observation @ self.xx @ observation.T, self.xy @ observation.T, self.yy)

    def __getitem__(self, part: slice) -> "Moments":
        return Moments(self.xx[part], self.xy[part], self.yy[part])


@dataclass(frozen=True)
class LinearSEM:
    """A graph with a target, interventions, and data from training and unseen environments.

    Without `edges` every node j of the order 0 … `nodes` − 1 has min(j, `in_degree`) parents drawn
    from those before it, with weights ± U(0.5, 1.5) and unit noise. Splits: `train:e1` … (TRAIN)
    and `unseen:e…` (EVALUATE), with columns `x`, `y` and `domain`.
    """

    nodes: int = 12
    in_degree: int = 2
    edges: tuple[tuple[int, int, float], ...] = ()
    """Cause, effect and weight: a graph of your own."""
    target: int | None = None
    """Y; None: the node in the middle of the order."""
    sites: Sites | tuple[int, ...] = Sites.ANY
    """The nodes that are intervened on."""
    kind: Intervention = Intervention.SOFT
    noise2: tuple[float, float] = (0.25, 4.0)
    """Range of the noise variance of a node that is intervened on; all others have 1."""
    environments: int = 8
    unseen: int = 4
    n: int = 500
    """Examples of every environment."""

    def __post_init__(self) -> None:
        if self.nodes < 2 or min(self.in_degree, self.environments, self.unseen, self.n) < 1:
            raise InvalidConfig(
                f"LinearSEM(nodes={self.nodes}, in_degree={self.in_degree}, environments="
                f"{self.environments}, unseen={self.unseen}, n={self.n}) is out of range.",
                why="a target needs an input, and an environment examples.",
                fix="use nodes ≥ 2 and the others ≥ 1.",
            )
        if not 0 <= self.y < self.nodes:
            raise InvalidConfig(
                f"The target is node {self.y} of {self.nodes}.",
                why="nodes are numbered from 0.",
                fix=f"use 0 ≤ target < {self.nodes}.",
            )
        if not 0 < self.noise2[0] <= self.noise2[1]:
            raise InvalidConfig(
                f"The noise variance of an intervention lies in {self.noise2}.",
                why="it is drawn between two positive limits.",
                fix="give the lower one first, both above 0.",
            )
        pairs = Counter((cause, effect) for cause, effect, _ in self.edges)
        if repeated := [pair for pair, times in pairs.items() if times > 1]:
            cause, effect = repeated[0]
            raise InvalidConfig(
                f"The edge {cause} → {effect} is given {pairs[repeated[0]]} times.",
                why="a cause has one weight in the equation of its effect.",
                fix="give each edge once; weights that belong together are added by you.",
            )
        if self.edges:
            self.graph(np.random.default_rng(0))
        refuse_target(self.intervention_sites, self.y, self.nodes)

    @classmethod
    def of_graph(cls, graph: nx.DiGraph, target: int, **fields: object) -> "LinearSEM":
        """A weighted graph of networkx whose nodes are 0 … n − 1."""
        edges = tuple((int(a), int(b), float(w)) for a, b, w in graph.edges(data="weight"))
        return cls(nodes=len(graph), edges=edges, target=target, **fields)  # type: ignore[arg-type]

    @property
    def y(self) -> int:
        """The target's number."""
        return self.nodes // 2 if self.target is None else self.target

    @property
    def intervention_sites(self) -> tuple[int, ...]:
        """The nodes that may be intervened on."""
        if self.sites is Sites.ANY:
            return tuple(j for j in range(self.nodes) if j != self.y)
        if self.sites is Sites.NEIGHBOURS:
            return tuple(j for j in (self.y - 1, self.y + 1) if 0 <= j < self.nodes)
        return tuple(self.sites)

    def graph(self, rng: np.random.Generator) -> nx.DiGraph:
        """The given graph, or a random one; refuses a cycle."""
        graph: nx.DiGraph = nx.DiGraph()
        graph.add_nodes_from(range(self.nodes))
        if self.edges:
            graph.add_weighted_edges_from(self.edges)
            refuse_cycle(graph, self.nodes)
            return graph
        for j in range(1, self.nodes):
            for parent in rng.choice(j, min(j, self.in_degree), replace=False):
                graph.add_edge(int(parent), j, weight=float(draw_weights(1, rng)[0]))
        return graph

    def mechanisms(self, lab: Lab) -> Mechanisms:
        """Weights and noise without an intervention, in float64."""
        graph = self.graph(lab.child("graph").numpy())
        weights = nx.to_numpy_array(graph, nodelist=range(self.nodes)).T
        return Mechanisms(
            torch.from_numpy(np.ascontiguousarray(weights)),
            torch.ones(self.nodes, dtype=torch.float64),
            self.y,
        )

    def intervene(self, number: int, lab: Lab) -> Mechanisms:
        """So many environments: in each one node, drawn from the sites, has another mechanism.

        Environments are drawn one after the other: more of them leave the first ones as they are.
        """
        base = self.mechanisms(lab)
        rng = lab.child("interventions").numpy()
        weights = base.weights.expand(number, -1, -1).clone()
        noise2 = base.noise2.expand(number, -1).clone()
        sites = self.intervention_sites
        for e in range(number):
            j = sites[int(rng.integers(len(sites)))]
            parents = base.weights[j].nonzero()[:, 0]
            drawn = draw_weights(len(parents), rng)
            noise2[e, j] = float(rng.uniform(*self.noise2))
            if self.kind is Intervention.HARD:
                weights[e, j] = 0
            else:
                weights[e, j, parents] = torch.from_numpy(drawn)
        return Mechanisms(weights, noise2, self.y)

    def build(self, lab: Lab) -> Task:
        many = self.intervene(self.environments + self.unseen, lab)
        splits = {}
        for e in range(self.environments + self.unseen):
            is_seen = e < self.environments
            name = f"{'train' if is_seen else 'unseen'}:e{e + 1}"
            data = self._draw(many, e, lab.child("examples", e).numpy())
            use = Use.TRAIN if is_seen else Use.EVALUATE
            splits[name] = Split(data, use, f"e{e + 1}")
        return Task(name="linear_sem", axis=Axis.DOMAIN, splits=splits, objective=regress)

    def _draw(self, many: Mechanisms, e: int, rng: np.random.Generator) -> Columns:
        u = rng.normal(size=(self.n, self.nodes)) * many.noise2[e].sqrt().numpy()
        mixing = torch.linalg.inv(torch.eye(self.nodes).to(many.weights) - many.weights[e])
        v = torch.from_numpy(u) @ mixing.T
        x, y = v[:, many.inputs].float(), v[:, self.y].float()
        return Columns(x=x, y=y, domain=torch.full((self.n,), e))


def draw_weights(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """± U(0.5, 1.5)."""
    return rng.choice([-1.0, 1.0], n) * rng.uniform(0.5, 1.5, n)


def refuse_cycle(graph: nx.DiGraph, nodes: int) -> None:
    """Refuses a graph that is not acyclic, or whose nodes are not 0 … `nodes` − 1."""
    strange = [node for node in graph if node not in range(nodes)]
    if strange:
        raise InvalidConfig(
            f"The graph has a node {strange[0]!r}, and nodes={nodes}.",
            why="nodes are numbered from 0 without gaps.",
            fix="renumber them, for example with networkx.convert_node_labels_to_integers.",
        )
    if not nx.is_directed_acyclic_graph(graph):
        around = [str(edge[0]) for edge in nx.find_cycle(graph)]
        raise InvalidData(
            f"The graph has a cycle: {' → '.join([*around, around[0]])}.",
            why="a structural equation model computes every node from those before it.",
            fix="leave out one of these edges.",
        )


def refuse_target(sites: Sequence[int], target: int, nodes: int) -> None:
    """Refuses interventions on the target, on nothing, and on nodes that are not there."""
    if target in sites:
        raise InvalidConfig(
            f"Node {target} is the target, and interventions include it.",
            why="then no representation is invariant: the very relation that is learned changes.",
            fix=f"leave node {target} out of `sites`.",
        )
    if not sites or not all(0 <= j < nodes for j in sites):
        raise InvalidConfig(
            f"Interventions on the nodes {list(sites)} of {nodes}.",
            why="an environment intervenes on a node of the graph.",
            fix=f"name nodes from 0 to {nodes - 1}.",
        )


def example() -> LinearSEM:
    """Six nodes, and few examples."""
    return LinearSEM(nodes=6, environments=3, unseen=2, n=40)
