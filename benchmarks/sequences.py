"""What sequences cost, as ratios to a reference in the same process.

    python benchmarks/sequences.py --json
    python benchmarks/sequences.py --only decode_vs_generate

`tracing_vs_nnsight`: patched runs per CPU second of `attributions/causal_tracing.py` over nnsight,
on the shape of GPT-2 small with random weights: every layer × every position of a prompt, one
layer's positions as one batch on both sides, the answer's logits alone.

`decode_vs_generate`: greedy tokens per CPU second of `engine/decode.py` over transformers'
`generate` with its cache, on the same weights at width 128, for 8 prompts (and for 64); beside it
what our run is made of (`decode_parts.py`): `share_of_products` are the linear maps, which any
decoder multiplies, so `largest_possible_decode_vs_generate` is the ratio were all else free.

`seeds_together`: CPU seconds of eight seeds of a small decoder, one by one, over those through
`train_many`, which stacks them where a probe has said that it pays; `seeds_first` is with the
probe, which only the first models of a kind need, and `seeds_stacked` that of the stack alone,
which shows at which width and batch it pays. Where it does not, both sides of `seeds_together` do
the same but for `share_of_choice`, which is what looking up the outcome takes of the loop's time.

`sampling_overhead`: drawing a minibatch of `tasks/algorithmic` as a share of a training step.

`nsr_seconds`: CPU seconds in which the neural-symbolic machine learns SCAN's length split from its
pairs, as in the study `neural_symbolic` (its only bare number: no peer runs here), with its exact
answers to 300 longer commands.

Both sides get the same inputs and give the same answers (checked). Rounds are interleaved, so that
a busy machine slows all alike; medians of CPU seconds on one thread.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from command import measure
from decode_parts import parts_of_decoding
from torch import Tensor, nn

from unseen.attributions.causal_tracing import COUNTERFACTUAL, trace
from unseen.engine.batches import forever
from unseen.engine.decode import greedy
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, erm_step
from unseen.engine.trace import keep_last_position
from unseen.engine.vectorized.choose import choose_backend, train_looped, train_many
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.engine.vectorized.probe import forget_speedups
from unseen.lab import Lab
from unseen.models.pretrained import from_gpt2
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.objectives import exact_match
from unseen.studies import neural_symbolic
from unseen.study.trial import untrained_model
from unseen.task import Axis, Batch, Split, Task, Use
from unseen.tasks.algorithmic import (
    Addition,
    Algorithmic,
    Count,
    Increment,
    Mode,
    Parity,
    Sort,
)
from unseen.tasks.algorithmic.problems import FIRST

Work = Callable[[], Tensor]


def gpt2(*, vocabulary: int, width: int, layers: int, heads: int, context: int) -> Any:
    """transformers' class with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=context,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


class Logits(nn.Module):
    """The model as a map from tokens to logits, with nothing else computed."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits

    def get_output_embeddings(self) -> nn.Module:
        return self.model.get_output_embeddings()


def tracing_vs_nnsight(rounds: int, positions: int = 12) -> dict[str, float]:
    from nnsight import NNsight

    layers = 12
    model = gpt2(vocabulary=50_257, width=768, layers=layers, heads=12, context=1_024)
    tokens, twin = torch.randint(50_257, (2, 1, positions))
    queries = {"tokens": tokens, COUNTERFACTUAL: twin}
    logits, watched = Logits(model).eval(), NNsight(model)

    def answer(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch["tokens"])[:, -1, 7]

    def ours() -> Tensor:
        with keep_last_position(logits):
            return trace(logits, queries, answer).patched[0]

    @torch.no_grad()
    def nnsights() -> Tensor:
        with watched.trace(twin, use_cache=False):
            states = [block.output for block in watched.transformer.h].save()
        rows, at = tokens.expand(positions, -1), torch.arange(positions)
        found = []
        for k in range(layers):
            state = states[k][0]
            with watched.trace(rows, use_cache=False, logits_to_keep=1):
                watched.transformer.h[k].output[at, at] = state
                value = watched.lm_head.output[:, -1, 7].save()
            found.append(value)
        return torch.stack(found)

    seconds = race({"ours": ours, "nnsight": nnsights}, rounds)
    runs = layers * positions
    return {
        "tracing_vs_nnsight": round(seconds["nnsight"] / seconds["ours"], 3),
        "patched_runs_per_second_ours": round(runs / seconds["ours"], 2),
        "patched_runs_per_second_nnsight": round(runs / seconds["nnsight"], 2),
    }


def decode_vs_generate(rounds: int) -> dict[str, float]:
    few, many = (decode(rounds, prompts) for prompts in (8, 64))
    return {
        "decode_vs_generate": few.pop("ratio"),
        "tokens_per_second_ours": few.pop("ours"),
        "tokens_per_second_generate": few.pop("generate"),
        **few,
        # with many prompts the matrix products, which both sides share, decide
        "decode_vs_generate_64_prompts": many["ratio"],
        **{f"{name}_64_prompts": many[name] for name in few},
    }


def decode(rounds: int, rows: int, prompt: int = 16, new: int = 48) -> dict[str, float]:
    """Ratio of speeds, tokens per CPU second, and what our run is made of."""
    peer = gpt2(vocabulary=256, width=128, layers=2, heads=4, context=prompt + new)
    model = from_gpt2(peer).eval()
    prompts = torch.randint(256, (rows, prompt))
    listed = prompts.tolist()

    def ours() -> Tensor:
        return torch.tensor(greedy(model, listed, new))

    @torch.no_grad()
    def generate() -> Tensor:
        whole = peer.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
        )
        return whole[:, prompt:]

    seconds = race({"ours": ours, "generate": generate}, rounds)
    speeds = {name: round(rows * new / value) for name, value in seconds.items()}
    parts = parts_of_decoding(model, rows, prompt, new, seconds["ours"])
    products = parts["share_of_products"] * seconds["ours"]
    return {
        "ratio": round(seconds["generate"] / seconds["ours"], 3),
        **speeds,
        **parts,
        # were all but the products free
        "largest_possible_decode_vs_generate": round(seconds["generate"] / products, 2),
    }


def seeds_together(rounds: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for width, batch in ((16, 16), (64, 16), (64, 64)):
        alone, others = seconds_of_seeds(width, batch, min(rounds, MOST_ROUNDS))
        choice = others.pop("choice")
        found[f"share_of_choice width {width} batch {batch}"] = round(choice / alone, 5)
        for name, seconds in others.items():
            found[f"seeds_{name} width {width} batch {batch}"] = round(alone / seconds, 3)
    for name in ("first", "together"):
        found[f"seeds_{name}"] = min(v for k, v in found.items() if k.startswith(f"seeds_{name}"))
    return found


SEEDS, STEPS = 8, 40
"""The probe of `train_many` takes a tenth of so few steps of each kind; of longer runs, less."""
MOST_ROUNDS = 3


def seconds_of_seeds(width: int, batch: int, rounds: int) -> tuple[float, dict[str, float]]:
    """CPU seconds of eight seeds one by one; and as a stack, as `train_many` chooses for the first
    time, as it chooses later, and of this later choice.
    """
    data = Sort(values=30).draw(10, 2_048, Lab().generator())
    splits = {"train": Split(data, Use.TRAIN)}
    task = Task(name="sort", axis=Axis.LENGTH, splits=splits, objective=exact_match)
    shape = Decoder(vocabulary=FIRST + 30, width=width, heads=4, positions=Positions.NONE)
    budget = Budget(steps=STEPS, batch_size=batch, lr=1e-3)

    def seconds(work: Callable[[TrainingRuns], object]) -> float:
        labs = [Lab(seed) for seed in range(SEEDS)]
        models = [untrained_model(lambda: Transformer(shape), lab) for lab in labs]
        jobs = TrainingRuns(models, [task] * SEEDS, [erm_step] * SEEDS, [budget] * SEEDS, labs)
        begin = time.process_time()
        work(jobs)
        return time.process_time() - begin

    def choose(jobs: TrainingRuns) -> object:
        return train_many(jobs.models, task, erm_step, budget, jobs.labs)

    seconds(train_stacked)  # warms up
    stacked = seconds(train_stacked)
    forget_speedups()
    once = {"stacked": stacked, "first": seconds(choose)}
    pairs = [(seconds(train_looped), seconds(choose)) for _ in range(rounds)]
    alone, chosen = zip(*pairs, strict=True)
    once["choice"] = seconds(choose_backend)
    return statistics.median(alone), {**once, "together": statistics.median(chosen)}


def sampling_overhead(rounds: int) -> dict[str, float]:
    """The largest share over the problems of the studies, at width 64 and 128 sequences."""
    found: dict[str, float] = {}
    for problem in (Count(60), Mode(6, 3), Sort(40), Parity(), Addition(hints=20), Increment()):
        spec = Algorithmic(problem, longest=10, lengths=(10,))
        task = spec.build(Lab())
        shape = Decoder(vocabulary=spec.vocabulary, width=64, positions=Positions.NONE)
        model = untrained_model(partial(Transformer, shape), Lab())
        stream = forever(task.split("train").data, 128, Lab())
        optimizer = Budget().optimizer_of(model)
        shares = []
        for k in range(20 * rounds):
            begin = time.process_time()
            batch = next(stream)
            drawn = time.process_time()
            optimizer.zero_grad(set_to_none=True)
            exact_match.loss(model, batch).mean().backward()
            optimizer.step()
            if k >= spec.longest:  # the first draws begin the streams
                shares.append((drawn - begin) / (time.process_time() - begin))
        found[f"sampling_overhead {problem.name}"] = round(statistics.median(shares), 4)
    found["sampling_overhead"] = max(found.values())
    return found


def nsr_seconds(rounds: int) -> dict[str, float]:
    config = neural_symbolic.LAPTOP
    seconds, exact = [], []
    for seed in range(min(rounds, 3)):
        lab = Lab(seed)
        setting = neural_symbolic.Setting.LENGTH
        given = neural_symbolic.problem(config, setting, lab.child("data"))
        task = given.pairs.build(lab)
        begin = time.process_time()
        trained, _ = neural_symbolic.fit_machine(config, setting, given, task, lab)
        seconds.append(time.process_time() - begin)
        asked = neural_symbolic.first(task, "unseen", 300)
        hits = per_example(trained.model, asked, trained.task.objective.score, lab)
        exact.append(hits.mean().item())
    return {
        "nsr_seconds": round(statistics.median(seconds), 1),
        "nsr_exact_worst": round(min(exact), 4),
    }


def race(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, in interleaved rounds after one that checks that they agree."""
    first, *others = (work() for work in works.values())
    for other in others:
        torch.testing.assert_close(first, other, atol=1e-3, rtol=1e-3)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            begin = time.process_time()
            work()
            seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


ENTRIES: dict[str, Callable[[int], dict[str, float]]] = {
    "tracing_vs_nnsight": tracing_vs_nnsight,
    "decode_vs_generate": decode_vs_generate,
    "seeds_together": seeds_together,
    "sampling_overhead": sampling_overhead,
    "nsr_seconds": nsr_seconds,
}


if __name__ == "__main__":
    measure(__doc__, ENTRIES)
