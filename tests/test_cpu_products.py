"""Layers in bfloat16 on CPUs with AMX, as products of matrices; other calls and CPUs gather."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from fastkan import KANLinear
from fastkan.backends import native
from fastkan.testing import KNOTS, Problem, assert_matches_reference, call
from support.backends import skip_without
from support.tiers import long

BF16 = torch.bfloat16
CONTRACTIONS = ("kan_out", "kan_in", "kan_coef", "kan_backward")


@pytest.fixture(autouse=True)
def _needs_amx():
    skip_without("amx_bf16")
    if not torch.cpu._init_amx():
        pytest.skip("the system does not allow AMX")


def check(p: Problem, contractions: tuple[str, ...] = CONTRACTIONS) -> None:
    for contraction in contractions:
        assert_matches_reference(native, contraction, p)
        # Products for grad_x take whole cache lines of coef.
        gathers = p.coef.shape[2] % 32 != 0 and contraction in ("kan_in", "kan_backward")
        assert (native.cpu_algorithm() == "matrix") != gathers, contraction


# Rows, inputs and outputs: blocks that are full, and that are not.
SHAPES = [(128, 64, 640), (333, 34, 512), (65, 130, 777)]


@pytest.mark.parametrize("degree", [0, 3, *long(1, 2, 4, 5)])
def test_every_degree_and_type_of_x_matches_the_reference(degree):
    for seed, (outside, knots) in enumerate(product(("zero", "linear", "clamp"), KNOTS)):
        intervals, base = (1, 3, 5, 7)[seed % 4], ("silu", None, "identity")[seed % 3]
        x_dtype = (BF16, torch.float32, torch.float16)[(seed + seed // 3) % 3]
        p = Problem.random(
            *SHAPES[seed % 3], intervals, degree, order=seed % 3, base=base, outside=outside, knots=knots,
            per_input=seed % 2 == 0, weighted=seed % 4 == 0, with_bias=seed % 2 == 0, dtype=BF16, x_dtype=x_dtype,
            seed=seed,
        )  # fmt: skip
        check(p)


@pytest.mark.long
def test_several_blocks_of_rows_are_summed_in_float32():
    p = Problem.random(260, 1650, 96, 4, 5, dtype=BF16)  # blocks of 160 and 100 rows
    check(p, ("kan_backward",))
    y = call(native, "kan_out", p)[0]
    parts = [call(native, "kan_out", replace(p, x=p.x[rows]))[0] for rows in (slice(160), slice(160, 260))]
    assert native.cpu_algorithm() == "matrix"
    torch.testing.assert_close(y, torch.cat(parts), rtol=torch.finfo(BF16).eps, atol=1e-3)  # once rounded differently


def test_most_functions():
    check(Problem.random(70, 60, 1280, 17, dtype=BF16))


def test_nan_and_values_beyond_the_window():
    p = Problem.random(130, 33, 640, 5, dtype=BF16)
    p.x[3, 0], p.x[129, 32] = torch.nan, torch.nan
    check(p)
    y = call(native, "kan_out", p)[0]
    assert torch.equal(y.isnan().all(1).nonzero().flatten(), torch.tensor([3, 129]))
    assert torch.equal(y.isnan().any(1), y.isnan().all(1))
    before = call(native, "kan_in", p)[0]
    p.coef[7, 2, 0] = torch.nan
    after = call(native, "kan_in", p)[0]
    assert native.cpu_algorithm() == "matrix"
    assert 0 < after[:, 7].isnan().sum() < 130  # rows whose window has this function
    others = torch.arange(33) != 7
    assert torch.equal(after[:, others].nan_to_num(0.0), before[:, others].nan_to_num(0.0))


OTHERS = ("float32", "float16", "u_columns", "coef_columns", "bias", "few_outputs", "few_rows", "many_functions")


@pytest.mark.parametrize("change", OTHERS)
def test_other_calls_are_no_products(change):
    dtype = getattr(torch, change) if change.startswith("float") else BF16
    shape = {"few_outputs": (4096, 16, 12), "few_rows": (60, 100, 640)}.get(change, (128, 32, 640))
    intervals = 18 if change == "many_functions" else 5
    p = Problem.random(*shape, intervals, dtype=dtype)
    columns = {"u_columns": "u", "coef_columns": "coef"}
    if change in columns:  # the same values, column by column
        name = columns[change]
        p = replace(p, **{name: getattr(p, name).transpose(-1, -2).contiguous().transpose(-1, -2)})
    if change == "bias":
        p = replace(p, bias=torch.zeros(640))
    taken = {"u_columns": ("kan_out",), "coef_columns": ("kan_coef",), "bias": CONTRACTIONS[1:]}.get(change, ())
    for contraction in CONTRACTIONS:
        assert_matches_reference(native, contraction, p)
        assert (native.cpu_algorithm() == "matrix") == (contraction in taken), contraction


def test_a_layer_and_its_gradients():
    layer = KANLinear(32, 640).to(BF16)
    x = torch.linspace(-1.2, 1.2, 128 * 32).view(128, 32).to(BF16).requires_grad_()
    y = layer(x)
    assert native.cpu_algorithm() == "matrix"
    u = torch.sin(torch.arange(y.numel())).view_as(y).to(BF16)
    grads = torch.autograd.grad(y, [x, layer.coef], u)
    assert native.cpu_algorithm() == "matrix"
    exact = KANLinear(32, 640).double()
    exact.load_state_dict({name: t.double() for name, t in layer.state_dict().items()})
    double = x.detach().double().requires_grad_()
    truth = torch.autograd.grad(exact(double), [double, exact.coef], u.double())
    for got, true in zip(grads, truth, strict=True):
        # bfloat16 has 8 bits: features, G and results are rounded; errors of a sum grow more slowly than its terms.
        assert (got.double() - true).norm() < 3 * torch.finfo(BF16).eps * true.norm()


def test_repeated_calls_are_equal():
    p = Problem.random(2500, 64, 256, 5, dtype=BF16)
    for contraction in CONTRACTIONS:
        assert all(map(torch.equal, call(native, contraction, p), call(native, contraction, p)))
