"""`unseen compare DATA --by level --environment ENV`: offline methods on logged games, evaluated on
levels that the data never showed.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.errors import InvalidConfig

LOGGED = "logged games of an environment"


def add_levels(p: Arguments) -> None:
    """The environment, and which levels are unseen."""
    p.option(
        LOGGED,
        "--environment",
        metavar="ENV",
        help="with --by level: where policies of a Minari data set are played, a name in "
        "Gymnasium's registry or file.py:make",
    )
    p.option(
        LOGGED,
        "--levels",
        default="level_seed",
        metavar="NAME",
        help="what holds the level in the infos of an episode; `seed`: the recorded seed of its "
        "reset (default level_seed)",
    )
    p.option(
        LOGGED,
        "--unseen-levels",
        metavar="N",
        help="how many levels behind the logged ones, or FIRST:END (default 200)",
    )
    p.option(
        LOGGED,
        "--max-steps",
        type=int,
        metavar="N",
        help="steps after which a game is cut (default: as the environment says; of a grid seen "
        "from above 80)",
    )


def answer_levels(options: argparse.Namespace, methods: Sequence[str]) -> "unseen.Answer[Any]":
    """Trains on the logged games and plays."""
    if not options.subject or not options.environment:
        raise InvalidConfig(
            "--by level needs a Minari data set and --environment.",
            why="a policy is trained on logged games and evaluated by playing new levels.",
            fix="unseen compare FOLDER --by level --environment MiniGrid-SimpleCrossingS11N5-v0",
        )
    return unseen.compare_levels(
        options.subject,
        options.environment,
        levels=options.levels,
        unseen=options.unseen_levels,
        max_steps=options.max_steps,
        methods=methods,
        seeds=options.seeds,
        steps=options.steps,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )
