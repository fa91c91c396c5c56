"""Errors of pykan 0.2.8 that fastkan does not have, through pykan's names."""

import copy
import io
import os

import pytest
import torch

from support.pykan import our_kan

sympy = pytest.importorskip("sympy")


@pytest.fixture(autouse=True)
def kan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with our_kan() as kan:
        yield kan


def dataset(kan, f=lambda x: torch.sin(3 * x[:, [0]]) + x[:, [1]] ** 2, **options) -> dict:
    return kan.create_dataset(f, train_num=100, test_num=50, **options)


def test_splines_of_degree_0(kan):
    model = kan.KAN([2, 2, 1], k=0, grid=4)
    losses = model.fit(dataset(kan), steps=5)["train_loss"]
    assert losses[-1] < losses[0]


def test_fewer_steps_with_grid_updates_than_updates(kan):
    model = kan.KAN([2, 2, 1])
    model.fit(dataset(kan), steps=3, stop_grid_update_step=5, grid_update_num=10)


def test_pruned_inputs_are_saved(kan):
    data = kan.create_dataset(lambda x: x[:, [0]] * x[:, [2]], n_var=3, train_num=100, test_num=50)
    model = kan.KAN([3, 2, 1], auto_save=False)
    model.fit(data, steps=10)
    model = model.prune_input()
    model.saveckpt("mark")
    loaded = kan.KAN.loadckpt("mark")
    assert model.width_in[0] == loaded.width_in[0] == 2
    assert torch.equal(loaded(data["test_input"]), model(data["test_input"]))


def test_a_model_that_has_seen_data_is_copied_and_saved(kan):
    model, x = kan.KAN([2, 2, 1]), torch.rand(5, 2)
    y = model(x)
    assert torch.equal(copy.deepcopy(model)(x), y) and torch.equal(model.copy()(x), y)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), y)
    assert not os.path.exists("copy_temp_state")


def test_formula_of_two_multiplication_nodes_of_three(kan):
    model, x = kan.KAN([2, [0, 2], 1], mult_arity=3, auto_save=False).double(), torch.rand(4, 2).double()
    for j in range(6):
        for i in range(2):
            model.fix_symbolic(0, i, j, ("x", "sin", "x^2")[(i + j) % 3], fit_params_bool=False, random=True)
    for i in range(2):
        model.fix_symbolic(1, i, 0, "x", fit_params_bool=False)
    (formula,), variables = model.symbolic_formula()
    values = sympy.lambdify(variables, formula)(*x.numpy().T)
    torch.testing.assert_close(torch.as_tensor(values)[:, None], model(x).detach(), rtol=1e-9, atol=1e-12)


def test_swap_with_symbolic_edges_keeps_the_function(kan):
    model, x = kan.KAN([2, 3, 1], affine_trainable=True, auto_save=False), torch.rand(10, 2)
    model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False)
    with torch.no_grad():
        model.node_scale[0].copy_(torch.tensor([1.0, 2.0, 3.0]))
    y = model(x)
    model.swap(1, 0, 2)
    torch.testing.assert_close(model(x), y)
    assert model.node_scale[0].tolist() == [3.0, 2.0, 1.0]
    assert model.symbolic_fun[0].funs_name[2][0] == "sin"


def test_refine_leaves_auto_save_off(kan):
    model = kan.KAN([2, 2, 1], auto_save=False)
    model(torch.rand(20, 2))
    model = model.refine(6)
    assert not model.auto_save
    model.fit(dataset(kan), steps=1)
    assert not os.path.exists("model")


def test_inputs_of_more_dimensions(kan):
    model, x = kan.KAN([2, 3, 1]), torch.rand(4, 5, 2)
    torch.testing.assert_close(model(x), model(x.reshape(20, 2)).reshape(4, 5, 1))


def test_autocast_is_heeded(kan):
    model, x = kan.KAN([2, 3, 1]), torch.rand(8, 2)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
        assert model.act_fun[0](x)[0].dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), model(x), rtol=0.05, atol=0.05)


def test_classification_loss_is_reported_unchanged(kan):
    data = dataset(kan)
    for part in ("train", "test"):
        data[f"{part}_label"] = (data[f"{part}_input"][:, 0] > 0).long()
    loss, model = torch.nn.CrossEntropyLoss(), kan.KAN([2, 2])
    results = model.fit(data, steps=3, loss_fn=loss)
    assert results["test_loss"][-1] == pytest.approx(loss(model(data["test_input"]), data["test_label"]).item())


@pytest.mark.parametrize("column", ["constant", "binary"])
def test_features_that_hardly_vary(kan, column):
    data = dataset(kan)
    for part in ("train_input", "test_input"):
        data[part][:, 1] = 0.5 if column == "constant" else (data[part][:, 1] > 0).float()
    model = kan.KAN([2, 3, 1])
    results = model.fit(data, steps=10)
    assert results["train_loss"][-1] < results["train_loss"][0]
    assert model.refine(12)(data["test_input"]).isfinite().all()


def test_formulas_can_be_simplified(kan):
    model = kan.KAN([1, 2, 1], auto_save=False).double()
    for j, name in enumerate(("sin", "cos")):
        model.fix_symbolic(0, 0, j, name, fit_params_bool=False)
        model.fix_symbolic(1, j, 0, "x^2", fit_params_bool=False)
    assert model.symbolic_formula(simplify=True)[0][0] == 1


def test_no_tensor_of_every_row_and_edge_is_saved(kan):
    model = kan.KAN([30, 30, 1], grid=3, auto_save=False)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        model(torch.rand(200, 30))
    assert max(saved) < 200 * 30 * 30


# The penalty is that of the last forward pass, whatever made it


def penalty(model) -> torch.Tensor:
    return model.get_reg("edge_forward_spline_n", 1.0, 2.0, 0.0, 0.0)


FORWARDS = {
    "call": lambda model, x: model(x),
    "forward": lambda model, x: model.forward(x),
    "compiled": lambda model, x: torch.compile(model, backend="eager")(x),
    "compiled in one": lambda model, x: torch.compile(model, backend="aot_eager", fullgraph=True)(x),
    "compiled forward": lambda model, x: torch.compile(model.forward, backend="eager")(x),
    "in a module": lambda model, x: torch.nn.Sequential(model)(x),
    "inference": lambda model, x: torch.inference_mode()(model)(x),
    "vmap": lambda model, x: torch.vmap(model)(x),
    "vmap of columns": lambda model, x: torch.vmap(model, in_dims=1)(x.T.contiguous()),
    "Hessian": lambda model, x: torch.vmap(torch.func.hessian(lambda row: model(row)[0]))(x),
    "tangent": lambda model, x: torch.func.jvp(model, (x,), (x,)),
    "same tensors": lambda model, x: torch.func.functional_call(model, dict(model.named_parameters()), (x,)),
}


@pytest.mark.parametrize("how", FORWARDS)
def test_the_penalty_is_of_the_last_forward_pass(kan, how):
    model, x = kan.KAN([2, 3, 1], auto_save=False), torch.rand(20, 2)
    model(x)
    right = penalty(model)
    model(3 * x)
    FORWARDS[how](model, x)
    torch.testing.assert_close(penalty(model), right)
    assert torch.equal(model.acts[0], x)


def test_the_penalty_after_a_call_with_other_tensors_is_an_error(kan):
    model, x = kan.KAN([2, 3, 1], auto_save=False), torch.rand(20, 2)
    others = {name: p.detach() * 2 for name, p in model.named_parameters()}
    torch.func.functional_call(model, others, (x,))
    for read in (lambda: penalty(model), lambda: model.edge_actscale):
        with pytest.raises(RuntimeError, match="the last forward pass had other tensors as parameters"):
            read()
    model(x)
    assert penalty(model) == penalty(copy.deepcopy(model)) and penalty(model.refine(6)) > 0
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2.0)
    assert penalty(model) == model.get_reg("edge_forward_spline_n", 1.0, 2.0, 0.0, 0.0, x=x)


def test_the_penalty_of_data_that_have_changed_is_an_error(kan):
    model, x = kan.KAN([2, 3, 1], auto_save=False), torch.rand(20, 2)
    model(x)
    x.mul_(3)
    with pytest.raises(RuntimeError, match="the data of the last forward pass have been changed in place"):
        penalty(model)
    model.get_act(x)
    assert penalty(model) == model.get_reg("edge_forward_spline_n", 1.0, 2.0, 0.0, 0.0, x=x)


def test_a_model_exports_after_a_forward_pass(kan):
    model, x = kan.KAN([2, 3, 1], auto_save=False), torch.rand(20, 2)
    y = model(x)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), y)
    assert torch.equal(model.cache_data, x)
