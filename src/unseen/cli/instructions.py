"""A language model fine-tuned on instructions: `unseen compare instructions.jsonl --by task --model
FOLDER` and `unseen compare target.jsonl --mix general.jsonl --model FOLDER`.
"""

import argparse
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.errors import InvalidConfig

INSTRUCTIONS = "instructions"


def add_instructions(p: Arguments) -> None:
    """What is mixed, and how the language model is tuned."""
    p.option(
        INSTRUCTIONS,
        "--mix",
        metavar="FILE",
        help="how much are these general instructions worth to the target, the subject?",
    )
    p.option(
        INSTRUCTIONS,
        "--sizes",
        metavar="N,N",
        help="target examples to train on (default: a sixteenth, a quarter and all)",
    )
    p.repeatable(
        INSTRUCTIONS,
        "--unseen",
        "a task that is kept from training; without any, a share is drawn",
        metavar="TASK",
    )
    p.option(INSTRUCTIONS, "--lr", type=float, default=3e-5, help="learning rate (default 3e-5)")
    p.option(
        INSTRUCTIONS,
        "--lora",
        type=int,
        metavar="RANK",
        help="train adapters of this rank instead of all weights",
    )
    p.option(
        INSTRUCTIONS,
        "--prompt-tokens",
        type=int,
        default=384,
        help="tokens of a prompt with its answer at most (default 384)",
    )
    p.option(
        INSTRUCTIONS,
        "--answer-tokens",
        type=int,
        default=48,
        help="of which the answer has at most",
    )


def compare_instructions(options: argparse.Namespace) -> "unseen.Answer[Any]":
    """Unseen tasks with and without their instruction."""
    refuse_no_model(options, f"unseen compare instructions.jsonl --by {options.by} --model FOLDER")
    return unseen.compare_instructions(
        options.subject,
        by=options.by,
        share=0.25 if options.share is None else options.share,
        unseen=options.unseen,
        n_train=40 if options.train_items is None else options.train_items,
        n_test=20 if options.test_items is None else options.test_items,
        shots=1 if options.shots is None else options.shots,
        **tuning_options(options),
    )


def compare_mixture(options: argparse.Namespace) -> "unseen.Answer[Any]":
    """Specialist, generalist and mixture."""
    refuse_no_model(options, "unseen compare target.jsonl --mix general.jsonl --model FOLDER")
    return unseen.compare_mixture(
        options.subject,
        options.mix,
        share=0.5 if options.share is None else options.share,
        sizes=read_sizes(options.sizes),
        n_test=60 if options.test_items is None else options.test_items,
        **tuning_options(options),
    )


def tuning_options(options: argparse.Namespace) -> dict[str, Any]:
    """What both have in common."""
    return {
        "model": options.model,
        "steps": options.steps,
        "lr": options.lr,
        "lora": options.lora,
        "length": options.prompt_tokens,
        "answer_tokens": options.answer_tokens,
        "precision": options.precision,
        "seed": options.seed,
        "device": options.device,
        "progress": not options.quiet,
        "report": options.report,
    }


def refuse_no_model(options: argparse.Namespace, fix: str) -> None:
    if not options.subject or not options.model:
        raise InvalidConfig(
            "Instructions were given without a file of them, or without --model.",
            why="a causal language model is fine-tuned on them.",
            fix=fix,
        )


def read_sizes(text: str | None) -> tuple[int, ...]:
    """ "50,200" → both numbers."""
    try:
        return tuple(int(part) for part in (text or "").split(",") if part)
    except ValueError:
        raise InvalidConfig(
            f"`--sizes {text}` are no numbers.",
            why="each is a number of target examples.",
            fix="write --sizes 50,200.",
        ) from None
