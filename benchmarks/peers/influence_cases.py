"""The two checkpoints of the influence benchmark, with their data: both sides read these and
nothing else.

* `mlp`: 784-512-256-10 with biases, 10,000 images of Fashion-MNIST, 500 of its test part as
  queries;
* `gpt2`: transformers' GPT-2 class with 4 layers of width 256, 1,000 sequences of 128 tokens, 32
  other ones as queries. Tokens follow Zipf's law over a vocabulary of 1,024, half of them in the
  order of one of 16 topics. Its `Conv1D` layers are replaced by `nn.Linear` with the same weights,
  since Kronfluence knows only that one; the tied head is not tracked.

Both are trained once, briefly, and kept in the cache of unseen (`UNSEEN_HOME`).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from unseen.data.files import home
from unseen.engine.batches import Columns, forever
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.tasks.images import Collection, Images

VOCABULARY, LENGTH, TOPICS = 1_024, 128, 16
BLOCK_LAYERS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


@dataclass(frozen=True)
class Case:
    """A trained model in eval mode, what it was trained on, what is asked, and the layers that both
    sides track.
    """

    name: str
    model: nn.Module
    train: Columns
    queries: Columns
    layers: tuple[str, ...]


class NextToken(nn.Module):
    """A causal language model of transformers as a function from tokens to logits."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, tokens: Tensor) -> Tensor:
        return self.inner(input_ids=tokens).logits


def linear_for_conv1d(model: nn.Module) -> nn.Module:
    """Every `Conv1D` of transformers becomes an `nn.Linear` that computes the same."""
    from transformers.pytorch_utils import Conv1D

    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            linear = nn.Linear(*module.weight.shape)
            linear.weight = nn.Parameter(module.weight.detach().T.clone())
            linear.bias = nn.Parameter(module.bias.detach().clone())
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, linear)
    return model


def gpt2(
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    vocabulary: int = VOCABULARY,
    length: int = LENGTH,
) -> NextToken:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return NextToken(linear_for_conv1d(GPT2LMHeadModel(config)))


def block_layers(layers: int) -> tuple[str, ...]:
    """The linear layers inside the blocks, by their names in `NextToken`."""
    return tuple(f"inner.transformer.h.{k}.{name}" for k in range(layers) for name in BLOCK_LAYERS)


def zipf(n: int, lab: Lab, vocabulary: int = VOCABULARY, length: int = LENGTH) -> Tensor:
    """n sequences; every token is drawn by p(rank) ∝ 1/rank, half in the common order and half in
    that of a topic.

    The second of each pair of positions repeats its topic's successor of the first, so that there
    is something to learn.
    """
    fixed = Lab(1).child("topics").generator()
    orders = torch.stack([torch.randperm(vocabulary, generator=fixed) for _ in range(TOPICS)])
    generator = lab.generator()
    p = 1 / torch.arange(1, vocabulary + 1, dtype=torch.float64)
    ranks = torch.multinomial(p, n * length, replacement=True, generator=generator).view(n, length)
    topic = torch.randint(TOPICS, (n,), generator=generator)
    own = torch.rand(n, length, generator=generator) < 0.5
    tokens = torch.where(own, orders[topic[:, None], ranks], ranks)
    tokens[:, 1::2] = torch.where(
        own[:, 1::2], orders[topic[:, None], tokens[:, ::2]], tokens[:, 1::2]
    )
    return tokens


def _kept(
    name: str,
    model: nn.Module,
    steps: int,
    lr: float,
    batch_size: int,
    data: Columns,
    dtype: torch.dtype,
) -> None:
    """Loads the checkpoint, or trains and keeps it; the products in bfloat16 where that is asked
    for.
    """
    path: Path = home() / "benchmarks" / f"influence_{name}.safetensors"
    if path.exists():
        load_model(model, path)
        return
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    batches = forever(data, batch_size, Lab().child("order"))
    for step in range(steps):
        batch = next(batches)
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20, 2 * (steps - step) / steps)
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            if "tokens" in batch:
                logits = model(batch["tokens"])[:, :-1]
                loss = F.cross_entropy(
                    logits.flatten(0, 1).float(), batch["tokens"][:, 1:].flatten()
                )
            else:
                loss = F.cross_entropy(model(batch["x"]), batch["y"])
        loss.backward()
        optimiser.step()
    model.zero_grad(set_to_none=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, str(path))


def mlp_case(n: int = 10_000, queries: int = 500) -> Case:
    task = Images(Collection.FASHION_MNIST, n_train=10_000, n_test=500).build(Lab())
    train, test = (task.split(name).data.columns for name in ("train", "test"))  # type: ignore[attr-defined]
    data = Columns(x=train["x"].flatten(1), y=train["y"])
    with Lab().child("init").seeded():
        model = mlp([784, 512, 256, 10])
    _kept("mlp", model, 300, 1e-3, 128, data, torch.float32)
    asked = Columns(x=test["x"].flatten(1)[:queries], y=test["y"][:queries])
    return Case("mlp", model.eval(), data.subset(slice(n)), asked, ("1", "3", "5"))


def gpt2_case(n: int = 1_000, queries: int = 32) -> Case:
    with Lab().child("init").seeded():
        model = gpt2()
    train = Columns(tokens=zipf(1_000, Lab().child("train")))
    _kept("gpt2", model, 300, 1e-3, 16, train, torch.bfloat16)
    asked = Columns(tokens=zipf(queries, Lab().child("queries")))
    return Case("gpt2", model.eval(), train.subset(slice(n)), asked, block_layers(4))


CASES = {"mlp": mlp_case, "gpt2": gpt2_case}
