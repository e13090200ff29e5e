"""What to make of an influence run: sentences that follow from its numbers by rules."""

from collections.abc import Sequence
from statistics import quantiles

from unseen.attributions.influence import Curvature
from unseen.questions.influence.optimum import TrainingGradient
from unseen.questions.influence.results import Confirmation, InfluenceReport, QueryInfluence
from unseen.questions.influence.target_words import WORDS
from unseen.text import count_noun, format_reading
from unseen.wording import number

ORDER = "The order is by influence functions"
OF_TEXT = (
    f"{ORDER}, a straight line from the final weights. They assume that training ended at an "
    "optimum for exactly this corpus, which nobody here can know, and a language model is not "
    "retrained here: no sizes are given."
)


def caveat(gradient: TrainingGradient) -> str:
    """Why the sizes of influence functions are none, by the gradient of the training loss."""
    share = f"{100 * gradient.share:.2g} %"
    measured = (
        f"the gradient of the mean training loss has norm {number(gradient.norm)}, {share} of the "
        "norm of a typical example's own"
    )
    if gradient.is_optimum:
        return (
            f"{ORDER}. Training ended near an optimum ({measured}), which they assume; their "
            "curvature is approximated layer by layer, and a straight line overshoots where one "
            "copy changes much."
        )
    return (
        f"{ORDER}, whose sizes assume that training ended at an optimum. It stopped before: "
        f"{measured} (0 at an optimum)."
    )


def choice(curvature: Curvature, iterations: int) -> str:
    """Which curvature to choose, where there is one to choose; empty for the others."""
    if curvature is Curvature.EKFAC:
        return (
            "EK-FAC takes every layer for itself and answers many queries for little. Where few "
            "answers matter, --curvature ekfac+cg --damping 1 solves for the curvature of all "
            "layers together, at about ten times the work per query. On the two small models of "
            "the study attribution_leaderboard it foretold retraining better than EK-FAC; whether "
            "it does for another model, only retraining says."
        )
    if curvature.is_iterative:
        return (
            f"Every batch of queries was solved for by {iterations} passes over the training "
            "examples, starting from EK-FAC: closer to the Gauss–Newton matrix of all layers, "
            "which need not be closer to retraining. For many queries EK-FAC costs a "
            "small part of it."
        )
    return ""


def no_sizes(reason: str) -> str:
    """Said where nothing was retrained."""
    why = f": {reason}" if reason else ""
    return f"No sizes are given{why}."


def measured_sizes(answers: Sequence[QueryInfluence], seeds: int) -> str:
    """Where the printed sizes come from, and how far the straight line is from them."""
    pairs = [
        (one.score, one.retrained.value)
        for answer in answers
        for one in (*answer.helpful, *answer.harmful)
        if one.retrained is not None
    ]
    text = (
        f"Sizes are measured: the model was trained again with one more copy of each example, "
        f"{seeds} seeds, with and without on the same minibatches. {len(pairs)} intervals stand "
        f"here, of which about {number(round(0.05 * len(pairs), 1))} miss by chance. An interval "
        "that leaves the size open by more than a factor of two stands alone."
    )
    ratios = [effect / score for score, effect in pairs if score]
    if len(ratios) < 4:
        return text
    low, middle, high = quantiles(ratios, n=4)
    same = sum(ratio > 0 for ratio in ratios) / len(ratios)
    return text + (
        f" They are {number(middle)} times what influence functions say (middle half "
        f"{number(low)} to {number(high)}); {100 * same:.0f} % have the same sign."
    )


def confirmation(one: Confirmation) -> str:
    """A sentence on retraining without the first examples of a query."""
    what = count_noun(len(one.rows), f"most {one.role} example")
    return (
        f"Retrained without the {what}: "
        f"{WORDS[one.kind].changes.format(format_reading(one.effect, '+'))} "
        f"({one.effect.n} seeds)"
    )


def lead(found: Sequence[InfluenceReport]) -> str:
    """The report in two sentences."""
    answers = [answer for one in found for answer in one.answers]
    n, most = len(answers), max(one.examples for one in found)
    text = (
        f"{n} {'answer' if n == 1 else 'answers'} traced to "
        f"{'up to ' if len(found) > 1 else ''}{most:,} training examples"
    )
    shown = [one for answer in answers for one in (*answer.helpful, *answer.harmful)]
    measured = [one.retrained for one in shown if one.retrained is not None]
    if not measured:
        return f"{text}, in the order of their influence; sizes are not given."
    clear = sum(one.low > 0 or one.high < 0 for one in measured)
    return (
        f"{text}. Retrained with one more copy, {clear} of {len(measured)} named examples change "
        "the answer clearly."
    )
