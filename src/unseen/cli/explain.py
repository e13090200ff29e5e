"""`unseen explain`: what a model looks at, by the explanation that is most faithful to it, example
by example.
"""

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
        "best of them example by example.",
        "Without a subject: the embedded UCI heart-disease data. A table needs --target; a model "
        "is trained on it,\n"
        "with --site without the last site. An interrupted run goes on where it stopped.\n"
        "Exit codes: 0 fine, 2 usage or input error.",
        groups=(DATA, EXPLANATION, TRAINING),
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
    add_training(p)
    add_model(p, predictions=False)
    add_output(p, "unseen-explanation.html")
    return p


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    found = unseen.explain(
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
        **shared_options(options),
    )
    present(found, options)
    return 0


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
