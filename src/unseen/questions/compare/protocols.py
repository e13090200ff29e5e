"""Model selection: which draw of the hyperparameters is reported, and what it may be chosen by.

The three protocols of Gulrajani & Lopez-Paz (2021, arXiv:2007.01434, section 3). In all of them
every draw is trained for the whole budget on all training domains, and its last weights are
evaluated; only the choice among the draws differs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from unseen.errors import InvalidData


class Protocol(StrEnum):
    """What the draw with the highest mean score is highest on."""

    TRAINING = "training-domain validation"
    """Examples of the training domains that are not fitted; every domain counts alike."""
    LEFT_OUT = "leave-one-domain-out validation"
    """Each training domain in turn, by a model that is trained without it; the mean over these
    domains.
    """
    ORACLE = "oracle"
    """Labelled examples of the very site that is evaluated, not available in practice: nothing to
    expect in use.
    """


@dataclass(frozen=True, kw_only=True)
class MethodScores:
    """Scores of one method on one task. NaN: not known, or the run diverged."""

    validation: Mapping[Protocol, Float[ndarray, "seed draw"]]
    score: Mapping[str, Float[ndarray, "seed draw n"]]
    """Of every evaluation example, by site."""
    margin: Mapping[str, Float[ndarray, "seed draw n"]] = field(default_factory=dict)
    """Logit of class 1 minus that of class 0, where there are two classes."""
    seen: Float[ndarray, "seed draw"] | None = None
    """Mean score on new examples of known sites."""
    diverged: Bool[ndarray, "seed draw"]

    def selected_draws(self, protocol: Protocol) -> Int[ndarray, " seed"]:
        """The draw that each seed reports; −1 where it has none."""
        if protocol not in self.validation:
            return np.full(len(self.diverged), -1)
        return best_draws(np.where(self.diverged, np.nan, self.validation[protocol]))


def best_draws(validation: Float[ndarray, "seed draw"]) -> Int[ndarray, " seed"]:
    """The first draw with the highest finite value, per seed; −1 where no value is finite.

    Draw 0 has the defaults, so that what is as good as the defaults does not replace them.
    """
    if validation.ndim != 2 or validation.shape[1] < 1:
        raise InvalidData(
            f"A validation table of shape {validation.shape}.",
            why="one row per seed and one column per draw is chosen from.",
            fix="give at least one draw.",
        )
    known = np.where(np.isfinite(validation), validation, -np.inf)
    best = known.argmax(1)
    return np.where(np.isfinite(known.max(1)), best, -1)


def mean_over_domains(
    by_domain: Sequence[Float[ndarray, "seed draw"]],
) -> Float[ndarray, "seed draw"]:
    """Mean over the validation domains; NaN where a run on any of them diverged, since then the
    mean is of others.
    """
    return np.mean(np.stack(list(by_domain)), axis=0)
