"""`unseen.influence`, of a subject or of texts."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from threadpoolctl import threadpool_limits

from unseen.api.common import (
    language_model,
    make_lab,
    refuse_below,
    save_if_asked,
    spell_out_options,
    text_corpus,
)
from unseen.attributions.influence import Curvature, Fisher, Influence, Precision
from unseen.attributions.influence.settings import member
from unseen.engine.ranks import local_device, process_group, ranks
from unseen.errors import InvalidConfig
from unseen.lab import Lab, Sink
from unseen.models.pretrained import CausalLM
from unseen.questions.answer import Answer, check_report_path
from unseen.questions.influence import of_text
from unseen.questions.influence.document import SUMMARY_SECTIONS
from unseen.questions.influence.document import document as influence_document
from unseen.questions.influence.job import ErrorRequest, refuse_estimator, trace_errors
from unseen.questions.influence.procedure import default_influence
from unseen.questions.influence.results import InfluenceReport
from unseen.questions.influence.saving import Phases, Quiet, factor_keeper
from unseen.runs.tensors import home_cache
from unseen.subjects.sources import Source, read_subjects
from unseen.subjects.tables import TableColumns, TableOptions
from unseen.tasks.text_corpus import Cut
from unseen.tasks.text_corpus.queries import Query, read_queries

GIB = 1 << 30
WINDOW_BATCH = 8
"""Windows of text that are scored together."""


@spell_out_options
def influence(
    subject: Source = None,
    *,
    split: str = "",
    worst: int = 5,
    top: int = 5,
    curvature: str | Curvature = Curvature.EKFAC,
    iterations: int = Influence.iterations,
    fisher: str | Fisher | None = None,
    damping: float | None = None,
    layers: str | Sequence[str] = (),
    rank: int = 0,
    precision: str | Precision = Precision.MIXED,
    batch_size: int | None = None,
    disk: float = 0.0,
    factors: str | Path | None = None,
    retrainings: int | None = None,
    confirm: int = 0,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
    **columns: Unpack[TableOptions],
) -> Answer[Sequence[InfluenceReport]]:
    """Which training examples made a model's worst errors: the `top` most helpful and harmful ones
    of each.

    One entry of the results per held-out site. `curvature` "ekfac+cg" improves EK-FAC by so many
    `iterations`. `fisher` None takes what suits the data; `layers`
    are patterns of layer names (none: all), `rank` cuts queries to that rank (0: does not), `disk`
    is the GiB of gradients that may wait in a temporary file, `factors` is a file for the fitted
    curvature. The order is by influence functions; sizes come
    from retraining with one more copy of each shown example, with `retrainings` seeds (None: eight
    where the model is small, 0: order only). `confirm` retrains without the first so many examples
    of each error, too.
    """
    path = None if report is None else check_report_path(report)
    refuse_estimator(subject)
    refuse_below(1, batch_size=batch_size)
    default = default_influence()
    config = _influence(
        curvature,
        iterations,
        fisher,
        default.damping if damping is None else damping,
        layers,
        rank,
        precision,
        batch_size or default.batch_size,
        disk,
    )
    config = replace(config, most=default.most)
    request = ErrorRequest(
        config=config,
        fisher="" if fisher is None else str(Fisher(fisher)),
        split=split,
        worst=worst,
        k=top,
        retrainings=retrainings,
        confirm=confirm,
    )
    with process_group(), threadpool_limits(1):
        lab = lab or _influence_lab(
            seed, device, Phases() if progress else Quiet(), config, fisher, factors
        )
        subjects = read_subjects(subject, lab, TableColumns(**columns), steps=steps)
        if factors and len(subjects) > 1:
            raise InvalidConfig(
                f"--factors names one file, and {len(subjects)} models are asked about.",
                why="each held-out site has a model of its own.",
                fix="leave --factors out: factors are kept anyway.",
            )
        found = [trace_errors(one, lab.child(one.task.name), request) for one in subjects]
        return _influence_report(found, lab, path)


def influence_of_text(
    model: str | Path | CausalLM,
    corpus: str | Path | Sequence[str | Path],
    queries: str | Path | Sequence[Query],
    *,
    field: str = "text",
    length: int = 128,
    windows: int = 0,
    cut: str | Cut = Cut.REFUSE,
    write: int = 16,
    candidates: int = 0,
    top: int = 5,
    curvature: str | Curvature = Curvature.EKFAC,
    iterations: int = Influence.iterations,
    fisher: str | Fisher | None = None,
    damping: float | None = None,
    layers: str | Sequence[str] = (),
    rank: int = 0,
    precision: str | Precision = Precision.MIXED,
    batch_size: int | None = None,
    disk: float = 0.0,
    factors: str | Path | None = None,
    shard: bool = False,
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[Sequence[InfluenceReport]]:
    """Which windows of a corpus made a language model write what it wrote.

    `model` is a folder of a transformers model in safetensors, "smollm2", or a model; `corpus`
    texts, .jsonl files (whose `field` holds the text), folders or archives, cut into windows of
    `length` tokens, `windows` of them at most (0: all); `queries` a .jsonl or .csv file of prompts,
    completed by the model with `write` tokens where they have no completion. With `candidates`,
    only that many windows per query, the nearest in words, are scored. With `shard`, and several
    processes (torchrun), each holds a part of every parameter: for models that one device cannot
    hold. A model that is sharded already (`fully_shard`) stays as it is.
    """
    path = None if report is None else check_report_path(report)
    refuse_below(1, top=top, batch_size=batch_size, write=write)
    refuse_below(0, candidates=candidates)
    config = _influence(
        curvature,
        iterations,
        fisher,
        Influence.damping if damping is None else damping,
        layers,
        rank,
        precision,
        batch_size or WINDOW_BATCH,
        disk,
    )
    sink = Phases() if progress else Quiet()
    model, name = language_model(model)
    text = text_corpus(model, corpus, field, length, windows, cut)
    asked = of_text.TextRequest(
        model=model,
        name=name,
        corpus=text,
        queries=read_queries(str(queries)) if isinstance(queries, str | Path) else queries,
        config=config,
        k=top,
        candidates=candidates,
        write=write,
        shard=shard,
        cache=home_cache("influence"),
    )
    with process_group():
        lab = lab or _influence_lab(seed, device, sink, config, fisher, factors)
        return _influence_report([of_text.trace_completions(asked, lab, sink)], lab, path)


def _influence(
    curvature: str | Curvature,
    iterations: int,
    fisher: str | Fisher | None,
    damping: float,
    layers: str | Sequence[str],
    rank: int,
    precision: str | Precision,
    batch_size: int,
    disk: float,
) -> Influence:
    if not 0 <= disk < math.inf:
        raise InvalidConfig(
            f"disk={disk} is not a number of GiB.",
            why="so many GiB of gradients may wait in a temporary file.",
            fix="use a number from 0, for example disk=20.",
        )
    return Influence(
        curvature=member(Curvature, "curvature", curvature),
        iterations=iterations,
        fisher=member(Fisher, "fisher", fisher or Fisher.SAMPLED),
        damping=damping,
        layers=(layers,) if isinstance(layers, str) else tuple(layers),
        rank=rank,
        precision=member(Precision, "precision", precision),
        batch_size=batch_size,
        disk=int(disk * GIB),
    )


def _influence_lab(
    seed: int,
    device: str,
    sink: Sink,
    config: Influence,
    fisher: str | Fisher | None,
    factors: str | Path | None,
) -> Lab:
    """With the processes of torchrun, and the curvature in a file of its own if one is named."""
    lab = make_lab(seed, local_device(device), "influence", sink)
    settings = {
        "curvature": str(config.curvature.preconditioner),
        "fisher": "default" if fisher is None else str(config.fisher),
        "damping": f"{config.damping:g}",
        "layers": " ".join(config.layers) or "default",
    }
    keeper = (
        lab.keeper
        if factors is None
        else factor_keeper(Path(factors), settings, home_cache("influence"))
    )
    return replace(lab, ranks=ranks(), keeper=keeper)


def _influence_report(
    found: Sequence[InfluenceReport], lab: Lab, path: Path | None
) -> Answer[Sequence[InfluenceReport]]:
    """Of several processes the first one has the answers and writes them."""
    report = Answer(
        results=found,
        document=influence_document(found),
        summary_sections=SUMMARY_SECTIONS,
        machine={"answers": found},
    )
    return save_if_asked(report, path if lab.ranks.rank == 0 else None)
