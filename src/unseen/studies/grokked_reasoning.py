"""Transformers learn to reason over stated facts without intermediate steps, late, and two hops
only where the facts were combined before (Wang, Yue, Su & Sun, 2024, arXiv:2405.15071).

Every cell trains one decoder from scratch and reads it at log-spaced steps: accuracies, at which
layer the bridge entity and the answer can be read (logit lens), and which state changes the answer
when it is exchanged with that of a query about another head (causal tracing).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from math import log
from statistics import fmean

import torch
from torch import Tensor, nn

from unseen.attributions.causal_tracing import COUNTERFACTUAL, trace
from unseen.attributions.logit_lens import logit_lens, token_ranks
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, erm_step, train
from unseen.figure import Curves
from unseen.lab import Lab
from unseen.models.transformer import Decoder, Transformer
from unseen.study import Claim, Row, Rows, Scale, Study, Value, average, pick
from unseen.study.effects import exponential, share
from unseen.study.figures import curves, matrix, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.task import Batch, Task
from unseen.tasks.implicit_reasoning import Comparison, Composition

FIRST, LAST = 1, 2
"""Positions of a question ⟨h, r₁, r₂⟩: behind the first relation, and where the answer is read."""
POSITIONS = ("head", "r₁", "r₂")
SPLITS = ("id_atomic", "ood_atomic", "train_inferred", "iid", "ood")


class Arm(StrEnum):
    """What a cell trains."""

    COMPOSITION = "composition"
    MIDDLE = "composition, φ = 6"
    SMALL = "composition, φ = 2"
    SHARED = "composition, layers shared"
    """The stack is applied twice."""
    COMPARISON = "comparison"


MAIN = (Arm.COMPOSITION, Arm.COMPARISON)
PHI = {Arm.MIDDLE: 6.0, Arm.SMALL: 2.0}


@dataclass(frozen=True)
class Config:
    composition: Composition = Composition()
    comparison: Comparison = Comparison()
    width: int = 64
    layers: int = 2
    budget: Budget = Budget(steps=3_000, batch_size=256, lr=5e-3, weight_decay=0.1, warmup=100)
    variant_steps: int = 1_500
    """Of the arms that have one seed."""
    comparison_budget: Budget = Budget(
        steps=1_600, batch_size=256, lr=2e-3, weight_decay=0.5, warmup=100
    )
    marks: tuple[int, ...] = (100, 200, 400, 600, 800, 1_000, 1_200, 1_500, 1_800, 2_100, 2_500)
    """Steps at which a model is read, about log-spaced where something happens."""
    most: int = 600
    """Questions per split at such a step; at the end all."""
    traced: int = 100
    """Questions that are traced."""
    seeds: int = 3

    def cells(self) -> Iterator[Cell["Config", Arm]]:
        yield from Grid([self], MAIN, self.seeds)
        yield from Grid([self], [arm for arm in Arm if arm not in MAIN], 1)

    def task(self, arm: Arm) -> Composition | Comparison:
        if arm is Arm.COMPARISON:
            return self.comparison
        return replace(self.composition, phi=PHI.get(arm, self.composition.phi))

    def training(self, arm: Arm) -> Budget:
        budget = self.comparison_budget if arm is Arm.COMPARISON else self.budget
        steps = budget.steps if arm in MAIN else self.variant_steps
        marks = tuple(step for step in self.marks if step < steps)
        return replace(budget, steps=steps, watch_at=(*marks, steps))


def run(cell: Cell[Config, Arm], lab: Lab) -> Iterator[Row]:
    config, arm = cell.setting, cell.arm
    spec, budget = config.task(arm), config.training(arm)
    task = spec.build(lab.child("data"))
    shape = Decoder(
        vocabulary=spec.vocabulary,
        width=config.width,
        layers=config.layers,
        loops=2 if arm is Arm.SHARED else 1,
        context=4,
    )
    model = untrained_model(lambda: Transformer(shape), lab)
    course = Course(config, task, lab.child("read"), budget.watch_at)
    train(model, task, erm_step, budget, lab.child("fit"), {"read": course})
    yield from label([*course.rows, final_row(model, task, course, lab)], arm=arm, seed=cell.seed)


class Course:
    """Reads a model at several steps of its training."""

    def __init__(self, config: Config, task: Task, lab: Lab, steps: tuple[int, ...]) -> None:
        self.task, self.lab, self.steps = task, lab, steps
        self.splits = {name: first(task, name, config.most) for name in SPLITS}
        # inferred facts of training: what the model does with them is what it learned to do
        self.questions = first(task, "train_inferred", config.traced)
        self.has_bridge = "bridge" in self.questions.columns
        self.queries = pair_queries(task, config.traced, lab) if self.has_bridge else {}
        self.rows: list[Row] = []

    def __call__(self, model: nn.Module) -> float:
        step = self.steps[len(pick(self.rows, part="course"))]
        score, lab = self.task.objective.score, self.lab
        found = {
            name: per_example(model, data, score, lab).mean().item()
            for name, data in self.splits.items()
        }
        self.rows.append({"part": "course", "step": step, **found})
        if self.has_bridge:
            inside = [*read_lens(model, self.questions), *read_trace(model, self.queries)]
            self.rows.extend(label(inside, step=step, last=step == self.steps[-1]))
        return found["iid"]

    def step_at(self, split: str, accuracy: float) -> int:
        """The first recorded step with at least this accuracy; the last one where none has it."""
        rows = pick(self.rows, part="course")
        steps = [int(row["step"]) for row in rows if float(row[split]) >= accuracy]
        return min(steps, default=self.steps[-1])


def first(task: Task, split: str, most: int) -> Columns:
    """So many questions of a split, spread over it."""
    data = task.splits[split].data
    assert isinstance(data, Columns)
    return data.subset(torch.linspace(0, len(data) - 1, min(most, len(data))).long())


def pair_queries(task: Task, most: int, lab: Lab) -> Batch:
    """Training questions, each with one about another head that has the same relations, another
    bridge and another answer. Questions without such a partner are left out.
    """
    data = task.splits["train_inferred"].data
    assert isinstance(data, Columns)
    tokens, bridge = data.columns["tokens"], data.columns["bridge"]
    order = torch.randperm(len(tokens), generator=lab.generator())
    chosen: list[int] = []
    partners: list[int] = []
    for k in order[: 4 * most].tolist():
        fits = (tokens[:, FIRST : LAST + 1] == tokens[k, FIRST : LAST + 1]).all(1)
        fits &= (bridge != bridge[k]) & (tokens[:, -1] != tokens[k, -1])
        if fits.any() and len(chosen) < most:
            chosen.append(k)
            partners.append(int(fits.nonzero()[0]))
    prompts = tokens[:, : LAST + 1]
    return {"tokens": prompts[chosen], COUNTERFACTUAL: prompts[partners]}


def read_lens(model: nn.Module, questions: Columns) -> Iterator[dict[str, Value]]:
    """Mean reciprocal rank of the bridge entity behind the first relation, and of the answer where
    it is read, by layer.
    """
    tokens, bridge = questions.columns["tokens"], questions.columns["bridge"]
    for k, logits in enumerate(logit_lens(model, tokens[:, : LAST + 1]).values(), 1):
        yield {
            "part": "lens",
            "layer": k,
            "bridge": reciprocal(logits[:, FIRST], bridge),
            "answer": reciprocal(logits[:, LAST], tokens[:, -1]),
        }


def reciprocal(logits: Tensor, token: Tensor) -> float:
    return (1 / token_ranks(logits, token)).mean().item()


def read_trace(model: nn.Module, queries: Batch) -> Iterator[dict[str, Value]]:
    """The share of questions whose most likely answer changes with one state, by layer and
    position.
    """
    found = trace(model, queries, most_likely)
    changed = (found.patched != found.plain[:, None, None]).float().mean(0)
    for (layer, position), value in zip(
        torch.cartesian_prod(*map(torch.arange, changed.shape)).tolist(),
        changed.flatten().tolist(),
        strict=True,
    ):
        state = f"layer {layer + 1}, {POSITIONS[position]}"
        yield {"part": "trace", "layer": layer + 1, "state": state, "changed": value}


def most_likely(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["tokens"])[:, -1].argmax(-1)


def best_guess(task: Task, read: int) -> float:
    """Accuracy on unseen combinations of the most frequent training answer given so many of the
    three tokens of a question: the best choice of tokens.
    """
    train, asked = (
        first(task, name, 10**9).columns["tokens"] for name in ("train_inferred", "iid")
    )
    accuracies = []
    for positions in combinations(range(LAST + 1), read):
        answers: dict[tuple[int, ...], Counter[int]] = {}
        for question in train.tolist():
            key = tuple(question[p] for p in positions)
            answers.setdefault(key, Counter())[question[-1]] += 1
        guesses = {key: count.most_common(1)[0][0] for key, count in answers.items()}
        hits = [guesses.get(tuple(q[p] for p in positions)) == q[-1] for q in asked.tolist()]
        accuracies.append(fmean(hits))
    return max(accuracies)


def final_row(model: nn.Module, task: Task, course: Course, lab: Lab) -> dict[str, Value]:
    """All questions of every split, and when training facts and unseen combinations were known."""
    row: dict[str, Value] = {"part": "end"}
    accuracy: dict[str, float] = {}
    for name in SPLITS:
        hits = per_example(model, task.splits[name].data, task.objective.score, lab)
        accuracy[name] = hits.mean().item()
        row |= {name: accuracy[name], f"{name} hits": int(hits.sum()), f"{name} n": len(hits)}
    row["chance"], row["without a token"] = (best_guess(task, read) for read in (1, LAST))
    row["iid − chance"] = accuracy["iid"] - float(row["chance"])
    row["iid − ood"] = accuracy["iid"] - accuracy["ood"]
    # a split without a right answer has no logarithm
    row["log ood/iid"] = log(max(accuracy["ood"], 1e-3) / max(accuracy["iid"], 1e-3))
    for threshold in THRESHOLDS:
        known, combined = (course.step_at(name, threshold) for name in ("train_inferred", "iid"))
        row |= {f"train at {threshold}": known, f"iid at {threshold}": combined}
        row[f"log delay {threshold}"] = log(combined / known)
    lens = pick(course.rows, part="lens", last=True)
    lower = [one for one in lens if one["layer"] != len(lens)]
    if lower:
        row["bridge − answer"] = fmean(float(one["bridge"]) - float(one["answer"]) for one in lower)
    return row


THRESHOLDS = (0.9, 0.99)
LAPTOP = Config()
TWO_HOPS: dict[str, Value] = {"part": "end", "arm": Arm.COMPOSITION}
COMPARED: dict[str, Value] = {"part": "end", "arm": Arm.COMPARISON}
CLAIMS = (
    Claim("Composition: the inferred facts of training are known at the end (at least 0.95).",
          share("train_inferred hits", "train_inferred n", TWO_HOPS), above=0.95),
    Claim("Composition: unseen combinations of facts that were combined otherwise are answered "
          "far above chance, by at least 0.5 (chance: the most frequent answer given one token).",
          average("iid − chance", TWO_HOPS), above=0.5),
    Claim("Composition: they are known later than the training facts: the step at which their "
          "accuracy is 0.9, over that of training, is at least 1.1 (a lower bound: a run ends).",
          exponential(average("log delay 0.9", TWO_HOPS)), above=1.1),
    Claim("Composition: facts that were never combined are known one by one (at least 0.9).",
          share("ood_atomic hits", "ood_atomic n", TWO_HOPS), above=0.9),
    Claim("Composition: their combinations are not answered: accuracy of unseen combinations of "
          "combined facts minus theirs is at least 0.5.",
          average("iid − ood", TWO_HOPS), above=0.5),
    Claim("Composition: below the last layer the bridge entity is read behind the first relation "
          "better than the answer behind the second, by at least 0.2 (mean reciprocal ranks).",
          average("bridge − answer", TWO_HOPS), above=0.2),
    Claim("Comparison: the inferred facts of training are known at the end (at least 0.95).",
          share("train_inferred hits", "train_inferred n", COMPARED), above=0.95),
    Claim("Comparison: unseen combinations are answered far above chance, by at least 0.3 "
          "(chance: the most frequent answer given the attribute).",
          average("iid − chance", COMPARED), above=0.3),
    Claim("Comparison: facts that were never combined are known one by one (at least 0.9).",
          share("ood_atomic hits", "ood_atomic n", COMPARED), above=0.9),
    Claim("Comparison: they are combined nearly as well as others: accuracy over that of unseen "
          "combinations of combined facts is at least 0.8.",
          exponential(average("log ood/iid", COMPARED)), above=0.8),
)  # fmt: skip

ACCURACIES = {name.replace("_", " "): name for name in SPLITS}


def course_of(arm: Arm) -> Callable[[Rows], Curves]:
    return curves(
        "step",
        ACCURACIES,
        title=f"Accuracy in training: {arm}",
        x_label="step",
        y_label="accuracy",
        log_x=True,
        where={"part": "course", "arm": arm},
    )


lens = matrix(
    {"bridge entity behind the first relation": "bridge", "answer behind the second": "answer"},
    down=("arm", "layer"),
    title="Mean reciprocal rank by layer, at the end (logit lens)",
    label="mean reciprocal rank",
    where={"part": "lens", "last": True},
)
tracing = matrix(
    "changed",
    down="step",
    across="state",
    title="Answers that one state of a query about another head changes, during training",
    label="state (layer, position)",
    where={"part": "trace", "arm": Arm.COMPOSITION},
)
table = summary(
    "arm",
    {
        **ACCURACIES,
        "chance": "chance",
        "without a token": "without a token",
        "train at 0.9": "train at 0.9",
        "iid at 0.9": "iid at 0.9",
        "train at 0.99": "train at 0.99",
        "iid at 0.99": "iid at 0.99",
        "bridge − answer": "bridge − answer",
    },
    where={"part": "end"},
)
SMALL = Composition(entities=16, relations=10, out_degree=10, iid_share=0.1, ood_share=0.15)
study = Study(
    name="grokked_reasoning",
    system="15",
    differs=(
        "The paper trains a GPT-2 with 8 layers of width 768 for up to 1.5 million steps on 2,000 "
        "entities with 200 relations (comparison: 1,000 entities with 20 attributes); here "
        "decoders with 2 layers of width 64 learn 64 entities with 32 relations in 3,000 steps "
        "(comparison: 100 entities with 4 attributes in 1,600), with 3 seeds. The delay of "
        "generalization is therefore a factor, not orders of magnitude; a split that does not "
        "reach an accuracy counts with the last step. Answers are one token without an end token. "
        "Fewer inferred facts (φ = 2, 6 instead of the whole pool, about 14.8) and shared layers "
        "(the stack applied twice) have one seed and 1,500 steps and are reported, not judged. A "
        "seed has about 41 combinations of facts that were never combined, so that chance is not "
        "claimed for them. About two thirds of comparisons are answered by one of the two values "
        "alone (column `without a token`), which is the measure for those never combined."
    ),
    not_tested=(
        "That the ratio φ of inferred to atomic facts, and not the number of facts, decides the "
        "speed of generalization; that shared layers help out of distribution (one seed); the "
        "parallel circuit of comparison by tracing; the search task on which GPT-4-Turbo and "
        "Gemini-1.5-Pro with retrieval fail."
    ),
    source=reference("wang2024grokked"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            composition=SMALL,
            comparison={"entities": 20, "attributes": 1, "values": 4, "phi": 4.0},
            width=16,
            budget={"steps": 12, "batch_size": 16, "warmup": 2},
            comparison_budget={"steps": 12, "batch_size": 16, "warmup": 2},
            variant_steps=12,
            marks=(4, 8),
            most=20,
            traced=6,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            composition={"entities": 2_000, "relations": 200, "out_degree": 20, "phi": 18.0,
                         "iid_share": 0.005},
            comparison={"entities": 1_000, "attributes": 20, "values": 20},
            width=768,
            layers=8,
            budget={"steps": 300_000, "batch_size": 512, "lr": 1e-4, "warmup": 2_000,
                    "bfloat16": True},
            comparison_budget={"steps": 300_000, "batch_size": 512, "lr": 1e-4,
                               "weight_decay": 0.1, "warmup": 2_000, "bfloat16": True},
            variant_steps=300_000,
            marks=(1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000),
            most=3_000,
            traced=300,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(course_of(Arm.COMPOSITION), course_of(Arm.COMPARISON), lens, tracing),
    table=table,
)  # fmt: skip
