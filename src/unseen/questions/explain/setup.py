"""What is perturbed to explain an example: the user's features, what a removed one becomes, and how far inputs move."""

from collections.abc import Sequence
from math import ceil
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unseen.attributions.explanation.guide import neighbourhood_of
from unseen.engine.batches import gather, length, once
from unseen.engine.local.features import Inputs, patches
from unseen.engine.local.neighbourhoods import Neighbourhood
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.questions.explain.request import Ask, Behaviour
from unseen.subjects.session import Scene
from unseen.task import Batch

Places: TypeAlias = Sequence[tuple[str, int]]
"""(split, position) of examples."""
PATCHES = 7
"""Along the shorter side of an image."""


def sample_of(scene: Scene, split: str, n: int, lab: Lab) -> Batch:
    """Examples of the split drawn at random; the first ones of a stream."""
    data = scene.task.split(split).data
    size = length(data)
    if size is None:
        return next(once(data, n, scene.lab))
    return gather(data, torch.randperm(size, generator=lab.generator())[:n])


def places_of(scene: Scene, split: str, ask: Ask, lab: Lab) -> list[tuple[str, int]]:
    """(split, position) of the examples to explain."""
    size = length(scene.task.split(split).data)
    if size is None:
        raise InvalidData(f"Split `{split}` is a stream.", "examples are looked up by number.", "give a dataset.")
    if not ask.rows:
        chosen = torch.randperm(size, generator=lab.generator())[: ask.examples].sort().values
        return [(split, int(k)) for k in chosen]
    if not scene.has(split, "index"):
        wrong = [row for row in ask.rows if not 0 <= row < size]
        if wrong:
            raise InvalidConfig(
                f"Split `{split}` has no example {wrong[0]}.", f"it holds {size}, from 0 on.", "correct --rows."
            )
        return [(split, row) for row in ask.rows]
    known: dict[int, tuple[str, int]] = {}
    for name, one in scene.task.splits.items():
        at = 0
        for batch in once(one.data, 4_096, scene.lab):
            for row in batch["index"].flatten().tolist():
                known.setdefault(int(row), (name, at))
                at += 1
    missing = [row for row in ask.rows if row not in known]
    if missing:
        raise InvalidConfig(
            f"Row {missing[0]} is in none of the splits.",
            why="rows count from 0 in the table as given; rows without a target, or held out for no split, cannot be asked for.",
            fix=f"choose rows between {min(known)} and {max(known)}.",
        )
    return [known[row] for row in ask.rows]


def inputs_of(scene: Scene, sample: Batch, behaviour: Behaviour, ask: Ask) -> tuple[Inputs, str]:
    """Features, their names and their baseline; and the baseline in words."""
    x = sample[behaviour.column]
    if not x.is_floating_point():
        token = _padding(scene) if ask.baseline is None else int(ask.baseline)
        return Inputs(behaviour.column, float(token)), f"token {token}{_spelled(scene, token)}"
    if ask.baseline is not None:
        base: float | Tensor = ask.baseline
        words = f"{ask.baseline:g}"
    else:
        fitted = next(once(scene.task.split(scene.fitted).data, 2_048, scene.lab))[behaviour.column]
        base, words = fitted.mean(0), f"the mean of the fitted inputs (split `{scene.fitted}`)"
    # a graphics card wants large batches, a processor those that fit its cache
    chunk = 2**18 if x.device.type == "cpu" else 2**26
    if x.dim() == 4 and not scene.subject.features:
        mask: Tensor | None = patches(x.shape[1:], max(1, ceil(min(x.shape[-2:]) / PATCHES)))
        return Inputs(behaviour.column, base, mask, chunk=chunk), words
    mask, names = _columns(scene, x)
    return Inputs(behaviour.column, base, mask, names, chunk), words


def _columns(scene: Scene, x: Tensor) -> tuple[Tensor | None, tuple[str, ...]]:
    """The user's columns as features: one-hot codes of a column count as one."""
    groups, entries = scene.subject.features, x[0].numel()
    if not groups:
        return None, tuple(f"x[{k}]" for k in range(entries)) if x.dim() == 2 else ()
    mask, names = torch.full((entries,), -1), list(groups)
    for k, (name, positions) in enumerate(groups.items()):
        if not positions or max(positions) >= entries or (mask[list(positions)] >= 0).any():
            raise InvalidData(
                f"Feature `{name}` is empty, shares a position with another one, or goes beyond {entries} positions.",
                why="each position of the input belongs to one feature.",
                fix="correct `features` of the subject.",
            )
        mask[list(positions)] = k
    for k in (mask < 0).nonzero().flatten().tolist():
        mask[k] = len(names)
        names.append(f"x[{k}]")
    return mask.view(x.shape[1:]), tuple(names)


def features_in(inputs: Inputs, x: Tensor) -> int:
    """How many features these inputs have."""
    return x[0].numel() if inputs.mask is None else int(inputs.mask.max()) + 1


def neighbourhood_around(scene: Scene, ask: Ask, x: Tensor, column: str) -> Neighbourhood:
    """That of the question, with noise in units of the fitted inputs' spread (tokens: of their embedding's length)."""
    spread = 1.0
    if x.is_floating_point():
        fitted = next(once(scene.task.split(scene.fitted).data, 2_048, scene.lab))[column].double()
        spread = float((fitted - fitted.mean(0)).square().mean().sqrt())
    sigma = float(f"{ask.sigma * spread:.3g}")
    return neighbourhood_of(ask.question, sigma, ask.draws)


def _tokenizer(scene: Scene) -> Any:
    return getattr(scene.first.model, "tokenizer", None)


def _padding(scene: Scene) -> int:
    """The token that stands for none: padding, unknown or end of text; 0 without a tokenizer."""
    known = _tokenizer(scene)
    for name in ("pad_token_id", "unk_token_id", "eos_token_id"):
        if (token := getattr(known, name, None)) is not None:
            return int(token)
    return 0


def _spelled(scene: Scene, token: int) -> str:
    return f" ({_tokenizer(scene).decode([token])!r})" if _tokenizer(scene) is not None else ""


def pieces_of(scene: Scene, tokens: Tensor) -> list[str]:
    """Tokens as the tokenizer writes them, or as numbers."""
    known = _tokenizer(scene)
    return [known.decode([int(t)]) if known is not None else f"{int(t)} " for t in tokens.flatten()]
