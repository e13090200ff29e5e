"""Who computes: the options that `run`, `audit`, `compare` and `measure` share."""

import argparse
from typing import TYPE_CHECKING

from unseen.cli.arguments import Arguments
from unseen.errors import InvalidConfig

if TYPE_CHECKING:  # the parsers must not wait for torch
    from unseen.questions.parallel import ExecutorChoice
    from unseen.runs.clusters import Resources


def add_executor(
    p: Arguments, group: str, pieces: str, piece: str, minutes: str = "--minutes"
) -> None:
    """The executor and what is asked of it; `pieces` are what it computes at once, `minutes` is
    the option of their time.
    """
    p.option(
        group,
        "--executor",
        default="",
        metavar="NAME",
        help=f"who computes {pieces}: here, processes, dask, ray or slurm (default: here, or "
        "processes with --jobs above 1)",
    )
    p.option(
        group,
        "--address",
        default="",
        help="scheduler of a Dask or Ray cluster that runs already (default: one on this machine)",
    )
    p.option(group, "--partition", default="", help="slurm: partition of the queue")
    p.option(
        group,
        "--memory-gb",
        type=float,
        default=4.0,
        help=f"slurm, ray: memory asked for each {piece} (default 4)",
    )
    p.option(
        group,
        minutes,
        dest="piece_minutes",
        metavar="MINUTES",
        type=int,
        default=60,
        help=f"slurm: longest time of a {piece} (default 60)",
    )


def chosen_executor(options: argparse.Namespace) -> "ExecutorChoice":
    """What the options of `add_executor` ask for, as the Python functions take it."""
    from unseen.runs.clusters import executor  # after parsing

    found = executor(options.executor, requested_resources(options))
    return options.executor if options.executor in ("", "here") else found


def requested_resources(options: argparse.Namespace) -> "Resources":
    """What the options ask of a machine or cluster; without a number of jobs one at a time."""
    from unseen.runs.clusters import Resources  # after parsing

    return Resources(
        jobs=1 if options.jobs is None else options.jobs,
        address=options.address,
        partition=options.partition,
        memory_gb=options.memory_gb,
        minutes=options.piece_minutes,
    )


def refuse_executor(options: argparse.Namespace, asked: str) -> None:
    """Refuses an executor for what is computed in this process alone."""
    if options.executor not in ("", "here"):
        raise InvalidConfig(
            f"--executor {options.executor} was given with {asked}.",
            why="it is computed in this process.",
            fix="leave out --executor.",
        )
