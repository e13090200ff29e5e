"""Two views at several depths: hidden states of a large network beside those of a small one, each
depth with its own answer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.trace import record
from unseen.errors import InvalidConfig, UnsupportedLayer
from unseen.models.ensemble_model import Rule

ACTIVATIONS = (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Softplus)


def pool_positions(hidden: Tensor) -> Float[Tensor, "n d"]:
    """One vector per example: the mean over positions [n, position, d] or pixels [n, d, height,
    width].
    """
    if hidden.dim() == 3:
        return hidden.mean(1)
    return hidden.flatten(2).mean(2) if hidden.dim() > 3 else hidden.flatten(1)


def depths_of(model: nn.Module, given: Sequence[str]) -> tuple[str, ...]:
    """The named modules, or every activation function of a plain chain."""
    if given:
        return tuple(given)
    if isinstance(model, nn.Sequential):
        found = tuple(
            name for name, layer in model.named_children() if isinstance(layer, ACTIVATIONS)
        )
        if found and len({id(model.get_submodule(name)) for name in found}) == len(found):
            return found
    raise UnsupportedLayer(
        f"{type(model).__name__} does not say where its depths are.",
        why="each adapting layer reads the output of one module.",
        fix='name the modules: depths=("blocks.4", "blocks.5").',
    )


class Layerwise(nn.Module):
    """Adapting layers A_l: (f_l(x), g_m(x)) → outputs, for the depths l of a backbone f and m of a
    small network g.

    The depths of g are spread evenly over those of f. A frozen backbone stays in evaluation mode.
    """

    rule: Rule

    def __init__(
        self,
        backbone: nn.Module,
        small: nn.Module,
        adapters: Sequence[nn.Module],
        depths: Sequence[str],
        small_depths: Sequence[str],
        rule: Rule,
        *,
        frozen: bool,
    ) -> None:
        super().__init__()
        if not depths or len(adapters) != len(depths) or not small_depths:
            raise InvalidConfig(
                f"Layerwise got {len(depths)} depths, {len(adapters)} adapters and "
                f"{len(small_depths)} small depths.",
                why="every depth has one adapting layer, which also reads the small network.",
                fix="give as many adapters as depths, and at least one of each.",
            )
        self.backbone, self.small, self.adapters = backbone, small, nn.ModuleList(adapters)
        self.depths, self.small_depths = tuple(depths), tuple(small_depths)
        self.rule, self.frozen = rule, frozen
        if frozen:
            backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "Layerwise":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def backbone_features(self, x: Tensor) -> list[Float[Tensor, "n d"]]:
        """f_l(x), pooled, for every depth."""
        return _read(self.backbone, self.depths, x)

    def small_features(self, x: Tensor) -> list[Float[Tensor, "n d"]]:
        """g_m(l)(x), pooled, for every depth of the backbone."""
        own = _read(self.small, self.small_depths, x)
        return [own[k * len(own) // len(self.depths)] for k in range(len(self.depths))]

    def outputs_by_depth(
        self, x: Tensor, small_x: Tensor | None = None
    ) -> Float[Tensor, "depth n c"]:
        """Every depth's outputs. `small_x`: other inputs for the small network, to see what it
        contributes.
        """
        views = zip(
            self.backbone_features(x),
            self.small_features(x if small_x is None else small_x),
            strict=True,
        )
        return torch.stack(
            [adapt(torch.cat(pair, 1)) for adapt, pair in zip(self.adapters, views, strict=True)]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(self.outputs_by_depth(x), x, None)

    def extra_repr(self) -> str:
        return (
            f"depths={self.depths}, small_depths={self.small_depths}, rule={self.rule}, "
            f"frozen={self.frozen}"
        )


def _read(model: nn.Module, names: Sequence[str], x: Tensor) -> list[Tensor]:
    with record(model, names) as found:
        model(x)
    return [pool_positions(found[name]) for name in names]
