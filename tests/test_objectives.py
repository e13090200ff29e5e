"""Ready objectives: a model whose output is NaN has no score."""

import pytest
import torch

from unseen.objectives import all_tokens_right, correct, correct_sign

X = torch.tensor([[3.0, 1.0, 2.0], [1.0, 5.0, 2.0]])


class Table(torch.nn.Module):
    """Returns the same outputs whatever the input."""

    def __init__(self, outputs: torch.Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outputs


def test_scores_are_zero_and_one() -> None:
    batch = {"x": X, "y": torch.tensor([0, 2])}
    assert correct(Table(X), batch).tolist() == [1.0, 0.0]
    assert correct_sign(Table(torch.tensor([[0.5], [0.5]])), {"x": X, "y": torch.tensor([1, 0])}).tolist() == [1.0, 0.0]
    logits = torch.nn.functional.one_hot(torch.tensor([[1, 2, 0], [1, 1, 0]]), 3).float() * 9
    batch = {"tokens": torch.tensor([[0, 1, 2], [0, 1, 2]])}
    assert all_tokens_right(Table(logits), batch).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("masked", [False, True])
def test_a_nan_output_has_no_score_and_a_masked_class_has(masked: bool) -> None:
    outputs = X.clone()
    outputs[0, 1] = -torch.inf if masked else torch.nan
    found = correct(Table(outputs), {"x": X, "y": torch.tensor([0, 1])})
    assert found.isnan().tolist() == [not masked, False]
    sign = correct_sign(Table(outputs[:, 1:2]), {"x": X, "y": torch.tensor([0, 1])})
    assert sign.isnan().tolist() == [not masked, False]
    tokens = all_tokens_right(
        Table(outputs[:, None, :].repeat(1, 3, 1)), {"tokens": torch.tensor([[0, 0, 0], [0, 1, 1]])}
    )
    assert tokens.isnan().tolist() == [not masked, False]
