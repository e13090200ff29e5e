"""Averages help out of distribution because each spurious feature weighs less in them.

Lin et al. (2024), arXiv:2309.17230; averages in weight space: Wortsman et al. (2022), arXiv:2109.01903. On digits framed by
coloured patches that tell the label where it is learned: an exact vote model, pairs of seeds, fine-tuning averaged with its
start, and how sure of themselves the two may be. BANG (fine-tuning with soft labels, to tame its certainty) is not expected
to win here: this fine-tuned network is no surer than its start, so there is nothing to repair, and soft labels make it worse.
"""

from collections.abc import Mapping

from unseen.engine.loop import Budget, Optimizer
from unseen.reading import Reading
from unseen.studies.spurious_diversification.drawing import (
    balance,
    gains,
    hardest,
    patterns,
    soft,
    sweep,
    table,
    votes,
)
from unseen.studies.spurious_diversification.experiment import MANY, ONE, SHARED, Config, Part, Sheet, cells, run
from unseen.study import Claim, Effect, Rows, Scale, Study, Value, average, column, gap, pick
from unseen.study.effects import worst
from unseen.study.source import Source
from unseen.tasks.images import Collection
from unseen.tasks.patch_digits import PatchDigits


def error(rows: Rows) -> Reading:
    """The largest difference of enumeration and closed form: exact, so without width."""
    largest = max(column(rows, "error", check="closed form"))
    return Reading(largest, largest, largest, len(pick(rows, check="closed form")))


def ranking_accuracy(rows: Rows) -> Reading:
    """Share of the pairs of votings in all cases that the normal approximation ranks right: all cases, so without width."""
    pairs, right = (sum(column(rows, name, check="ranking")) for name in ("pairs", "ranked"))
    return Reading(right / pairs, right / pairs, right / pairs, int(pairs), "fraction")


def of_seeds(name: str, sheet: Sheet, ideal: float) -> Effect:
    """A column of the pairs of seeds at the shift where it is farthest from the ideal."""
    return worst(average(name), "p", ideal, part=str(Part.SEEDS), sheet=sheet.label)


def more_than_twice(rows: Rows) -> Reading:
    """Gain with many patches − twice the gain with one, at the shift where that is least."""
    mine = [{**row, "gain": float(row["gain"]) * (2 if row["sheet"] == ONE.label else 1)}
            for row in pick(rows, part=str(Part.SEEDS))]  # fmt: skip
    return worst(gap("gain", {"sheet": MANY.label}, {"sheet": ONE.label}), "p", 1)(mine)


def hard(effect: Effect) -> Effect:
    """At the largest shift."""
    return lambda rows: effect(pick(rows, p=hardest(rows)))


def average_gap(name: str, of: str, against: str) -> Effect:
    """A column of one kind of average minus that of another."""
    return gap(name, {"what": "average", "kind": of}, {"what": "average", "kind": against})


def scale_effect(scale: float) -> Effect:
    """Accuracy of the weights' average with λ = 1 minus that with another λ, at the largest shift."""
    base: dict[str, Value] = {"what": "balance", "kind": "weights"}
    return hard(gap("accuracy", {**base, "scale": 1.0}, {**base, "scale": scale}))


def other_scales(rows: Rows) -> Reading:
    """The same for the λ that is best of all others."""
    scales = {float(s) for s in column(rows, "scale", what="balance")} - {1.0}
    return min((scale_effect(scale)(rows) for scale in sorted(scales)), key=lambda reading: reading.value)


def softly(name: str, kind: str, way: str = "both") -> Effect:
    """A column with soft labels minus that with plain ones, at the largest shift."""
    base: Mapping[str, Value] = {"what": "soft", "kind": kind}
    return hard(gap(name, {**base, "way": way}, {**base, "way": "plain"}))


CLAIMS = (
    Claim(
        says="Vote model: enumeration and closed form agree (largest difference).",
        effect=error,
        below=1e-12,
    ),
    Claim(
        says="Its normal approximation ranks one model, outputs and weights right (share of pairs, all overlaps).",
        effect=ranking_accuracy,
        above=0.9,
    ),
    Claim(
        says="Two seeds gain 2.5 points together where there are 32 patches (least of all shifts).",
        effect=of_seeds("gain", MANY, 1),
        above=0.025,
    ),
    Claim(
        says="That is at least twice the gain with one patch (least of all shifts: the difference).",
        effect=more_than_twice,
        above=0.0,
    ),
    Claim(
        says="Where wide models share one palette they use the same patches and gain less than half of that (largest).",
        effect=of_seeds("gain", SHARED, 0),
        below=0.0125,
    ),
    Claim(
        says="Two seeds that are both wrong are right together more often than the reverse: FFT − TTF (least).",
        effect=of_seeds("FFT − TTF", MANY, 1),
        above=0.0,
    ),
    Claim(
        says="WiSE-FT (α = ½) beats the better of before and after by 5 points at the largest shift.",
        effect=hard(average("over better", what="average", kind="weights")),
        above=0.05,
    ),
    Claim(
        says="The average of weights is no worse than that of probabilities (least of all shifts).",
        effect=worst(average_gap("ensemble", "weights", "probabilities"), "p", 1, what="average"),
        above=-0.002,
    ),
    Claim(
        says="It rights what both had wrong more often than the reverse: FFT − TTF (least of all shifts).",
        effect=worst(average("FFT − TTF"), "p", 1, what="average", kind="weights"),
        above=0.0,
    ),
    Claim(
        says="It does so more often than the average of probabilities (FFT, largest shift).",
        effect=hard(average_gap("FFT", "weights", "probabilities")),
        above=0.0,
    ),
    Claim(
        says="With weights of another start nothing is gained over the better one (largest shift).",
        effect=hard(average("over better", what="average", kind="weights, unrelated")),
        below=0.01,
    ),
    Claim(
        says="A shared start is worth 5 points to the average of weights (largest shift).",
        effect=hard(average_gap("ensemble", "weights", "weights, unrelated")),
        above=0.05,
    ),
    Claim(
        says="Balance: with a fine-tuned model eight times as large in weight the average loses 4 points.",
        effect=scale_effect(8.0),
        above=0.04,
    ),
    Claim(
        says="With one an eighth as large it loses them, too.",
        effect=scale_effect(0.125),
        above=0.04,
    ),
    Claim(
        says="The fine-tuned model is in balance as it is: no other λ gains a point (best of them).",
        effect=other_scales,
        above=-0.01,
    ),
    Claim(
        says="Soft labels make the fine-tuned model less sure (confidence at the largest shift).",
        effect=softly("confidence", "member"),
        below=-0.1,
    ),
    Claim(
        says="BANG beats WiSE-FT (largest shift; the paper: + 1.9 points on CLIP).",
        effect=softly("accuracy", "weights"),
        above=0.0,
    ),
    Claim(
        says="Its fine-tuned model is less accurate by itself (largest shift).",
        effect=softly("accuracy", "member"),
        below=0.0,
    ),
)


study = Study(
    name="spurious_diversification",
    system="42",
    source=Source(
        key="lin2024spurious",
        title="Spurious Feature Diversification Improves Out-of-distribution Generalization",
        authors=(
            "Lin, Yong", "Tan, Lu", "Hao, Yifan", "Wong, Honam", "Dong, Hanze", "Zhang, Weizhong", "Yang, Yujiu",
            "Zhang, Tong",
        ),
        year=2024,
        venue="ICLR",
        arxiv="2309.17230",
    ),
    scales={
        Scale.SMOKE: Config(
            digits=PatchDigits(Collection.OPTDIGITS, n=800, n_select=1, n_test=300, shifts=(0.7, 0.9)),
            pair=Budget(steps=80, batch_size=50, lr=1e-2, optimizer=Optimizer.ADAM),
            tuned=PatchDigits(Collection.OPTDIGITS, n=600, n_select=1, n_test=300, shifts=(0.7, 0.9)),
            hidden=32,
            before=Budget(steps=60, batch_size=50, lr=5e-3, optimizer=Optimizer.ADAM, weight_decay=3e-3),
            after=Budget(steps=80, batch_size=50, lr=5e-3, optimizer=Optimizer.ADAM, weight_decay=3e-3),
            alphas=(0.0, 0.5, 1.0),
            scales=(0.125, 1.0, 8.0),
            chances=(0.9,),
            seeds=1,
        ),
        Scale.LAPTOP: Config(),
        # The paper's CLIP on ImageNet and its shifts cannot be shipped; this is its synthetic set with all digits.
        Scale.PAPER: Config(
            digits=PatchDigits(n=50_000, n_select=1, n_test=10_000, shifts=(0.7, 0.75, 0.8, 0.85, 0.9)),
            pair=Budget(steps=3_000, batch_size=100, lr=1e-3, optimizer=Optimizer.ADAM),
            tuned=PatchDigits(n=25_000, n_select=1, n_test=10_000, shifts=(0.7, 0.75, 0.8, 0.85, 0.9)),
            seeds=20,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(votes, gains, sweep, patterns, balance, soft),
    table=table,
)  # fmt: skip
