"""Models that are larger than one device: spread over processes, or over the devices of one.

`torch.distributed.fsdp.fully_shard` (FSDP2) spreads every parameter over processes.

A process holds a shard of every parameter and gathers a group's whole parameters before it runs,
together with the others: all of them must run the model equally often, with data of their own.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unseen.errors import InvalidConfig, UnsupportedLayer

FSDP = "torch.distributed.fsdp"
"""Whose hooks and classes are no part of what a model computes."""
HOOK = "_hf_hook"
"""Where accelerate keeps the hook that it has put around a module's forward pass."""
STATE = "__composable_api_"
"""How attributes begin under which `fully_shard` keeps its state with a module."""


def is_sharded(model: nn.Module) -> bool:
    """Whether some module's parameters are spread over processes by `fully_shard`."""
    fsdp: Any = sys.modules.get(FSDP)
    return fsdp is not None and any(isinstance(m, fsdp.FSDPModule) for m in model.modules())


def is_spread(model: nn.Module) -> bool:
    """Whether it is sharded, or its layers lie on several devices (`device_map` of transformers,
    whose hooks move what layers read).
    """
    is_hooked = any(hasattr(module, HOOK) for module in model.modules())
    return is_hooked or len({p.device for p in model.parameters()}) > 1 or is_sharded(model)


def refuse_tensor_parallel(model: nn.Module) -> None:
    """Raises where a layer computes a part of its outputs in each process (`parallelize_module`);
    `fully_shard` alone gathers whole parameters.
    """
    is_gathered = is_sharded(model)
    for name, p in model.named_parameters():
        axes = sum(placement.is_shard() for placement in getattr(p, "placements", ()))
        # of both together a parameter is cut twice
        if hasattr(p, "placements") and (axes > 1 or not is_gathered):
            raise UnsupportedLayer(
                f"Parameter `{name}` is spread over processes by tensor parallelism.",
                why="its layer computes with a part of it, and gradients of examples are read from "
                "whole layers.",
                fix="load the model whole in each process, or spread it with fully_shard (FSDP2).",
            )


def device_of_block(model: nn.Module, name: str, default: torch.device) -> torch.device:
    """Where the layer or parameter of this name lives, and what is kept of its gradients."""
    owner, _, own = name.partition("[")[0].rpartition(".")
    try:
        module = model.get_submodule(owner)
    except AttributeError:  # of no layer alone
        return default
    found = getattr(module, own, None)
    found = getattr(found, "weight", None) if isinstance(found, nn.Module) else found
    return found.device if isinstance(found, Tensor) else default


@contextmanager
def plain_forwards(model: nn.Module) -> Iterator[None]:
    """Inside the block modules have the forward pass of their class, without accelerate's around
    it.
    """
    around = {
        module: vars(module).pop("forward")
        for module in model.modules()
        if hasattr(module, HOOK) and "forward" in vars(module)
    }
    try:
        yield
    finally:
        for module, forward in around.items():
            vars(module)["forward"] = forward


def shard_blocks(model: nn.Module, device: torch.device | None = None) -> None:
    """Spreads the parameters over the processes of the default group, each on its device: the
    members of the outermost lists of modules (the blocks of a transformer) one by one, and what is
    left together.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = device or torch.device("cpu")
    if not dist.is_initialized():
        raise InvalidConfig(
            "There is no process group to shard the model over.",
            why="each process holds a part of every parameter.",
            fix="start with torchrun --nproc-per-node 2 (or more).",
        )
    if device.type == "cuda":  # where shards are moved to
        torch.cuda.set_device(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _blocks(module: nn.Module) -> list[nn.Module]:
    found: list[nn.Module] = []
    for child in module.children():
        found += [*child] if isinstance(child, nn.ModuleList) else _blocks(child)
    return found


def reshard(model: nn.Module) -> None:
    """Every module holds its shards again; after a forward pass alone the root keeps whole
    parameters.
    """
    fsdp: Any = sys.modules.get(FSDP)
    for module in model.modules() if fsdp is not None else ():
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()


@dataclass(frozen=True, eq=False)
class ShardGroups:
    """The processes that run one model together: those that hold shards of the same parameters."""

    groups: Sequence[Any]
    device: str

    @classmethod
    def of(cls, model: nn.Module) -> "ShardGroups":
        """Of a model whose modules hold their shards (`reshard`)."""
        found: dict[int, Any] = {}
        device = "cpu"
        for p in model.parameters():
            for axis, placement in enumerate(getattr(p, "placements", ())):
                if placement.is_shard():
                    mesh: Any = getattr(p, "device_mesh")  # noqa: B009 (of a DTensor)
                    group, device = mesh.get_group(axis), mesh.device_type
                    found[id(group)] = group
        return cls([*found.values()], device)

    def largest(self, flags: Tensor) -> Tensor:
        """The largest of each entry over these processes, each of which has to ask."""
        made = flags.to(self.device, copy=True)
        for group in self.groups:
            dist.all_reduce(made, op=dist.ReduceOp.MAX, group=group)
        return made.cpu()

    def holds_somewhere(self, flag: bool) -> bool:
        """Whether it holds for one of them."""
        return bool(self.largest(torch.tensor([int(flag)])).item())


@dataclass(frozen=True)
class WholeTensors(Mapping[str, Tensor]):
    """Named tensors, gathered over the processes one at a time, when each is read."""

    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        found = self.tensors[name]
        return found.full_tensor() if hasattr(found, "full_tensor") else found

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def without_hooks(model: nn.Module) -> nn.Module:
    """A stand-in that shares everything with the model but has the modules' own classes, without
    the hooks of `fully_shard`: what decides its outputs can be read from it.
    """
    return _copy(model, {})


def _copy(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    if id(module) in known:
        return known[id(module)]
    fsdp: Any = sys.modules.get(FSDP)
    state: Any = module._get_fsdp_state() if isinstance(module, fsdp.FSDPModule) else None
    # fully_shard made a class of two: its own, and the module's
    made: nn.Module = object.__new__(type(module) if state is None else type(module).__mro__[2])
    known[id(module)] = made
    hooks = [value for name, value in vars(module).items() if name.endswith("_hooks")]
    foreign = {key for one in hooks for key, hook in one.items() if _is_of_fsdp(hook)}
    for name, value in vars(module).items():
        if name.startswith(STATE):
            continue
        if "_hooks" in name and isinstance(value, dict):  # also which of them take keywords
            value = type(value)((key, item) for key, item in value.items() if key not in foreign)
        made.__dict__[name] = value
    if state is not None:
        made.__dict__["precision of shards"] = str(state._mp_policy)
    children = module._modules.items()
    made.__dict__["_modules"] = {
        name: None if child is None else _copy(child, known) for name, child in children
    }
    return made


def _is_of_fsdp(hook: Any) -> bool:
    hook = getattr(hook, "hook", hook)  # those of state dicts are wrapped
    return str(getattr(hook, "__module__", "")).startswith(FSDP)
