"""`unseen compare items.jsonl --hardness grade`: the options of a file of multiple-choice items."""

import argparse
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.errors import InvalidConfig

ITEMS = "items with several choices"
N_TRAIN, N_TEST, SHOTS = 160, 300, 5


def add_items(p: Arguments) -> None:
    """How items are divided and read."""
    p.option(
        ITEMS,
        "--hardness",
        metavar="NAME",
        help="is easy training enough for hard questions? length, likelihood, probe, or an "
        "annotation of the items in a .jsonl file (grade, steps, …)",
    )
    p.option(
        ITEMS,
        "--forget",
        metavar="TASK",
        help="does the model forget this task (field `task` of the items), trained on random "
        "answers to at most 32 of its items, and what else?",
    )
    p.option(
        ITEMS,
        "--cuts",
        metavar="LOW:HIGH",
        help="easy up to LOW, hard from HIGH on (default: 30, 40 and 30 %% of the items)",
    )
    strata = ("easy", "medium", "hard")
    p.option(ITEMS, "--train", choices=strata, default="easy", help="train on (default easy)")
    p.option(ITEMS, "--evaluate", choices=strata, default="hard", help="answer (default hard)")
    p.option(
        ITEMS,
        "--train-items",
        type=int,
        help="training items of each run, or instances of each seen task (default 160, 40)",
    )
    p.option(
        ITEMS,
        "--test-items",
        type=int,
        help="items of each stratum, or instances of each unseen task, to evaluate at most "
        "(default 300, 20; 60 with --mix)",
    )
    p.option(ITEMS, "--shots", type=int, help="examples in context (default 5; 1 of instructions)")
    p.option(
        ITEMS,
        "--hardness-model",
        metavar="FOLDER",
        help="language model behind --hardness likelihood (default: the evaluated one)",
    )
    p.option(
        ITEMS,
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="of a language model that reads items; bfloat16 is about twice as fast, and "
        "log-probabilities differ by about 0.1",
    )


def forget_items(options: argparse.Namespace) -> "unseen.Answer[Any]":
    """Random answers to one task of a file of items."""
    if not options.subject or not options.model:
        raise InvalidConfig(
            "--forget was given without a file of items, or without --model.",
            why="a language model is trained on random answers to items of one task.",
            fix="unseen compare items.jsonl --forget TASK --model FOLDER",
        )
    # a help page must not wait for torch
    from unseen.subjects.item_forgetting import ItemForgetting

    return unseen.forget_items(
        options.subject,
        options.forget,
        model=options.model,
        setting=ItemForgetting(
            n=min(options.train_items or 32, 32),
            held_out=options.test_items or N_TEST,
            bfloat16=options.precision == "bfloat16",
            layers=(-1,),
        ),
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )


def compare_items(options: argparse.Namespace, methods: list[str]) -> "unseen.Answer[Any]":
    """The methods on easy and hard items."""
    if not options.subject:
        raise InvalidConfig(
            "--hardness was given without a file of items.",
            why="questions with their choices and answers are read from it.",
            fix="unseen compare items.jsonl --hardness grade",
        )
    return unseen.easy_to_hard(
        options.subject,
        hardness=options.hardness,
        cuts=None if options.cuts is None else read_cuts(options.cuts),
        train=options.train,
        evaluate=options.evaluate,
        methods=methods,
        model=options.model,
        hardness_model=options.hardness_model,
        n_train=options.train_items or N_TRAIN,
        n_test=options.test_items or N_TEST,
        runs=options.seeds,
        shots=SHOTS if options.shots is None else options.shots,
        precision=options.precision,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )


def read_cuts(text: str) -> tuple[float, float]:
    """ "5:8" → both numbers."""
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise InvalidConfig(
            f"`--cuts {text}` are no two numbers.",
            why="easy ends at the first, hard begins at the second.",
            fix="write --cuts 5:8.",
        ) from None
