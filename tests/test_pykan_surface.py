"""The installed kan against pykan 0.2.8: the same lines give the same numbers under both, in float64."""

import importlib
import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch

from fastkan.compat import pykan
from support.pykan import our_kan, real_kan, under_both

CLOSE = {"rtol": 1e-7, "atol": 1e-9}


pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")  # in pykan


@pytest.fixture(autouse=True)
def doubles():
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)


def same(found, expected, where: str = "", **close) -> None:
    """Numbers, tensors, arrays and lists and dictionaries of them, alike to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            same(found[key], expected[key], f"{where}.{key}", **close)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for n, pair in enumerate(zip(found, expected, strict=True)):
            same(*pair, f"{where}[{n}]", **close)
    elif isinstance(expected, str) or expected is None:
        assert found == expected, where
    else:
        found, expected = (np.asarray(v.detach() if isinstance(v, torch.Tensor) else v) for v in (found, expected))
        np.testing.assert_allclose(found, expected, **(CLOSE | close), err_msg=where)


def dataset(kan) -> dict:
    def f(x):
        return torch.exp(torch.sin(torch.pi * x[:, [0]]) + x[:, [1]] ** 2)

    return kan.create_dataset(f, train_num=80, test_num=50)


# The same lines


def start():
    import kan

    model = kan.KAN(width=[2, [3, 1], 1], grid=5, k=3, mult_arity=3, seed=7)
    after = torch.rand(3), np.random.rand(3)
    x = torch.rand(30, 2, requires_grad=True)
    y = model(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    scores = {}
    model.get_act(x)
    model.attribute()
    for name in ("acts", "acts_premult", "spline_preacts", "spline_postacts", "spline_postsplines", "acts_scale",
                 "acts_scale_spline", "edge_actscale", "subnode_actscale", "node_scores", "edge_scores",
                 "subnode_scores"):  # fmt: skip
        scores[name] = getattr(model, name)
    scores["feature_score"], scores["width_in"] = model.feature_score, model.width_in
    scores["layer"] = model.attribute(1, 0, plot=False)
    scores["shape"] = [model.width, model.width_out, model.n_sum, model.n_mult, model.n_edge, model.depth]
    scores["reg"] = model.reg("edge_forward_spline_n", 1.0, 2.0, 0.3, 0.4)
    scores["range"], scores["fun"] = model.get_range(0, 1, 2, verbose=False), model.get_fun(0, 1, 2)
    return {"after": after, "y": y, "grad": grad, **scores, "number": [model.round, model.state_id]}


def training(**options):
    def script():
        import kan

        model = kan.KAN(width=[2, 4, 1], grid=5, k=3, seed=3, auto_save=False)
        data = dataset(kan)

        def worst():
            return (model(data["test_input"]) - data["test_label"]).detach().abs().max()

        results = model.fit(data, metrics=[worst], update_grid=False, **options)
        if not options.get("lamb"):
            del results["reg"]  # which pykan has of the last step alone
        return {name: [float(v) for v in values] for name, values in results.items()} | {
            "acts": model.acts[0], "evaluation": model.evaluate(data), "keys": list(results),
        }  # fmt: skip

    return script


def own_loop():
    import kan

    model, data = kan.KAN(width=[2, 3, 1], seed=2, auto_save=False), dataset(kan)
    optimizer = kan.LBFGS(
        model.parameters(), lr=1, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-32,
        tolerance_change=1e-32, tolerance_ys=1e-32,
    )  # fmt: skip
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = (model(data["train_input"]) - data["train_label"]).square().mean()
        loss = loss + 1e-3 * model.get_reg("edge_forward_spline_n", 1.0, 2.0, 0.0, 0.0)
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(2):
        optimizer.step(closure)
    return {"losses": losses}


def formulas():
    import kan
    import sympy

    model = kan.KAN(width=[2, [1, 1], 1], seed=4, auto_save=False, affine_trainable=True)
    names = [["sin", "x^2", "exp"], ["tanh", "abs", "x"]]
    for i, row in enumerate(names):
        for j, name in enumerate(row):
            model.fix_symbolic(0, i, j, name, fit_params_bool=False, verbose=False)
    model.fix_symbolic(1, 0, 0, "cos", fit_params_bool=False, verbose=False)
    model.fix_symbolic(1, 1, 0, "gaussian", fit_params_bool=False, verbose=False)
    with torch.no_grad():
        for layer in model.symbolic_fun:
            layer.affine.data.copy_(torch.rand(layer.affine.shape) + 0.5)
    x = torch.rand(20, 2)
    formula, variables = model.symbolic_formula()
    values = [float(formula[0].subs(dict(zip(variables, row, strict=True)))) for row in x[:3].tolist()]
    scaled = model.symbolic_formula(var=["u", "v"], normalizer=[[0.1, 0.2], [2.0, 3.0]],
                                    output_normalizer=[[1.0], [2.0]])[0][0]  # fmt: skip
    point = {"u": 0.3, "v": 0.4}
    at = float(scaled.subs(point))
    nodes = [[[float(e.subs(point)) for e in layer] for layer in part]
             for part in (model.symbolic_acts, model.symbolic_acts_premult)]  # fmt: skip
    names = [[sympy.Symbol("x_1"), sympy.Symbol("x_2")] == variables, isinstance(formula, list)]
    return {"y": model(x), "values": values, "at": at, "names": names, "funs": model.symbolic_fun[0].funs_name,
            "nodes": nodes}  # fmt: skip


def lines():
    import kan
    from kan.spline import B_batch, coef2curve, curve2coef, extend_grid

    grid = extend_grid(torch.linspace(-1, 1, 6).expand(3, 6), 3)
    x, coef = 1.8 * torch.rand(50, 3) - 0.9, torch.rand(3, 2, 8)
    y = coef2curve(x, grid, coef, 3)
    layer = kan.KANLayer(in_dim=3, out_dim=2, num=4, k=2)
    layer.scale_base.data.fill_(0.3)
    layer.coef.data.copy_(torch.rand(3, 2, 6))
    symbols = kan.Symbolic_KANLayer(in_dim=3, out_dim=2)
    symbols.fix_symbolic(0, 1, "sin")
    symbols.fix_symbolic(2, 0, "x^2")
    symbols.mask.data.fill_(1.0)
    return {
        "B": B_batch(x, grid, 3), "y": y, "coef": curve2coef(x, y, grid, 3), "layer": layer(x), "grid": layer.grid,
        "subset": layer.get_subset([0, 2], [1])(x[:, [0, 2]]), "symbols": symbols(x),
        "smaller": symbols.get_subset([0, 2], [1])(x[:, [0, 2]]), "applied": symbols.funs[1][0](x),
    }  # fmt: skip


# Of sqrt and arctanh pykan's forms jump at the threshold, of x^1.5 and tan what it takes as the value is none.
APART = ("sqrt", "x^0.5", "arctanh", "x^1.5", "tan")


def helpers():
    import kan
    import sympy
    from kan.utils import (
        SYMBOLIC_LIB,
        augment_input,
        batch_hessian,
        batch_jacobian,
        create_dataset_from_data,
        ex_round,
        sparse_mask,
    )

    def f(x):
        return x[:, [0]] * torch.sin(x[:, [1]]) + 0.1 * torch.rand(len(x), 1)

    x = torch.linspace(0.2, 0.8, 7)
    smooth = dict(SYMBOLIC_LIB.items())
    y_th = torch.tensor(100.0)
    singular = {name: e[3](x, y_th) for name, e in smooth.items() if name not in APART}
    rows = torch.rand(6, 2)
    np.random.seed(5)
    cut = create_dataset_from_data(rows, rows[:, :1], train_ratio=0.5)
    a, b = sympy.symbols("a b")
    return {
        "data": kan.create_dataset(f, n_var=2, ranges=[[-1, 1], [0, 2]], train_num=9, test_num=4, normalize_input=True),
        "library": {name: [e[0](x), float(e[1](sympy.Float(0.3))), e[2]] for name, e in smooth.items()},
        "singular": {name: v[1] for name, v in singular.items()}, "cut": cut,
        "round": str(ex_round(1.23456 * a + sympy.sin(2.71828 * b), 2)), "mask": sparse_mask(3, 5),
        "augmented": augment_input([a, b], [a * b, sympy.sin(a)], rows),
        "jacobian": batch_jacobian(lambda z: (z**3).prod(1, keepdim=True), rows),
        "hessian": batch_hessian(lambda z: (z**3).prod(1, keepdim=True), rows),
    }  # fmt: skip


def compiled():
    import sympy
    from kan.compiler import kanpiler, next_nontrivial_operation

    a, b, c = sympy.symbols("a b c")
    x = torch.rand(20, 3)
    model = kanpiler([a, b, c], sympy.exp(a * b) + sympy.sin(c))
    y = model(x)
    model.expand_depth()
    model.expand_width(1, 2)
    stripped = [next_nontrivial_operation(e) for e in (3 * sympy.exp(a) - 2, a * b + c, 2 * (a * b + 1), a, 5 * a)]
    return {"y": y, "grown": model(x), "edges": model.depth, "stripped": [list(map(str, s)) for s in stripped]}


def history():
    import kan

    model, data, x = kan.KAN(width=[2, 3, 1], seed=1), dataset(kan), torch.rand(10, 2)
    model.fit(data, steps=2, update_grid=False)
    first = model(x)
    model = model.refine(10)
    second = model(x)
    model.auto_save = False
    model.saveckpt("mark")
    model.fit(data, steps=1, update_grid=False)
    back = model.checkout("0.1")
    return {
        "first": first, "again": back(x), "loaded": kan.KAN.loadckpt("mark")(x) - second,
        "copied": model.copy()(x) - model(x), "grid": model.grid,
    }  # fmt: skip


def baseline():
    import kan
    from kan.MLP import MLP

    data, model = dataset(kan), MLP(width=[2, 4, 1], seed=3)
    after, first = torch.rand(2), model(data["test_input"])
    results = model.fit(data, steps=2, lamb=1e-3, reg_metric="w")  # the third step doubles the digits that differ
    model.attribute()
    return {
        "after": after, "first": first, "results": {k: [float(v) for v in results[k]] for k in results},
        "acts": model.acts_scale, "scores": model.edge_scores, "reg": model.reg("fa", 1.0, 2.0),
    }  # fmt: skip


def equations():
    from kan.feynman import get_feynman_dataset

    found = []
    for name in (1, "I.8.4", 36, "I.11.19"):
        symbols, expr, f, ranges = get_feynman_dataset(name)
        x = torch.rand(5, len(symbols)) * 0.3 + 0.5
        value = float(expr.subs(dict(zip(symbols, x[0].tolist(), strict=True))))
        found.append([f(x), [str(symbol) for symbol in symbols], value])
    return {"found": found}


def hypotheses():
    from kan.hypothesis import (
        batch_grad_normgrad,
        detect_separability,
        get_dependence,
        test_general_separability,
        test_separability,
        test_symmetry,
        test_symmetry_var,
    )

    def f(x):
        return (x[:, [0]] + x[:, [1]]) * (x[:, [2]] + x[:, [3]])

    import sympy

    x = torch.rand(60, 4) + 0.5
    a, b, c, d = symbols = sympy.symbols("a b c d")
    groups = [[0, 1], [2, 3]], [[0, 2], [1, 3]]
    return {
        "mul": {k: v for k, v in detect_separability(f, x, "mul").items() if k in ("n_groups", "hessian")},
        "add": detect_separability(f, x, "add")["n_groups"], "dependence": get_dependence(f, x, [0, 1]),
        "separable": [bool(test_separability(f, x, g, "mul")) for g in groups],
        "general": [bool(test_general_separability(lambda x: torch.sin(f(x)), x, g)) for g in groups],
        "symmetry": [bool(test_symmetry(f, x, g)) for g in ([0, 1], [0, 2])],
        "cosine": test_symmetry_var(f, x, symbols, a + b), "turning": batch_grad_normgrad(f, x, [0, 2]),
    }  # fmt: skip


SCRIPTS = {
    "start": (start, {"rtol": 1e-6, "atol": 1e-7}),
    "LBFGS": (training(steps=4), {"rtol": 1e-5, "atol": 1e-8}),
    "LBFGS with a penalty": (training(steps=3, lamb=1e-3, lamb_coef=0.1), {"rtol": 1e-5, "atol": 1e-7}),
    "Adam": (training(opt="Adam", lr=1e-2, steps=20, lamb=1e-3), {"rtol": 1e-6, "atol": 1e-8}),
    "own loop": (own_loop, {"rtol": 1e-5, "atol": 1e-7}),
    "formulas": (formulas, {}),
    "splines and layers": (lines, {}),
    "helpers": (helpers, {}),
    "compiled": (compiled, {}),
    "baseline": (baseline, {}),
    "equations": (equations, {}),
    "hypotheses": (hypotheses, {"rtol": 1e-5, "atol": 1e-5}),  # pykan adds 1e-6 to lengths
    "history": (history, {"rtol": 1e-5, "atol": 1e-7}),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_lines_give_the_same_numbers(name, tmp_path, capsys):
    script, close = SCRIPTS[name]
    same(*under_both(script, tmp_path), **close)


# Arguments


CLASSES = ("KAN", "KANLayer", "Symbolic_KANLayer", "LBFGS", "MLP")
WITHOUT = {"disable_symbolic_in_fit"}  # see docs/pykan.md
RENAMED = {"model": "another", "another_model": "another"}


def public(cls: type) -> dict:
    methods = dict(inspect.getmembers(cls, inspect.isroutine))
    own = {name for base in cls.__mro__ if base.__module__.startswith("kan.") for name in base.__dict__}
    return {n: m for n, m in methods.items() if n in own and (n == "__init__" or not n.startswith("_"))}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_pykans_methods_and_arguments(name):
    found = []
    for context in (our_kan, real_kan):
        with context() as kan:
            importlib.import_module("kan.MLP")
            found.append(kan.MLP.MLP if name == "MLP" else getattr(kan, name))
    ours, theirs = found
    assert theirs.__module__ == f"kan.{'MultKAN' if name == 'KAN' else name}"
    for method, function in public(theirs).items():
        if method in WITHOUT or method == "history":  # an object that is called
            continue
        known = inspect.signature(getattr(ours, method)).parameters
        if any(p.kind is p.VAR_POSITIONAL for p in known.values()):
            continue
        expected = [p for p in inspect.signature(function).parameters if p not in ("self", "log_history")]
        mine = [p for p, of in known.items() if p not in ("self", "model", "cls") and of.kind is not of.VAR_KEYWORD]
        for place, parameter in enumerate(expected):
            assert mine[place] in (parameter, RENAMED.get(parameter)), (method, place, parameter, mine)


# Installing


def test_install_and_uninstall_in_a_process():
    code = """
import sys
from pathlib import Path
import fastkan.compat.pykan as pykan
pykan.install(), pykan.install()
from kan import *
import kan.utils, kan
assert pykan.installed() and KAN is pykan.MultKAN and kan.MultKAN is KAN and kan.utils.SYMBOLIC_LIB is SYMBOLIC_LIB
from kan.MultKAN import KAN as again
from kan.LBFGS import LBFGS
assert again is KAN and issubclass(LBFGS, torch.optim.LBFGS) and np and plt and sympy and tqdm
pykan.uninstall(), pykan.uninstall()
assert not pykan.installed() and not any(n.split(".")[0] == "kan" for n in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_install_refuses_where_pykan_is_imported():
    with real_kan() as kan:
        with pytest.raises(RuntimeError, match="kan is imported already, from .*expected install"):
            pykan.install()
        assert sys.modules["kan"] is kan
        pykan.uninstall()
        assert sys.modules["kan"] is kan
