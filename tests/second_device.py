"""A second device on a machine that has one: tensors that say they are on `meta` and hold numbers
all the same, and operations that refuse to mix them with others, as those of a GPU do.
"""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

SECOND = torch.device("meta")
MOVES = {torch.ops.aten._to_copy, torch.ops.aten.copy_}
INDEXING = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_}
"""What also takes indices of the CPU."""


class Away(Tensor):
    """A tensor on the second device."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Away":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=SECOND,
        )
        made.inner = inner
        return made

    def new_tensor(self, data, dtype=None):
        """Made below the dispatcher otherwise, without numbers."""
        return torch.tensor(data, dtype=dtype or self.dtype, device=SECOND)

    def tolist(self):
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


@contextmanager
def second_device():
    """Inside the block `.to("meta")` moves to the second device, and numbers survive it. It knows
    no autocast.
    """
    autocast, tensor = torch.autocast, torch.tensor
    is_enabled, dtype_of = torch.is_autocast_enabled, torch.get_autocast_dtype

    def on_cpu(device: str) -> str:
        return "cpu" if device == SECOND.type else device

    def made(data, *, device=None, **options):
        found = tensor(data, **options)
        return found if device is None else found.to(device)

    with (
        patch("torch.autocast", lambda device, *a, **k: autocast(on_cpu(device), *a, **k)),
        patch("torch.is_autocast_enabled", lambda device="cpu": is_enabled(on_cpu(device))),
        patch("torch.get_autocast_dtype", lambda device: dtype_of(on_cpu(device))),
        patch("torch.tensor", made),
        _Dispatch(),
    ):
        yield


def run(func, args, kwargs):
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    packet = func._overloadpacket
    if packet in INDEXING:
        tensors = [args[0], *(t for t in tensors[1:] if isinstance(t, Away))]
    # numbers without an axis travel with any tensor, from the CPU only
    places = {isinstance(t, Away) for t in tensors if t.dim() or isinstance(t, Away)}
    if len(places) > 1 and packet not in MOVES:
        raise RuntimeError(f"{func} got tensors on two devices")
    wanted = kwargs.get("device")
    if packet is torch.ops.aten.copy_:
        is_away = isinstance(args[0], Away)
    elif wanted is not None:
        is_away = torch.device(wanted).type == SECOND.type
    else:
        is_away = True in places
    given = tree_map(lambda t: t.inner if isinstance(t, Away) else t, (args, kwargs))
    options = given[1] | ({"device": torch.device("cpu")} if wanted is not None else {})
    found = func(*given[0], **options)
    if not is_away:
        return found
    wrapped = tree_map(lambda t: Away(t) if isinstance(t, Tensor) else t, found)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)
