"""A compact decoder: GPT-2, Llama and what lies between, with stable module names and a key-value
cache.

Pre-norm residual blocks (Radford et al., 2019) with the choices that generalization studies vary:
positions, norm, MLP, grouped queries (Ainslie et al., 2023, arXiv:2305.13245), blocks applied in
loops, tied or untied head.

Modules: `embed`, `position` (learned kinds only), `blocks.{k}.attention_norm`,
`blocks.{k}.attention.qkv`, `blocks.{k}.attention.out`, `blocks.{k}.mlp_norm`, `blocks.{k}.mlp.gate`
(SwiGLU only), `blocks.{k}.mlp.up`, `blocks.{k}.mlp.down`, `norm`, `head`. `qkv` stacks the rows of
queries, keys and values. Every parameter is used only by its own module's forward; a tied head
shares the tensor of `embed`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.errors import InvalidConfig, InvalidData


class Positions(StrEnum):
    """How a token knows where it stands."""

    NONE = "none"
    """Only through the causal mask."""
    LEARNED = "learned"
    OFFSET = "offset"
    """Learned; in training each sequence starts at a random row of the table, drawn from torch's
    global generator.
    """
    ROTARY = "rotary"
    """Su et al., 2021, arXiv:2104.09864, neighbouring coordinates form the pairs."""
    ALIBI = "alibi"
    """Press et al., 2022, arXiv:2108.12409: a penalty linear in the distance."""


class Norm(StrEnum):
    LAYER = "layer"
    RMS = "rms"


class Activation(StrEnum):
    """What stands between the two maps of an MLP."""

    GELU = "gelu"
    """In the tanh form of GPT-2."""
    SWIGLU = "swiglu"
    """silu(gate) · value (Shazeer, 2020, arXiv:2002.05202)."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The hyperparameters of a `Transformer`."""

    vocabulary: int
    width: int = 128
    layers: int = 2
    heads: int = 4
    key_heads: int | None = None
    """Heads of keys and values, each shared by heads / key_heads queries; None: as many as
    `heads`.
    """
    hidden: int | None = None
    """Width inside the MLP; None: 4 · width."""
    context: int = 64
    """Rows of the position table: the longest sequence for learned positions; others have no
    limit.
    """
    positions: Positions = Positions.LEARNED
    norm: Norm = Norm.LAYER
    activation: Activation = Activation.GELU
    loops: int = 1
    """How often the stack of blocks is applied, with the same weights."""
    tied: bool = True
    inputs: int = 0
    """Numbers per position of sequences of vectors, which a linear map reads in place of tokens;
    `vocabulary` counts the outputs then, and the head cannot be tied. 0: tokens.
    """
    bias: bool = True
    """In the linear maps of the blocks; the head has none."""
    epsilon: float = 1e-5
    rotary_base: float = 10_000.0
    temperature_from: int = 0
    """If positive, head h multiplies the scores of a token that reads more keys than this by
    1 + w_h ln(keys / temperature_from): attention to one of n items needs scores that grow as ln n.
    w_h (`blocks.{k}.attention.temperature`) is learned and 0 at first.
    """

    def __post_init__(self) -> None:
        sizes = (self.vocabulary, self.width, self.layers, self.heads, self.context, self.loops)
        odd = self.positions is Positions.ROTARY and self.width // max(1, self.heads) % 2
        if (
            min(sizes) < 1
            or self.width % self.heads
            or self.pairs < 1
            or self.heads % self.pairs
            or odd
            or self.temperature_from < 0
        ):
            raise InvalidConfig(
                f"Decoder(vocabulary={self.vocabulary}, width={self.width}, layers={self.layers}, "
                f"heads={self.heads}, "
                f"key_heads={self.key_heads}, context={self.context}, loops={self.loops}, "
                f"temperature_from={self.temperature_from}) does not fit together.",
                why="sizes are positive, heads divide the width, key_heads divide heads, rotary "
                "needs an even head size, temperatures begin at 0 (none) or more keys.",
                fix="choose for example width=128, heads=4, key_heads=2.",
            )
        if self.inputs < 0 or (self.inputs and self.tied):
            raise InvalidConfig(
                f"Decoder(inputs={self.inputs}, tied={self.tied}) does not fit together.",
                why="the linear map of vectors is no table of tokens that a head could share.",
                fix="Decoder(vocabulary=classes, inputs=numbers per position, tied=False).",
            )

    @property
    def pairs(self) -> int:
        """Heads that have keys and values of their own."""
        return self.heads if self.key_heads is None else self.key_heads

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def inside(self) -> int:
        return 4 * self.width if self.hidden is None else self.hidden

    def normalisation(self) -> nn.Module:
        kind = nn.LayerNorm if self.norm is Norm.LAYER else nn.RMSNorm
        return kind(self.width, eps=self.epsilon)


@dataclass
class Cache:
    """Keys and values of the tokens read so far, one pair per applied block."""

    pairs: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return self.pairs[0][0].shape[2] if self.pairs else 0

    def extend(self, step: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of the applied block `step`, with the new positions appended."""
        if step in self.pairs:
            past = self.pairs[step]
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        self.pairs[step] = key, value
        return key, value


@dataclass(frozen=True)
class Scene:
    """What all blocks of one forward pass share."""

    causal: bool
    """Scores are masked by order alone; `bias` is None then."""
    bias: Tensor | None
    """[…, query, key], added to the scores; −∞ hides a key."""
    turns: Tensor | None
    """Unit complex numbers by which pairs of coordinates of queries and keys are multiplied; 1 for
    values.
    """
    cache: Cache | None
    growth: Tensor | None = None
    """[…, 1, query, 1]: ln(keys / temperature_from), at least 0."""


class Attention(nn.Module):
    """Causal attention. `qkv` is one map: one larger matrix product instead of three small ones."""

    def __init__(self, shape: Decoder) -> None:
        super().__init__()
        self.heads, self.key_heads, self.size = shape.heads, shape.pairs, shape.head_size
        self.qkv = nn.Linear(
            shape.width, (shape.heads + 2 * shape.pairs) * shape.head_size, bias=shape.bias
        )
        self.out = nn.Linear(shape.width, shape.width, bias=shape.bias)
        grows = shape.temperature_from > 0
        self.temperature = nn.Parameter(torch.zeros(shape.heads)) if grows else None

    def forward(
        self, x: Float[Tensor, "b s d"], scene: Scene, step: int = 0
    ) -> Float[Tensor, "b s d"]:
        b, s, d = x.shape
        vectors = self.qkv(x).view(b, s, -1, self.size)
        if (
            scene.turns is not None
        ):  # values are multiplied by 1: cheaper than taking them out and putting them back
            pairs = torch.view_as_complex(vectors.to(scene.turns.real.dtype).unflatten(-1, (-1, 2)))
            vectors = torch.view_as_real(pairs * scene.turns).flatten(-2).to(vectors.dtype)
        query, key, value = vectors.transpose(1, 2).split(
            [self.heads, self.key_heads, self.key_heads], 1
        )
        if self.temperature is not None and scene.growth is not None:
            query = query * (1 + self.temperature[:, None, None] * scene.growth)
        if scene.cache is not None:
            key, value = scene.cache.extend(step, key, value)
        mixed = attend(query, key, value, scene)
        return self.out(mixed.transpose(1, 2).reshape(b, s, d))


ROWS = 1024
"""Fewest tokens worth running through the blocks on their own: below, the overhead per operation
shows.
"""

WIDEST = 2**19
"""Numbers in the widest activation up to which slices with more tokens pay."""

SHORT = 256
"""Keys up to which plain products are as fast as the CPU's fused attention."""


def attend(
    query: Float[Tensor, "b h s e"],
    key: Float[Tensor, "b g t e"],
    value: Float[Tensor, "b g t e"],
    scene: Scene,
) -> Float[Tensor, "b h s e"]:
    """softmax(QKᵀ/√e + bias) V, each of the g heads of keys and values for h/g queries."""
    groups, keys = key.shape[1:3]
    grouped = groups < query.shape[1]
    if query.device.type != "cpu" or keys > SHORT:
        return F.scaled_dot_product_attention(
            query, key, value, scene.bias, is_causal=scene.causal, enable_gqa=grouped
        )
    # unlike the fused kernel, plain products have second derivatives and run under vmap
    if grouped:
        key, value = (x.repeat_interleave(query.shape[1] // groups, 1) for x in (key, value))
    # scaled before the product: it has fewer entries than the scores
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    if scene.causal:
        scores = scores + scores.new_full((keys, keys), -math.inf).triu(1)
    elif scene.bias is not None:
        scores = scores + scene.bias
    return scores.softmax(-1) @ value


class MLP(nn.Module):
    def __init__(self, shape: Decoder) -> None:
        super().__init__()
        gated = shape.activation is Activation.SWIGLU
        # of its own: gate and value as halves of one output would be strided, which costs more than
        # one product saves
        self.gate = nn.Linear(shape.width, shape.inside, bias=shape.bias) if gated else None
        self.up = nn.Linear(shape.width, shape.inside, bias=shape.bias)
        self.down = nn.Linear(shape.inside, shape.width, bias=shape.bias)

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        if self.gate is not None:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: Decoder) -> None:
        super().__init__()
        self.attention_norm, self.attention = shape.normalisation(), Attention(shape)
        self.mlp_norm, self.mlp = shape.normalisation(), MLP(shape)

    def forward(
        self, x: Float[Tensor, "b s d"], scene: Scene, step: int = 0
    ) -> Float[Tensor, "b s d"]:
        x = x + self.attention(self.attention_norm(x), scene, step)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """Tokens to logits of the next token. Initialised as GPT-2: N(0, 0.02²), maps into the residual
    stream / √(2 · depth).
    """

    def __init__(self, shape: Decoder) -> None:
        super().__init__()
        self.shape = shape
        learned = shape.positions in (Positions.LEARNED, Positions.OFFSET)
        self.embed = (
            nn.Linear(shape.inputs, shape.width, bias=shape.bias)
            if shape.inputs
            else nn.Embedding(shape.vocabulary, shape.width)
        )
        self.position = nn.Embedding(shape.context, shape.width) if learned else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = shape.normalisation()
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                into = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(
                    p, std=0.02 / (math.sqrt(2 * shape.layers * shape.loops) if into else 1)
                )
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        if shape.tied:
            self.head.weight = self.embed.weight

    def forward(
        self,
        tokens: Int[Tensor, "b s"] | Float[Tensor, "b s inputs"],
        real: Bool[Tensor, "b read"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "b s v"]:
        """Logits at every given position; of vectors where the decoder has `inputs`.

        `real`: False marks padding, on any side, which nobody attends to and which has no position;
          with a cache it
        covers the cached tokens, too. `cache` holds what was read before and is extended in place.
        """
        past = cache.length if cache is not None else 0
        at = self.position_ids(tokens, real, past)
        x = self.embed(tokens)
        if self.position is not None:
            x = x + self.position(self.rows(at)[:, past:])
        scene = Scene(
            *self.mask_terms(at, real, past, x),
            self.turns(at[:, past:], x),
            cache,
            self.growth(at[:, past:], x),
        )
        parts = [self.stack(part, scene) for part in x.split(self.slice_size(x, scene))]
        return self.head(self.norm(parts[0] if len(parts) == 1 else torch.cat(parts)))

    def stack(self, x: Float[Tensor, "b s d"], scene: Scene) -> Float[Tensor, "b s d"]:
        for step in range(self.shape.loops * self.shape.layers):
            x = self.blocks[step % self.shape.layers](x, scene, step)
        return x

    def slice_size(self, x: Float[Tensor, "b s d"], scene: Scene) -> int:
        """Sequences that run through the blocks together.

        On the CPU few at a time, forward and (autograd goes from the last slice to the first)
        backward, so that their activations stay in the cache. All together where a hook listens,
        since `engine/tap.py` wants to see the batch.
        """
        if (
            x.device.type != "cpu"
            or not scene.causal
            or scene.cache is not None
            or has_hooks(self.blocks)
        ):
            return len(x)
        return max(1, max(ROWS, WIDEST // self.shape.inside) // x.shape[1])

    def read(
        self, tokens: Int[Tensor, "b s"], real: Bool[Tensor, "b read"], state: Cache | None
    ) -> tuple[Float[Tensor, "b s v"], Cache]:
        """Logits of the new tokens and the state to go on from, as `engine/decode.py` asks."""
        state = Cache() if state is None else state
        return self(tokens, real, state), state

    def position_ids(
        self, tokens: Tensor, real: Tensor | None, past: int
    ) -> Int[Tensor, "b_or_1 read"]:
        """The position of each token read so far: the number of real tokens before it."""
        if real is None:
            return torch.arange(past + tokens.shape[1], device=tokens.device)[None]
        if real.shape != (tokens.shape[0], past + tokens.shape[1]):
            raise InvalidData(
                f"`real` has shape {tuple(real.shape)} for {past} cached and {tokens.shape[1]} new "
                "tokens.",
                why="it tells padding from tokens for everything read so far.",
                fix=f"give a mask of shape {(tokens.shape[0], past + tokens.shape[1])}.",
            )
        # padding on the left gets position 0; nobody attends to it
        return (real.cumsum(1) - 1).clamp_min(0)

    def rows(self, at: Int[Tensor, "b s"]) -> Int[Tensor, "b s"]:
        """Rows of the position table."""
        free = self.shape.context - at.shape[1]
        if free < 0:
            raise InvalidData(
                f"{at.shape[1]} tokens do not fit a context of {self.shape.context}.",
                why="learned positions exist for the rows of their table only.",
                fix="raise `context`, or choose rotary positions, ALiBi or none.",
            )
        if self.shape.positions is Positions.OFFSET and self.training:
            # drawn on the CPU: the same offsets on every device
            at = at + torch.randint(free + 1, (len(at), 1)).to(at.device)
        return at

    def mask_terms(
        self, at: Tensor, real: Tensor | None, past: int, x: Tensor
    ) -> tuple[bool, Tensor | None]:
        """Whether order alone masks the scores, and else what is added to them."""
        alibi = self.shape.positions is Positions.ALIBI
        s = at.shape[1] - past
        if real is None and not alibi and (past == 0 or s == 1):
            return past == 0, None
        order = torch.arange(at.shape[1], device=x.device)
        shown = (order[past:, None] >= order)[None, None]
        if real is not None:  # padding sees itself: a softmax over nothing would be NaN
            shown = shown & real[:, None, None] | (order[past:, None] == order)
        bias = x.new_zeros(()).expand(shown.shape).masked_fill(~shown, -math.inf)
        if alibi:
            distance = (at[:, None, past:, None] - at[:, None, None]).to(x.dtype)
            bias = bias - slopes(self.shape.heads).to(x)[:, None, None] * distance
        return False, bias

    def turns(self, at: Int[Tensor, "b s"], x: Tensor) -> Tensor | None:
        """exp(i · position · base^(−2j / size)) for pair j of a head, [… s heads pair]."""
        if self.shape.positions is not Positions.ROTARY:
            return None
        size, turned = self.shape.head_size, self.shape.heads + self.shape.pairs
        kind = torch.float64 if x.dtype is torch.float64 else torch.float32
        speed = self.shape.rotary_base ** (
            -torch.arange(0, size, 2, device=x.device, dtype=kind) / size
        )
        angle = at[..., None, None] * speed
        still = torch.zeros_like(angle).expand(*at.shape, self.shape.pairs, size // 2)
        angle = torch.cat([angle.expand(*at.shape, turned, size // 2), still], -2)
        return torch.polar(torch.ones_like(angle), angle)

    def growth(self, at: Int[Tensor, "b_or_1 s"], x: Tensor) -> Tensor | None:
        """How far ln keys is beyond that of `temperature_from`, at every position."""
        if not self.shape.temperature_from:
            return None
        keys = (at + 1).to(x.dtype)  # itself, too
        return (keys / self.shape.temperature_from).log().clamp_min(0)[:, None, :, None]


@contextmanager
def scale_scores(model: Transformer, factor: float) -> Iterator[None]:
    """Inside the block every head multiplies its scores before the softmax by `factor`: one
    temperature 1 / factor, for models that were trained without.
    """
    rows = model.shape.heads * model.shape.head_size
    tables = [p for block in model.blocks for p in queries_of(block)]
    before = [table.detach().clone() for table in tables]
    try:
        with torch.no_grad():
            for table in tables:
                table[:rows] *= factor
        yield
    finally:
        with torch.no_grad():
            for table, values in zip(tables, before, strict=True):
                table.copy_(values)


def queries_of(block: nn.Module) -> list[nn.Parameter]:
    """Weight and bias whose first rows make the queries."""
    return list(block.get_submodule("attention.qkv").parameters())


@torch.no_grad()
def init_by_inputs(model: Transformer) -> Transformer:
    """Draws the maps anew from N(0, 1 / inputs), those into the residual stream / √(2 · depth).

    GPT-2's 0.02 suits a width of some thousands; at width 64 it leaves attention all but uniform,
    and what has to be looked up in the context is found later.
    """
    shape = model.shape
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            into = name.endswith((".out", ".down"))
            depth = 2 * shape.layers * shape.loops if into else 1
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features * depth))
    return model


def has_hooks(modules: nn.Module) -> bool:
    """Whether a hook listens to any of the modules."""
    return any(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        for part in modules.modules()
    )


def slopes(heads: int) -> Float[Tensor, " heads"]:
    """ALiBi's penalty per token: 2^(−8k / heads), k = 1 … heads.

    For a number of heads that is no power of two, the paper's code takes the slopes of the next
    lower power and fills up with every second slope of the next higher one.
    """
    power = 2 ** math.floor(math.log2(heads))
    base = 2.0 ** (-8 * torch.arange(1, power + 1, dtype=torch.float64) / power)
    between = torch.arange(heads - power, dtype=torch.float64) * 2 + 1
    return torch.cat([base, 2.0 ** (-4 * between / power)])
