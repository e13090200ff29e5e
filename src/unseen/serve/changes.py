"""What changed between two stored answers: findings by code, scores at every site in pairs where
the same examples were evaluated, verdicts of claims. Knows no network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import isfinite, nan
from typing import Any

from unseen import stats
from unseen.document import Block, Document, Note, Paragraph, Section, Table, Tone
from unseen.document import Value as Cell
from unseen.errors import InvalidConfig
from unseen.reading import Reading
from unseen.runs.answers import StoredAnswer
from unseen.subjects.stored_predictions import from_plain, why_not_paired
from unseen.text import count_noun, join_words

LOWER_IS_BETTER = ("mean absolute error", "loss")
SHARES = ("accuracy", "AUC")
Key = tuple[str, str]
"""What was evaluated: the data with what was left out of training, and the split."""


@dataclass(frozen=True)
class Side:
    """One of two answers, with its numbers."""

    answer: StoredAnswer
    results: Mapping[str, Any]

    @property
    def findings(self) -> Sequence[Mapping[str, Any]]:
        return self.results.get("machine", {}).get("findings", ())


@dataclass(frozen=True, kw_only=True)
class ScoreChange:
    """One metric on one split in both answers."""

    site: str
    split: str
    metric: str
    before: Reading | None
    after: Reading | None
    change: Reading | None = None
    """Later minus earlier, in pairs."""
    why_not: str = ""

    @property
    def gain(self) -> Reading | None:
        """The change with its sign turned where less is better."""
        if self.change is None or self.metric not in LOWER_IS_BETTER:
            return self.change
        now = self.change
        return replace(now, value=-now.value, low=-now.high, high=-now.low)


def document_of_changes(before: Side, after: Side) -> Document:
    """What changed from one answer to the other of the same command; the earlier is first."""
    if before.answer.question != after.answer.question:
        raise InvalidConfig(
            f"An answer of `{before.answer.question}` and one of `{after.answer.question}` have "
            "nothing to compare.",
            why="they hold other numbers.",
            fix="tick two of the same kind.",
        )
    before, after = sorted((before, after), key=lambda side: side.answer.date)
    scores = score_changes(before, after)
    claims = claim_changes(before, after)
    sections = [
        Section("What was compared", sources(before, after)),
        Section("Findings", [] if claims else finding_changes(before, after)),
        Section("Scores", [*few_models(after), *score_blocks(scores)] if scores else []),
        Section("Methods", method_blocks(before, after)),
        Section("Claims", claims),
    ]
    return Document(
        title=" → ".join(dict.fromkeys([before.answer.title, after.answer.title])),
        kicker=f"two answers of unseen {after.answer.question}, the earlier first",
        lead=lead(before, after, scores, claims),
        sections=[section for section in sections if section.blocks],
    )


def lead(before: Side, after: Side, scores: Sequence[ScoreChange], claims: Sequence[Block]) -> str:
    """The changes in two sentences."""
    parts = []
    if not claims:
        was, now = set(before.answer.codes), set(after.answer.codes)
        new, gone = sorted(now - was), sorted(was - now)
        if new or gone:
            said = [f"new: {join_words(new)}"] * bool(new) + [f"gone: {join_words(gone)}"] * bool(
                gone
            )
            parts.append(f"Findings {', '.join(said)}.")
        else:
            parts.append("The same findings are raised.")
    paired = [one for one in scores if one.change is not None and one.metric == main_metric(scores)]
    if paired:
        better = [one.site for one in paired if one.gain is not None and one.gain.low > 0]
        worse = [one.site for one in paired if one.gain is not None and one.gain.high < 0]
        told = [f"better at {join_words(better)}"] * bool(better)
        told += [f"worse at {join_words(worse)}"] * bool(worse)
        rest = [one.gain for one in paired if one.site not in (*better, *worse) and one.gain]
        if rest:
            excluded = format(max(-one.low for one in rest), ".2g")
            told.append(
                f"no difference shown at {len(rest)} of {len(paired)} splits (the data exclude "
                f"that it is worse there by more than {excluded})"
            )
        parts.append(f"{paired[0].metric}: {'; '.join(told)}.")
    elif scores:
        parts.append("No score could be compared in pairs.")
    return " ".join(parts)


def sources(before: Side, after: Side) -> list[Block]:
    """Both answers, and what of their making is not the same."""
    sides = (_about(before.answer), _about(after.answer))
    rows: list[dict[str, Cell]] = [
        {"answer": name, "earlier": sides[0][name], "later": sides[1][name]} for name in sides[0]
    ]
    commands = [("Earlier", before.answer.command), ("Later", after.answer.command)]
    found: list[Block] = [Table(rows=rows)]
    found += [Paragraph(f"{name}: {text or 'asked from Python'}") for name, text in commands]
    if before.answer.title != after.answer.title:
        text = "The titles are not the same: another model, other data, or another question."
        found.append(Note(text, Tone.CAUTION))
    data = before.answer.facts.get("data"), after.answer.facts.get("data")
    if all(data) and data[0] != data[1]:
        found.append(Note("The file of the data has changed in between.", Tone.CAUTION))
    return found


def _about(answer: StoredAnswer) -> dict[str, str]:
    return {
        "title": answer.title,
        "date": answer.date[:19].replace("T", " "),
        "version": answer.version,
        "data": answer.facts.get("data", "–"),
    }


def finding_changes(before: Side, after: Side) -> list[Block]:
    """Findings that are new, gone, or said in other words, by code."""
    was, now = (_by_code(side.answer) for side in (before, after))
    found: list[Block] = []
    for code in sorted({*was, *now}):
        old, new = was.get(code), now.get(code)
        if old is None and new is not None:
            found.append(Note(f"New: {new['text']}", _tone(new), new["detail"], "+", code))
        elif new is None and old is not None:
            found.append(Note(f"Gone: {old['text']}", Tone.NEUTRAL, old["detail"], "−", code))
        elif old is not None and new is not None and old["text"] != new["text"]:
            detail = f"Before: {old['text']}"
            found.append(Note(f"Changed: {new['text']}", _tone(new), detail, "~", code))
    same = [code for code in was if code in now and was[code]["text"] == now[code]["text"]]
    if same:
        found.append(Paragraph(f"As before: {join_words(sorted(same))}."))
    return found


def _by_code(answer: StoredAnswer) -> dict[str, Mapping[str, str]]:
    return {
        note["code"]: note
        for note in answer.notes
        if note.get("code") and note.get("tone") != Tone.GOOD
    }


def _tone(note: Mapping[str, str]) -> Tone:
    return Tone(note.get("tone", Tone.NEUTRAL))


def score_changes(before: Side, after: Side) -> list[ScoreChange]:
    """Every metric on every split that both audits evaluated, or one of them."""
    was, now = (_scores(side) for side in (before, after))
    old, new = (_predictions(side) for side in (before, after))
    names = _site_names(before) | _site_names(after)
    paired = {key: _paired_changes(old.get(key), new.get(key)) for key in names}
    found = []
    metrics = dict.fromkeys(metric for _, metric in [*now, *was])
    for key, metric in product(names, metrics):
        if (key, metric) not in was and (key, metric) not in now:
            continue
        changes, why_not = paired[key]
        found.append(
            ScoreChange(
                site=names[key],
                split=key[1],
                metric=metric,
                before=was.get((key, metric)),
                after=now.get((key, metric)),
                change=changes.get(metric),
                why_not=why_not or ("" if metric in changes else "it is no mean of examples"),
            )
        )
    return _widen_changes(found)


def _widen_changes(found: Sequence[ScoreChange]) -> list[ScoreChange]:
    """With intervals that allow for as many splits as a metric has."""

    def count(metric: str) -> int:
        return sum(one.metric == metric and one.change is not None for one in found)

    return [
        one
        if one.change is None
        else replace(
            one, change=_within_range(stats.widen(one.change, count(one.metric)), one.metric)
        )
        for one in found
    ]


def _within_range(change: Reading, metric: str) -> Reading:
    """Two shares or areas differ by at most 1."""
    if metric not in SHARES:
        return change
    return replace(change, low=max(-1.0, change.low), high=min(1.0, change.high))


def _paired_changes(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> tuple[dict[str, Reading], str]:
    """Later minus earlier by metric, or why there are none."""
    if old is None or new is None:
        return (
            {},
            "one of the audits did not evaluate it, or is of a version that stored no examples",
        )
    if why_not := why_not_paired(old, new):
        return {}, why_not
    return from_plain(new).changes(from_plain(old)), ""


def _scores(side: Side) -> dict[tuple[Key, str], Reading]:
    """Of the audited model on whole splits."""
    return {
        ((one["task"], score["split"]), score["metric"]): reading_of(score["reading"])
        for one in side.findings
        for score in one["scores"]
        if score["model"] == one["name"] and not score["group"]
    }


def _predictions(side: Side) -> dict[Key, Mapping[str, Any]]:
    return {(one["subject"], one["split"]): one for one in side.results.get("predictions", ())}


def _site_names(side: Side) -> dict[Key, str]:
    """The evaluated splits: the sites of use first, by their own name."""
    found = {}
    for group in ("unseen", "known"):
        for one in side.findings:
            for split in one[group]:
                at = one["sites"].get(split, split)
                found[one["task"], split] = at if group == "unseen" else f"{at} (known)"
    return found


def reading_of(value: Mapping[str, Any]) -> Reading:
    """A reading of `report.json.plain`."""
    numbers = (value.get(name) for name in ("value", "low", "high"))
    found, low, high = (nan if x is None else float(x) for x in numbers)
    return Reading(found, low, high, int(value.get("n", 1)), str(value.get("unit", "")))


def main_metric(scores: Sequence[ScoreChange]) -> str:
    """AUC where there is one, else the score."""
    metrics = [one.metric for one in scores]
    return "AUC" if "AUC" in metrics else metrics[0] if metrics else ""


def few_models(side: Side) -> list[Block]:
    """What one or two trained models mean for the intervals."""
    counts = {len(one["score"]) for one in side.results.get("predictions", ()) if "score" in one}
    if counts == {1}:
        text = (
            "One model was trained each time: the intervals do not say what another run would do."
        )
        return [Paragraph(text)]
    if 2 in counts:
        text = (
            "Two models were trained each time, which leaves one degree of freedom for how much "
            "another run would differ: three seeds or more give narrower intervals."
        )
        return [Paragraph(text)]
    return []


def score_blocks(scores: Sequence[ScoreChange]) -> list[Block]:
    """A table per metric, the reason once where there is no paired change."""
    found: list[Block] = []
    for metric in dict.fromkeys(one.metric for one in scores):
        rows = [one for one in scores if one.metric == metric]
        told = {one.site: one.why_not for one in rows if one.change is None}
        foot = [f"{site}: no paired change, since {why}." for site, why in told.items()]
        if paired := sum(one.change is not None for one in rows):
            direction = "below" if metric in LOWER_IS_BETTER else "above"
            foot = [
                f"The change is later minus earlier on the same examples, in pairs; {direction} "
                "zero is better. Its intervals of 95 % allow for "
                f"{count_noun(paired, 'split')}.",
                *foot,
            ]
        table = [
            {"site": one.site, "earlier": one.before, "later": one.after, "change": one.change}
            for one in rows
        ]
        found.append(Table(rows=table, caption=metric, footnotes=foot))
    return found


def method_blocks(before: Side, after: Side) -> list[Block]:
    """The cells of two comparisons of training methods side by side."""
    was, now = (_cells(side) for side in (before, after))
    rows: list[dict[str, Cell]] = [
        {
            "method": method,
            "site": column,
            "metric": metric,
            "earlier": was.get((method, column, metric)),
            "later": now.get((method, column, metric)),
        }
        for method, column, metric in dict.fromkeys([*now, *was])
    ]
    why = "No paired change: a comparison does not store what its models said of single examples."
    return [Table(rows=rows, footnotes=[why])] if rows else []


def _cells(side: Side) -> dict[tuple[str, str, str], Reading]:
    """Under the protocol that the comparison's summary quotes."""
    results = side.results.get("machine", {}).get("results")
    if not isinstance(results, Mapping) or not results.get("protocols"):
        return {}
    first = results["protocols"][0]
    return {
        (cell["method"], cell["column"], cell["metric"]): reading_of(cell["reading"])
        for cell in results.get("cells", ())
        if cell["protocol"] == first and cell["reading"] is not None
    }


def claim_changes(before: Side, after: Side) -> list[Block]:
    """The verdicts of a study in both runs."""
    was, now = (
        {line["says"]: line for line in side.results.get("machine", {}).get("claims", ())}
        for side in (before, after)
    )
    rows: list[dict[str, Cell]] = [
        {
            "claim": says,
            "earlier": _verdict(was.get(says)),
            "effect earlier": _effect(was.get(says)),
            "later": _verdict(now.get(says)),
            "effect later": _effect(now.get(says)),
        }
        for says in dict.fromkeys([*now, *was])
    ]
    if not rows:
        return []
    changed = sum(row["earlier"] != row["later"] for row in rows)
    text = f"{changed} of {len(rows)} verdicts are not the same."
    return [Paragraph(text), Table(rows=rows, comparable=False)]


def _verdict(line: Mapping[str, Any] | None) -> str | None:
    return None if line is None else str(line["verdict"])


def _effect(line: Mapping[str, Any] | None) -> Reading | None:
    if line is None or line.get("value") is None:
        return None
    found = reading_of(line)
    return replace(found, unit="") if isfinite(found.value) else None
