"""The hand-written gradient of fit against autograd, and its LBFGS steps against torch's."""

import math

import pytest
import torch

from fastkan import KAN, reference
from fastkan.compat.pykan import from_pykan
from fastkan.network.layers.library import SYMBOLIC_LIB
from fastkan.network.train import gradient, lbfgs, objective, penalties
from fastkan.network.train.lbfgs import LBFGS
from support.backends import skip_if_missing
from support.models import inputs

LAMBDAS = {"lamb_l1": 1.0, "lamb_entropy": 2.0, "lamb_coef": 0.3, "lamb_coefdiff": 0.2}
METRICS = ("edge_forward_spline_n", "edge_forward_sum", "edge_forward_spline_u")
EXACT = {"rtol": 1e-10, "atol": 1e-13}


def some_masked(**options) -> KAN:
    model = KAN([3, 4, 2], grid=4, dtype=torch.float64, **options)
    model.act_fun[0].mask[0, 1], model.act_fun[0].mask[2, 2], model.act_fun[1].mask[3, 0] = 0.0, 0.5, 0.0
    return model


def off(model: KAN, l: int) -> KAN:
    model.act_fun[l].mask[:] = 0.0
    assert not model.act_fun[l].active
    return model


def some_off() -> KAN:
    """Inputs, nodes and an output without an edge."""
    model = KAN([4, 5, 2], grid=4, dtype=torch.float64)
    first, last = (layer.mask for layer in model.act_fun)
    first[1], first[:, 2], first[0, 4], last[3], last[:, 0] = 0.0, 0.0, 0.5, 0.0, 0.0
    return model


def some_symbolic(names=("sin", "x^2", "exp"), **options) -> KAN:
    """A layer with edges of one branch each, a layer without numeric ones."""
    model = KAN([3, [2, 1], 2], grid=4, dtype=torch.float64, **options)
    for n, name in enumerate((*names, names[0])):  # on each of the four subnodes
        model.symbolic_fun[0].set_edge(n % 3, n, name, (0.8, 0.3, 1.2, -0.4), 0.5 + n)
        model.act_fun[0].mask[n % 3, n] = 0.0
    off(model, 1)
    for i, j, name in ((0, 0, "tanh"), (1, 0, "x"), (2, 1, "x^2"), (0, 1, "0")):
        model.symbolic_fun[1].set_edge(i, j, name, (0.7, 0.2, 1.3, 0.1))
    return model


MODELS = {
    "few inputs": lambda: KAN([3, 5, 6], grid=4, dtype=torch.float64),
    "few outputs": lambda: KAN([3, 2, 1], grid=4, dtype=torch.float64),
    "products": lambda: KAN([3, [2, 2], 1], grid=[4, 3], k=[3, 2], affine_trainable=True, dtype=torch.float64),
    "masked": some_masked,
    "inputs, nodes and an output off": some_off,
    "a layer off": lambda: off(KAN([3, 2, 2], dtype=torch.float64), 0),
    "symbolic": some_symbolic,
    "symbolic, no numeric edge": lambda: off(some_symbolic(affine_trainable=True), 0),
    "linear outside": lambda: KAN([3, 2, 2], outside="linear", base_fun="identity", dtype=torch.float64),
    "no base": lambda: KAN([3, 2, 2], base_fun="zero", sp_trainable=False, dtype=torch.float64),
}


def plain(model: KAN, x: torch.Tensor, y: torch.Tensor, metric: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and the penalty, written down: the values of all edges, one by one."""
    penalty = 0.0
    for l, layer in enumerate(model.act_fun):
        linear = layer.linear
        phi = reference.features(x, linear.grid, linear.spec, 0, True)
        base = torch.zeros_like(linear.spline_scale) if linear.base_weight is None else linear.base_weight
        weight = torch.cat([linear.coef * linear.spline_scale[:, None], base[:, None]], 1) * layer.edge_mask[:, None]
        alone = torch.einsum("nif,ifo->noi", phi, weight)
        values = alone + symbolic_values(model.symbolic_fun[l], x)
        size = (alone if metric == "edge_forward_spline_n" else values).var(0)
        size = torch.where(size > 0, size, torch.inf).sqrt().nan_to_num(posinf=0.0)
        if metric != "edge_forward_spline_u":
            size = size / (x.std(0) + 0.1)
        for dim in (0, 1):
            share = size / (size.sum(dim, keepdim=True) + 1)
            penalty = penalty - 2.0 * (share * (share + 1e-4).log2()).sum(dim).mean()
        penalty = penalty + size.sum() + 0.3 * linear.coef.abs().mean(2).sum()
        penalty = penalty + 0.2 * linear.coef.diff(dim=1).abs().mean(2).sum()
        x = model.nodes(l, values.sum(2))
    return (x - y).square().mean(), penalty


def symbolic_values(layer, x: torch.Tensor) -> torch.Tensor:
    values = torch.zeros(len(x), layer.out_dim, layer.in_dim, dtype=x.dtype)
    for j, i in layer.edge_mask.nonzero().tolist():
        a, b, c, d = layer.affine[j, i]
        function = SYMBOLIC_LIB[layer.funs_name[j][i]].torch_fn
        values[:, j, i] = layer.edge_mask[j, i] * (c * function(a * x[:, i] + b) + d)
    return values


def gradients(model: KAN) -> dict[str, torch.Tensor]:
    """Those that are not 0."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    model.zero_grad(set_to_none=True)
    return found


def by_hand(model: KAN, x, y, lamb: float, metric: str, loss_fn=gradient.mean_square):
    assert gradient.is_supported(model, lamb, metric)
    values = gradient.Gradient(model, loss_fn, lamb, metric, LAMBDAS, {})(x, y)
    return values, gradients(model)


def by_autograd(model: KAN, x, y, lamb: float, metric: str, loss_fn=None):
    total, value = objective.Objective(model, loss_fn, lamb, metric, LAMBDAS, {})(x, y)
    total.backward()
    return value, gradients(model)


def assert_same(found, expected, **tolerance) -> None:
    (values, grads), (true_values, true_grads) = found, expected
    for a, b in zip(values, true_values, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or EXACT))
    assert grads.keys() == true_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, true_grads[name], **(tolerance or EXACT))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("which", MODELS)
def test_gradients_are_those_of_the_formula(which, metric):
    model = MODELS[which]()
    x = inputs(60, model.in_features, scale=1.2)
    y = inputs(60, model.width_in[-1], seed=5)
    if metric == METRICS[0]:
        model.update_grid(x)  # knots that are not equidistant
    loss, penalty = plain(model, x, y, metric)
    (loss + 0.1 * penalty).backward()
    expected = (loss.detach(), penalty.detach()), gradients(model)
    assert_same(by_hand(model, x, y, 0.1, metric), expected)


@pytest.mark.parametrize("which", MODELS)
def test_without_a_penalty_too(which):
    model = MODELS[which]()
    x = inputs(60, model.in_features)
    y = inputs(60, model.width_in[-1], seed=5)
    (loss, penalty), grads = by_hand(model, x, y, 0.0, METRICS[0])
    assert penalty == 0
    assert_same(((loss,), grads), ((loss,), by_autograd(model, x, y, 0.0, METRICS[0])[1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("bits", [0.0, 2.0])
@pytest.mark.parametrize("relative", [False, True])
def test_the_penalty_in_one_call_is_the_formula(relative, bits, dtype):
    x = inputs(60, 5, scale=1.2).to(dtype)
    x[:, 1] = 0.25
    layer = KAN([5, 7], grid=4, dtype=dtype).act_fun[0]
    with torch.no_grad():
        layer.linear.coef[2].zero_(), layer.linear.base_weight[2].zero_()
        moments = layer.moments(x)
    args = (moments, x.mT.contiguous().mT if relative else None, len(x), 1.5, bits, 0.1)
    torch.testing.assert_close(torch.ops.fastkan.edge_penalty(*args), penalties.reference(*args))


@pytest.mark.parametrize("case", ["constant input", "edges off", "one row"])
def test_edges_without_spread(case):
    model, x = KAN([3, 2, 1], dtype=torch.float64), inputs(60, 3)
    with torch.no_grad():
        if case == "constant input":
            x[:, 1] = 0.25
        elif case == "edges off":
            for p in (model.act_fun[0].linear.coef, model.act_fun[0].linear.base_weight):
                p[1] = 0.0
        else:
            x = x[:1]
    y = torch.zeros(len(x), 1, dtype=torch.float64)
    found = by_hand(model, x, y, 0.1, METRICS[0])
    assert all(g.isfinite().all() for g in found[1].values())
    if case == "constant input":  # rounding alone tells its edges from constant ones, in the gradient too
        torch.testing.assert_close(found[0][1], model.reg(x=x, **LAMBDAS), rtol=1e-6, atol=1e-6)
    else:
        assert_same(found, by_autograd(model, x, y, 0.1, METRICS[0]), rtol=1e-6, atol=1e-7)


def test_nan_stays_nan():
    model, x = KAN([3, 2, 1], dtype=torch.float64), inputs(60, 3)
    x[3, 1] = math.nan
    values, _ = by_hand(model, x, torch.zeros(60, 1, dtype=torch.float64), 0.1, METRICS[0])
    assert all(v.isnan() for v in values) and model.reg(x=x).isnan()


def test_the_loss_may_hold_parameters():
    model, x, y = KAN([3, 2, 1], dtype=torch.float64), inputs(60, 3), inputs(60, 1, seed=5)

    def loss(prediction, label):
        return (prediction - label).abs().mean() + model.act_fun[0].linear.coef.square().sum() + model(2 * x).sum()

    assert_same(by_hand(model, x, y, 0.1, METRICS[0], loss), by_autograd(model, x, y, 0.1, METRICS[0], loss),
                rtol=1e-7, atol=1e-9)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.act_fun[0].register_forward_hook(lambda *a: None),
        lambda model: model.half(),
        lambda model: setattr(model, "forward", lambda x: x),
        lambda model: torch.nn.utils.parametrize.register_parametrization(
            model.act_fun[0].linear, "spline_scale", torch.nn.ReLU()
        ),
    ],
)
def test_other_models_use_autograd(change):
    model = KAN([3, 2, 1])
    assert gradient.is_supported(model, 0.1, METRICS[0]) and not gradient.is_supported(model, 0.1, "edge_backward")
    change(model)
    assert not gradient.is_supported(model, 0.1, METRICS[0])


def test_edges_of_both_branches_match_autograd_where_their_sums_are_penalised():
    model = some_symbolic()
    assert all(gradient.is_supported(model, 0.1, metric) for metric in METRICS)
    model.act_fun[0].mask[0, 0] = 0.5
    assert [gradient.is_supported(model, 0.1, metric) for metric in METRICS] == [True, False, False]
    assert gradient.is_supported(model, 0.0, METRICS[1])
    x, y = inputs(60, 3), inputs(60, 2, seed=5)
    assert_same(by_hand(model, x, y, 0.1, METRICS[0]), by_autograd(model, x, y, 0.1, METRICS[0]))
    model.symbolic_enabled = False
    assert gradient.is_supported(model, 0.1, METRICS[1])


def test_functions_without_singularities(monkeypatch):
    model = some_symbolic(("1/x", "log", "sqrt"))
    x, y = inputs(60, 3), inputs(60, 2, seed=5)
    results = []
    assert gradient.is_supported(model, 0.1, METRICS[1])
    for supported in (True, False):
        monkeypatch.setattr(objective, "is_supported", lambda *args, answer=supported: answer)
        trained = objective.Objective(
            model, None, 0.1, METRICS[1], LAMBDAS, {"singularity_avoiding": True, "y_th": 5.0}
        )
        _, value = trained.step_function()(x, y)
        results.append((value, gradients(model)))
    assert results[0][0][0].isfinite()
    assert_same(*results)


def test_an_affine_map_that_is_not_trained():
    model = some_symbolic()
    model.symbolic_fun[0].affine.requires_grad_(False)
    x, y = inputs(60, 3), inputs(60, 2, seed=5)
    assert_same(by_hand(model, x, y, 0.1, METRICS[1]), by_autograd(model, x, y, 0.1, METRICS[1]))


def test_other_base_functions_match_autograd():
    assert not gradient.is_supported(KAN([3, 2, 1], base_fun=torch.tanh), 0.0, METRICS[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert not gradient.is_supported(KAN([3, 2, 1]), 0.0, METRICS[0])


def test_a_step_is_the_same_either_way(monkeypatch):
    x, y = inputs(60, 3), inputs(60, 1, seed=5)
    models = [KAN([3, 4, 1], dtype=torch.float64) for _ in range(2)]
    results = []
    for model, supported in zip(models, (gradient.is_supported, lambda *args: False), strict=True):
        monkeypatch.setattr(objective, "is_supported", supported)
        results.append(model.fit((x, y), steps=2, lamb=0.01, progress=False))
    for name in ("train_loss", "reg"):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-6)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The number of elements of the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor):
                self.numel = max(self.numel, t.untyped_storage().nbytes() // t.element_size())
        return out


@pytest.mark.parametrize("what", ["reg", "step"])
def test_edge_values_are_never_all_in_memory(what):
    model, x = KAN([48, 60, 1], grid=3), inputs(200, 48).float()
    with Largest() as largest:
        if what == "reg":
            model.reg(x=x).backward()
        else:
            by_hand(model, x, torch.zeros(200, 1), 0.1, METRICS[0])
    assert 200 * 48 < largest.numel < 200 * 48 * 60 / 3


def test_as_pykans_where_the_grids_have_moved():
    kan = pytest.importorskip("kan", reason="pykan is not installed")
    theirs = kan.KAN(width=[3, 4, 1], grid=4, seed=3, auto_save=False)
    x = inputs(100, 3, scale=1.5).float()
    theirs.update_grid(x)
    theirs = theirs.double()
    x, y = x.double(), x[:, :1].double()
    mine = from_pykan(theirs, exact=True)
    loss = (theirs(x) - y).square().mean()
    penalty = theirs.reg(METRICS[0], *LAMBDAS.values())
    (loss + 0.1 * penalty).backward()
    (found_loss, found_penalty), grads = by_hand(mine, x, y, 0.1, METRICS[0])
    torch.testing.assert_close(found_loss, loss.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found_penalty, penalty.detach(), rtol=1e-6, atol=1e-7)
    for l, layer in enumerate(theirs.act_fun):
        coef, base = grads[f"act_fun.{l}.linear.coef"], grads[f"act_fun.{l}.linear.base_weight"]
        torch.testing.assert_close(coef.transpose(1, 2), layer.coef.grad, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(base, layer.scale_base.grad, rtol=1e-5, atol=1e-6)


# LBFGS


def rosenbrock(parameters: list[torch.Tensor]) -> torch.Tensor:
    x = torch.cat([p.reshape(-1) for p in parameters])
    return (100 * (x[1:] - x[:-1].square()).square() + (1 - x[:-1]).square()).sum()


def start(dtype=torch.float64) -> list[torch.Tensor]:
    values = torch.linspace(-1.2, 1.1, 10, dtype=dtype)
    return [values[:6].view(2, 3).clone().requires_grad_(), values[6:].clone().requires_grad_()]


def closure(optimizer, parameters, function=rosenbrock):
    def evaluate():
        optimizer.zero_grad()
        value = function(parameters)
        value.backward()
        return value.detach()

    return evaluate


def test_steps_match_torch():
    mine, theirs = start(), start()
    optimizer = LBFGS(mine, history=10)
    other = torch.optim.LBFGS(
        theirs, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
    )
    for step in range(6):
        optimizer.step(closure(optimizer, mine))
        other.step(closure(other, theirs))
        if step < 3:
            for a, b in zip(mine, theirs, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
            assert optimizer.evaluations == other.state[theirs[0]]["func_evals"]
    assert rosenbrock(mine) < 1e-15


def test_small_values_are_as_good_as_large_ones():
    results = []
    for scale in (1.0, 1e-14):
        parameters = start()
        optimizer = LBFGS(parameters)
        for _ in range(8):
            optimizer.step(closure(optimizer, parameters, lambda p, scale=scale: rosenbrock(p) * scale))
        results.append(rosenbrock(parameters).item())
    assert max(results) < 1e-10


def test_line_search_backs_off_from_nan():
    parameter = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    optimizer = LBFGS([parameter], lr=8.0)
    for _ in range(5):
        optimizer.step(
            closure(optimizer, [parameter], lambda p: p[0].sum() - 1e-3 * (1 - p[0].sum()).log() - 2 * p[0].sum())
        )
    assert parameter.isfinite().all() and parameter < 1 and abs(parameter.item() - 0.999) < 1e-4


def test_changed_function():
    parameters = start()
    optimizer = LBFGS(parameters)
    for _ in range(3):
        optimizer.step(closure(optimizer, parameters))
    for _ in range(5):  # as many iterations as changes are remembered
        optimizer.step(closure(optimizer, parameters, lambda p: sum((q + 3).square().sum() for q in p)))
    assert all(((p + 3).abs() < 1e-6).all() for p in parameters)


def test_parameters_without_a_gradient_stay():
    used, unused = start()
    before = unused.detach().clone()
    optimizer = LBFGS([used, unused])
    optimizer.step(closure(optimizer, [used], lambda p: p[0].square().sum()))
    assert torch.equal(unused, before) and used.abs().max() < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("size", "pairs", "oldest"), [(1, 1, 0), (7, 0, 0), (8, 3, 2), (135, 10, 4), (50, 4, 0)])
def test_the_direction_of_lbfgs_in_one_call(size, pairs, oldest, dtype):
    """To the rounding of 2 pairs + 2 steps, each of which lengthens errors as it may lengthen a vector."""
    generator = torch.Generator().manual_seed(size)
    history = 10
    g = torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
    s, y = torch.randn(2, history, size, generator=generator, dtype=torch.float64).to(dtype)
    inverse = [0.3 / size] * pairs
    found = torch.ops.fastkan.lbfgs_direction(g, s, y, inverse, oldest, 0.7)
    order = [(oldest + k) % history for k in range(pairs)]
    s, y = s[order], y[order]
    exact = lbfgs.reference(g.double(), s.double(), y.double(), inverse, 0, 0.7)
    length = float(g.double().norm())
    for a, b, c in zip(s, y, inverse, strict=True):
        length *= (1 + c * float(a.double().norm() * b.double().norm())) ** 2
    sums = 2 * size * torch.finfo(torch.float64).eps
    allowed = (2 * pairs + 2) * (3 * torch.finfo(dtype).eps + sums) * length
    assert found.dtype == dtype and (found - exact).norm() <= allowed < 0.01 * exact.norm()


def test_the_direction_of_lbfgs_checks_its_vectors():
    skip_if_missing("native")
    g = torch.ones(3)
    for s in (torch.ones(1, 2), torch.ones(1, 3).double(), torch.ones(1, 6)[:, ::2], torch.ones(2, 3), g):
        with pytest.raises(RuntimeError, match="s, y: expected contiguous matrices with rows like g"):
            torch.ops.fastkan.lbfgs_direction(g, s, g[None], [1.0], 0, 1.0)
    for inverse, oldest in (([1.0, 1.0], 0), ([1.0], 1), ([1.0], -1)):
        with pytest.raises(RuntimeError, match="inverse, oldest: expected rows of s and y"):
            torch.ops.fastkan.lbfgs_direction(g, g[None], g[None], inverse, oldest, 1.0)


def test_lbfgs_history_length():
    """As much as does not slow it down; and as many steps then lead further, of a quadratic of 100 parameters say."""
    sizes = [LBFGS([torch.zeros(size)]).history for size in (10, lbfgs.HISTORY_ELEMENTS // 20, lbfgs.HISTORY_ELEMENTS)]
    assert sizes == [lbfgs.MAX_HISTORY, 20, lbfgs.MIN_HISTORY]
    weights, ends = torch.logspace(0, 4, 100, dtype=torch.float64), []
    for history in (10, None):
        parameters = [torch.ones(100, dtype=torch.float64).requires_grad_()]
        optimizer = LBFGS(parameters, history=history)
        for _ in range(8):
            optimizer.step(closure(optimizer, parameters, lambda p: (weights * p[0].square()).sum()))
        ends.append((weights * parameters[0].square()).sum().item())
    print(ends)
    assert ends[1] < ends[0] / 10
