"""The most helpful and harmful examples of a long corpus, a stretch at a time: a killed run goes on
where it was.
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unseen.attributions.influence.attributor import InfluenceScores
from unseen.attributions.influence.running_sums import are_equal
from unseen.attributions.influence.top_k import (
    Extremes,
    Top,
    each_once,
    no_extremes,
    top_of,
    update_extremes,
)
from unseen.engine.batches import size
from unseen.engine.sharding import is_sharded, without_hooks
from unseen.errors import InvalidConfig, InvalidData
from unseen.identity import Identity, Structure, identify
from unseen.task import Batch, PerExample, Use


@runtime_checkable
class StateStore(Protocol):
    """Where the state between two stretches is kept; `questions/influence/saving.py` has the
    file.
    """

    def load(self) -> dict[str, Tensor] | None: ...
    def save(self, state: dict[str, Tensor]) -> None: ...


def identity(
    found: InfluenceScores,
    queries: Batch,
    behaviour: PerExample,
    k: int,
    candidates: Tensor | None,
    every: int = 4,
) -> Identity:
    """Everything that decides the result: model, factors, settings, queries, candidates and
    corpus.
    """
    model = found.trained.model
    return identify(
        "running best",
        settings=replace(found.config, disk=0),
        # the factors carry a digest of the weights
        model=Structure(without_hooks(model)) if is_sharded(model) else model,
        factors=found.factors.tensors(),
        data=found.trained.task.of(Use.TRAIN),
        queries=queries,
        behaviour=behaviour,
        loss=found.loss,
        k=(k, every),
        candidates=candidates,
        lab=found.lab.signature,
        code=top,
    )


def top(
    found: InfluenceScores,
    queries: Batch,
    behaviour: PerExample,
    k: int,
    saved: StateStore,
    *,
    candidates: Tensor | None = None,
    every: int = 4,
) -> Top:
    """The same as `found.top`, with the running best saved after every so many batches of each
    process.

    Memory does not grow with the corpus. Batches are the same whether or not a run was interrupted,
    hence scores are.
    """
    if k < 1 or every < 1:
        raise InvalidConfig(
            f"k={k}, every={every}.", why="at least one of each is needed.", fix="use k=5, every=4."
        )
    rows = _rows(found, candidates)
    step = every * found.config.batch_size * found.lab.ranks.size
    state = saved.load()
    done = 0 if state is None else int(state["done"])
    is_common = is_sharded(found.trained.model) or found.config.curvature.is_iterative
    if is_common and not are_equal(done, found.lab):
        state = None  # the processes were killed apart, and can only run or solve together
    done = 0 if state is None else int(state["done"])
    ends: Extremes | None = None if state is None else _read(state)
    if done < len(rows):
        ready, precision = found.prepare_queries(queries, behaviour)
        for start in found.lab.track(
            range(done, len(rows), step), len(range(done, len(rows), step))
        ):
            part = rows[start : start + step]
            for at, values in found.columns(ready, precision, part):
                ends = update_extremes(ends, at.cpu(), values.cpu(), k)
            saved.save(_state_tensors(ends, start + len(part)))
    if ends is None:  # more processes than batches: this one had none
        ends = no_extremes(size(queries), torch.device("cpu"))
    return top_of(ends, k, found.stream.count(), found.lab)


def _rows(found: InfluenceScores, candidates: Tensor | None) -> Tensor:
    n = found.stream.length_if_known
    if n is None:
        raise InvalidData(
            "A stream cannot be taken up in its middle.",
            why="its examples cannot be read by number.",
            fix="memory-map it (TextCorpus with a folder), or use top() of the influences, which "
            "starts anew.",
        )
    return torch.arange(n) if candidates is None else each_once(candidates)


def _state_tensors(ends: Extremes | None, done: int) -> dict[str, Tensor]:
    made = {"done": torch.tensor(done)}
    if ends is not None:
        (low, at), (high, where) = ends
        made |= {"low": low, "low_at": at, "high": high, "high_at": where}
    return {name: tensor.contiguous() for name, tensor in made.items()}


def _read(state: dict[str, Tensor]) -> Extremes | None:
    if "low" not in state:
        return None
    return (state["low"], state["low_at"]), (state["high"], state["high_at"])
