"""A direction that a person marks on a few images holds on images that they never saw.

Schwettmann, Strobelt & Martino (2020), arXiv:2012.14283, with simulated persons on a small
autoencoder of Fashion-MNIST, against random directions, principal components and weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen import stats
from unseen.attributions.directions import (
    LatentDirection,
    PCADirections,
    SupervisedDirection,
    WeightEigenDirections,
    check_marks,
    random_directions,
    uncertain_board,
)
from unseen.engine.image_attributes import ATTRIBUTES, Attribute
from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.measures.latent_directions import (
    STRENGTHS,
    cosine,
    effect_of,
    naturalness,
    reliability,
    success,
    transfer,
)
from unseen.models.generator import VAE, VAE_BUDGET, Direction, train_vae
from unseen.reading import Reading
from unseen.study import (
    Claim,
    Effect,
    Row,
    Rows,
    Scale,
    Study,
    Value,
    average,
    column,
    gap,
    pick,
)
from unseen.study.effects import lowest, lowest_of, restrict
from unseen.study.figures import bars, curves, stack, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.tasks.images import Collection, part

GROUPS = {"tops": (0, 2, 4, 6), "trousers and dress": (1, 3), "shoes": (5, 7, 9), "bag": (8,)}
SHARED = ("brightness", "width")
"""Attributes that are taught on one class group and tried on the others."""


@dataclass(frozen=True)
class SimulatedPerson:
    """Marks the third of a board that has most of an attribute *more* and the third that has least
    *less*, as they see it.
    """

    attribute: Attribute
    deviation: float
    """Of the attribute over images."""
    noise: float = 0.3
    """Of what they see, in deviations."""
    lapse: float = 0.0
    """Probability that a mark is random."""

    def mark(self, images: Float[Tensor, "n c h w"], lab: Lab) -> list[int]:
        rng = lab.generator()
        sight = self.attribute(images) / self.deviation
        order = (sight + self.noise * torch.randn(len(images), generator=rng)).argsort()
        third = max(1, round(len(images) / 3))
        marks = torch.zeros(len(images), dtype=torch.long)
        marks[order[:third]], marks[order[-third:]] = -1, 1
        random = torch.randint(2, (len(images),), generator=rng) * 2 - 1
        lapses = (torch.rand(len(images), generator=rng) < self.lapse) & (marks != 0)
        return torch.where(lapses, random, marks).tolist()


@dataclass(frozen=True)
class Config:
    collection: Collection = Collection.FASHION_MNIST
    images: int = 60_000
    budget: Budget = VAE_BUDGET
    latents: int = 16
    width: int = 256
    persons: int = 5
    board: int = 10
    shown: tuple[int, ...] = (10, 20, 40, 70)
    """Images shown; six of ten are marked: 6, 12, 24, 42 marks."""
    usual: int = 70
    """Images shown where one number of them is compared."""
    candidates: int = 200
    fresh: int = 128
    """Latents that no board showed, for every effect."""
    samples: int = 4_000
    """Latents that the supervised direction and the deviations are taken from."""
    randoms: int = 16
    components: int = 8
    sessions: int = 10
    """For each attribute: pairs of honest and of random sessions, each with a test of its marks."""
    seeds: int = 5


@dataclass(frozen=True)
class World:
    """One trained generator and what is known about its images."""

    config: Config
    model: VAE
    pixels: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    z: Float[Tensor, "n k"]
    deviations: Mapping[str, float]
    fit: LatentDirection = field(default_factory=LatentDirection)

    def session(
        self, person: SimulatedPerson, z: Tensor, counts: Sequence[int], lab: Lab, *, unsure: bool
    ) -> dict[int, dict[int, int]]:
        """Marks of rows of `z` after so many images were shown."""
        generator, board_size = self.model.generator(), self.config.board
        marks: dict[int, int] = {}
        seen: dict[int, dict[int, int]] = {}
        free = torch.arange(len(z))
        for turn in range(max(counts) // board_size):
            at = lab.child(turn)
            drawn = free[torch.randperm(len(free), generator=at.generator())]
            candidates = drawn[: self.config.candidates]
            board = candidates[:board_size]
            if unsure and turn:
                direction = self.fit.fit(z, marks)
                board = uncertain_board(z, direction, candidates, board_size, at.child("board"))
            found = person.mark(generator.images(z[board]), at.child("person"))
            marks |= dict(zip(board.tolist(), found, strict=True))
            free = free[~torch.isin(free, board)]
            if (turn + 1) * board_size in counts:
                seen[(turn + 1) * board_size] = dict(marks)
        return seen

    def person(self, attribute: str, lapse: float = 0.0) -> SimulatedPerson:
        return SimulatedPerson(ATTRIBUTES[attribute], self.deviations[attribute], lapse=lapse)

    def effects(self, direction: Direction, fresh: Tensor) -> dict[str, Tensor]:
        """Slopes of all attributes along one walk, in deviations."""
        images = self.model.generator().walk(fresh, direction, STRENGTHS)
        return {
            name: _detail(of(images.flatten(0, 1)).view(images.shape[:2]), self.deviations[name])
            for name, of in ATTRIBUTES.items()
        }


def _detail(values: Tensor, deviation: float) -> Tensor:
    slopes = effect_of(values, STRENGTHS, deviation).detail
    assert slopes is not None
    return slopes


def build_world(config: Config, lab: Lab) -> World:
    source = part(config.collection, "train")
    rows = torch.randperm(len(source.labels), generator=lab.child("images").generator())
    rows = rows[: config.images]
    pixels = source.pixels(rows)
    model = train_vae(pixels, lab.child("vae"), config.budget, config.latents, config.width)
    z = model.generator().sample(config.samples, lab.child("samples"))
    images = model.generator().images(z)
    deviations = {name: float(of(images).std()) for name, of in ATTRIBUTES.items()}
    return World(config, model, pixels, source.labels[rows], z, deviations)


def run(cell: Cell[Config, None], lab: Lab) -> Iterator[Row]:
    world = build_world(cell.setting, lab)
    fresh = world.model.generator().sample(cell.setting.fresh, lab.child("fresh"))
    yield from label(label_rows(world, fresh, lab.child("marks")), seed=cell.seed)
    yield from label(baseline_rows(world, fresh, lab.child("baselines")), seed=cell.seed)
    yield from label(transfer_rows(world, lab.child("transfer")), seed=cell.seed)
    yield from label(reliability_rows(world, lab.child("reliability")), seed=cell.seed)


def label_rows(world: World, fresh: Tensor, lab: Lab) -> Iterator[Row]:
    """Every attribute, person and kind of boards after every number of images."""
    config = world.config
    images = world.model.generator().images(world.z)
    for name, of in ATTRIBUTES.items():
        oracle = SupervisedDirection().fit(world.z, of(images))
        effect = float(world.effects(oracle, fresh)[name].mean())
        yield {"part": "oracle", "attribute": name, "effect": effect}
        for person in range(config.persons):
            for boards in ("uncertain", "random"):
                at = lab.child(name, person)  # both kinds begin with the same board
                log = world.session(
                    world.person(name), world.z, config.shown, at, unsure=boards == "uncertain"
                )
                for shown, marks in log.items():
                    direction = world.fit.fit(world.z, marks)
                    row: Row = {"cosine": cosine(direction, oracle)}
                    if boards == "uncertain" or shown == config.usual:
                        slopes = world.effects(direction, fresh)
                        others = [float(s.abs().mean()) for n, s in slopes.items() if n != name]
                        row = {
                            **row,
                            "effect": float(slopes[name].mean()),
                            "success": success(slopes[name]).value,
                            "others": sum(others) / len(others),
                        }
                    facts: Row = {"attribute": name, "person": person, "boards": boards}
                    yield {"part": "marks", **facts, "shown": shown, **row}
        far = naturalness(world.model.generator(), oracle, fresh).safe_range
        ends = {"safe_low": max(far[0], -8.0), "safe_high": min(far[1], 8.0)}
        yield {"part": "safe range", "attribute": name, **ends}


def baseline_rows(world: World, fresh: Tensor, lab: Lab) -> Iterator[Row]:
    """Best of every kind for each attribute, chosen with the answer known: an upper bound on what
    scrolling through them finds.
    """
    config, generator = world.config, world.model.generator()
    first = world.model.decoder[0]
    assert isinstance(first, nn.Linear)
    hidden = generator.read(world.z, "second_relu")
    kinds = {
        "random": random_directions(config.randoms, config.latents, lab),
        "PCA": PCADirections(config.components).fit(hidden, world.z),
        "SeFa": WeightEigenDirections(config.components).fit(first.weight),
    }
    for kind, vectors in kinds.items():
        found = [world.effects(Direction(vector), fresh) for vector in vectors]
        for name in ATTRIBUTES:
            best = max(abs(float(slopes[name].mean())) for slopes in found)
            yield {"part": "baseline", "kind": kind, "attribute": name, "effect": best}


def transfer_rows(world: World, lab: Lab) -> Iterator[Row]:
    """Directions taught on the codes of one class group, tried on codes of all."""
    config = world.config
    codes, fresh = {}, {}
    for group, classes in GROUPS.items():
        member = torch.isin(world.labels, torch.tensor(classes)).nonzero()[:, 0]
        with torch.no_grad():
            z = world.model(world.pixels[member[: config.candidates + config.fresh]])
        fresh[group], codes[group] = z[: config.fresh], z[config.fresh :]
    for name in SHARED:
        for person in range(config.persons):
            taught = {}
            for group, z in codes.items():
                at = lab.child(name, group, person)
                session = world.session(world.person(name), z, (config.usual,), at, unsure=True)
                taught[group] = world.fit.fit(z, session[config.usual])
            found = transfer(world.model.generator(), taught, fresh, ATTRIBUTES[name])
            facts: Row = {"part": "transfer", "attribute": name, "person": person}
            here, elsewhere = found.diagonal, found.off_diagonal
            yield {**facts, "diagonal": here, "off_diagonal": elsewhere, "lead": here - elsewhere}


def reliability_rows(world: World, lab: Lab) -> Iterator[Row]:
    """Pairs of independent sessions, and tests of the marks of the first of each pair."""
    config = world.config
    for kind, lapse in (("honest", 0.0), ("random clicks", 1.0)):
        for name in ATTRIBUTES:
            pairs: list[tuple[Direction, Direction]] = []
            ps = []
            for pair in range(config.sessions):
                at = lab.child(kind, name, pair)
                log = [
                    world.session(
                        world.person(name, lapse),
                        world.z,
                        (config.usual,),
                        at.child(k),
                        unsure=False,
                    )[config.usual]
                    for k in range(2)
                ]
                one, other = (world.fit.fit(world.z, marks) for marks in log)
                pairs.append((one, other))
                ps.append(check_marks(world.z, log[0], at.child("test")).p)
            yield {
                "part": "reliability",
                "kind": kind,
                "attribute": name,
                "cosine": reliability(*map(list, zip(*pairs, strict=True))).value,
                "pairs": len(pairs),
                "below_001": sum(p < 0.01 for p in ps),
                "above_005": sum(p > 0.05 for p in ps),
            }


def against(kind: str, **where: str) -> Effect:
    """Effect of marks minus the best of a kind."""
    marks: dict[str, Value] = {"part": "marks", "boards": "uncertain", "shown": 70}
    return gap("effect", {**marks, **where}, {"part": "baseline", "kind": kind, **where})


def rise(name: str) -> Effect:
    """A column after 70 images minus after 10, of every attribute."""
    facts = {"part": "marks", "boards": "uncertain"}
    return lowest(gap(name, {**facts, "shown": 70}, {**facts, "shown": 10}), over="attribute")


def every(name: str, **where: str) -> Effect:
    """A column's mean for every attribute that these rows have."""
    return restrict(lowest(average(name), over="attribute"), **where)


def rate_by_seed(successes: str, kind: str) -> Effect:
    """Share of all sessions of a seed, whose attributes share one model; seeds count once."""

    def read(rows: Rows) -> Reading:
        chosen = pick(rows, part="reliability", kind=kind)
        seeds = sorted({row["seed"] for row in chosen})
        right, total = (
            [sum(column(chosen, name, seed=seed)) for seed in seeds]
            for name in (successes, "pairs")
        )
        found = stats.mean_proportion(right, total)
        return replace(found, freedom=max(1, found.n - 1))

    return read


SHOWN = {"low": "how low the light lies", "gap": "the gap between two legs"}
"""Attributes whose names need a word more."""
SIGN = "any advantage over a direction chosen with the answer known is one"
CLAIMS = (
    Claim("More marks bring a direction nearer to the supervised one, by a cosine of at least 0.1 "
          "for every attribute.",
          rise("cosine"), above=0.1),
    Claim("More marks make its effect larger, by at least 0.05 for every attribute.",
          rise("effect"), above=0.05),
    Claim("After 42 marks its effect exceeds that of the best of 16 random directions, for every "
          "attribute.", lowest(against("random"), over="attribute"), above=0,
          sign_because=SIGN),
    *(Claim(f"After 42 marks its effect on {SHOWN.get(name, name)} exceeds that of the best of 8 "
            "principal components and of 8 directions of the weights.",
            lowest_of({"8 principal components (PCA)": against("PCA", attribute=name),
                      "8 directions of the weights (SeFa)": against("SeFa", attribute=name)}),
            above=0, sign_because=SIGN)
      for name in ATTRIBUTES),
    Claim("A direction taught on one class group moves others, for brightness and width.",
          every("off_diagonal", part="transfer"), above=0.1),
    Claim("It moves them less than its own group.",
          every("lead", part="transfer"), above=0.0,
          sign_because="how much less depends on which groups there are"),
    Claim("Two sessions of 42 marks of one person find similar directions, for every attribute.",
          every("cosine", part="reliability", kind="honest"), above=0.4),
    Claim("Two sessions of random clicks do not (mean over 50 pairs of each seed).",
          average("cosine", {"part": "reliability", "kind": "random clicks"}),
          above=-0.15, below=0.15),
    Claim("The permutation test (cross-validated AUC) finds 42 honest marks at p < 0.01.",
          rate_by_seed("below_001", "honest"), above=0.9),
    Claim("It finds nothing in random clicks (p > 0.05).",
          rate_by_seed("above_005", "random clicks"), above=0.9),
    Claim("Boards of uncertain images are not worse than random ones.",
          gap("cosine", {"part": "marks", "boards": "uncertain", "shown": 70},
              {"part": "marks", "boards": "random", "shown": 70}), above=-0.01),
)  # fmt: skip

EFFECTS: dict[str, Effect] = {
    "42 marks": average("effect", part="marks", boards="uncertain", shown=70),
    "supervised": average("effect", part="oracle"),
    **{f"best {kind}": average("effect", part="baseline", kind=kind)
       for kind in ("random", "PCA", "SeFa")},
}  # fmt: skip
UNCERTAIN = {"part": "marks", "boards": "uncertain"}
COLUMNS = ("cosine", "effect", "success", "others")
LAPTOP = Config()
study = Study(
    name="latent_compass",
    system="43",
    differs=(
        "The paper lets people mark images of BigGAN; here simulated persons, who see an exact "
        "attribute with noise, mark images of an autoencoder with 16 latents (perceptrons, 700 "
        "steps on Fashion-MNIST), with 5 seeds of the model and 5 persons for each attribute. The "
        "baselines are chosen with the answer known. Of ten images shown they mark six."
    ),
    not_tested=(
        "Whether people agree with each other, whether directions mean to them what they marked "
        "(blind answers need a person: `unseen compass` asks for them), and natural images."
    ),
    source=reference("schwettmann2020latent"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            collection=Collection.FASHION_MNIST_SMALL,
            images=1_500,
            budget={"steps": 30, "batch_size": 64},
            latents=4,
            width=32,
            persons=1,
            candidates=80,
            fresh=8,
            samples=200,
            randoms=2,
            components=2,
            sessions=1,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(LAPTOP, latents=128, width=2_048, budget={"steps": 20_000}, persons=20),
    },
    cells=lambda config: Grid((config,), (None,), config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(
        curves("shown", "cosine", by="attribute", title="Cosine with the supervised direction",
               x_label="images shown", y_label="cosine", log_x=True, where=UNCERTAIN),
        curves("shown", "effect", by="attribute", title="Effect on the attribute",
               x_label="images shown", y_label="sd per unit", log_x=True, where=UNCERTAIN),
        bars(EFFECTS, title="Effect, mean over attributes", label="sd per unit"),
    ),
    table=stack(
        summary(("part", "boards", "attribute", "shown"), COLUMNS, where={"part": "marks"}),
        summary(("part", "kind", "attribute"), ("effect",), where={"part": "baseline"}),
        summary(("part", "attribute"), ("diagonal", "off_diagonal"), where={"part": "transfer"}),
        summary(("part", "kind", "attribute"), ("cosine",), where={"part": "reliability"}),
    ),
)  # fmt: skip
