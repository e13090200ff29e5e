"""`unseen measure`: every number about a model that applies to it."""

import argparse
from collections.abc import Sequence
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.cli.executor_options import add_executor, chosen_executor, refuse_executor
from unseen.cli.subject_options import (
    DATA,
    TEXT,
    TRAINING,
    add_corpus,
    add_data,
    add_model,
    add_output,
    add_text_reading,
    add_training,
    present,
    shared_options,
    subject_and_table,
    text_options,
)
from unseen.errors import InvalidConfig

MEASURES, SWEEP = "measures", "sweep of many models"


def parser() -> Arguments:
    p = Arguments(
        "unseen measure",
        "Every number about a model that applies: value, interval, direction, cost, meaning.",
        "unseen measure table.csv --target y --site s    each site held out in turn\n"
        "unseen measure my_model.py:subject              any PyTorch model and data\n"
        "unseen measure --model FOLDER --corpus texts/   a language model on windows of text\n"
        "unseen measure --model FOLDER --items q.jsonl   a language model on multiple choice\n"
        "unseen measure --text a.txt --human texts/      did a machine write it?\n"
        "unseen measure essays.csv --text essay          the same of every cell of a column\n"
        "unseen measure notes.csv --text note --target y   a model that reads a column of texts\n"
        "unseen measure --sweep runs.csv                 which measure foretells the gap\n"
        "unseen measure scores.csv --concurrence         do benchmarks order models alike\n"
        "unseen measure table.csv --target y --difficulty   how hard the task itself is\n"
        "unseen measure                                  the embedded heart-disease data\n",
        groups=(DATA, TEXT, MEASURES, SWEEP, TRAINING),
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
    add_items(p)
    p.option(
        TEXT,
        "--text",
        nargs="+",
        default=[],
        metavar="FILE",
        help="did a machine write it? files, .jsonl files or folders, of a table a column; never "
        "proof about a person. With a table and --target: the column that the model reads",
    )
    add_text_reading(p, TEXT)
    p.option(
        TEXT,
        "--human",
        nargs="+",
        default=[],
        metavar="PATH",
        help="texts that people wrote, for a threshold at 1 %% false positives: 99 or more",
    )
    p.repeatable(
        MEASURES,
        "--measure",
        "only this measure, by its name in the report, whatever it costs; of a sweep a column",
        metavar="NAME",
    )
    p.option(
        MEASURES,
        "--minutes",
        type=float,
        help="what all measures of a model may take, as estimated for one core before they are "
        "read (default 10); those beyond it are left out by name, the cheapest are read first",
    )
    p.option(
        SWEEP,
        "--sweep",
        metavar="PATH",
        help="which measure foretells the gap: a table with one row per trained model, or a folder "
        "of such tables or of stored runs",
    )
    p.option(SWEEP, "--gap", default="gap", metavar="COLUMN", help="what is foretold (default gap)")
    p.repeatable(
        SWEEP,
        "--axis",
        "column of a hyperparameter (default: columns with few values that are no measure)",
        metavar="COLUMN",
    )
    p.option(
        SWEEP,
        "--permutations",
        type=int,
        default=199,
        help="exchanges of gaps behind a p value (default 199)",
    )
    p.option(
        SWEEP,
        "--concurrence",
        action="store_true",
        help="do benchmarks agree: the table has a row per training, with the columns model, "
        "split, score, and seed, source, strategy where there are any",
    )
    p.option(
        MEASURES,
        "--difficulty",
        action="store_true",
        help="how hard the task is instead, and which model's test error supplies how much",
    )
    p.option(
        MEASURES,
        "--eps",
        type=float,
        default=1e-3,
        help="error that would be good enough, for --difficulty (default 0.001)",
    )
    p.option(
        MEASURES,
        "--separation",
        type=float,
        help="how far apart inputs with different answers are, for --difficulty (default: the "
        "closest pair of two classes)",
    )
    p.option(
        MEASURES,
        "--no-models",
        action="store_true",
        help="the difficulty alone: nothing is trained",
    )
    p.option(
        MEASURES,
        "--against",
        metavar="FILE.py:NAME",
        help="another model for the same data (a subject, or an estimator for the table): paired "
        "differences; of --text the second model of Binoculars (a folder)",
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
        TRAINING,
        "--jobs",
        "--max-jobs",
        type=int,
        default=1,
        help="held-out sites computed at once, by processes or jobs of a cluster (default 1)",
    )
    # `--minutes` is what the measures may take
    add_executor(p, TRAINING, "the held-out sites", "site", "--site-minutes")
    add_output(p, "unseen-measures.html")
    return p


def add_items(p: Arguments) -> None:
    """Multiple-choice items and what makes them hard."""
    p.option(
        TEXT,
        "--items",
        metavar="FILE",
        help="multiple-choice items instead of a corpus, a JSON object per line: question (or "
        "prompt), choices, answer, annotations",
    )
    p.option(
        TEXT,
        "--hardness",
        default="length",
        metavar="NAME",
        help="of an item: length, an annotation, likelihood (under --hardness-model) or probe "
        "(default length)",
    )
    p.option(
        TEXT,
        "--hardness-model",
        metavar="FOLDER",
        help="another language model, which says how hard an item is",
    )
    p.option(
        TEXT,
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="of --items; bfloat16 is about twice as fast, and what it changes is said",
    )


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
