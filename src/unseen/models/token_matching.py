"""Visual token matching: a dense label is predicted from a few labelled images.

Kim et al. (2023), arXiv:2303.14969; level mixing and several input images from Kim et al. (2024),
Chameleon, arXiv:2404.18459. A task with C channels is C tasks with one channel: this is what lets
one network predict masks, maps and key points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unseen.engine.bias_switch import BiasSwitch, bias_names
from unseen.errors import InvalidConfig, InvalidData

LEVELS = 4
"""Tokens are matched after a quarter, a half, three quarters and all of the encoder."""
MASKED = -1.0
"""What the label encoder reads where a label is unknown."""
TEMPERATURE = 0.05
"""Of the softmax over levels."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; the defaults are those of the shipped checkpoint."""

    side: int = 24
    """Height and width of an image."""
    channels: int = 3
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    inputs: int = 2
    """Most images of one input: the image, and a stereo view or an exemplar mark."""
    mixing: bool = True
    """Whether every level matches on a mixture of all levels, or on its own alone."""

    def __post_init__(self) -> None:
        if self.side % self.patch or self.width % self.heads or self.depth % LEVELS:
            raise InvalidConfig(
                f"{self} does not divide.",
                why=f"a side holds whole patches, a width whole heads, a depth {LEVELS} levels.",
                fix="for example side=24, patch=4, width=64, heads=4, depth=4.",
            )

    @property
    def grid(self) -> int:
        return self.side // self.patch


class Block(nn.Module):
    """Pre-norm self-attention and perceptron; no bias for keys, which would do nothing."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, x: Float[Tensor, "n t d"], offsets: Float[Tensor, "h t t"]
    ) -> Float[Tensor, "n t d"]:
        inside = self.norm(x)
        q, k, v = (
            split_heads(layer(inside), self.heads) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=offsets[None])
        x = x + self.out(join_heads(mixed))
        return x + self.mlp(self.mlp_norm(x))


def split_heads(x: Float[Tensor, "*n t d"], heads: int) -> Float[Tensor, "*n h t e"]:
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def join_heads(x: Float[Tensor, "*n h t e"]) -> Float[Tensor, "*n t d"]:
    return x.transpose(-2, -3).flatten(-2)


class ImageEncoder(nn.Module):
    """A vision transformer over one or several images of an input; returns the tokens of the first
    one at four levels.

    The images share one table of relative positions (input, row, column), which is all that they
    know of position.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.patches = nn.Conv2d(shape.channels, shape.width, shape.patch, shape.patch)
        self.blocks = nn.ModuleList([Block(shape.width, shape.heads) for _ in range(shape.depth)])
        size = 2 * shape.grid - 1
        self.table = nn.Parameter(torch.zeros(shape.heads, 2 * shape.inputs - 1, size, size))
        self.register_buffer("apart", _offsets(shape), persistent=False)

    def positions(self, inputs: int) -> Float[Tensor, "h t t"]:
        """What attention between two tokens gets for their offset."""
        n = inputs * self.shape.grid**2
        apart = self.apart
        assert isinstance(apart, Tensor)
        return self.table.flatten(1)[:, apart[:n, :n]]

    def forward(self, images: Float[Tensor, "n i c y x"]) -> list[Float[Tensor, "n t d"]]:
        n, inputs = images.shape[:2]
        tokens = self.patches(images.flatten(0, 1)).flatten(2).transpose(1, 2)
        x = tokens.unflatten(0, (n, inputs)).flatten(1, 2)
        offsets, levels = self.positions(inputs), []
        for k, block in enumerate(self.blocks, 1):
            x = block(x, offsets)
            if k % (self.shape.depth // LEVELS) == 0:
                levels.append(x[:, : self.shape.grid**2])
        return levels


def _offsets(shape: Shape) -> Tensor:
    """Entry of the table for every pair of tokens of all inputs."""
    side, count = range(shape.grid), range(shape.inputs)
    at = torch.tensor([(i, y, x) for i in count for y in side for x in side])
    apart = at[:, None] - at[None] + torch.tensor([shape.inputs - 1, *2 * (shape.grid - 1,)])
    size = 2 * shape.grid - 1
    return (apart[..., 0] * size + apart[..., 1]) * size + apart[..., 2]


class BeitEncoder(nn.Module):
    """A BEiT of the `transformers` library (Bao et al., 2022, arXiv:2106.08254) as image encoder:
    hidden states of its patches at four levels. One image per input.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.width = int(model.config.hidden_size)
        self.depth = int(model.config.num_hidden_layers)

    def forward(self, images: Float[Tensor, "n i c y x"]) -> list[Float[Tensor, "n t d"]]:
        if images.shape[1] != 1:
            raise InvalidConfig(
                f"BEiT got {images.shape[1]} images per input.",
                why="its table of positions is that of one image.",
                fix="give one image, or use ImageEncoder.",
            )
        states = self.model(images[:, 0], output_hidden_states=True).hidden_states
        return [states[k * self.depth // LEVELS][:, 1:] for k in range(1, LEVELS + 1)]


class LabelEncoder(nn.Module):
    """Patches of a label of one channel and four residual perceptrons: a local code.

    No attention, as the label of a patch says what to copy from it (the paper uses a second vision
    transformer, which at this size did not leave the plateau).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.patches = nn.Conv2d(1, width, shape.patch, shape.patch)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(),
                              nn.Linear(width, width))
                for _ in range(LEVELS)
            ]
        )  # fmt: skip

    def forward(self, labels: Float[Tensor, "n y x"]) -> list[Float[Tensor, "n t d"]]:
        x = self.patches(labels[:, None]).flatten(2).transpose(1, 2)
        levels = []
        for block in self.blocks:
            x = x + block(x)
            levels.append(x)
        return levels


class Matching(nn.Module):
    """z = attention(LN(W q), LN(W k), V z_S), then LN, then z + GELU(W_o z); no biases but the
    norms'.

    Queries and keys share their norm, which is taken per head: so a token is nearest to itself.
    """

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.heads = shape.heads
        self.query = nn.Linear(width, shape.width, bias=False)
        self.key = nn.Linear(width, shape.width, bias=False)
        # an untied start stays on a plateau for many steps
        self.key.weight.data.copy_(self.query.weight.data)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.norm = nn.LayerNorm(shape.width // shape.heads)
        self.after = nn.LayerNorm(shape.width)
        self.out = nn.Linear(shape.width, shape.width, bias=False)
        self.scale = nn.Parameter(torch.tensor((shape.width // shape.heads) ** -0.5))

    def keys(self, tokens: Float[Tensor, "n t w"]) -> Float[Tensor, "h s e"]:
        """Of all tokens of all support images."""
        return self.norm(split_heads(self.key(tokens.flatten(0, 1)), self.heads))

    def values(self, codes: Float[Tensor, "c s d"]) -> Float[Tensor, "c h s e"]:
        return split_heads(self.value(codes), self.heads)

    def attend(
        self,
        queries: Float[Tensor, "n t w"],
        keys: Float[Tensor, "h s e"],
        values: Float[Tensor, "c h s e"],
    ) -> Float[Tensor, "n c t d"]:
        """What the support's labels say at the tokens that look alike."""
        q = self.norm(split_heads(self.query(queries), self.heads))
        n, t = len(queries), queries.shape[1]
        # the weights are the same for every channel: their values stand side by side
        side_by_side = values.movedim(0, -2).flatten(-2)
        q = q.transpose(0, 1).flatten(1, 2) * self.scale
        found = F.scaled_dot_product_attention(q[None], keys[None], side_by_side[None], scale=1.0)
        found = found[0].unflatten(1, (n, t)).unflatten(-1, (len(values), -1))
        return found.permute(1, 3, 2, 0, 4).flatten(-2)

    def forward(
        self,
        queries: Float[Tensor, "n t w"],
        keys: Float[Tensor, "h s e"],
        values: Float[Tensor, "c h s e"],
    ) -> Float[Tensor, "n c t d"]:
        z = self.after(self.attend(queries, keys, values))
        return z + F.gelu(self.out(z))


class Decoder(nn.Module):
    """Four levels of tokens as maps of logits: convolutions around two upsamplings."""

    def __init__(self, shape: Shape, channels: int = 1) -> None:
        super().__init__()
        width, narrow = shape.width, shape.width // 2
        self.grid, self.patch = shape.grid, shape.patch
        self.join = nn.Conv2d(LEVELS * width, width, 1)
        self.first = nn.Conv2d(width, narrow, 3, padding=1)
        self.second = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.head = nn.Conv2d(narrow, channels, 3, padding=1)

    def forward(self, levels: Sequence[Float[Tensor, "n t d"]]) -> Float[Tensor, "n c y x"]:
        x = torch.cat(list(levels), -1).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        x = F.gelu(self.join(x))
        x = F.interpolate(F.gelu(self.first(x)), scale_factor=2, mode="bilinear")
        x = F.gelu(self.second(x))
        side = self.grid * self.patch
        x = F.interpolate(x, size=(side, side), mode="bilinear")
        return self.head(x)


@dataclass(frozen=True)
class SupportTokens:
    """Labelled images, encoded once: keys and values of every level."""

    keys: Sequence[Float[Tensor, "h s e"]]
    values: Sequence[Float[Tensor, "c h s e"]]


class TokenMatching(nn.Module):
    """Predicts the labels of query images from those of support images."""

    def __init__(self, shape: Shape = Shape(), encoder: BeitEncoder | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.image_encoder = ImageEncoder(shape) if encoder is None else encoder
        width = shape.width if encoder is None else encoder.width
        self.label_encoder = LabelEncoder(shape)
        self.matching = nn.ModuleList([Matching(shape, width) for _ in range(LEVELS)])
        self.decoder = Decoder(shape)
        self.levels = nn.Parameter(torch.zeros(LEVELS, LEVELS)) if shape.mixing else None

    def task_parameters(self) -> list[str]:
        """What a task has of its own: biases of the image encoder, level mixing, shared norms."""
        encoder = [f"image_encoder.{name}" for name in bias_names(self.image_encoder)]
        norms = [
            name for name, _ in self.named_parameters() if ".norm." in name and "matching" in name
        ]
        return [*encoder, *norms, *(["levels"] if self.levels is not None else [])]

    def encode(self, images: Tensor) -> list[Float[Tensor, "n t d"]]:
        """Tokens that are matched at each level: softmax(α/0.05)-weighted normalised levels."""
        shape = self.shape
        if images.dim() == 4:
            images = images[:, None]
        if images.dim() != 5 or images.shape[2:] != (shape.channels, shape.side, shape.side):
            raise InvalidData(
                f"Images of shape {tuple(images.shape)} do not fit the model.",
                why=f"it reads {shape.channels} × {shape.side} × {shape.side}, query and support "
                "alike.",
                fix="cut them into tiles (unseen.engine.dense.tiles), or resize them.",
            )
        if images.shape[1] > shape.inputs:
            raise InvalidData(
                f"{images.shape[1]} images per input.",
                why=f"the table of positions has room for {shape.inputs}.",
                fix="give fewer, or build the model with Shape(inputs=…).",
            )
        levels = [F.layer_norm(x, x.shape[-1:]) for x in self.image_encoder(images)]
        if self.levels is None:
            return levels
        weights = (self.levels / TEMPERATURE).softmax(1)
        return list(torch.einsum("lj,jntd->lntd", weights, torch.stack(levels)))

    def encode_support(
        self,
        images: Tensor,
        labels: Float[Tensor, "n c y x"],
        known: Bool[Tensor, "n c y x"] | None = None,
    ) -> SupportTokens:
        """Keys and values of labelled images, for any number of queries. Labels where `known` is
        False are hidden.
        """
        if len(images) != len(labels) or labels.shape[-2:] != images.shape[-2:]:
            raise InvalidData(
                f"Images {tuple(images.shape)} and labels {tuple(labels.shape)} do not belong "
                "together.",
                why="every image needs a label of its size.",
                fix="give labels [n, channel, height, width] for images [n, 3, height, width].",
            )
        if known is not None:
            labels = torch.where(known, labels, torch.full_like(labels, MASKED))
        return self.match_support(self.encode(images), labels)

    def match_support(
        self, tokens: Sequence[Tensor], labels: Float[Tensor, "n c y x"]
    ) -> SupportTokens:
        """Keys and values of images whose tokens are known."""
        n, channels = labels.shape[:2]
        codes = [
            level.unflatten(0, (channels, n)).flatten(1, 2)
            for level in self.label_encoder(labels.transpose(0, 1).flatten(0, 1))
        ]
        keys = [m.keys(t) for m, t in zip(self._matching(), tokens, strict=True)]
        values = [m.values(c) for m, c in zip(self._matching(), codes, strict=True)]
        return SupportTokens(keys, values)

    def decode(self, tokens: Sequence[Tensor], support: SupportTokens) -> Float[Tensor, "n c y x"]:
        """Logits of query images whose tokens are known."""
        found = [
            m(q, k, v)
            for m, q, k, v in zip(
                self._matching(), tokens, support.keys, support.values, strict=True
            )
        ]
        n, channels = found[0].shape[:2]
        return self.decoder([z.flatten(0, 1) for z in found])[:, 0].unflatten(0, (n, channels))

    def forward(self, images: Tensor, support: SupportTokens) -> Float[Tensor, "n c y x"]:
        """Logits of the channels of the support's labels."""
        return self.decode(self.encode(images), support)

    def _matching(self) -> list[Matching]:
        return [m for m in self.matching if isinstance(m, Matching)]


def token_matcher(shape: Shape = Shape(), tasks: Sequence[str] = ()) -> BiasSwitch:
    """A matching network with one set of biases for every task."""
    model = TokenMatching(shape)
    switch = BiasSwitch(model, model.task_parameters())
    for task in tasks:
        switch.add_task(task)
    return switch


class FewShotPredictor(nn.Module):
    """Predicts one task from the tokens of its labelled images: images → logits.

    Without a task the mean biases of all tasks are used: nothing was adapted.
    """

    def __init__(
        self,
        switch: BiasSwitch,
        task: str | None,
        images: Tensor,
        labels: Float[Tensor, "n c y x"],
        known: Bool[Tensor, "n c y x"] | None = None,
    ) -> None:
        super().__init__()
        self.switch, self.task = switch, task
        with torch.no_grad(), switch.use(task) as model:
            assert isinstance(model, TokenMatching)
            support = model.encode_support(images, labels, known)
        for level, (keys, values) in enumerate(zip(support.keys, support.values, strict=True)):
            self.register_buffer(f"keys_{level}", keys, persistent=False)
            self.register_buffer(f"values_{level}", values, persistent=False)

    @property
    def support(self) -> SupportTokens:
        keys, values = (
            [self.get_buffer(f"{name}_{level}") for level in range(LEVELS)]
            for name in ("keys", "values")
        )
        return SupportTokens(keys, values)

    def forward(self, x: Tensor) -> Float[Tensor, "n c y x"]:
        return self.switch(self.task, x, self.support)


class DenseNetwork(nn.Module):
    """The image encoder with a decoder of its own: logits of `channels` labels without support."""

    def __init__(self, shape: Shape, channels: int) -> None:
        super().__init__()
        self.image_encoder: nn.Module = ImageEncoder(shape)
        self.decoder = Decoder(shape, channels)

    def forward(self, x: Tensor) -> Float[Tensor, "n c y x"]:
        images = x[:, None] if x.dim() == 4 else x
        levels = [F.layer_norm(level, level.shape[-1:]) for level in self.image_encoder(images)]
        return self.decoder(levels)
