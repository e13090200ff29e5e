"""`unseen compare pairs.tsv --by length`: methods trained on a harder split of a file of pairs, or
with `--split-only DIR` the split as files.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import unseen
from unseen.cli.arguments import Arguments
from unseen.cli.subject_options import present
from unseen.errors import InvalidConfig

PAIRS = "pairs of texts"
SHARE = 0.2
TASK_RULES = ("task", "category", "dataset")
RULES = ("length", "primitive", "template", "divergence", "lexical")
LEVEL = "level"
"""No rule for pairs: logged games are split so."""


def add_pairs(p: Arguments) -> None:
    """How a file of sources and targets is split."""
    p.option(
        PAIRS,
        "--by",
        choices=(*RULES, *TASK_RULES, LEVEL),
        help="split the pairs of a .csv, .tsv or .jsonl file by this rule and train decoders "
        "on it, by default with every kind of positions (encoder–decoders by --method, or with "
        "--model FOLDER of a T5 or BART); by task, category or dataset: "
        "instructions of a .jsonl file or a folder, for a language model; by level: logged games",
    )
    p.option(
        PAIRS,
        "--source",
        default="source",
        help="column of the sources, --target that of the targets (default: so called)",
    )
    p.option(
        PAIRS,
        "--share",
        type=float,
        help="share of the test pairs or problems (default 0.2), of the unseen tasks (0.25), or of "
        "general data in a step (0.5)",
    )
    p.option(
        PAIRS,
        "--split-only",
        metavar="DIR",
        help="write train.tsv, test.tsv and split.json (rule, counts, overlap) there and stop",
    )
    p.option(
        PAIRS,
        "--hint",
        metavar="FILE",
        help="easier pairs with the same columns, for half of the minibatches of a method more",
    )
    p.option(
        PAIRS,
        "--copies",
        type=int,
        default=20,
        help="copies of every primitive or token, for methods that add them (default 20): "
        '--method "rotary + primitive copies"',
    )


def answer_pairs(options: argparse.Namespace, methods: Sequence[str]) -> int:
    """Splits the file and writes the parts, or trains on them; returns the exit code."""
    if not options.by or not options.subject:
        raise InvalidConfig(
            "A split of pairs needs a file and --by.",
            why="the rule says what the test asks.",
            fix="unseen compare pairs.tsv --by length",
        )
    if options.split_only:
        return write_split(options)
    found = unseen.compare_pairs(
        options.subject,
        by=options.by,
        source=options.source,
        target=options.target or "target",
        share=SHARE if options.share is None else options.share,
        hint=options.hint,
        copies=options.copies,
        methods=methods,
        model=options.model,
        seeds=options.seeds,
        steps=options.steps,
        seed=options.seed,
        device=options.device,
        progress=not options.quiet,
        report=options.report,
    )
    present(found, options)
    return 0


def write_split(options: argparse.Namespace) -> int:
    """Writes the parts of the split."""
    from unseen.tasks.token_pairs import RULES as rules
    from unseen.tasks.token_pairs import read_pairs, write_parts

    target = options.target or "target"
    pairs = read_pairs(options.subject, options.source, target)
    split = rules[options.by](pairs, SHARE if options.share is None else options.share)
    paths = write_parts(split, options.split_only, options.source, target)
    facts: dict[str, Any] = {"by": options.by, "rule": split.rule, "counts": split.counts()}
    if options.json:
        print(json.dumps({**facts, "files": [str(path) for path in paths]}, indent=2))
        return 0
    print(f"{options.by}: {split.rule}")
    print(" · ".join(f"{name} {n:,}" for name, n in split.counts().items()))
    if split.unknown_words:
        print(f"not in any training source: {', '.join(split.unknown_words[:10])}")
    print("\n".join(f"wrote {path}" for path in paths))
    return 0
