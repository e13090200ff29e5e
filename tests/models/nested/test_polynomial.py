"""The laws of polynomial functors, by brute force over all maps of small ones."""

from itertools import product
from random import Random

import pytest

from unseen.errors import WiringError
from unseen.models.nested.polynomial import (
    Map,
    Poly,
    broken_laws,
    build_map,
    composition,
    count_maps,
    curry,
    hom,
    identity,
    lens,
    maps,
    monomial,
    parallel,
    store,
    tensor,
    trajectory,
)

SMALL = [
    Poly({}),
    Poly({"a": ()}),
    Poly({"a": (0,)}),
    Poly({"a": (0, 1), "b": ()}),
    Poly({"a": (0,), "b": (0, 1)}),
    Poly({"a": (0, 1), "b": (0, 1)}),
]
UP_TO_THREE = [*SMALL, Poly({"a": (0, 1, 2), "b": (0,), "c": ()}), monomial("abc", range(3))]


def shape(p: Poly) -> list[int]:
    """A polynomial up to isomorphism: the sizes of its direction sets."""
    return sorted(len(directions) for directions in p.directions.values())


@pytest.mark.parametrize(("p", "q"), list(product(SMALL, SMALL)))
def test_maps_are_as_many_as_the_formula_counts(p, q):
    found = list(maps(p, q))
    assert len(set(found)) == len(found) == count_maps(p, q)


def test_counts_need_no_enumeration_and_know_zero_to_the_power_zero():
    cube = monomial("abc", range(3))
    assert count_maps(cube, cube) == (3 * 3**3) ** 3 == 531_441
    assert count_maps(Poly({"a": ()}), Poly({"b": ()})) == 1
    assert count_maps(Poly({"a": ()}), Poly({"b": (0,)})) == 0
    assert count_maps(Poly({}), Poly({})) == 1


def test_composition_of_maps_has_identities_and_is_associative():
    triples = 0
    for p, q, r, s in product(SMALL[:5], repeat=4):
        if count_maps(p, q) * count_maps(q, r) * count_maps(r, s) > 400:
            continue
        for f, g, h in product(maps(p, q), maps(q, r), maps(r, s)):
            assert (f >> g) >> h == f >> (g >> h)
            assert identity(p) >> f == f == f >> identity(q)
            triples += 1
    assert triples > 2_000


def test_tensor_is_symmetric_monoidal():
    y = tensor()
    for p, q, r in product(UP_TO_THREE, repeat=3):
        assert shape((p @ q) @ r) == shape(p @ (q @ r)) == shape(tensor(p, q, r))
        assert shape(p @ y) == shape(p) == shape(y @ p)
        swap = build_map(p @ q, q @ p, lambda i: i[::-1], lambda _, e: e[::-1])
        back = build_map(q @ p, p @ q, lambda i: i[::-1], lambda _, e: e[::-1])
        assert swap >> back == identity(p @ q)


def test_tensor_is_functorial_and_the_swap_natural():
    p, q, r = SMALL[2], SMALL[3], SMALL[4]
    for f, g in product(maps(p, q), maps(q, r)):
        for h, k in product(maps(q, p), maps(p, p)):
            assert parallel(f, h) >> parallel(g, k) == (f >> g) @ (h >> k)

    def swap(a: Poly, b: Poly) -> Map:
        return build_map(a @ b, b @ a, lambda i: i[::-1], lambda _, e: e[::-1])

    for f, h in product(maps(p, r), maps(q, r)):
        assert f @ h >> swap(r, r) == swap(p, q) >> h @ f


def test_sums_products_and_distributivity():
    for p, q, r in product(UP_TO_THREE, repeat=3):
        assert shape(p @ (q + r)) == shape(p @ q + p @ r)
        assert shape(p * (q + r)) == shape(p * q + p * r)
        assert count_maps(p + q, r) == count_maps(p, r) * count_maps(q, r)
        assert count_maps(p, q * r) == count_maps(p, q) * count_maps(p, r)


def test_substitution_is_associative_with_unit_y():
    y = monomial(["*"], ["*"])
    for p, q, r in product(SMALL, repeat=3):
        assert shape(p.substitute(q).substitute(r)) == shape(p.substitute(q.substitute(r)))
        assert shape(p.substitute(y)) == shape(p) == shape(y.substitute(p))


def test_currying_is_a_bijection():
    cases = 0
    for r, p, q in product(SMALL[:5], repeat=3):
        if count_maps(p, q) <= 100:
            assert count_maps(r @ p, q) == count_maps(r, hom(p, q))
            if count_maps(r @ p, q) <= 300:
                curried = {curry(one, r, p) for one in maps(r @ p, q)}
                assert len(curried) == count_maps(r @ p, q)
                cases += 1
    assert cases > 50


def test_learners_in_series_are_associative_up_to_the_order_of_states():
    """Random finite learners A → A as maps S y^S → [p, p], run along random flows."""
    p = monomial((0, 1), (0, 1))
    learners, series = hom(p, p), composition(p, p, p)
    draw = Random(0)

    def random_learner() -> Map:
        states = store(range(3))
        return build_map(
            states,
            learners,
            lambda _: draw.choice(learners.positions),
            lambda *_: draw.randrange(3),
        )

    for _ in range(4):
        f, g, h = (random_learner() for _ in range(3))
        left = parallel(parallel(f, g) >> series, h) >> series
        right = parallel(f, parallel(g, h) >> series) >> series
        for a, b, c in product(range(3), repeat=3):
            shown = left.forward[(a, b), c]
            assert shown == right.forward[a, (b, c)]
            for flow in learners[shown]:
                (a1, b1), c1 = left.back[((a, b), c), flow]
                assert (a1, (b1, c1)) == right.back[(a, (b, c)), flow]


def test_a_learner_with_one_state_is_a_map():
    p, q, r = SMALL[4], SMALL[5], SMALL[3]
    series = composition(p, q, r)
    for f, g in product(list(maps(p, q))[:10], list(maps(q, r))[:10]):
        assert series.forward[f, g] == f >> g


def test_lens_laws_name_what_fails():
    pairs = tuple(product((0, 1), repeat=2))
    first = lens((pairs, pairs), ((0, 1), (0, 1)), lambda s: s[0], lambda s, a: (a, s[1]))
    assert broken_laws(first) == []
    counting = lens((pairs, pairs), ((0, 1), (0, 1)), lambda s: s[0], lambda s, a: (a, 1 - s[1]))
    assert broken_laws(counting) == ["get then put", "put twice"]
    stubborn = lens((pairs, pairs), ((0, 1), (0, 1)), lambda s: s[0], lambda s, _: s)
    assert broken_laws(stubborn) == ["put then get"]


def test_a_machine_whose_directions_depend_on_its_position():
    """A turnstile takes a coin when it is locked, and a push only when it is open; a visitor who
    answers what is shown is wired to it by a map that a monomial could not carry.
    """
    turnstile = Poly({"locked": ("coin", "wait"), "open": ("push",)})
    assert len({len(turnstile[i]) for i in turnstile.positions}) == 2
    gate = build_map(
        store(("shut", "free")),
        turnstile,
        {"shut": "locked", "free": "open"}.__getitem__,
        lambda state, d: "free" if d == "coin" else "shut",
    )
    purse = build_map(store(range(4)), monomial(range(4), ("pay", "keep")), lambda s: s,
                      lambda s, d: max(0, s - (d == "pay")))  # fmt: skip

    def visit(i, _):
        shown, coins = i
        if shown == "open":
            return "push", "keep"
        return ("coin", "pay") if coins else ("wait", "keep")

    closed = build_map(tensor(gate.target, purse.target), monomial(["*"], ["tick"]),
                       lambda _: "*", visit)  # fmt: skip
    system = parallel(gate, purse) >> closed
    states = [state for state, _ in trajectory(system, ("shut", 2), lambda _: "tick", 6)]
    assert states == [
        ("shut", 2), ("free", 1), ("shut", 1), ("free", 0), ("shut", 0), ("shut", 0)
    ]  # fmt: skip
    with pytest.raises(WiringError, match="does not type-check"):
        build_map(tensor(gate.target, purse.target), monomial(["*"], ["tick"]),
                  lambda _: "*", lambda *_: ("push", "keep"))  # fmt: skip


def test_maps_that_do_not_type_check_are_refused():
    p, q = Poly({"a": (0,)}), Poly({"b": (0, 1)})
    with pytest.raises(WiringError, match="Position 'a' is sent to 'c'"):
        Map(p, q, {"a": "c"}, {})
    with pytest.raises(WiringError, match="direction 1 comes back as None"):
        Map(p, q, {"a": "b"}, {("a", 0): 0})
    with pytest.raises(WiringError, match="composite"):
        identity(p) >> identity(q)
    with pytest.raises(WiringError, match="twice"):
        Poly({"a": (0, 0)})
