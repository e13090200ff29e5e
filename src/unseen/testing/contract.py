"""What all plugs have in common: a frozen, hashable dataclass that leaves global randomness and
models alone.
"""

import pickle
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from unseen.errors import UnseenError


class ContractViolation(UnseenError, AssertionError):
    """A plug that does not keep the contract."""


def require(holds: bool, what: str, why: str, fix: str = "") -> None:
    if not holds:
        raise ContractViolation(what, why, fix)


def name_of(plug: object) -> str:
    return type(plug).__name__


def check_plug(plug: object, verb: str) -> None:
    settings = getattr(type(plug), "__dataclass_params__", None)
    frozen = settings is not None and settings.frozen
    require(
        frozen,
        f"{name_of(plug)} is not a frozen dataclass.",
        "it is a cell's field: compared, hashed, stored.",
        "@dataclass(frozen=True)",
    )
    require(
        callable(getattr(plug, verb, None)),
        f"{name_of(plug)} has no `{verb}`.",
        "that is its one verb.",
    )
    try:
        hash(plug)
    except TypeError as error:
        raise ContractViolation(
            f"{name_of(plug)} cannot be hashed: {error}.",
            "it is a cell's field.",
            "use tuples, not lists.",
        ) from None


@contextmanager
def forbid_global_randomness(what: str) -> Iterator[None]:
    """Inside the block the global generators of torch and numpy must not move (beartype itself
    draws from `random`).
    """
    before = _global_states()
    yield
    require(
        _global_states() == before,
        f"{what} drew from a global random generator.",
        "results would depend on what ran before.",
        "use lab.generator() or lab.numpy(), or wrap the code in lab.seeded().",
    )


def _global_states() -> tuple[bytes, ...]:
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what this is about
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(legacy)


@contextmanager
def scramble_global_rng() -> Iterator[None]:
    """Another state of the global generators, put back afterwards."""
    old = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20_231_017)
        np.random.seed(17)  # noqa: NPY002
        random.seed(17)
        try:
            yield
        finally:
            np.random.set_state(old[0])  # noqa: NPY002
            random.setstate(old[1])


def same_state(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[name].nan_to_num(), b[name].nan_to_num()) for name in a
    )


def modes_of(model: nn.Module) -> list[object]:
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for m in model.modules()
    ]
    params = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return [[m.training for m in model.modules()], params, hooks]
