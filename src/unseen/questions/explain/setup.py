"""What is perturbed to explain an example: the user's features, what a removed one becomes, and how
far inputs move.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unseen.attributions.explanation.guide import neighbourhood_of
from unseen.engine.batches import gather, length, once
from unseen.engine.local.features import FeatureSpec, patches
from unseen.engine.local.neighbourhoods import LeaveOneOut, Neighbourhood
from unseen.engine.local.perturbed_model import build_perturbed_model
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.questions.explain.request import ExplainRequest, TargetFunction
from unseen.subjects.session import Session
from unseen.task import Batch

Positions: TypeAlias = Sequence[tuple[str, int]]
"""(split, position) of examples."""
PATCHES = 7
"""Along the shorter side of an image."""
MOST_EXPLAINED, RANKED_ON = 100, 8
"""Named features that are explained one by one, and examples on which they are chosen."""


def draw_sample(session: Session, split: str, n: int, lab: Lab) -> Batch:
    """Examples of the split drawn at random; the first ones of a stream."""
    data = session.task.split(split).data
    size = length(data)
    if size is None:
        return next(once(data, n, session.lab))
    return gather(data, torch.randperm(size, generator=lab.generator())[:n])


def find_examples(
    session: Session, split: str, request: ExplainRequest, lab: Lab
) -> list[tuple[str, int]]:
    """(split, position) of the examples to explain."""
    size = length(session.task.split(split).data)
    if size is None:
        raise InvalidData(
            f"Split `{split}` is a stream.", "examples are looked up by number.", "give a dataset."
        )
    if not request.rows:
        chosen = torch.randperm(size, generator=lab.generator())[: request.examples].sort().values
        return [(split, int(k)) for k in chosen]
    if not session.has(split, "index"):
        wrong = [row for row in request.rows if not 0 <= row < size]
        if wrong:
            raise InvalidConfig(
                f"Split `{split}` has no example {wrong[0]}.",
                f"it holds {size}, from 0 on.",
                "correct --rows.",
            )
        return [(split, row) for row in request.rows]
    known: dict[int, tuple[str, int]] = {}
    for name, one in session.task.splits.items():
        at = 0
        for batch in once(one.data, 4_096, session.lab):
            for row in batch["index"].flatten().tolist():
                known.setdefault(int(row), (name, at))
                at += 1
    missing = [row for row in request.rows if row not in known]
    if missing:
        raise InvalidConfig(
            f"Row {missing[0]} is in none of the splits.",
            why="rows count from 0 in the table as given; rows without a target, or held out for "
            "no split, cannot be asked for.",
            fix=f"choose rows between {min(known)} and {max(known)}.",
        )
    return [known[row] for row in request.rows]


def feature_spec(
    session: Session, sample: Batch, behaviour: TargetFunction, request: ExplainRequest
) -> tuple[FeatureSpec, str]:
    """Features, their names and their baseline; and the baseline in words."""
    x = sample[behaviour.column]
    if not x.is_floating_point():
        token = _padding(session) if request.baseline is None else int(request.baseline)
        return FeatureSpec(
            behaviour.column, float(token)
        ), f"token {token}{_token_text(session, token)}"
    if request.baseline is not None:
        base: float | Tensor = request.baseline
        words = f"{request.baseline:g}"
    else:
        fitted = next(once(session.task.split(session.training_split).data, 2_048, session.lab))[
            behaviour.column
        ]
        base, words = (
            fitted.mean(0),
            f"the mean of the fitted inputs (split `{session.training_split}`)",
        )
    # a graphics card wants large batches, a processor those that fit its cache
    chunk = 2**18 if x.device.type == "cpu" else 2**26
    if x.dim() == 4 and not session.subject.features:
        mask: Tensor | None = patches(x.shape[1:], max(1, ceil(min(x.shape[-2:]) / PATCHES)))
        return FeatureSpec(behaviour.column, base, mask, chunk=chunk), words
    mask, names = _columns(session, x)
    return FeatureSpec(behaviour.column, base, mask, names, chunk), words


def _columns(session: Session, x: Tensor) -> tuple[Tensor | None, tuple[str, ...]]:
    """The user's columns as features: one-hot codes of a column count as one."""
    groups, entries = session.subject.features, x[0].numel()
    if not groups:
        return None, tuple(f"x[{k}]" for k in range(entries)) if x.dim() == 2 else ()
    mask, names = torch.full((entries,), -1), list(groups)
    for k, (name, positions) in enumerate(groups.items()):
        if not positions or max(positions) >= entries or (mask[list(positions)] >= 0).any():
            raise InvalidData(
                f"Feature `{name}` is empty, shares a position with another one, or goes beyond "
                f"{entries} positions.",
                why="each position of the input belongs to one feature.",
                fix="correct `features` of the subject.",
            )
        mask[list(positions)] = k
    for k in (mask < 0).nonzero().flatten().tolist():
        mask[k] = len(names)
        names.append(f"x[{k}]")
    return mask.view(x.shape[1:]), tuple(names)


def pool_unimportant(
    session: Session, sample: Batch, behaviour: TargetFunction, inputs: FeatureSpec
) -> FeatureSpec:
    """At most `MOST_EXPLAINED` named features: those whose removal alone changes the output most on
    a few examples; the others are one feature together, since methods cost the square of their
    number and more.
    """
    names, x = list(inputs.names), sample[behaviour.column]
    if len(names) <= MOST_EXPLAINED:
        return inputs
    few = {name: values[:RANKED_ON] for name, values in sample.items()}
    at = build_perturbed_model(session.first.model, few, behaviour.f, inputs, session.lab)
    alone = at.values(LeaveOneOut(), torch.eye(len(names), dtype=x.dtype, device=x.device))
    order = alone.abs().mean(0).argsort(descending=True, stable=True)
    kept = order[: MOST_EXPLAINED - 1].sort().values.cpu()
    place = torch.full((len(names),), len(kept))
    place[kept] = torch.arange(len(kept))
    mask = torch.arange(len(names)).view(x.shape[1:]) if inputs.mask is None else inputs.mask
    others = len(names) - len(kept)
    session.note_cap(
        f"Of {len(names)} features the {len(kept)} whose removal alone changes the output most, on "
        f"{len(few[behaviour.column])} examples, are explained one by one; the other {others} "
        "count as one feature."
    )
    pooled = [*(names[k] for k in kept.tolist()), f"the other {others} features"]
    return replace(inputs, mask=place[mask.cpu()], names=tuple(pooled))


def count_features(inputs: FeatureSpec, x: Tensor) -> int:
    """How many features these inputs have."""
    return x[0].numel() if inputs.mask is None else int(inputs.mask.max()) + 1


def neighbourhood_around(
    session: Session, request: ExplainRequest, x: Tensor, column: str
) -> Neighbourhood:
    """That of the question, with noise in units of the fitted inputs' spread (tokens: of their
    embedding's length).
    """
    spread = 1.0
    if x.is_floating_point():
        fitted = next(once(session.task.split(session.training_split).data, 2_048, session.lab))[
            column
        ].double()
        spread = float((fitted - fitted.mean(0)).square().mean().sqrt())
    sigma = float(f"{request.sigma * spread:.3g}")
    return neighbourhood_of(request.question, sigma, request.draws)


def _tokenizer(session: Session) -> Any:
    return getattr(session.first.model, "tokenizer", None)


def _padding(session: Session) -> int:
    """The token that stands for none: padding, unknown or end of text; 0 without a tokenizer."""
    known = _tokenizer(session)
    for name in ("pad_token_id", "unk_token_id", "eos_token_id"):
        if (token := getattr(known, name, None)) is not None:
            return int(token)
    return 0


def _token_text(session: Session, token: int) -> str:
    return f" ({_tokenizer(session).decode([token])!r})" if _tokenizer(session) is not None else ""


def token_texts(session: Session, tokens: Tensor) -> list[str]:
    """Tokens as the tokenizer writes them, or as numbers."""
    known = _tokenizer(session)
    return [known.decode([int(t)]) if known is not None else f"{int(t)} " for t in tokens.flatten()]
