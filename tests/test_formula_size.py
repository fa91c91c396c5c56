"""Formulas without large cancelling numbers: c f and d stay moderate in the dtype of the model, or it raises."""

import copy

import pytest
import torch

from fastkan import KAN
from fastkan.compat.pykan.kan.utils import fit_params as pykans_fit_params
from fastkan.network.formulas.edge_fit import fit_params, fit_symbolic
from fastkan.network.formulas.suggest import rank
from fastkan.network.layers.library import SYMBOLIC_LIB, get_symbolic
from fastkan.network.layers.rounding import allowed, rounding_error
from support.tiers import long

X = 2 * torch.rand(150, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
FLAT = {  # curves that many functions resemble only at extreme parameters
    "line": X + 1e-3 * torch.sin(9 * X),
    "parabola": X**2 + 1e-3 * torch.sin(7 * X),
    "bent": torch.sin(0.5 * X) + 0.1 * X**2 + 0.02 * torch.cos(7 * X),
    "exact line": 3 * X - 2,
    "exact parabola": (X + 0.2) ** 2,
}


@pytest.mark.parametrize("shape", ["bent", "exact line", *long("line", "parabola", "exact parabola")])
def test_float32_carries_every_fit_or_it_is_none(shape):
    y = FLAT[shape]
    wide, fit = (fit_symbolic(X, y, dtype=dtype) for dtype in (torch.float64, torch.float32))
    for n, function in enumerate(fit.functions):
        if not bool(fit.r2[0, n].isfinite()):
            continue
        computed = rounding_error(function.torch_fn, X[None], fit.affine[:, n], torch.float32)
        torch.testing.assert_close(computed, fit.rounding_error[:, n])
        assert bool(fit.is_representable(torch.float32)[0, n]) == (computed.item() <= allowed(torch.float32))
        if fit.r2[0, n] > 0.99:
            assert computed.item() < 1e-3, function.name
        missed, at_best = 1 - fit.r2[0, n].item(), 1 - wide.r2[0, n].item()
        assert missed <= 1.1 * at_best + 1e-5, f"{function.name} is about as good as in float64"


@pytest.mark.parametrize("name", ["sin", "cos", "gaussian", "tanh", "exp", "x^3", "x^5", "1/x^5", "log", "arctan"])
@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (1e-3, 5.0), (200.0, -1e3)])
def test_numbers_are_moderate_whatever_the_units(name, scale, shift):
    affine, r2 = fit_params(scale * X + shift, FLAT["bent"], name)
    other, best = fit_params(X, FLAT["bent"], name)
    assert r2 > 0.98 and abs(r2 - best) < 1e-3
    f = affine[2] * get_symbolic(name)(affine[0] * (scale * X + shift) + affine[1])
    assert f.abs().max() < 300 * FLAT["bent"].std()


def test_exact_fits_stay_exact():
    for true in ((0.05, 1.57, 300.0, -300.0), (0.01, 1.0, 50.0, 0.0)):
        a, b, c, d = true
        for dtype in (torch.float64, torch.float32):
            _, r2 = fit_params(X, c * torch.sin(a * X + b) + d, "sin", dtype=dtype)
            assert r2 > 1 - (1e-12 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_float32_models_compute_what_was_fitted(seed):
    torch.manual_seed(seed)
    model = KAN([2, 2, 1], seed=1)
    model.get_act(torch.rand(50, 2))
    assert model.fix_symbolic(0, 0, 0, "sin", verbose=False) > 0.999
    assert model.symbolic_fun[0].affine[0, 0].abs().max() < 100
    x = torch.rand(500, 2)
    assert (model(x) - copy.deepcopy(model).double()(x.double())).abs().max() < 1e-5


def parabola(dtype: torch.dtype, **options) -> KAN:
    """[1, 1] whose edge is a parabola of large offset, which float16 can hardly hold."""
    model = KAN([1, 1], grid=40, dtype=dtype, base_fun="zero", **options)
    with torch.no_grad():
        phi = model.act_fun[0].features(X[:, None])[:, 0, :-1]
        model.act_fun[0].coef = torch.linalg.lstsq(phi, FLAT["exact parabola"][:, None]).solution.T[None].to(dtype)
        model.act_fun[0].scale_sp = torch.ones(1, 1)
    model.get_act(X[:, None].to(dtype))
    return model


def test_formulas_beyond_the_dtype_are_refused(monkeypatch):
    monkeypatch.setitem(SYMBOLIC_LIB, "far", copy_of("far", lambda x: x**2 + 1e5))
    model = parabola(torch.float32)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="far: .* is the best fit, and torch.float32 loses .*: expected a simpler"):
        model.fix_symbolic(0, 0, 0, "far", verbose=False)
    with pytest.raises(ValueError, match="torch.float32 loses"):
        pykans_fit_params(X.float(), FLAT["exact parabola"].float(), SYMBOLIC_LIB["far"].torch_fn, verbose=False)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    with pytest.warns(UserWarning, match=r"no function fits the edges \(0,0,0\)"):
        report = model.auto_symbolic(lib=["far"], r2_threshold=0.0, verbose=0)
    assert report.numeric and model.symbolic_fun[0].funs_name == [["0"]] and model.act_fun[0].mask.item() == 1
    assert model.suggest_symbolic(0, 0, 0, lib=["far", "sin", "x^2"], verbose=False)[0] == "x^2"
    assert model.double().fix_symbolic(0, 0, 0, "far", verbose=False) > 0.999
    fit = fit_symbolic(X, FLAT["exact parabola"], ["far", "sin"], dtype=torch.float32)
    assert rank(fit, dtype=torch.float32)[0][0].name == "sin"


def copy_of(name: str, fun):
    function = get_symbolic("x^2")
    return type(function)(name, fun, fun, 1, lambda x, y_th: fun(x))


def test_cast_that_loses_a_function_warns(recwarn):
    model = parabola(torch.float64)
    model.fix_symbolic(0, 0, 0, "sin", verbose=False)
    model.symbolic_fun[0].set_edge(0, 0, "sin", (5e-4, 1.57, 3e5, -3e5))
    state = model.state_dict()
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"torch.float32 loses .* edges \(0,0,0\) sin: .*Keep the wider dtype"):
        copy.deepcopy(model).float()
    with pytest.warns(UserWarning, match=r"torch.float16 loses"):
        torch.nn.Sequential(copy.deepcopy(model)).half()
    with pytest.warns(UserWarning, match=r"torch.float32 loses .* \(0,0,0\) sin"):
        KAN([1, 1], grid=40, base_fun="zero").load_state_dict(state)
    recwarn.clear()
    model.symbolic_fun[0].set_edge(0, 0, "sin", (1.0, 0.5, 3.0, -1.0))
    copy.deepcopy(model).float()
    copy.deepcopy(model).half()
    copy.deepcopy(model).to(torch.bfloat16)
    KAN([1, 1], grid=40, base_fun="zero").load_state_dict(model.state_dict())
    model.double()
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_formulas_of_a_model_of_sixteen_bits(dtype):
    model = KAN([2, 1], dtype=dtype, seed=2)
    x = torch.rand(100, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    model.get_act(x)
    y = model(x).float()
    report = model.auto_symbolic(verbose=0)
    assert not report.numeric and (model(x).float() - y).abs().max() < 0.1 * y.std()
