"""The Triton kernels in Triton's interpreter: every contraction by both algorithms against the reference.

The interpreter runs one program after the other in NumPy: shapes are small here. What it cannot show, races, compiled
arithmetic and speed, is for tests/test_gpu_*.py.
"""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch.autograd import gradcheck

from fastkan import ops, select
from fastkan.basis.bspline import OUTSIDE
from fastkan.functional import edge_mean
from fastkan.testing import CONTRACTIONS, KNOTS, Problem, assert_matches_reference, call
from support.calculus import arguments, derivatives, layer, plain
from support.graphs import Graphs, forward_and_backward
from support.problems import (
    BF16,
    DOUBLE,
    EMPTY,
    FACTORS,
    HALF,
    SINGLE,
    empty_problems,
    label,
    on_knots,
    operator_arguments,
    problem_of,
)
from support.strides import QUICK, problems
from support.tiers import long, tiers


@pytest.fixture
def triton(interpreted):
    return select.BACKENDS["triton"]


@pytest.fixture
def plan(triton, monkeypatch):
    """The tables of the backend, its sorted chunks short enough for the interpreter; no plan outlives a test."""
    from fastkan.backends.triton import launch, plan

    monkeypatch.setattr(plan, "CHUNK", 32)
    launch.made.cache_clear()
    yield plan
    launch.made.cache_clear()


@pytest.fixture(params=[False, True], ids=["matrix", "gather"])
def algorithm(request, plan, monkeypatch) -> bool:
    monkeypatch.setattr(plan, "gather", request.param)
    return request.param


@pytest.fixture
def launches(triton, monkeypatch) -> list[tuple[str, dict]]:
    """Launched kernels and their compile-time constants."""
    from fastkan.backends.triton import launch

    seen, original = [], launch.direct.run

    def record(launch, *tensors):
        function = launch.kernel.fn
        seen.append((f"{function.__module__.rpartition('.')[2]}.{function.__name__}", launch.constants))
        original(launch, *tensors)

    monkeypatch.setattr(launch.direct, "run", record)
    return seen


SHAPES = ((1, 1, 1), (3, 5, 7), (17, 4, 19), (35, 2, 6))  # less than a tile of 16, and more


def cases() -> list[dict]:
    """Every (degree, order, outside), other factors and the algorithm at random from a fixed seed."""
    draw = random.Random(3)
    factors = {
        **FACTORS, "shape": SHAPES, "grid_size": (1, 2, 5, 9),
        "gather": (False, True),
    }  # fmt: skip
    rest = {name: values for name, values in factors.items() if name not in ("degree", "order", "outside")}
    full = itertools.product(*(FACTORS[name] for name in ("degree", "order", "outside")))
    return [
        {"degree": d, "order": k, "outside": o, **{name: draw.choice(values) for name, values in rest.items()}}
        for d, k, o in full
    ]


def name_of(case: dict) -> str:
    return f"{'gather' if case['gather'] else 'matrix'}-{label(case)}"


@pytest.mark.parametrize("case", tiers(cases(), "degree", "outside"), ids=name_of)
def test_every_contraction_matches_the_reference(triton, plan, monkeypatch, case):
    case = dict(case)
    monkeypatch.setattr(plan, "gather", case.pop("gather"))
    p = problem_of(case)
    for contraction in CONTRACTIONS:
        assert_matches_reference(triton, contraction, p)


@pytest.mark.sweep
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [3, *long(0, 1)])
def test_on_the_knots(triton, algorithm, degree, outside):
    for order, knots in itertools.product({0, degree}, ("promised", "even")):
        for contraction in ("kan_out", "kan_in", "kan_coef"):
            assert_matches_reference(triton, contraction, on_knots(degree, order, outside, knots, SINGLE))


@pytest.mark.sweep
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [2, *long(0, 3)])
def test_on_repeated_knots(triton, algorithm, degree, outside):
    for order in {0, degree}:
        p = Problem.random(20, 3, 5, 6, degree, order=order, outside=outside, knots="uneven", dtype=DOUBLE)
        grid = p.grid.clone()
        grid[:, degree + 2] = grid[:, degree + 3]
        grid[:, :degree], grid[:, grid.shape[1] - degree :] = grid[:, degree, None], grid[:, -degree - 1, None]
        x = torch.cat([p.x, grid[:, degree : grid.shape[1] - degree].T])
        p = replace(p, grid=grid, x=x, u=torch.randn(len(x), 5, dtype=DOUBLE))
        for contraction in ("kan_out", "kan_backward"):
            assert_matches_reference(triton, contraction, p)


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_empty_tensors(triton, shape):
    for p, contraction in itertools.product(empty_problems(shape), CONTRACTIONS):
        found, expected = call(triton, contraction, p), call(select.BACKENDS["reference"], contraction, p)
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("outside", ["linear", *long("zero", "clamp")])
def test_nans_match_the_reference(triton, algorithm, outside):
    for order, knots, contraction in itertools.product((0, 1), ("promised", "uneven"), CONTRACTIONS):
        p = Problem.random(9, 4, 5, 6, order=order, knots=knots, outside=outside, weighted=True)
        p.x[3, 2] = torch.nan
        results = call(triton, contraction, p), call(select.BACKENDS["reference"], contraction, p)
        for got, expected in zip(*results, strict=True):
            assert got.isnan().any()
            if contraction == "edge_backward" and got.dim() == 3:  # dense: 0 times the NaN of the sign
                got, expected = got[:, : p.spec.degree + 1], expected[:, : p.spec.degree + 1]
            assert torch.equal(got.isnan(), expected.isnan())


@pytest.mark.parametrize("outside", long("clamp", "zero"))
def test_infinities_match_the_reference(triton, algorithm, outside):
    for order, knots, contraction in itertools.product((0, 1), ("promised", "uneven"), CONTRACTIONS):
        p = Problem.random(9, 4, 5, 6, order=order, knots=knots, outside=outside, base=None)
        p.x[3, 2], p.x[5, 1] = torch.inf, -torch.inf
        results = call(triton, contraction, p), call(select.BACKENDS["reference"], contraction, p)
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("examples", [2, *long(12)])
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_any_layout(triton, plan, monkeypatch, contraction, examples):
    @settings(QUICK, max_examples=examples)
    @given(problems(smallest=1, rows=(17,), outputs=(17,)))
    def check(p):
        monkeypatch.setattr(plan, "gather", p.order % 2 == 0)
        assert_matches_reference(triton, contraction, p)

    check()


@pytest.mark.parametrize("gather", [False, True], ids=["matrix", "gather"])
@pytest.mark.parametrize("splits", [3, *long(1, 2, 7)])
def test_row_splits_are_summed_in_order(triton, plan, monkeypatch, launches, splits, gather):
    """Any number of splits, also with few rows in the last one; bitwise repeatable."""
    monkeypatch.setattr(plan, "gather", gather)
    monkeypatch.setattr(plan, "splits", lambda device, programs, steps: splits)
    p = Problem.random(70, 2, 3, 4, weighted=True)
    for contraction in ("kan_coef", "kan_backward", "edge_moments"):
        assert_matches_reference(triton, contraction, p)
        assert all(map(torch.equal, call(triton, contraction, p), call(triton, contraction, p)))
    assert {"kan_coef.matrix", "edge_moments.moments"} <= {name for name, _ in launches}


def test_launches_of_every_contraction(triton, plan, launches):
    p = Problem.random(40, 3, 5, 5)
    for contraction, gather, kernels in (
        ("kan_out", False, ["kan_out.matrix"]), ("kan_out", True, ["kan_out.gather"]),
        ("kan_in", False, ["kan_in.matrix"]), ("kan_in", True, ["kan_in.gather"]),
        ("kan_coef", False, ["kan_coef.matrix"]),
        ("kan_coef", True, ["order.order", "kan_coef.windowed", "kan_coef.matrix"]),
        ("kan_backward", False, ["kan_in.matrix", "kan_coef.matrix"]),
        ("kan_backward", True, ["kan_in.gather", "order.order", "kan_coef.windowed", "kan_coef.matrix"]),
        ("edge_moments", None, ["edge_moments.moments"]),
        ("edge_backward", None, ["edge_moments.grad_x", "edge_moments.grad_coef"]),
    ):  # fmt: skip
        launches.clear()
        plan.gather = gather
        call(triton, contraction, p)
        plan.gather = None
        assert [name for name, _ in launches] == kernels, contraction


def test_offsets_past_two_to_the_31(triton, plan, monkeypatch, launches):
    """The type of the indices by the tensors' reach; and all kernels with the wide one."""
    from fastkan.backends.triton import launch

    near = launch.Layout(SINGLE, (2**31 - 1,), (0,))
    assert launch.index_type(near, None) == launch.tl.int32
    for shape, stride in (((2, 2), (2**31, 1)), ((2**16, 2**15), (2**15, 1)), ((2**16, 2**15), ())):
        assert launch.index_type(near, launch.Layout(SINGLE, shape, stride)) == launch.tl.int64
    monkeypatch.setattr(launch, "index_type", lambda *tensors: launch.tl.int64)
    p = Problem.random(40, 3, 5, 5, weighted=True)
    for gather, contraction in itertools.product((False, True), CONTRACTIONS):
        monkeypatch.setattr(plan, "gather", gather)
        assert_matches_reference(triton, contraction, p)
    assert {constants["INDEX"] for _, constants in launches} == {launch.tl.int64}


def test_the_choice_of_algorithm(triton, plan, launches):
    """By the number of functions, with the bounds of the table for each operand type; always on any knots."""
    from fastkan.backends.triton.launch import BSPLINE

    spec = Problem.random(2, 2, 2, 5, knots="promised").spec
    for operand, ratio in plan.GATHER_FROM.items():
        boundary = int(ratio * (spec.degree + 2)) - 1
        assert not plan.gathers(BSPLINE, spec, boundary, operand)
        assert plan.gathers(BSPLINE, spec, boundary + 1, operand)
        assert plan.gathers(BSPLINE, spec._replace(uniform=False), 1, operand)
    assert not plan.gathers(BSPLINE._replace(window=None), spec, 10**6, DOUBLE)


def test_float32_follows_torchs_switch_where_the_gpu_has_tf32(plan, monkeypatch):
    gpus = ("sm_75", "sm_80", "sm_120", "gfx90a", "gfx942", "gfx950", "gfx1100")
    found = [plan.precision(SINGLE, gpu) for gpu in gpus]
    assert found == ["ieee", "tf32x3", "tf32x3", "ieee", "ieee", "ieee", "ieee"]
    monkeypatch.setattr(ops, "allows_tf32", lambda: True)  # test_select.py has the ways to say so
    assert [plan.precision(SINGLE, gpu) for gpu in gpus] == ["ieee", "tf32", "tf32", "ieee", "tf32", "ieee", "ieee"]
    assert {plan.precision(BF16, gpu) for gpu in gpus} == {"ieee"}


@pytest.mark.parametrize("contraction", ["kan_out", *long("kan_backward")])
def test_tuning_tries_a_few_tiles_and_all_of_them_are_right(triton, plan, monkeypatch, contraction):
    from fastkan.backends.triton import launch

    tried = []

    def bench(call, quantiles):
        call()
        tried.append(1)
        return [float(len(tried))] * 3

    autotune = launch.triton.autotune
    monkeypatch.setattr(launch.triton, "autotune", lambda *args, **options: autotune(*args, do_bench=bench, **options))
    monkeypatch.setattr(plan, "tune", True)
    monkeypatch.setattr(plan, "splits", lambda processors, programs, steps: 2)
    launch._tuner.cache_clear()
    for rows in (70, 100):  # one bucket
        assert_matches_reference(triton, contraction, Problem.random(rows, 33, 40, 3, knots="promised"))
    assert 2 < len(tried) <= 7 * (2 if contraction == "kan_backward" else 1)
    launch._tuner.cache_clear()


def test_every_shape_has_tiles(plan):
    """Of powers of two from 16, which do not depend on the rows but for a choice of two."""
    kinds = itertools.product(("out", "in", "coef"), ("sm_80", "sm_90", "sm_100", "gfx942"), (BF16, SINGLE, DOUBLE))
    for (kernel, gpu, operand), size in itertools.product(kinds, (1, 40, 5000)):
        found = {plan.matrix(kernel, gpu, 132, operand, True, rows, size, size) for rows in (1, 17, 100, 1000, 10**6)}
        assert 1 <= len(found) <= 2
        extents = [extent for tiles in found for extent in tiles.blocks.values()]
        assert all(extent >= 16 and extent & (extent - 1) == 0 for extent in extents)
        assert len({plan.matrix(kernel, gpu, 132, operand, False, rows, size, size) for rows in (1, 10**6)}) == 1
    assert plan.splits(8, 1, 1) == 1 and plan.splits(8, 10**6, 100) == 1
    assert plan.splits(8, 1, 100) == 16


@pytest.mark.parametrize("knots", ["promised", *long("uneven")])
def test_three_orders_match_autograd(triton, algorithm, knots, monkeypatch):
    p = Problem.random(3, 2, 2, 3, 3, dtype=DOUBLE, knots=knots)
    tensors = arguments(p)
    monkeypatch.setattr(select.BACKENDS["reference"], "features", None)  # nothing may leave the kernels
    found = derivatives(layer(p, tensors, "triton"), tensors, 3)
    monkeypatch.undo()
    expected = derivatives(plain(p, tensors), tensors, 3)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8 * float(want.abs().max() + 1))


def test_gradcheck_with_tangents(triton, algorithm):
    p = Problem.random(2, 2, 1, 2, dtype=DOUBLE)
    tensors = arguments(p)
    run = layer(p, tensors, "triton")
    assert gradcheck(run, tuple(tensors.values()), fast_mode=True)
    x, rest = p.x, [t.detach() for t in list(tensors.values())[1:]]
    for transform in (torch.func.jacfwd, lambda f: torch.func.vmap(torch.func.hessian(lambda v: f(v[None]).sum()))):
        found = transform(lambda v: run(v, *rest))(x)
        expected = transform(lambda v: plain(p, tensors)(v, *rest))(x)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_edge_mean_gradients(triton, algorithm):
    p = Problem.random(7, 2, 2, 3, dtype=DOUBLE)
    leaves = [t.clone().requires_grad_() for t in (p.x, p.coef, p.base_weight)]
    run = lambda x, coef, base: edge_mean(x, coef, p.grid, base, degree=3, backend="triton")  # noqa: E731
    assert gradcheck(run, leaves, fast_mode=True)


def test_compiles_in_one_graph_each_way(triton, plan):
    torch._dynamo.reset()
    p = Problem.random(6, 3, 4, 5, dtype=DOUBLE)
    tensors, graphs = list(arguments(p).values()), Graphs()
    run = layer(p, arguments(p), "triton")
    compiled = torch.compile(run, fullgraph=True, backend=graphs.backend)
    for got, want in zip(forward_and_backward(compiled, tensors), forward_and_backward(run, tensors), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    fused = [{name for name in names if name.startswith("fastkan")} for names in graphs.operators]
    assert fused == [{"fastkan_triton.kan_out.default"}, {"fastkan_triton.kan_backward.default"}]
    torch._dynamo.reset()


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_opcheck(triton, plan, contraction):
    op = getattr(torch.ops.fastkan_triton, contraction).default
    torch.library.opcheck(op, operator_arguments(contraction, Problem.random(5, 3, 4, 4, weighted=True)))


def test_unsupported_orders_are_errors(triton):
    p = Problem.random(3, 2, 2, 3, order=12)
    with pytest.raises(ValueError, match="^order=12: expected 0 to 11$"):
        call(triton, "kan_out", p)


def test_reasons_for_a_missing_backend(triton, monkeypatch):
    assert triton.missing("cpu", (SINGLE,)) is None
    assert triton.missing("cpu", (torch.int32,)) == "no Triton kernels for torch.int32"
    with monkeypatch.context() as patch:
        patch.setattr(triton, "WITH_KERNELS", ("bspline",))
        assert triton.missing("cpu", (SINGLE,), 1) == "no Triton kernels for family 'rbf'"
    assert triton.missing("mps", (SINGLE,)) == "no Triton kernels for device 'mps'"
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "only in its interpreter" in triton.missing("cpu", (SINGLE,))
    monkeypatch.setattr(triton, "_INSTALLED", False)
    assert triton.missing("cuda", (SINGLE,)) == "triton is not installed"


def test_gpus_that_the_fused_kernels_refuse(triton, monkeypatch):
    assert triton.fused.missing("cpu", (SINGLE,)) is None
    assert triton.fused.missing("cpu", (torch.int32,)) == "no Triton kernels for torch.int32"
    for gpu, dtype, words in (
        ("sm_90", BF16, None), ("gfx942", BF16, None), ("sm_120", HALF, None), ("", BF16, None),
        ("sm_75", HALF, "sm_75: expected sm_80 or later"),
        ("gfx1100", SINGLE, "gfx1100: expected wavefronts of 64 (gfx9)"),
    ):  # fmt: skip
        monkeypatch.setattr(triton, "_current", lambda gpu=gpu: gpu)
        reason = triton.fused.missing("cuda", (dtype,))
        assert reason == (words and f"no fused Triton kernels for {words}")


def test_all_factors_are_drawn():
    drawn = cases()
    for name in ("shape", "grid_size", "dtypes", "knots", "base", "gather"):
        assert len({str(case[name]) for case in drawn}) > 1
    assert {case["knots"] for case in drawn} == set(KNOTS)
