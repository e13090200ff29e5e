"""Models in which examples of a batch meet: what mixes them, and what reorders them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.overrides import TorchFunctionMode

from unseen.engine.layers import direct_parameters
from unseen.errors import UnsupportedLayer
from unseen.task import Batch, PerExample


def refuse_mixing_layers(model: nn.Module) -> None:
    """Raises for layers that are known to mix examples, or to change weights while they read."""
    for name, layer in model.named_modules():
        if isinstance(layer, _NormBase):
            by_batch = isinstance(layer, _BatchNorm) and (
                layer.training or layer.running_mean is None
            )
            if by_batch or (layer.training and layer.track_running_stats):
                raise UnsupportedLayer(
                    f"{type(layer).__name__} `{name}` is in training mode.",
                    why="it mixes the examples of a batch, so a per-example gradient does not "
                    "exist.",
                    fix="call model.eval(), or replace it by GroupNorm or LayerNorm.",
                )
        elif isinstance(layer, nn.Embedding | nn.EmbeddingBag) and (
            layer.max_norm is not None or layer.scale_grad_by_freq
        ):
            raise UnsupportedLayer(
                f"{type(layer).__name__} `{name}` has `max_norm` or `scale_grad_by_freq` set.",
                why="the first changes weights while it reads, the second makes a gradient depend "
                "on the other examples.",
                fix="unset them.",
            )


def mixing_error(
    model: nn.Module, f: PerExample, batch: Batch, k: int, said: str
) -> UnsupportedLayer:
    """The error for a model in which example k depends on the others, with the place where they
    meet.
    """
    where = _meeting(model, f, batch, k)
    return UnsupportedLayer(
        f"An example's f depends on the other examples of its batch, {where}.",
        why=f"{said}, so a per-example gradient does not exist.",
        fix="leave out what mixes examples (statistics over the batch, comparisons within it), or "
        "give batches of one example.",
    )


def _meeting(model: nn.Module, f: PerExample, batch: Batch, k: int) -> str:
    """The first layer whose input or output for example k is another one alone."""
    one = {name: tensor[k : k + 1] for name, tensor in batch.items()}
    together, alone = _record(model, f, batch), _record(model, f, one)
    for (name, layer, x, y), (_, _, x1, y1) in zip(together, alone, strict=False):
        title = f"{type(layer).__name__} `{name}`" if name else type(layer).__name__
        if _differ(x, x1, k):
            return f"before `{name}`" if name else "before the model"
        if _differ(y, y1, k):
            return f"in {title}"
    return "in the function of model and batch itself"


def _record(model: nn.Module, f: PerExample, batch: Batch) -> list[tuple[str, nn.Module, Any, Any]]:
    """(name, layer, input, output) of every run, in the order in which they end."""
    runs: list[tuple[str, nn.Module, Any, Any]] = []

    def hook(name: str) -> Callable[..., None]:
        def leave(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            first = output[0] if isinstance(output, tuple | list) and output else output
            runs.append((name, layer, _copy(args[0]) if args else None, _copy(first)))

        return leave

    handles = [layer.register_forward_hook(hook(name)) for name, layer in model.named_modules()]
    try:
        with torch.no_grad():
            f(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return runs


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else None


def _differ(together: Any, alone: Any, k: int) -> bool:
    if not isinstance(together, Tensor) or not isinstance(alone, Tensor) or not alone.dim():
        return False
    if len(alone) != 1 or len(together) <= k or together.shape[1:] != alone.shape[1:]:
        return False
    return not torch.allclose(together[k], alone[0], rtol=1e-3, atol=1e-4)


AXIS = {
    "index_select": 1,
    "gather": 1,
    "index_add": 1,
    "index_copy": 1,
    "scatter": 1,
    "scatter_add": 1,
    "flip": 1,
    "sort": 1,
    "roll": 2,
    "take_along_dim": 2,
    "chunk": 2,
    "split": 2,
    "tensor_split": 2,
    "unbind": 1,
}
"""Operations that may reorder examples, and where their axis stands among the arguments."""
PRODUCTS = ("matmul", "mm", "__matmul")
FIRST_AXIS = ("chunk", "split", "tensor_split", "unbind")
"""Those that take the first axis where none is named; the others take the last one."""


class ReorderedLayers(TorchFunctionMode):
    """After the block `names` holds the parameters of layers that ran between an indexing of the
    examples and one of what they computed.

    An order that is undone later gives the right value and hands a layer's gradients to the wrong
    examples. Whether a batch is reordered depends on its data (texts sorted by length), so that
    the operation counts, not what it did. Without undoing, f of an example is another number
    alone than among others, which another guard sees; a model may index masks and positions.
    """

    def __init__(self, model: nn.Module, n: int) -> None:
        super().__init__()
        self.model, self.n, self.names = model, n, set[str]()
        self.is_indexed = False
        self._waiting = set[str]()
        """Layers that ran in an order that nothing has undone so far."""
        self.handles: list[Any] = []

    def __enter__(self) -> "ReorderedLayers":
        by_id = {id(p): name for name, p in self.model.named_parameters()}
        for layer in self.model.modules():
            names = {by_id[id(p)] for p in direct_parameters(layer).values()}
            if names:
                self.handles.append(layer.register_forward_pre_hook(self._mark(names)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self.handles:
            handle.remove()

    def _mark(self, names: set[str]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def enter(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if self.is_indexed:
                self._waiting |= names

        return enter

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        is_of_tensor = self.n > 1 and bool(args) and isinstance(args[0], Tensor)
        if is_of_tensor and self._indexes(func, args, kwargs):
            self.is_indexed = True
            values = (*args, *kwargs.values())
            if any(isinstance(x, Tensor) and x.requires_grad for x in values):
                self.names |= self._waiting
        return func(*args, **kwargs)

    def _indexes(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        x, name = args[0], getattr(func, "__name__", "").rstrip("_")
        if not x.dim() or len(x) != self.n:
            return False
        if name in ("__getitem", "__setitem") and len(args) > 1:
            first = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
            return self._chooses(first)
        if name == "__iter" or name == "masked_select":
            return True
        if name in PRODUCTS:  # a table [examples, examples] may be a permutation
            other = args[1] if len(args) > 1 else None
            return (
                x.shape == (self.n, self.n) and isinstance(other, Tensor) and len(other) == self.n
            )
        if name not in AXIS:
            return False
        position, default = AXIS[name], 0 if name in FIRST_AXIS else -1
        given = args[position] if len(args) > position else default
        axis = kwargs.get("dim", kwargs.get("dims", given))
        axes = axis if isinstance(axis, tuple | list) else (axis,)
        return any(isinstance(a, int) and a % x.dim() == 0 for a in axes)

    def _chooses(self, index: Any) -> bool:
        """Whether an index of the first axis gives some examples, or all in another order."""
        if isinstance(index, slice):
            return range(*index.indices(self.n)) != range(self.n)
        is_one = isinstance(index, int) and not isinstance(index, bool)
        return is_one or isinstance(index, list) or (isinstance(index, Tensor) and index.dim() > 0)
