"""Explanations for a person: what is explained, compared with what, by which method and why, example by example.

Composed from the guide (`attributions/explanation/guide.py`) and the audit's scene. What was computed is kept under a hash of
model, inputs and method, so that an interrupted run goes on where it stopped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import default_collate

from unseen.attribution import Cause
from unseen.attributions.explanation import Preset, over
from unseen.attributions.explanation.guide import Choice, Question, choose, matched
from unseen.attributions.explanation.solve import explained
from unseen.engine.local.features import Inputs
from unseen.engine.local.neighbourhoods import Map, Neighbourhood
from unseen.engine.local.perturbed_model import around
from unseen.engine.local.surrogate import Explanation, Loss, effects, on, seen
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.questions.explain.request import Ask, Behaviour, behaviour_of, marked
from unseen.questions.explain.setup import (
    Places,
    features_in,
    inputs_of,
    neighbourhood_around,
    pieces_of,
    places_of,
    sample_of,
)
from unseen.subjects.examples import Example
from unseen.subjects.session import Scene
from unseen.subjects.training import _hash
from unseen.task import Batch


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


@dataclass(frozen=True)
class Plan:
    """How examples are explained, once the method is known."""

    used: str
    preset: Preset
    where: Neighbourhood
    inputs: Inputs
    kept: "Kept"


def explain(scene: Scene, ask: Ask, lab: Lab) -> Explained:
    """Compares the methods on a sample of the split, then explains the asked examples with the best, or the asked, one."""
    split = ask.split or scene.hardest
    sample = sample_of(scene, split, ask.sample, lab.child("sample"))
    behaviour = behaviour_of(scene, sample, ask.target)
    sample = marked(scene, sample, behaviour, ask.target)
    inputs, removed = inputs_of(scene, sample, behaviour, ask)
    where = neighbourhood_around(scene, ask, sample[behaviour.column], behaviour.column)
    kept = Kept(scene, where, inputs, lab)
    methods = matched(where, features_in(inputs, sample[behaviour.column]))
    if ask.method and ask.method not in methods:
        raise UnknownName.near("method", ask.method, methods)
    places = places_of(scene, split, ask, lab.child("rows"))
    choice = choose(scene.first, sample, behaviour.f, where, lab.child("choose"), inputs=inputs, methods=methods,
                    remember=partial(kept.explanation, sample))  # fmt: skip
    used = ask.method or choice.name
    if used in choice.left_out:
        raise InvalidConfig(f"{used} cannot explain this model.", choice.left_out[used], "use --method auto.")
    plan, told = Plan(used, methods[used], where, inputs, kept), list[Told]()
    chunks = [places[k : k + 4] for k in range(0, len(places), 4)]
    for part in lab.track(chunks, len(chunks)):
        batch = default_collate([scene.task.split(name).data[index] for name, index in part])
        told += _told(scene, marked(scene, batch, behaviour, ask.target), part, behaviour, plan, lab)
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


def _told(scene: Scene, batch: Batch, places: Places, behaviour: Behaviour, plan: Plan, lab: Lab) -> list[Told]:
    """The examples with their credits, as effects against the baseline whatever the method."""
    inputs, where = plan.inputs, plan.where

    def make() -> dict[str, Tensor]:
        at = around(scene.first.model, batch, behaviour.f, inputs, lab)
        answer = explained(at, over(plan.preset, inputs).approximation(scene.first.model), lab.child(plan.used))
        found, w = seen(at, where, Loss.SQUARED, lab.child("examples")), on(at, answer, where.map)
        null = found.null
        share = torch.where(null > 0, found.loss(w) / null.clamp_min(1e-30), 0.0)
        return {"credits": effects(at, answer), "output": at.at_point, "base": at.at_base, "unexplained": share}

    kept = plan.kept.tensors(batch, f"examples by {plan.used} {plan.preset!r}", make)
    x, made = batch[behaviour.column], []
    for k, (split, index) in enumerate(places):
        row = kept["credits"][k].cpu()
        pieces = () if x.is_floating_point() else pieces_of(scene, x[k])
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
    """Credits as a picture: one value per patch, or per pixel where the features are no grid of patches."""
    flat = mask.reshape(-1, *mask.shape[-2:])[0].to(row.device)
    height, width = len(flat[:, 0].unique()), len(flat[0].unique())
    return (row.view(height, width) if height * width == len(row) else row[flat]).tolist()


def _picture(x: Tensor) -> Tensor:
    """An image as grey values in [0, 1]."""
    grey = x.float().mean(0).cpu()
    return (grey - grey.min()) / (grey.max() - grey.min()).clamp_min(1e-12)
