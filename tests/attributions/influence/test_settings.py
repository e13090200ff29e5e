"""Settings given otherwise than their types say: the same settings, or refused by name."""

import numpy as np
import pytest

from unseen.attributions.influence import CURVATURE, Curvature, Fisher, Influence, Precision
from unseen.errors import InvalidConfig
from unseen.identity import identify


def test_what_is_meant_is_the_same_setting():
    plain = Influence(
        curvature=Curvature.EKFAC_CG,
        fisher=Fisher.EXACT,
        precision=Precision.FULL,
        layers=("a", "b"),
        damping=1.0,
        batch_size=8,
        memory=2 * 10**9,
    )
    given = Influence(
        curvature="ekfac+cg",
        fisher="exact",
        precision="full",
        layers=["a", "b"],
        damping=np.float64(1),
        batch_size=np.int64(8),
        memory=2e9,
    )
    assert given == plain
    assert given.curvature.is_iterative
    assert type(given.batch_size) is type(given.memory) is int
    assert type(given.damping) is float
    one, other = (identify(CURVATURE, settings=each).digest for each in (given, plain))
    assert one == other


@pytest.mark.parametrize("name", ["curvature", "fisher", "precision"])
def test_an_unknown_name_shows_those_that_there_are(name):
    with pytest.raises(InvalidConfig, match=f"There is no {name}='fast'") as caught:
        Influence(**{name: "fast"})
    assert str(getattr(Influence, name)) in caught.value.fix


def test_one_string_is_not_many_layers():
    with pytest.raises(InvalidConfig) as caught:
        Influence(layers="*.mlp.*")
    assert caught.value.fix == "use layers=('*.mlp.*',)."
    with pytest.raises(InvalidConfig, match="layers"):
        Influence(layers=(1,))


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("memory", 2.5, 0),
        ("disk", 2.5, 0),
        ("disk", -1, 0),
        ("batch_size", 2.5, 1),
        ("batch_size", True, 1),
        ("batch_size", np.int64(0), 1),
        ("draws", 0, 1),
        ("most", "9", 1),
        ("most", None, 1),
        ("rank", float("nan"), 0),
        ("iterations", float("inf"), 0),
    ],
)
def test_what_is_no_such_number_is_refused_alone(name, value, least):
    with pytest.raises(InvalidConfig) as caught:
        Influence(**{name: value})
    assert caught.value.what == f"Influence({name}={value}) is out of range."
    assert caught.value.why == f"{name} is a whole number, at least {least}."


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "0.1", True, None])
def test_a_damping_is_a_number_from_0(value):
    with pytest.raises(InvalidConfig) as caught:
        Influence(damping=value)
    assert caught.value.what == f"Influence(damping={value}) is out of range."
