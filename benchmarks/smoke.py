"""CPU seconds of every study's smoke scale on one thread; fails where one costs more than 5.

    python benchmarks/smoke.py [NAME ...] [--json]

The suite runs the same cells without judging their time, so that a busy machine cannot fail it.
"""

import argparse
import json
import sys
import time

import torch

from unseen.lab import Lab
from unseen.runs import catalog
from unseen.study import Scale

ALLOWED = 5.0


def smoke_seconds(name: str) -> float:
    """CPU seconds of one smoke scale, imports not counted."""
    study = catalog.load(name)
    start = time.process_time()
    for cell in study.cells(study.scales[Scale.SMOKE]):
        for _ in study.run(cell, Lab(seed=cell.seed)):
            pass
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds = {name: smoke_seconds(name) for name in arguments.names or catalog.names()}
    if arguments.json:
        print(json.dumps({"allowed": ALLOWED, "cpu_seconds": seconds}, indent=1))
    else:
        for name, taken in seconds.items():
            print(f"{name:28} {taken:5.2f} CPU s{'' if taken <= ALLOWED else '  too slow'}")
    return int(any(taken > ALLOWED for taken in seconds.values()))


if __name__ == "__main__":
    sys.exit(main())
