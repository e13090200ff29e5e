"""`unseen explain`: what a model looks at, by the explanation that is most faithful to it, example
by example; of a language model, where its answers appear and what carries them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.cli.subject_options import (
    DATA,
    TEXT,
    TEXTS,
    TRAINING,
    add_data,
    add_model,
    add_output,
    add_text,
    add_training,
    present,
    shared_options,
    subject_and_table,
    text_options,
)
from unseen.errors import InvalidConfig

EXPLANATION = "explanation"
METHODS = (
    "lime",
    "clime",
    "kernelshap",
    "occlusion",
    "vanillagradients",
    "gradientinput",
    "smoothgrad",
    "integratedgradients",
)
"""What may be typed for each method, whatever its case and hyphens."""
QUESTIONS = ("change", "remove")


def parser() -> Arguments:
    p = Arguments(
        "unseen explain",
        "What does a model look at? Eight explanation methods, evaluated by how faithful they are "
        "to the model, and the "
        "best of them example by example. With --prompts: where in a language model the answers "
        "appear, and with --trace what carries them.",
        "unseen explain --model FOLDER --prompts p.jsonl --trace     a language model\n"
        "unseen explain texts.csv --text essay --target author --estimator "
        "unseen.models:CharNgram\n"
        "Without a subject: the embedded UCI heart-disease data. A table needs --target; a model "
        "is trained on it,\n"
        "with --site without the last site. An interrupted run goes on where it stopped.\n"
        "Exit codes: 0 fine, 2 usage or input error.",
        groups=(DATA, EXPLANATION, TEXTS, TEXT, TRAINING),
    )
    add_data(p)
    p.option(
        DATA,
        "--rows",
        help="rows of the table, or positions in the split, as 3,17 (default: drawn)",
    )
    p.option(DATA, "--examples", type=int, default=8, help="number of examples to draw (default 8)")
    p.option(
        DATA,
        "--split",
        default="",
        help="split to draw from (default: the evaluated one that matters most)",
    )
    p.option(EXPLANATION, "--method", default="auto", help=f"auto (default), {', '.join(METHODS)}")
    p.option(
        EXPLANATION,
        "--question",
        choices=QUESTIONS,
        default="remove",
        help="what the explanation is for: features removed (default), or inputs changed a little",
    )
    p.option(EXPLANATION, "--class", dest="explained_class",
             help="class to explain (default: the predicted one of each example)")  # fmt: skip
    p.option(
        EXPLANATION,
        "--baseline",
        type=float,
        help="value (token number) of a removed feature (default: the mean of the training inputs)",
    )
    p.option(EXPLANATION, "--sigma", type=float, default=0.25,
             help="noise for --question change, in standard deviations (default 0.25)")  # fmt: skip
    p.option(
        EXPLANATION,
        "--sample",
        type=int,
        default=64,
        help="inputs on which methods are compared (default 64)",
    )
    p.option(
        EXPLANATION,
        "--draws",
        type=int,
        default=1_000,
        help="perturbations per input (default 1000)",
    )
    add_text(p)
    _add_text(p)
    add_training(p)
    add_model(p, predictions=False)
    add_output(p, "unseen-explanation.html")
    return p


def _add_text(p: Arguments) -> None:
    p.option(
        TEXT,
        "--prompts",
        help="file (.jsonl) of prompts for the language model in the folder --model (or smollm2): "
        "fields prompt, answer, counterfactual, counterfactual_answer, intermediate",
    )
    p.option(
        TEXT,
        "--trace",
        action="store_true",
        help="exchange states with those of the counterfactual prompts, layer by layer",
    )
    p.repeatable(
        TEXT, "--layers", "module to look at, the last one before the head last (default: blocks)"
    )
    p.option(TEXT, "--most", type=int, default=200, help="largest number of prompts (default 200)")


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    present(_answer(options), options)
    return 0


def _answer(options: argparse.Namespace) -> "unseen.Answer[Any]":
    if options.text and options.estimator:
        return _of_authors(options)
    return _of_text(options) if _asks_about_text(options) else _of_subject(options)


def _asks_about_text(options: argparse.Namespace) -> bool:
    named = options.model is not None and not options.text
    is_language_model = named and (options.model == "smollm2" or Path(options.model).is_dir())
    return bool(options.prompts or options.trace or is_language_model)


def _of_text(options: argparse.Namespace) -> "unseen.Answer[Any]":
    given = {"--model": options.model, "--prompts": options.prompts}
    missing = [name for name, value in given.items() if not value]
    if missing or options.subject:
        extra = (
            f"{' and '.join(missing)} is missing"
            if missing
            else f"`{options.subject}` is a subject"
        )
        raise InvalidConfig(
            f"An explanation of a language model was requested, and {extra}.",
            why="it needs --model and --prompts, and no subject.",
            fix="unseen explain --model smollm2 --prompts p.jsonl --trace",
        )
    return unseen.explain_of_text(
        options.model,
        options.prompts,
        trace=options.trace,
        layers=options.layers,
        most=options.most,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )


def _of_subject(options: argparse.Namespace) -> "unseen.Answer[Any]":
    return unseen.explain(
        *subject_and_table(options),
        estimator=options.estimator,
        mode=options.mode,
        split=options.split,
        rows=row_numbers(options.rows),
        examples=options.examples,
        method=options.method,
        question=options.question,
        explained_class=options.explained_class,
        baseline=options.baseline,
        sigma=options.sigma,
        sample=options.sample,
        draws=options.draws,
        **(text_options(options) | shared_options(options)),
    )


def _of_authors(options: argparse.Namespace) -> "unseen.Answer[Any]":
    """Credits of an estimator's features in texts."""
    if options.method != "auto" or options.model or options.mode:
        given = "--method" if options.method != "auto" else "--model or --mode"
        raise InvalidConfig(
            f"{given} was given beside an estimator of texts.",
            why="its credits are exact and need no choice of a method.",
            fix="leave it out.",
        )
    shared = shared_options(options)
    shared.pop("steps", None)
    return unseen.explain_authors(
        options.subject,
        estimator=options.estimator,
        split=options.split,
        rows=row_numbers(options.rows),
        examples=options.examples,
        author=options.explained_class,
        **(text_options(options) | shared),
    )


def row_numbers(text: str | None) -> tuple[int, ...]:
    """ "3,17" → 3 and 17."""
    if text is None:
        return ()
    try:
        return tuple(int(word) for word in text.replace(" ", "").split(",") if word)
    except ValueError as error:
        raise InvalidConfig(
            f"--rows {text} is no list of row numbers.",
            "rows count from 0.",
            "for example --rows 3,17.",
        ) from error
