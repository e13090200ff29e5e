"""Does a language model compute its answer, and where: the logit lens, and causal tracing against a
counterfactual prompt.

An answer is followed by its first token. A prompt that was read is kept under the identity of model
and tokens, so that an interrupted run goes on where it stopped.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from unseen import stats
from unseen.attributions.causal_tracing import COUNTERFACTUAL, trace
from unseen.attributions.logit_lens import lens_values, token_ranks
from unseen.engine.trace import keep_last_position, list_calls, residual_stream
from unseen.errors import InvalidConfig, UnknownName
from unseen.identity import Identity, identify
from unseen.lab import Lab
from unseen.questions.explain.prompts import PromptPair, TokenPair, encode_prompts, show_token
from unseen.reading import Reading
from unseen.task import Batch

LEAST_CHANGE = 0.1
"""Nats by which the counterfactual prompt must move the answer: below, shares of it are noise."""
CHANGED, BETWEEN, LAST = "changed tokens", "tokens between", "last token"
GROUPS = (CHANGED, BETWEEN, LAST)


@dataclass(frozen=True, kw_only=True)
class TraceRequest:
    """What is asked of a language model."""

    model: nn.Module
    name: str
    prompts: Sequence[PromptPair]
    trace: bool = True
    modules: Sequence[str] = ()
    """Names; none: the blocks. The head must read the last one."""
    most: int = 200
    batch_size: int = 32
    """Patched runs that are computed together."""


@dataclass(frozen=True, kw_only=True)
class PromptTrace:
    """What was found for one prompt; rows are modules, columns tokens."""

    at: str
    pieces: Sequence[str]
    answer: str
    answer_rank: int
    """At the end of the model: 1 is its own answer."""
    counterfactual_answer: str = ""
    intermediate: str = ""
    modules: Sequence[str]
    lens: Sequence[Sequence[float]]
    """Log-probability of the answer, read behind each module at each token."""
    ranks: Sequence[int]
    """The answer's rank at the last token, behind each module."""
    intermediate_lens: Sequence[Sequence[float]] = ()
    intermediate_ranks: Sequence[int] = ()
    """At the last token."""
    changed: Sequence[bool] = ()
    """Tokens in which the counterfactual prompt differs."""
    effect: float = 0.0
    """Nats by which the counterfactual prompt moves answer against counterfactual answer."""
    shares: Sequence[Sequence[float]] = ()
    """Share of that by exchanging one state."""
    group_shares: Mapping[str, Sequence[float]]
    """The same for all states of a kind of token together, by module."""

    @property
    def is_traced(self) -> bool:
        return self.effect >= LEAST_CHANGE


@dataclass(frozen=True, kw_only=True)
class TraceReport:
    """Everything that the report shows."""

    name: str
    modules: Sequence[str]
    prompts: Sequence[PromptTrace]
    trace: bool
    decisions: Sequence[str]
    seconds: float = 0.0

    @property
    def pairs(self) -> Sequence[PromptTrace]:
        """Prompts whose counterfactual moves the answer: those that means are over."""
        return [one for one in self.prompts if one.is_traced]


def trace_prompts(request: TraceRequest, lab: Lab) -> TraceReport:
    """Reads and traces prompt by prompt."""
    began = time.perf_counter()
    model = request.model.to(lab.device)
    pairs = encode_prompts(request.prompts, model, request.most)
    twins = sum(pair.counterfactual is not None for pair in pairs)
    if request.trace and not twins:
        raise InvalidConfig(
            "No prompt has a counterfactual.",
            why="tracing exchanges states between a prompt and another one with as many tokens.",
            fix='add "counterfactual": "…", or leave --trace out for the logit lens alone.',
        )
    names = _list_states(request, pairs[0], lab)
    # once: it reads every weight
    setting = identify(
        "tracing", model=model, asked=(names, request.trace), code=(_measure_pair, trace)
    )
    was_training = model.training
    model.eval()
    # small products on many threads wait for each other longer than they compute
    try:
        with threadpool_limits(1 if _is_small(model) else None):
            found = [
                _read_pair(request, pair, names, setting, lab)
                for pair in lab.track(pairs, len(pairs))
            ]
    finally:
        model.train(was_training)
    return TraceReport(
        name=request.name,
        modules=names,
        prompts=found,
        trace=request.trace,
        decisions=list(_decisions(request, found, twins)),
        seconds=time.perf_counter() - began,
    )


def _is_small(model: nn.Module) -> bool:
    return sum(p.numel() for p in model.parameters()) < 10**7


def _list_states(request: TraceRequest, pair: TokenPair, lab: Lab) -> list[str]:
    """The calls that are traced, in their order."""
    model = request.model
    known = dict(model.named_modules())
    for name in request.modules:
        if name not in known:
            raise UnknownName.near("module", name, known)
    names = list(request.modules) or residual_stream(model)
    tokens = torch.tensor([pair.tokens], device=lab.device)
    with torch.no_grad():
        return [call.name for call in list_calls(model, names, lambda: model(tokens))]


def _read_pair(
    request: TraceRequest, pair: TokenPair, names: Sequence[str], setting: Identity, lab: Lab
) -> PromptTrace:
    model = request.model
    key = identify(
        "traced prompt",
        setting=setting,
        tokens=(pair.tokens, pair.counterfactual),
        answers=(pair.answer, pair.counterfactual_answer, pair.intermediate),
    )
    found = lab.keep(key, lambda: _measure_pair(request, pair, names, lab))
    groups = {
        name: found["group_shares"][:, k].tolist()
        for k, name in enumerate(GROUPS)
        if "group_shares" in found and bool(found["group_used"][k])
    }
    return PromptTrace(
        at=pair.at,
        pieces=pair.pieces,
        modules=names,
        answer=show_token(int(found["answer"]), model),
        answer_rank=int(found["ranks"][-1]),
        counterfactual_answer=show_token(int(found["other"]), model) if "other" in found else "",
        intermediate="" if pair.intermediate is None else show_token(pair.intermediate, model),
        lens=found["lens"].tolist(),
        ranks=found["ranks"].tolist(),
        intermediate_lens=found["intermediate_lens"].tolist()
        if "intermediate_lens" in found
        else (),
        intermediate_ranks=found["intermediate_ranks"].tolist()
        if "intermediate_ranks" in found
        else (),
        changed=found["changed"].tolist() if "changed" in found else (),
        effect=float(found["effect"]) if "effect" in found else 0.0,
        shares=found["shares"].tolist() if "shares" in found else (),
        group_shares=groups,
    )


class Answers(NamedTuple):
    """Tokens that are compared."""

    answer: int
    other: int


@torch.no_grad()
def _measure_pair(
    request: TraceRequest, pair: TokenPair, names: Sequence[str], lab: Lab
) -> dict[str, Tensor]:
    """Everything about one pair, as tensors."""
    model = request.model
    tokens = torch.tensor([pair.tokens], device=lab.device)
    own = _answer(model, tokens, pair.answer)
    found = {"answer": torch.tensor(own)}
    lens, ranks = _read_lens(model, tokens, own, names)
    found |= {"lens": lens, "ranks": ranks}
    if pair.intermediate is not None:
        lens, ranks = _read_lens(model, tokens, pair.intermediate, names)
        found |= {"intermediate_lens": lens, "intermediate_ranks": ranks}
    if request.trace and pair.counterfactual is not None:
        twin = torch.tensor([pair.counterfactual], device=lab.device)
        other = _answer(model, twin, pair.counterfactual_answer)
        found |= {"other": torch.tensor(other)}
        found |= _trace_pair(request, tokens, twin, Answers(own, other), names)
    return {name: tensor.cpu() for name, tensor in found.items()}


def _answer(model: nn.Module, tokens: Tensor, given: int | None) -> int:
    """The given token, or the most likely one."""
    return int(model(tokens)[0, -1].argmax()) if given is None else given


def _read_lens(
    model: nn.Module, tokens: Tensor, answer: int, names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Log-probability of a token behind each module at each position, and its rank at the last."""

    def read(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["tokens"])
        wanted = torch.full_like(batch["tokens"], answer)
        values = logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
        return torch.stack([values, token_ranks(logits, wanted).to(values.dtype)])

    found = torch.stack(list(lens_values(model, {"tokens": tokens}, read, names).values()))
    return found[:, 0, 0], found[:, 1, 0, -1].long()


def _trace_pair(
    request: TraceRequest, tokens: Tensor, twin: Tensor, answers: Answers, names: Sequence[str]
) -> dict[str, Tensor]:
    """How far each state, and each kind of token, leads to the counterfactual answer."""

    def preference(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["tokens"])[:, -1]
        return logits[:, answers.answer] - logits[:, answers.other]

    changed = (tokens != twin)[0]
    groups = token_groups(changed)
    alone = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    marked = torch.cat([alone, groups])[None]
    with keep_last_position(request.model):
        found = trace(
            request.model,
            {"tokens": tokens, COUNTERFACTUAL: twin},
            preference,
            names,
            marked,
            request.batch_size,
        )
    effect = (found.plain - found.counterfactual)[0]
    # a change of nothing has no shares
    shares = found.effects[0] / effect.clamp_min(1e-6)
    n = tokens.shape[1]
    return {
        "changed": changed,
        "effect": effect,
        "shares": shares[:, :n],
        "group_shares": shares[:, n:],
        "group_used": groups.any(1),
    }


def token_groups(changed: Tensor) -> Tensor:
    """[group, position]: the changed tokens, those between the first of them and the last token,
    and the last token, which belongs to no other group.
    """
    n = len(changed)
    position = torch.arange(n, device=changed.device)
    is_last = position == n - 1
    first = int(changed.nonzero()[0])
    between = (position > first) & ~changed & ~is_last
    return torch.stack([changed & ~is_last, between, is_last])


def _decisions(request: TraceRequest, found: Sequence[PromptTrace], twins: int) -> Iterator[str]:
    yield "An answer is followed by its first token."
    missing = sum(pair.answer is None for pair in request.prompts)
    if missing:
        yield (
            f"{missing} of {len(found)} prompts have no answer of yours: the most likely token is "
            "followed."
        )
    if not request.trace:
        return
    if twins < len(found):
        yield f"{len(found) - twins} of {len(found)} prompts have no counterfactual: not traced."
    still = sum(bool(one.changed) and not one.is_traced for one in found)
    if still:
        yield (
            f"For {still} of {twins} traced prompts the counterfactual one moves the answer by "
            f"less than {LEAST_CHANGE:g} nats, or the other way: left out of means."
        )


def mean_shares(found: TraceReport) -> dict[str, list[Reading]]:
    """Mean over prompts, by kind of token and module: the share of the change that the states of
    this kind carry.
    """
    shown: dict[str, list[Reading]] = {}
    for group in GROUPS:
        rows = [one.group_shares[group] for one in found.pairs if group in one.group_shares]
        if rows:
            shown[group] = [
                stats.mean(list(values), unit="share") for values in zip(*rows, strict=True)
            ]
    return shown


def mean_reciprocal_ranks(found: TraceReport) -> dict[str, list[Reading]]:
    """Mean over prompts, by module: 1 over the rank at the last token; the answer, and what has to
    be found on the way.
    """
    sides = {
        "answer": [one.ranks for one in found.prompts],
        "intermediate": [one.intermediate_ranks for one in found.prompts if one.intermediate],
    }
    return {
        name: [
            stats.mean([1 / rank for rank in ranks], within=(0, 1))
            for ranks in zip(*rows, strict=True)
        ]
        for name, rows in sides.items()
        if rows
    }


def layer_of_answer(one: PromptTrace) -> int | None:
    """The first module, counted from 1, behind which the answer is the most likely token and stays
    so; None where it is not the model's answer.
    """
    last = next((k for k in reversed(range(len(one.ranks))) if one.ranks[k] != 1), -1)
    return None if last == len(one.ranks) - 1 else last + 2


def crossing(shares: Mapping[str, Sequence[Reading]]) -> int | None:
    """The first module, counted from 1, behind which the last token carries more than the changed
    ones.
    """
    if CHANGED not in shares or LAST not in shares:
        return None
    pairs = zip(shares[CHANGED], shares[LAST], strict=True)
    return next((k for k, (one, other) in enumerate(pairs, 1) if other.value > one.value), None)
