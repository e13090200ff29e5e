"""Meta-training on random problems fails, recognises training problems or learns to learn, by how
many problems there are and how they are biased (Kirsch et al., 2022, arXiv:2212.04458).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import nn

from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.measures.in_context_curve import InContextCurve
from unseen.method import Method
from unseen.methods.finetune import Finetune
from unseen.methods.meta_learning import MetaLearning
from unseen.models.recurrent import Recurrent, hidden_like
from unseen.models.transformer import Decoder, Transformer, init_by_inputs
from unseen.study import Claim, Row, Scale, Study, Value, average, gap
from unseen.study.effects import share
from unseen.study.figures import bars, curves, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.task import Use
from unseen.tasks.random_projections import NEW_INSTANCES, NEW_TASKS, SEEN, RandomProjections


class Arm(StrEnum):
    """What is trained on which problems."""

    FEW = "few problems"
    FRESH = "new problems"
    """Every context of every step is a new one."""
    BIASED = "new problems, biased"
    """The same, with one projection for half of the contexts; the permutation is always new."""
    RECURRENT = "LSTM, new problems, biased"
    """As many parameters, less state."""


@dataclass(frozen=True)
class Config:
    task: RandomProjections = RandomProjections()
    few: Budget = field(
        default_factory=lambda: Budget(steps=1_000, batch_size=64, lr=2e-3, warmup=200, clip=1.0)
    )
    new: Budget = field(
        default_factory=lambda: Budget(steps=1_600, batch_size=64, lr=2e-3, warmup=200, clip=1.0)
    )
    bias: float = 0.5
    width: int = 64
    layers: int = 3
    heads: int = 4
    seeds: int = 3
    recurrent_seeds: int = 1
    """Of the LSTM, which is reported only."""

    def cells(self) -> Iterator[Cell["Config", Arm]]:
        yield from interleave(
            Grid((self,), (Arm.FEW, Arm.FRESH, Arm.BIASED), self.seeds),
            Grid((self,), (Arm.RECURRENT,), self.recurrent_seeds),
        )


def run(cell: Cell[Config, Arm], lab: Lab) -> Iterator[Row]:
    config, arm = cell.setting, cell.arm
    task = config.task.build(lab.child("data"))
    model = untrained_model(lambda: build_model(config, arm), lab)
    sizes: dict[str, Value] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "state": state_size(config, model),
    }
    trained = method(config, arm).fit(model, task, lab.child("fit"))
    loss = torch.tensor(trained.curves["loss"][-100:]).mean().item()
    facts: dict[str, Value] = {"arm": arm, "seed": cell.seed, "loss": loss, **sizes}
    for split in task.of(Use.EVALUATE):
        curve = InContextCurve(split, config.task.classes)
        reading, beside = curve(trained, lab), curve.references(trained)
        assert reading.detail is not None
        yield {
            **facts,
            "split": split,
            "right": round(reading.value * reading.n),
            "n": reading.n,
            "accuracy": reading.value,
            "gain": reading.value - reading.detail[0].item(),
            **{name: one.value for name, one in beside.items()},
        }
        rows = ({"position": k + 1, "at": one} for k, one in enumerate(reading.detail.tolist()))
        yield from label(rows, arm=arm, seed=cell.seed, curve=split)


def build_model(config: Config, arm: Arm) -> nn.Module:
    """The decoder, or the LSTM with at most as many parameters."""
    spec = config.task
    inputs = spec.dim + spec.classes
    shape = Decoder(
        vocabulary=spec.classes,
        inputs=inputs,
        tied=False,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        context=spec.n_examples,
    )
    decoder = init_by_inputs(Transformer(shape))
    if arm is not Arm.RECURRENT:
        return decoder
    hidden = hidden_like(sum(p.numel() for p in decoder.parameters()), inputs, spec.classes)
    return Recurrent(inputs, hidden, spec.classes)


def state_size(config: Config, model: nn.Module) -> int:
    """Numbers that the last position can read of the others: keys and values, or the state."""
    if isinstance(model, Recurrent):
        return model.state_size
    return 2 * config.layers * config.task.n_examples * config.width


def method(config: Config, arm: Arm) -> Method:
    if arm is Arm.FEW:
        return Finetune(config.few)
    return MetaLearning(0.0 if arm is Arm.FRESH else config.bias, config.new)


LAPTOP = Config()
CHANCE = 1 / LAPTOP.task.classes
FEW: dict[str, Value] = {"arm": Arm.FEW}
BIASED: dict[str, Value] = {"arm": Arm.BIASED, "split": NEW_TASKS}
CLAIMS = (
    Claim("Trained on 16 problems, training problems are solved with training instances.",
          share("right", "n", FEW, split=SEEN), above=0.9),
    Claim("With instances that training never shows, too: problems are recognised, not examples.",
          share("right", "n", FEW, split=NEW_INSTANCES), above=0.8),
    Claim("New problems are not: chance ± 0.05.",
          share("right", "n", FEW, split=NEW_TASKS), above=CHANCE - 0.05, below=CHANCE + 0.05),
    Claim("Unbiased training on ever new problems stays on the plateau (at most chance + 0.1).",
          share("right", "n", arm=Arm.FRESH, split=NEW_TASKS), below=CHANCE + 0.1),
    Claim("With a biased projection new problems are learned: chance + 0.15.",
          share("right", "n", BIASED), above=CHANCE + 0.15),
    Claim("What is learned comes from the context: gain over the first position.",
          average("gain", BIASED, within=(-1, 1)), above=0.15),
    Claim("On new problems biased training does better than training on 16 problems.",
          gap("accuracy", BIASED, {**FEW, "split": NEW_TASKS}), above=0.15),
)  # fmt: skip

table = summary(
    ("arm", "split"),
    ("accuracy", "gain", "nearest neighbour", "ridge", "chance", "loss", "parameters", "state"),
    where={},
)
last = bars(
    share("right", "n"),
    by=("arm", "split"),
    title="Accuracy at the last position (mean over seeds)",
    label="accuracy",
)
learning = curves(
    "position",
    "at",
    by="arm",
    title="New problems: accuracy by number of examples",
    x_label="position (position j has seen j − 1 labels)",
    y_label="accuracy",
    where={"curve": NEW_TASKS},
)
study = Study(
    name="in_context_learning",
    system="28",
    differs=(
        "The paper meta-trains on MNIST with up to 2²⁴ problems of 100 examples, meta-batches of "
        "4,096 and a decoder of four layers and width 256; here five of scikit-learn's digits are "
        "projected to 16 numbers, contexts have 30 examples, batches 64 contexts, and a decoder of "
        "three layers of width 64 trains for 1,600 steps, with 3 seeds, from weights of variance "
        "1 / inputs (with GPT-2's the plateau lasted longer in a trial). 'Memorises' and the order "
        "of transitions in the number of problems need more arms. The LSTM has one seed and as "
        "many parameters: it is reported with its state."
    ),
    not_tested=(
        "Generalization to other base data (Fashion-MNIST, CIFAR-10); that accessible state, not "
        "parameters, is the bottleneck over a range of sizes; larger meta-batches as a remedy for "
        "the plateau."
    ),
    source=reference("kirsch2022general"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            task={"n_examples": 6, "n_train": 64, "n_test": 20},
            few={"steps": 6, "batch_size": 8, "warmup": 2},
            new={"steps": 6, "batch_size": 8, "warmup": 2},
            width=16,
            layers=1,
            heads=2,
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            task={"classes": 10, "dim": 64, "n_examples": 100, "tasks": 4_096},
            few={"steps": 50_000, "batch_size": 4_096, "lr": 1e-3},
            new={"steps": 50_000, "batch_size": 4_096, "lr": 1e-3},
            width=256,
            layers=4,
            heads=8,
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(last, learning),
    table=table,
)
