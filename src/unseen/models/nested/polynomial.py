"""Polynomial functors with finitely many positions, their maps, and the operations on both.

p = Σ_{i ∈ p(1)} y^{p[i]} is an interface: it shows one of the positions p(1) and, showing i, takes
one of the directions p[i]. A map φ: p → q sends positions forward, φ₁: p(1) → q(1), and directions
back, φ♯_i: q[φ₁ i] → p[i] (Spivak & Niu, "Polynomial functors", 2023).
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from unseen.errors import WiringError

Position = Hashable
Direction = Hashable


@dataclass(frozen=True)
class Poly:
    """`directions[i]` are the directions at position i."""

    directions: Mapping[Position, tuple[Direction, ...]]

    def __post_init__(self) -> None:
        for position, directions in self.directions.items():
            if len(set(directions)) < len(directions):
                raise WiringError(
                    f"Position {position!r} has a direction twice: {directions}.",
                    why="directions are a set.",
                    fix="name each direction once.",
                )

    @property
    def positions(self) -> tuple[Position, ...]:
        return tuple(self.directions)

    def __getitem__(self, position: Position) -> tuple[Direction, ...]:
        return self.directions[position]

    def __hash__(self) -> int:
        return hash(frozenset(self.directions.items()))

    def __add__(self, other: "Poly") -> "Poly":
        """p + q: a position of either."""
        return Poly({
            (side, i): directions
            for side, poly in enumerate((self, other))
            for i, directions in poly.directions.items()
        })  # fmt: skip

    def __mul__(self, other: "Poly") -> "Poly":
        """p × q: a position of both, a direction of either."""
        return Poly({
            (i, j): (*((0, d) for d in self[i]), *((1, e) for e in other[j]))
            for i, j in product(self.positions, other.positions)
        })  # fmt: skip

    def __matmul__(self, other: "Poly") -> "Poly":
        """p ⊗ q: a position and a direction of both."""
        return tensor(self, other)

    def substitute(self, other: "Poly") -> "Poly":
        """p ◁ q: a position i of p and, for each direction of p[i], a position of q."""
        return Poly({
            (i, js): tuple((d, e) for d, j in zip(self[i], js, strict=True) for e in other[j])
            for i in self.positions
            for js in product(other.positions, repeat=len(self[i]))
        })  # fmt: skip


@dataclass(frozen=True)
class Map:
    """φ: source → target with φ₁ = `forward[i]` and φ♯ = `back[i, e]`."""

    source: Poly
    target: Poly
    forward: Mapping[Position, Position]
    back: Mapping[tuple[Position, Direction], Direction]

    def __post_init__(self) -> None:
        for i in self.source.positions:
            if self.forward.get(i) not in self.target.directions:
                raise WiringError(
                    f"Position {i!r} is sent to {self.forward.get(i)!r}: this does not type-check.",
                    why=f"the target has the positions {self.target.positions}.",
                    fix="send every position of the source to one of them.",
                )
            for e in self.target[self.forward[i]]:
                if self.back.get((i, e)) not in self.source[i]:
                    raise WiringError(
                        f"At position {i!r} direction {e!r} comes back as "
                        f"{self.back.get((i, e))!r}: this does not type-check.",
                        why=f"position {i!r} takes the directions {self.source[i]}.",
                        fix="send every direction of the target back to one of them.",
                    )

    def __hash__(self) -> int:
        return hash((frozenset(self.forward.items()), frozenset(self.back.items())))

    def __rshift__(self, other: "Map") -> "Map":
        """φ, then ψ: (ψφ)₁ = ψ₁ φ₁ and (ψφ)♯_i = φ♯_i ψ♯_{φ₁ i}."""
        if self.target != other.source:
            raise WiringError(
                "The composite of two maps does not type-check.",
                why=f"the first ends at the positions {self.target.positions}, the second starts "
                f"at {other.source.positions}, or their directions differ.",
                fix="compose maps that meet in one polynomial.",
            )
        return build_map(
            self.source,
            other.target,
            lambda i: other.forward[self.forward[i]],
            lambda i, e: self.back[i, other.back[self.forward[i], e]],
        )

    def __matmul__(self, other: "Map") -> "Map":
        """φ ⊗ ψ: both side by side."""
        return parallel(self, other)


def build_map(
    source: Poly,
    target: Poly,
    forward: Callable[[Position], Position],
    back: Callable[[Position, Direction], Direction],
) -> Map:
    """The map given by two functions, tabulated."""
    ahead = {i: forward(i) for i in source.positions}
    behind = {(i, e): back(i, e) for i in source.positions for e in target[ahead[i]]}
    return Map(source, target, ahead, behind)


def identity(p: Poly) -> Map:
    return build_map(p, p, lambda i: i, lambda _, d: d)


def monomial(shows: Iterable[Position], takes: Iterable[Direction]) -> Poly:
    """A y^B: the same directions at every position."""
    directions = tuple(takes)
    return Poly(dict.fromkeys(shows, directions))


def store(states: Iterable[Position]) -> Poly:
    """S y^S. A machine with interface p is a map S y^S → p: what a state shows, and the next state
    for each direction.
    """
    states = tuple(states)
    return monomial(states, states)


def tensor(*polys: Poly) -> Poly:
    """p₁ ⊗ … ⊗ p_k: a position and a direction of every one, as tuples; y without any."""
    return Poly({
        positions: tuple(product(*(p[i] for p, i in zip(polys, positions, strict=True))))
        for positions in product(*(p.positions for p in polys))
    })  # fmt: skip


def parallel(*maps: Map) -> Map:
    """φ₁ ⊗ … ⊗ φ_k: p₁ ⊗ … ⊗ p_k → q₁ ⊗ … ⊗ q_k."""
    return build_map(
        tensor(*(one.source for one in maps)),
        tensor(*(one.target for one in maps)),
        lambda i: tuple(one.forward[k] for one, k in zip(maps, i, strict=True)),  # type: ignore[call-overload]
        lambda i, e: tuple(one.back[k, d] for one, k, d in zip(maps, i, e, strict=True)),  # type: ignore[call-overload]
    )


def count_maps(p: Poly, q: Poly) -> int:
    """|Poly(p, q)| = Π_i Σ_j |p[i]|^|q[j]|, with 0⁰ = 1."""
    return prod(sum(len(p[i]) ** len(q[j]) for j in q.positions) for i in p.positions)


def maps(p: Poly, q: Poly) -> Iterator[Map]:
    """All of them: for each position a target, and for each of its directions one to come back."""
    choices = [
        [(j, back) for j in q.positions for back in product(p[i], repeat=len(q[j]))]
        for i in p.positions
    ]
    for chosen in product(*choices):
        by_position = dict(zip(p.positions, chosen, strict=True))
        yield Map(
            p,
            q,
            {i: j for i, (j, _) in by_position.items()},
            {
                (i, e): d
                for i, (j, back) in by_position.items()
                for e, d in zip(q[j], back, strict=True)
            },
        )


def hom(p: Poly, q: Poly) -> Poly:
    """[p, q] = Σ_{φ: p → q} y^{Σ_i q[φ₁ i]}: shows a map, takes what flows through it.

    A learner from p to q is a machine with this interface.
    """
    return Poly({
        one: tuple((i, e) for i in p.positions for e in q[one.forward[i]]) for one in maps(p, q)
    })  # fmt: skip


def curry(one: Map, r: Poly, p: Poly) -> Map:
    """Poly(r ⊗ p, q) → Poly(r, [p, q])."""
    q = one.target

    def partial(k: Position) -> Map:
        return build_map(
            p, q, lambda i: one.forward[k, i], lambda i, e: one.back[(k, i), e][1]  # type: ignore[index]
        )  # fmt: skip

    return build_map(
        r, hom(p, q), partial, lambda k, flow: one.back[(k, flow[0]), flow[1]][0]  # type: ignore[index]
    )  # fmt: skip


def composition(p: Poly, q: Poly, r: Poly) -> Map:
    """[p, q] ⊗ [q, r] → [p, r]: learners in series. A flow through the composite is one through
    each: forward to the second, and back to the first.
    """

    def back(pair: tuple[Map, Map], flow: tuple[Position, Direction]) -> Direction:
        (first, second), (i, e) = pair, flow
        j = first.forward[i]
        return (i, second.back[j, e]), (j, e)

    return build_map(
        tensor(hom(p, q), hom(q, r)),
        hom(p, r),
        lambda pair: pair[0] >> pair[1],  # type: ignore[index]
        back,  # type: ignore[arg-type]
    )


def lens(
    source: tuple[Iterable[Position], Iterable[Direction]],
    target: tuple[Iterable[Position], Iterable[Direction]],
    get: Callable[[Position], Position],
    put: Callable[[Position, Direction], Direction],
) -> Map:
    """A map of monomials A y^A' → B y^B': `get` A → B and `put` A × B' → A'."""
    return build_map(monomial(*source), monomial(*target), get, put)


def broken_laws(one: Map) -> list[str]:
    """Which laws of a lawful lens S y^S → A y^A fail: what was put is got, putting what is there
    changes nothing, and the last put counts.
    """
    states, values = one.source.positions, one.target.positions
    laws = {
        "put then get": all(one.forward[one.back[s, a]] == a for s in states for a in values),
        "get then put": all(one.back[s, one.forward[s]] == s for s in states),
        "put twice": all(
            one.back[one.back[s, a], b] == one.back[s, b]
            for s in states for a in values for b in values
        ),
    }  # fmt: skip
    return [name for name, holds in laws.items() if not holds]


def trajectory(
    machine: Map, state: Position, choose: Callable[[Position], Direction], steps: int
) -> list[tuple[Position, Position]]:
    """(state, what it shows) along a run of a machine S y^S → p; `choose` answers what is shown by
    one of the directions that exist there.
    """
    run = []
    for _ in range(steps):
        shown = machine.forward[state]
        run.append((state, shown))
        state = machine.back[state, choose(shown)]
    return run
