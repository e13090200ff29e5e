"""Texts under a scoring model as a document: statistics beside those of people, the place of a
takeover, and every token by how expected it was."""

from collections.abc import Mapping

from unseen.document import Block, Document, Note, Paragraph, Passage, Section, Table, Tone, Value
from unseen.measures.machine_text import Statistic
from unseen.questions.measure.authorship import (
    RATE,
    AuthorshipReport,
    StatisticOfText,
    TextReport,
)
from unseen.stats import fewest_scores
from unseen.text import count_noun

NEVER_PROOF = (
    "These numbers are never proof about a person: they say how expected a text is to one language "
    "model. Plain, formal, translated or often quoted text by people is expected, too, and machine "
    "text that was edited, or sampled from a model unlike the scorer, is not."
)
SUMMARY_SECTIONS = 3
MEANINGS = {
    Statistic.CURVATURE: "how much likelier the text is than what the model would write at each "
    "token, in standard deviations (Fast-DetectGPT); 0 with s.d. 1 where it wrote the text itself",
    Statistic.BINOCULARS: "minus the text's negative log-likelihood over what is expected of it; "
    "−1 where both are equal, nearer to 0 for machines",
    Statistic.LIKELIHOOD: "mean log-probability of a token, in nats",
    Statistic.RANK: "minus the mean logarithm of a token's rank; 0 where each is the first choice",
}


def document(found: AuthorshipReport) -> Document:
    sections = [
        Section("What the numbers say", [Note(NEVER_PROOF, Tone.CAUTION), *verdicts(found)]),
        Section("Statistics", [tables(found)]),
        Section("Where a machine may take over", takeovers(found)),
        Section("Token by token", [block for one in found.texts for block in passages(one)]),
        Section("How to read it", reading(found)),
    ]
    return Document(
        kicker="who wrote it",
        title=f"{count_noun(len(found.texts), 'text')} under {found.model}",
        lead=lead(found),
        sections=sections,
        facts={"human texts": str(found.human), "scoring model": found.model},
    )


def lead(found: AuthorshipReport) -> str:
    if not found.human:
        return (
            "Without texts that people wrote (--human) there is no threshold: the statistics "
            "compare these texts with each other only. Never proof about a person."
        )
    compared = [one for one in found.texts if one.is_compared]
    if not compared:
        return (
            "No text has human texts of its length beside it, so there is no threshold. Never "
            "proof about a person."
        )
    above = sum(_curvature(one).exceeds is True for one in compared)
    one_in = f"1 in {round(1 / found.rate):,}"
    without = len(found.texts) - len(compared)
    more = f" {count_noun(without, 'text')} could not be compared." if without else ""
    return (
        f"Curvature above the threshold that {one_in} texts by people like yours exceeds "
        f"({found.human} human texts): {above} of {count_noun(len(compared), 'text')}.{more} Never "
        "proof about a person."
    )


def _curvature(text: TextReport) -> StatisticOfText:
    return next(one for one in text.statistics if one.statistic is Statistic.CURVATURE)


def verdicts(found: AuthorshipReport) -> list[Block]:
    """A line per text, and how far the threshold can be trusted."""
    compared = [one for one in found.texts if one.is_compared]
    notes: list[Block] = [_verdict(one) for one in compared]
    needed = fewest_scores(RATE)
    notes += [_without(one) for one in found.texts if found.human and not one.is_compared]
    fewest = min((one.compared for one in compared), default=needed)
    if fewest < needed:
        notes.append(
            Note(
                f"{fewest} human texts of comparable length give no threshold at 1 %.",
                Tone.CAUTION,
                f"It needs {needed}; shown is the largest human value, which one in "
                f"{fewest + 1} human texts exceeds on average.",
            )
        )
    if found.left_out:
        text = f"{count_noun(found.left_out, 'human text')} with fewer than 20 tokens left out."
        notes.append(Note(text, Tone.NEUTRAL))
    if found.repeats:
        text = f"{count_noun(found.repeats, 'human text')} left out: copies of others, or of texts "
        notes.append(Note(f"{text}that are asked about.", Tone.NEUTRAL))
    if cut := [one.name for one in found.texts if one.is_cut]:
        notes.append(Note(f"Only the first 1,024 tokens were read of {', '.join(cut)}."))
    return [*notes, *(Note(text, Tone.NEUTRAL) for text in found.notes)]


def _without(text: TextReport) -> Note:
    return Note(
        f"{text.name}: no threshold, {count_noun(text.compared, 'human text')} of its length.",
        Tone.CAUTION,
        f"It has {text.tokens:,} tokens, and curvature grows with their number: two human texts at "
        f"least half as long are needed. Give longer ones, or cut {text.name}.",
    )


def _verdict(text: TextReport) -> Note:
    above = [str(one.statistic) for one in text.statistics if one.exceeds]
    total = len(text.statistics)
    if not above:
        return Note(f"{text.name}: not above the threshold in any of {total} statistics.")
    return Note(
        f"{text.name}: above the threshold in {len(above)} of {total} statistics.",
        Tone.CAUTION,
        f"{', '.join(above)}. The {total} are not independent of each other.",
    )


def tables(found: AuthorshipReport) -> Table:
    rows: list[Mapping[str, Value]] = []
    for text in found.texts:
        for one in text.statistics:
            row: dict[str, Value] = {
                "text": text.name,
                "tokens": text.tokens,
                "statistic": str(one.statistic),
                "value": _four_digits(one.value),
            }
            if one.threshold is not None:
                row |= {
                    "human median": _four_digits(one.human),
                    "threshold": _four_digits(one.threshold.value),
                    "threshold, 95 %": _limits(one.threshold.low, one.threshold.high),
                    "exceeds": "yes" if one.exceeds else "no",
                    "human texts as high": _four_digits(one.share),
                }
            rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    notes = ["All statistics are higher for machines."]
    if found.human:
        notes.append(
            "Human texts are cut to the length of the text they are compared with. The interval is "
            "that of the quantile in the population of your human texts (order statistics)."
        )
    return Table(rows=rows, columns=columns, footnotes=notes, comparable=False)


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def _limits(low: float, high: float) -> str:
    return f"[{low:.3g}, {high:.3g}]".replace("inf", "∞").replace("-", "−")


def takeovers(found: AuthorshipReport) -> list[Block]:
    return [_takeover(one) for one in found.texts]


def _takeover(text: TextReport) -> Block:
    found = text.takeover
    if found is None:
        return Note(f"{text.name}: no place is sought in fewer than four sentences.")
    if not found.stands_out:
        return Note(
            f"{text.name}: no place stands out (p = {found.change.p:.2g}).",
            detail="Of random orders of its sentences so many show as clear a rise.",
        )
    return Note(
        f"{text.name}: from sentence {found.change.index + 1} on the text is likelier than before "
        f"(p = {found.change.p:.2g}).",
        Tone.CAUTION,
        f"It begins: “{found.sentence[:160]}”. A change of topic or of a quoted source looks the "
        "same.",
    )


def passages(text: TextReport) -> list[Block]:
    """The text in colour; two passages where a place stands out."""
    unit = "nats above the expected log-probability"
    takeover = text.takeover
    if takeover is None or not takeover.stands_out:
        return [Passage(title=text.name, pieces=text.pieces, weights=text.excess, unit=unit)]
    length, cut = 0, 0
    for piece in text.pieces:
        if length >= takeover.character:
            break
        length, cut = length + len(piece), cut + 1
    halves = ((slice(None, cut), "up to the place"), (slice(cut, None), "from there on"))
    return [
        Passage(
            title=f"{text.name}, {where}",
            pieces=text.pieces[part],
            weights=text.excess[part],
            unit=unit,
        )
        for part, where in halves
    ]


def reading(found: AuthorshipReport) -> list[Block]:
    lines = [f"{name}: {meaning}." for name, meaning in MEANINGS.items()]
    second = found.observer or "the same model twice, so that it is likelihood over entropy"
    lines.append(f"Second model of Binoculars: {second}.")
    lines.append(
        "Colour: log-probability of a token minus what the model expects of itself there; up is "
        "more predictable than its own text, down is a surprise."
    )
    return [Paragraph(line) for line in lines]


def machine_readable(found: AuthorshipReport) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "caution": NEVER_PROOF,
        "model": found.model,
        "observer": found.observer,
        "human_texts": found.human,
        "false_positive_rate": found.rate,
        "texts": [
            {
                "name": one.name,
                "tokens": one.tokens,
                "compared_with": one.compared,
                "statistics": [_as_values(statistic) for statistic in one.statistics],
                "takeover": _takeover_values(one),
            }
            for one in found.texts
        ],
    }


def _as_values(one: StatisticOfText) -> dict[str, object]:
    found: dict[str, object] = {"statistic": str(one.statistic), "value": one.value}
    if one.threshold is not None:
        found |= {
            "human_median": one.human,
            "threshold": one.threshold.value,
            "threshold_low": one.threshold.low,
            "threshold_high": one.threshold.high,
            "false_positive_rate": one.threshold.rate,
            "exceeds": one.exceeds,
            "human_texts_as_high": one.share,
        }
    return found


def _takeover_values(text: TextReport) -> dict[str, object] | None:
    if text.takeover is None:
        return None
    return {
        "sentence": text.takeover.change.index + 1,
        "character": text.takeover.character,
        "p": text.takeover.change.p,
        "stands_out": text.takeover.stands_out,
        "text": text.takeover.sentence,
    }
