"""A classifier per source domain, chosen at test time by its certainty, where one classifier for
all is far from the target.

Zhang, Wang, Liang, Zhang, Yu, Wang, Tao & Xie (2023), arXiv:2208.08661. One encoder with a head per
source and a common one (`methods.drm`), steered in several ways, against ERM on the same
minibatches. Controls: sources drawn at random (as many heads, nothing to specialise on), batches
that mix domains, and sources ever further apart. Nothing is selected on the target; the two ways
that read its labels say so.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace

from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.methods.drm import DRM
from unseen.methods.erm import ERM
from unseen.models.ensemble_model import Committee, SingleMember
from unseen.studies.domain_specific_risk.gains import (
    END,
    INSIDE,
    gain,
    gain_near_sources,
    gains_figure,
    on_sources,
    rows_of,
    spacing_figure,
    table,
    widest,
)
from unseen.studies.domain_specific_risk.heads import (
    Data,
    Heads,
    Stream,
    Way,
    accuracies,
    of_heads,
    shuffle_domains,
    untrained_network,
)
from unseen.study import Claim, Row, Scale, Study, Value, average, gap
from unseen.study.source import Source
from unseen.tasks.colored_digits import ColoredDigits
from unseen.tasks.digit_sources import DigitSources
from unseen.tasks.domains import Division, Domains, DomainSpec, leave_one_out, shifting_clusters
from unseen.tasks.images import Collection
from unseen.tasks.rotated_digits import RotatedDigits

DIVISION = Division(select=0.05, seen=0.2, oracle=0)
"""Nothing is selected; a fifth of every source judges what steering costs there."""


@dataclass(frozen=True)
class Config:
    rotated: RotatedDigits = RotatedDigits(n=10_000, division=DIVISION)
    coloured: ColoredDigits = ColoredDigits(division=DIVISION)
    sources: DomainSpec = field(default_factory=lambda: DigitSources(division=DIVISION))
    spacings: tuple[float, ...] = (5, 10, 20, 30)
    """Degrees between neighbours, as many angles as `rotated` has; both ends are left out."""
    width: int = 128
    budget: Budget = Budget(steps=400, batch_size=32)
    colour_steps: int = 300
    seeds: int = 10


@dataclass(frozen=True)
class Cell:
    """All ways on one domain left out."""

    data: Data
    spec: DomainSpec
    width: int
    budget: Budget
    is_controlled: bool
    """Whether random sources are tried, too."""
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    colour = replace(config.budget, steps=config.colour_steps)
    for seed in range(config.seeds):
        for turned in leave_one_out(config.rotated):
            yield Cell(Data.ROTATED, turned, config.width, config.budget, True, seed)
        for tinted in leave_one_out(config.coloured):
            yield Cell(Data.COLOURED, tinted, config.width, colour, True, seed)
        for other in leave_one_out(config.sources):
            yield Cell(Data.SOURCES, other, config.width, config.budget, True, seed)
        for spacing in config.spacings:
            apart = replace(
                config.rotated, angles=tuple(k * spacing for k in range(len(config.rotated.angles)))
            )
            for end in (apart.domains()[0], apart.domains()[-1]):
                yield Cell(
                    Data.APART,
                    replace(apart, held_out=end),
                    config.width,
                    config.budget,
                    False,
                    seed,
                )


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    """Data, weights and minibatches of a seed are the same for ERM and the heads."""
    task = cell.spec.build(lab.child("data"))
    facts: dict[str, Value] = {"data": cell.data.value, "seed": cell.seed, **about(cell.spec)}
    start, fit, order = (
        untrained_network(task, cell.width, lab),
        lab.child("fit"),
        lab.child("order"),
    )
    erm = ERM(cell.budget).fit(deepcopy(start), task, fit)
    yield from accuracies(
        facts | {"heads": Heads.ONE.value},
        {Way.ERM: SingleMember()},
        Committee([erm.model], SingleMember()),
        task,
        order,
    )
    fitted = {Heads.DOMAINS: task}
    if cell.is_controlled:
        fitted[Heads.RANDOM] = shuffle_domains(task, lab.child("dealt"))
    for kind, given in fitted.items():
        trained = DRM(budget=cell.budget).fit(deepcopy(start), given, fit)
        yield from of_heads(
            facts | {"heads": kind.value}, replace(trained, task=task), given, order
        )


def about(spec: DomainSpec) -> dict[str, Value]:
    """Where the target lies among the sources, if domains have positions."""
    target = spec.held_out or spec.domains()[-1]
    positions: tuple[float, ...] = ()
    if isinstance(spec, RotatedDigits):
        positions = spec.angles
    elif isinstance(spec, ColoredDigits):
        positions = spec.agreements
    if not positions:
        return {"target": target}
    at = positions[spec.domains().index(target)]
    others = [position for position in positions if position != at]
    return {
        "target": target,
        "place": "inside" if min(others) < at < max(others) else "end",
        "distance": round(min(abs(at - other) for other in others), 6),
    }


CLAIMS = (
    Claim(
        says="Steering by certainty per batch beats ERM by 3 points on rotations beyond all "
        "sources.",
        effect=gain(Data.ROTATED, END),
        above=0.03,
    ),
    Claim(
        says="On rotations between sources it is within 2 points of ERM.",
        effect=gain(Data.ROTATED, INSIDE),
        above=-0.02,
        below=0.02,
    ),
    Claim(
        says="Beyond all sources certainty per batch beats certainty per example by 3 points.",
        effect=gain(Data.ROTATED, END, over=Way.SAMPLE),
        above=0.03,
    ),
    Claim(
        says="The sources themselves lose at most 2.5 points (worst of three collections).",
        effect=on_sources,
        above=-0.025,
    ),
    Claim(
        says="The domains matter: beyond all sources, as many heads of randomly drawn sources do "
        "worse.",
        effect=gap(
            "accuracy",
            rows_of(Way.BATCH, Data.ROTATED, END),
            rows_of(Way.BATCH, Data.ROTATED, END, heads=Heads.RANDOM),
        ),
        above=0.0,
    ),
    Claim(
        says="Steering per batch needs batches of one domain: among examples of the sources it "
        "loses accuracy.",
        effect=gap(
            "accuracy",
            rows_of(Way.BATCH, Data.ROTATED, END),
            rows_of(Way.BATCH, Data.ROTATED, END, Stream.MIXED),
        ),
        above=0.0,
    ),
    Claim(
        says="Where no source is near (widest spacing) steering gains less than 1 point.",
        effect=widest,
        below=0.01,
    ),
    Claim(
        says="Steering per batch beats ERM on coloured digits that have a similar source.",
        effect=gain_near_sources,
        above=0.0,
    ),
    Claim(
        says="Where colour means the opposite no source's rule holds: the best head is right for "
        "less than 20 %.",
        effect=average(
            "accuracy", within=(0, 1), **rows_of(Way.BEST, Data.COLOURED, {"target": "0.1"})
        ),
        below=0.2,
    ),
    Claim(
        says="Steering per batch beats ERM on digits from another source (mean of three).",
        effect=gain(Data.SOURCES),
        above=0.0,
    ),
)


study = Study(
    name="domain_specific_risk",
    system="16",
    source=Source(
        key="zhang2023domain",
        title="Domain-Specific Risk Minimization for Domain Generalization",
        authors=(
            "Zhang, Yi-Fan",
            "Wang, Jindong",
            "Liang, Jian",
            "Zhang, Zhang",
            "Yu, Baosheng",
            "Wang, Liang",
            "Tao, Dacheng",
            "Xie, Xing",
        ),
        year=2023,
        arxiv="2208.08661",
    ),
    scales={
        Scale.SMOKE: Config(
            rotated=RotatedDigits(
                angles=(0, 30, 60),
                collection=Collection.OPTDIGITS,
                n=300,
                side=8,
                division=DIVISION,
            ),
            coloured=ColoredDigits(
                collection=Collection.OPTDIGITS, n=300, side=8, division=DIVISION
            ),
            sources=Domains(shifting_clusters, division=DIVISION),
            spacings=(60,),
            width=16,
            budget=Budget(steps=10, batch_size=16, lr=2e-2),
            colour_steps=10,
            seeds=2,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(
            rotated=RotatedDigits(n=60_000, side=28, division=DIVISION),
            coloured=ColoredDigits(n=60_000, side=28, division=DIVISION),
            sources=DigitSources(n=3_800, side=16, division=DIVISION),
            width=1_024,
            budget=Budget(steps=5_000, batch_size=64),
            colour_steps=5_000,
            seeds=20,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(gains_figure, spacing_figure),
    table=table,
)
