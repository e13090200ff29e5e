"""Every form against an explicit sum over positions, for drawn shapes; both sides of each choice by
cost.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.engine import gradient_factors
from unseen.engine.gradient_factors import (
    EmbeddingFactor,
    FullGradient,
    LinearFactor,
    ScaleFactor,
    sum_factors,
)

SIZES = {
    "b": st.integers(1, 5),
    "c": st.integers(1, 4),
    "s": st.integers(1, 6),
    "t": st.integers(1, 4),
}


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def dense(generator, b, s, i, o, groups=1, transposed=False):
    """A form and its gradients, one outer product at a time."""
    a, g = normal(generator, b, s, groups * i), normal(generator, b, s, groups * o)
    rows = torch.zeros(b, groups * o, i, dtype=torch.float64)
    for example in range(b):
        for position in range(s):
            for k in range(groups):
                part = torch.outer(
                    g[example, position, k * o : (k + 1) * o],
                    a[example, position, k * i : (k + 1) * i],
                )
                rows[example, k * o : (k + 1) * o] += part
    rows = rows.mT if transposed else rows
    return LinearFactor(a, g, rows.shape[1:], groups, transposed), rows


def lookup(generator, b, s, v, o):
    index, g = torch.randint(v, (b, s), generator=generator), normal(generator, b, s, o)
    rows = torch.zeros(b, v, o, dtype=torch.float64)
    for example in range(b):
        for position in range(s):
            rows[example, index[example, position]] += g[example, position]
    return EmbeddingFactor(index, g, rows.shape[1:]), rows


def gain(generator, b, s, d, bias):
    x, g = normal(generator, b, s, d), normal(generator, b, s, d)
    rows = torch.zeros(b, d, dtype=torch.float64)
    for example in range(b):
        for position in range(s):
            rows[example] += g[example, position] * (1 if bias else x[example, position])
    return ScaleFactor(None if bias else x, g, rows.shape[1:]), rows


def check(form, rows, other=None, far=None):
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)  # noqa: E731
    flat, generator = rows.flatten(1), torch.Generator().manual_seed(1)
    v = normal(generator, 3, *rows.shape[1:])
    into = normal(generator, *rows.shape[1:])
    before = into.clone()
    assert isinstance(form, gradient_factors.GradientFactor)
    assert len(form) == len(rows)
    close(form.gradients(), rows)
    close(form.total(), rows.sum(0))
    close(form.norms2(), flat.square().sum(1))
    close(form.add_sum_and_norms(into), flat.square().sum(1))
    close(into, before + rows.sum(0))
    close(form.along(v), flat @ v.flatten(1).T)
    close(form.along(v[0]), flat @ v[0].flatten())
    close(form.take(slice(1, None)).gradients(), rows[1:])
    close(form.dots(form), flat @ flat.T)
    close(form.dots(FullGradient(flat, form.shape)), flat @ flat.T)
    close(FullGradient(flat, form.shape).dots(form), flat @ flat.T)
    if other is not None:
        close(form.dots(other), flat @ far.flatten(1).T)


@given(
    **SIZES,
    i=st.integers(1, 9),
    o=st.integers(1, 9),
    groups=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_dense(b, c, s, t, i, o, groups, seed):
    generator = torch.Generator().manual_seed(seed)
    form, rows = dense(generator, b, s, i, o, groups)
    other, far = dense(generator, c, t, i, o, groups)
    check(form, rows, other, far)


@given(**SIZES, i=st.integers(1, 9), o=st.integers(1, 9), seed=st.integers(0, 99))
def test_transposed_dense(b, c, s, t, i, o, seed):
    generator = torch.Generator().manual_seed(seed)
    form, rows = dense(generator, b, s, i, o, transposed=True)
    other, far = dense(generator, c, t, i, o, transposed=True)
    check(form, rows, other, far)


@given(**SIZES, v=st.integers(1, 7), o=st.integers(1, 4), seed=st.integers(0, 99))
def test_lookup(b, c, s, t, v, o, seed):
    generator = torch.Generator().manual_seed(seed)
    form, rows = lookup(generator, b, s, v, o)
    other, far = lookup(generator, c, t, v, o)
    check(form, rows, other, far)


@given(
    b=st.integers(1, 5),
    s=st.integers(1, 6),
    d=st.integers(1, 5),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gain(b, s, d, bias, seed):
    check(*gain(torch.Generator().manual_seed(seed), b, s, d, bias))


@given(b=st.integers(1, 4), s=st.integers(1, 4), t=st.integers(1, 4), seed=st.integers(0, 99))
def test_merged_forms_add_up(b, s, t, seed):
    generator = torch.Generator().manual_seed(seed)
    pairs = [
        [dense(generator, b, s, 3, 5), dense(generator, b, t, 3, 5)],
        [lookup(generator, b, s, 5, 3), lookup(generator, b, t, 5, 3)],
        [gain(generator, b, s, 4, True), gain(generator, b, t, 4, False)],
        [dense(generator, b, s, 3, 5), lookup(generator, b, t, 5, 3)],  # a tied embedding
        [dense(generator, b, s, 5, 3, transposed=True), dense(generator, b, t, 3, 5)],
    ]
    for (one, rows), (two, more) in pairs:
        check(sum_factors([one, two]), rows + more)


@pytest.mark.parametrize("part", [1, 7, 1 << 18])
def test_working_in_parts_changes_nothing(monkeypatch, part):
    monkeypatch.setattr(gradient_factors, "PART", part)
    monkeypatch.setattr(gradient_factors, "LARGEST", part)
    generator = torch.Generator().manual_seed(0)
    for shape in ((4, 2, 9, 9), (4, 9, 2, 2), (4, 3, 2, 2, 3)):
        form, rows = dense(generator, *shape)
        other, far = dense(generator, *shape)
        check(form, rows, other, far)


def test_the_cheaper_way_is_chosen(monkeypatch):
    """Few positions of a wide layer never make the wide gradients; many positions of a narrow one
    never make pairs.
    """
    generator = torch.Generator().manual_seed(0)
    wide, _ = dense(generator, 3, 2, 40, 40)
    narrow, rows = dense(generator, 3, 40, 2, 2)
    expected = wide.gradients().flatten(1)
    refuse = lambda *_: pytest.fail("the dearer way")  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(LinearFactor, "gradients", refuse)
        torch.testing.assert_close(wide.norms2(), expected.square().sum(1))
        torch.testing.assert_close(wide.dots(wide), expected @ expected.T)
    monkeypatch.setattr(LinearFactor, "_norms2_by_pairs", refuse)
    monkeypatch.setattr(LinearFactor, "_pairs", refuse)
    torch.testing.assert_close(narrow.norms2(), rows.flatten(1).square().sum(1))
    torch.testing.assert_close(narrow.dots(narrow), rows.flatten(1) @ rows.flatten(1).T)
