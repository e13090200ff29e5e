"""The options of `unseen measure`, apart from what it answers."""

from unseen.cli.arguments import Arguments
from unseen.cli.executor_options import add_executor
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
)

MEASURES, SWEEP = "measures", "sweep of many models"


def parser() -> Arguments:
    """Of the data, the texts, the measures, a sweep and training."""
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
