"""Symbolic edges: fix, suggest, auto_symbolic, unfix; training of affine parameters; failures leave the model."""

import copy
import math
import pickle

import pytest
import torch

from fastkan import KAN
from fastkan.network.layers import library
from fastkan.network.layers.library import SYMBOLIC_LIB, SymbolicFunction, get_symbolic
from support.symbolic import after_forward, fit_edge, kan, same, state, uniform


def with_function(fun, k: int = 3, grid: int = 40) -> KAN:
    """[1, 1] whose one edge is the spline of fun on [-1, 1]."""
    model = kan((1, 1), grid=grid, k=k, base_fun="zero")
    fit_edge(model.act_fun[0], 0, 0, fun, uniform(800, seed=3))
    return after_forward(model)


# fix_symbolic


def test_fix_fits_and_switches_the_numeric_branch_off(capsys):
    model = with_function(lambda x: 1.7 * torch.sin(3 * x + 0.4) - 2)
    y = model(model.cache_data)
    r2 = model.fix_symbolic(0, 0, 0, "sin")
    assert r2.dtype == torch.float64 and 1 - 1e-6 < r2.item() <= 1
    assert "r2 is 1" in capsys.readouterr().out
    torch.testing.assert_close(
        model.symbolic_fun[0].affine[0, 0], torch.tensor([3, 0.4, 1.7, -2.0]).double(), rtol=1e-3, atol=1e-3
    )
    assert model.symbolic_fun[0].funs_name == [["sin"]]
    assert model.act_fun[0].mask.item() == 0 and model.symbolic_fun[0].mask.item() == 1
    assert not model.act_fun[0].active
    torch.testing.assert_close(model(model.cache_data), y, rtol=1e-3, atol=1e-3)
    assert model.fix_symbolic(0, 0, 0, "tanh", verbose=True).item() < 0.9
    assert "r2 is low: tanh" in capsys.readouterr().out


def test_fix_counts_both_branches():
    model = with_function(lambda x: x**2)
    model.symbolic_fun[0].set_edge(0, 0, "x", (1.0, 0.0, 3.0, 1.0))
    model.set_mode(0, 0, 0, "ns")
    assert model.fix_symbolic(0, 0, 0, "x^2", verbose=False).item() > 1 - 1e-9
    x = uniform(20, 1, seed=5)
    torch.testing.assert_close(model(x), x**2 + 3 * x + 1, rtol=1e-6, atol=1e-6)


def test_fix_of_a_deeper_layer_sees_what_the_layers_before_make():
    model = after_forward(kan((2, 2, 1)))
    x, y = model.get_fun(1, 0, 0)
    model.fix_symbolic(1, 0, 0, "x", verbose=False)
    model.get_act()
    fitted, line = model.get_fun(1, 0, 0)
    torch.testing.assert_close(fitted, x)
    design = torch.stack([x, torch.ones_like(x)], 1)
    torch.testing.assert_close(
        line, design @ torch.linalg.lstsq(design, y[:, None]).solution[:, 0], rtol=1e-9, atol=1e-11
    )


def test_fix_without_a_fit_needs_no_data():
    model = kan()
    assert model.fix_symbolic(0, 1, 2, "exp", fit_params_bool=False) is None
    assert model.symbolic_fun[0].affine[2, 1].tolist() == [1, 0, 1, 0]
    torch.manual_seed(1)
    model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False, random=True)
    drawn = model.symbolic_fun[0].affine[0, 0].clone()
    torch.manual_seed(1)
    model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False, random=True)
    assert torch.equal(model.symbolic_fun[0].affine[0, 0], drawn) and bool((drawn.abs() <= 1).all())


def test_fix_of_an_edge_that_was_off():
    model = after_forward(kan())
    model.remove_edge(0, 0, 0)
    y = model(model.cache_data)
    assert model.fix_symbolic(0, 0, 0, "sin", verbose=False).item() == -1e8
    torch.testing.assert_close(model(model.cache_data), y, rtol=1e-12, atol=1e-12)


def cubic(x):
    return x**3 - x


def test_fix_takes_functions():
    model = with_function(lambda x: 2 * cubic(x) + 1)
    assert model.fix_symbolic(0, 0, 0, cubic, verbose=False).item() > 1 - 1e-8
    assert model.symbolic_fun[0].funs_name == [["cubic"]] and get_symbolic("cubic").torch_fn is cubic
    model.fix_symbolic(0, 0, 0, torch.sin, verbose=False)
    model.fix_symbolic(0, 0, 0, get_symbolic("exp"), verbose=False)
    assert model.symbolic_fun[0].funs_name == [["exp"]] and get_symbolic("sin").torch_fn is torch.sin
    made = SymbolicFunction("made", cubic, cubic, 1, lambda x, y_th: cubic(x))
    model.fix_symbolic(0, 0, 0, made, verbose=False)
    assert get_symbolic("made") is made


def test_fix_in_half_precision_of_the_fit():
    model = kan(dtype=torch.float32)
    model.get_act(uniform(100, 2).float())
    assert model.fix_symbolic(0, 0, 0, "sin", verbose=False).dtype == torch.float64
    assert model.symbolic_fun[0].affine.dtype == torch.float32


@pytest.mark.parametrize(
    "arguments,error,text",
    [
        ((0, 0, 0, "sine"), KeyError, "name='sine'"),
        ((0, 0, 0, 3), TypeError, "fun=3"),
        ((0, 0, 0, lambda x: x), ValueError, "add_symbolic"),
        ((2, 0, 0, "sin"), IndexError, "l=2: expected an integer from 0 to 1"),
        ((0, 2, 0, "sin"), IndexError, "i=2"),
        ((0, 0, 3, "sin"), IndexError, "j=3"),
        ((0, 0, 0, "sin", True, (3, 1)), ValueError, "a_range"),
    ],
)
def test_fix_that_fails_leaves_the_model(arguments, error, text):
    model = after_forward(kan())
    before = state(model)
    with pytest.raises(error, match=text):
        model.fix_symbolic(*arguments)
    assert same(before, state(model))


def test_fix_on_data_that_are_not_finite_leaves_the_model():
    model = kan()
    with pytest.raises(ValueError, match="get_act"):
        model.fix_symbolic(0, 0, 0, "sin")
    model.get_act(torch.full((5, 2), math.nan, dtype=torch.float64))
    before = state(model)
    with pytest.raises(ValueError, match="NaN"):
        model.fix_symbolic(0, 0, 0, "sin")
    with pytest.raises(ValueError, match="NaN"):
        model.auto_symbolic(verbose=0)
    assert same(before, state(model))


def test_unfix_brings_the_numeric_branch_back():
    model = after_forward(kan())
    x, y = model.cache_data, model(model.cache_data)
    before = state(model)
    for edge in ((0, 1, 2), (1, 0, 0)):
        model.fix_symbolic(*edge, "sin", verbose=False)
    assert not torch.allclose(model(x), y)
    model.unfix_symbolic(0, 1, 2)
    assert model.symbolic_fun[0].funs_name[2][1] == "0" and model.act_fun[0].mask[1, 2] == 1
    model.remove_edge(0, 0, 0)
    model.unfix_symbolic_all()
    assert not model.symbolic_fun[1].active and model.act_fun[0].mask[0, 0] == 0
    model.set_mode(0, 0, 0, "n")
    assert torch.equal(model(x), y) and same(before, state(model))


# suggest_symbolic, auto_symbolic


def test_suggest_prints_a_table_and_returns_the_best(capsys):
    model = with_function(lambda x: torch.tanh(2 * x))
    before = state(model)
    name, function, r2, c = model.suggest_symbolic(0, 0, 0, topk=3, weight_simple=0.2)
    assert (name, function, c) == ("tanh", SYMBOLIC_LIB["tanh"], 3) and r2 > 1 - 1e-6
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].split() == ["function", "r2", "complexity", "loss"]
    assert lines[1].split()[:2] == ["0", "tanh"]
    assert model.suggest_symbolic(0, 0, 0, lib=["x", "sin"], verbose=False)[0] in ("x", "sin")
    assert capsys.readouterr().out == "" and same(before, state(model))


def test_auto_finds_the_formula_and_training_makes_it_exact():
    sympy = pytest.importorskip("sympy")
    x = uniform(300, 2, seed=7)
    middle = torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2
    model = kan((2, 1, 1), grid=10, base_fun="zero")
    with torch.no_grad():
        model.update_grid(x)
        fit_edge(model.act_fun[0], 0, 0, lambda t: torch.sin(torch.pi * t), x[:, 0])
        fit_edge(model.act_fun[0], 1, 0, torch.square, x[:, 1])
        model.update_grid(x)
        fit_edge(model.act_fun[1], 0, 0, torch.exp, model.nodes(0, model.sums(0, x))[:, 0])
    model.get_act(x)
    model.auto_symbolic(verbose=0)
    assert [layer.funs_name for layer in model.symbolic_fun] == [[["sin", "x^2"]], [["exp"]]]
    assert not any(layer.active for layer in model.act_fun)
    data = {"train_input": x, "train_label": torch.exp(middle)}
    assert model.evaluate({"test_input": x, "test_label": data["train_label"]})["test_loss"] > 1e-6
    exact = model.copy()
    assert model.fit(data, opt="LBFGS", steps=60, progress=False)["train_loss"][-1] < 1e-12
    assert exact.fit(data, opt="LM", steps=20, progress=False)["train_loss"][-1] < 1e-13
    for made in (model, exact):
        (formula,), (x1, x2) = made.symbolic_formula(snap=True)
        assert formula == sympy.exp(sympy.sin(sympy.pi * x1) + x2**2)


def test_auto_keeps_symbolic_edges_and_those_that_are_off(capsys):
    model = after_forward(kan((2, 3, 1)))
    model.fix_symbolic(0, 0, 1, "tanh", verbose=False)
    model.remove_edge(0, 1, 2)
    kept = model.symbolic_fun[0].affine[1, 0].clone()
    model.auto_symbolic(verbose=2, r2_threshold=0.0)
    printed = capsys.readouterr().out
    assert "skipping (0,0,1) since already symbolic" in printed and "fixing (0,1,2) with 0" in printed
    assert printed.count("\n") == 10 and "7 edges are symbolic, 0 stay numeric; the outputs change by" in printed
    assert model.symbolic_fun[0].funs_name[1][0] == "tanh" and torch.equal(model.symbolic_fun[0].affine[1, 0], kept)
    assert model.symbolic_fun[0].funs_name[2][1] == "0" and model.symbolic_fun[0].mask[2, 1] == 0
    assert not any(layer.mask.any() for layer in model.act_fun) and model.n_edge == 8
    before = state(model)
    model.auto_symbolic(verbose=0)
    assert same(before, state(model)) and capsys.readouterr().out == ""


def test_auto_keeps_every_edge_that_matters():
    """pykan puts 0 on an edge that no function fits, since that is the simplest."""
    model = with_function(lambda x: torch.sin(20 * x) * torch.cos(13 * x**2), grid=60)
    model.auto_symbolic(verbose=0, r2_threshold=0.0)
    assert model.symbolic_fun[0].funs_name != [["0"]]
    model = with_function(lambda x: torch.full_like(x, 0.7))
    with torch.no_grad():
        model.act_fun[0].coef = torch.full((1, 1, 43), 0.7)
    model.auto_symbolic(verbose=0)
    assert model.symbolic_fun[0].funs_name == [["0"]]
    torch.testing.assert_close(model(uniform(5, 1)), torch.full((5, 1), 0.7).double(), rtol=1e-6, atol=1e-6)


def test_auto_leaves_what_fits_badly(capsys):
    model = with_function(lambda x: torch.sin(20 * x) * torch.cos(13 * x**2), grid=60)
    before = state(model)
    model.auto_symbolic(r2_threshold=0.99)
    assert "(0,0,0) stays" in capsys.readouterr().out and same(before, state(model))
    model.auto_symbolic(lib=["log"], a_range=(-1, 1), r2_threshold=0.99, verbose=0)
    assert same(before, state(model))


def test_auto_fits_a_layer_on_the_formulas_before_it():
    """The second layer is refitted on what the first, much simplified, now gives."""
    model = after_forward(kan((1, 1, 1), seed=3))
    model.auto_symbolic(lib=["x"], verbose=0)
    x = model.cache_data
    line = (x - x.mean()) / (x - x.mean()).norm()
    y = model(x)
    residual = y - y.mean() - line * (line * y).sum()
    assert residual.norm() < 1e-12
    model.get_act()
    middle = model.acts[1]
    fresh = after_forward(kan((1, 1, 1), seed=3))
    edge = fresh.act_fun[1].edge_values(middle, torch.tensor([0]), torch.tensor([0]))
    design = torch.cat([middle, torch.ones_like(middle)], 1)
    expected = design @ torch.linalg.lstsq(design, edge).solution
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-10)


def test_auto_that_fails_in_the_second_layer_leaves_the_model():
    library.add_symbolic("blows up", lambda x: torch.where(x.abs() < 1e9, x, x) * 1e200 * 1e200 if len(x) > 50 else x)
    model = after_forward(kan((1, 1, 1)))
    model.fix_symbolic(0, 0, 0, "blows up", fit_params_bool=False, verbose=False)
    model.set_mode(0, 0, 0, "n")
    before = state(model)
    model.symbolic_fun[0].mask.fill_(1.0)
    with pytest.raises(ValueError, match="infinite"):
        model.auto_symbolic(verbose=0)
    model.symbolic_fun[0].mask.zero_()
    assert same(before, state(model))


def test_auto_through_multiplication_nodes_and_prune():
    model = after_forward(kan((3, [2, 1], 1), mult_arity=3)).prune_node(active_neurons_id=[[1, 2]])
    model.auto_symbolic(verbose=0, lib=["x", "sin", "x^2"])
    sympy = pytest.importorskip("sympy")
    formulas, inputs = model.symbolic_formula()
    x = uniform(10, 3, seed=9)
    found = torch.from_numpy(sympy.lambdify(inputs, formulas[0])(*x.numpy().T))
    torch.testing.assert_close(found, model(x)[:, 0], rtol=1e-10, atol=1e-10)


# What becomes of it


def symbolic() -> KAN:
    model = after_forward(kan())
    model.auto_symbolic(verbose=0, weight_simple=0.3)
    return model


def test_copies_and_files(tmp_path):
    model, x = symbolic(), uniform(20, 2, seed=4)
    model.save(tmp_path / "model.pt")
    other = kan(seed=5)
    other.load_state_dict(model.state_dict())
    copies = [
        model.copy(), copy.deepcopy(model), pickle.loads(pickle.dumps(model)), KAN.load(tmp_path / "model.pt"), other,
    ]  # fmt: skip
    for made in copies:
        assert torch.equal(made(x), model(x))
        assert made.symbolic_fun[0].funs_name == model.symbolic_fun[0].funs_name
        made.symbolic_fun[0].set_edge(0, 0, "x", (0.0, 0.0, 0.0, 9.0))
        assert not torch.equal(made(x), model(x))
        made.fit((x, model(x).detach()), steps=2, progress=False)


def test_symbolic_edges_cost_nothing_in_the_numeric_branch(monkeypatch):
    model, x = after_forward(kan((4, 5, 1))), uniform(20, 4)
    for i in range(4):
        for j in range(4):
            model.fix_symbolic(0, i, j, "x", fit_params_bool=False, verbose=False)
    model.fix_symbolic(1, 0, 0, "x", fit_params_bool=False, verbose=False)
    layers = model.act_fun
    shapes = []
    for layer in layers:
        call = layer.linear.evaluate

        def counted(x, coef, *others, call=call):
            shapes.append(tuple(coef.shape[::2]))
            return call(x, coef, *others)

        monkeypatch.setattr(layer.linear, "evaluate", counted)
    model(x)
    assert shapes == [(4, 1), (4, 1)]  # the one output, and the four inputs, that have a numeric edge
    model.auto_symbolic(verbose=0)
    shapes.clear()
    model(x)
    assert shapes == []
    model(x).sum().backward()
    assert all(p.grad is None for layer in layers for p in layer.parameters())


def test_singularity_avoiding_in_training():
    """From a start at which log is not defined on all data."""
    x = uniform(200, 1, low=0.0, high=1.0)
    y = torch.log(x + 0.3)
    model = kan((1, 1))
    model.fix_symbolic(0, 0, 0, "log", fit_params_bool=False, verbose=False)
    model.symbolic_fun[0].set_edge(0, 0, "log", (1.0, -0.1, 1.0, 0.0))
    with pytest.warns(RuntimeWarning, match="loss is nan"):
        model.fit((x, y), steps=5, progress=False)
    result = model.fit((x, y), steps=60, progress=False, singularity_avoiding=True)
    assert result["stopped"] is None and result["train_loss"][-1] < 0.5 * result["train_loss"][0]


def test_history_is_pykans_argument():
    model = after_forward(kan(history=True))
    model.fix_symbolic(0, 0, 0, "x", verbose=False)
    model.fix_symbolic(0, 1, 0, "x", verbose=False, log_history=False)
    assert [entry.what for entry in model.history.entries].count("fix_symbolic") == 1


def test_against_pykan():
    """The same parameters give the same edge, and its r2 is not less than that of pykan's search."""
    pytest.importorskip("kan", reason="pykan is not installed", exc_type=ImportError)
    import kan as pykan

    from fastkan.compat.pykan import from_pykan

    rng = torch.get_rng_state()
    theirs = pykan.KAN([2, 2, 1], grid=5, seed=1, auto_save=False, noise_scale=0.5).double()
    x = uniform(100, 2)
    theirs(x)
    mine = from_pykan(theirs, exact=True)
    mine.get_act(x)
    for name in ("sin", "tanh", "x^2", "gaussian"):
        expected = theirs.fix_symbolic(0, 1, 1, name, verbose=False, log_history=False)
        found = mine.fix_symbolic(0, 1, 1, name, verbose=False)
        assert found.item() >= expected.item() - 1e-6
        theirs.unfix_symbolic(0, 1, 1, log_history=False)
        mine.unfix_symbolic(0, 1, 1)
    torch.set_rng_state(rng)
