"""From the kept scores of blocks to one sheet per method and task."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy import ndarray

from unseen.questions.compare.protocols import MethodScores, Protocol, mean_over_domains
from unseen.questions.compare.run_groups import RunGroup, RunScores


def method_scores(
    parts: Mapping[RunGroup, RunScores],
    failed: Sequence[RunGroup],
    protocols: Sequence[Protocol],
    seeds: int,
    draws: int,
) -> MethodScores | None:
    """The scores of the blocks of one method on one task; None if its runs on all training domains
    could not be made.
    """
    if any(not block.without for block in failed) or not parts:
        return None
    own = join_chunks([kept for block, kept in parts.items() if not block.without], seeds, draws)
    finite = ~own.pop("diverged").astype(bool)
    own.pop("together")
    for (
        values
    ) in own.values():  # a logit that overflows on evaluation examples counts as divergence, too
        finite &= np.isfinite(values.reshape(seeds, draws, -1)).all(-1)
    validation: dict[Protocol, ndarray] = {}
    if draws == 1:
        validation[protocols[0]] = np.zeros((seeds, 1))  # nothing to choose from
    else:
        sources = {Protocol.TRAINING: "select", Protocol.ORACLE: "oracle"}
        validation = {p: own[name] for p, name in sources.items() if name in own}
        if not failed and (known := by_domain(parts, seeds, draws)):
            validation[Protocol.LEFT_OUT] = mean_over_domains(known)
    return MethodScores(
        validation={p: validation[p] for p in protocols if p in validation},
        score={
            name.removeprefix("score "): v for name, v in own.items() if name.startswith("score ")
        },
        margin={
            name.removeprefix("margin "): v for name, v in own.items() if name.startswith("margin ")
        },
        seen=own.get("seen"),
        diverged=~finite,
    )


def by_domain(parts: Mapping[RunGroup, RunScores], seeds: int, draws: int) -> list[ndarray]:
    """The validation scores [seed, draw] of each training domain that was left out; nothing if one
    has none.
    """
    found = []
    for domain in dict.fromkeys(block.without for block in parts if block.without):
        each = join_chunks(
            [kept for block, kept in parts.items() if block.without == domain], seeds, draws
        )
        if "select" not in each:
            return []
        found.append(each["select"])
    return found


def join_chunks(parts: Sequence[RunScores], seeds: int, draws: int) -> dict[str, ndarray]:
    """The chunks of all runs as arrays [seed, draw, …]; NaN for a chunk in which every model
    diverged.
    """
    shapes = {name: tensor.shape[1:] for part in parts for name, tensor in part.items()}
    arrays = {}
    for name, shape in shapes.items():
        rows = [
            p.get(name, torch.full((len(p["diverged"]), *shape), torch.nan)).double() for p in parts
        ]
        arrays[name] = torch.cat(rows).numpy().reshape(seeds, draws, *shape)
    return arrays
