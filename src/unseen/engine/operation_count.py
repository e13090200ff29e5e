"""Floating-point operations of matrix products and convolutions: a cost that no busy machine
changes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class CountOperations(TorchDispatchMode):
    """Inside the block `total` grows with every product, also below `vmap`, `jvp` and autograd.

    torch's own counter follows modules by hooks, which a gradient inside a gradient refuses.
    Decompositions (`eigh`) are not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **given, out_val=result)
        return result
