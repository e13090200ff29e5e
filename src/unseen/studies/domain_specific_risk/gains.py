"""What the rows say: gains with intervals, the table, figures."""

from collections.abc import Mapping, Sequence

from unseen import stats
from unseen.figure import Bars, Curves
from unseen.reading import Reading
from unseen.studies.domain_specific_risk.heads import Data, Heads, Stream, Way
from unseen.study import Effect, Row, Rows, Value, column, effects, figures, gap, pick

Where = Mapping[str, Value]
ANYWHERE: Where = {}
END: Where = {"place": "end"}
INSIDE: Where = {"place": "inside"}


def rows_of(
    way: Way,
    data: Data,
    where: Where = ANYWHERE,
    stream: Stream = Stream.TARGET,
    heads: Heads = Heads.DOMAINS,
) -> Where:
    """The rows of one way; ERM has one head."""
    kind = Heads.ONE if way is Way.ERM else heads
    return {
        "way": way.value,
        "data": data.value,
        "stream": stream.value,
        "heads": kind.value,
        **where,
    }


def gain(
    data: Data, where: Where = ANYWHERE, over: Way = Way.ERM, stream: Stream = Stream.TARGET
) -> Effect:
    """Accuracy of steering by certainty per batch minus another way's; mean over targets, then over
    seeds.
    """
    return gap(
        "accuracy", rows_of(Way.BATCH, data, where, stream), rows_of(over, data, where, stream)
    )


def gain_near_sources(rows: Rows) -> Reading:
    """Gain on the coloured targets that have a source with a similar agreement of colour and
    label.
    """
    near = [row for row in pick(rows, data=Data.COLOURED.value) if float(row["distance"]) < 0.5]
    return gain(Data.COLOURED)(near)


def widest(rows: Rows) -> Reading:
    """Gain at the ends where sources are furthest apart."""
    return gain(Data.APART, {"distance": max(column(rows, "distance", data=Data.APART.value))})(
        rows
    )


def on_sources(rows: Rows) -> Reading:
    """The lowest of the three collections' gains on their sources themselves."""
    readings = [
        gain(data, stream=Stream.SOURCES)(rows)
        for data in (Data.ROTATED, Data.COLOURED, Data.SOURCES)
    ]
    return min(readings, key=lambda reading: reading.value)


def table(rows: Rows) -> Sequence[Row]:
    """Mean accuracy over seeds for every domain left out."""
    made: list[Row] = []
    for data, target in effects.distinct(rows, "data", "target"):
        here = pick(rows, data=data, target=target)
        for distance in dict.fromkeys(row.get("distance") for row in here):
            mine = [row for row in here if row.get("distance") == distance]
            near: dict[str, Value] = {} if distance is None else {"distance": distance}
            made.append({"data": data, "target": target, **near, **means(mine)})
    return made


def means(rows: Rows) -> Where:
    """Every way on the target; the controls; what the sources pay."""
    found = {
        way.value: (Stream.TARGET, Heads.ONE if way is Way.ERM else Heads.DOMAINS, way)
        for way in Way
    }
    found["per batch, random sources"] = (Stream.TARGET, Heads.RANDOM, Way.BATCH)
    found["per batch, mixed stream"] = (Stream.MIXED, Heads.DOMAINS, Way.BATCH)
    found["on sources: ERM"] = (Stream.SOURCES, Heads.ONE, Way.ERM)
    found["on sources: per batch"] = (Stream.SOURCES, Heads.DOMAINS, Way.BATCH)
    filled: dict[str, Value] = {}
    for title, (stream, heads, way) in found.items():
        if mine := pick(rows, stream=stream.value, heads=heads.value, way=way.value):
            filled[title] = stats.mean(column(mine, "accuracy")).value
    return filled


def gains_figure(rows: Rows) -> Bars:
    """What steering per batch gains on every target."""
    found: dict[str, Reading] = {}
    for data in (Data.ROTATED, Data.COLOURED, Data.SOURCES):
        for (target,) in effects.distinct(pick(rows, data=data.value), "target"):
            found[f"{data} {target}"] = gain(data, {"target": target})(rows)
    return figures.draw_bars(
        found, title="Steering per batch against ERM", label="difference of accuracy"
    )


def spacing_figure(rows: Rows) -> Curves:
    """The ends of the range against the distance of their nearest source."""
    ends = [
        row
        for row in pick(rows, place="end", stream=Stream.TARGET.value)
        if row["heads"] != Heads.RANDOM.value
    ]
    ways = (Way.ERM, Way.BATCH, Way.SAMPLE, Way.BEST)
    return figures.curves(
        x="distance",
        y="accuracy",
        by="way",
        title="Rotations beyond all sources",
        x_label="degrees to the nearest source",
        y_label="accuracy",
    )([row for row in ends if row["data"] != Data.COLOURED.value and row["way"] in ways])
