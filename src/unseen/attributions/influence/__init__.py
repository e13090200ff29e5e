"""Influence of training examples on a behaviour, without retraining (Koh & Liang, 2017; Grosse et
al., 2023, arXiv:2308.03296).

One added copy of example z moves the parameters by −(1/N) (G + λ)⁻¹ ∇ℓ(z) to first order, and a
behaviour f by

    I_f(z) = −(1/N) ∇fᵀ (G + λ)⁻¹ ∇ℓ(z)

in the unit of f (nats where f is a log-likelihood; positive: the example helps). G is the
Gauss–Newton or Fisher matrix, layer by layer in Kronecker-factored eigenbases, N the number of
training examples.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from unseen.attributions.influence.attributor import InfluenceScores
from unseen.attributions.influence.batch_pieces import Pieces, pieces_within
from unseen.attributions.influence.factors import (
    Curvature,
    Factors,
    Fit,
    names,
)
from unseen.attributions.influence.layers import (
    digest,
    pairs,
    restrict_gradients,
    select_layers,
)
from unseen.attributions.influence.pair_cache import PairCache
from unseen.attributions.influence.preconditioned_queries import Precision
from unseen.attributions.influence.pseudo_labels import (
    Fisher,
    PseudoLabels,
    refuse_batch_dependence,
)
from unseen.attributions.influence.running_sums import (
    AgreedSums,
    KeeperWithLimit,
    SumsStore,
    keep_together,
    sums_store,
)
from unseen.attributions.influence.settings import (
    damping_number,
    layer_patterns,
    member,
    whole_number,
)
from unseen.attributions.influence.stream import Stream
from unseen.attributions.influence.top_k import Top
from unseen.engine.factor_pairs import FactorPair
from unseen.engine.sharding import (
    HOOK,
    device_of_block,
    is_sharded,
    is_spread,
    refuse_tensor_parallel,
    without_hooks,
)
from unseen.errors import InvalidConfig, InvalidData
from unseen.identity import Structure, identify
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import sequence_log_probability
from unseen.task import Batch, PerExample, Use

CURVATURE = "curvature"
"""The name of the identity of fitted factors."""
KINDS = {"curvature": Curvature, "fisher": Fisher, "precision": Precision}
"""Settings that are one of a few."""
LEAST = {
    "draws": 1,
    "iterations": 0,
    "rank": 0,
    "batch_size": 1,
    "most": 1,
    "memory": 0,
    "disk": 0,
}
"""Settings that are whole numbers, and the smallest of each."""

__all__ = [
    "CURVATURE",
    "Curvature",
    "Factors",
    "Fisher",
    "Influence",
    "InfluenceScores",
    "Precision",
    "Top",
    "sequence_nats",
]


def sequence_nats(model: torch.nn.Module, batch: Batch) -> Tensor:
    """−log p of the tokens with `mask` = 1, summed: the loss whose Fisher matrix is that of whole
    sequences.
    """
    return -sequence_log_probability(model, batch)


def attention_mask(batch: Batch) -> Tensor | None:
    """`attention_mask`, where the batch has one: positions that are no padding."""
    return batch["attention_mask"].bool() if "attention_mask" in batch else None


@dataclass(frozen=True)
class Influence:
    """Influence functions with factored curvature: fit once, ask often.

    The loss must be a negative log-likelihood for the sampled and exact Fisher to be the
    Gauss–Newton matrix; for sequences its sum over tokens (`sequence_nats`), not their mean.
    """

    curvature: Curvature = Curvature.EKFAC
    fisher: Fisher = Fisher.SAMPLED
    draws: int = 1
    """Label samples per example, for the sampled Fisher: many where few examples are fitted."""
    damping: float = 0.1
    """λ of a layer as a multiple of its mean eigenvalue."""
    layers: tuple[str, ...] = ()
    """Patterns of layer names ("blocks.*.mlp.*"); empty: all linear maps and convolutions but the
    output embedding's.
    """
    iterations: int = 10
    """Of the iterative curvatures: passes over the fitted examples. A product of conjugate
    gradients is one pass; a step of ASTRA is one batch of a pass. 0: EK-FAC's own answer.
    """
    rank: int = 0
    """If positive: preconditioned queries are cut to this rank, for many queries on large
    layers.
    """
    precision: Precision = Precision.MIXED
    """Of the products. What a check on the first examples does not confirm is computed in full
    precision, and said.
    """
    batch_size: int = 64
    most: int = 100_000
    """Examples on which the curvature is fitted."""
    memory: int = 1 << 30
    """Bytes of activations and gradients that are held, so that the model runs once over what
    fits. A batch that needs more than that by itself runs in pieces, which is said; with 0 nothing
    is held and batches stay whole.
    """
    disk: int = 0
    """Bytes of gradients that wait in a temporary file for the next pass, so that the model does
    not run again for them; `memory` then holds what the running batch leaves of it. Of each
    process, and never more than stays free. Processes that share a model hold nothing.
    """
    loss: PerExample | None = None
    """Default: the task's."""
    real: Callable[[Batch], Tensor | None] = attention_mask
    """The positions `[batch, s]` that are no padding."""

    def __post_init__(self) -> None:
        # what is given as a string, or by numpy, is the same setting
        for name, kind in KINDS.items():
            object.__setattr__(self, name, member(kind, name, getattr(self, name)))
        object.__setattr__(self, "layers", layer_patterns(self.layers))
        object.__setattr__(self, "damping", damping_number(self.damping, Influence.damping))
        for name, least in LEAST.items():
            number = whole_number(name, getattr(self, name), least, getattr(Influence, name))
            object.__setattr__(self, name, number)

    def prepare(self, trained: Trained, lab: Lab) -> InfluenceScores:
        """Fits the curvature (or reads it back where the lab keeps things) and returns what answers
        queries.
        """
        model, objective = trained.model, trained.task.objective
        loss = self.loss or objective.loss
        refuse_tensor_parallel(model)
        layers = select_layers(model, self.layers)
        is_shared = is_sharded(model)
        if is_spread(model):
            refuse_spread(model, self.curvature, lab)
        is_exact = self.curvature is Curvature.EXACT

        def gradients(batch: Batch, f: PerExample, is_half: bool = False) -> dict[str, FactorPair]:
            return pairs(model, batch, f, is_exact, is_half)

        stream = Stream(trained.task, self.batch_size, lab)
        with restrict_gradients(model, layers):
            first = next(stream.iterate())[2]
            refuse_batch_dependence(model, first, loss)
            # processes that share a model run it together, whole batches at a time
            pieces = Pieces() if is_shared else pieces_within(self.memory, model, first, loss)
            kept = self._cache(pieces, is_shared)
            mark = digest(model)
            key = identify(
                CURVATURE,
                settings=replace(
                    self,
                    memory=0,
                    disk=0,
                    curvature=self.curvature.preconditioner,
                    iterations=0,
                    rank=0,
                ),
                model=Structure(without_hooks(model) if is_shared else model),
                weights=mark,
                objective=objective,
                data=trained.task.of(Use.TRAIN),
                lab=lab.signature,
            )

            def sums_of(name: str) -> SumsStore:
                # pieces of batches, which the memory decides, decide last digits
                where = f"{name}-{lab.ranks.rank}"
                store = sums_store(lab.keeper, key, where, f"memory={kept.budget}")
                return AgreedSums(store, lab) if is_shared else store

            def device_of(name: str) -> torch.device:
                return device_of_block(model, name, lab.device)

            def foresee(size: int) -> None:
                if isinstance(lab.keeper, KeeperWithLimit):
                    lab.keeper.foresee(key, size)

            fit = Fit(
                self.curvature.preconditioner,
                PseudoLabels(model, self.fisher, self.draws, objective, loss, lab),
                self.damping,
                gradients,
                self.precision,
                lab,
                self.real,
                kept,
                sums_of,
                device_of,
                foresee,
                pieces,
            )

            def make() -> dict[str, Tensor]:
                blocks, examples = fit(lambda: stream.local_batches(self.most, is_shared))
                return Factors(blocks, mark, examples).tensors()

            factors = Factors.of(keep_together(lab, key, make), mark, device_of)
        if self.layers and not is_exact:
            refuse_unused_layers(model, layers, factors)
        if self.fisher is not Fisher.EMPIRICAL:
            kept.clear()  # they are gradients of drawn labels, of no use for scores
        return InfluenceScores(
            trained, lab, self, factors, layers, loss, stream, kept, pieces=pieces
        )

    def _cache(self, pieces: Pieces, is_shared: bool) -> PairCache:
        """Where gradients of the fit are held, before it begins."""
        # K-FAC reads gradients once; only scores of the data's own labels read them again
        is_read_once = self.curvature is Curvature.KFAC and self.fisher is not Fisher.EMPIRICAL
        # what fits into the memory of one process need not fit into another's
        if self.curvature is Curvature.IDENTITY or is_read_once or is_shared:
            return PairCache(0, is_open=False)
        if not self.disk:
            return PairCache(self.memory)
        # the model runs once all the same: memory is left to the batch that runs
        return PairCache(max(0, self.memory - pieces.bytes_of(self.batch_size)), self.disk)


def refuse_spread(model: torch.nn.Module, curvature: Curvature, lab: Lab) -> None:
    """Raises for what a model on several devices, or in several processes, cannot do."""
    if curvature.is_iterative:
        raise InvalidConfig(
            f"curvature={curvature} of a model that is sharded or lies on several devices.",
            why="Gauss–Newton products run the model with other parameters than its own.",
            fix="use curvature=Curvature.EKFAC, or load the model whole, on one device.",
        )
    if any(getattr(getattr(m, HOOK, None), "offload", False) for m in model.modules()):
        raise InvalidConfig(
            "Weights of the model are offloaded (`device_map` put layers on the CPU or the disk).",
            why="they exist only while their layer runs.",
            fix="give more devices or torchrun --shard, so that every layer has a place.",
        )
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    if is_sharded(model) and several and lab.ranks.size == 1:
        raise InvalidConfig(
            "The model is sharded over processes that the lab does not know.",
            why="each of them would read all examples, and sums would miss the others'.",
            fix="use Lab(ranks=unseen.engine.ranks.ranks()).",
        )


def refuse_unused_layers(model: torch.nn.Module, layers: tuple[str, ...], factors: Factors) -> None:
    """Raises if a layer that somebody named plays no part in the loss."""
    reached = names(list(factors.blocks))
    name_of = {
        id(p): name for name, p in model.named_parameters()
    }  # a tied parameter goes by its first name
    for layer in layers:
        own = [name_of[id(p)] for p in model.get_submodule(layer).parameters(recurse=False)]
        if not any(name in reached or name.removesuffix(".weight") in reached for name in own):
            raise InvalidData(
                f"The loss does not depend on layer `{layer}`.",
                why="no training example has a gradient there, so no influence goes through it.",
                fix="leave it out of layers=(…).",
            )


def example() -> Influence:
    return Influence()
