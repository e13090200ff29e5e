"""Tables and figures of the study."""

from collections.abc import Callable, Sequence

from unseen.figure import Curves, Grid
from unseen.studies.diversification.experiment import GROUPS, ORACLE, SCRATCH, Encoder, Way
from unseen.study import Row, Rows, average, figures, pick
from unseen.study.effects import distinct


def along(name: str, title: str) -> Callable[[Rows], Curves]:
    """A column of the oracle's choice over r, two members from scratch; ERM does not read unlabelled pairs."""

    def draw(rows: Rows) -> Curves:
        mine = pick(rows, **SCRATCH)
        shares = [r for (r,) in distinct(mine, "r")]
        erm = [{**row, "r": r} for row in pick(mine, way=str(Way.ERM)) for r in shares]
        rows = [*[row for row in mine if row["members"] == 2], *erm]
        return figures.curves(x="r", y=name, by="way", title=title, x_label="agreement r of unlabelled images")(rows)

    return draw


def groups(rows: Rows) -> Curves:
    """Which groups D-BAT loses: accuracy hides it."""
    mine = pick(rows, **SCRATCH, members=2, way=str(Way.DBAT))
    return figures.curves(
        x="r",
        y={name: name for name in GROUPS},
        title="D-BAT by group (label, class of the upper image)",
        x_label="agreement r of unlabelled images",
        y_label="accuracy",
    )(mine)


def selections(rows: Rows) -> Grid:
    """Worst group by way, selection and r; two members from scratch."""
    mine = [row for row in pick(rows, part="chosen", encoder=str(Encoder.SCRATCH), members=2) if "r" in row]
    return worst_group_grid(mine, ("way", "selection"), "Worst group by selection (the oracle reads test labels)")


def algorithms(rows: Rows) -> Grid:
    """Worst group of the better of two by way, encoder and r."""
    mine = [row for row in pick(rows, **ORACLE, members=2) if "r" in row]
    return worst_group_grid(mine, ("way", "encoder"), "Worst group by what the hidden layer knows (oracle of two)")


def numbers(rows: Rows) -> Grid:
    """Worst group of the best of K."""
    mine = [{**row, "members": f"{row['members']} hypotheses"} for row in pick(rows, **SCRATCH) if "r" in row]
    return worst_group_grid(mine, ("way", "members"), "Worst group by the number of hypotheses (oracle, from scratch)")


def worst_group_grid(rows: Rows, by: tuple[str, str], title: str) -> Grid:
    """Mean worst group, two columns down and r across."""
    kinds, shares = distinct(rows, *by), sorted(float(r) for (r,) in distinct(rows, "r"))
    kinds.sort(key=lambda kind: str(kind[0]))
    chosen = [pick(rows, **dict(zip(by, kind, strict=True))) for kind in kinds]
    values = [[average("worst", r=r)(mine).value for r in shares] for mine in chosen]
    return Grid(
        title=title,
        rows=[": ".join(map(str, k)) for k in kinds],
        columns=[f"r = {r:g}" for r in shares],
        values=values,
        label="worst group",
    )


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds of two members from scratch and of ERM: the oracle's choice, the other choices, the members."""
    columns = ("accuracy", "opposed", "upper", *GROUPS, "relies on upper", "relies on lower")
    members = ("agreement of unlabelled", "disagreement on unlabelled", "disagreement on test", "mutual information")
    found: list[Row] = []
    scratch = [{"r": "any", **row} for row in pick(rows, encoder=str(Encoder.SCRATCH)) if row["members"] in (1, 2)]
    for kind, r in distinct(scratch, "way", "r"):
        mine = pick(scratch, way=kind, r=r)
        (chosen,) = figures.summary(("way", "r"), columns)(pick(mine, **ORACLE))
        worsts = {f"worst: {s}": average("worst", selection=s)(mine).value for (s,) in distinct(mine, "selection")}
        both = figures.summary((), members)(pick(mine, part="committee"))
        found.append({**chosen, **worsts, **(both[0] if both else {})})
    return found
