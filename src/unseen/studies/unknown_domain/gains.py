"""What the rows say: gains with intervals, the table, figures."""

from collections.abc import Sequence

from unseen import stats
from unseen.figure import Bars, Points
from unseen.reading import Reading
from unseen.studies.unknown_domain.training import Part, Variant
from unseen.study import Effect, Row, Rows, Value, column, effects, figures, gap, pick


def gain(part: Part, of: Variant, over: Variant, name: str = "accuracy") -> Effect:
    """Mean over seeds of one variant minus another; unknown domains are averaged first."""
    return gap(name, {"part": part.value, "variant": of.value}, {"part": part.value, "variant": over.value})


def lowest(part: Part, of: Variant, over: Variant) -> Effect:
    """The gain on the unknown domain where it is smallest: what it clears, every domain's does."""

    def read(rows: Rows) -> Reading:
        mine = pick(rows, part=part.value)
        gains = [gain(part, of, over)(pick(mine, target=target)) for (target,) in effects.distinct(mine, "target")]
        return min(gains, key=lambda reading: reading.value)

    return read


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds: accuracy on every unknown domain, on the sources, and sharpness, by variant."""
    made: list[Row] = []
    for (part,) in effects.distinct(rows, "part"):
        mine = pick(rows, part=part)
        for (target,) in effects.distinct(mine, "target"):
            made.append({"part": part, "what": f"{target}", **by_variant(pick(mine, target=target), "accuracy")})
        summaries = {
            "mean of unknown": "accuracy",
            "on the sources": "source_accuracy",
            "sharpness, unknown": "sharpness",
            "sharpness, sources": "source_sharpness",
        }
        made += [{"part": part, "what": what, **by_variant(mine, name)} for what, name in summaries.items()]
        share = stats.mean(column(mine, "radius_share")).value
        made.append({"part": part, "what": "ρ_x / mean norm of x", Variant.UDIM.value: share})
    return made


def by_variant(rows: Rows, name: str) -> dict[str, Value]:
    """The mean of a column for every variant that has it."""
    found: dict[str, Value] = {}
    for variant in Variant:
        if mine := pick(rows, variant=variant.value):
            found[variant.value] = stats.mean(column(mine, name)).value
    return found


def gains_figure(rows: Rows) -> Bars:
    """Every variant against SAM."""
    found: dict[str, Reading] = {}
    for part in Part:
        for (variant,) in effects.distinct(pick(rows, part=part.value), "variant"):
            if variant != Variant.SAM:
                found[f"{part.value}: {variant}"] = gain(part, Variant(str(variant)), Variant.SAM)(rows)
    return figures.draw_bars(found, title="Accuracy on unknown domains against SAM", label="difference of accuracy")


def sharpness_figure(rows: Rows) -> Points:
    """Is what is flat on the sources flat elsewhere? One point per seed."""
    wanted = (Variant.ERM.value, Variant.SAM.value, Variant.RANDOM.value, Variant.UDIM.value)
    return figures.points(
        x="source_sharpness",
        y="sharpness",
        by="variant",
        title="Rise of the loss within radius 0.05 in the weights, digit sources",
        x_label="on the sources (nats)",
        y_label="on the unknown domain (nats)",
    )([row for row in pick(rows, part=Part.SOURCES.value) if row["variant"] in wanted])
