"""Speed of what is done with language models, in CPU seconds; ratios to a reference of the same
run.

    python benchmarks/language.py --json [--only NAME]

* `embed_sentences_per_second`: sentences of 5 to 40 words embedded per CPU second by each embedder
  whose package is installed; `over_one_by_one` is MiniLM in batches of like length over the same
  sentences one at a time (`embed` of lists of one).
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from unseen.errors import MissingExtra
from unseen.lab import Lab
from unseen.models.embedders import NAMES, find_embedder

SENTENCES = 200
WORDS = [
    *("the", "patient", "was", "admitted", "with", "pain", "in", "her", "left", "arm", "after"),
    *("a", "fall", "from", "the", "stairs"),
]


def cpu_seconds(run: Callable[[], Any]) -> float:
    """Of all threads of the process."""
    start = time.process_time()
    run()
    return time.process_time() - start


def sentences(n: int) -> list[str]:
    """Of 5 to 40 common words, in a fixed random order."""
    rng = Lab(0).child("sentences").numpy()
    return [" ".join(rng.choice(WORDS, rng.integers(5, 41))) for _ in range(n)]


def embed() -> dict[str, Any]:
    """Sentences per CPU second, after a warm-up that loads the model."""
    texts, found = sentences(SENTENCES), dict[str, Any]()
    for name in NAMES:
        try:
            embedder = find_embedder(name).fit(texts)
            embedder.embed(texts[:8])
        except MissingExtra as error:
            found[name] = f"not measured: {error.what}"
            continue
        seconds = cpu_seconds(lambda embedder=embedder: embedder.embed(texts))
        found[name] = SENTENCES / seconds
        if name == "minilm":
            alone = cpu_seconds(lambda one=embedder: [one.embed([text]) for text in texts])
            found["over_one_by_one"] = alone / seconds
    return found


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "embed_sentences_per_second": embed,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", choices=tuple(BENCHMARKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = {name: run() for name, run in BENCHMARKS.items() if options.only in (None, name)}
    if options.json:
        print(json.dumps(out, indent=2))
        return
    for name, row in out.items():
        print(name, *(f"{key}={value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
