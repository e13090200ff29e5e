"""Direct preference optimization (Rafailov et al., 2023, arXiv:2305.18290): of two responses to a
prompt the better one becomes likelier, relative to the model before training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns, model_to_device, once
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.program_writing import join_rows
from unseen.engine.response_losses import dpo
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.response_loss import response_log_likelihood
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import exact_match
from unseen.task import Axis, Batch, Objective, Split, Task, Use

BETTER, WORSE = ("tokens", "mask"), ("worse_tokens", "worse_mask")
Tokens = Sequence[int]


def preference_columns(
    prompts: Sequence[Tokens], better: Sequence[Tokens], worse: Sequence[Tokens]
) -> Columns:
    """Pairs of responses to prompts as columns `tokens`, `mask` (the better response),
    `worse_tokens`, `worse_mask` and `pair` (a number). Responses hold their end token.
    """
    if not prompts:
        raise InvalidData(
            "There is no pair of responses.",
            why="a model learns which of two is better.",
            fix="lower the margin of scores, or sample more responses.",
        )
    one, other = join_rows(prompts, better), join_rows(prompts, worse)
    return Columns(
        tokens=one["tokens"],
        mask=one["mask"],
        worse_tokens=other["tokens"],
        worse_mask=other["mask"],
        pair=torch.arange(len(prompts)),
    )


@dataclass(frozen=True)
class DPO:
    """Lowers −log σ(β [(ℓ_w − ℓ_w^ref) − (ℓ_l − ℓ_l^ref)]) of pairs (w better, l worse); the
    reference is the model as it was given. The TRAIN splits hold `preference_columns`.

    There is no dropout: log-likelihoods of the model and its reference differ by training alone,
    and the loss begins at log 2.
    """

    beta: float = 0.1
    budget: Budget = Budget(steps=300, batch_size=16, lr=5e-5, clip=1.0)

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 1:
            raise InvalidConfig(
                f"DPO(beta={self.beta:g}).",
                why="β is how strongly pairs pull against the reference, in (0, 1].",
                fix="use 0.1.",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        splits = task.of(Use.TRAIN)
        _refuse_other_columns(splits)
        model_to_device(model, lab).eval()
        reference = {
            name: reference_log_likelihoods(model, split, self.budget.batch_size, lab)
            for name, split in splits.items()
        }

        def step(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
            model.eval()
            losses = []
            for name, batch in draw.fit.items():
                before = reference[name][batch["pair"]]
                better, worse = pair_log_likelihoods(model, batch)
                losses.append(dpo(better, worse, before[:, 0], before[:, 1], self.beta))
            loss = torch.cat(losses).mean()
            loss.backward()
            return loss.detach()

        return train(model, task, step, self.budget, lab)


def pair_log_likelihoods(
    model: nn.Module, batch: Batch
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """ℓ of the better and of the worse response: sums over their tokens."""
    better, worse = (
        response_log_likelihood(model, {"tokens": batch[tokens], "mask": batch[mask]})
        for tokens, mask in (BETTER, WORSE)
    )
    return better, worse


@torch.no_grad()
def reference_log_likelihoods(
    model: nn.Module, split: Split, batch_size: int, lab: Lab
) -> Float[Tensor, "pair 2"]:
    """Computed once, before training."""
    return torch.cat(
        [
            torch.stack(pair_log_likelihoods(model, batch), 1)
            for batch in once(split.data, batch_size, lab)
        ]
    )


def _refuse_other_columns(splits: dict[str, Split]) -> None:
    for name, split in splits.items():
        data = split.data
        if not isinstance(data, Columns) or not {*BETTER, *WORSE, "pair"} <= set(data.columns):
            raise InvalidData(
                f"The split `{name}` holds no pairs of responses.",
                why="a better and a worse response to each prompt are compared.",
                fix="Split(preference_columns(prompts, better, worse), Use.TRAIN)",
            )


def example() -> tuple[DPO, Trained]:
    """A small decoder learns to answer with the larger of two tokens."""
    prompts = [[a, b, 9] for a in range(1, 5) for b in range(1, 5) if a != b]
    better, worse = ([[pick(one[:2])] for one in prompts] for pick in (max, min))
    split = Split(preference_columns(prompts, better, worse), Use.TRAIN)
    task = Task(name="larger", axis=Axis.IID, splits={"train": split}, objective=exact_match)
    with Lab().child("init").seeded():
        model = Transformer(Decoder(vocabulary=10, width=16, heads=2, context=8))
    method = DPO()
    return replace(method, budget=replace(method.budget, steps=20, lr=1e-2)), Trained(model, task)
