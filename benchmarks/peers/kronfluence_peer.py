"""Kronfluence (Bae, 2024, github.com/pomonam/kronfluence) 1.0.1 on a checkpoint of ours: EK-FAC
with the empirical Fisher.

Relation to ours: its score is + ∇L_query · (G + λ)⁻¹ ∇L_train of summed losses, without the 1/N and
with the loss as measurement; ours, in nats of log-likelihood per added copy, is that divided by N
(both signs turn, log p = −L). Damping is 0.1 times the mean eigenvalue of each layer on both sides
(`damping_factor=None`; its own default is 10⁻⁸).

Batch sizes are the fastest of those tried on this machine (`BATCHES`).
"""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from kronfluence import Analyzer, FactorArguments, ScoreArguments, Task, prepare_model
from kronfluence.utils.common.factor_arguments import all_low_precision_factor_arguments
from kronfluence.utils.common.score_arguments import all_low_precision_score_arguments
from torch import Tensor, nn
from torch.utils.data import Dataset

warnings.filterwarnings("ignore", message=".*GradScaler.*")
Batch = Mapping[str, Tensor]


class Setting(StrEnum):
    FLOAT32 = "float32"
    """Its defaults."""
    AMP = "amp"
    """Forward, backward and score products in bfloat16; sums, eigenvalues and preconditioning in
    float32.
    """
    BFLOAT16 = "bfloat16"
    """Its preset `all_low_precision_*_arguments`: sums in bfloat16, too."""


@dataclass(frozen=True)
class Sizes:
    """Examples per batch of the covariances, of Λ, of the queries, and of the training examples
    scored.

    `accumulated` batches of queries are held while one pass over the training examples scores them.
    """

    covariance: int
    lambda_: int
    query: int
    accumulated: int
    train: int


BATCHES = {"mlp": Sizes(500, 8, 125, 4, 512), "gpt2": Sizes(32, 16, 32, 1, 16)}


class Summed(Task):
    """Losses summed over the batch, as Kronfluence asks; true labels only."""

    def __init__(self, loss: Callable[[nn.Module, Batch], Tensor], layers: Sequence[str]) -> None:
        self.loss, self.layers = loss, list(layers)

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        if sample:
            raise NotImplementedError("the benchmark compares empirical Fishers")
        return self.loss(model, batch)

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        return self.loss(model, batch)

    def get_influence_tracked_modules(self) -> list[str]:
        return self.layers


def classification(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="sum")


def language(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(batch["tokens"])[:, :-1]
    return F.cross_entropy(
        logits.flatten(0, 1).float(), batch["tokens"][:, 1:].flatten(), reduction="sum"
    )


@dataclass(frozen=True)
class Spent:
    """CPU and wall seconds of one part."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Run:
    """The score matrix [query, train] in the peer's convention, and the seconds of covariance,
    eigen, lambda, scores.
    """

    scores: Tensor
    spent: dict[str, Spent]


def kronfluence(
    model: nn.Module,
    loss: Callable[[nn.Module, Batch], Tensor],
    train: Dataset[Any],
    queries: Dataset[Any],
    layers: Sequence[str],
    sizes: Sizes,
    setting: Setting = Setting.FLOAT32,
    rank: int | None = None,
) -> Run:
    """Factors and all scores; `model` is wrapped in place, so pass a copy if it is needed
    afterwards.
    """
    factor, score = arguments(setting, rank)
    score.query_gradient_accumulation_steps = sizes.accumulated
    model = prepare_model(model, Summed(loss, layers))
    spent: dict[str, Spent] = {}
    with tempfile.TemporaryDirectory() as folder:
        quiet: dict[str, Any] = {
            "log_level": logging.ERROR,
            "disable_tqdm": True,
            "disable_model_save": True,
        }
        level = logging.root.level
        analyzer = Analyzer(
            "unseen", model, Summed(loss, layers), cpu=True, output_dir=folder, **quiet
        )
        logging.root.setLevel(level)  # it silences every library in the process

        def timed(name: str, call: Callable[[], object]) -> None:
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            spent[name] = Spent(time.process_time() - cpu, time.perf_counter() - wall)

        timed(
            "covariance",
            lambda: analyzer.fit_covariance_matrices(
                "f", train, sizes.covariance, factor_args=factor
            ),
        )
        timed("eigen", lambda: analyzer.perform_eigendecomposition("f", factor_args=factor))
        timed(
            "lambda",
            lambda: analyzer.fit_lambda_matrices("f", train, sizes.lambda_, factor_args=factor),
        )
        timed(
            "scores",
            lambda: analyzer.compute_pairwise_scores(
                "s", "f", queries, train, sizes.query, sizes.train, score_args=score
            ),
        )
        found = analyzer.load_pairwise_scores("s")
    assert found is not None
    return Run(found["all_modules"].float(), spent)


def arguments(setting: Setting, rank: int | None) -> tuple[FactorArguments, ScoreArguments]:
    if setting is Setting.BFLOAT16:
        factor = all_low_precision_factor_arguments()
        score = all_low_precision_score_arguments(damping_factor=None, query_gradient_low_rank=rank)
    else:
        factor, score = (
            FactorArguments(),
            ScoreArguments(damping_factor=None, query_gradient_low_rank=rank),
        )
    if setting is Setting.AMP:
        factor.amp_dtype = score.amp_dtype = score.score_dtype = torch.bfloat16
    factor.use_empirical_fisher = True
    return factor, score
