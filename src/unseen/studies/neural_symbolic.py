"""A neural-symbolic recursive machine learns trees and programs from pairs and generalizes
systematically (Li et al., 2024, arXiv:2210.01603).

SCAN (longer commands, a new verb, a new template), PCFG SET (more functions than in training) and
arithmetic after HINT (more operators, larger values); a transformer on the same pairs beside it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean

from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule
from unseen.engine.token_pairs import Pair, cut_padding
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.deduction_abduction import DeductionAbduction
from unseen.methods.finetune import Finetune
from unseen.models.neural_symbolic import Learning, NeuralSymbolicRecursiveMachine
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.study import Claim, Effect, Row, Scale, Study, Value
from unseen.study.effects import share, worst
from unseen.study.figures import bars, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import untrained_model
from unseen.task import Task, Use
from unseen.tasks import hint, pcfg, scan
from unseen.tasks.token_pairs import TokenPairs


class Setting(StrEnum):
    """What is learned."""

    LENGTH = "SCAN length"
    JUMP = "SCAN addprim_jump"
    AROUND = "SCAN template_around_right"
    STRINGS = "PCFG SET"
    NUMBERS = "HINT"

    @property
    def is_scan(self) -> bool:
        return self.value.startswith("SCAN")


class Arm(StrEnum):
    """Who learns it."""

    MACHINE = "machine"
    TRANSFORMER = "transformer"


SCAN_ARITY = {
    **dict.fromkeys((*scan.VERBS, scan.TURN), 0),
    **dict.fromkeys((*scan.DIRECTIONS, *scan.MANNERS, *scan.TIMES), 1),
    **dict.fromkeys(("and", "after"), 2),
}
LETTERS = tuple(f"#{k}" for k in range(48))
STRING_ARITY = {
    **dict.fromkeys((*pcfg.UNARY, *LETTERS), 1),
    **dict.fromkeys(pcfg.BINARY, 2),
    pcfg.COMMA: 0,
}
NUMBER_ARITY = {
    **dict.fromkeys(hint.DIGITS, 0),
    **dict.fromkeys((*hint.OPERATORS, "("), 2),
    ")": 0,
}


@dataclass(frozen=True)
class Config:
    strings: pcfg.PcfgSet = pcfg.PcfgSet(most=500)
    numbers: hint.Hint = hint.Hint()
    most: int = 500
    """Lines of SCAN that are asked."""
    train: int = 0
    """Training commands of SCAN at most; 0: all."""
    learning: Learning = Learning(sample=300, passes=8, finish=6)
    stride: int = 2
    """For strings, whose lines are long: lengths by which they grow at once."""
    budget: Budget = Budget(steps=400, batch_size=64, lr=2e-3, schedule=Schedule.COSINE, warmup=50)
    """Of the transformer."""
    width: int = 64
    layers: int = 2
    seeds: int = 3
    baselines: tuple[Setting, ...] = (
        Setting.LENGTH,
        Setting.JUMP,
        Setting.STRINGS,
        Setting.NUMBERS,
    )

    def cells(self) -> Iterator[Cell[tuple["Config", Setting], Arm]]:
        every = [(self, setting) for setting in Setting]
        beside = [(self, setting) for setting in self.baselines]
        yield from interleave(
            Grid(every, (Arm.MACHINE,), self.seeds), Grid(beside, (Arm.TRANSFORMER,), 1)
        )


@dataclass(frozen=True)
class Problem:
    """Pairs, and all that the machine is told: how many children each symbol has."""

    pairs: TokenPairs
    arity: Mapping[str, int]
    numbers: bool = False


def problem(config: Config, setting: Setting, lab: Lab) -> Problem:
    if setting is Setting.NUMBERS:
        return Problem(config.numbers.pairs(lab), NUMBER_ARITY, numbers=True)
    if setting is Setting.STRINGS:
        pairs = transform(config.strings.pairs(), end_strings)
        return Problem(replace(pairs, train=(*strings(lab), *pairs.train)), STRING_ARITY)
    spec = scan.Scan(setting.removeprefix("SCAN "), config.train).pairs(lab)
    asked = scan.draw(spec.evaluate["unseen"], config.most, lab.child("asked"))
    return Problem(transform(replace(spec, evaluate={"unseen": asked}), reorder), SCAN_ARITY)


def transform(spec: TokenPairs, change: Callable[[Pair], Pair]) -> TokenPairs:
    """The task with every pair changed."""
    return replace(
        spec,
        train=tuple(map(change, spec.train)),
        evaluate={name: tuple(map(change, part)) for name, part in spec.evaluate.items()},
    )


def reorder(one: Pair) -> Pair:
    """`opposite left` as `left opposite`, so that trees have no crossing arcs."""
    return Pair(scan.reorder(one.source), one.target)


def end_strings(one: Pair) -> Pair:
    """A comma behind the last string, too: every run of letters then ends in one."""
    return Pair((*one.source, pcfg.COMMA), one.target)


def strings(lab: Lab) -> list[Pair]:
    """Strings without a function, of no to four letters, as the paper adds to training: what the
    letters mean, also of those that no short line has.
    """
    rng = lab.child("strings").numpy()
    longer = [rng.permutation(LETTERS)[:n].tolist() for n in (2, 3, 4) for _ in range(50)]
    rows = [(), *((letter,) for letter in LETTERS), *map(tuple, longer)]
    return [end_strings(Pair(row, row)) for row in rows]


def run(cell: Cell[tuple[Config, Setting], Arm], lab: Lab) -> Iterator[Row]:
    config, setting = cell.setting
    given = problem(config, setting, lab.child("data"))
    task = given.pairs.build(lab)
    shown = {"train": replace(task.splits["train"], data=first(task, "train", config.most))}
    facts: dict[str, Value] = {"seed": cell.seed, "setting": setting, "arm": cell.arm}
    facts |= {"scan": setting.is_scan}
    if cell.arm is Arm.MACHINE:
        trained, found = fit_machine(config, setting, given, task, lab)
        facts |= found
    else:
        trained = fit_transformer(config, given, task, lab)
    constant = Counter(pair.target for pair in given.pairs.train).most_common(1)[0][0]
    asked = {**given.pairs.evaluate, "train": given.pairs.train[: config.most]}
    for name, split in {**task.of(Use.EVALUATE), **shown}.items():
        hits = per_example(trained.model, split.data, trained.task.objective.score, lab)
        n = len(hits)
        yield {
            **facts,
            "split": name,
            "right": int(hits.sum()),
            "n": n,
            "exact": hits.mean().item(),
            "chance": fmean(pair.target == constant for pair in asked[name]),
        }


def first(task: Task, split: str, most: int) -> Columns:
    """The first examples of a split."""
    data = task.splits[split].data
    assert isinstance(data, Columns)
    return data.subset(slice(0, most))


def fit_machine(
    config: Config, setting: Setting, given: Problem, task: Task, lab: Lab
) -> tuple[Trained, dict[str, Value]]:
    """The machine after learning, and what it learned: epochs, and the share of the symbols in
    training that have a program.
    """
    words = given.pairs.vocabulary
    machine = untrained_model(
        lambda: NeuralSymbolicRecursiveMachine(
            given.arity, numbers=given.numbers, vocabulary=words
        ),
        lab,
    )
    stride = config.stride if setting is Setting.STRINGS else 1
    method = DeductionAbduction(replace(config.learning, stride=stride))
    trained = method.fit(machine, task, lab.child("fit"))
    used = {symbol for pair in given.pairs.train for symbol in pair.source}
    solved = sum(machine.semantics.meanings[symbol].is_solved for symbol in used)
    return trained, {"epochs": len(machine.epochs), "programs": solved / len(used)}


def fit_transformer(config: Config, given: Problem, task: Task, lab: Lab) -> Trained:
    shape = Decoder(
        vocabulary=len(given.pairs.vocabulary),
        width=config.width,
        layers=config.layers,
        heads=4,
        positions=Positions.ROTARY,
    )
    model = untrained_model(lambda: Transformer(shape), lab)
    # where lines differ in length, most of a batch would be padding
    short = replace(task, objective=cut_padding(task.objective))
    return Finetune(config.budget).fit(model, short, lab.child("fit"))


def exact_share(**where: Value) -> Effect:
    """Mean share of right answers of the machine, seeds counting once."""
    return share("right", "n", arm=Arm.MACHINE, **where)


SCAN: dict[str, Value] = {"scan": True, "split": "unseen"}
LAPTOP = Config()
CLAIMS = (
    Claim("SCAN: longer commands, a new verb and a new template are answered (worst split).",
          worst(exact_share(**SCAN), "setting", ideal=1, **SCAN), above=0.99),
    Claim("PCFG SET: trained on at most three functions, four to six are computed.",
          exact_share(setting=Setting.STRINGS, split="more functions"), above=0.95),
    Claim("HINT: more operators than in training are computed.",
          exact_share(setting=Setting.NUMBERS, split="longer"), above=0.9),
    Claim("HINT: larger values than in training are computed.",
          exact_share(setting=Setting.NUMBERS, split="larger"), above=0.9),
    Claim("HINT: more operators and larger values at once are computed.",
          exact_share(setting=Setting.NUMBERS, split="longer and larger"), above=0.9),
)  # fmt: skip

table = summary(("setting", "arm", "split"), ("exact", "chance", "n", "epochs", "programs"))
answers = bars(
    share("right", "n"),
    by=("setting", "split", "arm"),
    title="Exact answers (mean over seeds)",
    label="share",
)
study = Study(
    name="neural_symbolic",
    system="35",
    differs=(
        "The paper learns for 100 epochs from all pairs, with five seeds, also from images; here "
        "300 pairs are drawn per epoch until nearly all of their trees give the answer, with 3 "
        "seeds and symbols only. Both are given how many children each symbol has. As in the "
        "paper's code, `opposite` and `around` stand behind the direction, letters of PCFG SET are "
        "numbered by their first occurrence, every string ends in a comma, and strings without a "
        "function are added to training. Programs are searched for by enumeration, not by "
        "DreamCoder, and a tree that does not give the answer is drawn again more evenly. PCFG SET "
        "is trained on lines of the small release with at most three functions of at most five "
        "letters (the training part of the large one is not at hand); systematicity and "
        "productivity, tested on the first 500 published lines, therefore differ in more than "
        "their names say and are reported only. HINT has at most three operators and values up to "
        "20 in training. The transformer is a decoder with one seed and 400 steps: it is reported "
        "beside the share of the most frequent training answer (chance), not judged."
    ),
    not_tested=(
        "Perception (study neural_symbolic_images does); the margin over the best baseline on HINT "
        "(23 points); the i.i.d., systematicity and productivity splits of PCFG SET with their own "
        "training parts; that no bias but recursion and compositionality is needed."
    ),
    source=reference("li2024neural"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            strings={"most": 30, "read": pcfg.generate_part},
            numbers={"n_train": 150, "n_test": 20},
            most=40,
            train=300,
            learning={"epochs": 3, "sample": 40},
            budget={"steps": 3, "batch_size": 8, "warmup": 1},
            width=16,
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(LAPTOP, learning={"epochs": 100, "sample": 2_000}, seeds=5, most=0),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(answers,),
    table=table,
)
