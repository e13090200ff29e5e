"""What a comparison found, as values: every number with its interval, every missing one with its
reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unseen.questions.compare.protocols import Protocol
from unseen.reading import Reading

AVERAGE = "average"
WORST = "worst site"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method under one selection protocol, at one site, on average over sites, or at its worst
    site.
    """

    metric: str
    protocol: Protocol
    method: str
    column: str
    reading: Reading | None = None
    seeds: int = 0
    best: bool = False
    """The best of its column, and its paired difference from every other excludes zero (widened
    for the choice).
    """
    note: str = ""
    """Why there is no number, why it is of fewer seeds, or which site is the worst."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Paired difference of a method from the baseline: same data, seeds, initial weights, draws of
    the shared ranges.
    """

    metric: str
    protocol: Protocol
    method: str
    column: str
    reading: Reading


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The draw that a seed reports, and the method with its hyperparameters."""

    protocol: Protocol
    method: str
    left_out: str
    seed: int
    draw: int
    is_default: bool
    values: str


@dataclass(frozen=True, kw_only=True)
class RunPoint:
    """One trained draw: mean score at known sites and at the site left out, averaged over what is
    left out.
    """

    method: str
    seed: int
    draw: int
    seen: float
    unseen: float


@dataclass(frozen=True, kw_only=True)
class Results:
    name: str
    sites: Sequence[str]
    methods: Sequence[str]
    baseline: str
    metrics: Sequence[str]
    protocols: Sequence[Protocol]
    """The first one is what the summary quotes."""
    seeds: int
    draws: int
    cells: Sequence[Cell]
    changes: Sequence[Change]
    choices: Sequence[Choice]
    dots: Sequence[RunPoint]
    sizes: Mapping[str, int]
    """Evaluation examples by site."""
    diverged: Mapping[str, tuple[int, int]]
    """Method → runs whose loss or weights stopped being finite, and all its runs."""
    missing: Mapping[str, str]
    """What could not be done → why."""
    trained: Mapping[str, str]
    """Method → how its models were trained."""
    subgroups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Grouping → the metrics of its subgroups, under the first protocol."""
    decisions: Sequence[str] = ()
    warnings: Sequence[str] = ()
    seconds: float = 0.0
    """On the clock, from reading to the last number; with several processes not those of each."""

    def cell(
        self, method: str, column: str, metric: str = "", protocol: Protocol | None = None
    ) -> Cell:
        """The cell of a method; by default of the first metric and the first protocol."""
        metric, protocol = metric or self.metrics[0], protocol or self.protocols[0]
        for cell in self.cells:
            if (cell.method, cell.column, cell.metric, cell.protocol) == (
                method,
                column,
                metric,
                protocol,
            ):
                return cell
        return Cell(
            metric=metric, protocol=protocol, method=method, column=column, note="not computed"
        )

    def change(
        self, method: str, column: str, metric: str = "", protocol: Protocol | None = None
    ) -> Reading | None:
        """The difference of a method from the baseline; by default of the first metric and the
        first protocol.
        """
        wanted = (method, column, metric or self.metrics[0], protocol or self.protocols[0])
        found = (
            c.reading for c in self.changes if (c.method, c.column, c.metric, c.protocol) == wanted
        )
        return next(found, None)
