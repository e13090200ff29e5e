"""CPU seconds and peak memory of an audit, by size of the table and by part, and how they grow.

    python benchmarks/audit.py --json
    python benchmarks/audit.py --only n=10k --only p=300 --limit 600

Tables are made up: columns of which a fifth carry signal (every tenth holds words), two classes,
five sites, written as CSV and read again. `n=…` are rows by 30 columns, `p=…` columns by 1,000
rows, `heart` is the embedded example. Each size is audited in a process of its own, on one thread,
and stopped after `--limit` CPU seconds; `parts` then says how far it came. An exponent is that of
size in CPU seconds, by least squares over the logarithms; `exponent of the last step` compares the
two largest sizes, where what every audit costs counts least.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from unseen.lab import Lab
from unseen.questions.audit import job

T = TypeVar("T")
SITES, COLUMNS, ROWS = 5, 30, 1_000
SIZES = {
    "heart": (0, 0),
    "n=1k": (1_000, COLUMNS),
    "n=10k": (10_000, COLUMNS),
    "n=100k": (100_000, COLUMNS),
    "n=1M": (1_000_000, COLUMNS),
    "p=30": (ROWS, 30),
    "p=300": (ROWS, 300),
    "p=3000": (ROWS, 3_000),
}


def table(rows: int, columns: int) -> pd.DataFrame:
    """Two classes whose log odds are linear in a fifth of the columns."""
    rng = np.random.default_rng(rows + columns)
    x = rng.normal(size=(rows, columns))
    weights = np.where(np.arange(columns) % 5 == 1, 1.0, 0.0)
    z = x @ weights / np.sqrt(max(1.0, weights.sum())) * 1.5
    words = np.array(["low", "middle", "high", "top"])
    inputs = {
        f"x{k}": words[np.digitize(x[:, k], [-0.7, 0.0, 0.7])] if k % 10 == 0 else x[:, k].round(4)
        for k in range(columns)
    }
    y = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(int)
    site = [f"site {k}" for k in rng.integers(SITES, size=rows)]
    return pd.DataFrame({**inputs, "y": y, "site": site})


class TimedParts(job.Parts):
    """The parts of an audit, which print their CPU seconds when they end; `seconds` of its results
    are those of a clock, and a size that is stopped has no results.
    """

    def __call__(self, name: str, part: Callable[[], T], default: T) -> T:
        began = time.process_time()
        found = super().__call__(name, part, default)
        say(part=name, seconds=time.process_time() - began)
        return found


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def audit_in_this_process(name: str, path: str) -> None:
    """Prints one line of JSON per part and one at the end; imports are not counted."""
    import unseen

    job.Parts = TimedParts  # type: ignore[misc]
    rows, _ = SIZES[name]
    audit = unseen.audit  # imported when it is asked for
    began = time.process_time()
    columns = {"target": "y", "site": "site"} if rows else {}
    answer = audit(path if rows else None, lab=Lab(seed=0), progress=False, **columns)
    skipped = sorted({part for one in answer.results for part in one.skipped})
    training = sum(one.seconds["training"] for one in answer.results)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux: in KiB
    say(cpu_seconds=time.process_time() - began, peak_gib=peak, skipped=skipped, training=training)


def measure(name: str, limit: int) -> dict[str, object]:
    """The audit of one size in a process of its own."""
    rows, columns = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        if rows:
            table(rows, columns).to_csv(path, index=False)
        child = subprocess.run(
            [sys.executable, __file__, "--child", name, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)),
        )
    parts: dict[str, float] = {}
    found: dict[str, object] = {"size": name, "rows": rows, "columns": columns, "finished": False}
    for line in map(json.loads, child.stdout.splitlines()):
        if "part" in line:
            parts[line["part"]] = parts.get(line["part"], 0.0) + line["seconds"]
        else:
            found |= {**line, "finished": True}
    rest = float(found.get("cpu_seconds", limit)) - sum(parts.values())  # type: ignore[arg-type]
    return {**found, "parts": {**parts, "reading, training, writing": rest}}


def exponents(sizes: list[float], seconds: list[float]) -> dict[str, float]:
    if len(sizes) < 2:
        return {}
    x, y = np.log(sizes), np.log(seconds)
    return {
        "exponent": float(np.polyfit(x, y, 1)[0]),
        "exponent of the last step": float((y[-1] - y[-2]) / (x[-1] - x[-2])),
    }


def growth(found: list[dict[str, object]], axis: str) -> dict[str, object]:
    """How CPU seconds grow along "rows" or "columns", in all and by part."""
    name = {"rows": "n=", "columns": "p="}[axis]
    done = [one for one in found if str(one["size"]).startswith(name) and one["finished"]]
    sizes = [one[axis] for one in done]
    whole = exponents(sizes, [one["cpu_seconds"] for one in done])  # type: ignore[arg-type]
    parts = {
        part: exponents(sizes, [max(1e-3, one["parts"].get(part, 0.0)) for one in done])  # type: ignore[attr-defined, arg-type]
        for part in (done[-1]["parts"] if len(done) > 1 else ())  # type: ignore[attr-defined]
    }
    return {**whole, "parts": parts}


def write(found: list[dict[str, object]]) -> None:
    for one in found:
        seconds, peak = one.get("cpu_seconds"), one.get("peak_gib")
        cost = f"{seconds:8.1f} CPU s {peak:6.2f} GiB" if one["finished"] else "    unfinished"
        print(f"{one['size']:8}{cost}")
        for part, taken in sorted(one["parts"].items(), key=lambda item: -item[1]):  # type: ignore[attr-defined]
            print(f"    {taken:8.2f}  {part}")
    for axis in ("rows", "columns"):
        line = growth(found, axis)
        if "exponent" in line:
            print(
                f"CPU seconds grow with the power {line['exponent']:.2f} of {axis}; "
                f"{line['exponent of the last step']:.2f} between the two largest tables"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(SIZES), default=[])
    parser.add_argument("--limit", type=int, default=1_800, help="CPU seconds per size")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        audit_in_this_process(*options.child)
        return
    found = [measure(name, options.limit) for name in options.only or SIZES]
    if options.json:
        summary = {axis: growth(found, axis) for axis in ("rows", "columns")}
        print(json.dumps({"sizes": found, "growth": summary}, indent=1))
    else:
        write(found)


if __name__ == "__main__":
    main()
