"""Fine-tuned on random labels, a model forgets rules on new inputs too, and tables hardly.

Zhang, Choshen & Andreas (2024), arXiv:2409.02228. From scratch: two rules and two tables in one
encoder, judged. Beside it a pretrained language model: science questions and sentiment, fine-tuned
once each, reported.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import torch
from torch import Tensor, nn

from unseen.attributions.probes import Pooling, layer_states, probe
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Draw, train
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.forgetting import (
    FEWEST_TASKS,
    forget_ratio,
    predict_forgetting,
    representation_variability,
)
from unseen.methods.random_label_forgetting import RandomLabelForgetting, updates
from unseen.models.smollm import smollm2
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, gap, pick
from unseen.study.effects import derive, restrict, worst
from unseen.study.figures import bars, stack, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.subjects.item_forgetting import ForgettingResult, ItemForgetting
from unseen.task import Axis, Objective, Split, Task, Use
from unseen.tasks.graded_questions import Item, ai2_science, piqa, sentiment
from unseen.tasks.rules_and_tables import Encoder, RulesAndTables, Skill

GUESS = 0.5
"""Accuracy of guessing one of two answers."""
LAYERS = ("blocks.1", "norm")
"""The middle and the last states of the encoder."""


@dataclass(frozen=True)
class Scratch:
    """Rules and tables, learned together and forgotten one by one."""

    task: RulesAndTables = RulesAndTables()
    learn: Budget = Budget(steps=1_200, batch_size=48, lr=1e-3)
    forget: RandomLabelForgetting = RandomLabelForgetting(
        Budget(steps=150, batch_size=100, lr=1e-4)
    )
    n: int = 100
    """Inputs with random labels."""
    width: int = 96
    layers: int = 3
    probed: tuple[str, ...] = LAYERS


@dataclass(frozen=True)
class Language:
    """Science questions and sentiment, forgotten by a pretrained model."""

    forgetting: ItemForgetting = ItemForgetting(
        n=32, held_out=60, epochs=8, bfloat16=True, layers=(15, -1)
    )
    characters: int = 120
    """Longer science questions are left out: training tokens are what this part costs."""
    others: int = 30
    """Items of each other task."""


@dataclass(frozen=True)
class Config:
    scratch: Scratch = field(default_factory=Scratch)
    language: Language | None = None
    """One seed; takes three times as long as the rest."""
    seeds: int = 3

    def cells(self) -> Iterator[Cell[Scratch | Language, None]]:
        language = [] if self.language is None else [self.language]
        return interleave(
            Grid([self.scratch], (None,), self.seeds), Grid(language, (None,), min(1, self.seeds))
        )


def run(cell: Cell[Scratch | Language, None], lab: Lab) -> Iterator[Row]:
    setting = cell.setting
    rows = (
        forget_skills(setting, lab) if isinstance(setting, Scratch) else forget_items(setting, lab)
    )
    return label(rows, seed=cell.seed)


def forget_skills(config: Scratch, lab: Lab) -> Iterator[Row]:
    """Every skill forgotten by a copy of the same model, and every skill tested."""
    task = config.task.build(lab.child("data"))
    model = untrained_model(lambda: Encoder(config.width, config.layers), lab)
    untrained = copy.deepcopy(model)
    train(model, task, joint_step, config.learn, lab.child("learn"))
    tested = {skill: examples(task, tested_split(skill)) for skill in Skill}
    before = {skill: right(model, task, data, lab) for skill, data in tested.items()}
    for skill in Skill:
        chosen, held_out = inputs_of(skill, task, config.n, lab)
        inputs = examples(task, skill.value).subset(chosen)
        split = Split(inputs, Use.TRAIN, "seen")
        small = Task(
            name=skill.value, axis=Axis.TASK, splits={"train": split}, objective=task.objective
        )
        facts: dict[str, Value] = {"forget": skill.value, "is_rule": skill.is_rule}
        steps = config.forget.budget.steps
        for arm in ("random", "true"):
            method = config.forget
            if arm == "true":  # as many steps as random labels took
                method = replace(
                    method, true_labels=True, budget=replace(method.budget, steps=steps)
                )
            trained = method.fit(copy.deepcopy(model), small, lab.child("forget", skill))
            after = trained.model
            if arm == "random":
                steps = updates(trained.curves["fit"], method.stop_at)
                yield {
                    **facts,
                    "part": "fit",
                    "updates": steps,
                    "fit": max(trained.curves["fit"]),
                    **ratio_row(right(model, task, inputs, lab), right(after, task, inputs, lab)),
                }
                data = tested[skill].subset(held_out)
                models = {"before": model, "after": after, "untrained": untrained}
                yield from label(
                    probe_rows(models, data, config.probed, lab), **facts, part="probe"
                )
            for other, data in tested.items():
                rows = held_out if other is skill else torch.arange(len(before[other]))
                scores = right(after, task, data, lab)[rows]
                yield {
                    **facts,
                    "part": "matrix",
                    "test": other.value,
                    "is_same": other is skill,
                    "arm": arm,
                    **ratio_row(before[other][rows], scores),
                }
        yield {**facts, "part": "predictors", **predictors(model, inputs, lab)}


def joint_step(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
    """The step of ERM with the minibatches of all skills in one pass: a third of the time."""
    batches = list(draw.fit.values())
    together = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    loss = objective.loss(model, together).mean()
    loss.backward()
    return loss.detach()


def inputs_of(skill: Skill, task: Task, n: int, lab: Lab) -> tuple[Tensor, Tensor]:
    """Rows whose labels are drawn anew, and rows of what is tested that are others: of a rule all,
    of a table the keys that are left.
    """
    count = len(examples(task, skill.value))
    order = torch.randperm(count, generator=lab.child("inputs", skill).generator())
    if skill.is_rule:
        return order[:n], torch.arange(len(examples(task, tested_split(skill))))
    return order[:n], order[n:].sort().values


def tested_split(skill: Skill) -> str:
    """New inputs of a rule; a table has its keys only."""
    return f"{skill} held out" if skill.is_rule else skill.value


def examples(task: Task, split: str) -> Columns:
    data = task.split(split).data
    assert isinstance(data, Columns)
    return data


def right(model: nn.Module, task: Task, data: Columns, lab: Lab) -> Tensor:
    return per_example(model, data, task.objective.score, lab)


def ratio_row(before: Tensor, after: Tensor) -> dict[str, Value]:
    """Accuracies and the forget ratio, where the model knew the task."""
    row: dict[str, Value] = {"before": before.mean().item(), "after": after.mean().item()}
    try:
        return {**row, "ratio": forget_ratio(before.numpy(), after.numpy(), GUESS).value}
    except InvalidData:
        return row


def probe_rows(
    models: Mapping[str, nn.Module], data: Columns, layers: Sequence[str], lab: Lab
) -> Iterator[Row]:
    """Accuracy of probes for the true answers, per model and layer."""
    for when, model in models.items():
        states = layer_states(model, data, layers, lab, pooling=Pooling.MEAN)
        for layer, rows in states.items():
            found = probe(rows, data.columns["y"], lab.child("probe", layer))
            yield {
                "when": when,
                "layer": layer,
                "probe": found.accuracy.value,
                "control": found.control.value,
            }


@torch.no_grad()
def predictors(model: nn.Module, data: Columns, lab: Lab) -> dict[str, Value]:
    """The paper's three, on the inputs to forget, before."""
    logits = model.eval()(data.columns["x"])
    states = layer_states(model, data, LAYERS[-1:], lab, pooling=Pooling.MEAN)[LAYERS[-1]]
    return {
        "accuracy": (logits.argmax(1) == data.columns["y"]).double().mean().item(),
        "confidence": logits.softmax(1).amax(1).mean().item(),
        "variability": representation_variability(states),
    }


def forget_items(config: Language, lab: Lab) -> Iterator[Row]:
    """Two tasks forgotten by a pretrained model, each tested on the other and on a third."""
    model = smollm2()
    for name, (items, others) in item_sets(config, lab).items():
        found = config.forgetting.run(model, name, items, others, lab.child(name))
        yield from label(found.rows(), part="language")
        yield {"part": "language fit", "forget": name, **fit_row(found)}


def item_sets(config: Language, lab: Lab) -> dict[str, tuple[list[Item], dict[str, list[Item]]]]:
    """The items of each task, and those of the others that it is tested on."""
    easy = [item for item in ai2_science() if item.level("grade") == 5]
    sets = {
        "science": [item for item in easy if len(item.question) <= config.characters],
        "sentiment": sentiment(),
    }
    goals = [item for item in piqa() if len(item.question) + len(item.choices[0]) < 160]
    sets["piqa"] = goals
    few = {
        name: [items[k] for k in lab.child("others", name).numpy().permutation(len(items))]
        for name, items in sets.items()
    }
    return {
        name: (sets[name], {key: few[key][: config.others] for key in sets if key != name})
        for name in ("science", "sentiment")
    }


def fit_row(found: ForgettingResult) -> Row:
    """Whether the labels were memorised, what a probe reads, and the predictors."""
    before = found.scores["before"]["held out"]
    row: dict[str, Value] = {
        "fit": found.fit.value,
        "agreement": found.agreement,
        "accuracy": before.accuracy.value,
        "confidence": before.confidence.value,
        "variability": found.variability,
    }
    for when, layers in found.probes.items():
        for layer, (accuracy, control) in layers.items():
            row |= {
                f"probe {when} {layer}": accuracy.value,
                f"control {when} {layer}": control.value,
            }
    return row


def predictor_rows(rows: Rows) -> list[Row]:
    """Spearman's ρ of each predictor with the held-out ratio over tasks, or that there are too few
    tasks for it.
    """
    known = [row for row in rows if "confidence" in row]
    tasks = sorted({str(row["forget"]) for row in known})
    found: list[Row] = []
    for name in ("accuracy", "confidence", "variability"):
        x, y = [], []
        for task in tasks:
            same = [r for r in rows if r.get("forget") == task and r.get("arm") == "random"]
            own = [r for r in same if r.get("is_same") or r.get("test") == "held out"]
            ratios = [float(r["ratio"]) for r in own if isfinite(float(r.get("ratio", "nan")))]
            if ratios:
                x.append(average(name, forget=task)(known).value)
                y.append(sum(ratios) / len(ratios))
        rho = predict_forgetting(x, y)
        few = f"underpowered: {len(x)} tasks, {FEWEST_TASKS} are needed"
        found.append({"predictor": name, "Spearman": few if rho is None else str(rho)})
    return found


def every_task(name: str, **where: Value) -> Effect:
    """A column's mean for every task that was to be forgotten, shown by the one farthest from 1."""
    of_all = derive(worst(average(name), TASK, ideal=1), **{TASK: lambda row: row["forget"]})
    return restrict(of_all, **where)


TASK = "forgotten task"
SAME: dict[str, Value] = {"part": "matrix", "is_same": True}
RULE, TABLE = ({**SAME, "arm": "random", "is_rule": is_rule} for is_rule in (True, False))
LAPTOP = Config(language=Language())
CLAIMS = (
    Claim("Rules are forgotten on new inputs, tables hardly on other keys: the held-out forget "
          "ratio of rules is higher by at least 0.4.",
          gap("ratio", of=RULE, against=TABLE), above=0.4),
    Claim("Forgetting is shallow: a linear probe still reads at least three quarters of the "
          "answers (worst forgotten task, last layer).",
          every_task("probe", part="probe", when="after", layer=LAYERS[-1]), above=0.75),
    Claim("At least 0.8 of the random labels were memorised (worst forgotten task).",
          every_task("fit", part="fit"), above=0.8),
    Claim("Control: as many steps on true labels make at most a tenth of a rule be forgotten "
          "(held-out forget ratio).",
          average("ratio", {**RULE, "arm": "true"}), below=0.1),
)  # fmt: skip

matrix = summary(("forget", "test", "arm"), ("before", "after", "ratio"), where={"part": "matrix"})
fits = summary(("forget",), ("updates", "fit", "ratio"), where={"part": "fit"})
probes = summary(("forget", "when", "layer"), ("probe", "control"), where={"part": "probe"})
language = summary(
    ("forget", "test", "arm"),
    ("n", "before", "after", "chance", "ratio", "low", "high"),
    where={"part": "language"},
)
ratios = bars(
    average("ratio"),
    by=("forget", "arm"),
    title="Held-out forget ratio, from scratch (mean over seeds)",
    label="ratio",
    where=SAME,
)


def language_fits(rows: Rows) -> list[Row]:
    """Memorisation, probes and predictors of the language model."""
    return [
        {key: value for key, value in row.items() if key not in ("seed", "part")}
        for row in pick(rows, part="language fit")
    ]


study = Study(
    name="unforgettable",
    system="36",
    differs=(
        "The paper fine-tunes GPT-2, GPT-J and Llama-2-7B on about 20 tasks; here the verdict "
        "rests on an encoder with three layers of width 96, trained from scratch on two rules and "
        "two tables of our own making, with 3 seeds, labels drawn once and stratified by the true "
        "answer, so that they are not independent of it. A pretrained model (SmolLM2-135M on "
        "science questions and sentiment) forgets 32 items of each once, in bfloat16, with one "
        "draw of random labels: reported, not judged."
    ),
    not_tested=(
        "That entailment is forgotten and physical commonsense is not; that confidence and "
        "variability predict forgetting over tasks (fewer than eight tasks are here); that science "
        "questions with random labels break entailment."
    ),
    source=reference("zhang2024unforgettable"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            scratch={
                "task": RulesAndTables(rule_items=200, keys=60, held_out=40),
                "learn": {"steps": 40},
                "forget": {"budget": {"steps": 5, "batch_size": 30}},
                "n": 30,
                "width": 32,
                "layers": 2,
                "probed": LAYERS[-1:],
            },
            language=None,
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            language=Language(ItemForgetting(n=1_000, held_out=500, layers=(15, -1)), 1_000, 500),
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(ratios,),
    table=stack(fits, matrix, probes, predictor_rows, language, language_fits),
)
