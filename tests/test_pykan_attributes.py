"""What scripts of pykan read from its layers and assign to its attributes."""

import copy

import pytest
import torch

from fastkan import KAN
from fastkan.compat.pykan import MultKAN, to_pykan
from fastkan.compat.pykan.layer import EdgeLayer
from support.pykan import our_kan, real_kan


@pytest.fixture
def model():
    torch.set_default_dtype(torch.float64)
    yield MultKAN([2, [2, 1], 1], grid=4, k=2, auto_save=False, dtype=torch.float64)
    torch.set_default_dtype(torch.float32)


X = torch.linspace(-1.2, 1.2, 22, dtype=torch.float64).view(11, 2)


def test_a_layer_returns_pykans_tuple(model):
    with real_kan():
        theirs = to_pykan(model)
    x, other = X, X
    for l in range(2):
        y, preacts, postacts, postspline = model.act_fun[l](x)
        expected = theirs.act_fun[l](other)
        for found, value in zip((y, preacts, postacts, postspline), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(y, postacts.sum(2))
        x = other = model.nodes(l, y)
    torch.testing.assert_close(x, model(X))


def test_the_model_computes_none_of_the_edges_values(model, monkeypatch):
    expected = model(X)
    monkeypatch.setattr(EdgeLayer, "postacts", lambda *args: pytest.fail("computed"))
    torch.testing.assert_close(model(X), expected)
    torch.testing.assert_close(torch.func.vmap(model)(X[:, None])[:, 0], expected)
    seen = []
    monkeypatch.undo()
    model.act_fun[0].register_forward_hook(lambda module, args, result: seen.append(len(result)))
    torch.testing.assert_close(model(X), expected)
    assert seen == [4]


def test_a_small_network_still_runs_as_one_call(native, monkeypatch):
    small = MultKAN([2, 3, 1], auto_save=False)
    monkeypatch.setattr(EdgeLayer, "sums", lambda *args: pytest.fail("layer by layer"))
    small(X.float())


def test_every_way_to_a_model_has_such_layers(model):
    model(X)
    model.attribute(plot=False)
    for other in (
        model.prune_node(active_neurons_id=[[0, 2]]), model.refine(8), copy.deepcopy(model),
        MultKAN.from_kan(KAN([2, 1], dtype=torch.float64)),
    ):  # fmt: skip
        assert all(isinstance(layer, EdgeLayer) for layer in other.act_fun)
        assert len(other.act_fun[0](X[:, : other.act_fun[0].in_dim])) == 4


def test_the_layer_shares_its_parameters_with_the_kan_it_comes_from():
    source = KAN([2, 1])
    shared = MultKAN.from_kan(source)
    with torch.no_grad():
        shared.act_fun[0].coef.fill_(0.5)
    assert (source.act_fun[0].coef == 0.5).all() and type(source.act_fun[0]) is not EdgeLayer
    source.act_fun[0].coef = torch.zeros(2, 1, 6)
    assert (shared.act_fun[0].coef == 0).all()


def test_activations_are_assigned_until_the_next_forward_pass(model):
    model(X)
    acts = model.acts
    model.acts = None
    model.spline_postacts = [1]
    assert model.acts is None and model.spline_postacts == [1]
    assert model.edge_actscale is not None
    model(X)
    torch.testing.assert_close(model.acts[1], acts[1])
    model.node_scores = "mine"
    assert model.node_scores == "mine"
    model.attribute(plot=False)
    assert model.node_scores != "mine"
    model.acts = [X.clone().requires_grad_() * 2]
    assert copy.deepcopy(model).acts is not model.acts


def test_affine_maps_are_assigned_as_lists(model):
    model.node_bias = [torch.full((n,), 0.5, dtype=torch.float64) for n in (3, 1)]
    assert [p.tolist() for p in model.node_bias] == [[0.5] * 3, [0.5]]
    with pytest.raises(ValueError, match=r"node_bias has sizes \[3\]: expected \[3, 1\]"):
        model.node_bias = [torch.zeros(3)]


def test_notes_change_nothing_else(model):
    for name, value in {
        "grid": 9,
        "k": 5,
        "mult_homo": True,
        "base_fun_name": "mine",
        "round": 3,
        "state_id": 4,
    }.items():
        setattr(model, name, value)
        assert getattr(model, name) == value
    assert model.act_fun[0].num == 4 and model.act_fun[0].k == 2
    assert model.refine(8).grid == 8


def test_what_means_something_has_an_effect(model):
    model.grid_eps, model.grid_range = 0.5, [-2, 3]
    assert [layer.grid_eps for layer in model.act_fun] == [0.5] * 2
    assert model.act_fun[1].linear.grid_range == (-2.0, 3.0)
    model.act_fun[1].grid_eps = 0.25
    assert model.act_fun[1].linear.grid_eps == 0.25 and model.grid_eps == 0.5
    model.device = "meta"
    assert model.act_fun[0].coef.device.type == "meta" and model.device.type == "meta"
    model.act_fun[0].device = "meta"
    model.depth, model.act_fun[0].k, model.act_fun[0].num, model.act_fun[0].in_dim = 2, 2, 4, 2
    for owner, name, value in ((model, "depth", 3), (model.act_fun[0], "k", 3), (model.act_fun[0], "out_dim", 1)):
        with pytest.raises(ValueError, match=f"{name}={value}: expected {getattr(owner, name)}, its value"):
            setattr(owner, name, value)
    with pytest.raises(ValueError, match="grid_eps=2: expected"):
        model.grid_eps = 2
    with pytest.raises(ValueError, match="grid_range=.3, 1.: expected two numbers, ascending"):
        model.grid_range = (3, 1)


def test_all_of_pykans_attributes_can_be_assigned(model):
    """With the values that pykan has there."""
    with real_kan() as kan:
        theirs = kan.MultKAN(width=[2, [2, 1], 1], grid=4, k=2, auto_save=False)
    theirs(X)
    theirs.attribute(plot=False)
    model(X)
    for name in (n for n in vars(theirs) if not n.startswith("_")):
        setattr(model, name, getattr(theirs, name))
    for name in (n for n in vars(theirs.act_fun[0]) if not n.startswith("_")):
        setattr(model.act_fun[0], name, getattr(theirs.act_fun[0], name))


def test_the_import_name_gives_such_models():
    with our_kan() as kan:
        model = kan.KAN(width=[2, 1], auto_save=False)
        assert len(model.act_fun[0](torch.rand(3, 2))) == 4
