"""Which explanation to choose: the one that is most faithful on the neighbourhood that the question
is about.

Han, Srinivas & Lakkaraju (2022), arXiv:2206.01254: no method is best everywhere (no free lunch), so
the neighbourhood decides, and it is the user's. All methods are compared on one fresh sample of it,
in its own units.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import numpy as np
import torch
from torch import Tensor

from unseen import stats
from unseen.attributions.explanation import FeatureSpec, Preset, eight, over
from unseen.attributions.explanation.solve import solve_explanation
from unseen.engine.local.neighbourhoods import Gaussian, Masks, Neighbourhood
from unseen.engine.local.perturbed_model import PerturbedModel, build_perturbed_model
from unseen.engine.local.surrogate import Explanation, Loss, evaluate, share_explained, weights_in
from unseen.errors import InvalidConfig, UnseenError
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Batch, PerExample

LITTLE = 0.01
"""A lead below this share is real but hardly matters."""


class Question(StrEnum):
    """What the explanation is for; it decides the neighbourhood."""

    CHANGE = "change"
    """How does the output react when inputs change a little? Gaussian noise."""
    REMOVE = "remove"
    """What does the output rest on, what if parts were missing? Random halves of the features
    removed.
    """


def neighbourhood_of(question: Question, sigma: float = 0.25, n: int = 1_000) -> Neighbourhood:
    """The neighbourhood in which a question is asked."""
    return Gaussian(sigma, n) if question is Question.CHANGE else Masks(n=n)


@dataclass(frozen=True)
class Choice:
    """The chosen method with its answer, the others' faithfulness, and why."""

    name: str
    preset: Preset
    explanation: Explanation
    faithfulness: Reading
    runner_up: str
    lead: Reading
    """Faithfulness of the choice minus that of the runner-up, paired over inputs."""
    readings: Mapping[str, Reading]
    """Of every method that could be asked, best first."""
    explanations: Mapping[str, Explanation]
    why: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Method → why it could not be asked."""

    @property
    def is_clear(self) -> bool:
        """Whether the lead over the runner-up exceeds chance."""
        return self.lead.low > 0


def no_cache(name: str, make: Callable[[], Explanation]) -> Explanation:
    """Remembers nothing; a caller that resumes gives its own."""
    return make()


def choose(
    trained: Trained,
    queries: Batch,
    behaviour: PerExample,
    neighbourhood: Neighbourhood,
    lab: Lab,
    *,
    inputs: FeatureSpec = FeatureSpec(),
    loss: Loss = Loss.SQUARED,
    methods: Mapping[str, Preset] | None = None,
    remember: Callable[[str, Callable[[], Explanation]], Explanation] = no_cache,
) -> Choice:
    """The most faithful of the methods (default: all eight, with the neighbourhood's own noise or
    width).

    `remember(name, make)` may give a method's stored answer instead of making it again. A method
    that the model does not allow (gradients of an estimator) is left out, with the reason.
    """
    at = build_perturbed_model(trained.model, queries, behaviour, inputs, lab)
    methods = matching_presets(neighbourhood, at.d) if methods is None else methods
    answers: dict[str, Explanation] = {}
    left_out: dict[str, str] = {}
    for name, preset in lab.track(methods.items(), len(methods)):
        how = over(preset, inputs).approximation(trained.model)
        try:
            answers[name] = remember(name, partial(solve_explanation, at, how, lab.child(name)))
        except UnseenError as error:
            left_out[name] = error.what
    if not answers:
        raise InvalidConfig(
            "None of the methods can explain this behaviour.",
            why="; ".join(f"{name}: {what}" for name, what in left_out.items()),
            fix="fix the problems listed above, or give other methods.",
        )
    return choose_explanation(at, answers, methods, neighbourhood, loss, lab, left_out)


def choose_explanation(
    at: PerturbedModel,
    answers: Mapping[str, Explanation],
    methods: Mapping[str, Preset],
    neighbourhood: Neighbourhood,
    loss: Loss,
    lab: Lab,
    left_out: Mapping[str, str],
) -> Choice:
    """Every answer on one fresh sample, and the choice."""
    found = evaluate(at, neighbourhood, loss, lab.child("judge"))
    null = found.null
    losses = {
        name: found.loss(weights_in(at, answer, neighbourhood.parametrization))
        for name, answer in answers.items()
    }
    readings = {
        name: share_explained(each, null, lab.child("resample")) for name, each in losses.items()
    }
    order = sorted(readings, key=lambda name: -readings[name].value)
    best, second = order[0], order[min(1, len(order) - 1)]
    lead = _lead(losses[second], losses[best], null, lab.child("lead"))
    return Choice(
        name=best,
        preset=methods[best],
        explanation=answers[best],
        faithfulness=readings[best],
        runner_up=second if second != best else "",
        lead=lead,
        readings={name: readings[name] for name in order},
        explanations={name: answers[name] for name in order},
        why=_why(best, second, readings, lead, neighbourhood),
        left_out=left_out,
    )


def matching_presets(neighbourhood: Neighbourhood, d: int) -> dict[str, Preset]:
    """The eight methods with the neighbourhood's noise, width and number of samples, at least 4 d +
    64 of them.
    """
    n = max(getattr(neighbourhood, "n", 1_000), 4 * d + 64)
    sigma = neighbourhood.sigma if isinstance(neighbourhood, Gaussian) else 0.1
    width = neighbourhood.width if isinstance(neighbourhood, Masks) else 0.75
    return eight(sigma, width, n)


def _lead(worse: Tensor, better: Tensor, null: Tensor, lab: Lab) -> Reading:
    """(Σ loss of the runner-up − Σ loss of the choice)/Σ null, resampled over inputs."""
    table = torch.stack([worse - better, null], 1).double().cpu().numpy()

    def share(rows: np.ndarray) -> float:
        gap, of = rows.sum(0)
        return float(gap / of) if of > 0 else float("nan")

    if len(table) < 2:
        return Reading(share(table), n=1)
    return stats.bootstrap(share, table, rng=lab.numpy())


def _why(
    best: str, second: str, readings: Mapping[str, Reading], lead: Reading, where: Neighbourhood
) -> str:
    shares = [readings[name].value for name in (best, second)]
    start = (
        f"{best} explains {percent(shares[0], shares[1])} of how the output varies under "
        f"{where.title}"
    )
    if second == best:
        return f"{start}; no other method could be asked."
    little = "a little more than" if lead.value < LITTLE else "clearly more than"
    clear = little if lead.low > 0 else "not distinguishably more than"
    return f"{start}, {clear} {second} ({percent(shares[1], shares[0])})."


def percent(share: float, other: float | None = None) -> str:
    """A share in words, with so many digits (at most 3) that it differs from the other one and from
    100 %.
    """
    for digits in (1, 2, 3):
        told = f"{100 * share:.{digits}f}"
        if told != f"{100:.{digits}f}" and (
            other in (None, share) or told != f"{100 * (other or 0.0):.{digits}f}"
        ):
            return f"{told} %"
    return f"{100 * share:.1f} %" if share < 0.9995 or share == 1 else "over 99.9 %"
