"""Response-only fine-tuning of causal language models: the loss is of the responses, never of the
prompts.

All weights, or low-rank adapters beside frozen ones (LoRA; Hu et al., 2022, arXiv:2106.09685)
through the library peft.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unseen.engine.batches import Columns, model_to_device
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.parameters import copy_parameters, trainable
from unseen.engine.responses import (
    parts_by_length,
    refuse_unsupervised,
    target_mask,
)
from unseen.errors import InvalidConfig, MissingExtra, UnknownName
from unseen.identity import identify
from unseen.lab import Forget, Lab
from unseen.method import Method, Trained
from unseen.models.response_loss import output_head, response_loss
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import next_token
from unseen.task import Axis, Batch, Objective, Split, Task, Use


class Weighting(StrEnum):
    """What weighs the same in a batch."""

    EXAMPLES = "examples"
    """Each example: the mean over examples of the mean over their tokens."""
    TOKENS = "tokens"
    """Each token of a response, as trl and transformers have it: long responses count more."""


@dataclass(frozen=True)
class LoRA:
    """W + (scale / rank) · B A beside a frozen W, with B = 0 at the start. Merged into W at the
    end.
    """

    rank: int = 8
    scale: int = 16
    only: tuple[str, ...] = ()
    """Ends of the names of the linear maps that get one ("q_proj", "mlp.up"); empty: all but the
    head.
    """

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidConfig(
                f"LoRA has rank {self.rank}.",
                why="a matrix of rank 0 changes nothing.",
                fix="choose 4, 8 or 16.",
            )


@dataclass(frozen=True)
class ResponseFinetune:
    """Minimises −log p(response | prompt) per token, starting at the given weights.

    The task's TRAIN splits hold `tokens` and `mask` (the responses): `engine.responses` makes them.
    Batches are drawn as everywhere; inside a batch, examples of similar length go through the
    model together, which changes nothing but the padding that is computed.
    """

    budget: Budget = Budget(steps=100, batch_size=8, lr=5e-5, clip=1.0)
    """`bfloat16=True`: forward passes under autocast, weights stay in float32."""
    lora: LoRA | None = None
    """None: all weights are trained."""
    weighting: Weighting = Weighting.EXAMPLES
    part_tokens: int = 2048
    """Tokens, with padding, that go through the model together: more for a GPU."""

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        refuse_unsupervised(task)
        model_to_device(model, lab)
        # the method's own loss has the task's value, and computes no logits that nobody needs
        fast = replace(task, objective=replace(task.objective, loss=response_loss))
        step = partial(response_step, weighting=self.weighting, most=self.part_tokens)
        if self.lora is None:
            return replace(train(model, fast, step, self.budget, lab), task=task)
        start = {
            name: p.detach().clone() for name, p in weights_with_adapters(model, self.lora).items()
        }
        with lab.child("adapters").seeded(), adapters(model, self.lora):
            trained = train(model, fast, step, self.budget, lab)
        return replace(trained, task=task, start=start)


def response_step(
    model: nn.Module, draw: Draw, objective: Objective, *, weighting: Weighting, most: int
) -> Tensor:
    """Leaves in `.grad` the gradient of the mean loss of the responses."""
    parts = [part for batch in draw.fit.values() for part in parts_by_length(batch, most)]
    weights = [weights_of(part, weighting) for part in parts]
    total = sum(weight.sum() for weight in weights)
    losses = []
    for part, weight in zip(parts, weights, strict=True):
        loss = (objective.loss(model, part) * weight).sum() / total
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def weights_of(batch: Batch, weighting: Weighting) -> Tensor:
    """How much each example counts."""
    counts = target_mask(batch)[:, 1:].sum(1)
    return counts if weighting is Weighting.TOKENS else torch.ones_like(counts)


def keep_fit(method: Method, model: nn.Module, task: Task, lab: Lab) -> Trained:
    """`method.fit(model, task, lab)`, or the weights that it gave before for the same model, data,
    settings and code. What is kept is the tensors that training changed.
    """
    if isinstance(lab.keeper, Forget):  # nothing to compare with: saves a copy of the weights
        return method.fit(model, task, lab)
    data = {name: split for name, split in task.splits.items() if split.use is not Use.EVALUATE}
    key = identify(
        "fine-tuning",
        model=model,
        method=method,
        data=identify("task", objective=task.objective, axis=task.axis, splits=data),
        lab=lab.signature,
        code=keep_fit,
    )
    before = {name: x.detach().clone() for name, x in model.state_dict().items()}
    fitted: list[Trained] = []

    def make() -> dict[str, Tensor]:
        fitted.append(method.fit(model, task, lab))
        after = fitted[0].model.state_dict()
        return {
            name: x.detach() for name, x in after.items() if not torch.equal(x.cpu(), before[name])
        }

    changed = lab.keep(key, make)
    if fitted:
        return fitted[0]
    start = copy_parameters(model)
    model.load_state_dict({**before, **changed})
    return Trained(model_to_device(model, lab).eval(), task, start=start)


def linear_maps(model: nn.Module, lora: LoRA) -> list[str]:
    """The names of the linear maps that get adapters."""
    head = output_head(model)
    names = [
        name
        for name, module in model.named_modules()
        # Conv1D is GPT-2's linear map
        if module is not head and type(module).__name__ in ("Linear", "Conv1D")
    ]
    for end in lora.only:
        if not any(name.endswith(end) for name in names):
            raise UnknownName.near("linear map", end, names)
    return [name for name in names if not lora.only or name.endswith(lora.only)]


def weights_with_adapters(model: nn.Module, lora: LoRA) -> dict[str, Tensor]:
    """The weights that the adapters are merged into."""
    names = [f"{name}.weight" for name in linear_maps(model, lora)]
    return {name: model.get_parameter(name) for name in names}


@contextmanager
def adapters(model: nn.Module, lora: LoRA) -> Iterator[None]:
    """Inside the block only adapters ask for gradients; afterwards they are merged and gone."""
    asking = trainable(model)
    names = linear_maps(model, lora)
    _inject(model, lora, names)
    try:
        yield
    finally:
        for name in names:
            layer: Any = model.get_submodule(name)
            layer.merge()
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer.get_base_layer())
        for p in asking.values():
            p.requires_grad_(True)


def _inject(model: nn.Module, lora: LoRA, names: list[str]) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtra(
            "LoRA needs the library peft.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    is_transposed = type(model.get_submodule(names[0])).__name__ == "Conv1D"
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.scale, target_modules=names, fan_in_fan_out=is_transposed
    )
    inject_adapter_in_model(config, model)


def example() -> tuple[ResponseFinetune, Trained]:
    """A small decoder learns to answer 1 2 by 3 4 and 5 6 by 7 8."""
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    mask = torch.tensor([[False, False, True, True]]).expand(2, 4)
    split = Split(Columns(tokens=tokens, mask=mask), Use.TRAIN)
    task = Task(name="answers", axis=Axis.IID, splits={"train": split}, objective=next_token)
    with Lab().child("init").seeded():
        model = Transformer(Decoder(vocabulary=9, width=16, heads=2, context=4))
    return ResponseFinetune(Budget(steps=20, batch_size=2, lr=1e-2)), Trained(model, task)
