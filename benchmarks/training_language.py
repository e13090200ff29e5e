"""What training small language models costs, as ratios to a peer and to the machine's limit in the
same process.

    python benchmarks/training_language.py --json
    python benchmarks/training_language.py --only sampled_tokens_vs_generate

`sampled_tokens_vs_generate`: sampled tokens per CPU second of `engine/sampling.py` over
transformers' `generate` with its cache, on the same T5 (width 128, 2 + 2 layers, 1,000 words), 32
sources of 28 words, one answer of 24 tokens each; and with 8 answers to each of 8 sources. Both
draw from the softmax at temperature 0.8 without an end token. `of_limit` is the share of our time
that the same tokens take in the bare decoder (the model called by itself with its cache, its
largest logit fed in).

`claps_cost_vs_mle`: CPU seconds of a step of CLAPS over one of likelihood alone (that T5, 32 pairs
of 28 and 8 words), and of in-batch contrast; `of_limit` is the share that forward, backward and
update of the likelihood would take of a CLAPS step.

`sft_vs_trl`: tokens per CPU second of response-only fine-tuning of a Llama of bytes (width 256, 4
layers; SmolLM2 is `finetune_vs_trl` in benchmarks/language.py) over trl's SFTTrainer on the same
examples, eight steps of 8; `of_limit` is the share of our time that bare forward and backward
passes of the examples, in the same parts, take.

`execute_programs_per_second`: programs of four statements executed in exact fractions, from their
text and once parsed; `of_limit` is the share of the latter that compiled Python takes with the same
fractions. `longest_milliseconds` is the slowest of programs that are made to take long.

Rounds are interleaved, so that a busy machine slows all alike; medians of CPU seconds on one
thread.
"""

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from command import measure
from language import sentences

from unseen.engine.loop import Budget
from unseen.engine.programs import Program, execute
from unseen.engine.responses import (
    Exchange,
    encode_exchanges,
    parts_by_length,
    response_task,
    target_ends,
)
from unseen.engine.sampling import sample
from unseen.engine.token_pairs import Pair
from unseen.lab import Lab
from unseen.methods.claps import CLAPS, Perturbation
from unseen.methods.response_finetune import ResponseFinetune, Weighting
from unseen.models.encoder_decoder import EncoderDecoder, t5
from unseen.models.response_loss import response_loss
from unseen.models.tiny_causal import tiny_causal
from unseen.study.trial import untrained_model
from unseen.tasks.token_pairs import TokenPairs

WORDS, SOURCE, ANSWER = 1_000, 28, 24
Work = Callable[[], Any]


def small_t5() -> EncoderDecoder:
    return untrained_model(lambda: t5(WORDS + 3, 128, 2, 4), Lab())


def race(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, in interleaved rounds after one to warm up."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            begin = time.process_time()
            work()
            seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def sampled_tokens_vs_generate(rounds: int) -> dict[str, float]:
    one, several = race_sampling(32, 1, rounds), race_sampling(8, 8, rounds)
    return {
        "sampled_tokens_vs_generate": one["ratio"],
        "sampled_tokens_vs_generate of_limit": one["of limit"],
        "sampled_tokens_per_second": one["speed"],
        "sampled_tokens_vs_generate 8 answers each": several["ratio"],
    }


def race_sampling(prompts: int, samples: int, rounds: int) -> dict[str, float]:
    model, generator = small_t5().eval(), Lab().generator()
    peer = model.model
    sources = torch.randint(3, WORDS, (prompts, SOURCE), generator=Lab().generator())
    listed = [[*row, model.divider] for row in sources.tolist()]
    # no end token, so that both draw equally many
    peer.generation_config.eos_token_id = None

    def ours() -> None:
        drawn = sample(model, listed, ANSWER, generator, samples=samples, temperature=0.8)
        assert all(len(row) == ANSWER for rows in drawn for row in rows)

    @torch.no_grad()
    def generate() -> None:
        drawn = peer.generate(
            sources,
            attention_mask=torch.ones_like(sources),
            max_new_tokens=ANSWER,
            min_new_tokens=ANSWER,
            do_sample=True,
            temperature=0.8,
            top_k=0,
            num_return_sequences=samples,
        )
        assert drawn.shape == (prompts * samples, ANSWER + 1)

    @torch.no_grad()
    def bare() -> None:
        hidden = peer.get_encoder()(input_ids=sources).last_hidden_state
        hidden = hidden.repeat_interleave(samples, 0)
        token, cache = torch.full((len(hidden), 1), model.divider), None
        for _ in range(ANSWER):
            seen = peer(
                encoder_outputs=(hidden,),
                decoder_input_ids=token,
                past_key_values=cache,
                use_cache=True,
            )
            token, cache = seen.logits[:, -1:].argmax(-1), seen.past_key_values

    seconds = race({"ours": ours, "generate": generate, "bare": bare}, rounds)
    return {
        "ratio": round(seconds["generate"] / seconds["ours"], 3),
        "of limit": round(seconds["bare"] / seconds["ours"], 3),
        "speed": round(prompts * samples * ANSWER / seconds["ours"]),
    }


STEPS = 6


def claps_cost_vs_mle(rounds: int) -> dict[str, float]:
    rng = Lab().numpy()
    words = [f"w{k}" for k in range(WORDS)]

    def text(n: int) -> tuple[str, ...]:
        return tuple(rng.choice(words, n))

    pairs = tuple(Pair(text(SOURCE), text(8)) for _ in range(64))
    task = TokenPairs("random", pairs, {"same": pairs}, repeats=True).build(Lab())
    budget = Budget(steps=STEPS, batch_size=32, lr=1e-3, clip=1.0)
    methods = {
        "mle": CLAPS(weight=0.0),
        "contrast": CLAPS(Perturbation.NONE),
        "claps": CLAPS(),
    }
    model = small_t5()

    def work(method: CLAPS) -> Work:
        return lambda: replace(method, budget=budget).fit(model, task, Lab())

    seconds = race({name: work(method) for name, method in methods.items()}, rounds)
    return {
        "claps_cost_vs_mle": round(seconds["claps"] / seconds["mle"], 3),
        "contrast_cost_vs_mle": round(seconds["contrast"] / seconds["mle"], 3),
        "claps_cost_vs_mle of_limit": round(seconds["mle"] / seconds["claps"], 3),
        "claps_step_milliseconds": round(1_000 * seconds["claps"] / STEPS, 1),
    }


SFT_STEPS, EXAMPLES = 8, 32


def sft_vs_trl(rounds: int) -> dict[str, Any]:
    """All weights, float32, batches of 8, the loss per token of the completions."""
    import datasets
    import trl

    model = tiny_causal(width=256, layers=4)
    model.tokenizer.eos_token = model.tokenizer.pad_token = "!"
    texts = sentences(2 * EXAMPLES)
    pairs = zip(texts[:EXAMPLES], texts[EXAMPLES:], strict=True)
    exchanges = [Exchange(f"Continue: {one}\n", other[:40]) for one, other in pairs]
    data = encode_exchanges(exchanges, model.encode, 512, end=model.tokenizer.eos_token_id)
    columns = data.columns.columns
    ends = target_ends(columns["mask"]).tolist()
    rows = {
        "input_ids": [row[:end].tolist() for row, end in zip(columns["tokens"], ends, strict=True)],
        "completion_mask": [
            row[:end].int().tolist() for row, end in zip(columns["mask"], ends, strict=True)
        ],
    }
    budget = Budget(steps=SFT_STEPS, batch_size=8, lr=1e-6, clip=1.0)
    method, task = ResponseFinetune(budget, weighting=Weighting.TOKENS), response_task(data)
    batches = [{k: x[at : at + 8] for k, x in columns.items()} for at in range(0, EXAMPLES, 8)]

    def bare() -> None:
        for k in range(SFT_STEPS):
            for part in parts_by_length(batches[k % len(batches)], method.part_tokens):
                response_loss(model, part).sum().backward()
            model.zero_grad()

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        settings = trl.SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=8,
            max_steps=SFT_STEPS,
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
        works: dict[str, Work] = {
            "ours": lambda: method.fit(model, task, Lab()),
            "trl": trainer.train,
            "bare": bare,
        }
        seconds = race(works, rounds)
    # both go over the examples twice
    tokens = data.tokens * SFT_STEPS * 8 // EXAMPLES
    return {
        "sft_vs_trl": round(seconds["trl"] / seconds["ours"], 3),
        "sft_vs_trl of_limit": round(seconds["bare"] / seconds["ours"], 3),
        "sft_tokens_per_second": round(tokens / seconds["ours"]),
    }


LONG = (
    "answer = 9 ** 9 ** 9",
    "answer = 2 ** 511 * 2 ** 511",
    "a = 3 ** 300; b = a / 7 ** 150; answer = b * b / a",
    "answer = 10 ** -400",
    "answer = " + " + ".join(["1 / 3"] * 80),
    "answer = " + " * ".join(["1.0001"] * 80),
    "answer = (2 / 3) ** 0.5",
)
"""Programs whose values grow, or whose statements are long."""


def execute_programs_per_second(rounds: int, n: int = 1_000) -> dict[str, float]:
    rng = Lab().numpy()
    texts = [
        "t0 = {} / {}; t1 = {} + t0; t2 = t1 * {}; answer = t2 - {}".format(
            *rng.integers(1, 90, 5).tolist()
        )
        for _ in range(n)
    ]
    programs = [Program.parse(text) for text in texts]
    for program in programs:
        assert execute(program).answer is not None
    compiled = [in_fractions(text) for text in texts[: n // 10]]

    def run_compiled() -> None:
        for code in compiled:
            exec(code, {"Fraction": Fraction})

    seconds = race(
        {
            "text": lambda: [execute(Program.parse(text)) for text in texts],
            "parsed": lambda: [execute(program) for program in programs],
            "compiled": lambda: [run_compiled() for _ in range(10)],
        },
        rounds,
    )
    longest = []
    for text in LONG:
        begin = time.process_time()
        execute(Program.parse(text))
        longest.append(time.process_time() - begin)
    return {
        "execute_programs_per_second": round(n / seconds["parsed"]),
        "execute_programs_per_second from_text": round(n / seconds["text"]),
        "execute_programs_per_second of_limit": round(seconds["compiled"] / seconds["parsed"], 3),
        "longest_milliseconds": round(1_000 * max(longest), 3),
    }


def in_fractions(text: str) -> Any:
    """The program as code of Python: our own text, never one that a model wrote."""
    words = [f"Fraction({word})" if word.isdigit() else word for word in text.split(" ")]
    joined = " ".join(
        f"Fraction({word[:-1]});" if word[:-1].isdigit() and word.endswith(";") else word
        for word in words
    )
    return compile(joined, "program", "exec")


ENTRIES: dict[str, Callable[[int], dict[str, Any]]] = {
    "sampled_tokens_vs_generate": sampled_tokens_vs_generate,
    "claps_cost_vs_mle": claps_cost_vs_mle,
    "sft_vs_trl": sft_vs_trl,
    "execute_programs_per_second": execute_programs_per_second,
}


if __name__ == "__main__":
    measure(__doc__, ENTRIES)
