"""A made-up audit of four hospitals, as long and as varied as a real one: the fixture of the
report's tests.
"""

import math

import numpy as np

from unseen.document import Document, Note, Paragraph, Section, Table, Tone
from unseen.figure import Bars, Curves, Grid, Images, Points
from unseen.reading import Reading

SITES = ("Cleveland", "Budapest", "Zurich and Basel", "Long Beach VA")
HOSTILE = "<script>alert('1')</script> | *a* `b` [c](http://d) $e$"


def score(value: float, half: float, n: int) -> Reading:
    return Reading(value, value - half, min(1.0, value + half), n, "fraction")


def gaps() -> Table:
    accuracy = [
        score(0.81, 0.05, 303),
        score(0.79, 0.05, 294),
        score(0.61, 0.09, 123),
        score(0.70, 0.07, 200),
    ]
    losses = [Reading(v, v - 0.07, v + 0.08, 100, "nats") for v in (0.44, 0.47, 1.19, 0.71)]
    drop = [
        Reading(v, v - h, v + h, 5, "fraction")
        for v, h in ((-0.01, 0.03), (0.02, 0.03), (0.2, 0.08), (0.11, 0.06))
    ]
    rows = [
        {
            "held-out hospital": site,
            "n": reading.n,
            "accuracy": reading,
            "loss": loss,
            "gap": gap,
            "AUC": auc,
        }
        for site, reading, loss, gap, auc in zip(
            SITES, accuracy, losses, drop, (0.88, 0.87, None, 0.741), strict=True
        )
    ]
    return Table(
        rows=rows,
        caption="Trained on three hospitals, evaluated on the fourth",
        footnotes=(
            "AUC needs both classes; Zurich and Basel has 8 patients without disease, too few for "
            "an interval.",
        ),
    )


def subgroups() -> Table:
    names = (
        "women",
        "men",
        "age under 50",
        "age 50 to 60",
        "age over 60",
        "no chest pain recorded",
        HOSTILE,
    )
    values = (
        (0.83, 0.05, 193),
        (0.73, 0.03, 726),
        (0.79, 0.05, 270),
        (0.74, 0.04, 391),
        (0.69, 0.06, 258),
        (0.66, 0.11, 71),
        (0.5, 0.31, 9),
    )
    rows = [
        {"subgroup": name, "n": n, "accuracy": score(v, h, n)}
        for name, (v, h, n) in zip(names, values, strict=True)
    ]
    return Table(rows=rows, caption="Accuracy per subgroup, all hospitals")


def figures() -> list:
    rng = np.random.default_rng(0)
    steps = [2**k for k in range(11)]
    curves = {
        site: [1.4 * math.exp(-k / 4) + 0.1 * j + 0.2 for k in range(11)]
        for j, site in enumerate(SITES)
    }
    band = {name: [(v * 0.92, v * 1.08) for v in line] for name, line in curves.items()}
    bars = {
        "maximum heart rate": 0.084,
        "chest pain type": 0.071,
        "ST depression": 0.052,
        "cholesterol": 0.031,
        "sex": 0.024,
        "age": 0.006,
        "fasting sugar": -0.004,
    }
    scatter = {
        "confidently wrong": [
            (float(a), float(b)) for a, b in rng.normal((0.7, 0.3), 0.1, (30, 2))
        ],
        "right": [(float(a), float(b)) for a, b in rng.normal((0.6, 0.6), 0.12, (120, 2))],
    }
    grid = [
        [0.81, 0.78, 0.55, 0.69],
        [0.77, 0.79, 0.58, 0.66],
        [0.49, 0.52, 0.83, 0.71],
        [0.7, 0.71, 0.69, math.nan],
    ]
    return [
        Curves(
            title="Loss on the held-out hospital",
            x=steps,
            y=curves,
            band=band,
            x_label="step",
            y_label="nats",
            log_x=True,
        ),
        Bars(
            title="Features that the model relies on",
            values=bars,
            label="loss in nats when the feature is shuffled",
            intervals={name: (v - 0.012, v + 0.012) for name, v in bars.items()},
        ),
        Points(
            title="Predicted and observed risk",
            groups=scatter,
            x_label="predicted",
            y_label="observed",
            diagonal=True,
        ),
        Grid(
            title="Accuracy by training and judging hospital",
            rows=SITES,
            columns=SITES,
            values=grid,
            label="evaluated on",
        ),
    ]


def conflicting() -> Images:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:28, 0:28]
    pixels = [
        (np.hypot(x - 14 + k % 3, y - 14) < 5 + k).astype(float) * 0.8 + 0.2 * rng.random((28, 28))
        for k in range(8)
    ]
    return Images(
        title="Training images that conflict most with their class",
        pixels=[image.tolist() for image in pixels],
        captions=[f"#{17 * k}: labelled “shirt”, looks like “coat”" for k in range(8)],
    )


def audit() -> Document:
    curves, bars, points, grid = figures()
    return Document(
        title="How well does heart_disease.csv generalize?",
        kicker="Unseen audit · 920 patients, 4 hospitals, leave one hospital out",
        lead="The model keeps its accuracy in Cleveland and Budapest, and loses 20 points in "
        "Zurich and Basel and 11 in "
        "Long Beach. Do not use it at a hospital with a different referral pattern before "
        "refitting on local patients.",
        sections=[
            Section(
                "What to do next",
                [
                    Note(
                        "Fit again on 100 local patients before use.",
                        Tone.GOOD,
                        "Site-wise fine-tuning gains 0.09 [0.04, 0.14] accuracy, more than any "
                        "other "
                        "remedy tried here.",
                    ),
                    Note(
                        "Check cholesterol at Zurich and Basel: every value there is 0.",
                        Tone.BAD,
                        "A zero is a missing value; 123 of 123 patients are affected, and the "
                        "model "
                        "relies on this column.",
                    ),
                    Note(
                        "27 training labels are suspicious.",
                        Tone.CAUTION,
                        "They are listed below in order of suspicion.",
                    ),
                    Note("No duplicates between hospitals.", Tone.NEUTRAL),
                ],
            ),
            Section("Scores where the model was not trained", [gaps(), subgroups(), curves, grid]),
            Section(
                "Why",
                [
                    Paragraph(
                        "Coherence of the training gradients is 0.031 [0.027, 0.036]: examples "
                        "agree about thirty times "
                        "more than unrelated ones would. The gap comes from columns whose "
                        "meaning shifts, not from "
                        "memorised examples."
                    ),
                    bars,
                    points,
                    conflicting(),
                ],
            ),
            Section(
                HOSTILE,
                [
                    Paragraph(HOSTILE),
                    Note(HOSTILE, detail=HOSTILE),
                    Table(rows=[{HOSTILE: HOSTILE}], caption=HOSTILE),
                    Bars(title=HOSTILE, values={HOSTILE: 1.0}, label=HOSTILE),
                ],
            ),
            Section(
                "What the data cannot tell",
                [
                    Paragraph(
                        "Four hospitals are four draws: the interval over hospitals is wide, "
                        "whatever the number of patients."
                    ),
                ],
            ),
        ],
        facts={
            "unseen": "0.1.0",
            "torch": "2.13.0",
            "commit": "3924a2e",
            "seconds": "41.2",
            "device": "cpu",
            "seed": "0",
        },
    )
