"""pass@k against the enumeration of all subsets."""

from itertools import combinations

import pytest
import torch

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.measures.pass_at_k import PassAtK


@pytest.mark.parametrize("n", [1, 3, 8])
def test_the_estimate_is_that_of_all_subsets(n):
    right = torch.rand(6, n, generator=torch.Generator().manual_seed(n)) < 0.4
    for k in range(1, n + 1):
        chances = [
            torch.tensor([any(row[i] for i in chosen) for chosen in combinations(range(n), k)])
            .double()
            .mean()
            for row in right.tolist()
        ]
        found = PassAtK(k)(right, Lab())
        assert found.value == pytest.approx(float(torch.stack(chances).mean()), abs=1e-12)
        assert found.detail is not None
        assert torch.allclose(found.detail, torch.stack(chances))


def test_one_sample_is_the_share_of_right_ones_and_more_never_hurt():
    right = torch.rand(40, 20, generator=torch.Generator().manual_seed(0)) < 0.3
    values = [PassAtK(k)(right, Lab()).value for k in range(1, 21)]
    assert values[0] == pytest.approx(float(right.double().mean()))
    assert values == sorted(values)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert PassAtK(5)(right[:, order], Lab()).value == pytest.approx(values[4])


def test_more_than_there_are_is_refused():
    with pytest.raises(InvalidConfig, match=r"pass@4 of 3 samples"):
        PassAtK(4)(torch.ones(2, 3, dtype=torch.bool), Lab())
    with pytest.raises(InvalidConfig, match="k=0"):
        PassAtK(0)
