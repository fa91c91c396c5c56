"""A stack of layers as one operator against layer by layer, in every derivative, without leaving the fused kernels."""

import itertools

import pytest
import torch
from torch import func
from torch.autograd import gradcheck, gradgradcheck

from fastkan import functional, stack
from fastkan.backends import native as kernels
from fastkan.spec import Spec
from fastkan.stack import MAX_LAYERS, MAX_TANGENTS, Layer, layered, stack_out
from support.problems import DOUBLE
from support.stacks import burgers, layers, leaves, nested, rows, smooth, weights

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
pytestmark = pytest.mark.usefixtures("native")

OPS = torch.ops.fastkan


def assert_all_close(found, expected, **tolerance) -> None:
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, **(tolerance or CLOSE))


# The operators

WIDTHS = [(1, 1, 1), (2, 5, 1), (4, 3, 7, 2), (3, 17, 9, 33, 1), (2,) * (MAX_LAYERS + 1)]


@pytest.mark.parametrize("tangents", range(MAX_TANGENTS + 1))
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_operators_match_the_reference(widths, tangents):
    """Derivatives by the tangents and their gradients, for drawn layers and rows that fill blocks or do not."""
    for seed, number in enumerate((1, 37, 300)):
        made = leaves(layers(widths, seed + 10 * tangents))
        x, *along = (rows(number, widths[0], k).requires_grad_() for k in range(tangents + 1))
        expected = layered(x, along, made, "reference")
        u = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        by = [x, *along, *weights(made)]
        grads = torch.autograd.grad(expected, by, u, allow_unused=True, materialize_grads=True)
        parts, grids, specs = stack.parts(made)
        with torch.no_grad():
            found = OPS.stack_out(x, along, parts, grids, specs)
            found_grads = OPS.stack_backward(x, along, u, parts, grids, specs, True, True, True)
        size = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * size)
        for got, want in zip(found_grads, grads, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10 * max(1.0, want.abs().max().item()))


@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=3)), ids=str)
def test_requested_gradients(wanted):
    made = layers((3, 4, 2))
    parts, grids, specs = stack.parts(made)
    x, *along = (rows(20, 3, k) for k in range(3))
    u = rows(20, 2)
    every = OPS.stack_backward(x, along, u, parts, grids, specs, True, True, True)
    asked = [wanted[0]] * 1 + [wanted[1]] * 2 + [wanted[2]] * len(weights(made))
    found = OPS.stack_backward(x, along, u, parts, grids, specs, *wanted)
    assert_all_close(found, [g for g, want in zip(every, asked, strict=True) if want])


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_equal_to_layer_by_layer(dtype):
    """The same sums of the same kernels, but for blocks of rows: off by their roundings."""
    made = leaves(layers((4, 10, 10, 1), dtype=dtype, degree=3))
    x = rows(1000, 4, dtype=dtype).requires_grad_()

    def run(f):
        y = f()
        return [y, *torch.autograd.grad(y.square().sum(), [x, *weights(made)])]

    fused, apart = run(lambda: stack_out(x, made, "native")), run(lambda: layered(x, (), made, "native"))
    epsilon = torch.finfo(dtype).eps
    for got, want in zip(fused, apart, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1000**0.5 * 30 * epsilon * want.abs().max().item())


def test_repeats_bit_for_bit_at_any_number_of_threads(threads):
    made = layers((4, 10, 10, 1), dtype=torch.float32)
    parts, grids, specs = stack.parts(made)
    x, u, v = rows(3000, 4, dtype=torch.float32), rows(3000, 1, dtype=torch.float32), rows(3000, 4, dtype=torch.float32)
    results = []
    for count in (1, 2, 3):
        threads(count)
        y = OPS.stack_out(x, [v], parts, grids, specs)
        results.append([y, *OPS.stack_backward(x, [v], u, parts, grids, specs, True, True, True)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("tangents", [0, 2])
def test_opcheck(tangents):
    made = layers((3, 4, 2), degree=3)
    parts, grids, specs = stack.parts(made)
    x, *along = (rows(5, 3, k) for k in range(tangents + 1))
    torch.library.opcheck(OPS.stack_out.default, (x, along, parts, grids, specs))
    for wanted in ((True, True, True), (False, False, True)):
        args = (x, along, rows(5, 2), parts, grids, specs, *wanted)
        torch.library.opcheck(OPS.stack_backward.default, args)


def test_any_strides():
    made = leaves(smooth((3, 4, 2)))
    strided = [
        Layer(m.coef.detach().permute(2, 1, 0).contiguous().permute(2, 1, 0), m.scale.detach().T.contiguous().T,
              m.base_weight.detach().T.contiguous().T, m.bias.detach().repeat_interleave(2)[::2], m.grid, m.spec)
        for m in made
    ]  # fmt: skip
    strided = leaves_of(strided)
    x = rows(30, 3)
    wide = torch.randn(30, 9, dtype=DOUBLE)
    wide[:, ::3] = x
    for given in (x.T.contiguous().T, wide[:, ::3]):
        given = given.detach().requires_grad_()
        got, want = ([y, *torch.autograd.grad(y.sum(), [t, *weights(m)])]
                     for y, t, m in ((stack_out(given, strided, "native"), given, strided),
                                     (layered(given, (), made, "reference"), given, made)))  # fmt: skip
        assert_all_close(got, want)


def leaves_of(made: list[Layer]) -> list[Layer]:
    return [Layer(*(None if t is None else t.requires_grad_() for t in m[:4]), m.grid, m.spec) for m in made]


def test_no_rows():
    made = leaves(smooth())
    x = torch.empty(0, 3, dtype=DOUBLE, requires_grad=True)
    y = stack_out(x, made, "native")
    grads = torch.autograd.grad(y.sum(), [x, *weights(made)])
    assert y.shape == (0, 2) and all(not g.any() for g in grads)


def test_a_nan_shows_in_its_row_and_in_every_sum():
    made = leaves(smooth((3, 4, 2)))
    x = rows(10, 3)
    x[4, 1] = torch.nan
    x.requires_grad_()
    y = stack_out(x, made, "native")
    grads = torch.autograd.grad(y.sum(), [x, *weights(made)])
    assert y.isnan().any(1).tolist() == [n == 4 for n in range(10)] == grads[0].isnan().any(1).tolist()
    apart = torch.autograd.grad(layered(x, (), made, "native").sum(), [x, *weights(made)])
    for got, want in zip(grads, apart, strict=True):
        torch.testing.assert_close(got, want, **CLOSE, equal_nan=True)


# The calculus


@pytest.fixture
def calls(monkeypatch):
    """How often each operator ran on the native backend."""
    counted = dict.fromkeys(("stack_out", "stack_backward", "kan_out", "kan_in", "kan_coef", "kan_backward"), 0)

    def counting(name):
        operator = getattr(kernels, name)

        def call(*args):
            counted[name] += 1
            return operator(*args)

        return call

    for name in counted:
        monkeypatch.setattr(kernels, name, counting(name))
    return counted


def ran_layer_by_layer(calls) -> int:
    return sum(n for name, n in calls.items() if name.startswith("kan"))


def test_gradcheck():
    made = leaves(smooth())
    x = rows(5, 3).requires_grad_()
    shapes = [tuple(t is not None for t in m[:4]) for m in made]

    def run(x, *flat):
        values = iter(flat)
        own = [[next(values) if there else None for there in shape] for shape in shapes]
        return stack_out(x, [Layer(*o, m.grid, m.spec) for o, m in zip(own, made, strict=True)], "native")

    values = (x, *weights(made))
    assert gradcheck(run, values, check_batched_grad=True, check_forward_ad=True)
    assert gradgradcheck(run, values, check_batched_grad=True)


@pytest.mark.parametrize("by_weights", [False, True], ids=["derivatives by x", "by the weights too"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("widths", [(2, 5, 1), (3, 4, 3, 2)], ids=str)
def test_derivatives_of_every_order(widths, depth, by_weights, calls):
    made = leaves(smooth(widths))
    x = rows(20, widths[0]).requires_grad_()
    found = nested(lambda x: stack_out(x, made, "native"), x, weights(made), depth, by_weights)
    if depth == 1 or not by_weights:  # by x only up to MAX_TANGENTS = 3 tangents
        assert (ran_layer_by_layer(calls) == 0) == (depth <= MAX_TANGENTS + 1)
    expected = nested(lambda x: layered(x, (), made, "reference"), x, weights(made), depth, by_weights)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10 * max(1.0, want.abs().max().item()))


def test_a_loss_of_second_derivatives_stays_fused(calls):
    made = leaves(smooth((2, 6, 1)))
    x = rows(50, 2).requires_grad_()
    found = torch.autograd.grad(burgers(lambda x: stack_out(x, made, "native"), x), [x, *weights(made)])
    assert calls["stack_backward"] and not ran_layer_by_layer(calls)
    expected = torch.autograd.grad(burgers(lambda x: layered(x, (), made, "reference"), x), [x, *weights(made)])
    assert_all_close(found, expected)


def test_only_some_of_the_arguments_require_gradients():
    for frozen in range(5):
        made = leaves(smooth((3, 4, 2)))
        x = rows(8, 3).requires_grad_(frozen != 4)
        for m in made:
            if frozen < 4:
                m[frozen].requires_grad_(False)
        by = [t for t in (x, *weights(made)) if t.requires_grad]
        got, want = (
            torch.autograd.grad(f(x).square().sum(), by)
            for f in (lambda x, m=made: stack_out(x, m, "native"), lambda x, m=made: layered(x, (), m, "reference"))
        )
        assert_all_close(got, want)


def test_a_weight_that_depends_on_x_is_differentiated_once():
    """Derivatives are partial: if weights and x depend on the same tensor, nothing is counted twice."""
    made = smooth((2, 3, 1))
    a = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)

    def run(f):
        m = [made[0]._replace(coef=made[0].coef * a), *made[1:]]
        x = rows(9, 2) * a
        (g,) = torch.autograd.grad(f(x, m).sum(), x, create_graph=True)
        (h,) = torch.autograd.grad(g.square().sum(), a, create_graph=True)
        return h, *torch.autograd.grad(h, a)

    assert_all_close(run(lambda x, m: stack_out(x, m, "native")), run(lambda x, m: layered(x, (), m, "reference")))


def test_saves_only_x_and_the_weights():
    made = leaves(smooth((3, 10, 10, 2)))
    x = rows(64, 3).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        stack_out(x, made, "native")
    known = {t.data_ptr() for t in (x, *weights(made), *(m.grid for m in made))}
    assert kept and {t.data_ptr() for t in kept} <= known


def test_weight_changed_before_the_backward_is_an_error():
    made = leaves(smooth())
    y = stack_out(rows(4, 3), made, "native")
    with torch.no_grad():
        made[0].coef.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_transforms():
    made = smooth((3, 4, 2))
    x, v = rows(6, 3), rows(6, 3, 1)

    def fused(x):
        return stack_out(x, made, "native")

    def apart(x):
        return layered(x, (), made, "reference")

    def each(f):
        one = lambda x: f(x[None])[0]  # noqa: E731
        return [
            func.grad(lambda x: f(x).square().sum())(x), func.jvp(f, (x,), (v,))[1], func.jacrev(f)(x),
            func.jacfwd(f)(x), func.vmap(func.hessian(one))(x), func.vmap(one)(x),
            torch.autograd.functional.jacobian(f, x, vectorize=True),
            torch.autograd.functional.hessian(lambda x: f(x).square().sum(), x, vectorize=True),
        ]  # fmt: skip

    assert_all_close(each(fused), each(apart))


# Errors


def test_errors():
    made = layers((3, 4, 2), degree=2, base="silu", with_bias=True)
    made = [m._replace(scale=torch.ones_like(m.base_weight)) for m in made]
    x, u = rows(5, 3), rows(5, 2)
    (parts, grids, specs), cpu = stack.parts(made), OPS.stack_out

    def changed(at: int, t):
        return [*parts[:at], t, *parts[at + 1 :]]

    cases = {
        "x has 1 dimensions: expected 2": lambda: cpu(x[0], [], parts, grids, specs),
        "grids has 0 layers: expected 1 to 8": lambda: cpu(x, [], [], [], []),
        "grids has 9 layers: expected 1 to 8": lambda: cpu(x, [], parts, grids[:1] * 9, specs),
        "weights has 7 entries: expected 4 for each of 2 layers": lambda: cpu(x, [], parts[1:], grids, specs),
        "specs has 9 entries: expected 5 for each of 2 layers": lambda: cpu(x, [], parts, grids, specs[1:]),
        "tangents has 4 entries: expected at most 3": lambda: cpu(x, [x] * 4, parts, grids, specs),
        r"tangents has shape \[5, 2\]: expected \[5, 3\]": lambda: cpu(x, [u], parts, grids, specs),
        "tangents has another dtype than x": lambda: cpu(x, [x.float()], parts, grids, specs),
        "x has a dtype of 16 bits": lambda: cpu(x.half(), [], parts, grids, specs),
        r"layer 1: .*coef is missing": lambda: cpu(x, [], changed(4, None), grids, specs),
        r"layer 1: .*coef is for 2 inputs and 2 outputs: expected 4 inputs": lambda: cpu(
            x, [], changed(4, parts[4][:2]), grids, specs
        ),
        r"layer 0: .*coef has another dtype than x: expected the same": lambda: cpu(
            x, [], changed(0, parts[0].float()), grids, specs
        ),
        r"layer 0: .*scale has shape \[2, 4\]: expected \[3, 4\]": lambda: cpu(
            x, [], changed(1, parts[1][:2]), grids, specs
        ),
        r"layer 1: .*base_weight has shape \[1, 2\]: expected \[4, 2\]": lambda: cpu(
            x, [], changed(6, parts[6][:1]), grids, specs
        ),
        r"layer 1: .*bias has shape \[1\]: expected \[2\]": lambda: cpu(x, [], changed(7, parts[7][:1]), grids, specs),
        r"layer 1: .*grid has 2 dimensions or another dtype": lambda: cpu(
            x, [], parts, [grids[0], grids[1].float()], specs
        ),
        r"layer 0: .*degree=6: expected 0 to 5": lambda: cpu(x, [], parts, grids, [6, *specs[1:]]),
        r"layer 1: .*family=1: expected 0, since stacks are of B-splines": lambda: cpu(
            x, [], parts, grids, [*specs[:-1], 1]
        ),
        r"u has shape \[5, 3\]: expected \[5, 2\]": lambda: OPS.stack_backward(
            x, [], x, parts, grids, specs, True, True, True
        ),
    }  # fmt: skip
    for message, call in cases.items():
        with pytest.raises(RuntimeError, match=message):
            call()


# functional.apply_stack


def test_leading_dimensions(calls):
    made = layers((3, 4, 2))
    x = rows(24, 3)
    expected = functional.apply_stack(x, made, None)
    for lead in ((), (24,), (2, 12), (2, 3, 4)):
        got = functional.apply_stack(x.view(*lead, -1, 3) if lead else x[0], made, None)
        torch.testing.assert_close(got.reshape(-1, 2), expected if lead else expected[:1])
    assert functional.apply_stack(x[:0].view(2, 0, 3), made, None).shape == (2, 0, 2)
    assert not ran_layer_by_layer(calls)


def test_calls_that_are_not_fused(calls, monkeypatch):
    made, x = layers((3, 4, 2)), rows(6, 3)
    cases = {
        "one layer": (x, made[:1], None),
        "too many layers": (x, layers((3, *[2] * 9)), None),
        "another backend": (x, made, "reference"),
        "16 bits": (x.bfloat16(), layers((3, 4, 2), dtype=torch.bfloat16), None),
        "x of another dtype": (x.float(), made, None),
        "many coefficients": (x, layers((3, 300, 300), degree=3), None),
        "many rows": (rows(400_000, 3), layers((3, 12, 2), degree=3), None),
        "Gaussians": (
            x,
            [m._replace(spec=Spec.of(0, "silu", "zero", True, "rbf")) for m in layers((3, 4, 2), degree=0)],
            None,
        ),
    }
    for name, (given, of, backend) in cases.items():
        calls.update(dict.fromkeys(calls, 0))
        functional.apply_stack(given, of, backend)
        assert not calls["stack_out"], name
    with torch.autocast("cpu", torch.bfloat16):
        assert functional.apply_stack(x.float(), layers((3, 4, 2), dtype=torch.float32), None).dtype == torch.bfloat16
    assert not calls["stack_out"]
