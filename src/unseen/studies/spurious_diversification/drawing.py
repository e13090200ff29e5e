"""Tables and figures of the study."""

from collections.abc import Sequence

from unseen.figure import Curves, Grid
from unseen.studies.spurious_diversification.experiment import Part
from unseen.studies.spurious_diversification.votes import Voting
from unseen.study import Row, Rows, average, column, figures, pick
from unseen.study.effects import distinct

PATTERNS = ("TTT", "TTF", "TFT", "TFF", "FTT", "FTF", "FFT", "FFF")


def sweep(rows: Rows) -> Curves:
    """Accuracy along the line from the weights before to those after fine-tuning."""
    mine = pick(rows, what="sweep")
    named = [
        {**row, "data": "as fine-tuned" if row["split"] == "same" else f"all patches, p = {row['p']:g}"} for row in mine
    ]
    return figures.curves(
        x="alpha",
        y="accuracy",
        by="data",
        title="Accuracy of (1 − α) before + α after fine-tuning",
        x_label="α",
        y_label="accuracy",
    )(named)


def gains(rows: Rows) -> Curves:
    """What two seeds gain together."""
    return figures.curves(
        x="p",
        y="gain",
        by="sheet",
        title="Gain of the mean of two models' probabilities over their mean accuracy",
        x_label="p of a redrawn patch",
        y_label="accuracy gained",
    )(pick(rows, part=str(Part.SEEDS)))


def balance(rows: Rows) -> Curves:
    """The fine-tuned model made surer (λ > 1) or less sure, with unchanged answers of its own."""
    shift = hardest(rows)
    return figures.curves(
        x="scale",
        y="accuracy",
        by="kind",
        title=f"Averages with a fine-tuned model of weights times λ, p = {shift:g}",
        x_label="λ",
        y_label="accuracy",
        log_x=True,
    )(pick(rows, what="balance", p=shift))


def soft(rows: Rows) -> Grid:
    """Soft labels in fine-tuning."""
    shift = hardest(rows)
    mine = pick(rows, what="soft", p=shift)
    ways = [str(way) for (way,) in distinct(mine, "way")]
    columns = {
        "member: confidence": ("member", "confidence"),
        "member: accuracy": ("member", "accuracy"),
        "average: confidence": ("weights", "confidence"),
        "average: accuracy": ("weights", "accuracy"),
    }
    values = [[average(name, way=way, kind=kind)(mine).value for kind, name in columns.values()] for way in ways]
    return Grid(title=f"Fine-tuned with soft labels, p = {shift:g}", rows=ways, columns=list(columns), values=values)


def patterns(rows: Rows) -> Grid:
    """Who is right: before, after, average."""
    shift = hardest(rows)
    mine = pick(rows, what="average", p=shift)
    kinds = [str(kind) for (kind,) in distinct(mine, "kind")]
    values = [[average(pattern, kind=kind)(mine).value for pattern in PATTERNS] for kind in kinds]
    title = f"Shares of right (T) and wrong (F) answers of before, after, average, p = {shift:g}"
    return Grid(title=title, rows=kinds, columns=list(PATTERNS), values=values)


def votes(rows: Rows) -> Curves:
    """Exact accuracies of voters with two invariant and six spurious features, all invariant ones their own."""
    mine = pick(rows, check="ranking", invariant=2, spurious=6, shared_invariant=0, p=0.9)
    return figures.curves(
        x="shared_spurious",
        y={str(voting): str(voting) for voting in Voting},
        title="Vote model: accuracy as spurious features are shared (n_v = 2, n_s = 6, K = 3, p = 0.9)",
        x_label="shared spurious features",
        y_label="accuracy",
    )(mine)


def hardest(rows: Rows) -> float:
    """The largest shift."""
    return max(column(rows, "p", what="average"))


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds: the two members, what they are together, and the transitions that explain it."""
    columns = ("first", "second", "ensemble", "gain", "over better", "FFT", "TTF")
    pairs = [{**row, "pair": f"two seeds, {row['sheet']}"} for row in pick(rows, part=str(Part.SEEDS))]
    tuned = [{**row, "pair": f"before, after, average of {row['kind']}"} for row in pick(rows, what="average")]
    both = sorted([*pairs, *tuned], key=lambda row: str(row["pair"]))
    return figures.summary(("pair", "p"), columns)(both)
