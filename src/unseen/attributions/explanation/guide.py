"""Which explanation to choose: the one that is most faithful on the neighbourhood that the question
is about.

Han, Srinivas & Lakkaraju (2022), arXiv:2206.01254: no method is best everywhere (no free lunch), so
the neighbourhood decides, and it is the user's. All methods are compared on the same samples of it,
in its own units; close ones are fitted anew for each (`comparison.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

from unseen.attributions.explanation import FeatureSpec, Preset, eight, over
from unseen.attributions.explanation.comparison import LITTLE, Comparison, compare_on_draws
from unseen.attributions.explanation.solve import Approximation, solve_explanation
from unseen.engine.local.neighbourhoods import Coalitions, Gaussian, Masks, Neighbourhood
from unseen.engine.local.perturbed_model import build_perturbed_model
from unseen.engine.local.surrogate import Explanation, Loss
from unseen.errors import InvalidConfig, UnseenError
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Batch, PerExample
from unseen.text import join_words


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
    """Faithfulness of the choice minus that of the runner-up, paired, over inputs and draws."""
    readings: Mapping[str, Reading]
    """Of every method that could be asked, best first."""
    explanations: Mapping[str, Explanation]
    why: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Method → why it could not be asked."""
    ties: Sequence[str] = ()
    """Methods whose share lies within `LITTLE` of the choice's, by the whole interval."""
    perturbations: int = 0
    """Per input and draw."""
    draws: int = 1
    """Independent draws of the perturbations, and of what close methods are fitted to."""
    is_exact: bool = False
    """Whether methods were evaluated on all perturbations there are."""
    is_optimal: bool = False
    """Whether the choice is the best fit to the very perturbations it is evaluated on, so that it
    comes first by construction.
    """

    @property
    def is_tie(self) -> bool:
        """Whether the runner-up explains as much."""
        return self.runner_up in self.ties

    @property
    def is_clear(self) -> bool:
        """Whether the lead over the runner-up exceeds chance and matters."""
        return self.lead.low > 0 and not self.is_tie


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
    hows = {
        name: over(preset, inputs).approximation(trained.model) for name, preset in methods.items()
    }
    answers: dict[str, Explanation] = {}
    left_out: dict[str, str] = {}
    for name, how in lab.track(hows.items(), len(hows)):
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

    def fit(name: str, draw: int) -> Explanation:
        stream = lab.child(f"draw {draw}").child(name)
        return remember(f"{name}, draw {draw}", partial(solve_explanation, at, hows[name], stream))

    where = with_enough_samples(neighbourhood, at.d)
    found = compare_on_draws(at, answers, hows, where, loss, lab, fit)
    return _choice(found, answers, methods, hows, where, loss, lab, left_out)


def _choice(
    found: Comparison,
    answers: Mapping[str, Explanation],
    methods: Mapping[str, Preset],
    hows: Mapping[str, Approximation],
    where: Neighbourhood,
    loss: Loss,
    lab: Lab,
    left_out: Mapping[str, str],
) -> Choice:
    readings = {name: found.share(name, lab.child("resample")) for name in answers}
    order = sorted(readings, key=lambda name: -readings[name].value)
    best, second = order[0], order[min(1, len(order) - 1)]
    leads = {name: found.lead(best, name) for name in order}
    choice = Choice(
        name=best,
        preset=methods[best],
        explanation=answers[best],
        faithfulness=readings[best],
        runner_up=second if second != best else "",
        lead=leads[second],
        readings={name: readings[name] for name in order},
        explanations={name: answers[name] for name in order},
        why="",
        left_out=left_out,
        ties=[name for name in order[1:] if -LITTLE < leads[name].low <= leads[name].high < LITTLE],
        perturbations=found.perturbations,
        draws=found.draws,
        is_exact=found.is_exact,
        is_optimal=found.is_exact and hows[best] == Approximation(where, loss),
    )
    return replace(choice, why=_why(choice, where))


def matching_presets(neighbourhood: Neighbourhood, d: int) -> dict[str, Preset]:
    """The eight methods with the neighbourhood's noise, width and number of samples, at least 4 d +
    64 of them.
    """
    n = getattr(with_enough_samples(neighbourhood, d), "n", max(1_000, 4 * d + 64))
    sigma = neighbourhood.sigma if isinstance(neighbourhood, Gaussian) else 0.1
    width = neighbourhood.width if isinstance(neighbourhood, Masks) else 0.75
    return eight(sigma, width, n)


def with_enough_samples(where: Neighbourhood, d: int) -> Neighbourhood:
    """The neighbourhood with at least 4 d + 64 samples: methods are evaluated on as many as they
    are fitted to, or one would see some of all masks and the other all.
    """
    if isinstance(where, Gaussian | Masks | Coalitions):
        return replace(where, n=max(where.n, 4 * d + 64))
    return where


def _why(choice: Choice, where: Neighbourhood) -> str:
    """The choice in one sentence: a tie, the best fit there is, clear, or not to be told."""
    best, second = choice.name, choice.runner_up
    varies = f"how the output varies under {where.title}"
    start = f"{best} explains {{}} of {varies}"
    share = choice.faithfulness.value
    if not second:
        return f"{start.format(percent(share))}; no other method could be asked."
    if choice.is_tie:
        return _tie(choice, varies)
    other = choice.readings[second].value
    start, rest = start.format(percent(share, other)), percent(other, share)
    if choice.is_optimal:
        return (
            f"{start}, the most that credits of single features can: it is their best fit to the "
            f"very {choice.perturbations:,} perturbations of the comparison. {second} explains "
            f"{rest}."
        )
    if choice.is_clear:
        little = "a little" if choice.lead.value < LITTLE else "clearly"
        return f"{start}, {little} more than {second} ({rest})."
    return f"{start}, {second} {rest}; {_doubt(choice.lead)}."


def _tie(choice: Choice, varies: str) -> str:
    names = [choice.name, *choice.ties]
    shares = [percent(choice.readings[name].value) for name in (names[-1], names[0])]
    value = (
        shares[0] if shares[0] == shares[1] else f"{shares[0].removesuffix(' %')} to {shares[1]}"
    )
    if len(names) == len(choice.readings) and len(names) > 2:
        return (
            f"All {len(names)} methods explain equally well {varies} ({value}); {choice.name} is "
            "taken."
        )
    return f"{join_words(names)} explain equally well {varies} ({value})."


def _doubt(lead: Reading) -> str:
    if lead.n < 2:
        return "which explains more cannot be told from one input"
    return (
        f"which explains more cannot be told from {lead.n} inputs (the difference lies between "
        f"{100 * lead.low:.1f} and {100 * lead.high:.1f} percentage points)".replace("-", "−")
    )


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
