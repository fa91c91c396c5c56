"""triton:features: the elementwise kernels in Triton's interpreter, and compiled for GPUs that need not be here."""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from fastkan import ops, reference
from fastkan.backends import dense
from fastkan.basis.bspline import OUTSIDE
from fastkan.spec import Spec
from fastkan.testing import CONTRACTIONS, Problem, assert_matches_reference, call
from support.families import FEATURES, drawn
from support.graphs import Graphs
from support.problems import BF16, DOUBLE, EMPTY, FACTORS, SINGLE, empty_problems, label, on_knots, problem_of
from support.strides import QUICK, problems
from support.tiers import long, tiers
from support.triton_process import report_of

SHAPES = ((1, 1, 1), (3, 5, 7), (17, 4, 19), (2, 130, 1))  # less than a program of 128 elements, and more


@pytest.fixture
def features(interpreted):
    from fastkan.backends.triton import features

    return features


def cases() -> list[dict]:
    """Every (degree, order, outside), the other factors at random from a fixed seed."""
    draw = random.Random(4)
    factors = {**FACTORS, "shape": SHAPES, "grid_size": (1, 2, 5, 9)}
    rest = {name: values for name, values in factors.items() if name not in ("degree", "order", "outside")}
    full = itertools.product(*(FACTORS[name] for name in ("degree", "order", "outside")))
    return [
        {"degree": d, "order": k, "outside": o, **{name: draw.choice(values) for name, values in rest.items()}}
        for d, k, o in full
    ]


@pytest.mark.sweep
@pytest.mark.parametrize("case", tiers(cases(), "degree", "outside"), ids=label)
def test_every_contraction_matches_the_reference(features, case):
    for contraction in CONTRACTIONS:
        assert_matches_reference(features, contraction, problem_of(case))


@pytest.mark.parametrize("order", [0, 1, *long(2, 3)])
@pytest.mark.parametrize("family", FEATURES)
def test_other_families_match_the_reference(features, family, order):
    for p, contraction in itertools.product(drawn(family, order, (1, 6), SHAPES[:3]), CONTRACTIONS):
        assert_matches_reference(features, contraction, p)


@pytest.mark.sweep
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", [3, *long(0, 1, 2)])
def test_on_the_knots(features, degree, outside):
    for order, knots in itertools.product({0, degree}, ("promised", "even")):
        for contraction in ("kan_out", "kan_in", "kan_coef"):
            assert_matches_reference(features, contraction, on_knots(degree, order, outside, knots, SINGLE))


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_empty_tensors(features, shape):
    for p, contraction in itertools.product(empty_problems(shape), CONTRACTIONS):
        found, expected = call(features, contraction, p), call(dense, contraction, p)
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("outside", ["linear", *long("zero", "clamp")])
def test_nans_match_the_reference(features, outside):
    for order, knots, contraction in itertools.product((0, 1), ("promised", "uneven"), CONTRACTIONS[:4]):
        p = Problem.random(9, 4, 5, 6, order=order, knots=knots, outside=outside, weighted=True)
        p.x[3, 2] = torch.nan
        for got, expected in zip(call(features, contraction, p), call(reference, contraction, p), strict=True):
            assert got.isnan().any()
            assert torch.equal(got.isnan(), expected.isnan())


@pytest.mark.parametrize("outside", ["zero", *long("clamp")])
def test_infinities_match_the_reference(features, outside):
    for order, knots, contraction in itertools.product((0, 1), ("promised", "uneven"), CONTRACTIONS[:4]):
        p = Problem.random(9, 4, 5, 6, order=order, knots=knots, outside=outside, base=None)
        p.x[3, 2], p.x[5, 1] = torch.inf, -torch.inf
        for got, expected in zip(call(features, contraction, p), call(reference, contraction, p), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("examples", [2, *long(12)])
@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_any_layout(features, contraction, examples):
    @settings(QUICK, max_examples=examples)
    @given(problems(smallest=1, rows=(17,), outputs=(17,)))
    def check(p):
        assert_matches_reference(features, contraction, p)

    check()


def test_rows_in_blocks(features, monkeypatch):
    """The dense backend's blocks: a block of features at a time, the last one shorter."""
    p = Problem.random(23, 3, 5, 5, weighted=True)
    made, kernel = [], torch.ops.fastkan_triton.features
    monkeypatch.setattr(dense, "CPU_BLOCK", 10 * 3 * 8)
    monkeypatch.setattr(dense, "CPU_ROWS", 1)
    monkeypatch.setattr(torch.ops.fastkan_triton, "features", lambda x, *rest: made.append(len(x)) or kernel(x, *rest))
    for contraction in ("kan_out", "kan_coef", "kan_backward"):
        made.clear()
        assert_matches_reference(features, contraction, p)
        assert made == [10, 10, 3]


def test_offsets_of_64_bits(features, monkeypatch):
    from fastkan.backends.triton import launch, launch_features

    monkeypatch.setattr(launch_features, "index_type", lambda *_: launch.tl.int64)
    for contraction in ("kan_out", "kan_backward"):
        launch.made.cache_clear()
        assert_matches_reference(features, contraction, Problem.random(9, 3, 5, 6, weighted=True))
    launch.made.cache_clear()


def test_unsupported_orders_are_errors(features):
    p = Problem.random(3, 2, 2, 3, order=12)
    with pytest.raises(ValueError, match="^order=12: expected 0 to 11$"):
        call(features, "kan_out", p)


@pytest.mark.parametrize("dtype", [SINGLE, BF16], ids=str)
def test_opcheck(features, dtype):
    p = Problem.random(5, 3, 4, 4, weighted=True, dtype=dtype)
    ops, g = torch.ops.fastkan_triton, torch.randn(5, 3 * 7).to(dtype)
    torch.library.opcheck(ops.features.default, (p.x, p.s, p.grid, *p.spec, 0, dtype))
    torch.library.opcheck(ops.slopes.default, (p.x, g, p.grid, *p.spec, 1, dtype))


def test_torch_compile_sees_the_products(features):
    """One graph: the kernels are opaque, the products are PyTorch's."""
    p, graphs = replace(Problem.random(6, 3, 4, 5), s=None), Graphs()

    def run(x, coef, base_weight):
        return features.kan_out(x, None, coef, base_weight, None, p.grid, p.spec, 0)

    compiled = torch.compile(run, backend=graphs.backend, fullgraph=True)
    torch.testing.assert_close(compiled(p.x, p.coef, p.base_weight), run(p.x, p.coef, p.base_weight))
    assert {"fastkan_triton.features.default", "aten.mm.default"} <= set().union(*graphs.operators)


TARGETS = ("sm_90", "gfx942", "sm_75", "sm_80", "sm_86", "sm_89", "sm_100", "sm_120", "gfx90a", "gfx950", "gfx1100")


@pytest.mark.parametrize("arguments", ["sm_90", *long(*(f"--all {target}" for target in TARGETS))])
def test_kernels_compile_for_every_gpu(arguments):
    kernels = report_of("triton_resources", *arguments.split())
    assert {k["kernel"] for k in kernels} == {"features", "slopes"}
    assert len(kernels) >= (40 if "--all" in arguments else 4)
    for k in kernels:
        assert not any(k[what] for what in ("spills", "shared", "barriers", "atomics", "products")), k
        assert k["registers"] <= 128 and k["instructions"] > 50, k
        assert k["float64"] == 0 or "torch.float64" in k["case"], k
    assert "--all" not in arguments or any(k["float64"] for k in kernels)  # what is counted is found where it is


@pytest.mark.parametrize(
    "rows, width, functions, dtype, expected",
    [
        (4096, 1024, 8, BF16, True), (4096, 1024, 8, SINGLE, False), (4096, 1024, 8, DOUBLE, False),
        (256, 64, 8, BF16, False), (4096, 1024, 203, BF16, False), (4096, 16, 8, BF16, False),
    ],
)  # fmt: skip
def test_the_estimate(interpreted, monkeypatch, rows, width, functions, dtype, expected):
    """Features apart where tensor cores would starve: in 16 bits or tf32, for products that are large and wide."""
    from fastkan.backends import triton
    from fastkan.backends.triton import estimate

    spec = Spec.of(3, "silu", "zero", True)
    x, weight = (
        torch.empty(*shape, dtype=dtype, device="meta") for shape in ((rows, width), (width, functions, width))
    )
    grid = torch.empty(width, functions + 4, device="meta")
    assert estimate.apart(x, weight, spec, functions, width) == expected
    monkeypatch.setattr(ops, "allows_tf32", lambda: True)
    large = (rows, width, functions) == (4096, 1024, 8)
    assert estimate.apart(x, weight, spec, functions, width) == (large and dtype != DOUBLE)
    monkeypatch.setattr(triton, "_fused_missing", lambda *_: None)  # as on a GPU, not "meta"
    ran = []
    for contraction, args in {
        "kan_out": (x, None, weight, None, None), "kan_in": (x, x, weight, None), "kan_coef": (x, None, x),
        "kan_backward": (x, None, x, weight, None),
    }.items():  # fmt: skip
        for algorithm in (triton.features, triton.fused):
            monkeypatch.setattr(algorithm, contraction, lambda *_, ran=ran, name=algorithm: ran.append(name))
        getattr(triton, contraction)(*args, grid, spec, 0, *[False] * (contraction == "kan_coef"))
    assert ran == [triton.features if large and dtype != DOUBLE else triton.fused] * 4
