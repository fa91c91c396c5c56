"""Nodes and edges of a KAN removed, added, swapped and pruned; the model stays usable."""

import copy

import pytest
import torch

from fastkan import KAN
from support.models import CLOSE, MIXED, inputs, shaken

DEEP = {"width": [4, [3, 2], [2, 2], 3], "mult_arity": [[], [3, 2], [2, 1], []], "grid": [3, 4, 5], "k": [3, 2, 3]}
X = inputs(40, 4)


@pytest.fixture(params=[0.0, 0.4], ids=["numeric", "symbolic"])
def model(request) -> KAN:
    return shaken(KAN(**DEEP, affine_trainable=True, dtype=torch.float64), symbolic=request.param, off=0.1)


def without(model: KAN, nodes: dict[int, list[int]]) -> KAN:
    """The model with the edges out of these nodes switched off."""
    masked = copy.deepcopy(model)
    for l, which in nodes.items():
        for i in which:
            masked.remove_node(l, i, mode="up")
    return masked


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11 * max(1.0, b.abs().max().item()))


def goes_on(model: KAN, x: torch.Tensor, path) -> None:
    """Saves and loads, is copied, moves its grid, is refined, trains and is pruned again."""
    y = model(x)
    model.save(path / "model.pt")
    assert torch.equal(KAN.load(path / "model.pt")(x), y)
    assert torch.equal(model.copy()(x), y)
    twin = model.copy()
    twin.refine(8)
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        twin(x).square().mean().backward()
        optimizer.step()
    assert not torch.equal(twin(x), y)
    twin.update_grid(x)
    assert twin(x).isfinite().all()
    twin.get_act(x)
    assert twin.prune_node(threshold=-1.0).width == model.width


def test_pruned_nodes(model, tmp_path):
    pruned = model.prune_node(active_neurons_id=[[0, 2, 4], [1, 2]])
    assert pruned.width == [[4, 0], [2, 1], [1, 1], [3, 0]] and pruned.mult_arity == [[], [2], [2], []]
    same(pruned(X), without(model, {1: [1, 3], 2: [0, 3]})(X))
    assert model.width == [[4, 0], [3, 2], [2, 2], [3, 0]]
    goes_on(pruned, X, tmp_path)


def test_nodes_pruned_by_score(model, tmp_path):
    model.get_act(X)
    model.attribute()
    threshold = sorted(model.node_scores[1].tolist() + model.node_scores[2].tolist())[2]
    gone = {l: (model.node_scores[l] <= threshold).nonzero().flatten().tolist() for l in (1, 2)}
    y = model(X)
    pruned = model.prune_node(threshold)
    assert sum(pruned.width_in[1:3]) == 6
    same(pruned(X), without(model, gone)(X))
    assert torch.equal(model(X), y)
    fewer = model.prune_node(count=2)
    assert fewer.width_in == [4, 2, 2, 3]
    goes_on(fewer, X, tmp_path)
    with pytest.raises(ValueError, match=r"threshold=1000.0: expected less than the largest score of layer 1"):
        model.prune_node(1000.0)


def test_pruned_inputs(model, tmp_path):
    pruned = model.prune_input(active_inputs=[0, 3])
    assert pruned.width_in[0] == 2 and pruned.input_id.tolist() == [0, 3]
    same(pruned(X), without(model, {0: [1, 2]})(X))
    goes_on(pruned, X, tmp_path)
    again = pruned.prune_input(active_inputs=[1])
    assert again.input_id.tolist() == [3]
    same(again(X), without(model, {0: [0, 1, 2]})(X))
    model.get_act(X)
    score = model.feature_score
    assert model.prune_input(threshold=score.sort().values[1].item()).input_id.tolist() == sorted(
        score.topk(2).indices.tolist()
    )
    assert model.prune_input(count=1).input_id.tolist() == [score.argmax().item()]
    assert again.prune_input(x=X).input_id.tolist() == [3]


def test_pruned_edges(model, tmp_path):
    model.get_act(X)
    model.attribute()
    scores = [score.clone() for score in model.edge_scores]
    threshold = torch.cat([score.flatten() for score in scores]).median().item()
    masked, pruned, some = copy.deepcopy(model), copy.deepcopy(model), copy.deepcopy(model)
    for l, score in enumerate(scores):
        for j, i in (score <= threshold).nonzero().tolist():
            masked.remove_edge(l, i, j)
    pruned.prune_edge(threshold)
    assert 0 < pruned.n_edge < model.n_edge
    same(pruned(X), masked(X))
    goes_on(pruned, X, tmp_path)
    some.prune_edge(count=20)
    assert some.n_edge == 20
    both = model.prune(node_th=model.node_scores[1].min().item(), edge_th=threshold)
    assert both.width_in[1] < model.width_in[1]
    goes_on(both, X, tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_pruning_by_count_keeps_every_output_connected(seed):
    """Untrained, a deep network's first edges have the lowest scores: not all of them may go."""
    model, x = KAN([4, 8, 8, 8, 3], seed=seed), X.float()
    model.get_act(x)
    model.attribute()
    scores = [score.clone() for score in model.edge_scores]
    with pytest.raises(ValueError, match="count=5: expected at least (6|7|8|9|10|11|12), the edges of the best path"):
        model.prune_edge(count=5)
    model.prune_edge(count=14)
    assert model.n_edge == 14 and (model(x).std(0) > 0).all()
    kept = torch.cat([layer.mask.T.flatten() for layer in model.act_fun])
    best = torch.cat([score.flatten() for score in scores]).topk(2).indices
    assert kept[best].all(), "12 are the most that paths to three outputs take"
    model.prune_edge(count=100)
    assert model.n_edge <= 14, "what is off stays off"


def test_a_product_keeps_a_path_to_each_factor():
    model, x = KAN([3, [0, 2], 1], mult_arity=3, seed=0), X[:, :3].float()
    model.get_act(x)
    with pytest.raises(ValueError, match="count=3: expected at least 4"):
        model.prune_edge(count=3)
    model.prune_edge(count=4)
    assert model.n_edge == 4 and model(x).std() > 0
    model.remove_edge(0, *(model.act_fun[0].mask != 0).nonzero()[0].tolist())
    model.prune_edge(count=1)
    assert model.n_edge <= 1, "no path leads to the output"


def test_everything_pruned_is_still_a_network():
    model = KAN([3, 2, 1])
    model.get_act(X[:, :3].float())
    model.prune_edge(1e9)
    assert model.n_edge == 0 and torch.equal(model(X[:, :3].float()), torch.zeros(40, 1))


def test_removed_nodes_and_edges():
    model = shaken(KAN(**MIXED, dtype=torch.float64), symbolic=0.5)
    model.remove_edge(0, 1, 2)
    assert model.act_fun[0].mask[1, 2] == 0 and model.symbolic_fun[0].mask[2, 1] == 0
    model.remove_node(1, 2)  # the multiplication node of arity 3
    assert model.subnodes(1)[2] == [2, 3, 4]
    assert not model.act_fun[0].mask[:, 2:5].any() and not model.symbolic_fun[0].mask[2:5].any()
    assert not model.act_fun[1].mask[2].any() and not model.symbolic_fun[1].mask[:, 2].any()
    for mode, on in (("n", (1, 0)), ("s", (0, 1)), ("ns", (0.5, 1)), ("0", (0, 0))):
        model.set_mode(0, 0, 1, mode, mask_n=0.5)
        assert (model.act_fun[0].mask[0, 1], model.symbolic_fun[0].mask[1, 0]) == on
    with pytest.raises(ValueError, match="mode='x'"):
        model.set_mode(0, 0, 0, "x")
    with pytest.raises(IndexError, match="i=3: expected an integer from 0 to 2"):
        model.remove_edge(0, 3, 0)


@pytest.mark.parametrize(("l", "i1", "i2"), [(1, 0, 2), (1, 3, 4), (2, 1, 0), (2, 2, 3), (1, 1, 1)])
def test_swapped_nodes(model, l, i1, i2, tmp_path):
    y = model(X)
    edge = model.act_fun[l].coef[i1].clone()
    model.swap(l, i1, i2)
    same(model(X), y)
    assert torch.equal(model.act_fun[l].coef[i2], edge)
    goes_on(model, X, tmp_path)


def test_nodes_that_can_not_be_swapped(model):
    with pytest.raises(ValueError, match="i1=0, i2=3: expected two nodes that sum or two that multiply"):
        model.swap(1, 0, 3)
    with pytest.raises(ValueError, match="l=0: expected a hidden layer, 1 to 2"):
        model.swap(0, 0, 1)


def test_added_nodes(model, tmp_path):
    y = model(X)
    model.expand_width(1, 2)
    model.expand_width(2, 2, sum_bool=False, mult_arity=[3, 2])
    assert model.width == [[4, 0], [5, 2], [2, 4], [3, 0]] and model.mult_arity == [[], [3, 2], [2, 1, 3, 2], []]
    same(model(X), y)
    goes_on(model, X, tmp_path)
    model.perturb(mag=0.5)
    same(model(X), y)
    assert (model.act_fun[0].mask[:, :2] == 0.5).all()
    with pytest.raises(ValueError, match="layer_id=3: expected a hidden layer"):
        model.expand_width(3, 1)


def test_added_layers(model, tmp_path):
    y = model(X)
    model.expand_depth()
    assert model.depth == 4 and model.width_in == [4, 5, 4, 3, 3]
    same(model(X), y)
    model.expand_width(3, 1)
    same(model(X), y)
    goes_on(model, X, tmp_path)


def test_perturbations():
    model = KAN([2, 2, 1], dtype=torch.float64)
    for layer in model.act_fun:
        layer.mask.zero_()
    model.symbolic_fun[0].set_edge(0, 0, "sin")
    model.symbolic_fun[1].set_edge(0, 0, "exp")
    y = model(X[:, :2])
    kept = model.copy()
    kept.perturb(0.3)
    same(kept(X[:, :2]), y)
    assert torch.equal(kept.act_fun[0].mask, torch.tensor([[0.0, 0.3], [0.0, 0.3]], dtype=torch.float64))
    assert kept.act_fun[1].mask.all() and not kept.act_fun[1].scale_sp.any()
    least = model.copy()
    least.perturb(0.3, "minimal")
    assert torch.equal(least.act_fun[0].mask, torch.tensor([[0.3, 0.0], [0.0, 0.0]], dtype=torch.float64))
    everything = model.copy()
    everything.perturb(0.3, "all")
    assert all((layer.mask == 0.3).all() for layer in everything.act_fun)
    with pytest.raises(ValueError, match="mode='some'"):
        model.perturb(mode="some")


def test_frozen_parameters_stay_frozen():
    model = KAN([2, 3, 1], sp_trainable=False)
    model.act_fun[0].linear.coef.requires_grad_(False)
    model.act_fun[1].mask.zero_()
    model(X[:, :2].float())
    pruned = model.prune_node(active_neurons_id=[[0, 1]])
    assert not pruned.act_fun[0].linear.coef.requires_grad and not pruned.act_fun[0].scale_sp.requires_grad
    assert pruned.act_fun[0].scale_base.requires_grad
    pruned.act_fun[1].mask.fill_(1.0)
    pruned(X[:, :2].float())
    assert pruned.act_fun[1].linear.coef.requires_grad


def test_evaluation():
    model = KAN([2, 1])
    x = X[:, :2].float()
    found = model.evaluate({"test_input": x, "test_label": model(x) + 2})
    assert found == {"test_loss": pytest.approx(2.0), "n_edge": 2, "n_grid": 3}


# Scores and penalties


def test_scores_reach_what_matters():
    model = KAN([3, [2, 1], 1], grid=10, dtype=torch.float64)
    model.remove_node(0, 1)
    model.get_act(X[:, :3])
    assert model.node_scores is None
    score = model.feature_score
    assert score[1] == 0 and score[0] > 0 and score[2] > 0
    assert [s.shape for s in model.edge_scores] == [(4, 3), (1, 3)]
    assert [s.shape for s in model.node_scores] == [(3,), (3,), (1,)]
    assert model.attribute(1).shape == (3, 3) and torch.equal(model.attribute(1, 2), model.attribute(1)[2])
    assert model.feature_interaction(1) == {(0, 2): 3}
    model.attribute(out_score=torch.tensor([2.0]))
    torch.testing.assert_close(model.node_scores[0], 2 * score, **CLOSE)


@pytest.mark.parametrize("metric", [
    "edge_forward_spline_n", "edge_forward_spline_u", "edge_forward_sum", "edge_forward_mean", "edge_backward",
    "node_backward",
])  # fmt: skip
def test_penalties_are_differentiable(metric, model):
    parameter = model.act_fun[0].linear.coef
    value = model.reg(metric, 1.0, 2.0, 0.1, 0.2, x=X)
    (grad,) = torch.autograd.grad(value, parameter)
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step, values = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            parameter.add_(sign * step * direction)
            values.append(model.reg(metric, 1.0, 2.0, 0.1, 0.2, x=X))
            parameter.sub_(sign * step * direction)
    assert grad.isfinite().all() and grad.any()
    if "backward" not in metric:  # these hold the sizes of the sums fixed, as pykan does
        slope = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close((grad * direction).sum(), slope, rtol=1e-4, atol=1e-4)


def test_the_mean_of_the_edges_is_that_of_their_values():
    model = KAN([3, 2], dtype=torch.float64)
    model.act_fun[0].mask[1, 1] = 0.0
    found = model.act_fun[0].edge_mean(X[:, :3])
    torch.testing.assert_close(found, model.act_fun[0].postacts(X[:, :3]).abs().mean(0), **CLOSE)
    other = KAN([3, 2], base_fun=torch.tanh, dtype=torch.float64)
    torch.testing.assert_close(
        other.act_fun[0].edge_mean(X[:, :3]), other.act_fun[0].postacts(X[:, :3]).abs().mean(0), **CLOSE
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sizes_in_low_precision(dtype):
    model = KAN([3, 2, 1], dtype=dtype)
    exact = model.copy().double()
    x = X[:, :3].to(dtype)
    model.get_act(x)
    exact.get_act(x.double())
    for a, b in zip(model.edge_actscale, exact.edge_actscale, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0.1, atol=4 * torch.finfo(dtype).eps)
    layer = model.act_fun[0]
    with torch.autocast("cpu", torch.bfloat16):
        within = layer.edge_std(x)
    assert torch.equal(within, layer.edge_std(x))


def test_penalties_need_data():
    with pytest.raises(ValueError, match="expected data"):
        KAN([2, 1]).reg()
    with pytest.raises(ValueError, match="reg_metric='size'"):
        KAN([2, 1]).reg("size", x=X[:, :2].float())


# Files


def test_files_hold_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "was_here"), "w"))

    torch.save({"format": "fastkan.KAN 1", "config": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="expected a file of KAN.save"):
        KAN.load(tmp_path / "evil.pt")
    assert not (tmp_path / "was_here").exists()
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"other": 1}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt"):
        with pytest.raises(ValueError, match="expected a file of KAN.save"):
            KAN.load(tmp_path / name)


def test_base_functions_and_library_of_files(tmp_path):
    from fastkan.network.layers import library

    model = KAN([2, 1], base_fun=torch.tanh)
    library.add_symbolic("cube", lambda x: x**3)
    model.symbolic_fun[0].set_edge(0, 0, "cube")
    model.save(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="base_fun=None"):
        KAN.load(tmp_path / "model.pt")
    loaded = KAN.load(tmp_path / "model.pt", base_fun=torch.tanh)
    assert torch.equal(loaded(X[:, :2].float()), model(X[:, :2].float()))
    del library.SYMBOLIC_LIB["cube"]
    with pytest.raises(KeyError, match="cube"):
        KAN.load(tmp_path / "model.pt", base_fun=torch.tanh)


def test_base_functions_of_layers(tmp_path):
    """Layers may have different ones, or have lost theirs, and keep them in files, in a history and when reshaped."""
    x, path = X[:, :3].float(), tmp_path / "model.pt"
    cases = [
        ["silu", "identity"],
        ["zero", torch.sin],
        [torch.tanh, torch.sin],
        [torch.nn.PReLU] * 2,
        [torch.nn.Tanh] * 2,
    ]
    for functions in cases:
        model = KAN([3, 2, 1], seed=3, scale_base_mu=0.5)
        for layer, function in zip(model.act_fun, functions, strict=True):
            layer.base_fun = function
        for n, p in enumerate(p for name, p in model.named_parameters() if "activation" in name):
            p.data.fill_(0.1 * n)
        y = model(x)
        model.save(path)
        given = [f if callable(f) else None for f in functions]
        loaded = KAN.load(path, base_fun=given if any(given) else None)
        assert torch.equal(loaded(x), y) and repr(loaded) == repr(model)
        assert torch.equal(model.rewind(model.keep()).act_fun[1](x[:, :2]), model.act_fun[1](x[:, :2]))
        assert torch.equal(model(x), y)
        model.expand_depth()
        model.swap(1, 0, 1)
        torch.testing.assert_close(model(x), y)
        model.base_fun = "silu"
    KAN([3, 2, 1], base_fun=torch.nn.Tanh).save(path)
    assert KAN.load(path, base_fun=torch.nn.Tanh()).base_fun
    model = KAN([3, 2, 1], base_fun=torch.tanh)
    model.act_fun[1].base_fun = torch.sin
    model.save(path)
    with pytest.raises(ValueError, match="expected a list with one for each layer"):
        KAN.load(path, base_fun=torch.tanh)
    with pytest.raises(ValueError, match="expected one function, or 2"):
        KAN.load(path, base_fun=[torch.tanh])
    with pytest.raises(ValueError, match="another.base_fun"):
        KAN([3, 2, 1], base_fun=torch.tanh).initialize_from_another_model(model)


def test_frozen_parameters_and_training_mode(tmp_path):
    model = KAN([3, 2, 1]).eval()
    model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False)
    model.symbolic_fun[0].affine.requires_grad_(False)
    model.remove_edge(0, 0, 0)  # the last: until another is on, it is remembered
    model(X[:, :3].float())
    model.save(tmp_path / "model.pt")
    for of in (model, KAN.load(tmp_path / "model.pt")):
        of.expand_width(1, 1)
        of.set_mode(0, 0, 1, "s")
        of(X[:, :3].float())
        assert not of.symbolic_fun[0].affine.requires_grad
        of.symbolic_fun[0].trainable = True
        assert of.symbolic_fun[0].affine.requires_grad
    model.expand_depth()
    assert not any(module.training for module in model.modules())


def test_a_start_without_the_columns_that_are_left():
    model = KAN([3, 2, 1]).prune_input(active_inputs=[0, 2])
    model.reset_parameters(4)
    assert model.input_id.tolist() == [0, 2]
    model._buffers["input_id"].fill_(torch.nan)  # as on the meta device
    with pytest.raises(RuntimeError, match="input_id has no values .*, and 2 of 3 columns of x are read"):
        model.reset_parameters()


def test_parametrized_weights_are_not_rearranged():
    model = KAN([3, 2, 1])
    torch.nn.utils.parametrizations.weight_norm(model.act_fun[0].linear, "coef")
    y = model(X[:, :3].float())
    with pytest.raises(RuntimeError, match="act_fun.0..linear.coef is computed from other parameters.*remove"):
        model.expand_width(1, 1)
    assert torch.equal(model(X[:, :3].float()), y) and model.width == [[3, 0], [2, 0], [1, 0]]
    model.act_fun[0].linear.base_activation.register_forward_hook(lambda *_: None)
    assert model.base_fun == "silu" and model.config()["base_fun"] == "silu"


def test_nothing_is_written_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = KAN([2, 2, 1])
    model.get_act(X[:, :2].float())
    model.prune(-1, -1).refine(5).copy()
    assert not list(tmp_path.iterdir())


def test_all_inputs_in_another_order_are_the_same_function():
    model, x = KAN([3, 2, 1]), torch.rand(5, 3)
    pruned = model.prune_input(active_inputs=[2, 0, 1])
    assert pruned.input_id.tolist() == [2, 0, 1]
    loaded = KAN([3, 2, 1])
    loaded.load_state_dict(pruned.state_dict())
    for found in pruned, loaded, loaded.copy(), pruned.prune_input(active_inputs=[1, 2, 0]):
        torch.testing.assert_close(found(x), model(x))
    pruned.input_id = torch.tensor([0, 1, 2])
    torch.testing.assert_close(pruned(x[:, [2, 0, 1]]), model(x))
