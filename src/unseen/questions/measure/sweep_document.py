"""A sweep as a document: which measure foretells the gap, along which hyperparameters."""

from collections.abc import Sequence
from math import isfinite

from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone, Value
from unseen.figure import Bars
from unseen.questions.measure.sweep import SweepReport
from unseen.stats.sweeps import Evaluation, Outcome
from unseen.text import count_noun, join_words

LEVEL = 0.05
MOST_NAMED = 3


def sweep_document(report: SweepReport) -> Document:
    found = sorted(report.evaluations, key=_order)
    sections = [
        Section(
            "Which measure foretells the gap", [_table(found), *_unread(report), *_chart(found)]
        ),
        Section("Along each hyperparameter", [_axes(found, report.axes)]),
        Section("Not computed", _reasons(found)),
        Section("How to read it", [Paragraph(text) for text in _reading(report)]),
    ]
    return Document(
        kicker="measures of a sweep",
        title=f"{count_noun(report.models, 'model')}, {count_noun(len(found), 'measure')}",
        lead=_lead(report, found),
        sections=[section for section in sections if section.blocks],
        facts={
            "source": report.source,
            "gap": report.gap,
            "hyperparameters": ", ".join(report.axes),
            "permutations": str(report.permutations),
        },
    )


def _order(one: Evaluation) -> float:
    value = one.granulated.total.value
    return -value if isfinite(value) else 2.0


def _lead(report: SweepReport, found: Sequence[Evaluation]) -> str:
    clear = [one for one in found if _is_clear(one)]
    text = f"{count_noun(len(clear), 'measure')} of {len(found)} order" + (
        "s" if len(clear) == 1 else ""
    )
    text += (
        " models like their gaps beyond chance, hyperparameter by hyperparameter (p of the largest "
        f"|Ψ| of all measures at most {LEVEL})"
    )
    if clear:
        best = [f"{one.measure} (Ψ {one.granulated.total.value:.2f})" for one in clear]
        text += f": {join_words(best[:MOST_NAMED])}" + (" first" if len(best) > 1 else "")
    turned = [one for one in clear if one.granulated.total.value < 0]
    if turned:
        text += f"; {join_words([one.measure for one in turned])} the wrong way round"
    text += ". "
    if report.left_out:
        text += f"{count_noun(report.left_out, 'row')} without a gap stood aside. "
    return text + "That holds for these models and hyperparameters only."


def _is_clear(one: Evaluation) -> bool:
    return one.granulated.p_family <= LEVEL


def _value(outcome: Outcome) -> Value:
    return outcome.value if isfinite(outcome.value) else None


def _table(found: Sequence[Evaluation]) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "measure": one.measure,
            "Ψ": _value(one.granulated.total),
            "p": one.granulated.p if isfinite(one.granulated.p) else None,
            "p of all": one.granulated.p_family if isfinite(one.granulated.p_family) else None,
            "τ": _value(one.tau),
            "𝒦": _value(one.information.total),
            "known from": " and ".join(one.information.given) or "–",
            "wrong sign, mean": _value(one.sign_error.mean),
            "worst": _value(one.sign_error.worst),
            "gain": _value(one.gain),
            "models": one.models,
        }
        for one in found
    ]
    return Table(
        rows=rows,
        caption="Ψ and τ: 1 orders all gaps rightly, 0 by chance, −1 the wrong way round. 𝒦: what "
        "a measure says beyond two hyperparameters, 0 to 1. Wrong sign: share of pairs ordered "
        "wrongly, ½ by chance. Gain: share of the squared error of a forecast from "
        "hyperparameters that the measure takes away, in models left out.",
    )


def _unread(report: SweepReport) -> list[Block]:
    """The columns that stood aside: a measure under another name must not vanish unseen."""
    if not report.unread:
        return []
    names = [
        f"`{name}`" + (f" (the catalogue has `{near}`)" if near else "")
        for name, near in report.unread.items()
    ]
    fix = "name them with --measure, hyperparameters with --axis"
    return [Note(f"Columns not read: {join_words(_first(names, 12))}; {fix}.", Tone.CAUTION)]


def _chart(found: Sequence[Evaluation]) -> list[Block]:
    known = {
        one.measure: one.granulated.total.value
        for one in found
        if isfinite(one.granulated.total.value)
    }
    first = dict(list(known.items())[:20])
    return [Bars(title="Ψ, the best twenty", values=first, label="Ψ")] if len(first) > 1 else []


def _axes(found: Sequence[Evaluation], axes: Sequence[str]) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "measure": one.measure,
            **{
                axis: _value(one.granulated.axes[axis]) if one.granulated.axes else None
                for axis in axes
            },
        }
        for one in found
    ]
    return Table(
        rows=rows,
        columns=["measure", *axes],
        caption="ψ: Kendall's τ among models that differ in this hyperparameter alone, averaged.",
    )


def _reasons(found: Sequence[Evaluation]) -> list[Block]:
    """Every statistic that does not exist, with the reason and how many models or lines there
    were.
    """
    by_reason: dict[str, dict[str, None]] = {}
    for one in found:
        for name, outcome in _outcomes(one).items():
            if not isfinite(outcome.value) and outcome.reason:
                by_reason.setdefault(outcome.reason, {})[f"{name} of {one.measure}"] = None
    return [
        Note(f"{join_words(_first(list(names)))}.", Tone.NEUTRAL, f"{why[0].upper()}{why[1:]}.")
        for why, names in by_reason.items()
    ]


def _first(names: Sequence[str], most: int = 6) -> list[str]:
    more = len(names) - most
    return [*names[:most], f"{more} more"] if more > 0 else list(names)


def _outcomes(one: Evaluation) -> dict[str, Outcome]:
    along = {f"ψ along {axis}": outcome for axis, outcome in one.granulated.axes.items()}
    return {
        "τ": one.tau,
        "Ψ": one.granulated.total,
        **along,
        "𝒦": one.information.total,
        "the sign error": one.sign_error.mean,
        "the gain": one.gain,
    }


def _reading(report: SweepReport) -> list[str]:
    lines = [
        f"p: how often gaps that are exchanged at random among the models give so large a |Ψ| "
        f"({report.permutations} permutations); “p of all” is that of the largest |Ψ| of all "
        "measures, and allows for their number.",
        "A measure that follows one hyperparameter only can have a small p: see the table by "
        "hyperparameter.",
    ]
    if report.flipped:
        lines.append(
            f"Better when higher, and taken with the opposite sign: {join_words(report.flipped)}."
        )
    if report.n_test is None:
        lines.append(
            "No column `n_test` says how many test examples are behind a gap: pairs count alike, "
            "however small their difference."
        )
    return lines


def machine_sweep(report: SweepReport) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "source": report.source,
        "models": report.models,
        "gap": report.gap,
        "hyperparameters": list(report.axes),
        "columns_not_read": list(report.unread),
        "taken_with_opposite_sign": list(report.flipped),
        "measures": [
            {
                "measure": one.measure,
                "models": one.models,
                "tau": one.tau,
                "Psi": one.granulated.total,
                "p": one.granulated.p,
                "p_family": one.granulated.p_family,
                "psi": one.granulated.axes,
                "K": one.information.total,
                "K_given": list(one.information.given),
                "sign_error": one.sign_error,
                "gain": one.gain,
            }
            for one in report.evaluations
        ],
    }
