"""`unseen measure`: every number about a model that applies to it."""

import argparse
from collections.abc import Sequence
from typing import Any

import unseen
from unseen.cli.executor_options import chosen_executor, refuse_executor
from unseen.cli.measure_options import parser
from unseen.cli.subject_options import present, shared_options, subject_and_table, text_options
from unseen.errors import InvalidConfig


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    present(_answer(options), options)
    return 0


def _answer(options: argparse.Namespace) -> "unseen.Answer[Any]":
    for name in ("sweep", "concurrence", "items", "difficulty", "human", "corpus"):
        if getattr(options, name):
            refuse_executor(options, f"--{name}")
            if name != "corpus":
                _refuse_minutes(options, f"--{name}")
    if options.sweep:
        return _sweep(options)
    if options.concurrence:
        return _concurrence(options)
    if options.items:
        return _of_items(options)
    if options.difficulty:
        return _difficulty(options)
    if options.text and options.target:
        return _of_subject(_with_text_column(options))
    if options.text or options.human:
        refuse_executor(options, "--text without --target")
        _refuse_minutes(options, "--text without --target")
        return _authorship(options)
    return _of_text(options) if options.corpus else _of_subject(options)


def _refuse_minutes(options: argparse.Namespace, asked: str) -> None:
    """Refuses --minutes where no measures are chosen by what they cost."""
    if options.minutes is not None:
        raise InvalidConfig(
            f"--minutes was given with {asked}.",
            why="it chooses among the measures of one model, and there is nothing to choose here.",
            fix="leave out --minutes.",
        )


def _sweep(options: argparse.Namespace) -> "unseen.Answer[Any]":
    if extra := options.subject or options.model or options.target:
        raise InvalidConfig(
            f"--sweep was given with `{extra}`.",
            why="a sweep is a table of models that are measured already.",
            fix="unseen measure --sweep runs.csv",
        )
    return unseen.measure_sweep(
        options.sweep,
        gap=options.gap,
        axes=options.axis,
        measures=options.measure,
        permutations=options.permutations,
        seed=options.seed,
        report=options.report,
    )


def _concurrence(options: argparse.Namespace) -> "unseen.Answer[Any]":
    if not options.subject or (extra := options.model or options.target):
        raise InvalidConfig(
            f"--concurrence was given with `{extra}`."
            if options.subject
            else "--concurrence was given without a table.",
            why="it reads the scores of models that are judged already, and nothing else.",
            fix="unseen measure scores.csv --concurrence",
        )
    return unseen.concurrence(
        options.subject,
        permutations=options.permutations,
        seed=options.seed,
        report=options.report,
    )


def _difficulty(options: argparse.Namespace) -> "unseen.Answer[Any]":
    names = ("model", "predictions", "corpus", "against", "measure", "mode")
    if given := [f"--{name}" for name in names if getattr(options, name)]:
        raise InvalidConfig(
            f"--difficulty was given with {' and '.join(given)}.",
            why="the difficulty is that of the task, whatever the model; the models beside it are "
            "those of the audit.",
            fix="leave one of the two out.",
        )
    return unseen.difficulty(
        options.subject,
        eps=options.eps,
        separation=options.separation,
        models=not options.no_models,
        estimator=options.estimator,
        seeds=options.seeds,
        example=options.example,
        block=options.block,
        **shared_options(options),
    )


def _of_subject(options: argparse.Namespace) -> "unseen.Answer[Any]":
    reader = text_options(options) if isinstance(options.text, str) else {}
    return unseen.measure(
        *subject_and_table(options),
        measures=options.measure,
        minutes=options.minutes,
        mode=options.mode,
        predictions=options.predictions,
        estimator=options.estimator,
        against=options.against,
        seeds=options.seeds,
        example=options.example,
        jobs=options.jobs,
        executor=chosen_executor(options),
        block=options.block,
        **(reader | shared_options(options)),
    )


def _with_text_column(options: argparse.Namespace) -> argparse.Namespace:
    """The options with the one column of texts that a model reads."""
    if len(options.text) > 1 or options.human:
        what = "--human" if options.human else f"{len(options.text)} columns"
        raise InvalidConfig(
            f"--text and --target were given with {what}.",
            why="with a target a model is trained on one column of texts, and measured.",
            fix="unseen measure notes.csv --text note --target y --site hospital",
        )
    return argparse.Namespace(**{**vars(options), "text": options.text[0]})


def _authorship(options: argparse.Namespace) -> "unseen.Answer[Any]":
    names = ("corpus", "measure", "predictions", "mode", "estimator", "frozen")
    extra = [name for name in names if getattr(options, name)]
    is_table = options.subject is not None
    if extra or not options.text or (is_table and len(options.text) > 1):
        what = f"{len(options.text)} columns were given" if options.text else "no --text is there"
        if extra:
            what = f"`{getattr(options, extra[0])}` was given"
        raise InvalidConfig(
            f"Texts were asked about, and {what}.",
            why="files of text, or one column of a table, are measured under a language model, and "
            "nothing else.",
            fix="unseen measure --text a.txt --human texts/, or unseen measure essays.csv --text "
            "essay",
        )
    return unseen.measure_authorship(
        options.subject if is_table else options.text,
        column=options.text[0] if is_table else None,
        encoding=options.encoding or "utf-8",
        human=options.human,
        model=options.model or "smollm2",
        against=options.against,
        field=options.field,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
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
        minutes=options.minutes,
        field=options.field,
        length=options.length,
        windows=options.windows,
        cut=options.cut_off,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )


def _of_items(options: argparse.Namespace) -> "unseen.Answer[Any]":
    others = ("subject", "corpus", "target", "against", "measure", "predictions", "difficulty")
    extra = [name for name in others if getattr(options, name)]
    if not options.model or extra:
        raise InvalidConfig(
            "--items was given, "
            + (f"and {' and '.join(extra)}." if extra else "and --model is missing."),
            why="a language model answers items, and nothing else is read.",
            fix="unseen measure --model FOLDER --items items.jsonl",
        )
    return unseen.measure_of_items(
        options.model,
        options.items,
        hardness=options.hardness,
        hardness_model=options.hardness_model,
        precision=options.precision,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )
