"""pykan's tutorials hellokan and API 1 to 12: the same tasks through its own names."""

import os

import pytest
import torch

from bench.tasks import api
from bench.tasks.api import f

pytestmark = pytest.mark.long


def drawn(kan) -> int:
    """How many curves the current figure of pyplot has."""
    axes = kan.plt.gcf().get_axes()
    return sum(len(a.lines) + len(a.collections) for a in axes)


def test_hellokan(task, kan):
    """From data to exp(sin(pi x) + y^2)."""
    found = task("hellokan")
    assert found["model"].width == [[2, 0], [1, 0], [1, 0]]
    assert str(found["formula"]).replace("1.0*", "") == "exp(x_2**2 + sin(3.1416*x_1))"
    kan.plt.savefig("kan.png")
    assert os.path.getsize("kan.png") > 1000


def test_api_1_indexing(kan):
    model = kan.KAN(width=[2, 3, 2, 1])
    model(torch.normal(0, 1, size=(100, 2)))
    for edge in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2, 1, 0)):
        l, i, j = edge
        assert model.fix_symbolic(*edge, "sin", verbose=False) > 0
        assert model.symbolic_fun[l].funs_name[j][i] == "sin" and model.act_fun[l].mask[i][j] == 0
        assert model.symbolic_fun[l].mask[j][i] == 1
        model.plot(beta=100)
        model.unfix_symbolic(*edge)
        assert model.symbolic_fun[l].mask[j][i] == 0 and model.act_fun[l].mask[i][j] == 1
        kan.plt.close("all")
    for node in ((1, 0), (2, 1), (1, 2)):
        model.remove_node(*node)
    assert model.act_fun[1].mask.tolist() == [[0, 0], [1, 0], [0, 0]]
    assert model.act_fun[0].mask[:, 0].sum() == 0 and model.act_fun[2].mask[1].sum() == 0
    model.plot(beta=100)
    model = kan.KAN(width=[2, 3, 5, 1])
    sizes = [(layer.in_dim, layer.out_dim) for layer in model.act_fun]
    assert sizes == [(2, 3), (3, 5), (5, 1)] == [(layer.in_dim, layer.out_dim) for layer in model.symbolic_fun]
    assert model.act_fun[0].grid.shape == (2, 10) and model.act_fun[0].coef.shape == (2, 3, 6)


def test_api_2_plotting(kan):
    model, dataset = kan.KAN(width=[2, 5, 1], grid=3, k=3, seed=1), kan.create_dataset(f, n_var=2)
    model(dataset["train_input"])
    figure = model.plot(beta=100, in_vars=[r"$\alpha$", "x"], out_vars=["y"], title="My KAN")
    words = {text.get_text() for axes in figure.get_axes() for text in axes.texts}
    assert {r"$\alpha$", "x", "y", "My KAN"} <= words
    assert kan.plt.gcf() is figure
    model.fit(dataset, opt="LBFGS", steps=5, lamb=0.01)
    for options in ({"beta": 0.1}, {"metric": "forward_n"}, {"metric": "forward_u"}, {"metric": "backward"}):
        model.plot(**options)
        assert drawn(kan) > 8
    widths = [model.plot(scale=scale).get_size_inches()[0] for scale in (0.2, 0.5, 2.0)]
    assert widths == sorted(widths) and widths[0] < widths[2]
    model.get_act(dataset["train_input"][:20])
    before = drawn(kan)
    model.plot(sample=True)
    assert drawn(kan) > before or kan.plt.gcf() is not figure
    model.fix_symbolic(0, 1, 0, "x^2", verbose=False)
    model.plot()
    model.set_mode(0, 1, 0, mode="ns")
    model.plot(beta=100)
    assert len(kan.plt.get_fignums()) == 11


def test_api_3_extract_activations(kan):
    model, x = kan.KAN(width=[2, 5, 1], grid=3, k=3, seed=1), torch.normal(0, 1, size=(100, 2))
    model(x)
    inputs, outputs = model.get_fun(0, 0, 3)
    assert (inputs == x[:, 0].sort().values.numpy()).all()
    at = torch.tensor([inputs.argmax(), inputs.argmin()])
    curve = model.act_fun[0].postacts(torch.as_tensor(inputs)[:, None].expand(-1, 2))[:, 3, 0]
    torch.testing.assert_close(torch.as_tensor(outputs)[at], curve[at].detach())
    assert model.get_range(0, 0, 3) == pytest.approx((inputs.min(), inputs.max(), outputs.min(), outputs.max()))
    assert drawn(kan) == 1


def test_api_4_initialization(kan):
    x = torch.normal(0, 1, size=(100, 2))

    def start(**options):
        model = kan.KAN(width=[2, 5, 1], grid=5, k=3, seed=0, **options)
        model(x)
        model.plot()
        return model

    quiet, loud = start(noise_scale=0.3), start(noise_scale=10.0)
    assert loud.act_fun[0].coef.std() > 10 * quiet.act_fun[0].coef.std()
    linear = start(base_fun="identity", noise_scale=0.0)
    torch.testing.assert_close(linear(x), x @ linear.act_fun[0].scale_base @ linear.act_fun[1].scale_base)
    assert torch.allclose(start(scale_base_mu=5, scale_base_sigma=0).act_fun[0].scale_base, torch.tensor(5 / 2**0.5))
    assert start(sparse_init=True).act_fun[0].mask.sum() < 10


def test_api_5_grid(kan):
    from kan.spline import B_batch, extend_grid

    grid = extend_grid(torch.linspace(-1, 1, 6)[None, :], k_extend=3)
    x = torch.linspace(-1, 1, 1001)
    basis = B_batch(x[:, None], grid, k=3)[:, 0]
    torch.testing.assert_close(basis.sum(1), torch.ones(1001))
    model = kan.KAN(width=[1, 1], grid=5, k=3)
    layer = model.act_fun[0]
    assert layer.coef[0].shape[1] == 8
    phi = layer.scale_base * torch.nn.functional.silu(x[:, None]) + layer.scale_sp * (basis @ layer.coef[0].T)
    torch.testing.assert_close(model(x[:, None]), phi)
    for bound in (10.0, 0.5):
        model = kan.KAN(width=[1, 1], grid=5, k=3)
        model.update_grid_from_samples(torch.linspace(-bound, bound, 1001)[:, None])
        ends = model.act_fun[0].grid[0, [3, -4]]
        torch.testing.assert_close(ends, torch.tensor([-bound, bound]), rtol=1e-6, atol=0)
    rows = torch.normal(0, 1, size=(1000, 1))
    steps = {}
    for grid_eps in (1.0, 0.0):
        model = kan.KAN(width=[1, 1], grid=5, k=3, grid_eps=grid_eps)
        model.update_grid_from_samples(rows)
        inner = model.act_fun[0].grid[0, 3:-3]
        counts = torch.histogram(rows[:, 0], inner.contiguous()).hist
        steps[grid_eps] = inner.diff(), counts
    assert steps[1.0][0].std() < 1e-9 and steps[0.0][1].std() < 2


def test_api_6_training_hyperparameters(task):
    sizes = task("API 6")["found"]
    assert sizes[0.0, 2.0][0] < sizes[0.01, 2.0][0] < sizes[1.0, 2.0][0]
    assert sizes[0.0, 2.0][1] > sizes[0.01, 2.0][1]


def test_api_7_pruning(task):
    found = task("API 7")
    model, dataset = found["model"], found["dataset"]
    y = model(dataset["train_input"])
    smaller = model.prune_node(threshold=1e-2)
    assert smaller.width[1][0] < 5
    assert (smaller(dataset["train_input"]) - y).std() < 0.05 * y.std()  # scores do not weigh constants
    assert model.prune_node(active_neurons_id=[[0]]).width[1] == [1, 0]
    edges = model.n_edge
    model.prune_edge()
    assert model.n_edge < edges
    both = model.prune()
    assert both.n_edge <= model.n_edge and both.width[1][0] < 5
    both.plot()


@pytest.mark.parametrize("metric", api.METRICS)
def test_api_8_regularization(task, metric):
    results = task(f"API 8, {metric}")["results"]
    assert results["reg"][-1] < results["reg"][0] and results["test_loss"][-1] < results["test_loss"][0]


def test_api_9_videos(task, kan):
    task("API 9")
    assert sorted(os.listdir("frames")) == ["0.jpg", "2.jpg"]
    assert kan.plt.imread("frames/2.jpg").ndim == 3


def test_api_10_device(task):
    found = task("API 10")
    assert found["losses"][-1] < found["losses"][0] and found["place"]


def test_api_11_create_dataset(kan):
    from kan.utils import create_dataset, create_dataset_from_data

    made = [
        create_dataset(lambda x: x[:, [0]] * x[:, [1]]), create_dataset(lambda x: x[:, 0] * x[:, 1]),
        create_dataset(lambda x: x[0] * x[1], f_mode="row"),
    ]  # fmt: skip
    for data in made:
        assert data["train_label"].shape == (1000, 1) and torch.equal(data["train_label"], made[0]["train_label"])
    cut = create_dataset_from_data(torch.rand(100, 2), torch.rand(100, 1))
    assert len(cut["train_input"]) == 80 and len(cut["test_label"]) == 20


def test_api_12_checkpoints(task, capsys):
    found = task("API 12")
    assert found["numbers"] == [(0, 1), (0, 2), (1, 1)] and found["the same"]
    found["model"].history()
    printed = capsys.readouterr().out
    for line in ("checkpoint directory created: ./model", "saving model version 0.1", "saving model version 1.2",
                 "rewind to model version 0.1, renamed as 1.1", "0.1 => prune => 0.2", "### Round 1 ###"):  # fmt: skip
        assert line in printed
    assert os.path.exists("model/1.2_config.yml") and os.path.exists("model/1.2_state")
