"""`unseen compare pairs.tsv --by length --split-only DIR`: the options of a file of pairs, and the
harder split as files.
"""

import argparse
import json
from typing import Any

from unseen.cli.arguments import Arguments
from unseen.errors import InvalidConfig

PAIRS = "pairs of texts"
RULES = ("length", "primitive", "template", "divergence", "lexical")


def add_pairs(p: Arguments) -> None:
    """How a file of sources and targets is split."""
    p.option(
        PAIRS,
        "--by",
        choices=RULES,
        help="split the pairs of a .csv, .tsv or .jsonl file by this rule (with --split-only)",
    )
    p.option(
        PAIRS,
        "--source",
        default="source",
        help="column of the sources, --target that of the targets (default: so called)",
    )
    p.option(
        PAIRS, "--share", type=float, default=0.2, help="share of the test pairs (default 0.2)"
    )
    p.option(
        PAIRS,
        "--split-only",
        metavar="DIR",
        help="write train.tsv, test.tsv and split.json (rule, counts, overlap) there and stop",
    )


def write_split(options: argparse.Namespace) -> int:
    """Splits the file and writes the parts; returns the exit code."""
    from unseen.tasks.token_pairs import RULES as rules
    from unseen.tasks.token_pairs import read_pairs, write_parts

    if not options.by or not options.split_only or not options.subject:
        raise InvalidConfig(
            "A split of pairs needs a file, --by and --split-only.",
            why="the rule says what the test asks, the folder where the parts go; methods are "
            "compared on the parts from Python (docs/task.md).",
            fix="unseen compare pairs.tsv --by length --split-only parts",
        )
    target = options.target or "target"
    pairs = read_pairs(options.subject, options.source, target)
    split = rules[options.by](pairs, options.share)
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
