"""What a model looks at: which method is most faithful to it, and what that one says, example by
example.

Composed from the guide (`attributions/explanation/guide.py`) and the subject's session. What was
computed is kept under the identity of model, inputs and method, so that an interrupted run goes on
where it stopped.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils.data import default_collate

from unseen.attribution import Cause
from unseen.attributions.explanation import Preset, over
from unseen.attributions.explanation.guide import choose, matching_presets
from unseen.attributions.explanation.solve import solve_explanation
from unseen.engine.local.features import FeatureSpec
from unseen.engine.local.neighbourhoods import Neighbourhood, Parametrization
from unseen.engine.local.perturbed_model import build_perturbed_model
from unseen.engine.local.surrogate import Explanation, Loss, effects, evaluate, weights_in
from unseen.errors import InvalidConfig, UnknownName
from unseen.identity import Identity, identify
from unseen.lab import Lab
from unseen.questions.explain.request import (
    ExplainRequest,
    TargetFunction,
    target_function,
    with_target,
)
from unseen.questions.explain.results import ExampleExplanation, ExplanationReport
from unseen.questions.explain.setup import (
    Positions,
    count_features,
    draw_sample,
    feature_spec,
    find_examples,
    neighbourhood_around,
    pool_unimportant,
    token_texts,
)
from unseen.subjects.session import Session, open_session
from unseen.subjects.subject import Subject
from unseen.task import Batch


@dataclass(frozen=True)
class Plan:
    """How examples are explained, once the method is known."""

    used: str
    preset: Preset
    where: Neighbourhood
    inputs: FeatureSpec
    kept: "ExplanationCache"


def explain(
    subject: Subject, request: ExplainRequest = ExplainRequest(), lab: Lab | None = None
) -> ExplanationReport:
    """Trains the subject's model where none is given trained, and explains what the request
    names.
    """
    began = time.perf_counter()
    lab = (lab or Lab()).child(subject.task.name)
    # small models on many threads wait for each other longer than they compute
    with threadpool_limits(1):
        session = open_session(subject, lab)
        found = explain_model(session, request, session.lab.child("explain"))
    return replace(found, seconds=time.perf_counter() - began)


def explain_model(session: Session, request: ExplainRequest, lab: Lab) -> ExplanationReport:
    """Compares the methods on a sample of the split, then explains the asked examples with the
    best, or the asked, one.
    """
    split = request.split or session.main_split
    sample = draw_sample(session, split, request.sample, lab.child("sample"))
    behaviour = target_function(session, sample, request.target)
    sample = with_target(session, sample, behaviour, request.target)
    inputs, removed = feature_spec(session, sample, behaviour, request)
    inputs = pool_unimportant(session, sample, behaviour, inputs)
    where = neighbourhood_around(session, request, sample[behaviour.column], behaviour.column)
    kept = ExplanationCache(session, behaviour, where, inputs, lab)
    methods = matching_presets(where, count_features(inputs, sample[behaviour.column]))
    if request.method and request.method not in methods:
        raise UnknownName.near("method", request.method, methods)
    positions = find_examples(session, split, request, lab.child("rows"))
    choice = choose(
        session.first,
        sample,
        behaviour.f,
        where,
        lab.child("choose"),
        inputs=inputs,
        methods=methods,
        remember=partial(kept.explanation, sample),
    )
    used = request.method or choice.name
    if used in choice.left_out:
        raise InvalidConfig(
            f"{used} cannot explain this model.", choice.left_out[used], "use --method auto."
        )
    plan, examples = Plan(used, methods[used], where, inputs, kept), list[ExampleExplanation]()
    chunks = [positions[k : k + 4] for k in range(0, len(positions), 4)]
    for part in lab.track(chunks, len(chunks)):
        batch = default_collate([session.task.split(name).data[index] for name, index in part])
        examples += _explain_examples(
            session,
            with_target(session, batch, behaviour, request.target),
            part,
            behaviour,
            plan,
            lab,
        )
    return ExplanationReport(
        name=session.subject.name,
        task=session.task.name,
        behaviour=behaviour.says,
        unit=behaviour.unit,
        removed=removed,
        choice=choice,
        used=used,
        question=request.question,
        examples=examples,
        decisions=[*session.subject.decisions, *session.caps],
        warnings=[
            *session.subject.warnings,
            *(f"{name} was left out: {why}" for name, why in choice.left_out.items()),
        ],
    )


@dataclass(frozen=True)
class ExplanationCache:
    """Answers by everything that decides them; a model without weights is asked anew."""

    session: Session
    behaviour: TargetFunction
    where: Neighbourhood
    inputs: FeatureSpec
    lab: Lab

    def tensors(
        self,
        batch: Batch,
        method: str,
        make: Callable[[], dict[str, Tensor]],
        preset: Preset | None = None,
    ) -> dict[str, Tensor]:
        if not self.session.first.model.state_dict():
            return make()
        key = identify(
            "explanation",
            setting=self._setting,
            batch=batch,
            method=(method, preset),
            code=(explain_model, _explain_examples),
        )
        return self.lab.keep(key, make)

    @cached_property
    def _setting(self) -> Identity:
        return identify(
            "setting",
            model=self.session.first.model,
            behaviour=self.behaviour.f,
            neighbourhood=self.where,
            inputs=self.inputs,
            lab=self.lab.signature,
        )

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
            parts["additive"] = torch.tensor(one.parametrization is Parametrization.ADDITIVE)
            return {key: t for key, t in parts.items() if t is not None}

        found = self.tensors(batch, name, tensors)
        if made:
            return made[0]
        found = {key: t.to(self.lab.device) for key, t in found.items()}
        return Explanation(
            found["scores"],
            Cause.FEATURE,
            tuple(self.inputs.names),
            parametrization=Parametrization.ADDITIVE
            if bool(found["additive"])
            else Parametrization.MULTIPLICATIVE,
            intercept=found.get("intercept"),
            loss=found.get("loss"),
            null=found.get("null"),
            gap=found.get("gap"),
        )


def _explain_examples(
    session: Session,
    batch: Batch,
    positions: Positions,
    behaviour: TargetFunction,
    plan: Plan,
    lab: Lab,
) -> list[ExampleExplanation]:
    """The examples with their credits, as effects against the baseline whatever the method."""
    inputs, where = plan.inputs, plan.where

    def make() -> dict[str, Tensor]:
        at = build_perturbed_model(session.first.model, batch, behaviour.f, inputs, lab)
        answer = solve_explanation(
            at, over(plan.preset, inputs).approximation(session.first.model), lab.child(plan.used)
        )
        found, w = (
            evaluate(at, where, Loss.SQUARED, lab.child("examples")),
            weights_in(at, answer, where.parametrization),
        )
        null = found.null
        share = torch.where(null > 0, found.loss(w) / null.clamp_min(1e-30), 0.0)
        return {
            "credits": effects(at, answer),
            "output": at.at_point,
            "base": at.at_base,
            "unexplained": share,
        }

    kept = plan.kept.tensors(batch, f"examples by {plan.used}", make, plan.preset)
    x, made = batch[behaviour.column], []
    for k, (split, index) in enumerate(positions):
        row = kept["credits"][k].cpu()
        pieces = () if x.is_floating_point() else token_texts(session, x[k])
        names = (
            inputs.names
            or [f"{j}: {piece}" for j, piece in enumerate(pieces)]
            or [f"{j}" for j in range(len(row))]
        )
        made.append(
            ExampleExplanation(
                example=session.example(split, index, float(kept["output"][k]), is_predicted=True),
                output=float(kept["output"][k]),
                base=float(kept["base"][k]),
                credits=dict(zip(names, row.tolist(), strict=True)),
                unexplained=float(kept["unexplained"][k]),
                gap=float(kept["output"][k] - kept["base"][k] - kept["credits"][k].sum()),
                heat=_heat(row, inputs.mask) if inputs.mask is not None and x.dim() == 4 else (),
                pieces=pieces,
                picture=_picture(x[k]) if x.dim() == 4 else None,
            )
        )
    return made


def _heat(row: Tensor, mask: Tensor) -> list[list[float]]:
    """Credits as a picture: one value per patch, or per pixel where the features are no grid of
    patches.
    """
    flat = mask.reshape(-1, *mask.shape[-2:])[0].to(row.device)
    height, width = len(flat[:, 0].unique()), len(flat[0].unique())
    return (row.view(height, width) if height * width == len(row) else row[flat]).tolist()


def _picture(x: Tensor) -> Tensor:
    """An image as grey values in [0, 1]."""
    grey = x.float().mean(0).cpu()
    return (grey - grey.min()) / (grey.max() - grey.min()).clamp_min(1e-12)
