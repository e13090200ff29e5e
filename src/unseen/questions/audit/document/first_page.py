"""What the first page shows beside the lead and the actions: one chart and one line per site."""

from collections.abc import Sequence
from typing import Any

from unseen.document import Block, Paragraph, Table, Value
from unseen.figure import Dots
from unseen.questions.audit.advice import answer_in_a_word, is_later, shared_metric
from unseen.questions.audit.checks.new_site import new_sites
from unseen.questions.audit.constant import constant_score, is_useless, useless_sites
from unseen.questions.audit.document.names import site_label
from unseen.questions.audit.equivalence import answer
from unseen.questions.audit.job import Findings
from unseen.questions.audit.results import LOWER_IS_BETTER, evaluation_sites
from unseen.reading import Reading
from unseen.text import join_words

MOST_CONVERSIONS = 6
"""A table with more of them has the others one fold away."""
EXPECTED = "expected, without labels"
"""The answer at a new site that is known by its features only."""


def sites(findings: Sequence[Findings], margin: float | None = None) -> list[Block]:
    """Known and unseen score and the constant answer per site, as a chart and as a table."""
    metric = shared_metric(findings)
    pairs = [(one, split) for one in findings for split in evaluation_sites(one)]
    among, useless = len(pairs), useless_sites(findings, metric)
    rows: list[dict[str, Value]] = []
    beside = _reference_name(pairs, metric)
    drawn: dict[str, list[Reading | None]] = {
        name: [] for name in ("there", beside, "constant answer")
    }
    for one, split in pairs:
        here = one.score(split, metric)
        gap = next((g for g in one.gaps if (g.metric, g.split) == (metric, split)), None)
        known = None if gap is None else one.score(gap.reference, metric)
        # the interval that decides, so that the answer beside it follows from it
        worse = None if gap is None else answer(one, gap, among, margin).worse
        drawn["there"].append(here)
        drawn[beside].append(known)
        drawn["constant answer"].append(constant_score(one, split, metric))
        no_use = is_useless(useless, one, split)
        row: dict[str, Any] = {
            "site": site_label(one, split),
            "answer": answer_in_a_word(one, split, metric, among, margin, useless=no_use),
            "n": None if here is None else here.n,
            metric: here,
            beside: known,
            "worse by": worse,
        }
        rows.append(row)
    for site in new_sites(findings):
        expected, known = site.expected.get(metric), site.known.get(metric)
        drawn.setdefault(EXPECTED, [None] * len(rows)).append(expected)
        drawn[beside].append(known)
        drawn["there"].append(None)
        drawn["constant answer"].append(None)
        rows.append(
            {
                "site": site.site,
                "answer": "nothing to expect" if expected is None else EXPECTED,
                "n": site.n,
                metric: expected,
                beside: known,
                "worse by": None,
            }
        )
    used = {name: values for name, values in drawn.items() if any(values)}
    lower = " (lower is better)" if metric in LOWER_IS_BETTER else ""
    blocks: list[Block] = [
        Dots(
            title=f"{metric} per site{lower}",
            rows=[str(row["site"]) for row in rows],
            values=used,
            label=metric,
        ),
        Table(
            rows=[{k: v for k, v in row.items() if _is_filled(k, rows)} for row in rows],
            caption=f"Does it hold? {metric} with 95 % intervals, and how much worse than on "
            f"{beside} (below zero: better{_allowance(among)}).",
        ),
    ]
    skipped = sorted({part for one in findings for part in one.skipped})
    if skipped:
        blocks.append(
            Paragraph(
                f"Not done, with the reason under “How the data were treated”: "
                f"{join_words(skipped)}."
            )
        )
    return blocks


def _reference_name(pairs: Sequence[tuple[Findings, str]], metric: str) -> str:
    """What scores are compared with: known sites, unless it is the training rows themselves."""
    compared = [
        (one, gap.reference)
        for one, split in pairs
        for gap in one.gaps
        if (gap.metric, gap.split) == (metric, split)
    ]
    is_training = bool(compared) and all(split not in one.known for one, split in compared)
    if is_training:
        return "training rows"
    return "earlier rows" if all(is_later(one, split) for one, split in pairs) else "known sites"


def _allowance(among: int) -> str:
    return f"; that interval allows for {among} sites" if among > 1 else ""


def data(findings: Sequence[Findings]) -> list[Block]:
    """What was read otherwise than it is written, and where the rest of it stands."""
    above = first_conversions(findings)
    rest = len(_conversions(findings)) - len(above)
    more = [f"{rest} more under “How the data were treated”."] if rest else []
    return [Paragraph(text) for text in [*above, *more]]


def first_conversions(findings: Sequence[Findings]) -> list[str]:
    """The conversions that the first page has room for."""
    return _conversions(findings)[:MOST_CONVERSIONS]


def _conversions(findings: Sequence[Findings]) -> list[str]:
    return list(dict.fromkeys(text for one in findings for text in one.conversions))


def _is_filled(column: str, rows: Sequence[dict[str, Value]]) -> bool:
    return any(row[column] is not None for row in rows)
