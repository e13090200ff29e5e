"""Speed of what is done with language models, in CPU seconds; ratios to a reference of the same
run.

    python benchmarks/language.py --json [--only NAME]

* `embed_sentences_per_second`: sentences of 5 to 40 words embedded per CPU second by each embedder
  whose package is installed; `over_one_by_one` is MiniLM in batches of like length over the same
  sentences one at a time (`embed` of lists of one).
* `detect_vs_reference`: texts scored per CPU second for curvature, with likelihood, rank and
  entropy, over the published Fast-DetectGPT criterion (Bao et al., 2024, arXiv:2310.05130, restated
  below: one text at a time, softmax and log-softmax of all logits) with the same model, and the
  largest difference of the two curvatures.
* `finetune_vs_trl`: tokens of prompts and responses per CPU second of response-only fine-tuning of
  SmolLM2 (all weights, float32, batches of 8, two steps) over trl's SFTTrainer on the same examples
  with the loss of completions only.
* `choice_vs_lm_eval`: four-choice items (ARC-Easy, SmolLM2, float32) scored per CPU second, over
  lm-evaluation-harness with batches of 16 (one at a time takes it 2.6 times as long); and the
  largest difference of a log-likelihood.
* `cached_vs_uncached`: the same items over reading every prompt again with each choice, in batches
  of like length.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from unseen.engine.choice_likelihood import choice_likelihoods, join_tokens
from unseen.engine.decode import log_probability
from unseen.engine.loop import Budget
from unseen.engine.responses import Exchange, encode_exchanges, response_task
from unseen.errors import MissingExtra
from unseen.lab import Lab
from unseen.measures.machine_text.scorer import TextScorer
from unseen.measures.machine_text.token_statistics import curvature
from unseen.methods.response_finetune import ResponseFinetune, Weighting
from unseen.models.embedders import NAMES, find_embedder
from unseen.models.pretrained import CausalLM
from unseen.models.smollm import smollm2
from unseen.tasks.graded_questions import Item, arc

SENTENCES = 200
ITEMS = 32
UNCACHED_BATCH = 8
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


DETECTED = 16
"""Texts of some 90 tokens."""


def published_curvature(model: Any, tokens: torch.Tensor) -> float:
    """The analytic criterion as the authors' code computes it."""
    labels = tokens[:, 1:, None]
    logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[:, :-1]
    log_q = torch.log_softmax(logits, dim=-1)
    p = torch.softmax(logits, dim=-1)
    likelihood = log_q.gather(dim=-1, index=labels).squeeze(-1)
    mean = (p * log_q).sum(dim=-1)
    variance = (p * torch.square(log_q)).sum(dim=-1) - torch.square(mean)
    excess = likelihood.sum(dim=-1) - mean.sum(dim=-1)
    return (excess / variance.sum(dim=-1).sqrt()).item()


@torch.no_grad()
def detect() -> dict[str, Any]:
    """Both on the same texts, after a warm-up of each."""
    rng = Lab(0).child("texts").numpy()
    texts = [" ".join(rng.choice(WORDS, rng.integers(70, 91))) for _ in range(DETECTED)]
    try:
        model = smollm2()
    except MissingExtra as error:
        return {"detect_vs_reference": f"not measured: {error.what}"}
    scorer = TextScorer(model)
    found: dict[str, list[float]] = {}

    def published(part: list[str]) -> None:
        encoded = [torch.tensor([model.encode(text)]) for text in part]
        found["published"] = [published_curvature(model.model, one) for one in encoded]

    def ours(part: list[str]) -> None:
        found["ours"] = [curvature(one) for one in scorer.score(part)]

    seconds = {}
    for name, run in {"published": published, "ours": ours}.items():
        run(texts[:2])
        seconds[name] = cpu_seconds(lambda run=run: run(texts))
    pairs = zip(found["ours"], found["published"], strict=True)
    return {
        "texts_per_second": DETECTED / seconds["ours"],
        "over_published": seconds["published"] / seconds["ours"],
        "largest_difference": max(abs(a - b) for a, b in pairs),
    }


EXCHANGES = 16


def finetune() -> dict[str, Any]:
    """Both train the same weights on the same tokens; each example once, in two steps of 8."""
    texts = sentences(2 * EXCHANGES)
    pairs = zip(texts[:EXCHANGES], texts[EXCHANGES:], strict=True)
    exchanges = [
        Exchange(f"Continue: {one}\n", " ".join(other.split()[:8])) for one, other in pairs
    ]
    model = smollm2()
    data = encode_exchanges(exchanges, model.encode, 512, end=model.tokenizer.eos_token_id)
    budget = Budget(steps=2, batch_size=8, lr=1e-6, clip=1.0)
    method, task = ResponseFinetune(budget, weighting=Weighting.TOKENS), response_task(data)
    seconds = cpu_seconds(lambda: method.fit(model, task, Lab()))
    found = {"tokens_per_second": data.tokens / seconds}
    try:
        import datasets
        import trl
    except ImportError as error:
        return {**found, "over_trl": f"not measured: {error.name} is not installed"}
    masks, tokens = (data.columns.columns[name] for name in ("mask", "tokens"))
    ends = [int(mask.nonzero().max()) + 1 for mask in masks]
    rows = {
        "input_ids": [row[:end].tolist() for row, end in zip(tokens, ends, strict=True)],
        "completion_mask": [row[:end].int().tolist() for row, end in zip(masks, ends, strict=True)],
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = trl.SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=8,
            max_steps=2,
            learning_rate=1e-6,
            max_length=512,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            completion_only_loss=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = trl.SFTTrainer(
            model=model.model,
            args=settings,
            train_dataset=datasets.Dataset.from_dict(rows),
            processing_class=model.tokenizer,
        )
        theirs = cpu_seconds(trainer.train)
    return {**found, "trl": data.tokens / theirs, "over_trl": theirs / seconds}


def four_choice_items() -> list[Item]:
    return [item for item in arc() if len(item.choices) == 4][:ITEMS]


def score_choices(model: CausalLM, items: list[Item]) -> torch.Tensor:
    prompts, choices = [i.prompt for i in items], [i.continuations for i in items]
    return torch.cat([one.total for one in choice_likelihoods(model, prompts, choices)])


def choice_vs_lm_eval() -> dict[str, Any]:
    """Ours and the harness on the same items and the same model object."""
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        return {"ratio": f"not measured: {error}"}
    model, items, seconds = smollm2(), four_choice_items(), dict[str, float]()
    requests = [
        Instance("loglikelihood", {}, (item.prompt, text), k)
        for item in items
        for k, text in enumerate(item.continuations)
    ]
    score_choices(model, items[:1])
    found: list[torch.Tensor] = []
    seconds["ours"] = cpu_seconds(lambda: found.append(score_choices(model, items)))
    harness = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=16, device="cpu")
    harness.loglikelihood(requests[:4], disable_tqdm=True)

    def read_harness() -> None:
        rows = harness.loglikelihood(requests, disable_tqdm=True)
        found.append(torch.tensor([row[0] for row in rows]))

    seconds["lm-eval"] = cpu_seconds(read_harness)
    return {
        "ratio": seconds["lm-eval"] / seconds["ours"],
        "largest_difference": float((found[0] - found[1]).abs().max()),
        "items": len(items),
        "cpu_seconds": seconds,
    }


def cached_vs_uncached() -> dict[str, Any]:
    """Prompts read once against once per choice."""
    model, items = smollm2(), four_choice_items()
    pairs = [
        join_tokens(model.encode, item.prompt, text)
        for item in items
        for text in item.continuations
    ]
    order = sorted(range(len(pairs)), key=lambda k: len(pairs[k].tokens))
    batches = [order[k : k + UNCACHED_BATCH] for k in range(0, len(order), UNCACHED_BATCH)]

    def read_all() -> torch.Tensor:
        sums = torch.zeros(len(pairs))
        for batch in batches:
            rows = [pairs[k] for k in batch]
            prompts, answers = zip(
                *((row.tokens[: row.cut], row.tokens[row.cut :]) for row in rows), strict=True
            )
            sums[batch] = log_probability(model, prompts, answers)
        return sums

    score_choices(model, items[:1])
    found: list[torch.Tensor] = []
    cached = cpu_seconds(lambda: found.append(score_choices(model, items)))
    uncached = cpu_seconds(lambda: found.append(read_all()))
    return {
        "ratio": uncached / cached,
        "largest_difference": float((found[0] - found[1]).abs().max()),
        "items": len(items),
        "cpu_seconds": {"cached": cached, "uncached": uncached},
    }


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    "embed_sentences_per_second": embed,
    "detect_vs_reference": detect,
    "finetune_vs_trl": finetune,
    "choice_vs_lm_eval": choice_vs_lm_eval,
    "cached_vs_uncached": cached_vs_uncached,
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
