"""What one cell finds: correlations by block, answers and sources of groups, tails, and what
removal does.
"""

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unseen import stats
from unseen.attributions.influence import Curvature
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.answer_recall import answer_excess, answer_recall
from unseen.measures.influence_volatility import per_nat, tail_mass, volatility
from unseen.measures.query_correlation import Blocks, blocks, correlations
from unseen.measures.source_enrichment import source_enrichment
from unseen.measures.tail_exponent import tail_exponent
from unseen.method import Trained
from unseen.objectives import sequence_log_probability
from unseen.reading import Reading
from unseen.studies.procedural_knowledge.asking import (
    SPLITS,
    C,
    Config,
    F,
    P,
    Queries,
    R,
    S,
    retrain_on_subsets,
)
from unseen.study import Value
from unseen.task import Batch
from unseen.tasks.procedural_corpus import PROCEDURES, Kind, states

EKFAC: dict[str, Value] = {"curvature": str(Curvature.EKFAC)}


def interval(name: str, reading: Reading) -> dict[str, Value]:
    return {
        name: reading.value,
        f"{name}_low": reading.low,
        f"{name}_high": reading.high,
        "n": reading.n,
    }


def contrast(name: str, reading: Reading) -> dict[str, Value]:
    return {"part": "contrast", "contrast": name, **interval("value", reading)}


def across(means: Float[Tensor, "... group group"]) -> Float[Tensor, "..."]:
    """Mean correlation of the reversal with either format of the successor."""
    return (means[..., S, R] + means[..., P, R]) / 2


def beyond_format(means: Float[Tensor, "... group group"]) -> Float[Tensor, "..."]:
    """Same procedure in the other format, minus 1.3 times the larger of the other procedures."""
    return means[..., S, P] - 1.3 * torch.maximum(means[..., S, R], means[..., P, R])


def same_format(means: Float[Tensor, "... group group"]) -> Float[Tensor, "..."]:
    """Same procedure in the same format, minus in the other."""
    return (means[..., S, S] + means[..., P, P]) / 2 - means[..., S, P]


def beyond_facts(kind: int, means: Float[Tensor, "... group group"]) -> Float[Tensor, "..."]:
    """Within a procedure, minus within facts."""
    return means[..., kind, kind] - means[..., F, F]


def relation(one: int, two: int) -> str:
    """What the queries of two groups have in common."""
    if C in (one, two):
        return "control" if one != two else "control alone"
    if F in (one, two):
        return "fact"
    return "same" if one == two else "other format" if (one, two) == (S, P) else "other procedure"


def block_rows(
    config: Config,
    found: Blocks,
    scores: Float[Tensor, "query document"],
    queries: Queries,
    lab: Lab,
) -> Iterator[dict[str, Value]]:
    """Mean correlations, the same with the documents of every query shuffled, and contrasts."""
    order = torch.rand(scores.shape, generator=lab.child("null").generator()).argsort(1)
    null = blocks(
        correlations([scores.gather(1, order)]),
        queries.group,
        lab.child("bootstrap").numpy(),
        config.draws,
    )
    n, kinds = len(queries.nats), list(Kind)
    for one in range(len(kinds)):
        for two in range(one, len(kinds)):
            names: dict[str, Value] = {"first": str(kinds[one]), "second": str(kinds[two])}
            yield {
                "part": "block",
                **names,
                "relation": relation(one, two),
                **interval("value", found.of(one, two, n)),
                **interval("null", null.of(one, two, n)),
            }
    for kind in PROCEDURES:
        gap = found.reading(partial(beyond_facts, kind.number), n)
        yield {"first": str(kind), **contrast("same procedure − fact", gap)}
    yield contrast("other format − 1.3 · other procedure", found.reading(beyond_format, n))
    yield contrast("same format − other format", found.reading(same_format, n))


def group_rows(
    config: Config, trained: Trained, scores: Tensor, queries: Queries, documents: Batch, lab: Lab
) -> Iterator[dict[str, Value]]:
    """How well every group is answered, whether its top documents state the answers, and where they
    come from.
    """
    is_answer = states(queries.says, documents["says"])
    for kind, split in SPLITS.items():
        mine = queries.of(kind.number)
        right = per_example(
            trained.model, trained.task.split(split).data, trained.task.objective.score, lab
        )
        row: dict[str, Value] = {
            "part": "group",
            "group": str(kind),
            "queries": int(mine.sum()),
            "right": int(right.sum()),
            "tried": len(right),
            "query_nats": float(queries.nats[mine].mean()),
        }
        if kind is not Kind.FILLER:
            row |= answer_columns(config, scores[mine], is_answer[mine])
        yield row
        for bottom in (False, True):
            table = source_enrichment(scores[mine], documents["kind"], config.top, bottom=bottom)
            for source, value in zip(Kind, table.mean(0), strict=True):
                yield {
                    "part": "source",
                    "group": str(kind),
                    "source": str(source),
                    "bottom": bottom,
                    "enrichment": float(value),
                }


def answer_columns(config: Config, scores: Tensor, is_answer: Tensor) -> dict[str, Value]:
    """Queries whose answer is found, and how much more frequent answers are on top."""
    if not is_answer.any():  # what a smoke model makes up stands nowhere, so it is not found
        return {"hits": 0, "hit_share": 0.0}
    recall, excess = (
        answer_recall(scores, is_answer, config.found),
        answer_excess(scores, is_answer, config.top),
    )
    return {
        "hits": round(recall.value * recall.n),
        "hit_share": recall.value,
        **interval("excess", excess),
    }


def tail_rows(
    config: Config, scores: Tensor, queries: Queries, lab: Lab
) -> Iterator[dict[str, Value]]:
    """Influence per nat of the strongest documents, how it varies between queries, and how steeply
    it falls with rank.
    """
    normal = per_nat(scores, queries.nats)
    steps = torch.tensor(
        [tail_exponent(row, min(500, len(row) // 4)).value for row in scores], dtype=torch.float64
    )
    for kind in Kind:
        mine = queries.of(kind.number)
        yield {"part": "exponent", "group": str(kind), "exponent": float(steps[mine].mean())}
        for share in config.shares:
            for side, negative in (("helpful", False), ("harmful", True)):
                mass = tail_mass(normal[mine], share, negative=negative)
                varies = volatility(mass, lab.child(side, kind).numpy())
                yield {
                    "part": "tail",
                    "group": str(kind),
                    "side": side,
                    "share": share,
                    "mass": float(mass.mean()),
                    **interval("volatility", varies),
                }
    steeper = stats.welch(steps[queries.of(S, P, R)].numpy(), steps[queries.of(F)].numpy())
    yield contrast("tail exponent, procedures − facts", steeper)


def removal_rows(
    config: Config, trained: Trained, scores: Tensor, queries: Queries, documents: Batch, lab: Lab
) -> Iterator[dict[str, Value]]:
    """How far log p of a completion falls when documents are left out of training; intervals over
    queries.

    All asked facts lose their documents in one training, and the random documents state facts that
    are not asked: of three random fact documents one in fifty would be the fact's own.
    """
    few = {
        kind: queries.of(kind.number).nonzero().squeeze(1)[: config.asked]
        for kind in (*PROCEDURES, Kind.FACT)
    }
    facts = few[Kind.FACT]
    asked = torch.isin(documents["fact"], queries.fact[queries.of(F)])
    others = ((documents["kind"] == F) & ~asked).nonzero().squeeze(1)
    best = scores.topk(config.removed).indices
    chosen = best[facts].unique()
    if len(others) < len(chosen):
        raise InvalidData(
            f"{len(others)} documents state facts that are not asked, {len(chosen)} are to be "
            "removed.",
            why="the comparison removes as many.",
            fix="lower `queries`, or raise `task.facts`.",
        )
    luck = others[
        torch.randperm(len(others), generator=lab.child("random").generator())[: len(chosen)]
    ]
    fact_models = retrain_on_subsets(
        config, trained.task, without(len(documents["kind"]), chosen, luck), lab
    )
    procedures = torch.cat([few[kind] for kind in PROCEDURES])
    shared = retrain_on_subsets(
        config, trained.task, without(len(documents["kind"]), best[procedures].unique()), lab
    )
    by_top, by_luck = (fall(trained, model, queries, facts, lab) for model in fact_models)
    for name, values in (
        ("facts, top documents", by_top),
        ("facts, random documents", by_luck),
        ("procedures, top documents", fall(trained, shared[0], queries, procedures, lab)),
    ):
        yield {"part": "removal", "left_out": name, **interval("fall", stats.mean(values.numpy()))}
    more = stats.bootstrap(
        lambda top, luck: float(top.mean() - 5 * abs(luck.mean())),
        by_top.numpy(),
        by_luck.numpy(),
        rng=lab.child("falls").numpy(),
    )
    yield contrast("fall, top − 5 · |random|", more)


def without(n: int, *groups: Tensor) -> Bool[Tensor, "group n"]:
    """All documents but those of one group, for every group."""
    kept = torch.ones(len(groups), n, dtype=torch.bool)
    for row, group in zip(kept, groups, strict=True):
        row[group] = False
    return kept


def fall(
    before: Trained, after: Trained, queries: Queries, rows: Int[Tensor, " k"], lab: Lab
) -> Float[Tensor, " k"]:
    """Nats of log p(completion) that the second model has lost against the first."""
    asked = Columns(**{name: column[rows] for name, column in queries.batch.items()})
    old, new = (
        per_example(each.model, asked, sequence_log_probability, lab).double()
        for each in (before, after)
    )
    return old - new
