"""Training on worst-case inputs beside sharpness-aware minimisation: flat on the sources, and on unknown domains, too?

Shin, Bae, Na, Kim & Moon (2024), arXiv:2403.07329. UDIM against SAM, ERM and group DRO, with the controls that the
comparison needs: inputs moved at random by the same norm, no variance term, and SAM and ERM trained for as many passes.
Unknown are digits from another source, turned digits from upright ones, and corrupted images from clean ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.measures.sharpness import SAMSharpness
from unseen.studies.unknown_domain.gains import gain, gains_figure, lowest, sharpness_figure, table
from unseen.studies.unknown_domain.training import Part, Setting, Variant, fresh, mean_norm, method_of, read
from unseen.study import Claim, Row, Scale, Study
from unseen.study.source import Source
from unseen.task import TaskSpec
from unseen.tasks.corrupted_images import CorruptedImages
from unseen.tasks.digit_sources import DigitSources
from unseen.tasks.domains import Division, leave_one_out
from unseen.tasks.images import Collection
from unseen.tasks.rotated_digits import RotatedDigits
from unseen.tasks.single_source import SingleSource

DIVISION = Division(select=0.01, seen=0.19, oracle=0)
"""Nothing is selected; four fifths are fitted."""
COMMON = (Variant.ERM, Variant.SAM, Variant.RANDOM, Variant.WORST, Variant.UDIM)
TURNED = RotatedDigits(angles=(0, 15, 30, 45, 60), n=18_750, division=DIVISION)
"""3,000 upright digits are fitted."""


@dataclass(frozen=True)
class Config:
    sources: Setting = field(
        default_factory=lambda: Setting(
            Part.SOURCES,
            leave_one_out(DigitSources(division=DIVISION)),
            hidden=(128, 64),
            budget=Budget(steps=500, batch_size=32, lr=2e-3),
            radius=0.5,
            variance_weight=0.1,
            variants=(*COMMON, Variant.DRO, Variant.LONG_ERM, Variant.LONG_SAM),
            seeds=10,
        )
    )
    longer: Setting = field(
        default_factory=lambda: Setting(
            Part.LONGER,
            leave_one_out(DigitSources(division=DIVISION)),
            hidden=(128, 64),
            budget=Budget(steps=1_250, batch_size=32, lr=2e-3),
            radius=0.5,
            variance_weight=0.1,
            variants=(Variant.SAM, Variant.UDIM),
            seeds=5,
        )
    )
    rotation: Setting = field(
        default_factory=lambda: Setting(
            Part.ROTATION,
            (SingleSource(TURNED),),
            hidden=(128, 64),
            budget=Budget(steps=600, batch_size=32),
            radius=1.0,
            variance_weight=0.1,
            variants=COMMON,
            seeds=10,
        )
    )
    corruption: Setting = field(
        default_factory=lambda: Setting(
            Part.CORRUPTION,
            (CorruptedImages(),),
            hidden=(128, 64),
            budget=Budget(steps=600, batch_size=32),
            radius=0.5,
            variance_weight=0.01,
            variants=(*COMMON, Variant.LOUD, Variant.HEAVY),
            seeds=5,
        )
    )
    sharpness: SAMSharpness = SAMSharpness(most=1_000)


@dataclass(frozen=True)
class Cell:
    """All variants on one task."""

    setting: Setting
    spec: TaskSpec
    sharpness: SAMSharpness
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    settings = (config.sources, config.longer, config.rotation, config.corruption)
    for seed in range(max(setting.seeds for setting in settings)):
        for setting in settings:
            for spec in setting.specs if seed < setting.seeds else ():
                yield Cell(setting, spec, config.sharpness, seed)


def run(cell: Cell, lab: Lab) -> Iterator[Row]:
    """Data, weights and minibatches of a seed are the same for all variants."""
    setting, task = cell.setting, cell.spec.build(lab.child("data"))
    share = setting.radius / mean_norm(task, lab)
    for variant in setting.variants:
        model = fresh(task, setting.hidden, lab)
        trained = method_of(variant, setting).fit(model, task, lab.child("fit"))
        facts = {"part": setting.part.value, "variant": variant.value, "seed": cell.seed, "radius_share": share}
        for row in read(trained, cell.sharpness, lab):
            yield {**facts, **row}


CLAIMS = (
    Claim(
        says="UDIM beats SAM by 2 points on digits from another source (mean of three).",
        effect=gain(Part.SOURCES, Variant.UDIM, Variant.SAM),
        above=0.02,
    ),
    Claim(
        says="It beats SAM on each of the three sources (lowest gain).",
        effect=lowest(Part.SOURCES, Variant.UDIM, Variant.SAM),
        above=0.0,
    ),
    Claim(
        says="It beats SAM that trains for as many passes (digit sources).",
        effect=gain(Part.SOURCES, Variant.UDIM, Variant.LONG_SAM),
        above=0.0,
    ),
    Claim(
        says="It beats ERM that trains for as many passes (digit sources).",
        effect=gain(Part.SOURCES, Variant.UDIM, Variant.LONG_ERM),
        above=0.0,
    ),
    Claim(
        says="Both trained 2.5 times as long, UDIM still beats SAM by 2 points (digit sources).",
        effect=gain(Part.LONGER, Variant.UDIM, Variant.SAM),
        above=0.02,
    ),
    Claim(
        says="It loses at most half a point against SAM on the sources themselves.",
        effect=gain(Part.SOURCES, Variant.UDIM, Variant.SAM, "source_accuracy"),
        above=-0.005,
    ),
    Claim(
        says="Inputs moved at random do not do it: within 1.5 points of SAM (digit sources).",
        effect=gain(Part.SOURCES, Variant.RANDOM, Variant.SAM),
        above=-0.015,
        below=0.015,
    ),
    Claim(
        says="The worst inputs beat random ones of the same norm, without the variance term (digit sources).",
        effect=gain(Part.SOURCES, Variant.WORST, Variant.RANDOM),
        above=0.0,
    ),
    Claim(
        says="The variance term adds to the worst inputs (digit sources).",
        effect=gain(Part.SOURCES, Variant.UDIM, Variant.WORST),
        above=0.0,
    ),
    Claim(
        says="Flat on the unknown domain: the loss rises less around UDIM's weights than around SAM's (nats).",
        effect=gain(Part.SOURCES, Variant.UDIM, Variant.SAM, "sharpness"),
        below=0.0,
    ),
    Claim(
        says="From upright digits UDIM beats SAM by 2.5 points on turned ones (mean of angles).",
        effect=gain(Part.ROTATION, Variant.UDIM, Variant.SAM),
        above=0.025,
    ),
    Claim(
        says="From clean images UDIM beats SAM on corrupted ones.",
        effect=gain(Part.CORRUPTION, Variant.UDIM, Variant.SAM),
        above=0.0,
    ),
    Claim(
        says="On corrupted images it beats random inputs of four times the norm, too.",
        effect=gain(Part.CORRUPTION, Variant.UDIM, Variant.LOUD),
        above=0.0,
    ),
    Claim(
        says="A heavy variance term (λ₂ = 10) costs 5 points on clean images.",
        effect=gain(Part.CORRUPTION, Variant.HEAVY, Variant.UDIM, "source_accuracy"),
        below=-0.05,
    ),
)


def small(setting: Setting, *specs: TaskSpec) -> Setting:
    """The same comparison on embedded data."""
    tiny = Budget(steps=10, batch_size=16, lr=1e-2)
    return Setting(setting.part, specs, (16,), tiny, 0.5, 0.1, setting.variants, seeds=2)


def large(setting: Setting, *specs: TaskSpec) -> Setting:
    """The same comparison at the size of a benchmark."""
    long = Budget(steps=10 * setting.budget.steps, batch_size=32, lr=5e-4)
    weights = setting.radius, setting.variance_weight
    return Setting(setting.part, specs, (1_024, 512), long, *weights, setting.variants, seeds=20)


LAPTOP = Config()
MANY = DigitSources(n=3_800, side=16, division=DIVISION)
OPTDIGITS = RotatedDigits(angles=(0, 30, 60), collection=Collection.OPTDIGITS, n=300, side=8, division=DIVISION)
study = Study(
    name="unknown_domain",
    system="21",
    source=Source(
        key="shin2024unknown",
        title="Unknown Domain Inconsistency Minimization for Domain Generalization",
        authors=("Shin, Seungjae", "Bae, HeeSun", "Na, Byeonghu", "Kim, Yoon-Yeong", "Moon, Il-Chul"),
        year=2024,
        arxiv="2403.07329",
    ),
    scales={
        Scale.SMOKE: Config(
            sources=small(LAPTOP.sources, OPTDIGITS),
            longer=small(LAPTOP.longer, OPTDIGITS),
            rotation=small(LAPTOP.rotation, SingleSource(OPTDIGITS)),
            corruption=small(
                LAPTOP.corruption,
                CorruptedImages(Collection.FASHION_MNIST_SMALL, n=100, n_select=20, n_test=50, side=7),
            ),
            sharpness=SAMSharpness(most=50),
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: Config(
            sources=large(LAPTOP.sources, *leave_one_out(MANY)),
            longer=large(LAPTOP.longer, *leave_one_out(MANY)),
            rotation=large(
                LAPTOP.rotation,
                SingleSource(RotatedDigits(angles=TURNED.angles, n=60_000, side=28, division=DIVISION)),
            ),
            corruption=large(LAPTOP.corruption, CorruptedImages(n=50_000, n_select=10_000, n_test=10_000, side=28)),
            sharpness=SAMSharpness(most=5_000),
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(gains_figure, sharpness_figure),
    table=table,
)
