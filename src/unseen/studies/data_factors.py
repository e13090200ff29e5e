"""More primitives in training turn a command that was trained alone into one that is understood in
context (Zhou, Jiang & Bansal, 2023, arXiv:2311.04420).

Clause-SCAN with and without copies of its primitives; the number of different examples, their
length and their difficulty at equal size and steps are reported.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from unseen.engine.batches import length
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule
from unseen.engine.token_pairs import Pair, group_lengths
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.measures.hardness import prototype_distance, quarters
from unseen.method import Trained
from unseen.methods.finetune import Finetune
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.study import Claim, Effect, Row, Scale, Study, Unit, Value, gap
from unseen.study.effects import share, worst
from unseen.study.figures import bars, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import untrained_model
from unseen.task import Axis, Task, Use
from unseen.tasks.clause_scan import TRAINED, UNSEEN, ClauseScan
from unseen.tasks.scan_star import ScanStar
from unseen.tasks.text_to_sql import TextToSql
from unseen.tasks.token_pairs import TokenPairs


class Arm(StrEnum):
    """What training shows."""

    NONE = "no copies"
    COPIES = "20 copies of every primitive"
    FEW = "200 distinct commands"
    SOME = "800 distinct commands"
    MANY = "3,200 distinct commands"
    SHORT = "short commands"
    LONG = "long commands"
    SIMPLE = "simple quarter"
    HARD = "hard quarter"
    MIXED = "half of each"
    TOKENS = "copies of every token"
    SIMPLE_QUESTIONS = "questions, simple quarter"
    HARD_QUESTIONS = "questions, hard quarter"
    MIXED_QUESTIONS = "questions, half of each"


JUDGED = (Arm.NONE, Arm.COPIES)
DISTINCT = {Arm.FEW: 200, Arm.SOME: 800, Arm.MANY: 3_200}
COMPLEXITY = (Arm.SHORT, Arm.LONG, Arm.SIMPLE, Arm.HARD, Arm.MIXED)
QUESTIONS = (Arm.SIMPLE_QUESTIONS, Arm.HARD_QUESTIONS, Arm.MIXED_QUESTIONS)
LEARNING = Budget(steps=800, batch_size=96, lr=2e-3, schedule=Schedule.COSINE, warmup=100, clip=1.0)


@dataclass(frozen=True)
class Config:
    clauses: ClauseScan = ClauseScan()
    joined: float = 0.6
    """Joint commands where the number of distinct ones is varied: there are 1,323 single ones."""
    distinct: tuple[int, ...] = tuple(DISTINCT.values())
    token_copies: int = 20
    complex: ScanStar = ScanStar(primitives=10, conjunctions=2)
    short: int = 12
    """Actions of the short commands; the long ones have up to those of `complex`."""
    pool: int = 8_000
    """Commands whose quarters by number of actions are trained on."""
    longest_query: int = 40
    """Tokens of a query of GeoQuery."""
    budget: Budget = field(default_factory=lambda: LEARNING)
    repetition: Budget = field(default_factory=lambda: replace(LEARNING, steps=400))
    complexity: Budget = field(default_factory=lambda: replace(LEARNING, steps=400, batch_size=64))
    width: int = 128
    layers: int = 2
    seeds: int = 3
    distinct_seeds: int = 1
    complexity_seeds: int = 1
    """Of long and short, simple and hard commands; these arms are reported."""
    token_seeds: int = 0
    """Of copies of every token (AugZero), which the laptop scale leaves out."""
    question_seeds: int = 0
    """Of GeoQuery by distance from prototypes, likewise."""

    def cells(self) -> Iterator["Job"]:
        yield from interleave(
            Grid((self,), JUDGED, self.seeds),
            Grid((self,), tuple(DISTINCT), self.distinct_seeds),
            Grid((self,), COMPLEXITY, self.complexity_seeds),
            Grid((self,), (Arm.TOKENS,), self.token_seeds),
            Grid((self,), QUESTIONS, self.question_seeds),
        )

    def budget_of(self, arm: Arm) -> Budget:
        if arm in DISTINCT:
            return self.repetition
        return self.complexity if arm in (*COMPLEXITY, *QUESTIONS) else self.budget

    def clause_spec(self, arm: Arm) -> ClauseScan:
        """Clause-SCAN as an arm trains it."""
        if arm in DISTINCT:
            n = dict(zip(DISTINCT, self.distinct, strict=True))[arm]
            return replace(self.clauses, distinct=n, joined=self.joined)
        if arm is Arm.COPIES:
            return self.clauses
        copies = self.token_copies if arm is Arm.TOKENS else 0
        return replace(self.clauses, copies=0, token_copies=copies)


Job = Cell[Config, Arm]


def run(cell: Job, lab: Lab) -> Iterator[Row]:
    config, arm = cell.setting, cell.arm
    task = build(config, arm, lab.child("data"))
    budget = config.budget_of(arm)
    trained = fit(task, config, budget, lab)
    n_train = length(task.splits["train"].data) or 0
    facts: dict[str, Value] = {
        "seed": cell.seed,
        "arm": arm,
        "judged": arm in JUDGED,
        "distinct": n_train,
        "repeats": budget.steps * budget.batch_size / n_train,
        "loss": trained.curves["loss"][-1],
    }
    for name, split in task.of(Use.EVALUATE).items():
        hits = per_example(trained.model, split.data, task.objective.score, lab)
        yield {
            **facts,
            "split": name,
            "right": int(hits.sum()),
            "n": len(hits),
            "exact": hits.mean().item(),
        }


def build(config: Config, arm: Arm, lab: Lab) -> Task:
    if arm in QUESTIONS:
        return build_questions(config, arm, lab)
    return build_complex(config, arm, lab) if arm in COMPLEXITY else (
        config.clause_spec(arm).build(lab)
    )  # fmt: skip


def fit(task: Task, config: Config, budget: Budget, lab: Lab) -> Trained:
    tokens = [split.data[:]["tokens"] for split in task.splits.values()]
    shape = Decoder(
        vocabulary=1 + max(int(part.max()) for part in tokens),
        width=config.width,
        layers=config.layers,
        heads=4,
        positions=Positions.ROTARY,
    )
    model = untrained_model(lambda: Transformer(shape), lab)
    # where lines differ in length, most of a batch would be padding
    narrow = replace(task, objective=group_lengths(task.objective))
    return Finetune(budget).fit(model, narrow, lab.child("fit"))


def build_complex(config: Config, arm: Arm, lab: Lab) -> Task:
    """SCAN*: the same number of commands; evaluation is the same for all arms of a seed."""
    spec = config.complex
    if arm in (Arm.SHORT, Arm.LONG):
        short, long = replace(spec, longest=config.short).training(lab), spec.training(lab)
        train = short if arm is Arm.SHORT else long
        return pairs_task(train, spec.evaluation([*short, *long], lab), lab)
    pool = replace(spec, n_train=config.pool).training(lab)
    hardness = torch.tensor([float(len(one.target)) for one in pool])
    chosen = choose(hardness, spec.n_train, arm, lab.child("quarters"))
    return pairs_task([pool[k] for k in chosen], spec.evaluation(pool, lab), lab)


def build_questions(config: Config, arm: Arm, lab: Lab) -> Task:
    """GeoQuery by query pattern: a quarter of the training questions, by their distance from
    prototypes of bags of words.
    """
    spec = TextToSql().pairs()
    train = [one for one in spec.train if len(one.target) <= config.longest_query]
    test = [one for one in spec.evaluate["unseen"] if len(one.target) <= config.longest_query]
    texts = [" ".join(one.source) for one in train]
    features = torch.from_numpy(TfidfVectorizer().fit_transform(texts).toarray())
    hardness = prototype_distance(features, lab)
    chosen = choose(hardness, len(train) // 4, arm, lab.child("quarters"))
    return pairs_task([train[k] for k in chosen], {"same": tuple(test)}, lab)


def choose(hardness: Float[Tensor, " item"], n: int, arm: Arm, lab: Lab) -> list[int]:
    """n items of the easiest quarter, of the hardest, or half of them of each."""
    simple, _, _, hard = quarters(hardness)
    shares = {
        Arm.SIMPLE: (n, 0),
        Arm.HARD: (0, n),
        Arm.MIXED: (n // 2, n - n // 2),
        Arm.SIMPLE_QUESTIONS: (n, 0),
        Arm.HARD_QUESTIONS: (0, n),
        Arm.MIXED_QUESTIONS: (n // 2, n - n // 2),
    }[arm]
    if max(shares) > min(len(simple), len(hard)):
        raise InvalidConfig(
            f"{n} items of a quarter of {len(simple)}.",
            why="every arm trains on equally many.",
            fix="raise the pool to four times as many.",
        )
    found: list[int] = []
    for part, count in zip((simple, hard), shares, strict=True):
        order = torch.randperm(len(part), generator=lab.generator())[:count]
        found += part[order].tolist()
    return found


def pairs_task(train: list[Pair], evaluate: dict[str, tuple[Pair, ...]], lab: Lab) -> Task:
    return TokenPairs("SCAN*", tuple(train), evaluate, Axis.LENGTH).build(lab)


def once(says: str, arm: Arm, against: Arm, split: str) -> Claim:
    """Two arms of one seed: reported."""
    effect = gap("exact", {"arm": arm, "split": split}, {"arm": against, "split": split})
    return Claim(says, effect, above=0, unit=Unit.MODEL, sign_because=ONE_SEED)


ONE_SEED = "with one seed the sign is all that is reported"
inside: Effect = worst(share("right", "n", split=TRAINED), "arm", 1.0, split=TRAINED, judged=True)
CLAIMS = (
    Claim("Control: training commands are answered, with copies and without (worst of both).",
          inside, above=0.95),
    Claim("At equal steps 20 copies of every primitive let a verb that was trained alone be "
          "understood in other clauses (difference of exact match to no copies).",
          gap("exact", {"arm": Arm.COPIES, "split": UNSEEN}, {"arm": Arm.NONE, "split": UNSEEN}),
          above=0.3),
    once("At equal steps 3,200 different training commands do better on that verb in other clauses "
         "than 200.",
         Arm.MANY, Arm.FEW, UNSEEN),
    once("SCAN* (SCAN with more primitives): long training commands do better on longer ones than "
         "short ones do.",
         Arm.LONG, Arm.SHORT, "longer"),
    once("SCAN*: the simple quarter does better on new commands of all lengths than the hard one.",
         Arm.SIMPLE, Arm.HARD, "same"),
    once("SCAN*: half of each does better than the hard quarter.", Arm.MIXED, Arm.HARD, "same"),
)  # fmt: skip

answers = bars(
    share("right", "n"),
    by=("arm", "split"),
    title="Exact answers (mean over seeds)",
    label="share",
)
table = summary(("arm", "split"), ("exact", "n", "distinct", "repeats", "loss"))
LAPTOP = Config()
study = Study(
    name="data_factors",
    system="03",
    differs=(
        "The paper trains encoder–decoders of 3 + 3 layers for 50,000 steps on SCAN, SCAN*, COGS, "
        "GeoQuery and larger sets, with 5 seeds, and picks checkpoints on a tenth of the test set. "
        "Here a decoder of two layers with rotary positions is trained for 800 steps on single "
        "clauses of four verbs (Clause-SCAN), of which `jump` and its copies are trained alone "
        "only, with 3 seeds and no selection; asked are `jump` and three of its copies in the "
        "other 20 clauses (without copies `jump` only). All training commands are seen often, so "
        "that exact match inside is of training commands. Where the number of different commands "
        "is varied, 60 % are two clauses (there are 1,323 single ones), for 400 steps. SCAN* and "
        "the quarters by number of actions train 2,000 commands for 400 steps. These arms have "
        "one seed: reported, not judged."
    ),
    not_tested=(
        "The published Jump split, Around Right, COGS and the larger sets (paper scale); AugZero "
        "and GeoQuery by distance from prototypes (`--token-seeds 1`, `--question-seeds 1`); "
        "curricula (`NoveltyCurriculum`); that on larger sets of human language a balanced "
        "mixture of difficulties is best."
    ),
    source=reference("zhou2023data"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            clauses={"copies": 2, "n_test": 20},
            distinct=(20, 40, 60),
            token_copies=1,
            complex={"n_train": 20, "n_test": 10},
            pool=80,
            longest_query=10,
            budget={"steps": 3, "batch_size": 8, "warmup": 1},
            repetition={"steps": 3, "batch_size": 8, "warmup": 1},
            complexity={"steps": 3, "batch_size": 8, "warmup": 1},
            width=16,
            seeds=1,
            token_seeds=1,
            question_seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            complex={"primitives": 200, "longest": 62, "beyond": 125, "n_train": 100_000},
            pool=400_000,
            budget={"steps": 3_000},
            repetition={"steps": 3_000},
            complexity={"steps": 3_000},
            width=256,
            layers=4,
            seeds=5,
            distinct_seeds=5,
            complexity_seeds=5,
            token_seeds=5,
            question_seeds=5,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(answers,),
    table=table,
)
