"""Perception: which symbol an image shows, learned without names of images.

Before anything is learned from answers, images are clustered. What a cluster may mean follows from
lengths alone: the numbers of children in a tree of n symbols add up to n − 1. Names of symbols with
equally many children are exchangeable until answers tell them apart.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, KMeans
from torch import Tensor, nn

from unseen.errors import InvalidData


class Perception(nn.Module):
    """p(symbol | image): one hidden layer on standardised pixels."""

    mean: Tensor
    scale: Tensor

    def __init__(self, symbols: Sequence[str], side: tuple[int, int], hidden: int = 128) -> None:
        super().__init__()
        self.symbols, self.side = tuple(symbols), side
        self.register_buffer("mean", torch.zeros(side))
        self.register_buffer("scale", torch.ones(()))
        self.hidden = nn.Linear(side[0] * side[1], hidden)
        self.out = nn.Linear(hidden, len(self.symbols))

    def forward(self, images: Float[Tensor, "n h w"]) -> Float[Tensor, "n symbols"]:
        """Logits."""
        pixels = ((images - self.mean) / self.scale).flatten(1)
        return self.out(self.hidden(pixels).relu())

    @torch.no_grad()
    def log_probabilities(self, images: Float[Tensor, "n h w"]) -> NDArray[np.float64]:
        """log p(symbol | image), a row per image."""
        return self(images).double().log_softmax(1).cpu().numpy()

    def standardise(self, images: Float[Tensor, "n h w"]) -> None:
        """Takes mean and scale from training images."""
        self.mean.copy_(images.mean(0))
        self.scale.copy_((images - self.mean).std().clamp_min(1e-6))

    def fit(
        self,
        images: Float[Tensor, "n h w"],
        labels: Int[Tensor, " n"],
        weights: Float[Tensor, " n"],
        optimizer: torch.optim.Optimizer,
        passes: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        """Maximises the likelihood of the symbols. Labels are smoothed: some are wrong, and a
        network that is sure of them would never be corrected.
        """
        for _ in range(passes):
            for index in torch.randperm(len(labels), generator=generator).split(batch_size):
                losses = nn.functional.cross_entropy(
                    self(images[index]), labels[index], label_smoothing=0.1, reduction="none"
                )
                optimizer.zero_grad()
                (losses * weights[index]).mean().backward()
                optimizer.step()


def likeliest_symbols(
    log_probabilities: NDArray[np.float64], arity: Sequence[int]
) -> list[int] | None:
    """argmax Σ log p over the sequences that may form a tree: numbers of children add up to
    n − 1. None where no sequence does.
    """
    n, wanted = len(log_probabilities), len(log_probabilities) - 1
    kinds = sorted(set(arity))
    columns = {kind: [k for k, a in enumerate(arity) if a == kind] for kind in kinds}
    chosen = {kind: np.take(c, log_probabilities[:, c].argmax(1)) for kind, c in columns.items()}
    # best[sum] after the images so far, and which kind of symbol came last
    best = np.full(wanted + 1, -np.inf)
    best[0] = 0.0
    last = np.zeros((n, wanted + 1), dtype=int)
    for k in range(n):
        after = np.full(wanted + 1, -np.inf)
        for kind in kinds:
            if kind > wanted:
                continue
            total = best[: wanted + 1 - kind] + log_probabilities[k, chosen[kind][k]]
            better = np.flatnonzero(total > after[kind:]) + kind
            after[better] = total[better - kind]
            last[k, better] = kind
        best = after
    if best[wanted] == -np.inf:
        return None
    found, rest = list[int](), wanted
    for k in reversed(range(n)):
        kind = int(last[k, rest])
        found.append(int(chosen[kind][k]))
        rest -= kind
    return found[::-1]


class Clusters:
    """Images in more groups than there are symbols, and the symbol that each group stands for."""

    def __init__(
        self,
        images: Float[Tensor, "n h w"],
        sources: Sequence[range],
        arity: Mapping[str, int],
        per_symbol: int,
        seed: int,
    ) -> None:
        """`sources`: the images of each source by number."""
        pixels = images.flatten(1).double().cpu().numpy()
        n = min(per_symbol * len(arity), len(np.unique(pixels, axis=0)))
        if n < len(set(arity.values())):
            raise InvalidData(
                f"The images show {n} different pictures.",
                why="symbols are told apart by their images.",
                fix="give more images.",
            )
        groups = KMeans(n, n_init=3, random_state=seed).fit(pixels)
        self.of = groups.labels_
        counts = np.zeros((len(sources), n))
        for k, source in enumerate(sources):
            np.add.at(counts[k], self.of[source.start : source.stop], 1)
        kinds = arities_from_lengths(counts, sorted(set(arity.values())))
        self.symbol = name_groups(groups.cluster_centers_, kinds, arity)

    def labels(self, known: Mapping[int, int]) -> NDArray[np.int64]:
        """A symbol for every image: the one that answers told (`known`), else the one most told in
        its group, else the group's first.
        """
        told = [Counter[int]() for _ in self.symbol]
        for image, symbol in known.items():
            told[self.of[image]][symbol] += 1
        group = np.array(
            [
                seen.most_common(1)[0][0] if seen else first
                for seen, first in zip(told, self.symbol, strict=True)
            ]
        )
        found = group[self.of]
        for image, symbol in known.items():
            found[image] = symbol
        return found


def arities_from_lengths(counts: NDArray[np.float64], allowed: Sequence[int]) -> NDArray[np.int64]:
    """The number of children of each group, with which Σ over a source's images comes closest to
    its length − 1 (least squares over allowed numbers, improved one group at a time).
    """
    wanted = counts.sum(1) - 1
    free = np.linalg.lstsq(counts, wanted, rcond=None)[0]
    kinds = np.array(allowed)[np.abs(free[:, None] - np.array(allowed)).argmin(1)]
    # opening and closing brackets always come together, so that least squares alone leaves open
    # which of them has children: any consistent choice will do
    for _ in range(20):
        before = kinds.copy()
        for group in np.argsort(-counts.sum(0), kind="stable"):
            rest = wanted - counts @ kinds + counts[:, group] * kinds[group]
            errors = [((rest - counts[:, group] * a) ** 2).sum() for a in allowed]
            kinds[group] = allowed[int(np.argmin(errors))]
        if (kinds == before).all():
            break
    return kinds


def name_groups(
    centres: NDArray[np.float64], kinds: NDArray[np.int64], arity: Mapping[str, int]
) -> list[int]:
    """The symbol of each group: those of one number of children are joined to as many as there are
    symbols of it, and the names are dealt out.
    """
    names = list(arity)
    found = [0] * len(kinds)
    for kind in sorted(set(arity.values())):
        symbols = [k for k, name in enumerate(names) if arity[name] == kind]
        groups = np.flatnonzero(kinds == kind)
        if len(groups) <= len(symbols):
            joined = np.arange(len(groups))
        else:
            joined = AgglomerativeClustering(len(symbols)).fit_predict(centres[groups])
        for group, k in zip(groups, joined, strict=True):
            found[group] = symbols[int(k)]
    return found
