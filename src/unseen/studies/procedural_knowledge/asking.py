"""What is trained and asked: a small decoder, its own completions, and what documents add to their
probability.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.attributions.influence import Curvature, Influence, sequence_nats
from unseen.engine.batches import Columns
from unseen.engine.decode import greedy, log_probability
from unseen.engine.loop import Budget, Schedule
from unseen.engine.retrain import retrain
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability
from unseen.task import Batch, Task
from unseen.tasks.procedural_corpus import NONE, PROCEDURES, Kind, ProceduralCorpus

MLPS = ("blocks.*.mlp.*",)
"""The paper follows influence through the MLPs alone."""
SPLITS = {
    **{kind: f"unseen/{kind}" for kind in PROCEDURES},
    Kind.FACT: "facts",
    Kind.FILLER: "control",
}
"""Where the queries of each group come from; filler, which needs neither procedure nor fact, is the
control.
"""
S, P, R, F, C = (kind.number for kind in Kind)


@dataclass(frozen=True)
class Config:
    task: ProceduralCorpus = ProceduralCorpus()
    width: int = 64
    layers: int = 2
    budget: Budget = Budget(
        steps=600,
        batch_size=64,
        lr=2e-3,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        schedule=Schedule.COSINE,
        warmup=180,
        clip=1.0,
    )
    queries: int = 40
    """Per group, at most."""
    is_right: bool = True
    """Whether queries that the model answers wrongly are left out. A smoke model answers hardly any
    right.
    """
    top: int = 50
    """Documents that count as a query's top."""
    found: int = 10
    """Documents among which the answer is sought."""
    asked: int = 20
    """Queries per group whose `removed` most helpful documents are left out of another training."""
    removed: int = 3
    shares: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    """Parts of all documents, the strongest first, whose influence is summed up."""
    draws: int = 1_000
    seeds: int = 8


@dataclass(frozen=True, eq=False)
class Queries:
    """Prompts with the model's own completions."""

    tokens: Int[Tensor, "query position"]
    mask: Bool[Tensor, "query position"]
    """Of the completion."""
    nats: Float[Tensor, " query"]
    group: Int[Tensor, " query"]
    says: Int[Tensor, "query 3"]
    fact: Int[Tensor, " query"]

    @property
    def batch(self) -> Batch:
        return {"tokens": self.tokens, "mask": self.mask}

    def of(self, *groups: int) -> Bool[Tensor, " query"]:
        return torch.isin(self.group, torch.tensor(groups))


def untrained_decoder(config: Config) -> nn.Module:
    """An untied decoder whose maps start as torch's do: with GPT-2's the reversal is not learned at
    this rate.
    """
    model = Transformer(
        Decoder(
            vocabulary=config.task.vocabulary,
            width=config.width,
            layers=config.layers,
            context=16,
            tied=False,
        )
    )
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return model


def retrain_on_subsets(
    config: Config, task: Task, kept: Bool[Tensor, "subset document"], lab: Lab
) -> list[Trained]:
    """One training per subset of documents, from the same start."""
    return [
        each[0]
        for each in retrain(
            lambda: untrained_decoder(config), task, kept, config.budget, lab.child("fit")
        )
    ]


def columns(task: Task, split: str) -> Batch:
    data = task.split(split).data
    assert isinstance(data, Columns)
    return data.columns


def questions(config: Config, trained: Trained) -> Queries:
    """The first held-out triples, facts and texts of each group that the model completes rightly;
    control: any.
    """
    parts = []
    for kind, name in SPLITS.items():
        data = columns(trained.task, name)
        tokens, answer = data["tokens"].clone(), data["answer"]
        start, length = int(answer[0].long().argmax()), int(answer[0].sum())
        prompts = tokens[:, :start].tolist()
        made = torch.tensor(greedy(trained.model, prompts, length))
        right = (made == tokens[:, start : start + length]).all(1)
        tokens[:, start : start + length] = made
        rows = (
            (right | (kind is Kind.FILLER or not config.is_right))
            .nonzero()
            .squeeze(1)[: config.queries]
        )
        if not len(rows):
            raise InvalidData(
                f"None of the {len(right)} queries of “{kind}” is answered right.",
                why="influence on wrong answers is another question.",
                fix="train longer: raise budget.steps.",
            )
        nats = -log_probability(trained.model, [prompts[k] for k in rows], made[rows].tolist())
        says = torch.full((len(rows), 3), NONE)
        if kind is not Kind.FILLER:
            says[:, :length] = made[rows]
        group = torch.full((len(rows),), kind.number)
        parts.append(Queries(tokens[rows], answer[rows], nats, group, says, data["fact"][rows]))
    return Queries(
        *(torch.cat([getattr(part, name) for part in parts]) for name in Queries.__annotations__)
    )


def influence(
    curvature: Curvature, trained: Trained, queries: Queries, lab: Lab
) -> Float[Tensor, "query document"]:
    """Nats that a further copy of a document adds to a completion's log-probability."""
    plug = Influence(curvature, layers=MLPS, loss=sequence_nats, real=real, batch_size=250)
    return (
        plug.prepare(trained, lab.child("influence"))(queries.batch, sequence_log_probability)
        .scores.double()
        .cpu()
    )


def real(batch: Batch) -> Tensor:
    """Positions that are no padding."""
    return batch["mask"]
