"""Basis families that are formulas alone: against SciPy and the papers' formulas, in layers and in networks."""

import io
import itertools
import math

import pytest
import torch
from torch import nn

import fastkan
from fastkan import KAN, KANLinear, reference, select
from fastkan.basis.families import FAMILIES
from fastkan.basis.jacobi import step
from fastkan.functional import kan_linear
from fastkan.testing import CONTRACTIONS, call
from support.families import ALL, FEATURES, family_problem
from support.problems import BF16, DOUBLE, SINGLE

PLAIN = [family for family in ALL if family not in FEATURES]
NESTED = ["chebyshev", "legendre", "jacobi", "gegenbauer", "hermite", "chebyshev2", "bernstein", "fourier"]


def hat(t):
    return 2 / (math.sqrt(3) * math.pi**0.25) * (1 - t**2) * torch.exp(-(t**2) / 2)


# One function of the coordinate t = (x - c_f) / h each.
LOCAL = {
    "relu": lambda t: (torch.relu(2 + t) * torch.relu(2 - t) / 4) ** 2, "mexican_hat": hat,
    "morlet": lambda t: torch.cos(5 * t) * torch.exp(-(t**2) / 2), "dog": lambda t: -t * torch.exp(-(t**2) / 2),
    "switch": lambda t: 1 - torch.tanh(t) ** 2, "unit_switch": lambda t: 1 - torch.tanh(0.5 * t) ** 2,  # h = 0.5
}  # fmt: skip


def of_degree(family: str, n: int, z: torch.Tensor) -> torch.Tensor:
    """The polynomial of degree n by SciPy."""
    special = pytest.importorskip("scipy.special")
    name, *own = {
        "legendre": ("legendre",), "jacobi": ("jacobi", 1, 1), "gegenbauer": ("gegenbauer", 2),
        "hermite": ("hermite",), "chebyshev2": ("chebyu",),
    }[family]  # fmt: skip
    y = torch.as_tensor(getattr(special, f"eval_{name}")(n, *own, z.numpy()))
    return y / math.sqrt(2**n * math.factorial(n)) if family == "hermite" else y


def evaluated(family: str, functions: int, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x within and around the range, and all functions there, [N] and [N, F]."""
    x = torch.linspace(2 * low, 2 * high, 41, dtype=DOUBLE)
    return x, ALL[family](x[:, None], torch.linspace(low, high, functions + 1, dtype=DOUBLE)[None])[:, 0]


@pytest.mark.parametrize("family", ["legendre", "jacobi", "gegenbauer", "hermite", "chebyshev2"])
def test_polynomials_of_tanh(family):
    x, found = evaluated(family, 7, -1.0, 1.0)
    expected = torch.stack([of_degree(family, n, torch.tanh(x)) for n in range(7)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_any_jacobi_polynomials_by_their_recurrence():
    special = pytest.importorskip("scipy.special")
    z = torch.linspace(-1, 1, 9, dtype=DOUBLE)
    below, here = torch.zeros_like(z), torch.ones_like(z)
    for n in range(6):
        a, b, c = step(n, 0.5, -0.25)
        below, here = here, (a * z + b) * here - c * below
        expected = torch.as_tensor(special.eval_jacobi(n + 1, 0.5, -0.25, z.numpy()))
        torch.testing.assert_close(here, expected, rtol=1e-12, atol=1e-12)


def test_bernstein_polynomials_of_a_sigmoid():
    x, found = evaluated("bernstein", 5, -2.0, 2.0)
    t = torch.sigmoid(x)
    expected = torch.stack([math.comb(4, f) * t**f * (1 - t) ** (4 - f) for f in range(5)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.sum(1), torch.ones(41, dtype=DOUBLE), rtol=1e-14, atol=1e-14)


def test_fourier_series():
    x, found = evaluated("fourier", 6, -math.pi, math.pi)
    expected = [torch.ones_like(x), x.cos(), x.sin(), (2 * x).cos(), (2 * x).sin(), (3 * x).cos()]
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", LOCAL)
def test_functions_of_the_distance_to_their_centre(family):
    x, found = evaluated(family, 8, -2.0, 2.0)
    centres = -2 + 0.5 * (torch.arange(8, dtype=DOUBLE) + 0.5)
    torch.testing.assert_close(found, LOCAL[family]((x[:, None] - centres) / 0.5), rtol=1e-12, atol=1e-14)


def test_relu_kan_s_phases():
    """The paper's formula with its initial phases: G = 5 intervals on [0, 1], k = 3."""
    g, k = 5, 3
    x = torch.linspace(-0.7, 1.7, 50, dtype=DOUBLE)
    s = torch.arange(-k, g, dtype=DOUBLE) / g
    e = s + (k + 1) / g
    r = 16 / (e - s) ** 4
    expected = r * (torch.relu(e - x[:, None]) * torch.relu(x[:, None] - s)) ** 2
    grid = torch.linspace(-1.5 / g, 1 + 1.5 / g, g + k + 1, dtype=DOUBLE)
    torch.testing.assert_close(ALL["relu"](x[:, None], grid[None])[:, 0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", PLAIN)
def test_dense_matches_the_reference(family):
    """Over shapes, numbers of functions, orders and dtypes, with a NaN among x."""
    sizes = itertools.product((1, 2, 5, 9), ((1, 1, 1), (17, 3, 5)), (0, 1, 2))
    for k, (functions, shape, order) in enumerate(sizes):
        dtype = (DOUBLE, SINGLE)[k % 2]
        p = family_problem(
            family, *shape, functions=functions, dtype=dtype, order=order, weighted=bool(k % 3), seed=k,
            base=(None, "silu")[k % 2], per_input=bool(k % 2),
        )  # fmt: skip
        if len(p.x) > 4:
            p.x[3, 1] = torch.nan
        rounding = 1e-11 if dtype == DOUBLE else 1e-4
        for contraction in CONTRACTIONS:
            found, expected = call(select.BACKENDS["dense"], contraction, p), call(reference, contraction, p)
            for got, want in zip(found, expected, strict=True):
                size = want.nan_to_num(0.0, 0.0, 0.0).abs().max()
                torch.testing.assert_close(got, want, rtol=rounding, atol=rounding * float(size + 1), equal_nan=True)


@pytest.mark.parametrize("family", ALL)
def test_gradients_are_finite_at_saturation(family):
    """ChebyKAN's formula by acos has the gradient NaN there."""
    for dtype in (SINGLE, BF16):
        layer = KANLinear(2, 3, 6, family=family, dtype=dtype)
        x = torch.tensor([[12.0, -12.0], [-300.0, 300.0], [1e30, -1e30]], dtype=dtype, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.isfinite().all() and layer.coef.grad.isfinite().all()


@pytest.mark.parametrize("family", ALL)
def test_compiled_in_one_graph(family):
    torch._dynamo.reset()
    layer, x = KANLinear(2, 3, family=family), torch.rand(4, 2)
    run = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for mine, same in zip(*(torch.autograd.grad(f(x).sum(), layer.coef) for f in (run, layer)), strict=True):
        torch.testing.assert_close(mine, same)


def test_dense_is_chosen_and_others_say_why(calls):
    layer = KANLinear(3, 2, 5, family="fourier")
    layer(torch.rand(4, 3))
    assert calls["dense"] and not calls["native"] and not calls["reference"]
    assert fastkan.backends(family="fourier")["dense"].startswith("chosen")
    assert "no compiled kernels for family 'fourier'" in fastkan.backends(family="fourier")["native"]
    layer.backend = "native"
    with pytest.raises(fastkan.BackendError, match="family 'fourier'"):
        layer(torch.rand(4, 3))


@pytest.mark.parametrize("family", NESTED)
def test_more_functions_contain_fewer(family):
    torch.manual_seed(0)
    layer = KANLinear(2, 3, 5, family=family, dtype=DOUBLE)
    x = torch.randn(30, 2, dtype=DOUBLE)
    before = layer(x)
    layer.extend_grid(9)
    assert layer.grid_size == 9 and layer.coef.shape == (2, 9, 3)
    torch.testing.assert_close(layer(x), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ALL)
def test_a_grid_update_is_the_least_squares_fit(family):
    """On the new range: the residual on the data is orthogonal to all functions there, but for RANGE_WEIGHT."""
    torch.manual_seed(0)
    layer = KANLinear(1, 1, 5, family=family, dtype=DOUBLE, base_activation=None)
    x = 3 * torch.rand(200, 1, dtype=DOUBLE) - 1
    before = layer(x).detach()
    layer.update_grid(x, margin=0.0)
    assert layer.uniform and torch.equal(layer.grid[0, [0, -1]], torch.stack([x.min(), x.max()]))
    best = torch.linalg.lstsq(layer.b_splines(x)[:, 0], before).solution
    least, found = ((y - before).square().mean() for y in (layer.b_splines(x)[:, 0] @ best, layer(x)))
    assert found <= 1.1 * least + 1e-3 * before.square().mean()


@pytest.mark.parametrize("family", ALL)
def test_a_layer_s_other_methods(family):
    torch.manual_seed(0)
    layer = KANLinear(2, 3, 4, family=family, dtype=DOUBLE, bias=True, base_activation=nn.Tanh)
    x = torch.randn(20, 2, dtype=DOUBLE)
    phi = layer.b_splines(x)
    values = torch.einsum("nif,ifo->nio", phi, layer.coef) + torch.tanh(x)[..., None] * layer.base_weight
    torch.testing.assert_close(layer(x), values.sum(1) + layer.bias)
    torch.testing.assert_close(layer.edge_mean(x), values.abs().mean(0))
    assert f"family='{family}'" in repr(layer) and layer.family == family
    other = KANLinear(2, 3, 7, family=family, dtype=DOUBLE, bias=True, base_activation=nn.Tanh)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), layer(x))


def test_errors():
    with pytest.raises(ValueError, match="family='cosine': expected one of 'bspline', 'rbf'"):
        KANLinear(2, 2, family="cosine")
    with pytest.raises(ValueError, match="spline_order=3: expected None or 0 with family='fourier'"):
        KANLinear(2, 2, spline_order=3, family="fourier")
    with pytest.raises(ValueError, match="outside='linear': expected None with family='fourier'"):
        KANLinear(2, 2, family="fourier", outside="linear")
    with pytest.raises(ValueError, match="grid is not uniform: expected equidistant knots with family='fourier'"):
        KANLinear(2, 2, 3, family="fourier").set_grid(torch.tensor([0.0, 1.0, 2.0, 4.0]))
    with pytest.raises(ValueError, match="k=2: expected None or 0 with family='dog'"):
        KAN([2, 1], k=2, family="dog")
    with pytest.raises(ValueError, match="init='linear' with family='dog'"):
        fastkan.replace_linear(nn.Sequential(nn.Linear(2, 2)), init="linear", family="dog")
    with pytest.raises(ValueError, match="uniform=False: expected True with family='dog'"):
        kan_linear(torch.rand(3, 1), torch.rand(1, 4, 1), torch.linspace(0, 1, 5), degree=0, family="dog")


@pytest.mark.parametrize("opt", ["LBFGS", "LM"])
@pytest.mark.parametrize("family", ALL)
def test_a_network_is_trained(family, opt):
    torch.manual_seed(0)
    x = 2 * torch.rand(60, 2, dtype=DOUBLE) - 1
    model, other = (KAN([2, 1], 6, family=family, dtype=DOUBLE, seed=seed, noise_scale=5.0) for seed in (0, 1))
    assert model.family == family and model.k == 0
    y = other(x).detach()
    before = (model(x) - y).square().mean().sqrt()
    data = {"train_input": x, "train_label": y}
    results = model.fit(data, opt=opt, steps=15, update_grid=False, lamb_base=0.0, log=0)
    assert results["train_loss"][-1] < 0.01 * before  # y is one of the functions that the model has
    results = model.fit(data, opt=opt, steps=2, lamb=1e-3, log=0)
    assert math.isfinite(results["train_loss"][-1])
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    assert torch.equal(KAN.load(file)(x), model(x))


@pytest.mark.parametrize("family", ["fourier", "chebyshev"])
def test_a_network_s_derivatives_and_refinement(family):
    model = KAN([2, 3, 1], 5, family=family, dtype=DOUBLE)
    x = torch.randn(6, 2, dtype=DOUBLE)
    u, u1, u2 = model.derivatives(x, 2)
    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(at).sum(), at, create_graph=True)
    torch.testing.assert_close(u1[:, 0], g)
    (h,) = torch.autograd.grad(g[:, 0].sum(), at)
    torch.testing.assert_close(u2[:, 0, 0], h[:, 0])
    torch.testing.assert_close(model.refine(8)(x), model(x), rtol=1e-8, atol=1e-8)


def test_a_network_takes_another_s_function_on_other_functions():
    torch.manual_seed(0)
    splines = KAN([1, 1], 4, dtype=DOUBLE)
    series = KAN([1, 1], 12, family="legendre", dtype=DOUBLE)
    series.initialize_from_another_model(splines)
    x = torch.linspace(-0.9, 0.9, 30, dtype=DOUBLE)[:, None]
    assert (series(x) - splines(x)).square().mean() < 0.01 * splines(x).var()


def test_every_family_has_a_name_of_its_own():
    assert list(FAMILIES) == list(ALL) and select.FAMILIES[:3] == ("bspline", "rbf", "chebyshev")  # as in the kernels
