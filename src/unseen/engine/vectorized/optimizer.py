"""The optimiser of many models at once."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from unseen.engine.loop import Budget, Optimizer
from unseen.engine.vectorized.ensemble import Ensemble, expand


class StackedOptimizer:
    """The budget's optimiser on stacked parameters, with learning rate, weight decay and clip norm
    per model.

    Where they differ, the fused optimiser runs at rate 1 and the result is interpolated: every
    update rule here is linear in its learning rate, w(lr) = w + lr (w(1) − w).
    """

    def __init__(self, ensemble: Ensemble, budgets: Sequence[Budget]) -> None:
        self.params, self.budget = list(ensemble.trainable.values()), budgets[0]
        self.rates, self.decays, self.clips = (
            torch.tensor(
                [getattr(b, name) for b in budgets],
                dtype=torch.float64,
                device=self.params[0].device,
            )
            for name in ("lr", "weight_decay", "clip")
        )
        self.has_clip = bool(torch.isfinite(self.clips).any())
        decay, one = self.budget.weight_decay, len({(b.lr, b.weight_decay) for b in budgets}) == 1
        self.shared = one and (self.budget.decay_vectors or not decay)
        self.optimizer = (
            self.budget if self.shared else replace(self.budget, lr=1.0, weight_decay=0.0)
        ).optimizer_of(ensemble)

    @torch.no_grad()
    def __call__(self, share: float) -> None:
        if self.has_clip:
            self._clip()
        if self.shared:
            for group in self.optimizer.param_groups:
                group["lr"] = self.budget.lr * share
            self.optimizer.step()
            return
        self._decay(share)
        old = [p.detach().clone() for p in self.params]
        self.optimizer.step()
        for p, before in zip(self.params, old, strict=True):
            p.copy_(torch.lerp(before, p, expand(self.rates * share, p)))

    def _clip(self) -> None:
        """As `clip_grad_norm_`: gradients times min(1, clip / (norm + 1e-6)), the norm over one
        model's parameters.
        """
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
        share = (self.clips / (norm + 1e-6)).clamp(max=1.0)
        for g in grads:
            g.mul_(expand(share, g))

    def _decay(self, share: float) -> None:
        for p in self.params:
            if p.grad is None or not (self.budget.decay_vectors or p.dim() > 2):
                continue
            if self.budget.optimizer is Optimizer.ADAMW:
                p.mul_(expand(1 - self.rates * share * self.decays, p))
            else:
                p.grad.add_(p * expand(self.decays, p))
