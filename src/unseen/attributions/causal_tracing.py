"""Which module at which position carries an answer: interchange interventions between a query and a
counterfactual one (Vig et al., 2020, arXiv:2004.12265; Meng et al., 2022, arXiv:2202.05262).

The query runs with one module's output at chosen positions replaced by what the counterfactual
query, of the same length, has there; everything after is computed anew. With every position of the
token embedding replaced it is the counterfactual run; replaced by itself nothing changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Num
from torch import Tensor, nn

from unseen.attribution import Cause, Credits
from unseen.engine.batches import Columns
from unseen.engine.trace import Call, list_calls, patch, record, residual_stream, skip
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import exact_match
from unseen.task import Axis, Batch, PerExample, Split, Task, Use

COUNTERFACTUAL = "counterfactual"
"""Column with the tokens of the counterfactual query."""


@dataclass(frozen=True)
class Trace:
    """A behaviour in the two plain runs and in every patched one."""

    plain: Num[Tensor, " query"]
    counterfactual: Num[Tensor, " query"]
    patched: Num[Tensor, "query module group"]
    modules: Sequence[str]

    @property
    def effects(self) -> Num[Tensor, "query module group"]:
        """What the query loses by each patch."""
        return self.plain[:, None, None] - self.patched


@torch.no_grad()
def trace(
    model: nn.Module,
    queries: Batch,
    behaviour: PerExample,
    modules: Sequence[str] = (),
    groups: Bool[Tensor, "query group position"] | None = None,
    batch_size: int = 256,
) -> Trace:
    """The behaviour of queries (columns `tokens` and `counterfactual`) after each patch.

    `groups` marks the positions that are patched together (None: each position alone). `modules`
    are names as in `engine/trace.py` (none: the blocks); one that is called several times is
    patched call by call. `batch_size` counts the patched queries that run together.
    """
    tokens = _check_tokens(queries)
    if groups is None:
        groups = torch.eye(tokens.shape[1], dtype=torch.bool).expand(len(tokens), -1, -1)
    groups = groups.to(tokens.device)
    plain = {name: column for name, column in queries.items() if name != COUNTERFACTUAL}
    twin = {**plain, "tokens": queries[COUNTERFACTUAL]}
    was_training = model.training
    model.eval()
    try:
        names = list(modules) or residual_stream(model)
        calls = list_calls(model, names, lambda: behaviour(model, _rows(plain, slice(1))))
        # states are held for so many queries at a time
        step = max(1, batch_size // groups.shape[1])
        found = [
            _trace_part(
                model,
                _rows(plain, slice(k, k + step)),
                _rows(twin, slice(k, k + step)),
                behaviour,
                calls,
                groups[k : k + step],
                batch_size,
            )
            for k in range(0, len(tokens), step)
        ]
    finally:
        model.train(was_training)
    values, counterfactual, patched = (torch.cat(part) for part in zip(*found, strict=True))
    return Trace(values, counterfactual, patched, [call.name for call in calls])


def _trace_part(
    model: nn.Module,
    plain: Batch,
    twin: Batch,
    behaviour: PerExample,
    calls: Sequence[Call],
    groups: Bool[Tensor, "query group position"],
    batch_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Values of the plain, the counterfactual and the patched runs."""
    names = [call.name for call in calls]
    both = {name: torch.cat([plain[name], twin[name]]) for name in plain}
    with record(model, names) as recorded:
        values, counterfactual = behaviour(model, both).chunk(2)
    for name in names:
        _refuse_shape(name, recorded[name], both["tokens"])
    states, others = ({name: recorded[name].chunk(2)[k] for name in names} for k in (0, 1))
    n, g = groups.shape[:2]
    patched = values.new_zeros(len(calls), n * g)
    for rows in torch.arange(n * g, device=groups.device).split(batch_size):
        query, marked = rows // g, groups.flatten(0, 1)[rows]
        batch = _rows(plain, query)
        before: dict[str, Tensor] = {}
        for k, call in enumerate(calls):
            state, other = states[call.name][query], others[call.name][query]
            mask = marked.view(*marked.shape, *[1] * (state.dim() - 2))
            mixed = torch.where(mask, other, state)
            # what lies before the patch is as in the plain run
            replace = skip if call.is_plain else patch
            with skip(model, before), replace(model, {call.name: mixed}):
                patched[k, rows] = behaviour(model, batch)
            if call.is_plain:
                before[call.name] = state
    return values, counterfactual, patched.T.reshape(n, g, len(calls)).transpose(1, 2)


def _rows(batch: Batch, index: slice | Tensor) -> Batch:
    return {name: column[index] for name, column in batch.items()}


def _check_tokens(queries: Batch) -> Int[Tensor, "query position"]:
    if "tokens" not in queries or COUNTERFACTUAL not in queries:
        raise InvalidData(
            f"Queries hold {', '.join(queries)}.",
            why=f"tracing compares the columns `tokens` and `{COUNTERFACTUAL}`.",
            fix="give both, with as many tokens.",
        )
    tokens, twin = queries["tokens"], queries[COUNTERFACTUAL]
    if tokens.shape != twin.shape or tokens.dim() != 2 or not tokens.numel():
        raise InvalidData(
            f"Queries have shape {tuple(tokens.shape)}, counterfactual ones {tuple(twin.shape)}.",
            why="the state at a position is replaced by that of the same position.",
            fix="give both as [query, position], with at least one of each.",
        )
    return tokens


def _refuse_shape(name: str, state: Tensor, tokens: Tensor) -> None:
    if state.shape[:2] != tokens.shape:
        raise InvalidData(
            f"`{name}` gives {tuple(state.shape)} for tokens {tuple(tokens.shape)}.",
            why="its output has no state per query and position.",
            fix="name a module that returns [query, position, …], such as a block.",
        )


@dataclass(frozen=True)
class CausalTracing:
    """What a behaviour loses when a module at a position has the state of the counterfactual query:
    f(query) − f(patched query). Causes are modules × positions, module by module.
    """

    modules: tuple[str, ...] = ()
    """Names; none: the blocks."""
    batch_size: int = 256

    def prepare(self, trained: Trained, lab: Lab) -> "Tracer":
        return Tracer(self, trained.model)


@dataclass(frozen=True)
class Tracer:
    """The attributor."""

    config: CausalTracing
    model: nn.Module

    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits:
        found = trace(
            self.model,
            queries,
            behaviour,
            self.config.modules,
            batch_size=self.config.batch_size,
        )
        positions = range(found.patched.shape[2])
        labels = [f"{name}, position {p}" for name in found.modules for p in positions]
        return Credits(found.effects.flatten(1), Cause.COMPONENT, labels)


def example() -> tuple[CausalTracing, Trained]:
    """Of a small decoder that has learned nothing yet."""
    tokens = torch.randint(9, (6, 4), generator=Lab(0).generator())
    columns = Columns(tokens=tokens, counterfactual=tokens.roll(1, 0))
    task = Task(
        name="tokens",
        axis=Axis.IID,
        splits={"train": Split(columns, Use.TRAIN), "test": Split(columns, Use.EVALUATE)},
        objective=exact_match,
    )
    with Lab(0).seeded():
        model = Transformer(Decoder(vocabulary=9, width=8, layers=2, heads=2, context=4))
    return CausalTracing(), Trained(model.eval(), task)
