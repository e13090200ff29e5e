"""`unseen compare problems.jsonl --programs`: the options of problems with executable answers."""

import argparse
from collections.abc import Sequence
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.errors import InvalidConfig

PROGRAMS = "problems with programs"
SHARE = 0.2
"""Of the problems, by default, unseen."""


def add_programs(p: Arguments) -> None:
    p.option(
        PROGRAMS,
        "--programs",
        action="store_true",
        help="does a model gain from its own right programs? For a .jsonl file with question, "
        "answer and program (or GSM8K's marks); --model FOLDER fine-tunes a language model, "
        "without it one is trained from scratch",
    )
    p.option(
        PROGRAMS,
        "--samples",
        type=int,
        default=20,
        help="programs sampled for each unseen problem (default 20)",
    )
    p.option(
        PROGRAMS,
        "--teach",
        metavar="STUDENT",
        help="choose among the samples by how well a student solves similar problems behind them: "
        "a model folder, or scratch for one that is trained here",
    )


def compare_programs(options: argparse.Namespace, methods: Sequence[str]) -> "unseen.Answer[Any]":
    if not options.subject:
        raise InvalidConfig(
            "--programs was given without a file of problems.",
            why="programs are written for problems whose answers are known.",
            fix="unseen compare problems.jsonl --programs",
        )
    return unseen.compare_programs(
        options.subject,
        methods=methods,
        model=options.model,
        teach=options.teach,
        samples=options.samples,
        share=SHARE if options.share is None else options.share,
        seeds=options.seeds,
        steps=options.steps,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )
