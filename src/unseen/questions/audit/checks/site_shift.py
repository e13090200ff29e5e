"""Why a site differs: relations, features and prevalence that are others there, and what each kind
of shift makes of the gap.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from unseen.document import Block, Note, Table, Tone, Value
from unseen.measures.site_shift.covariates import FeatureShift
from unseen.measures.site_shift.prevalence import PrevalenceShift
from unseen.measures.site_shift.relations import LEVEL, RelationChange
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.leave_out import ways_to_leave_out
from unseen.questions.audit.results import LOWER_IS_BETTER, Findings, Outcome
from unseen.questions.audit.site_shift import SiteShift, is_misleading, site_shift
from unseen.reading import Reading
from unseen.subjects.session import Session
from unseen.text import count_noun, format_reading, join_words

Change = TypeVar("Change", RelationChange, FeatureShift)
PART = "why sites differ"
RELATION = Code("U206", "a feature tells the target otherwise at a site", PART, rank=32)
COVARIATES = Code("U207", "features are distributed otherwise at a site", PART, rank=34)
PREVALENCE = Code("U208", "the target is commoner or rarer at a site", PART, rank=33)
LEAST_AUC_CHANGE = 0.1
LEAST_SHIFT = 0.5
"""Standard deviations."""
LEAST_SHARE_CHANGE = 0.05
SHARE_OF_LARGEST = 0.6
"""Beside one odd site the others look odd, too, by less than this share of its change."""
MOST_NAMED = 3


class SiteShiftCheck:
    """The rows of the held-out site against those of all other sites."""

    part = RELATION.part
    codes = (RELATION, PREVALENCE, COVARIATES)
    section = "What the model relies on, and what shifts"

    def find(self, session: Session) -> list[SiteShift]:
        """Permutations, a classifier and a decomposition of the gap; one per unseen split."""
        return [site_shift(session, name) for name in session.site_rows.unseen]

    def notes(self, found: Sequence[CheckResult[list[SiteShift]]]) -> list[Note]:
        """At most one per code, the clearest site and feature first."""
        sites = [shift for one in found for shift in one.result]
        tried = [outcome for one in found for outcome in one.findings.outcomes]
        notes = [_about_relations(sites, tried), _about_prevalence(sites), _about_shifts(sites)]
        return [note for note in notes if note is not None]

    def evidence(self, found: Sequence[CheckResult[list[SiteShift]]]) -> list[Block]:
        """What a gap is made of, what tells sites apart, and what changed by feature."""
        sites = [shift for one in found for shift in one.result]
        tables = [_gap_table(sites), _classifier_table(sites), _feature_table(sites)]
        return [table for table in tables if table.rows]


def _clear(
    found: Sequence[tuple[str, Sequence[Change]]],
    sites: Sequence[SiteShift],
    size: Callable[[Change], float],
    least: float,
) -> dict[tuple[str, str], Change]:
    """(site, feature) of the changes that are large enough and beyond chance at so many sites; a
    feature that an audit leaves out does not count.
    """
    left_out = {name for at in sites for name in at.left_out}
    return {
        (site, one.feature): one
        for site, changes in found
        for one in changes
        if one.p * len(sites) <= LEVEL and abs(size(one)) >= least and one.feature not in left_out
    }


def _clearest(changes: Mapping[tuple[str, str], float]) -> list[tuple[str, str]]:
    """(site, feature), without the sites that only look odd beside the oddest one of a feature."""
    largest: dict[str, float] = {}
    for (_, feature), size in changes.items():
        largest[feature] = max(largest.get(feature, 0.0), abs(size))
    left = [key for key, size in changes.items() if abs(size) >= SHARE_OF_LARGEST * largest[key[1]]]
    return sorted(left, key=lambda key: -abs(changes[key]))


def misleading_sites(findings: Sequence[Findings]) -> list[str]:
    """The sites where a feature tells the target less, or the other way round, than elsewhere."""
    parts = [one.checked[PART] for one in findings if PART in one.checked]
    sites: list[SiteShift] = [shift for part in parts for shift in part]
    clear, keys = _other_relations(sites)
    return list(dict.fromkeys(key[0] for key in keys if is_misleading(clear[key])))


def _other_relations(
    sites: Sequence[SiteShift],
) -> tuple[dict[tuple[str, str], RelationChange], list[tuple[str, str]]]:
    """The changed relations by site and feature, and which of them are named, clearest first."""
    found = [(at.site, at.relations) for at in sites]
    clear = _clear(found, sites, lambda one: one.change.value, LEAST_AUC_CHANGE)
    return clear, _clearest({key: one.change.value for key, one in clear.items()})


def _about_relations(sites: Sequence[SiteShift], tried: Sequence[Outcome]) -> Note | None:
    clear, keys = _other_relations(sites)
    if not keys:
        return None
    # a relation that helps more there than elsewhere misleads nobody
    misleading = [key for key in keys if is_misleading(clear[key])]
    first, *others = [*misleading, *(key for key in keys if key not in misleading)]
    change = clear[first]
    more = [f"`{feature}` at {site}, {_areas(clear[site, feature])}" for site, feature in others]
    also = f" Also {'; '.join(more[:MOST_NAMED])}." if more else ""
    if not misleading:
        text = f"`{first[1]}` tells the target better at {first[0]} than elsewhere."
        action = "A model trained with labels from there could use it."
    else:
        how = "reversed" if change.is_reversed else "weaker"
        text = f"`{first[1]}` has another relation to the target at {first[0]}: it is {how} there."
        useless = [f for site, f in misleading if not _is_useful(clear[site, f])]
        ways = ways_to_leave_out(list(dict.fromkeys(useless)))
        without = f"audit again without ({ways}), or " if useless else ""
        action = (
            f"A model that learned the relation elsewhere is wrong there: {without}train with "
            f"labels from there.{_effect(first[1], tried)}"
        )
    return Note(
        text,
        Tone.CAUTION if misleading else Tone.NEUTRAL,
        f"By itself it has AUC {_areas(change)}.{also} {action} Sites exchanged at random show "
        f"such a change in fewer than {LEVEL:.0%} of audits.",
        code=RELATION.code,
    )


def _effect(feature: str, tried: Sequence[Outcome]) -> str:
    """What leaving the feature out did, by the clearest metric."""
    mine = [one for one in tried if one.remedy == f"without {feature}"]
    wanted = [one for one in mine if one.metric == "AUC"] or mine[:1]
    if not wanted:
        return ""
    best = max(wanted, key=lambda one: abs(one.change.value))
    change = format_reading(best.change, "+")
    return f" Trained without `{feature}`, the model's {best.metric} changes by {change}."


def _is_useful(change: RelationChange) -> bool:
    """Whether the feature tells the target there, too, in the same direction."""
    there = change.there
    return not change.is_reversed and not there.low <= 0.5 <= there.high


def _areas(change: RelationChange) -> str:
    return f"{format_reading(change.there)} there, {format_reading(change.elsewhere)} elsewhere"


def _about_shifts(sites: Sequence[SiteShift]) -> Note | None:
    found = [(at.site, at.shifts) for at in sites]
    clear = _clear(found, sites, lambda one: one.difference.value, LEAST_SHIFT)
    keys = _clearest({key: one.difference.value for key, one in clear.items()})
    if not keys:
        return None
    parts = [
        f"`{feature}` at {site} by {format_reading(clear[site, feature].difference, '+')}"
        for site, feature in keys
    ]
    gaps = [(at, metric, gap) for at in sites for metric, gap in at.gaps.items()]
    harmful = [(at, m, gap) for at, m, gap in gaps if _is_worse(m, gap.covariate)]
    named = {site for site, _ in keys}
    costs = [
        f"at {at.site} it makes {format_reading(gap.covariate, '+')} of the difference in {metric}"
        for at, metric, gap in harmful
        if at.site in named
    ]
    more = len(parts) - MOST_NAMED
    rest = f"; {more} more in the section on shifts" if more > 0 else ""
    names = join_words([f"`{feature}` at {site}" for site, feature in keys[:MOST_NAMED]])
    return Note(
        f"Check the model where its inputs are new: {names} "
        f"{'lies' if len(keys) == 1 else 'lie'} elsewhere than at the other sites.",
        Tone.CAUTION if costs else Tone.NEUTRAL,
        f"Means in standard deviations: {'; '.join(parts[:MOST_NAMED])}{rest}. "
        + (f"{costs[0][0].upper()}{'; '.join(costs)[1:]}. " if costs else "")
        + "Weigh training rows that resemble those there more, or collect more of them.",
        code=COVARIATES.code,
    )


def _is_worse(metric: str, part: Reading) -> bool:
    return part.low > 0 if metric in LOWER_IS_BETTER else part.high < 0


def _about_prevalence(sites: Sequence[SiteShift]) -> Note | None:
    clear = {
        (at.site, ""): at
        for at in sites
        if at.prevalence.p * len(sites) <= LEVEL and _matters(at.prevalence)
    }
    keys = _clearest({key: one.prevalence.change.value for key, one in clear.items()})
    if not keys:
        return None
    found = [clear[key] for key in keys]
    parts = [
        f"{at.site}{f', `{at.level}`' if at.level else ''}: "
        f"{format_reading(at.prevalence.there)}, elsewhere "
        f"{format_reading(at.prevalence.elsewhere)}, expected by the features there "
        f"{at.prevalence.expected:.3g}"
        for at in found
    ]
    return Note(
        f"Choose threshold and intercept anew: {_which_way(found)}.",
        Tone.CAUTION,
        f"{'; '.join(parts)}. The features do not explain it, so probabilities learned elsewhere "
        "are off by a constant in the log odds; labels from there estimate it (see the remedies).",
        code=PREVALENCE.code,
    )


def _which_way(sites: Sequence[SiteShift]) -> str:
    """ "the target is commoner at 6 and rarer at 1"; of several classes each that differs most."""
    is_number = np.isnan(sites[0].prevalence.level)
    higher, lower = ("higher", "lower") if is_number else ("commoner", "rarer")
    said = []
    for level in dict.fromkeys(at.level for at in sites):
        signs = {at.site: at.prevalence.change.value > 0 for at in sites if at.level == level}
        named = {
            higher: [site for site, is_higher in signs.items() if is_higher],
            lower: [site for site, is_higher in signs.items() if not is_higher],
        }
        ways = [f"{word} at {join_words(where)}" for word, where in named.items() if where]
        said.append(f"{f'`{level}`' if level else 'the target'} is {' and '.join(ways)}")
    return join_words(said)


def _matters(shift: PrevalenceShift) -> bool:
    if np.isnan(shift.level):
        return True
    return min(abs(shift.change.value), abs(shift.there.value - shift.expected)) >= (
        LEAST_SHARE_CHANGE
    )


def _gap_table(sites: Sequence[SiteShift]) -> Table:
    rows: list[dict[str, Value]] = []
    for at in sites:
        for metric, gap in at.gaps.items():
            rows.append(
                {
                    "site": at.site,
                    "metric": metric,
                    "there − known": gap.gap,
                    "covariate shift": gap.covariate,
                    "prevalence": gap.prevalence,
                    "relation": gap.relation,
                    "rows in common": round(min(gap.effective)),
                }
            )
        if at.obstacle:
            rows.append({"site": at.site, "metric": f"not decomposed: {at.obstacle}"})
    columns = ("site", "metric", "there − known", "covariate shift", "prevalence", "relation")
    return Table(
        rows=rows,
        columns=(*columns, "rows in common"),
        caption="What the difference between each site and known ones is made of (Cai, Namkoong & "
        "Yadlowsky, 2023). Covariate shift: what the inputs explain, weighed by a classifier "
        "between the sites on the inputs that both have. Prevalence: one constant in the log odds "
        "of the target. Relation: the rest, and whatever the inputs do not hold. It assumes that "
        "the at most 20 inputs that differ most carry the covariate shift, by their main effects; "
        "what both could explain counts as covariate shift.",
    )


def _classifier_table(sites: Sequence[SiteShift]) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "site": at.site,
            "AUC": at.classifier.auc,
            "p": at.classifier.p,
            "mostly by": join_words(list(at.classifier.features)),
        }
        for at in sites
        if at.classifier is not None
    ]
    return Table(
        rows=rows,
        caption="A classifier between each site and the others, on rows that it was not fitted on; "
        "p by exchanged sites (1,000 draws).",
    )


def _feature_table(sites: Sequence[SiteShift]) -> Table:
    rows: list[dict[str, Value]] = []
    for at in sites:
        relations = {one.feature: one for one in at.relations}
        for shift in at.shifts:
            relation = relations.get(shift.feature)
            is_clear = shift.p * len(sites) <= LEVEL or relation is not None
            if not is_clear:
                continue
            rows.append(
                {
                    "site": at.site,
                    "feature": shift.feature,
                    "moved by": shift.difference,
                    "p of move": shift.p,
                    "AUC there": relation.there if relation else None,
                    "AUC elsewhere": relation.elsewhere if relation else None,
                    "p of relation": relation.p if relation else None,
                }
            )
    return Table(
        rows=rows,
        caption="Features whose mean moved (in standard deviations) or whose relation to the "
        "target differs most, by site. p-values hold for all features together; with "
        f"{count_noun(len(sites), 'site')} a finding needs p ≤ {LEVEL / max(1, len(sites)):.2g}.",
    )


check = SiteShiftCheck()
