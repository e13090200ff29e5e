"""Training speed of the compact decoder against transformers' GPT-2 and Llama classes and
x-transformers.

    python benchmarks/tiny_transformer.py --json

Steps per CPU second on one thread at width 128, 4 heads, 64 tokens, 64 sequences, vocabulary 256.
Against each contestant our decoder has the contestant's architecture, and for the two of
transformers its very weights; both sides get the same tokens and fused AdamW. Rounds are
interleaved, so that a busy machine slows all alike; medians of CPU seconds.

The last keys say where the time could go: the share of the step that its matrix products would need
alone, at the speed of the same shapes multiplied by themselves in this run, and the largest speedup
that any model using them could reach.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from unseen.models.pretrained import from_gpt2, from_llama
from unseen.models.transformer import ROWS, Decoder, Transformer

VOCABULARY, WIDTH, HEADS, LENGTH, BATCH = 256, 128, 4, 64, 64
HIDDEN = {
    "gpt2": 512,
    "llama": 344,
    "x_transformers": 512,
}  # Llama's ⅔ · 4 · width, so that the sizes agree
Step = Callable[[], float]


def gpt2(layers: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=layers,
        n_head=HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def llama(layers: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN["llama"],
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def x_transformers(layers: int) -> nn.Module:
    from x_transformers import Decoder as Stack
    from x_transformers import TransformerWrapper

    stack = Stack(
        dim=WIDTH, depth=layers, heads=HEADS, attn_dim_head=WIDTH // HEADS, attn_flash=True
    )
    return TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=LENGTH, attn_layers=stack)


def like_x_transformers(layers: int) -> Transformer:
    """Its default: learned positions, LayerNorm, GELU, untied head; no biases in attention."""
    return Transformer(
        Decoder(vocabulary=VOCABULARY, width=WIDTH, layers=layers, heads=HEADS, tied=False)
    )


def stepper(
    model: nn.Module, tokens: torch.Tensor, loss: Callable[[nn.Module], torch.Tensor]
) -> Step:
    """One step of training; returns its CPU seconds."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> float:
        begin = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss(model).backward()
        optimizer.step()
        return time.process_time() - begin

    return step


def contestants(layers: int, tokens: torch.Tensor) -> dict[str, Step]:
    """Peers with their own loss; ours with the cross-entropy of all positions but the last, without
    a copy.
    """
    target = F.pad(tokens[:, 1:], (0, 1), value=-100).flatten()

    def own(model: nn.Module) -> torch.Tensor:
        return model(input_ids=tokens, labels=tokens).loss

    def plain(model: nn.Module) -> torch.Tensor:
        return F.cross_entropy(model(tokens).flatten(0, 1), target)

    peers = {"gpt2": gpt2(layers), "llama": llama(layers)}
    ours = {"gpt2": from_gpt2(peers["gpt2"]), "llama": from_llama(peers["llama"])}
    for name, model in ours.items():
        torch.testing.assert_close(
            model(tokens), peers[name](input_ids=tokens).logits, atol=1e-5, rtol=1e-4
        )
    made = {f"{name}": stepper(model, tokens, own) for name, model in peers.items()}
    made |= {f"ours as {name}": stepper(model, tokens, plain) for name, model in ours.items()}
    made["x_transformers"] = stepper(x_transformers(layers), tokens, plain)
    made["ours as x_transformers"] = stepper(like_x_transformers(layers), tokens, plain)
    return made


def products(layers: int, hidden: int, ups: int) -> tuple[list[Callable[[], torch.Tensor]], float]:
    """The matrix products of one step (forward, and both of backward) and their floating-point
    operations.

    In slices as our blocks make them: whole, the processor's cache would slow them by some percent.
    """
    n = BATCH * LENGTH
    shapes = [
        (WIDTH, 3 * WIDTH),
        (WIDTH, WIDTH),
        *[(WIDTH, hidden)] * ups,
        (hidden, WIDTH),
    ] * layers + [(WIDTH, VOCABULARY)]
    weights = [torch.randn(outside, inside) for inside, outside in shapes]
    calls: list[Callable[[], torch.Tensor]] = []
    for _ in range(n // ROWS):
        for w in weights:
            x, g = torch.randn(ROWS, w.shape[1]), torch.randn(ROWS, w.shape[0])
            calls += [
                lambda x=x, w=w: F.linear(x, w),
                lambda g=g, w=w: g @ w,
                lambda g=g, x=x: g.T @ x,
            ]
    return calls, sum(6.0 * n * inside * outside for inside, outside in shapes)


def alone(calls: list[Callable[[], torch.Tensor]]) -> float:
    begin = time.process_time()
    for call in calls:
        call()
    return time.process_time() - begin


def peak() -> float:
    """Floating-point operations per CPU second of one large matrix product."""
    a = torch.randn(1024, 1024)
    a @ a
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        a @ a
        seconds.append(time.process_time() - begin)
    return 2 * 1024**3 / min(seconds)


def compare(layers: int, rounds: int) -> dict[str, float | int]:
    tokens = torch.randint(VOCABULARY, (BATCH, LENGTH))
    steps = contestants(layers, tokens)
    bare, operations = products(layers, HIDDEN["gpt2"], 1)
    gated, gated_operations = products(layers, HIDDEN["llama"], 2)
    steps |= {"products as gpt2": lambda: alone(bare), "products as llama": lambda: alone(gated)}
    for step in steps.values():  # warm-up
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(step())
    median = {name: statistics.median(values) for name, values in seconds.items()}
    fastest = min(median["gpt2"], median["llama"])
    ours = min(median["ours as gpt2"], median["ours as llama"])
    result: dict[str, float | int] = {"layers": layers}
    for name in ("gpt2", "llama", "x_transformers"):
        result[f"speedup_vs_{name}"] = round(median[name] / median[f"ours as {name}"], 3)
    result["fastest_ours_vs_faster_of_gpt2_and_llama"] = round(fastest / ours, 3)
    for name, work in (("gpt2", operations), ("llama", gated_operations)):
        products_alone = median[f"products as {name}"]
        result[f"share_of_products_as_{name}"] = round(
            products_alone / median[f"ours as {name}"], 3
        )
        result[f"limit_of_speedup_vs_{name}"] = round(median[name] / products_alone, 3)
        result[f"fraction_of_gemm_peak_as_{name}"] = round(
            work / median[f"ours as {name}"] / peak(), 3
        )
    return result | {
        f"milliseconds {name}": round(1e3 * value, 1) for name, value in median.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON list on the standard output")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 4])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = [compare(layers, options.rounds) for layers in options.layers]
    if options.json:
        print(json.dumps(results, indent=1))
        return
    for result in results:
        print("\n".join(f"{name:45} {value}" for name, value in result.items()), end="\n\n")


if __name__ == "__main__":
    main()
