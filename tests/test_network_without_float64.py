"""Networks on a device without float64, as MPS is: a fake one, see support/single.py."""

import copy
import pickle

import pytest
import torch

from fastkan import KAN, KANLinear, devices
from fastkan.network.layers.library import SYMBOLIC_LIB
from support import single
from support.single import CLOSE, assert_alike, data, same

pytestmark = pytest.mark.xdist_group("single")
HERE = single.DEVICE


@pytest.fixture(autouse=True, scope="module")
def registered():
    single.register()


@pytest.fixture
def networks() -> tuple[KAN, KAN]:
    return tuple(KAN([2, [2, 1], 1], grid=5, seed=0, device=d) for d in (HERE, "cpu"))


@pytest.fixture(scope="module")
def problem() -> dict[str, torch.Tensor]:
    x = data(60, 2, scale=1.0)
    y = torch.sin(2 * x[:, :1]) + x[:, 1:] ** 2
    return {"train_input": x, "train_label": y, "test_input": x, "test_label": y}


def sent(problem: dict[str, torch.Tensor], device=HERE) -> dict[str, torch.Tensor]:
    return {name: t.to(device) for name, t in problem.items()}


def test_a_network(networks):
    there, on_cpu = networks
    x = data(40, 2)
    assert_alike(there, on_cpu, x)
    for model in networks:
        model.update_grid(x.to(model.device))
    assert_alike(there, on_cpu, x)
    assert_alike(there.refine(10), on_cpu.refine(10), x)
    assert_alike(there.refine(7), on_cpu.refine(7), x)
    assert_alike(copy.deepcopy(on_cpu).to(HERE), on_cpu, x)
    assert_alike(pickle.loads(pickle.dumps(there)), on_cpu, x)
    same(there.speed()(x.to(HERE)).detach(), on_cpu(x).detach())
    back = copy.deepcopy(there).to("cpu")
    assert all(layer.grid.dtype == torch.float64 for layer in back.act_fun)
    same(there(x.to(HERE)).detach(), back(x).detach())


def test_a_network_does_not_wait(networks):
    there, _ = networks
    x = data(40, 2).to(HERE)
    there(x)  # the masks are read once
    before = single.synchronizations()
    there(x).square().mean().backward()
    assert single.synchronizations() == before


@pytest.mark.parametrize(
    "options",
    [{"opt": "Adam", "steps": 4}, {"opt": "LBFGS", "lamb": 1e-3, "steps": 2}, {"opt": "LM", "steps": 3}],
)
def test_fit(networks, problem, options):
    there, on_cpu = (
        torch.tensor([float(v) for v in model.fit(sent(problem, model.device), **options)["train_loss"]])
        for model in networks
    )
    rounding = {"Adam": 1e-4, "LBFGS": 0.5, "LM": 1e-2}[options["opt"]]  # a line search magnifies it
    torch.testing.assert_close(there, on_cpu, rtol=rounding, atol=0.0)


def test_scores_and_pruning(networks, problem):
    x = problem["train_input"]
    kept = []
    for model in networks:
        model.get_act(x.to(model.device))
        model.attribute()
        kept.append(model.prune(node_th=0.1, edge_th=0.05))
        model.auto_swap()
    there, on_cpu = networks
    same(there.feature_score.detach(), on_cpu.feature_score.detach(), rtol=1e-4, atol=1e-4)
    assert kept[0].width == kept[1].width
    assert_alike(*kept, x)


def test_scores_of_unusual_rows():
    """Outlier rows, and an input that mostly has one value."""
    x = data(200, 2, scale=1.0)
    x[:8, 0] = 30.0
    x[:, 1] = (x[:, 1] > 0.6).float()
    models = [KAN([2, 2, 1], seed=0, device=d) for d in (HERE, "cpu")]
    for model in models:
        model.get_act(x.to(model.device))
        model.attribute()
    same(models[0].feature_score.detach(), models[1].feature_score.detach(), rtol=1e-3, atol=1e-4)


def test_files(networks, tmp_path):
    there, on_cpu = networks
    x = data(40, 2)
    there.save(tmp_path / "there")
    on_cpu.save(tmp_path / "cpu")
    for name in ("there", "cpu"):
        for device in (HERE, torch.device("cpu")):
            loaded = KAN.load(tmp_path / name, device=device)
            assert loaded.device == device
            assert all(layer.grid.dtype == devices.widest(device) for layer in loaded.act_fun)
            assert all(layer.linear.uniform for layer in loaded.act_fun)
            torch.testing.assert_close(loaded(x.to(device)).cpu(), on_cpu(x), **CLOSE)
    assert KAN.load(tmp_path / "there").device == HERE
    new = KAN([2, [2, 1], 1], grid=2)
    new.load_state_dict(there.state_dict())
    torch.testing.assert_close(new(x), on_cpu(x), **CLOSE)


@pytest.mark.parametrize("grid", [2, 5])
def test_a_state_of_the_cpu_loads_there(networks, grid):
    """Knots are float32 there, also those of another grid size; with assign=True the network is where the state is."""
    there, on_cpu = networks
    x = data(40, 2)
    on_cpu.update_grid(x)
    on_cpu.fix_symbolic(0, 1, 0, "sin", fit_params_bool=False)
    new = KAN([2, [2, 1], 1], grid=grid, device=HERE)
    new.load_state_dict(copy.deepcopy(on_cpu).double().state_dict())
    assert {t.device for t in new.state_dict().values()} == {HERE, torch.device("cpu")}  # the names of functions
    assert all(t.device == HERE for t in [*new.parameters(), *new.buffers()])
    assert all(layer.grid.dtype == torch.float32 for layer in new.act_fun)
    same(new(x.to(HERE)).detach(), on_cpu(x).detach(), **CLOSE)
    assigned = KAN([2, [2, 1], 1], grid=grid)
    assigned.load_state_dict(new.state_dict(), assign=True)
    assert all(t.device == HERE for t in [*assigned.parameters(), *assigned.buffers()])
    assert all(layer.grid.dtype == torch.float32 for layer in assigned.act_fun)
    same(assigned(x.to(HERE)).detach(), on_cpu(x).detach(), **CLOSE)


def test_from_another_network(networks):
    there, on_cpu = networks
    x = data(40, 2, scale=0.9)
    for source in networks:
        finer = [
            KAN([2, [2, 1], 1], grid=8, k=k, device=d).initialize_from_another_model(source)
            for k in (3, 2)
            for d in (HERE, "cpu")
        ]
        assert_alike(*finer[:2], x)
        assert_alike(*finer[2:], x)


def test_a_base_function_of_ones_own(problem):
    models = [KAN([2, 2, 1], base_fun=torch.sin, seed=0, device=d) for d in (HERE, "cpu")]
    x = problem["train_input"]
    for model in models:
        model.get_act(x.to(model.device))
    for layer_there, layer_here in zip(*(model.act_fun for model in models), strict=True):
        rows = data(30, layer_here.in_dim)
        for name in ("postacts", "postspline", "edge_std", "edge_mean"):
            got, want = getattr(layer_there, name)(rows.to(HERE)), getattr(layer_here, name)(rows)
            same(got.detach(), want.detach(), rtol=1e-4, atol=1e-4)


def test_edits(networks):
    there, on_cpu = networks
    x = data(40, 2)
    for model in networks:
        model.expand_width(1, 1)
        model.remove_edge(0, 1, 0)
    assert_alike(there, on_cpu, x)


def test_plots(networks, problem, tmp_path):
    pytest.importorskip("matplotlib")
    there, _ = networks
    there.get_act(problem["train_input"].to(HERE))
    there.plot()
    there.plot_edge(0, 0, 0)


def test_symbolic_edges(networks, problem):
    x = problem["train_input"]
    formulas = []
    for model in networks:
        model.get_act(x.to(model.device))
        assert model.suggest_symbolic(0, 0, 0, verbose=False)[0] in SYMBOLIC_LIB
        model.fix_symbolic(0, 0, 0, "sin", verbose=False)
        model.auto_symbolic(lib=["x", "x^2", "sin"], verbose=0)
        formulas.append(model.symbolic_fun[0].funs_name)
    there, on_cpu = networks
    assert formulas[0] == formulas[1]
    same(there(x.to(HERE)).detach(), on_cpu(x).detach(), rtol=1e-3, atol=1e-3)
    assert there.device == there.symbolic_fun[0].affine.device == HERE


def test_as_the_default_device(problem):
    with HERE:
        kan, model = KANLinear(3, 4), KAN([2, 3, 1], seed=0, sparse_init=True)
        assert kan.grid.device == model.device == HERE
        assert KANLinear(3, 4, device="cpu").grid.dtype == torch.float64
        assert KAN([2, 1], device="meta").device.type == "meta"
        kan.update_grid(data(50, 3))
        model(problem["train_input"].to(HERE))
        model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False, verbose=False)
        new = KAN([2, 3, 1])
        new.load_state_dict(model.state_dict())
        assert new.symbolic_fun[0].funs_name == model.symbolic_fun[0].funs_name
    x = problem["train_input"]
    same(model(x.to(HERE)).detach(), copy.deepcopy(model).to("cpu")(x).detach())
