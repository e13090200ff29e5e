"""`unseen influence`: which training examples made a model answer as it does: of a table, a subject
or a text corpus.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.cli.subject_options import (
    DATA,
    TEXT,
    TRAINING,
    add_corpus,
    add_data,
    add_output,
    add_training,
    present,
    shared_options,
)
from unseen.errors import InvalidConfig

INFLUENCE = "influence"
CURVATURES = ("identity", "diagonal", "kfac", "ekfac", "ekfac+cg", "ekfac+astra", "exact")
FISHERS = ("sampled", "exact", "empirical")
PRECISIONS = ("full", "mixed", "bfloat16")
OF_SUBJECTS = (
    *("target", "site", "time", "entity", "group", "drop", "holdout", "encoding"),
    *("split", "steps"),
)


def parser() -> Arguments:
    p = Arguments(
        "unseen influence",
        "Which training examples made the model answer as it does?",
        "unseen influence my_model.py:subject            its worst errors on the evaluated split\n"
        "unseen influence table.csv --target y --site s  the same for a table, each site held out "
        "in turn\n"
        "unseen influence --model FOLDER --corpus FILE… --queries q.jsonl   a language model\n"
        "unseen influence                                the embedded heart-disease data\n\n"
        "A killed run goes on where it was. With torchrun, processes share the corpus.",
        groups=(DATA, TEXT, INFLUENCE, TRAINING),
    )
    add_data(p)
    p.option(
        DATA,
        "--split",
        default="",
        help="split whose errors are explained (default: the one that matters most)",
    )
    p.option(DATA, "--worst", type=int, default=5, help="number of worst errors (default 5)")
    _add_text(p)
    p.option(
        INFLUENCE,
        "--top",
        type=int,
        default=5,
        help="helpful and harmful examples per query (default 5)",
    )
    p.option(
        INFLUENCE,
        "--curvature",
        default="ekfac",
        choices=CURVATURES,
        help="approximation (default ekfac); ekfac+cg and ekfac+astra improve it by iterations",
    )
    p.option(
        INFLUENCE,
        "--iterations",
        type=int,
        default=10,
        help="passes over the corpus per batch of queries, of ekfac+cg and ekfac+astra "
        "(default 10)",
    )
    p.option(
        INFLUENCE,
        "--fisher",
        default="",
        choices=FISHERS,
        help="labels (default: what suits the data)",
    )
    p.option(
        INFLUENCE,
        "--damping",
        type=float,
        help="times a layer's mean eigenvalue (default 1; of a language model 0.1)",
    )
    p.repeatable(INFLUENCE, "--layers", 'pattern of layer names: "*.mlp.*" (default: all)')
    p.option(
        INFLUENCE,
        "--rank",
        type=int,
        default=0,
        help="rank that queries are cut to (default 0: not cut)",
    )
    p.option(
        INFLUENCE,
        "--precision",
        default="mixed",
        choices=PRECISIONS,
        help="precision of matrix products (default mixed)",
    )
    p.option(
        INFLUENCE,
        "--batch",
        type=int,
        help="windows or rows scored together (default 8 windows or 64 rows)",
    )
    p.option(
        INFLUENCE,
        "--disk",
        type=float,
        default=0.0,
        metavar="GIB",
        help="gradients that may wait in a temporary file, so that the model runs less often "
        "(default 0: none)",
    )
    p.option(
        INFLUENCE,
        "--factors",
        help="file (.safetensors) to read the curvature from, written if it is absent",
    )
    p.option(
        INFLUENCE,
        "--retrainings",
        type=int,
        help="seeds that measure each shown example by retraining with one more copy (default 8 "
        "where the model is small; 0: order only)",
    )
    p.option(
        INFLUENCE,
        "--confirm",
        type=int,
        default=0,
        metavar="K",
        help="retrain without the first K examples of each error (default: do not)",
    )
    add_training(p, estimator=False)
    add_output(p, "unseen-influence.html")
    return p


def _add_text(p: Arguments) -> None:
    p.option(TEXT, "--model", help="folder of a transformers model in safetensors, or smollm2")
    add_corpus(p)
    p.option(
        TEXT,
        "--queries",
        help="file of prompts, with completions or for the model to complete (.jsonl, .csv)",
    )
    p.option(
        TEXT, "--windows", type=int, default=0, help="number of windows to read (default: all)"
    )
    p.option(
        TEXT, "--write", type=int, default=16, help="tokens to complete a prompt with (default 16)"
    )
    p.option(
        TEXT,
        "--candidates",
        type=int,
        default=0,
        help="windows to score per query, nearest in words (default: all)",
    )
    p.option(
        TEXT,
        "--shard",
        action="store_true",
        help="with torchrun: a part of every parameter in each process, for large models",
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    # of the processes of torchrun only the first one speaks
    is_first = os.environ.get("RANK", "0") == "0"
    options.quiet |= not is_first
    if not is_first:
        logging.getLogger("unseen").setLevel(logging.ERROR)
    found = _of_text(options) if _asks_about_text(options) else _of_subject(options)
    if is_first:
        present(found, options)
    return 0


def _asks_about_text(options: argparse.Namespace) -> bool:
    given = {"--model": options.model, "--corpus": options.corpus, "--queries": options.queries}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        if options.shard:
            raise InvalidConfig(
                "--shard is for a language model.",
                why="models of tables and subjects are trained here, whole in every process.",
                fix="leave it out, or give --model, --corpus and --queries.",
            )
        return False
    if missing or options.subject:
        extra = (
            f"and `{options.subject}` is a subject"
            if options.subject
            else f"{' and '.join(missing)} is missing"
        )
        raise InvalidConfig(
            f"Influence in a language model was requested, {extra}.",
            why="it needs --model, --corpus and --queries, and nothing else.",
            fix="unseen influence --model smollm2 --corpus plays.txt --queries q.jsonl",
        )
    if ignored := [f"--{name}" for name in OF_SUBJECTS if getattr(options, name)]:
        raise InvalidConfig(
            f"{', '.join(ignored)} and a language model were given.",
            why="these options are about tables and models that are trained here.",
            fix="leave them out, or leave --model, --corpus and --queries out.",
        )
    if options.confirm or options.retrainings:
        raise InvalidConfig(
            "A language model is not retrained here.",
            why="--confirm and --retrainings train the model again with other examples.",
            fix="leave them out: the order of the windows is all that is given.",
        )
    return True


def _of_subject(options: argparse.Namespace) -> "unseen.Answer[Any]":
    return unseen.influence(
        options.subject,
        split=options.split,
        worst=options.worst,
        retrainings=options.retrainings,
        confirm=options.confirm,
        **_settings(options),
        **shared_options(options),
    )


def _of_text(options: argparse.Namespace) -> "unseen.Answer[Any]":
    return unseen.influence_of_text(
        options.model,
        options.corpus,
        options.queries,
        field=options.field,
        length=options.length,
        windows=options.windows,
        cut=options.cut_off,
        write=options.write,
        candidates=options.candidates,
        shard=options.shard,
        **_settings(options),
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "top": options.top,
        "curvature": options.curvature,
        "iterations": options.iterations,
        "fisher": options.fisher or None,
        "damping": options.damping,
        "layers": options.layers,
        "rank": options.rank,
        "precision": options.precision,
        "batch_size": options.batch,
        "disk": options.disk,
        "factors": None if options.factors is None else Path(options.factors),
    }
