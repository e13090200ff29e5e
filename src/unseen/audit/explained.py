"""Explanations for a person: what is explained, compared with what, by which method and why, example by example.

Composed from the guide (`attributions/explanation/guide.py`) and the audit's scene. What was computed is kept under a hash of
model, inputs and method, so that an interrupted run goes on where it stopped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from unseen.attribution import Cause
from unseen.attributions.explanation import Preset, over
from unseen.attributions.explanation.guide import Choice, Question, choose, matched, neighbourhood_of
from unseen.attributions.explanation.solve import explained
from unseen.audit.findings import Example
from unseen.audit.runs import _hash
from unseen.audit.scene import Scene
from unseen.engine.approximation import Explanation, Loss, effects, on, seen
from unseen.engine.around import Inputs, around, patches
from unseen.engine.batches import gather, length, once, place
from unseen.engine.neighbourhoods import Map, Neighbourhood
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.objectives import sequence_log_probability
from unseen.task import Batch, PerExample

EXPLAINED = "explained"
"""The column with the class, or token, whose log-odds are explained: fixed while the input is perturbed."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is to be explained."""

    split: str = ""
    """Where examples are taken from; empty: the judged split that matters most."""
    rows: Sequence[int] = ()
    """Rows of the user's table, or positions in the split; empty: `examples` of the split, drawn at random."""
    examples: int = 8
    method: str = ""
    """One of the eight; empty: the most faithful one."""
    question: Question = Question.REMOVE
    sample: int = 64
    """Inputs on which methods are compared."""
    draws: int = 1_000
    """Perturbations per input."""
    sigma: float = 0.25
    """Of the noise, for the question "change", in standard deviations of the fitted inputs."""
    target: int | None = None
    """Class to explain; None: the predicted one of each example."""
    baseline: float | None = None
    """What a removed feature becomes; None: the mean of the fitted inputs; for tokens the tokenizer's padding."""


@dataclass(frozen=True)
class Told:
    """One explained example."""

    example: Example
    output: float
    base: float
    """The behaviour with every feature at its baseline."""
    credits: Mapping[str, float]
    """What each feature adds, against its baseline."""
    unexplained: float
    """Share of the behaviour's variation around this example that the explanation leaves."""
    heat: Sequence[Sequence[float]] = ()
    """Credits as a picture, for images."""
    picture: Tensor | None = None
    """The image itself, grey."""
    pieces: Sequence[str] = ()
    """Tokens as text."""


@dataclass(frozen=True)
class Explained:
    """Everything that the report shows."""

    name: str
    task: str
    behaviour: str
    unit: str
    removed: str
    """What a removed feature becomes, in words."""
    choice: Choice
    used: str
    """The method that explains the examples: the chosen one, or the asked one."""
    question: Question
    told: Sequence[Told]
    decisions: Sequence[str] = ()
    warnings: Sequence[str] = ()


Places: TypeAlias = Sequence[tuple[str, int]]
"""(split, position) of examples."""


@dataclass(frozen=True)
class Behaviour:
    """A function of model and batch, in words and with its unit."""

    f: PerExample
    says: str
    unit: str
    column: str = "x"


@dataclass(frozen=True)
class Asked:
    """How examples are explained, once the method is known."""

    used: str
    preset: Preset
    where: Neighbourhood
    inputs: Inputs
    kept: "Kept"


def explain(scene: Scene, ask: Ask, lab: Lab) -> Explained:
    """Compares the methods on a sample of the split, then explains the asked examples with the best, or the asked, one."""
    split = ask.split or scene.hardest
    sample = _sample(scene, split, ask.sample, lab.child("sample"))
    behaviour = behaviour_of(scene, sample, ask.target)
    sample = marked(scene, sample, behaviour, ask.target)
    inputs, removed = _inputs(scene, sample, behaviour, ask)
    where = _neighbourhood(scene, ask, sample[behaviour.column], behaviour.column)
    kept = Kept(scene, where, inputs, lab)
    methods = matched(where, _features(inputs, sample[behaviour.column]))
    if ask.method and ask.method not in methods:
        raise UnknownName.near("method", ask.method, methods)
    places = _places(scene, split, ask, lab.child("rows"))
    choice = choose(scene.first, sample, behaviour.f, where, lab.child("choose"), inputs=inputs, methods=methods,
                    remember=partial(kept.explanation, sample))  # fmt: skip
    used = ask.method or choice.name
    if used in choice.left_out:
        raise InvalidConfig(f"{used} cannot explain this model.", choice.left_out[used], "use --method auto.")
    asked, told = Asked(used, methods[used], where, inputs, kept), list[Told]()
    chunks = [places[k : k + 4] for k in range(0, len(places), 4)]
    for part in lab.track(chunks, len(chunks)):
        batch = default_collate([scene.task.split(name).data[index] for name, index in part])
        told += _told(scene, marked(scene, batch, behaviour, ask.target), part, behaviour, asked, lab)
    return Explained(
        name=scene.subject.name,
        task=scene.task.name,
        behaviour=behaviour.says,
        unit=behaviour.unit,
        removed=removed,
        choice=choice,
        used=used,
        question=ask.question,
        told=told,
        decisions=scene.subject.decisions,
        warnings=[*scene.subject.warnings, *(f"{name} was left out: {why}" for name, why in choice.left_out.items())],
    )


def behaviour_of(scene: Scene, batch: Batch, target: int | None) -> Behaviour:
    """What is explained: log-odds of a class, a predicted number in its own unit, the log-probability of an answer."""
    column = "x" if "x" in batch else "tokens"
    if column not in batch:
        raise InvalidData(
            f"Examples hold {', '.join(batch)}.", "inputs are the column `x` or `tokens`.", "rename the input column."
        )
    if column == "tokens" and "mask" in batch:
        return Behaviour(sequence_log_probability, "log-probability of the marked tokens", "nats", column)
    with torch.no_grad():
        z = scene.first.model(place({column: batch[column][:1]}, scene.lab)[column])
    if column == "tokens" and z.dim() == 3:
        return Behaviour(partial(_next_token, column), "log-probability of the most likely next token", "nats", column)
    if scene.classifies:
        names = scene.subject.classes
        told = (
            "the predicted class" if target is None else (names[target] if target < len(names) else f"class {target}")
        )
        return Behaviour(partial(_log_odds, column), f"log-odds of {told}", "log-odds", column)
    if z.numel() != 1:
        raise InvalidData(
            f"The model has {z.numel()} outputs per example, and the targets are no classes.",
            why="what is explained is one number per example.",
            fix="explain one output with unseen.attributions.explanation from Python.",
        )
    scale, centre = scene.subject.unit, scene.subject.centre
    return Behaviour(lambda m, b: centre + scale * m(b[column]).reshape(len(b[column])), "predicted value", "", column)


def _log_odds(column: str, model: nn.Module, batch: Batch) -> Tensor:
    """log p/(1 − p) of the class in `explained`: unlike p it does not saturate, unlike one logit it means something."""
    z, chosen = model(batch[column]), batch[EXPLAINED]
    if z.dim() == 1 or z.shape[1] == 1:
        return z.reshape(len(z)) * (2 * chosen - 1)
    own = z.gather(1, chosen[:, None])[:, 0]
    return own - z.scatter(1, chosen[:, None], float("-inf")).logsumexp(1)


def _next_token(column: str, model: nn.Module, batch: Batch) -> Tensor:
    return model(batch[column])[:, -1].log_softmax(-1).gather(1, batch[EXPLAINED][:, None])[:, 0]


@torch.no_grad()
def marked(scene: Scene, batch: Batch, behaviour: Behaviour, target: int | None) -> Batch:
    """The batch with the class, or token, to explain."""
    batch = place(batch, scene.lab)
    z = scene.first.model(batch[behaviour.column])
    z = z[:, -1] if z.dim() == 3 else z
    if target is not None:
        most = 2 if z.dim() == 1 or z.shape[1] == 1 else z.shape[1]
        if not 0 <= target < most:
            raise InvalidConfig(f"target={target} of {most} classes.", "classes count from 0.", "correct the class.")
        chosen = torch.full((len(z),), target, device=z.device)
    elif z.dim() == 1 or z.shape[1] == 1:
        chosen = (z.reshape(len(z)) > 0).long()
    else:
        chosen = z.argmax(1)
    return {**batch, EXPLAINED: chosen}


def _sample(scene: Scene, split: str, n: int, lab: Lab) -> Batch:
    data = scene.task.split(split).data
    size = length(data)
    if size is None:
        return next(once(data, n, scene.lab))
    return gather(data, torch.randperm(size, generator=lab.generator())[:n])


def _places(scene: Scene, split: str, ask: Ask, lab: Lab) -> list[tuple[str, int]]:
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


def _inputs(scene: Scene, sample: Batch, behaviour: Behaviour, ask: Ask) -> tuple[Inputs, str]:
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
    if x.dim() == 4:
        size = max(1, ceil(min(x.shape[-2:]) / 7))
        return Inputs(behaviour.column, base, patches(x.shape[1:], size)), words
    mask, names = _columns(scene, x)
    return Inputs(behaviour.column, base, mask, names), words


def _columns(scene: Scene, x: Tensor) -> tuple[Tensor | None, tuple[str, ...]]:
    """The user's columns as features: one-hot codes of a column count as one."""
    groups, entries = scene.subject.features, x[0].numel()
    if not groups:
        return None, tuple(f"x[{k}]" for k in range(entries)) if x.dim() == 2 else ()
    mask, names = torch.full((entries,), -1), list(groups)
    for k, positions in enumerate(groups.values()):
        mask[list(positions)] = k
    for k in (mask < 0).nonzero().flatten().tolist():
        mask[k] = len(names)
        names.append(f"x[{k}]")
    return mask.view(x.shape[1:]), tuple(names)


def _features(inputs: Inputs, x: Tensor) -> int:
    if inputs.mask is not None:
        return int(inputs.mask.max()) + 1
    return x[0].numel()


def _neighbourhood(scene: Scene, ask: Ask, x: Tensor, column: str) -> Neighbourhood:
    """That of the question, with noise in units of the fitted inputs' spread (tokens: of their embedding's length)."""
    spread = 1.0
    if x.is_floating_point():
        fitted = next(once(scene.task.split(scene.fitted).data, 2_048, scene.lab))[column].double()
        spread = float((fitted - fitted.mean(0)).square().mean().sqrt())
    sigma = float(f"{ask.sigma * spread:.3g}")
    return neighbourhood_of(ask.question, sigma, ask.draws)


@dataclass(frozen=True)
class Kept:
    """Answers under a hash of model, inputs, neighbourhood and baseline; a model without weights is asked anew."""

    scene: Scene
    where: Neighbourhood
    inputs: Inputs
    lab: Lab

    def tensors(self, batch: Batch, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        weights = self.scene.first.model.state_dict()
        if not weights:
            return make()
        more = {"baseline": torch.as_tensor(self.inputs.baseline)}
        more |= {} if self.inputs.mask is None else {"mask": self.inputs.mask}
        known = f"{_hash(weights)} {_hash({**batch, **more})} {self.where!r} {'/'.join(self.lab.path)} {self.lab.seed}"
        return self.lab.keep(f"explain {known} {name}", make)

    def explanation(self, batch: Batch, name: str, make: Callable[[], Explanation]) -> Explanation:
        made: list[Explanation] = []

        def tensors() -> dict[str, Tensor]:
            made.append(make())
            one = made[0]
            parts = {
                "scores": one.scores,
                "loss": one.loss,
                "null": one.null,
                "intercept": one.intercept,
                "gap": one.gap,
            }
            parts["additive"] = torch.tensor(one.map is Map.ADDITIVE)
            return {key: t for key, t in parts.items() if t is not None}

        found = self.tensors(batch, name, tensors)
        if made:
            return made[0]
        found = {key: t.to(self.lab.device) for key, t in found.items()}
        return Explanation(
            found["scores"],
            Cause.FEATURE,
            tuple(self.inputs.names),
            map=Map.ADDITIVE if bool(found["additive"]) else Map.MULTIPLICATIVE,
            intercept=found.get("intercept"),
            loss=found.get("loss"),
            null=found.get("null"),
            gap=found.get("gap"),
        )


def _told(scene: Scene, batch: Batch, places: Places, behaviour: Behaviour, asked: Asked, lab: Lab) -> list[Told]:
    """The examples with their credits, as effects against the baseline whatever the method."""
    inputs, where = asked.inputs, asked.where

    def make() -> dict[str, Tensor]:
        at = around(scene.first.model, batch, behaviour.f, inputs, lab)
        answer = explained(at, over(asked.preset, inputs).approximation(scene.first.model), lab.child(asked.used))
        found, w = seen(at, where, Loss.SQUARED, lab.child("examples")), on(at, answer, where.map)
        null = found.null
        share = torch.where(null > 0, found.loss(w) / null.clamp_min(1e-30), 0.0)
        return {"credits": effects(at, answer), "output": at.at_point, "base": at.at_base, "unexplained": share}

    kept = asked.kept.tensors(batch, f"examples by {asked.used} {asked.preset!r}", make)
    x, made = batch[behaviour.column], []
    for k, (split, index) in enumerate(places):
        row = kept["credits"][k].cpu()
        pieces = () if x.is_floating_point() else _pieces(scene, x[k])
        names = inputs.names or [f"{j}: {piece}" for j, piece in enumerate(pieces)] or [f"{j}" for j in range(len(row))]
        made.append(
            Told(
                example=scene.example(split, index, float(kept["output"][k]), is_predicted=True),
                output=float(kept["output"][k]),
                base=float(kept["base"][k]),
                credits=dict(zip(names, row.tolist(), strict=True)),
                unexplained=float(kept["unexplained"][k]),
                heat=_heat(row, inputs.mask) if inputs.mask is not None and x.dim() == 4 else (),
                pieces=pieces,
                picture=_picture(x[k]) if x.dim() == 4 else None,
            )
        )
    return made


def _heat(row: Tensor, mask: Tensor) -> list[list[float]]:
    """The patches' credits in their places."""
    flat = mask.reshape(-1, *mask.shape[-2:])[0]
    height, width = len(flat[:, 0].unique()), len(flat[0].unique())
    return row.view(height, width).tolist()


def _picture(x: Tensor) -> Tensor:
    """An image as grey values in [0, 1]."""
    grey = x.float().mean(0).cpu()
    return (grey - grey.min()) / (grey.max() - grey.min()).clamp_min(1e-12)


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


def _pieces(scene: Scene, tokens: Tensor) -> list[str]:
    known = _tokenizer(scene)
    return [known.decode([int(t)]) if known is not None else f"{int(t)} " for t in tokens.flatten()]
