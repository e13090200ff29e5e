"""Oracle: the explicit Hessian of a tiny model, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from unseen.engine import curvature, parameters
from unseen.engine.curvature import gauss_newton, hessian, hutchinson, lanczos
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import cross_entropy, squared_error


def case(n: int = 12) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    with Lab(3).seeded():
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        batch = {"x": torch.randn(n, 3, dtype=torch.float64), "y": torch.randint(3, (n,))}
    return model, batch


def explicit(model: nn.Module, batch: dict[str, torch.Tensor], f=cross_entropy) -> torch.Tensor:
    """∇² of the mean loss, entry by entry, in the order of the parameters."""
    params = parameters.copy_parameters(model)
    sizes = [p.numel() for p in params.values()]

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch):
            return f(self.model, batch).mean()

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split(sizes)
        named = {
            f"model.{k}": part.view(p.shape)
            for (k, p), part in zip(params.items(), parts, strict=True)
        }
        return functional_call(Flat(), named, (batch,))

    return torch.autograd.functional.hessian(
        loss, torch.cat([p.flatten() for p in params.values()])
    )


def as_matrix(product: curvature.Product, like: dict[str, torch.Tensor]) -> torch.Tensor:
    d = sum(p.numel() for p in like.values())
    eye = torch.eye(d, dtype=torch.float64)
    return torch.stack([curvature._vector(product(curvature._unflatten(e, like))) for e in eye])


@pytest.mark.parametrize(
    "f", [cross_entropy, squared_error], ids=["cross entropy", "squared error"]
)
def test_hessian_products_equal_the_explicit_matrix_for_every_split_into_batches(f):
    model, batch = case()
    if f is squared_error:
        batch = {**batch, "y": torch.nn.functional.one_hot(batch["y"], 3).double()}
    wanted = explicit(model, batch, f)
    for sizes in ([12], [5, 7], [1, 1, 10]):
        offsets = [sum(sizes[:k]) for k in range(len(sizes))]
        parts = [
            {k: v[o : o + s] for k, v in batch.items()} for o, s in zip(offsets, sizes, strict=True)
        ]
        assert_close(
            as_matrix(hessian(model, parts, f), parameters.copy_parameters(model)),
            wanted,
            rtol=1e-9,
            atol=1e-12,
        )


def test_gauss_newton_equals_jacobians_and_softmax_hessian():
    model, batch = case()
    params = parameters.trainable(model)
    wanted = torch.zeros(31, 31, dtype=torch.float64)
    for i in range(12):
        z = model(batch["x"][i : i + 1])[0]
        rows = [
            torch.autograd.grad(z[c], list(params.values()), retain_graph=True) for c in range(3)
        ]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        p = z.softmax(0).detach()
        wanted += jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian / 12
    product = gauss_newton(
        model,
        [{k: v[:5] for k, v in batch.items()}, {k: v[5:] for k, v in batch.items()}],
        lambda m, b: m(b["x"]),
        lambda z, b: nn.functional.cross_entropy(z, b["y"], reduction="none"),
    )
    assert_close(
        as_matrix(product, parameters.copy_parameters(model)), wanted, rtol=1e-9, atol=1e-12
    )


def test_gauss_newton_is_the_hessian_of_a_linear_model():
    with Lab(0).seeded():
        model = nn.Linear(3, 2).double()
        batch = {"x": torch.randn(9, 3, dtype=torch.float64), "y": torch.randint(2, (9,))}
    product = gauss_newton(
        model,
        [batch],
        lambda m, b: m(b["x"]),
        lambda z, b: nn.functional.cross_entropy(z, b["y"], reduction="none"),
    )
    assert_close(
        as_matrix(product, parameters.copy_parameters(model)),
        explicit(model, batch),
        rtol=1e-9,
        atol=1e-12,
    )


def matrix(
    values: list[float], seed: int = 0
) -> tuple[curvature.Product, dict[str, torch.Tensor], torch.Tensor]:
    """A symmetric matrix with these eigenvalues, as a product over two named parts."""
    d = len(values)
    q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=Lab(seed).generator())).Q
    a = q @ torch.tensor(values, dtype=torch.float64).diag() @ q.T
    like = {
        "a": torch.zeros(2, d // 2, dtype=torch.float64),
        "b": torch.zeros(d - 2 * (d // 2), dtype=torch.float64),
    }
    return lambda v: curvature._unflatten(a @ curvature._vector(v), like), like, a


@pytest.mark.parametrize(
    "values", [[5.0, 3.0, 1.0, 0.5, -9.0], [2.0] * 3 + [1.0, 0.0], [-1.0, -2.0, -3.0, -4.0, -5.0]]
)
def test_lanczos_finds_the_algebraically_largest(values):
    product, like, a = matrix(values)
    found = lanczos(product, like, 1, Lab(1), tolerance=1e-10)
    assert found.values[0].item() == pytest.approx(max(values), abs=1e-8)
    u = curvature._vector(found.vectors[0])
    assert_close(a @ u, max(values) * u, rtol=1e-6, atol=1e-6)


def test_lanczos_on_a_network_equals_eigh_and_its_residuals_bound_the_error():
    model, batch = case()
    model.requires_grad_(True)
    exact = torch.linalg.eigvalsh(explicit(model, batch)).flip(0)
    found = lanczos(
        hessian(model, [batch], cross_entropy),
        parameters.copy_parameters(model),
        3,
        Lab(0),
        tolerance=1e-9,
    )
    assert_close(found.values, exact[:3], rtol=1e-7, atol=1e-9)
    rough = lanczos(
        hessian(model, [batch], cross_entropy), parameters.copy_parameters(model), 1, Lab(0), most=4
    )
    assert float((exact - rough.values[0]).abs().min()) <= float(rough.residuals[0]) + 1e-12


def test_hutchinson_covers_the_trace_and_is_exact_for_a_diagonal():
    model, batch = case()
    trace = float(explicit(model, batch).trace())
    product, like = hessian(model, [batch], cross_entropy), parameters.copy_parameters(model)
    inside = [
        r.low <= trace <= r.high
        for r in (hutchinson(product, like, Lab(s), draws=20) for s in range(40))
    ]
    assert (
        sum(inside) >= 33
    )  # 38 expected; P(fewer than 33 | 95 %) < 0.2 %, and the seeds are fixed
    diagonal = torch.arange(5.0, dtype=torch.float64)
    reading = hutchinson(lambda v: {"a": diagonal * v["a"]}, {"a": diagonal}, Lab(0), draws=3)
    assert (reading.value, reading.low, reading.high) == pytest.approx((10, 10, 10))


def test_scaling_the_loss_scales_the_curvature():
    model, batch = case()
    like = parameters.copy_parameters(model)
    one = lanczos(hessian(model, [batch], cross_entropy), like, 1, Lab(0)).values
    three = lanczos(
        hessian(model, [batch], lambda m, b: 3 * cross_entropy(m, b)), like, 1, Lab(0)
    ).values
    assert_close(three, 3 * one, rtol=1e-9, atol=0)


def test_refusals():
    model, batch = case()
    like = parameters.copy_parameters(model)
    product = hessian(model, [batch], cross_entropy)
    with pytest.raises(InvalidData, match="no examples"):
        hessian(model, [], cross_entropy)
    with pytest.raises(InvalidConfig, match="k=40"):
        lanczos(product, like, 40, Lab())
    with pytest.raises(InvalidConfig, match="draws=1"):
        hutchinson(product, like, Lab(), draws=1)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    with pytest.raises(InvalidData, match="not finite"):
        lanczos(product, like, 1, Lab())


class _Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.map, self.out = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.map(x).unflatten(2, (3, 1, 4)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).squeeze(1).mean(1))


def test_attention_has_second_derivatives_on_a_cpu():
    """The fused kernels have none; plain matrix products have."""
    model = _Attention().double()
    batch = {"x": torch.randn(5, 6, 4).double(), "y": torch.randint(3, (5,))}
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(*values):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            named = dict(zip(params, values, strict=True))
            out = functional_call(model, named, batch["x"])
        return F.cross_entropy(out, batch["y"])

    v = {name: torch.randn_like(p) for name, p in params.items()}
    expected = torch.autograd.functional.hvp(loss, tuple(params.values()), tuple(v.values()))[1]
    product = hessian(
        model, [batch], lambda m, b: F.cross_entropy(m(b["x"]), b["y"], reduction="none")
    )(v)
    for name, part in zip(params, expected, strict=True):
        torch.testing.assert_close(product[name], part)


def test_complex_parameters_count_as_two_real_ones():
    """|w|² over complex w has the Hessian 2 in both parts: eigenvalue 2, trace 4 per entry."""
    model = nn.Module()
    model.w = nn.Parameter(torch.randn(3, dtype=torch.complex128))
    batch = {"x": torch.zeros(4).double()}
    product = hessian(model, [batch], lambda m, b: m.w.abs().square().sum() + b["x"])
    like = parameters.copy_parameters(model)
    assert float(lanczos(product, like, 1, Lab()).values[0]) == pytest.approx(2)
    assert hutchinson(product, like, Lab()).value == pytest.approx(12)
    assert float(parameters.norm(like)) == pytest.approx(float(like["w"].abs().norm()))
