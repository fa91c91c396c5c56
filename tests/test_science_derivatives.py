"""batch_jacobian and batch_hessian against torch.func, pykan and finite differences."""

import pytest
import torch

from fastkan import KAN, KANLinear
from fastkan.science import batch_hessian, batch_jacobian

CLOSE = {"rtol": 1e-11, "atol": 1e-12}
MODELS = {
    "KAN": lambda: KAN([3, [2, 2], 1], grid=4, seed=2).double(),
    "symbolic": lambda: symbolic(),
    "KANLinear": lambda: KANLinear(3, 1, spline_order=4, outside="linear", dtype=torch.float64),
    "MLP": lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double(),
    "function": lambda: lambda x: torch.exp(x[:, [0]] * x[:, [1]]) * torch.sin(x[:, [2]]),
}


def symbolic() -> KAN:
    model = KAN([3, 2, 1], seed=4).double()
    model.fix_symbolic(0, 0, 1, "sin", fit_params_bool=False, verbose=False)
    model.fix_symbolic(1, 1, 0, "exp", fit_params_bool=False, verbose=False)
    return model


def points(*shape: int) -> torch.Tensor:
    return 1.6 * torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.8


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(1)
    return MODELS[request.param]()


def test_every_row_alone(model):
    """By torch.func, a row at a time."""
    x = points(7, 3)
    one = [lambda row: model(row[None])[0, 0]] * 2
    jacobian = torch.stack([torch.func.jacrev(one[0])(row) for row in x])
    hessian = torch.stack([torch.func.hessian(one[1])(row) for row in x])
    torch.testing.assert_close(batch_jacobian(model, x), jacobian, **CLOSE)
    torch.testing.assert_close(batch_hessian(model, x), hessian, **CLOSE)
    assert hessian.abs().max() > 1e-3


@pytest.mark.parametrize("name", ["scalar", "vector"])
def test_as_pykan(model, name):
    theirs = pytest.importorskip("kan.utils", reason="pykan is not installed", exc_type=ImportError)
    x = points(9, 3)
    torch.testing.assert_close(batch_jacobian(model, x, mode=name), theirs.batch_jacobian(model, x, mode=name), **CLOSE)
    torch.testing.assert_close(batch_hessian(model, x), theirs.batch_hessian(model, x), **CLOSE)


def test_a_model_of_pykan():
    kan = pytest.importorskip("kan", reason="pykan is not installed", exc_type=ImportError)
    with torch.random.fork_rng(devices=[]):
        model, x = kan.KAN([3, [2, 1], 1], auto_save=False).double(), points(9, 3)
    torch.testing.assert_close(batch_jacobian(model, x), kan.batch_jacobian(model, x), **CLOSE)
    torch.testing.assert_close(batch_hessian(model, x), kan.batch_hessian(model, x), **CLOSE)


def test_several_outputs():
    model, x = KAN([2, 3, 4], seed=3).double(), points(5, 2)
    jacobian, hessian = batch_jacobian(model, x, mode="vector"), batch_hessian(model, x, mode="vector")
    assert jacobian.shape == (5, 4, 2) and hessian.shape == (5, 4, 2, 2)
    for m in range(4):
        one = lambda x, m=m: model(x)[:, [m]]  # noqa: E731
        torch.testing.assert_close(jacobian[:, m], batch_jacobian(one, x), **CLOSE)
        torch.testing.assert_close(hessian[:, m], batch_hessian(one, x), **CLOSE)


def test_any_number_of_dimensions(model):
    if not isinstance(model, torch.nn.Module):
        return
    x = points(2, 3, 3)
    torch.testing.assert_close(
        batch_jacobian(model, x), batch_jacobian(model, x.reshape(6, 3)).reshape(2, 3, 3), **CLOSE
    )
    torch.testing.assert_close(batch_hessian(model, x[0, 0]), batch_hessian(model, x.reshape(6, 3))[0], **CLOSE)
    assert batch_hessian(model, x[:0]).shape == (0, 3, 3, 3)


def test_labels_without_a_column():
    x = points(4, 2)
    torch.testing.assert_close(batch_jacobian(lambda x: x[:, 0] * x[:, 1], x), x.flip(1))


def test_a_pde_loss_trains():
    """u_xx and u_yy inside a loss, differentiated by the parameters: against finite differences of the loss."""
    model, x = KAN([2, 2, 1], seed=3).double(), points(6, 2)
    weight = model.act_fun[0].linear.coef

    def loss():
        return batch_hessian(model, x, create_graph=True).diagonal(dim1=1, dim2=2).sum(1).square().mean()

    loss().backward()
    grad, step = weight.grad[0, 2, 1].item(), 1e-5
    with torch.no_grad():
        weight[0, 2, 1] += step
        above = loss().item()
        weight[0, 2, 1] -= 2 * step
        below = loss().item()
    assert grad == pytest.approx((above - below) / (2 * step), rel=1e-5) and abs(grad) > 1e-3


def test_create_graph_reaches_x():
    x = points(5, 2).requires_grad_()
    cube = lambda x: (x**3).sum(1, keepdim=True)  # noqa: E731
    hessian = batch_hessian(cube, x, create_graph=True)
    (third,) = torch.autograd.grad(hessian.sum(), x)
    torch.testing.assert_close(third, torch.full_like(x, 6.0))
    assert not batch_hessian(cube, x).requires_grad and not batch_jacobian(cube, x).requires_grad


def test_gradients_and_flags_are_unchanged():
    model, x = KAN([2, 2, 1]).double(), points(5, 2)
    batch_hessian(model, x)
    assert x.grad is None and not x.requires_grad and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off(context):
    model = KAN([2, 2, 1], seed=3).double()
    expected = batch_hessian(model, points(5, 2))
    with context():
        found = batch_hessian(model, points(5, 2))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "func", [lambda x: torch.ones(len(x), 1), lambda x: x[:, :1] * 2 + 1, lambda x: torch.zeros(len(x), 1) * x[:, :1]]
)
def test_constant_and_linear_functions(func):
    assert batch_hessian(func, points(4, 3).float()).shape == (4, 3, 3)
    assert not batch_hessian(func, points(4, 3).float()).any()


def test_a_constant_among_the_outputs():
    x = points(4, 2)
    found = batch_hessian(lambda x: torch.stack([x[:, 0] ** 2, torch.ones(4)], 1), x, mode="vector")
    assert (found[:, 0, 0, 0] == 2).all() and not found[:, 1].any()


@pytest.mark.parametrize("fun", [batch_jacobian, batch_hessian])
@pytest.mark.parametrize(
    ("error", "match", "func", "x", "options"),
    [
        (ValueError, r"func has 2 outputs: expected one in mode='scalar'", lambda x: x, points(3, 2), {}),
        (
            ValueError,
            r"mode='matrix': expected one of 'scalar', 'vector'",
            lambda x: x,
            points(3, 2),
            {"mode": "matrix"},
        ),
        (ValueError, r"func\(x\) has shape \[2\]: expected \[\*\[3\], m\]", lambda x: x.sum(0), points(3, 2), {}),
        (ValueError, r"func\(x\) has a float: expected", lambda x: 1.0, points(3, 2), {}),
        (TypeError, r"x is a list: expected a tensor", lambda x: x, [1.0], {}),
        (TypeError, r"x has dtype torch.int64: expected a floating-point dtype", lambda x: x, torch.arange(4), {}),
        (ValueError, r"x has shape \[\]: expected \[..., n\]", lambda x: x, torch.tensor(1.0), {}),
    ],
)
def test_errors(fun, error, match, func, x, options):
    with pytest.raises(error, match=match):
        fun(func, x, **options)
