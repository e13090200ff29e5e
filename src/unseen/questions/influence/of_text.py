"""A language model, a corpus and prompts: which windows of the corpus made it write its
completions?
"""

import contextlib
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor

from unseen.attributions.influence import Influence, InfluenceScores, Top, sequence_nats
from unseen.attributions.influence.bm25 import candidates
from unseen.attributions.influence.iterative import convergence_sentence
from unseen.attributions.influence.resume import identity, top
from unseen.engine.batches import gather
from unseen.engine.sharding import is_sharded, is_spread, shard_blocks
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.pretrained import CausalLM, load_causal
from unseen.models.smollm import smollm2
from unseen.objectives import sequence_log_probability
from unseen.questions.influence import advice
from unseen.questions.influence.results import Influencer, InfluenceReport, QueryInfluence
from unseen.questions.influence.saving import Phases, Quiet, TopFile
from unseen.questions.influence.surface import surface_ranks, with_ranks
from unseen.runs.tensors import TensorCache
from unseen.task import Batch
from unseen.tasks.text_corpus import MappedWindows, TextCorpus
from unseen.tasks.text_corpus.queries import (
    Query,
    as_batch,
    complete_queries,
    context,
    log_probabilities,
    pieces_of,
)

FILTER_LOSS = (
    "in a measurement with 20 candidates per query, 15 of the 40 windows in a full run's top 5 "
    "were not among them. More candidates lose fewer; without --candidates none is lost."
)


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """What `unseen influence --model … --corpus … --queries …` asks."""

    model: CausalLM
    name: str
    corpus: TextCorpus
    queries: Sequence[Query]
    config: Influence
    k: int = 5
    candidates: int = 0
    """Windows per query that the BM25 pre-filter lets through; 0: all are scored."""
    write: int = 16
    """Tokens that the model writes where a query has no completion."""
    shard: bool = False
    """Whether the processes hold a part of every parameter each (`fully_shard`)."""
    cache: TensorCache
    """Where the state of an unfinished run is kept."""


def load_model(name: str) -> CausalLM:
    """The model in a folder, or SmolLM2."""
    with contextlib.suppress(ImportError):  # `load_causal` says what is missing
        from transformers.utils import logging

        logging.disable_progress_bar()
    return smollm2() if name == "smollm2" else load_causal(name)


def trace_completions(asked: TextRequest, lab: Lab, sink: Phases | Quiet) -> InfluenceReport:
    """Fits the curvature, reads the corpus and shows what was found; a killed run goes on where it
    was. Meanwhile nobody removes its state or the mapped corpus.
    """
    with asked.cache.writing(), asked.cache.writing("influence/corpora"):
        return _trace_completions(asked, lab, sink)


def _trace_completions(asked: TextRequest, lab: Lab, sink: Phases | Quiet) -> InfluenceReport:
    model, began = asked.model.eval(), time.perf_counter()
    if asked.shard and not is_sharded(model):
        # a whole model is not moved to a device that holds a part; generation calls the inner one
        shard_blocks(model.model, lab.device)
    elif not is_spread(model):
        model = model.to(lab.device)
    refuse_long_windows(asked.corpus.length, model)
    left_out: list[str] = []
    task = replace(asked.corpus, note=left_out.append).build(lab)
    data = task.splits["corpus"].data
    assert isinstance(data, MappedWindows)
    if is_sharded(model):
        # whole parameters that are made in the inference mode of decoding could not be written
        # again outside of it
        with torch.no_grad():
            model(torch.zeros(1, 1, dtype=torch.int64, device=lab.device))
    queries = complete_queries(asked.queries, model, asked.write)
    batch = {name: tensor.to(lab.device) for name, tensor in as_batch(queries, model).items()}
    chosen = None
    if 0 < asked.candidates < len(data):
        sink.names[:] = ["words", "candidates"]
        chosen = candidates(batch, task, asked.candidates, lab).union
    sink.names[:] = ["curvature", "eigenvalues"]
    found = replace(asked.config, loss=sequence_nats).prepare(Trained(model, task), lab)
    fitted = time.perf_counter()
    decided_by = identity(found, batch, sequence_log_probability, asked.k, chosen)
    state = TopFile(asked.cache, decided_by, lab.ranks.rank)
    solves = ceil(len(queries) / asked.config.batch_size) * asked.config.curvature.is_iterative
    sink.names[:] = [*(["solves"] * solves), "scores"]
    best = top(found, batch, sequence_log_probability, asked.k, state, candidates=chosen)
    seconds = {"curvature": fitted - began, "scores": time.perf_counter() - fitted}
    looked = len(data) if chosen is None else len(chosen)
    rows = torch.cat([best.index, best.worst_index], 1).cpu()
    sink.names[:] = ["shared words", "embeddings"]
    ranks = surface_ranks(model, batch, task, rows, chosen, lab)
    # of a sharded model every process has to run its part, and of a solve its batches
    is_common = is_sharded(model) or asked.config.curvature.is_iterative
    answers = (
        _answers_with_text(asked, found, batch, queries, best, data)
        if lab.ranks.rank == 0 or is_common
        else []
    )
    return InfluenceReport(
        name=asked.name,
        answers=with_ranks(answers, ranks, rows, looked) if lab.ranks.rank == 0 else [],
        examples=len(data),
        scored=looked,
        caveat=advice.OF_TEXT,
        decisions=[
            *left_out,
            *data.omissions,
            *_notes(asked, data, looked),
            *filter(
                None,
                [
                    convergence_sentence(found.residuals, asked.config.iterations),
                    found.cache.sentence(),
                ],
            ),
        ],
        facts=_facts(seconds, looked * data.length),
    )


def _facts(seconds: Mapping[str, float], tokens: int) -> dict[str, float]:
    return {
        "seconds for the curvature": seconds["curvature"],
        "seconds for the scores": seconds["scores"],
        "tokens scored per second": tokens / seconds["scores"],
        "peak memory in GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _notes(asked: TextRequest, data: MappedWindows, looked: int) -> list[str]:
    length = asked.corpus.length
    said = [
        f"The corpus was cut into {len(data):,} windows of up to {length} tokens that do not cross "
        "documents; "
        "the first token of a window is context only.",
        f"The corpus counts as all that the model was fitted on (N = {len(data):,} windows). If it "
        "is a part of that, the "
        "order stays.",
    ]
    if looked < len(data):
        said.append(
            f"{looked:,} of {len(data):,} windows were scored: those that share words with a query "
            f"(TF-IDF, {asked.candidates:,} per query). Others may matter, too: {FILTER_LOSS}"
        )
    if words := advice.choice(asked.config.curvature, asked.config.iterations):
        said.append(words)
    if asked.config.rank:
        said.append(
            f"Queries were cut to rank {asked.config.rank}; the tokens' colours come from queries "
            "of full rank."
        )
    return said


def refuse_long_windows(length: int, model: CausalLM) -> None:
    """Raises where the model cannot read a window."""
    most = context(model)
    if most and length > most:
        raise InvalidConfig(
            f"Windows of {length} tokens are longer than the {most} that the model reads.",
            why="positions beyond were never trained.",
            fix=f"use --length {most} or less.",
        )


def _answers_with_text(
    asked: TextRequest,
    found: InfluenceScores,
    batch: Batch,
    queries: Sequence[Query],
    best: Top,
    data: MappedWindows,
) -> list[QueryInfluence]:
    """Every query with its windows as text, each token with its part of the score."""
    rows = torch.cat([best.index, best.worst_index], 1).unique()
    by_token = found.by_token(batch, sequence_log_probability, rows).double().cpu()
    position = {int(row): k for k, row in enumerate(rows)}
    said = log_probabilities(asked.model, batch).tolist()

    def influencer(q: int, row: Tensor, score: Tensor) -> Influencer:
        one = gather(data, row[None])
        tokens = one["tokens"][0][one["mask"][0]].tolist()
        document = int(one["document"][0])
        window = int(row) - int(data.first[document]) + 1
        parts, at = list[tuple[str, float]](), 0
        for text, n in pieces_of(tokens, asked.model):
            parts.append((text, float(by_token[q, position[int(row)], at : at + n].sum())))
            at += n
        return Influencer(
            index=int(row),
            score=float(score),
            source=f"{data.source(document)}, window {window}",
            shown="".join(text for text, _ in parts),
            pieces=parts,
        )

    return [
        QueryInfluence(
            title=query.at,
            asked=query.prompt,
            completion=query.completion or "",
            is_written=query.is_written,
            log_probability=said[q],
            helpful=mark_copies(
                [
                    influencer(q, r, s)
                    for r, s in zip(best.index[q], best.scores[q], strict=True)
                    if s > 0
                ]
            ),
            harmful=mark_copies(
                [
                    influencer(q, r, s)
                    for r, s in zip(best.worst_index[q], best.worst_scores[q], strict=True)
                    if s < 0
                ]
            ),
        )
        for q, query in enumerate(queries)
    ]


def mark_copies(found: Sequence[Influencer]) -> list[Influencer]:
    """The examples in their order; one whose text stands before it says where."""
    first: dict[str, str] = {}
    marked = []
    for one in found:
        text = " ".join(str(one.shown).split())
        copy_of = first.setdefault(text, one.source)
        marked.append(one if copy_of == one.source else replace(one, copy_of=copy_of))
    return marked
