"""Products of queries with gradients against an explicit sum, by inputs and by gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.engine import factor_pairs
from unseen.engine.factor_pairs import FactorPair, RowBlocks


def drawn(b, s, o, i, q, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    a, g, p = (
        torch.randn(*shape, generator=generator, dtype=dtype)
        for shape in ((b, s, i), (b, s, o), (q, o, i))
    )
    blocks = RowBlocks(p.shape, p, p.dtype)
    blocks.put(0, p)
    return FactorPair(a, g), p, blocks


@given(
    b=st.integers(1, 5),
    s=st.integers(1, 2),
    o=st.integers(1, 300),
    i=st.integers(1, 12),
    q=st.integers(1, 4),
    seed=st.integers(0, 99),
    large=st.sampled_from([1, 7, 1 << 22]),
)
def test_queries_meet_every_gradient(b, s, o, i, q, seed, large):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factor_pairs, "LARGE", large)
        pair, p, blocks = drawn(b, s, o, i, q, seed)
        wanted = torch.einsum("qoi,bso,bsi->qb", p, pair.g, pair.a)
        assert torch.allclose(pair.against(blocks), wanted, atol=1e-9)


@pytest.mark.parametrize(("queries", "made"), [(2, False), (3, True)])
def test_few_queries_of_one_position_need_no_gradient(queries, made, monkeypatch):
    pair, p, blocks = drawn(6, 1, 5, 8, queries, seed=0, dtype=torch.float32)
    seen = []
    plain = FactorPair.gradients
    monkeypatch.setattr(FactorPair, "gradients", lambda self: (seen.append(1), plain(self))[1])
    found = pair.against(blocks)
    assert bool(seen) == made
    assert torch.allclose(found, torch.einsum("qoi,bso,bsi->qb", p, pair.g, pair.a), atol=1e-5)


def test_in_half_precision_gradients_are_rounded_once():
    """The sum over inputs would be rounded before it meets g."""
    pair, _, blocks = drawn(3, 1, 4, 16, 1, seed=1, dtype=torch.bfloat16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FactorPair, "_against_rows", None)
        assert pair.against(blocks).dtype == torch.float32
