"""The fit of c f(a x + b) + d: every function of the library, any units; noise, few samples, constants, masks."""

import math

import pytest
import torch

from fastkan.network.formulas import edge_fit as module
from fastkan.network.formulas.edge_fit import fit_params, fit_symbolic
from fastkan.network.formulas.redundant_parameters import symmetry
from fastkan.network.formulas.suggest import rank, suggest
from fastkan.network.layers.library import SYMBOLIC_LIB, get_symbolic
from support.tiers import long

NAMES = tuple(SYMBOLIC_LIB)
POSITIVE = ("sqrt", "x^0.5", "x^1.5", "1/sqrt(x)", "1/x^0.5", "log")  # defined where the argument is
INSIDE = ("arcsin", "arccos", "arctanh")  # where it is between -1 and 1
POLES = ("1/x", "1/x^2", "1/x^3", "1/x^4", "1/x^5", "tan")


def uniform(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


def truth(name: str, seed: int) -> tuple[float, float, float, float]:
    """Random a, b, c, d with which a function is defined on [-1, 1] and far enough from being a straight line."""
    r = uniform(6, seed=seed, low=0, high=1).tolist()
    a, b = (0.5 + 2 * r[0]) * (1 if r[1] < 0.5 else -1), 4 * r[2] - 2
    if name in POSITIVE:
        b = abs(a) + 0.01 + r[2]
    if name in INSIDE:
        a /= 3
        b = (2 * r[2] - 1) * (0.98 - abs(a))
    if name in POLES:
        b = (abs(a) + 0.05 + r[2]) * (1 if r[3] < 0.5 else -1)
    if name == "tan":
        a /= 2
        b = (2 * r[2] - 1) * (1.45 - abs(a))
    if name in ("sgn", "abs"):
        b = 0.8 * abs(a) * (2 * r[2] - 1)
    return a, b, (0.3 + 3 * r[3]) * (1 if r[4] < 0.5 else -1), 4 * r[5] - 2


def curve(name: str, x: torch.Tensor, affine) -> torch.Tensor:
    a, b, c, d = affine
    return c * get_symbolic(name)(a * x + b) + d


def all_edges(n: int, seed: int, x: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """x [n], and y [n, 29]: an edge of each function."""
    x = uniform(n, seed=seed) if x is None else x
    return x, torch.stack([curve(name, x, truth(name, 100 * seed + i)) for i, name in enumerate(NAMES)], 1)


def fitted(fit, x: torch.Tensor, edge: int, function: int) -> torch.Tensor:
    return curve(fit.functions[function].name, x, fit.affine[edge, function].tolist())


@pytest.mark.parametrize("seed", [0, *long(1, 2, 3)])
def test_every_function_is_recovered(seed):
    x, y = all_edges(300, seed)
    fit = fit_symbolic(x, y)
    assert fit.r2.shape == (29, 29) and fit.affine.shape == (29, 29, 4) and fit.affine.dtype == torch.float64
    assert [f.name for f in fit.functions] == list(NAMES)
    best = rank(fit, weight_simple=0.0, topk=None, r2_loss_fun=lambda r2: -r2)
    for i, name in enumerate(NAMES):
        assert fit.r2[i, i] > 1 - 1e-10, name
        error = (fitted(fit, x, i, i) - y[:, i]).abs().max()
        assert error <= 1e-12 * (y[:, i].abs().max() + (y[:, i] - y[:, i].mean()).abs().max()), name
        equal = [c.name for c in best[i] if c.r2 >= best[i][0].r2 - 1e-10]
        assert name in equal, name


def test_r2_is_that_of_the_formula():
    x, y = all_edges(200, 5)
    fit = fit_symbolic(x, y)
    for edge in range(1, 27, 3):
        for function in range(29):
            residual = y[:, edge] - fitted(fit, x, edge, function)
            total = (y[:, edge] - y[:, edge].mean()).square().sum()
            expected = 1 - residual.square().sum() / total
            assert fit.r2[edge, function] == pytest.approx(float(expected), abs=1e-9)
    assert (fit.r2 <= 1).all()


@pytest.mark.parametrize("name", ["1/x", "1/x^2", "1/x^3", "1/x^4", "1/x^5"])
@pytest.mark.parametrize("seed", range(3))
def test_a_pole_within_the_data(name, seed):
    x = uniform(500, seed=seed)
    affine, r2 = fit_params(x, curve(name, x, (2.0, 0.37 + 0.1 * seed, 1.5, -1.0)), name)
    assert r2 > 1 - 1e-10
    assert float(affine[1] / affine[0]) == pytest.approx((0.37 + 0.1 * seed) / 2, rel=1e-9)


def test_plainest_parameters():
    """Of equal answers: a = +-1 for powers, no shift for exp, the phase within a quarter turn."""
    x = uniform(200, low=0.1, high=3.0)
    for name, true, expected in (
        ("x^2", (2.0, 1.0, 3.0, 0.5), (1.0, 0.5, 12.0, 0.5)),
        ("sqrt", (-4.0, 16.0, 1.0, 0.0), (-1.0, 4.0, 2.0, 0.0)),
        ("log", (5.0, 10.0, 2.0, 0.0), (1.0, 2.0, 2.0, 2 * math.log(5))),
        ("exp", (-2.0, 1.0, 1.0, 3.0), (-2.0, 0.0, math.e, 3.0)),
        ("sin", (-3.0, 0.5, 2.0, 1.0), (3.0, -0.5, -2.0, 1.0)),
        ("cos", (3.0, 0.5 + 3 * math.pi, 2.0, 1.0), (3.0, 0.5, -2.0, 1.0)),
        ("x", (-3.0, 0.5, 2.0, 1.0), (1.0, 0.0, -6.0, 2.0)),
        ("tanh", (-3.0, 5.0, 2.0, 1.0), (3.0, -5.0, -2.0, 1.0)),
    ):
        affine, r2 = fit_params(x, curve(name, x, true), name)
        assert affine.tolist() == pytest.approx(expected, rel=1e-7, abs=1e-7), name
        assert r2 > 1 - 1e-14


@pytest.mark.parametrize("units", [(3.0, 50.0), *long((1e-7, 0.0), (1e6, 0.0))])
def test_units_of_x_do_not_matter(units):
    scale, shift = units
    x, y = all_edges(150, 2)
    plain, moved = fit_symbolic(x, y), fit_symbolic(scale * x + shift, y)
    torch.testing.assert_close(moved.r2, plain.r2, rtol=0, atol=1e-6)
    own = torch.arange(29)
    assert (moved.r2[own, own] > 1 - 1e-10).all()


@pytest.mark.parametrize("units", [(-1e-9, 0.0), *long((1e9, 0.0), (1.0, 1e3))])
def test_units_of_y_do_not_matter(units):
    scale, shift = units
    x, y = all_edges(150, 3)
    plain, moved = fit_symbolic(x, y), fit_symbolic(x, scale * y + shift)
    torch.testing.assert_close(moved.r2, plain.r2, rtol=0, atol=1e-6)


def test_is_deterministic_whatever_the_other_edges_and_memory():
    x, y = all_edges(150, 4)
    y = y[:, 1::3]
    fit = fit_symbolic(x, y)
    again = fit_symbolic(x, y)
    assert torch.equal(fit.affine, again.affine) and torch.equal(fit.r2, again.r2)
    little = fit_symbolic(x, y, max_bytes=1 << 19)
    torch.testing.assert_close(little.r2, fit.r2, rtol=0, atol=1e-6)
    alone = fit_symbolic(x, y[:, 2], ["tanh", "1/x"])
    torch.testing.assert_close(alone.r2[0], fit.r2[2, [NAMES.index("tanh"), NAMES.index("1/x")]], rtol=0, atol=1e-6)


def test_noise():
    """The parameters' error is a few times sigma / sqrt(N) over how much the curve depends on them."""
    x = uniform(1000, seed=1)
    generator = torch.Generator().manual_seed(3)
    noise = 0.02 * torch.randn(1000, generator=generator, dtype=torch.float64)
    affine, r2 = fit_params(x, 5 * torch.sin(3 * x + 1) + 0.7 + noise, "sin")
    assert affine.tolist() == pytest.approx([3.0, 1.0, 5.0, 0.7], abs=0.02)
    assert 1 - 1e-4 < r2 < 1
    (best,) = suggest(x, 5 * torch.sin(3 * x + 1) + 0.7 + noise)
    assert best[0].name in ("sin", "cos")


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_samples(n):
    x, y = uniform(n, seed=2), uniform(n, 3, seed=4)
    fit = fit_symbolic(x, y)
    assert not fit.r2.isnan().any() and (fit.r2 <= 1).all()
    if n == 2:
        assert (fit.r2[:, NAMES.index("x")] > 1 - 1e-12).all()
    if n == 1:
        assert (fit.r2 == 1).all()


def test_constant_and_linear_edges():
    x = uniform(100, seed=6)
    y = torch.stack((0 * x, 0 * x + 0.1, 3 * x - 2, 0.1 + 1e-17 * x), 1)
    ranked = suggest(x, y)
    assert [edge[0].name for edge in ranked] == ["0", "0", "x", "0"]
    assert ranked[1][0].affine == pytest.approx((1.0, 0.0, 0.0, 0.1), abs=1e-15)
    assert ranked[2][0].affine == pytest.approx((1.0, 0.0, 3.0, -2.0), rel=1e-13)
    fit = fit_symbolic(x, y)
    assert (fit.r2[[0, 1, 3]] == 1).all() and fit.r2[2, NAMES.index("0")] == pytest.approx(0, abs=1e-12)


def test_constant_inputs():
    fit = fit_symbolic(torch.full((50,), 3.0), uniform(50, 2, seed=1))
    assert fit.r2.abs().max() < 1e-12
    assert fit.affine[..., 2].abs().max() == 0


def test_mask():
    """Samples that do not count may hold anything."""
    x, y = all_edges(200, 7)
    keep = uniform(200, seed=8) > -0.3
    spoiled_x, spoiled_y = x.clone(), y.clone()
    spoiled_x[~keep], spoiled_y[~keep] = math.nan, 1e30
    fit, expected = fit_symbolic(spoiled_x, spoiled_y, mask=keep), fit_symbolic(x[keep], y[keep])
    own = torch.arange(29)
    assert (fit.r2[own, own] > 1 - 1e-10).all()
    torch.testing.assert_close(fit.r2, expected.r2, rtol=0, atol=2e-2)
    each = keep[:, None].expand(-1, 29).clone()
    each[:3] = True
    assert (fit_symbolic(x, y, mask=each).r2[own, own] > 1 - 1e-10).all()


def test_inputs_of_each_edge():
    x = uniform(200, 2, seed=1)
    y = torch.stack((torch.sin(2 * x[:, 0]), torch.exp(x[:, 1])), 1)
    fit = fit_symbolic(x, y, ["exp", "sin"])
    assert fit.r2[0, 1] > 1 - 1e-12 and fit.r2[1, 0] > 1 - 1e-12 and fit.r2[0, 0] < 0.999


def test_singularity_avoiding():
    """1/x across its pole, as an edge computes it with y_th; without, infinite on a sample, it is out."""
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    y = get_symbolic("1/x").singular_torch_fn(x, 10.0)
    assert fit_symbolic(x, y, ["1/x"], singularity_avoiding=True).r2 > 0.99
    affine, r2 = fit_params(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 1.0, 3.0]), lambda x: x / 0)
    assert r2 == -math.inf and affine.isnan().all()


def test_any_function():
    x = uniform(200, seed=3)
    affine, r2 = fit_params(x, 2 * torch.special.bessel_j0(5 * x + 0.4) + 1, torch.special.bessel_j0)  # no gradient
    assert r2 > 1 - 1e-12
    affine, r2 = fit_params(x, 2 * torch.sigmoid(5 * x + 0.4) + 1, torch.sigmoid)
    assert affine.tolist() == pytest.approx([5.0, 0.4, 2.0, 1.0]) and r2 > 1 - 1e-12


def test_works_in_inference_mode_and_leaves_its_arguments():
    x, y = all_edges(60, 1)
    before = y.clone()
    with torch.inference_mode():
        fit = fit_symbolic(x, y, ["sin", "x^2"])
    with torch.no_grad():
        assert torch.equal(fit.r2, fit_symbolic(x.requires_grad_(), y, ["sin", "x^2"]).r2)
    assert torch.equal(y, before)


def test_scoring_matches_pykan():
    x, y = all_edges(100, 9)
    fit = fit_symbolic(x, y)
    ranked = rank(fit, 0.6, topk=None)
    for edge in ranked:
        assert [c.loss for c in edge] == sorted(c.loss for c in edge) and len(edge) == 29
        for c in edge:
            assert c.complexity == SYMBOLIC_LIB[c.name].complexity
            assert c.loss == pytest.approx(0.6 * c.complexity + 0.4 * math.log2(1 + 1e-5 - c.r2))
    assert rank(fit, 1.0)[0][0].name == "0"
    assert len(suggest(x, y, ["x", "sin"])[0]) == 2


def test_symmetries():
    def of(name: str) -> set[str]:
        return {field for field, holds in symmetry(get_symbolic(name))._asdict().items() if holds}

    assert of("x^3") == of("1/x^5") == of("abs") == {"scale", "mirror"}
    assert of("log") == of("sqrt") == {"scale"}
    assert of("exp") == {"shift", "period"}
    assert of("sin") == of("tan") == {"mirror", "period"}
    assert of("gaussian") == of("arccos") == of("arctanh") == {"mirror"}
    assert of("sgn") == {"scale", "mirror", "flat"}
    assert of("x") == {"scale", "shift", "mirror", "period"}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": [1.0]}, "x is a list: expected a tensor"),
        ({"y": torch.ones(5, 2, dtype=torch.int64)}, "y is a torch.int64: expected a tensor of real"),
        ({"x": torch.ones(4)}, r"shapes \[4\], \[5, 2\]: expected"),
        ({"x": torch.ones(5, 3)}, r"shapes \[5, 3\], \[5, 2\]: expected"),
        ({"y": torch.full((5, 2), math.nan)}, "y has NaN or infinite"),
        ({"mask": torch.ones(5)}, "mask is a torch.float32: expected a tensor of bool"),
        ({"mask": torch.ones(4, dtype=torch.bool)}, r"mask has shape \[4\]: expected \[5\] or \[5, 2\]"),
        ({"mask": torch.zeros(5, dtype=torch.bool)}, "mask: expected at least one"),
        ({"lib": ["sine"]}, "name='sine': expected one of"),
        ({"a_range": (1, 0)}, r"a_range=\(1, 0\): expected two finite"),
        ({"y_th": 0.0}, "y_th=0.0: expected a finite threshold"),
        ({"max_bytes": 0}, "max_bytes=0: expected"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"x": uniform(5), "y": uniform(5, 2)} | change
    with pytest.raises((TypeError, ValueError, KeyError), match=message):
        fit_symbolic(**arguments)


def test_wrong_arguments_of_suggest_and_fit_params():
    x, y = uniform(5), uniform(5, 2)
    with pytest.raises(ValueError, match="weight_simple=2: expected"):
        suggest(x, y, weight_simple=2)
    with pytest.raises(ValueError, match="topk=0: expected"):
        suggest(x, y, topk=0)
    with pytest.raises(TypeError, match="fun=3: expected"):
        fit_params(x, y[:, 0], 3)
    with pytest.raises(ValueError, match="expected \\[N\\], one edge"):
        fit_params(x, y, "x")
    assert module.STARTS >= 4
