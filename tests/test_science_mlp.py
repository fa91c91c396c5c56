"""MLP against pykan's in float64 (initialization, scores, penalties, cost), with KAN's training."""

import copy

import pytest
import torch

from fastkan import science
from fastkan.science import MLP, create_dataset
from support.pykan import long_memory

CLOSE = {"rtol": 1e-12, "atol": 1e-13}
IN_FLOAT32 = {"rtol": 4e-7, "atol": 1e-13}  # pykan divides scores by roots that it takes in float32, whatever else is
WIDTH = [3, 5, 4, 2]
METRICS = ["w", "act", "fa", "a"]


def points(rows: int = 50) -> torch.Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def pair():
    kan = pytest.importorskip("kan.MLP", reason="pykan is not installed", exc_type=ImportError)
    with torch.random.fork_rng(devices=[]):
        theirs = kan.MLP(WIDTH, seed=4).double()
    mine = MLP(WIDTH, seed=4).double()
    theirs(points()), theirs.attribute()
    mine.get_act(points()), mine.attribute()
    return mine, theirs


@pytest.fixture(scope="module")
def dataset():
    return create_dataset(lambda x: torch.sin(3 * x[:, [0]]) * x[:, [1]], 3, train_num=200, test_num=100)


def test_start_and_outputs_as_pykan(pair):
    mine, theirs = pair
    state = theirs.state_dict()
    assert list(mine.state_dict()) == list(state)
    for name, value in mine.state_dict().items():
        assert torch.equal(value, state[name])
    torch.testing.assert_close(mine(points()), theirs(points()), **CLOSE)


def test_activations_and_scores_as_pykan(pair):
    mine, theirs = pair
    for name in ("wa_forward", "acts_scale", "w", "node_scores", "edge_scores"):
        for a, b in zip(getattr(mine, name), getattr(theirs, name), strict=True):
            torch.testing.assert_close(a.detach(), b.detach().double(), **(IN_FLOAT32 if "scores" in name else CLOSE))
    for a, b in zip(mine.acts[:-1], theirs.acts, strict=True):
        torch.testing.assert_close(a, b.detach(), **CLOSE)
    assert torch.equal(mine.acts[-1], mine(points()).detach())
    assert torch.equal(mine.feature_score, mine.node_scores[0])


@pytest.mark.parametrize("metric", METRICS)
def test_penalties_and_their_gradients_as_pykan(pair, metric):
    mine, theirs = pair
    a, b = mine.get_reg(metric, 0.7, 1.3), theirs.get_reg(metric, 0.7, 1.3)
    torch.testing.assert_close(a, b, **(IN_FLOAT32 if metric == "fa" else CLOSE))
    a.backward(), b.backward()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-6 if metric == "fa" else 1e-12)


def test_swaps_and_cost_as_pykan(pair):
    mine, theirs = pair
    before = mine(points())
    torch.testing.assert_close(mine.connection_cost, theirs.connection_cost, rtol=1e-6, atol=0)
    mine.swap(1, 0, 3), theirs.swap(1, 0, 3)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)
    torch.testing.assert_close(mine(points()), before, **CLOSE)
    mine.auto_swap(), theirs.auto_swap()
    torch.testing.assert_close(mine(points()), before, **CLOSE)
    assert mine.connection_cost <= theirs.connection_cost * (1 + 1e-6)


def test_no_swap_helps_after_auto_swap():
    model = MLP([2, 5, 5, 1], seed=3).double()
    model.auto_swap_l(1)
    least = model.connection_cost
    for i in range(5):
        for j in range(i):
            other = copy.deepcopy(model)
            other.swap(1, i, j)
            assert other.connection_cost >= least - 1e-12


def test_initialization_keeps_the_global_random_state():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    model = MLP([2, 3, 1], seed=9)
    assert torch.equal(torch.rand(3), expected) and torch.equal(model.w[0], MLP([2, 3, 1], seed=9).w[0])
    assert not torch.equal(model.w[0], MLP([2, 3, 1], seed=8).w[0])


@pytest.mark.parametrize(("opt", "lr", "most"), [("LBFGS", 1.0, 0.03), ("LM", 1.0, 0.01), ("Adam", 3e-2, 0.35)])
def test_training(dataset, opt, lr, most):
    """The labels have a standard deviation of 0.44."""
    model = MLP([3, 8, 8, 1])
    results = model.fit(dataset, opt, steps=25, lr=lr, progress=False)
    assert results["test_loss"][-1] < most and len(results["train_loss"]) == 25 and results["stopped"] is None
    assert results["test_loss"][-1] == pytest.approx(
        (model(dataset["test_input"]) - dataset["test_label"]).square().mean().sqrt().item(), rel=1e-5
    )


@pytest.mark.parametrize("opt", ["LBFGS", "LM", "Adam"])
@pytest.mark.parametrize("metric", METRICS)
def test_penalties_go_down(dataset, opt, metric):
    """pykan's "fa" with Adam fails at the first step."""
    model = MLP([3, 6, 1])
    reg = model.fit(dataset, opt, steps=8, lamb=0.1, lr=0.01, reg_metric=metric, progress=False)["reg"]
    assert reg[-1] < reg[0]


def test_as_pykan_trains(dataset):
    """One LBFGS step of both, from the same start."""
    kan = pytest.importorskip("kan.MLP", reason="pykan is not installed", exc_type=ImportError)
    data = {key: value.double() for key, value in dataset.items()}
    with torch.random.fork_rng(devices=[]):
        theirs = kan.MLP([3, 4, 1], seed=2).double()
    mine = MLP([3, 4, 1], seed=2).double()
    with long_memory():
        losses = [m.fit(data, steps=1)["test_loss"][0] for m in (mine, theirs)]
    assert losses[0] == pytest.approx(float(losses[1]), rel=1e-6)


def test_early_ends_and_metrics(dataset):
    model = MLP([3, 4, 1])
    results = model.fit(dataset, steps=9, callback=lambda step, _: step == 3, metrics=[rows], batch=50, progress=False)
    assert len(results["rows"]) == 4 and "callback" in results["stopped"] and "grid" not in results


def rows() -> float:
    return 3.0


def test_any_number_of_dimensions_and_activations():
    x = torch.randn(2, 5, 3)
    for act in (*science.mlp.ACTIVATIONS, torch.erf):
        model = MLP([3, 4, 2], act)
        assert torch.equal(model(x).reshape(10, 2), model(x.reshape(10, 3)))
        torch.testing.assert_close(model.flow(x).acts[-1], model(x.reshape(10, 3)))
    assert not torch.equal(MLP([3, 4, 2], "relu")(x), MLP([3, 4, 2], "silu")(x))


def test_copies_and_pickles(pair):
    """After a forward pass, which keeps nothing of autograd's that could not be copied."""
    mine, _ = pair
    other = mine.copy()
    assert torch.equal(other(points()), mine(points())) and other.w[0] is not mine.w[0]


def test_pruning_keeps_the_function_where_nodes_are_idle():
    model = MLP([3, 6, 5, 1], seed=1).double()
    with torch.no_grad():
        model.w[1][:, [1, 4]] = 0.0
        model.w[2][:, 2] = 0.0
    model.get_act(points())
    small = model.prune_node()
    assert small.width == [3, 4, 4, 1]
    torch.testing.assert_close(small(points()), model(points()), **CLOSE)
    assert model.prune_node(1e9).width == [3, 1, 1, 1]


@pytest.mark.parametrize("metric", ["w", "act", "fa"])
def test_pictures(tmp_path, metric):
    model = MLP([3, 4, 2])
    model.cache_data = points().float()
    path = tmp_path / "mlp.svg"
    figure = model.plot(metric=metric, in_vars=["$x_1$", "$x_2$", "$x_3$"], out_vars=["u", "v"], path=path)
    lines = figure.axes[0].collections[0]
    assert len(lines.get_segments()) == 12 and path.read_text().startswith("<?xml")
    value = {"w": model.w, "act": model.wa_forward, "fa": model.wa_backward}[metric][0].detach()
    torch.testing.assert_close(torch.as_tensor(lines.get_alpha()).float(), torch.tanh(3 * value.abs()).flatten())
    assert {t.get_text() for t in figure.axes[0].texts} == {"$x_1$", "$x_2$", "$x_3$", "u", "v"}


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, r"width=\[3\]: expected the nodes", lambda m: MLP([3])),
        (TypeError, r"width\[1\]=2.5: expected an integer", lambda m: MLP([3, 2.5, 1])),
        (ValueError, "act='swish': expected one of 'silu'", lambda m: MLP([3, 1], "swish")),
        (ValueError, "seed=-1: expected", lambda m: MLP([3, 1], seed=-1)),
        (ValueError, r"x has shape \[4, 2\]: expected a tensor \[..., 3\]", lambda m: m.get_act(torch.ones(4, 2))),
        (ValueError, "x=None: expected data", lambda m: m.get_act()),
        (ValueError, "x=None: expected data", lambda m: m.reg()),
        (ValueError, "reg_metric='b': expected one of 'w'", lambda m: m.reg("b", x=torch.ones(4, 3))),
        (ValueError, "reg_metric='b': expected one of 'w'", lambda m: m.fit((torch.ones(4, 3),) * 2, reg_metric="b")),
        (ValueError, "l=0: expected a hidden layer", lambda m: m.swap(0, 0, 1)),
        (IndexError, "i2=4: expected an integer from 0 to 3", lambda m: m.swap(1, 0, 4)),
        (ValueError, "metric='b': expected one of 'w', 'act', 'fa'", lambda m: m.plot(metric="b")),
        (ValueError, "in_vars=.*: expected a list of 3 names", lambda m: m.plot(in_vars=["x"])),
        (ValueError, "path='mlp.doc': expected a file whose suffix", lambda m: m.plot(path="mlp.doc")),
    ],
)  # fmt: skip
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call(MLP([3, 4, 1]))
