"""A prediction market: mixing weights that move with what flows (Shapiro & Spivak, 2022, "Dynamic
operads, dynamic categories", arXiv:2205.03906).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.errors import InvalidConfig, InvalidData
from unseen.models.nested.machine import Machine, Pull, Values
from unseen.models.nested.wiring import Interface, Space, Symbols


class _MarketResponse:
    def __init__(
        self, experts: Sequence[str], outcomes: int, wealth: Float[Tensor, " expert"]
    ) -> None:
        self.experts, self.outcomes, self.wealth = experts, outcomes, wealth

    def output(self, port: str, pull: Pull) -> Float[Tensor, " outcome"]:
        return self.wealth @ torch.stack([pull(name) for name in self.experts])

    def update(self, inputs: Values) -> Float[Tensor, " expert"]:
        outcome = inputs["outcome"]
        if outcome not in range(self.outcomes):
            raise InvalidData(
                f"Outcome {outcome} is none of 0 to {self.outcomes - 1}.",
                why="the experts are paid what they held on it.",
                fix="number the outcomes from 0, or raise `outcomes`.",
            )
        paid = torch.stack([inputs[name][outcome] for name in self.experts])
        price = self.wealth @ paid
        if not price > 0:
            raise InvalidData(
                f"The price of outcome {outcome} is {float(price):g}, and it came.",
                why="no expert held it possible, so that nobody can be paid.",
                fix="let each expert give every outcome a positive probability.",
            )
        return self.wealth * paid / price


def _sum_to_one(shares: Sequence[float]) -> bool:
    """Positive numbers with a sum of 1, which NaN is not."""
    return all(share > 0 for share in shares) and abs(sum(shares) - 1) <= 1e-9


def market(experts: Sequence[str], outcomes: int, wealth: Sequence[float] = ()) -> Machine:
    """Takes each expert's probabilities and the outcome o; shows the price P = Σ_i w_i P_i. After
    it, w_i ← w_i P_i(o) / P(o): Bayes' rule, and the wealth still sums to 1.

    A market is an expert for another market; the nested ones equal one with the products of
    wealth, and lose at most −log w_i against expert i.
    """
    shares = list(wealth) or [1 / len(experts)] * len(experts)
    if len(shares) != len(experts) or not _sum_to_one(shares):
        raise InvalidConfig(
            f"Wealth {shares} is no distribution over {len(experts)} experts.",
            why="the price is a mixture, and an expert without wealth can never gain any.",
            fix="give each expert a positive share; together 1.",
        )
    probabilities = Space((outcomes,))
    interface = Interface(
        inputs=dict.fromkeys(experts, probabilities) | {"outcome": Symbols(tuple(range(outcomes)))},
        outputs={"price": probabilities},
        needs={"price": frozenset(experts)},
    )
    start = torch.tensor(shares, dtype=torch.float64)
    return Machine(interface, start, lambda state: _MarketResponse(tuple(experts), outcomes, state))
