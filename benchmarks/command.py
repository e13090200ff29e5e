"""The command of benchmarks whose figures are measured one by one."""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch


def measure(doc: str | None, entries: Mapping[str, Callable[[int], Mapping[str, Any]]]) -> None:
    """Parses `--json --rounds N --only NAME …`, measures on one thread, prints the figures."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(entries), default=list(entries))
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in options.only:
        torch.manual_seed(0)
        results |= entries[name](options.rounds)
    print(json.dumps(results, indent=1) if options.json else results)
