"""How many labels of a site are needed, and for what."""

from collections.abc import Sequence

from unseen.document import Block, Note, Table, Tone, Value
from unseen.errors import InvalidData
from unseen.questions.audit.check import CheckResult, Code
from unseen.questions.audit.local_labels import LocalGain, LocalLabels, local_labels
from unseen.questions.audit.results import gain
from unseen.reading import Reading
from unseen.stats import widen
from unseen.subjects.session import Session
from unseen.text import format_reading, join_words

LABELS = Code("U402", "what labels of a site would bring", "labels of a site", True, 92)
ACTIONS = {
    "recalibration": "fit intercept and slope of the log odds (a line, for numbers) to them",
    "threshold": "choose the threshold with the most right answers on them",
    "local refit": "train the model further with them",
}


class LocalLabelCheck:
    """Recalibration, threshold and local refit on 30, 100 and 300 labels of the held-out site."""

    part = LABELS.part
    codes = (LABELS,)
    section = "Remedies tried"

    def find(self, session: Session) -> list[LocalLabels]:
        """For every unseen split."""
        if not session.unseen:
            raise InvalidData(
                "No evaluation split is at an unseen site.",
                why="labels are drawn from such a site.",
                fix="name a site or a time.",
            )
        return [local_labels(session, name) for name in session.unseen]

    def notes(self, found: Sequence[CheckResult[list[LocalLabels]]]) -> list[Note]:
        """One: per site the fewest labels that clearly help, allowing for all that was tried."""
        sites = [site for one in found for site in one.result]
        tried = [c for at in sites for g in at.gains for c in g.change.items()]
        helpful = [(at, best) for at in sites for best in _fewest(at.gains, len(tried))]
        if not helpful:
            return []
        said = [
            f"{at.site}: {best.labels} labels for {best.remedy} change the {metric} by "
            f"{format_reading(change, '+')}"
            for at, (best, metric, change) in helpful
        ]
        counts = [f"{best.labels} labels from {at.site}" for at, (best, _, _) in helpful]
        text = f"{join_words(counts)} would help there"
        actions = dict.fromkeys(ACTIONS[best.remedy] for _, (best, _, _) in helpful)
        return [
            Note(
                f"{text}.",
                Tone.GOOD,
                f"{'; '.join(said)}. To do so, {'; '.join(actions)}. Mean over draws of labels, "
                "which are not evaluated on; clear also after the choice among "
                f"{len(tried)} changes.",
                code=LABELS.code,
            )
        ]

    def evidence(self, found: Sequence[CheckResult[list[LocalLabels]]]) -> list[Block]:
        """The learning curve."""
        rows: list[dict[str, Value]] = []
        for site in (site for one in found for site in one.result):
            for remedy in dict.fromkeys(g.remedy for g in site.gains):
                several = [g for g in site.gains if g.remedy == remedy]
                for metric in several[0].change:
                    row: dict[str, Value] = {"site": site.site, "remedy": remedy, "metric": metric}
                    row |= {f"{g.labels} labels": g.change.get(metric) for g in several}
                    rows.append(row)
            rows += [
                {"site": site.site, "remedy": remedy, "metric": f"not tried: {why}"}
                for remedy, why in site.skipped.items()
            ]
        if not rows:
            return []
        counts = sorted({g.labels for one in found for at in one.result for g in at.gains})
        return [
            Table(
                rows=rows,
                columns=("site", "remedy", "metric", *(f"{count} labels" for count in counts)),
                caption="How many labels do I need? Paired change against the audited model (0 "
                "labels) by so many labelled examples of the site: mean over draws of labels, "
                "evaluated on the other examples there. Intervals are of each change alone.",
            )
        ]


def _fewest(gains: Sequence[LocalGain], among: int) -> list[tuple[LocalGain, str, Reading]]:
    """The fewest labels that clearly help, by the clearest change; none where nothing does."""
    clear = [
        (one.labels, -better.low / max(better.high - better.low, 1e-12), one, metric, change)
        for one in gains
        for metric, change in one.change.items()
        if (better := widen(gain(metric, change), among)).low > 0
    ]
    return [item[2:] for item in sorted(clear, key=lambda item: item[:2])[:1]]


check = LocalLabelCheck()
