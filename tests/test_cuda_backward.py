"""The backward by matrix products on the emulated GPU: the usual case, warpgroups of sm_90, and how work is split."""

import ctypes
import heapq
import itertools
from typing import NamedTuple

import pytest

from fastkan.testing import Problem
from support.emulated import BACKEND, FEW, LIBRARY, MAJOR, MANY, PROCESSORS, algorithm
from support.matrix_product_tests import (  # noqa: F401
    ALGORITHM,
    Products,
    test_infinities_match_the_reference,
    test_nans_match_the_reference,
    test_on_the_knots,
    test_repeats_bit_for_bit,
)
from support.problems import BF16, HALF, SINGLE
from test_cuda_wide import KINDS

emulated = ctypes.CDLL(str(LIBRARY))
emulated.fastkan_emulated_warpgroup_products.restype = ctypes.c_int64
each_gradient = pytest.mark.parametrize("contraction", ["kan_in", "kan_coef", "kan_backward"])


@pytest.fixture
def products(monkeypatch) -> Products:
    monkeypatch.setenv(ALGORITHM, "matrix")
    monkeypatch.setenv(MAJOR, "9")
    return Products(BACKEND, "cpu", algorithm, processors=lambda n: monkeypatch.setenv(PROCESSORS, str(n)))


def usual(contraction: str, shape: tuple[int, int, int], grid_size: int, degree: int, x_dtype, dtype, base) -> Problem:
    how = {"knots": "promised", "base": base, "dtype": dtype, "x_dtype": x_dtype}
    return Problem.random(*shape, grid_size, degree, order=int(contraction == "kan_in"), **how)


# Less than a tile; parts of tiles in all directions; several warpgroups side by side; many rows, so that sums are split
SHAPES = [(1, 1, 8), (140, 23, 136), (260, 16, 264), (700, 9, 64)]


@each_gradient
@pytest.mark.parametrize("major", [8, 9])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_usual_case(products, monkeypatch, contraction, major, shape):
    """Shared knots, zero outside, no s: kernels of their own, with warpgroups on sm_90."""
    monkeypatch.setenv(MAJOR, str(major))
    emulated.fastkan_emulated_warpgroup_products()
    kinds = [(BF16, BF16), (HALF, HALF), (SINGLE, BF16), (SINGLE, HALF)]
    for k, (grid_size, degree) in enumerate(itertools.product((5, 9, 30), (2, 3))):
        products.processors((FEW, MANY)[k % 2])
        p = usual(contraction, shape, grid_size, degree, *kinds[k % 4], ("silu", None)[k % 3 == 0])
        products.check(contraction, p)
    ran = emulated.fastkan_emulated_warpgroup_products()
    assert ran == 0 if major == 8 else ran > 0 or shape[2] <= 64  # for few outputs small tiles may take less


@each_gradient
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_usual_case_in_tf32(monkeypatch, contraction, shape):
    monkeypatch.setenv(ALGORITHM, "matrix")
    for k, (grid_size, degree) in enumerate(itertools.product((5, 9), (2, 3))):
        monkeypatch.setenv(PROCESSORS, str((FEW, MANY)[k % 2]))
        p = usual(contraction, shape, grid_size, degree, SINGLE, SINGLE, ("silu", None)[k % 3 == 0])
        KINDS["tf32"].check(contraction, p)


class Plan(NamedTuple):
    """Blocks of coefficients and their cycles, of x and theirs; splits; cycles in all; blocks per multiprocessor."""

    coef_blocks: int
    coef_block: int
    x_blocks: int
    x_block: int
    splits: int
    cycles: int
    together: int


def plan(shape: tuple[int, int, int], with_x: bool, with_coef: bool, tiles: int, processors: int) -> Plan:
    found = (ctypes.c_int64 * 7)()
    sizes = map(ctypes.c_int64, shape)
    emulated.fastkan_emulated_backward_plan(*sizes, with_x, with_coef, tiles, processors, found)
    return Plan(*found)


PLANNED = [
    (16384, 256, 256), (65536, 64, 64), (4096, 1024, 1024), (8192, 512, 64), (8192, 64, 512), (100000, 128, 512),
    (1 << 20, 8, 64), (2048, 2048, 2048),
]  # fmt: skip


@pytest.mark.parametrize(("processors", "tiles"), [(56, 128), (108, 128), (170, 128), (114, 256), (132, 256)])
@pytest.mark.parametrize("shape", PLANNED, ids=str)
def test_longest_block(shape, processors, tiles):
    """At most 1.3 times what each block slot of a GPU has to do; and so is the time until the last block has ended.

    Tiles of x are not split, and to split coefficients further takes longer than to wait for the last ones.
    """
    for with_x, with_coef in (True, True), (False, True), (True, False):
        p = min((plan(shape, with_x, with_coef, size, processors) for size in (64, tiles)), key=lambda p: p.cycles)
        slots = [0] * (processors * p.together)
        work = [p.coef_block] * p.coef_blocks + [p.x_block] * p.x_blocks
        balanced = sum(work) / len(slots)
        assert max(work) <= 1.3 * balanced
        for block in work:
            heapq.heapreplace(slots, slots[0] + block)
        assert max(slots) <= max((1.3 if with_x else 1.5) * balanced, balanced + p.x_block)


@pytest.mark.parametrize("tiles", [64, 128, 256])
def test_a_tile_has_at_most_2_to_the_30_rows(tiles):
    """Also where partial sums take more than the workspace that other splits may have."""
    found = plan((1 << 31, 64, 1 << 16), False, True, tiles, 132)
    assert found.splits == 2 and found.coef_blocks > 0


@pytest.mark.parametrize("tiles", [64, 128, 256])
def test_work_of_a_plan(tiles):
    """Twice the rows are twice the blocks, or twice the work of each."""
    for with_x, with_coef in (True, False), (False, True), (True, True):
        one, two = (plan((rows, 128, 128), with_x, with_coef, tiles, 132) for rows in (1 << 15, 1 << 16))
        work = [p.coef_blocks * p.coef_block + p.x_blocks * p.x_block for p in (one, two)]
        assert work[1] / work[0] == pytest.approx(2, rel=0.1)
        assert one.coef_blocks == 0 if not with_coef else one.coef_blocks % one.splits == 0
