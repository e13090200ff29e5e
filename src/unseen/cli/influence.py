"""`unseen influence`: which fitted examples made a model answer as it does: of a table, a Python subject or a text corpus."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from unseen.attributions.influence import Curvature, Fisher, Influence, Precision
from unseen.cli.arguments import Arguments
from unseen.engine.ranks import ranks
from unseen.errors import InvalidConfig
from unseen.lab import Keeper, Lab
from unseen.models.pretrained import CausalLM, load_causal
from unseen.models.smollm import smollm2
from unseen.questions.audit.job import Subject
from unseen.questions.influence import of_subject, of_text
from unseen.questions.influence.document import document
from unseen.questions.influence.results import InfluenceReport
from unseen.questions.influence.saving import FactorFile, Phases, Quiet
from unseen.report.html import html
from unseen.report.json import plain
from unseen.report.markdown import markdown
from unseen.report.terminal import show
from unseen.runs.devices import device
from unseen.runs.store import home, write_atomic
from unseen.runs.tensors import Kept
from unseen.subjects.python_files import TABLES, from_file
from unseen.subjects.tables import of_hospitals, of_table
from unseen.tasks.text_corpus import Cut, TextCorpus
from unseen.tasks.text_corpus.queries import read_queries

TEXT_BATCH, TABLE_BATCH = 8, 64


def parser() -> argparse.ArgumentParser:
    p = Arguments(
        "unseen influence",
        "Which training examples made the model answer as it does?",
        "unseen influence my_model.py:subject            its worst errors on the judged split\n"
        "unseen influence table.csv --target y --site s  the same for a table, each site held out in turn\n"
        "unseen influence --model FOLDER --corpus FILE… --queries q.jsonl   a language model\n"
        "unseen influence                                the embedded heart-disease data\n\n"
        "A killed run goes on where it was. With torchrun, processes share the corpus.",
    )
    p.add_argument("subject", nargs="?", help="table (.csv, .parquet) or Python subject (file.py:name)")
    _add_table(p)
    _add_text(p)
    p.add_argument("--top", type=int, default=5, help="helpful and harmful examples per query (default 5)")
    p.add_argument("--curvature", default="ekfac", choices=[str(c) for c in Curvature], help="default ekfac")
    p.add_argument("--fisher", default="", choices=["", *(str(f) for f in Fisher)], help="default: what suits the data")
    p.add_argument("--damping", type=float, default=0.1, help="times a layer's mean eigenvalue (default 0.1)")
    p.add_argument("--layers", action="append", default=[], help='pattern of layer names: "*.mlp.*" (default: all)')
    p.add_argument("--rank", type=int, default=0, help="cut queries to this rank (default 0: do not)")
    p.add_argument(
        "--precision", default="mixed", choices=[str(x) for x in Precision], help="of products (default mixed)"
    )
    p.add_argument("--batch", type=int, default=0, help=f"default {TEXT_BATCH} windows or {TABLE_BATCH} rows")
    p.add_argument("--factors", help="file for the fitted curvature: read if it is there, else written")
    p.add_argument("--seed", type=int, default=0, help="seed of every random number (default 0)")
    p.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, mps (default cpu)")
    p.add_argument("--report", default="unseen-influence.html", help="file to write (.html or .md)")
    p.add_argument("--quiet", action="store_true", help="no progress, no summary")
    return p


def _add_table(p: argparse.ArgumentParser) -> None:
    p.add_argument("--target", help="column to predict (tables)")
    p.add_argument("--site", help="column whose values are held out in turn")
    p.add_argument("--time", help="column that orders the rows")
    p.add_argument("--entity", help="column that names a person or device")
    p.add_argument("--drop", action="append", default=[], help="column to leave out of the inputs")
    p.add_argument("--split", default="", help="whose errors (default: the judged split that matters most)")
    p.add_argument("--worst", type=int, default=5, help="how many of the worst errors (default 5)")
    p.add_argument("--steps", type=int, help="training steps (default: the subject's budget)")


def _add_text(p: argparse.ArgumentParser) -> None:
    p.add_argument("--model", help="folder of a transformers model in safetensors, or smollm2")
    p.add_argument("--corpus", nargs="+", default=[], help="texts, .jsonl files, folders or archives")
    p.add_argument("--queries", help="prompts, with completions or for the model to complete (.jsonl, .csv)")
    p.add_argument("--field", default="text", help="of a JSON line that holds the text (default text)")
    p.add_argument("--length", type=int, default=128, help="tokens per window (default 128)")
    p.add_argument("--windows", type=int, default=0, help="read only so many windows (default: all)")
    p.add_argument("--cut-off", default="refuse", choices=[str(c) for c in Cut], help="of a file's broken end")
    p.add_argument("--write", type=int, default=16, help="tokens that the model writes itself (default 16)")
    p.add_argument("--candidates", type=int, default=0, help="score only the windows nearest in words, per query")


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    is_first = os.environ.get("RANK", "0") == "0"
    sink: Phases | Quiet = Quiet() if options.quiet or not is_first else Phases()
    with together():
        place = device(_place(options.device))
        lab = Lab(seed=options.seed, device=place, ranks=ranks(), sink=sink, keeper=_keeper(options))
        found = _answers(options, lab, sink)
        if lab.ranks.rank == 0:
            _told(options, found)
    return 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Inside the block the processes that torchrun started know each other."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or torch.distributed.is_initialized():
        yield
        return
    # both: counts are summed on the CPU, scores where the model is
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _place(name: str) -> str:
    """Of several processes each has a GPU of its own."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name


def _keeper(options: argparse.Namespace) -> Keeper:
    kept = Kept(home() / "influence")
    if not options.factors:
        return kept
    path = Path(options.factors)
    if path.suffix != ".safetensors":
        raise InvalidConfig(
            f"--factors {path} has the suffix `{path.suffix}`.",
            why="factors are written as safetensors.",
            fix=f"use --factors {path.with_suffix('.safetensors')}",
        )
    settings = {
        "curvature": options.curvature,
        "fisher": options.fisher or "default",
        "damping": f"{options.damping:g}",
        "layers": " ".join(options.layers) or "default",
    }
    return FactorFile(path, settings, kept)


def _answers(options: argparse.Namespace, lab: Lab, sink: Phases | Quiet) -> list[InfluenceReport]:
    given = {"--model": options.model, "--corpus": options.corpus, "--queries": options.queries}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return _of_subjects(options, lab)
    if missing or options.subject:
        extra = f"and `{options.subject}` is a subject" if options.subject else f"{' and '.join(missing)} is missing"
        raise InvalidConfig(
            f"A language model is asked about, {extra}.",
            why="it needs --model, --corpus and --queries, and nothing else.",
            fix="unseen influence --model smollm2 --corpus plays.txt --queries q.jsonl",
        )
    asked = of_text.TextRequest(
        model=_model(options.model),
        name=Path(options.model).name,
        corpus=_corpus(options),
        queries=read_queries(options.queries),
        config=_config(options, TEXT_BATCH),
        k=options.top,
        candidates=options.candidates,
        write=options.write,
        folder=home() / "influence",
    )
    asked = replace(asked, corpus=replace(asked.corpus, encode=asked.model.encode))
    return [of_text.trace_completions(asked, lab, sink)]


def _config(options: argparse.Namespace, batch: int) -> Influence:
    return Influence(
        curvature=Curvature(options.curvature),
        fisher=Fisher(options.fisher or "sampled"),
        damping=options.damping,
        layers=tuple(options.layers),
        rank=options.rank,
        precision=Precision(options.precision),
        batch_size=options.batch or batch,
    )


def _corpus(options: argparse.Namespace) -> TextCorpus:
    return TextCorpus(
        files=tuple(options.corpus),
        length=options.length,
        field=options.field,
        cut=Cut(options.cut_off),
        most=options.windows,
        folder=str(home() / "influence" / "corpora"),
    )


def _model(name: str) -> CausalLM:
    with contextlib.suppress(ImportError):  # `load_causal` says what is missing
        from transformers.utils import logging

        logging.disable_progress_bar()
    return smollm2() if name == "smollm2" else load_causal(name)


def _of_subjects(options: argparse.Namespace, lab: Lab) -> list[InfluenceReport]:
    subjects = _subjects(options, lab)
    if options.factors and len(subjects) > 1:
        raise InvalidConfig(
            f"--factors names one file, and {len(subjects)} models are asked about.",
            why="each held-out site has a model of its own.",
            fix="leave --factors out: factors are kept anyway.",
        )
    config = _config(options, TABLE_BATCH)
    # small models on many threads wait for each other longer than they compute
    with threadpool_limits(1):
        return [
            of_subject.trace_errors(one, lab.child(one.task.name), config,
                                split=options.split, worst=options.worst, k=options.top, fisher=options.fisher)
            for one in subjects
        ]  # fmt: skip


def _subjects(options: argparse.Namespace, lab: Lab) -> Sequence[Subject]:
    if options.subject is None:
        found: Sequence[Subject] = of_hospitals(lab)
    elif str(options.subject).lower().endswith(TABLES):
        table: Mapping[str, Any] = {name: getattr(options, name) for name in ("target", "site", "time", "entity")}
        found = of_table(options.subject, lab, **table, drop=tuple(options.drop))
    else:
        found = [from_file(options.subject)]
    if options.steps:
        found = [replace(one, budget=replace(one.budget, steps=options.steps)) for one in found]
    return found


def _told(options: argparse.Namespace, found: Sequence[InfluenceReport]) -> None:
    made = document(found)
    path = Path(options.report)
    write_atomic(path, markdown(made) if path.suffix == ".md" else html(made))
    if options.json:
        print(json.dumps(plain({"report": str(path), "answers": found}), indent=1, ensure_ascii=False))
    elif not options.quiet:
        show(made)
        print(f"report: {path}")
