"""`unseen measure`: every number about a model that applies to it."""

from collections.abc import Sequence

import unseen
from unseen.cli.arguments import Arguments
from unseen.cli.subject_options import (
    DATA,
    TRAINING,
    add_data,
    add_model,
    add_output,
    add_training,
    present,
    shared_options,
    subject_and_table,
)

MEASURES = "measures"


def parser() -> Arguments:
    p = Arguments(
        "unseen measure",
        "Every number about a model that applies: value, interval, direction, cost, meaning.",
        "unseen measure table.csv --target y --site s    each site held out in turn\n"
        "unseen measure my_model.py:subject              any PyTorch model and data\n"
        "unseen measure                                  the embedded heart-disease data\n",
        groups=(DATA, MEASURES, TRAINING),
    )
    add_data(p)
    p.option(
        DATA,
        "--block",
        metavar="COLUMN",
        help="rows that hang together (household, admitted:month): intervals draw whole blocks",
    )
    p.option(DATA, "--example", metavar="NAME", help="embedded data instead: heart, bikes or air")
    p.repeatable(
        MEASURES,
        "--measure",
        "only this measure, whatever it costs (names: unseen list catalogue)",
        metavar="NAME",
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
    found = unseen.measure(
        *subject_and_table(options),
        measures=options.measure,
        mode=options.mode,
        predictions=options.predictions,
        estimator=options.estimator,
        seeds=options.seeds,
        example=options.example,
        jobs=options.jobs,
        block=options.block,
        **shared_options(options),
    )
    present(found, options)
    return 0
