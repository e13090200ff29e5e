"""An autoencoder of people in drifting domains, whose codes are split by what they mean and what
influences them.

Four groups of codes (Lin et al., 2023, arXiv:2309.13005): semantic or environmental, each
influenced by the sensitive attribute a or not. The label is read from the semantic ones, the drift
from the environmental ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.errors import InvalidConfig
from unseen.models.mlp import mlp


class Codes(StrEnum):
    """The groups of latent codes, in their order."""

    SEMANTIC_INFLUENCED = "semantic, influenced"
    SEMANTIC = "semantic"
    ENVIRONMENT_INFLUENCED = "environment, influenced"
    ENVIRONMENT = "environment"


@dataclass(frozen=True)
class Posterior:
    """q(U | x, a): independent normals, [n, 4 k]."""

    mean: Float[Tensor, "n codes"]
    log_variance: Float[Tensor, "n codes"]

    def sample(self, noise: Float[Tensor, "n codes"]) -> Float[Tensor, "n codes"]:
        return self.mean + (self.log_variance / 2).exp() * noise

    def divergence(self, prior: Float[Tensor, "*n codes"]) -> Float[Tensor, "n codes"]:
        """KL(q ‖ N(prior, 1)) of every code, in nats."""
        return ((self.mean - prior).square() + self.log_variance.exp() - 1 - self.log_variance) / 2


class Recurrence(nn.Module):
    """A gated recurrent unit (Cho et al., 2014) of linear layers, which run as well in a stack of
    models.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.update, self.reset, self.propose = (
            nn.Linear(inputs + hidden, hidden) for _ in range(3)
        )
        self.hidden = hidden

    def forward(
        self, x: Float[Tensor, " inputs"], h: Float[Tensor, " hidden"]
    ) -> Float[Tensor, " hidden"]:
        both = torch.cat([x, h])[None]
        keep, open_ = self.update(both).sigmoid()[0], self.reset(both).sigmoid()[0]
        new = self.propose(torch.cat([x, open_ * h])[None]).tanh()[0]
        return keep * h + (1 - keep) * new


class SequentialAutoencoder(nn.Module):
    """`model(x)` gives the classes' logits from the mean semantic codes; `counterfactual(x)` the
    same person with other a.

    `sensitive` are the positions of inputs that hold a: binary, they take the two `levels` and flip
    together.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        sensitive: Sequence[int],
        levels: Tensor,
        *,
        k: int,
        width: int,
        hidden: int,
    ) -> None:
        super().__init__()
        inside = sorted({position % inputs for position in sensitive})
        if (
            not inside
            or len(inside) != len(sensitive)
            or len(inside) == inputs
            or min(k, width, hidden) < 1
        ):
            raise InvalidConfig(
                f"SequentialAutoencoder got sensitive={tuple(sensitive)} of {inputs} inputs, "
                f"k={k}, width={width}, "
                f"hidden={hidden}.",
                why="some inputs are the sensitive attribute, others are not, and every layer has "
                "units.",
                fix="name distinct positions, and use sizes of at least 1.",
            )
        self.sensitive, self.others = inside, [j for j in range(inputs) if j not in inside]
        self.k, self.hidden = k, hidden
        self.register_buffer("low", levels[0].clone())
        self.register_buffer("high", levels[1].clone())
        self.encoder = mlp([inputs, width, width, 8 * k])
        self.decoder = mlp([4 * k + len(inside), width, width, len(self.others)])
        self.classifier = mlp([2 * k, width, outputs])
        self.discriminator = mlp([2 * k, width, 1])
        self.recurrence, self.expected = Recurrence(2 * k, hidden), nn.Linear(hidden, 2 * k)

    def group(self, codes: Float[Tensor, "*n codes"], which: Codes) -> Float[Tensor, "*n k"]:
        """One group of the codes."""
        place = list(Codes).index(which)
        return codes[..., place * self.k : (place + 1) * self.k]

    def semantic(self, codes: Float[Tensor, "*n codes"]) -> Float[Tensor, "*n k2"]:
        """What the label is read from."""
        return codes[..., : 2 * self.k]

    def posterior(self, x: Float[Tensor, "n d"]) -> Posterior:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return Posterior(mean, log_variance.clamp(-8, 8))

    def attribute(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """a: 1 where the first sensitive input is at its upper level."""
        return (x[:, self.sensitive[0]] > (self.low[0] + self.high[0]) / 2).to(x.dtype)

    def reconstruct(
        self, codes: Float[Tensor, "n codes"], a: Float[Tensor, "n s"]
    ) -> Float[Tensor, "n other"]:
        """The inputs other than a."""
        return self.decoder(torch.cat([codes, a], 1))

    def flip_group(
        self, x: Float[Tensor, "n d"], codes: Float[Tensor, "n codes"]
    ) -> Float[Tensor, "n d"]:
        """The inputs of the same codes in the other group."""
        a = self.low + self.high - x[:, self.sensitive]
        both = torch.cat([self.reconstruct(codes, a), a], 1)
        order = torch.tensor([*self.others, *self.sensitive], device=x.device).argsort()
        return both[:, order]

    def counterfactual(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n d"]:
        """decoder(mean codes, other a). Model-based: where the decoder is wrong, so is it."""
        x = x.flatten(1)
        return self.flip_group(x, self.posterior(x).mean)

    def drift(self, means: Float[Tensor, "domain k2"]) -> Float[Tensor, "domain k2"]:
        """The expected environmental codes of each domain, from the mean codes of the domains
        before it.
        """
        known = [means.new_zeros(self.hidden)]
        for mean in means[:-1]:
            known.append(self.recurrence(mean, known[-1]))
        return self.expected(torch.stack(known))

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n c"]:
        return self.classifier(self.semantic(self.posterior(x.flatten(1)).mean))
