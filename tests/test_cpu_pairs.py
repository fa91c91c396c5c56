"""Layers in bfloat16 on CPUs with AVX512-BF16, by multiply-adds of pairs; other calls and CPUs gather in float32."""

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
def _needs_pairs():
    skip_without("avx512_bf16")


def check(p: Problem, contractions: tuple[str, ...] = CONTRACTIONS) -> None:
    for contraction in contractions:
        assert_matches_reference(native, contraction, p)
        assert native.cpu_algorithm() == "pairs", contraction


# Rows, inputs and outputs: whole blocks and vectors; odd numbers; several chunks of outputs; more rows than are sorted
# at a time.
SHAPES = [(256, 32, 64), (333, 9, 23), (150, 17, 300), (1100, 19, 41)]


@pytest.mark.parametrize("degree", [3, *long(1, 5)])
def test_every_kind_of_spline_and_type_of_x_matches_the_reference(degree):
    for seed, (outside, knots) in enumerate(product(("zero", "linear", "clamp"), KNOTS)):
        base = ("silu", None, "identity")[seed % 3]
        p = Problem.random(
            *SHAPES[seed % 4], (1, 3, 5, 7)[seed % 4], degree, order=seed % 3, base=base,
            outside=outside, knots=knots, per_input=seed % 2 == 0, weighted=seed % 4 == 0, with_bias=seed % 2 == 0,
            dtype=BF16, x_dtype=(BF16, torch.float32, torch.float16)[(seed + seed // 3) % 3], seed=seed,
        )  # fmt: skip
        check(p)


def test_many_functions():
    check(Problem.random(500, 20, 48, 45, dtype=BF16))


@pytest.mark.parametrize("threads", [1, 3])
def test_few_rows_split_the_outputs_over_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(Problem.random(8, 400, 777, 5, dtype=BF16), ("kan_out",))
    finally:
        torch.set_num_threads(before)


def test_rows_of_other_tensors():
    """Operands whose rows do not follow one another: parts of wider tensors."""
    p = Problem.random(200, 16, 64, 5, dtype=BF16)
    wide = {name: torch.cat([getattr(p, name)] * 2, -1) for name in ("coef", "base_weight", "u")}
    check(replace(p, **{name: tensor[..., :64] for name, tensor in wide.items()}))


def test_nan_and_values_beyond_the_window():
    p = Problem.random(200, 33, 70, 5, dtype=BF16)
    p.x[3, 0], p.x[199, 32] = torch.nan, torch.nan
    check(p)
    y = call(native, "kan_out", p)[0]
    assert torch.equal(y.isnan().all(1).nonzero().flatten(), torch.tensor([3, 199]))
    assert torch.equal(y.isnan().any(1), y.isnan().all(1))
    before = {name: call(native, name, p)[0] for name in ("kan_out", "kan_in")}
    p.coef[7, 2, 0] = torch.inf
    others = torch.arange(33) != 7
    y, grad_x = (call(native, name, p)[0] for name in ("kan_out", "kan_in"))
    assert native.cpu_algorithm() == "pairs"
    assert torch.equal(y[:, 1:].nan_to_num(0.0), before["kan_out"][:, 1:].nan_to_num(0.0))
    assert 2 < (~y[:, 0].isfinite()).sum() < 200  # rows whose window has this function
    assert 0 < (~grad_x[:, 7].isfinite()).sum() < 200
    assert torch.equal(grad_x[:, others].nan_to_num(0.0), before["kan_in"][:, others].nan_to_num(0.0))


def test_an_infinite_gradient_reaches_the_functions_of_its_row_alone():
    p = Problem.random(200, 12, 64, 5, dtype=BF16)
    before = call(native, "kan_coef", p)[0]
    p.u[5, 3] = torch.inf
    after = call(native, "kan_coef", p)[0]
    assert native.cpu_algorithm() == "pairs"
    changed = after != before
    assert changed[..., 3].any(1).all() and not changed[..., :3].any() and not changed[..., 4:].any()
    assert (changed[..., 3].sum(1) <= 4).all()


OTHERS = ("float32", "float16", "degree 2", "columns of coef", "few rows", "few outputs")


@pytest.mark.parametrize("change", OTHERS)
def test_other_calls_gather(change):
    shape = {"few rows": (4, 16, 64), "few outputs": (200, 16, 5)}.get(change, (200, 16, 64))
    dtype = getattr(torch, change) if change.startswith("float") else BF16
    p = Problem.random(*shape, 5, 2 if change == "degree 2" else 3, dtype=dtype)
    if change == "columns of coef":
        p = replace(p, coef=p.coef.transpose(-1, -2).contiguous().transpose(-1, -2))
    taken = ("kan_coef",) if change == "columns of coef" else ()
    for contraction in CONTRACTIONS:
        assert_matches_reference(native, contraction, p)
        assert native.cpu_algorithm() == ("pairs" if contraction in taken else "gather"), contraction


def test_a_layer_and_its_gradients():
    layer = KANLinear(32, 96).to(BF16)
    x = torch.linspace(-1.2, 1.2, 256 * 32).view(256, 32).to(BF16).requires_grad_()
    y = layer(x)
    u = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(BF16)
    grads = torch.autograd.grad(y, [x, layer.coef, layer.base_weight], u)
    assert native.cpu_algorithm() == "pairs"
    exact = KANLinear(32, 96).double()
    exact.load_state_dict({name: t.double() for name, t in layer.state_dict().items()})
    double = x.detach().double().requires_grad_()
    truth = torch.autograd.grad(exact(double), [double, exact.coef, exact.base_weight], u.double())
    for got, true in zip(grads, truth, strict=True):
        # bfloat16 has 8 bits: features and results are rounded, independently of each other.
        assert (got.double() - true).norm() < torch.finfo(BF16).eps * true.norm()


def test_results_depend_neither_on_the_call_nor_on_the_number_of_threads():
    p = Problem.random(2500, 40, 256, 5, dtype=BF16)
    before = torch.get_num_threads()
    for contraction in CONTRACTIONS:
        first = call(native, contraction, p)
        try:
            torch.set_num_threads(1)
            assert all(map(torch.equal, first, call(native, contraction, p)))
        finally:
            torch.set_num_threads(before)
        assert all(map(torch.equal, first, call(native, contraction, p)))
