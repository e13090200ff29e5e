"""Hypotheses that must differ on unlabelled data: what that gains depends on those data and on how one learns.

Benoit et al. (2024), arXiv:2312.16313, on dominoes: the label is told by the upper image (simple) and by the lower one
(meant), always both in the labelled pairs; in the unlabelled ones they agree in a share r. The worst of the four groups
(label × upper image) of a balanced test set shows which of the two a hypothesis reads. Accuracy on opposed pairs alone
(two of the groups) would not: "not the upper image" has all of it.
"""

from collections.abc import Mapping

from unseen.engine.loop import Budget, Optimizer
from unseen.reading import Reading
from unseen.studies.diversification.drawing import algorithms, along, groups, numbers, selections, table
from unseen.studies.diversification.experiment import ORACLE, SCRATCH, Config, Encoder, Selection, Way, cells, run
from unseen.study import Claim, Effect, Rows, Scale, Study, Value, average, gap, pick
from unseen.study.effects import worst
from unseen.study.source import Source
from unseen.tasks.dominoes import Dominoes
from unseen.tasks.images import Collection

BEST = {Way.DBAT: 0.0, Way.DIVDIS: 0.5}
"""The agreement r at which the semantic rule is the optimum of each penalty, if the other hypothesis is the upper image's."""


def versus(name: str, of: Mapping[str, Value], against: Mapping[str, Value], **both: Value) -> Effect:
    """Paired difference of a column between two kinds of oracle-chosen rows; two members from scratch, if not said."""
    base = {**SCRATCH, "members": 2, **both}
    return gap(name, {**base, **of}, {**base, **against})


def way(name: Way) -> dict[str, Value]:
    return {"way": str(name)}


def of_encoder(encoder: Encoder) -> dict[str, Value]:
    return {"encoder": str(encoder)}


def diverse(effect: Effect, ideal: float) -> Effect:
    """The reading of the one of both ways that is farther from the ideal."""
    far = worst(effect, "way", ideal)
    return lambda rows: far([row for row in rows if "way" in row and row["way"] != Way.ERM])


def most_members(rows: Rows) -> Reading:
    """The highest mean worst group that any number of hypotheses reaches at r = 1."""
    mine = [{**row, "kind": f"{row['way']} {row['members']}"} for row in pick(rows, **SCRATCH, r=1.0)]
    return worst(average("worst", within=(0, 1)), "kind", 0)(mine)


def more_members(rows: Rows) -> Reading:
    """What the largest number of hypotheses gains over two for DivDis at r = 0."""
    mine = pick(rows, **SCRATCH, **way(Way.DIVDIS), r=0.0)
    most = max((int(row["members"]) for row in mine), default=2)
    return gap("worst", {"members": most}, {"members": 2})(mine)


def oracle_gap(rows: Rows) -> Reading:
    """Worst group of the oracle's choice − of the queried one, at each way's best r: the way that loses more."""
    mine = [row for row in pick(rows, encoder=str(Encoder.SCRATCH), members=2) if BEST.get(row["way"]) == row.get("r")]  # type: ignore[call-overload]
    return diverse(gap("worst", ORACLE, {**ORACLE, "selection": str(Selection.QUERIED)}), 0)(mine)


CLAIMS = (
    Claim(
        says="ERM reads the upper image: its worst group is wrong.",
        effect=lambda rows: average("worst", within=(0, 1))(pick(rows, **SCRATCH, **way(Way.ERM))),
        below=0.25,
    ),
    Claim(
        says="D-BAT wants unlabelled images that are opposed: accuracy at r = 0 − at r = 0.75.",
        effect=versus("accuracy", {"r": 0.0}, {"r": 0.75}, **way(Way.DBAT)),
        above=0.05,
    ),
    Claim(
        says="DivDis wants independent ones: accuracy at r = 0.5 − at r = 0.",
        effect=versus("accuracy", {"r": 0.5}, {"r": 0.0}, **way(Way.DIVDIS)),
        above=0.08,
    ),
    Claim(
        says="At r = 0 D-BAT is more accurate than DivDis.",
        effect=versus("accuracy", way(Way.DBAT), way(Way.DIVDIS), r=0.0),
        above=0.0,
    ),
    Claim(
        says="At r = 0.5 DivDis is more accurate than D-BAT.",
        effect=versus("accuracy", way(Way.DIVDIS), way(Way.DBAT), r=0.5),
        above=0.0,
    ),
    Claim(
        says="Where both images always agree (r = 1) neither finds the lower one from scratch: worst group (better way).",
        effect=diverse(average("worst", within=(0, 1), **SCRATCH, members=2, r=1.0), 0),
        below=0.75,
    ),
    Claim(
        says="There the encoder decides: frozen on lower images − from scratch, worst group (way that gains less).",
        effect=diverse(versus("worst", of_encoder(Encoder.LOWER_FROZEN), of_encoder(Encoder.SCRATCH), r=1.0), 1),
        above=0.25,
    ),
    Claim(
        says="More hypotheses do not help there: worst group of the best of any number, either way.",
        effect=most_members,
        below=0.70,
    ),
    Claim(
        says="Nor at r = 0 for DivDis: worst group of the best of the most hypotheses − of two.",
        effect=more_members,
        below=0.10,
    ),
    Claim(
        says="The wrong encoder costs 20 points: DivDis at r = 0, frozen on lower − on upper images, worst group.",
        effect=versus(
            "worst", of_encoder(Encoder.LOWER_FROZEN), of_encoder(Encoder.UPPER_FROZEN), r=0.0, **way(Way.DIVDIS)
        ),
        above=0.20,
    ),
    Claim(
        says="The best r depends on the encoder: from scratch DivDis loses its worst group from r = 0.5 to r = 0 …",
        effect=versus("worst", {"r": 0.5}, {"r": 0.0}, **way(Way.DIVDIS)),
        above=0.15,
    ),
    Claim(
        says="… and frozen on lower images it loses nothing.",
        effect=versus("worst", {"r": 0.5}, {"r": 0.0}, **way(Way.DIVDIS), **of_encoder(Encoder.LOWER_FROZEN)),
        above=-0.05,
        below=0.05,
    ),
    Claim(
        says="The best encoder depends on r: D-BAT at r = 0.5 from scratch − frozen on lower images, opposed pairs.",
        effect=versus("opposed", of_encoder(Encoder.SCRATCH), of_encoder(Encoder.LOWER_FROZEN), r=0.5, **way(Way.DBAT)),
        above=0.05,
    ),
    Claim(
        says="The same in the worst of all four groups.",
        effect=versus("worst", of_encoder(Encoder.SCRATCH), of_encoder(Encoder.LOWER_FROZEN), r=0.5, **way(Way.DBAT)),
        above=0.0,
    ),
    Claim(
        says="A few labels on disputed pairs find the oracle's choice at each way's best r: worst group lost (worse way).",
        effect=oracle_gap,
        below=0.05,
    ),
)


study = Study(
    name="diversification",
    system="05",
    source=Source(
        key="benoit2024unraveling",
        title="Unraveling the Key Components of OOD Generalization via Diversification",
        authors=(
            "Benoit, Harold", "Jiang, Liangze", "Atanov, Andrei", "Kar, Oğuzhan Fatih", "Rigotti, Mattia",
            "Zamir, Amir",
        ),
        year=2024,
        venue="ICLR",
        arxiv="2312.16313",
    ),
    scales={
        Scale.SMOKE: Config(
            task=Dominoes(
                top=Collection.OPTDIGITS,
                bottom=Collection.FASHION_MNIST_SMALL,
                n=160,
                n_select=20,
                n_unlabelled=80,
                n_same=20,
                n_test=60,
                side=8,
            ),
            shares=(0.0, 0.5, 0.75, 1.0),
            encoders=(Encoder.SCRATCH, Encoder.UPPER_FROZEN, Encoder.LOWER_FROZEN),
            members=(2, 3),
            widths=(32,),
            before=800,
            pretraining=Budget(steps=40, batch_size=64, lr=5e-3, optimizer=Optimizer.ADAM),
            budget=Budget(steps=20, batch_size=32, lr=1e-2, optimizer=Optimizer.ADAM),
            seeds=1,
        ),
        Scale.LAPTOP: Config(),
        # The paper's Waterbirds-CC and Office-Home cannot be shipped; this is its synthetic set at full size.
        Scale.PAPER: Config(
            task=Dominoes(n=8_000, n_select=1_000, n_unlabelled=2_500, n_same=500, n_test=1_400, side=28),
            members=(2, 3, 5, 16, 64),
            widths=(500, 500),
            before=40_000,
            pretraining=Budget(steps=5_000, batch_size=256, lr=1e-3, optimizer=Optimizer.ADAM),
            budget=Budget(steps=2_000, batch_size=256, lr=1e-3, optimizer=Optimizer.ADAM),
            seeds=5,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(
        along("accuracy", "Accuracy of the better hypothesis"),
        along("worst", "Worst of four groups"),
        along("opposed", "Accuracy on opposed pairs"),
        groups,
        selections,
        algorithms,
        numbers,
    ),
    table=table,
)  # fmt: skip
