"""The tables that are shipped as examples of an audit, with what their columns mean and who is to
be named for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from unseen.data.files import data_file
from unseen.errors import InvalidConfig, UnknownName
from unseen.tasks.hospitals import HeartDisease
from unseen.tasks.table import Table


@dataclass(frozen=True, kw_only=True)
class EmbeddedTable:
    """A shipped table."""

    title: str
    """What it is called in reports."""
    table: Callable[[], Table]
    attribution: str
    """Authors, source and licence, as the licence asks for."""

    def without(self, drop: Sequence[str]) -> Table:
        """The table, with these columns left out of the inputs, too."""
        table = self.table()
        return replace(table, drop=(*table.drop, *drop))


def heart_table() -> Table:
    """Disease at four hospitals, by sex and decade of age."""
    return replace(HeartDisease().table(), groups=("sex", "age:decade"))


def bike_frame() -> pd.DataFrame:
    """Hourly rentals with the weather, every fifth hour; `casual` and `registered` sum to `cnt`."""
    frame = pd.read_csv(data_file("bike-sharing-small/hour.csv.gz"))
    return frame.assign(year=2011 + frame.pop("yr")).drop(columns="instant")


def bike_table() -> Table:
    """Rentals of an hour, a year held out; hours of one month hang together."""
    return Table(
        bike_frame, target="cnt", site="year", groups=("workingday",), block="dteday:month"
    )


def air_frame() -> pd.DataFrame:
    """Fine dust and weather at twelve stations of Beijing, four hours of a day."""
    frame = pd.read_csv(data_file("beijing-air-small/six_hours.csv.gz"))
    return frame.assign(date=pd.to_datetime(frame[["year", "month", "day"]]))


def air_table() -> Table:
    """Fine dust, a station held out; rows of one month hang together."""
    return Table(air_frame, target="PM2.5", site="station", drop=("day",), block="date:month")


EXAMPLES = {
    "heart": EmbeddedTable(
        title="heart disease",
        table=heart_table,
        attribution="Janosi, Steinbrunn, Pfisterer & Detrano (1988), Heart Disease, UCI Machine "
        "Learning Repository, doi:10.24432/C52P4X, CC BY 4.0",
    ),
    "bikes": EmbeddedTable(
        title="bike sharing",
        table=bike_table,
        attribution="Fanaee-T & Gama (2013), doi:10.1007/s13748-013-0040-3, Bike Sharing, UCI "
        "Machine Learning Repository 275, every fifth row, CC BY 4.0",
    ),
    "air": EmbeddedTable(
        title="Beijing air",
        table=air_table,
        attribution="Zhang et al. (2017), doi:10.1098/rspa.2017.0457, Beijing Multi-Site Air "
        "Quality, UCI Machine Learning Repository 501, every seventeenth row, CC BY 4.0",
    ),
}


def find_example(name: str = "heart") -> EmbeddedTable:
    """The example of this name; for an unknown one the error lists near matches."""
    if name not in EXAMPLES:
        raise UnknownName.near("example", name, EXAMPLES)
    return EXAMPLES[name]


def choose_example(name: str, subject: object) -> EmbeddedTable:
    """The example that was asked for, alone."""
    if subject is not None:
        raise InvalidConfig(
            f"The example `{name}` was asked for beside a subject of your own.",
            why="it brings its own rows, and what its columns mean.",
            fix="leave out one of the two.",
        )
    return find_example(name)


def attribution_of(source: object) -> dict[str, str]:
    """Who is to be named for the data, as a report's fact; nothing of data of one's own."""
    example = find_example() if source is None else source
    return {"data": example.attribution} if isinstance(example, EmbeddedTable) else {}
