"""How often a nominal 95 % interval holds the truth, by function of `unseen.stats` and
`unseen.study`, situation and number of units.

`python benchmarks/coverage.py` prints a table with a line per function and situation and a column
per n; `--json` one entry per simulation, `--repeats` draws each (a thousand: simulation error 0.7
points), `--only mean auc` some functions. The situations are those of
`tests/interval_simulations.py`, where the tests ask for 93 % or for what a docstring says.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from interval_simulations import NOMINAL, Simulation, simulations


def measured(simulation: Simulation, repeats: int) -> dict[str, Any]:
    start = time.process_time()
    return {
        "function": simulation.function,
        "situation": simulation.situation,
        "n": simulation.n,
        "coverage": simulation.coverage(repeats),
        "asked": simulation.least,
        "repeats": repeats,
        "seconds": time.process_time() - start,
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Percent by n; * where a docstring names the case and less than 93 % is asked."""
    lines: dict[tuple[str, str], list[str]] = {}
    for one in found:
        mark = "*" if one["asked"] < NOMINAL else ""
        text = f"{one['n']}: {100 * one['coverage']:.1f}{mark}"
        lines.setdefault((one["function"], one["situation"]), []).append(text)
    wide = [max(len(key[k]) for key in lines) for k in range(2)]
    return "\n".join(
        f"{function:{wide[0]}}  {situation:{wide[1]}}  {'  '.join(values)}"
        for (function, situation), values in lines.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=1_000)
    parser.add_argument("--only", nargs="+", metavar="FUNCTION")
    options = parser.parse_args()
    chosen = [one for one in simulations() if options.only is None or one.function in options.only]
    found = [measured(one, options.repeats) for one in chosen]
    print(json.dumps(found, indent=1) if options.json else table(found))


if __name__ == "__main__":
    main()
