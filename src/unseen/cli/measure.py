"""`unseen measure`: every number about a model that applies to it."""

import argparse
from collections.abc import Sequence
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.cli.subject_options import (
    DATA,
    TEXT,
    TRAINING,
    add_corpus,
    add_data,
    add_model,
    add_output,
    add_training,
    present,
    shared_options,
    subject_and_table,
)
from unseen.errors import InvalidConfig

MEASURES = "measures"


def parser() -> Arguments:
    p = Arguments(
        "unseen measure",
        "Every number about a model that applies: value, interval, direction, cost, meaning.",
        "unseen measure table.csv --target y --site s    each site held out in turn\n"
        "unseen measure my_model.py:subject              any PyTorch model and data\n"
        "unseen measure --model FOLDER --corpus texts/   a language model on windows of text\n"
        "unseen measure                                  the embedded heart-disease data\n",
        groups=(DATA, TEXT, MEASURES, TRAINING),
    )
    add_data(p)
    p.option(
        DATA,
        "--block",
        metavar="COLUMN",
        help="rows that hang together (household, admitted:month): intervals draw whole blocks",
    )
    p.option(DATA, "--example", metavar="NAME", help="embedded data instead: heart, bikes or air")
    add_corpus(p)
    p.option(
        TEXT,
        "--windows",
        type=int,
        default=64,
        help="number of windows to read (default 64; 0: all)",
    )
    p.repeatable(
        MEASURES,
        "--measure",
        "only this measure, by its name in the report, whatever it costs",
        metavar="NAME",
    )
    p.option(
        MEASURES,
        "--against",
        metavar="FILE.py:NAME",
        help="another model for the same data (a subject, or an estimator for the table): paired "
        "differences",
    )
    p.option(
        TRAINING,
        "--seeds",
        type=int,
        default=3,
        help="trainings per held-out site (default 3)",
    )
    add_training(p)
    add_model(p)
    p.option(
        TRAINING, "--jobs", type=int, default=1, help="processes that share the held-out sites"
    )
    add_output(p, "unseen-measures.html")
    return p


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    present(_of_text(options) if options.corpus else _of_subject(options), options)
    return 0


def _of_subject(options: argparse.Namespace) -> "unseen.Answer[Any]":
    return unseen.measure(
        *subject_and_table(options),
        measures=options.measure,
        mode=options.mode,
        predictions=options.predictions,
        estimator=options.estimator,
        against=options.against,
        seeds=options.seeds,
        example=options.example,
        jobs=options.jobs,
        block=options.block,
        **shared_options(options),
    )


def _of_text(options: argparse.Namespace) -> "unseen.Answer[Any]":
    if not options.model or options.subject or options.against:
        extra = options.subject or options.against
        raise InvalidConfig(
            "A corpus was given, " + (f"and `{extra}`." if extra else "and --model is missing."),
            why="a language model is measured on a corpus, and on nothing else.",
            fix="unseen measure --model smollm2 --corpus plays.txt",
        )
    return unseen.measure_of_text(
        options.model,
        options.corpus,
        measures=options.measure,
        field=options.field,
        length=options.length,
        windows=options.windows,
        cut=options.cut_off,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )
