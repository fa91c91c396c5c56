"""The emulated GPU itself: kernels with mistakes (csrc/testing/emulated/faults.cpp) are found, and named."""

import ctypes

import pytest

from fastkan.testing import Problem, call
from support.emulated import BACKEND, FEW, LIBRARY, processors  # noqa: F401
from support.matrix_product_tests import ALGORITHM
from support.problems import BF16

emulated = ctypes.CDLL(str(LIBRARY))
emulated.fastkan_emulated_fault.restype = ctypes.c_char_p


def fault(kernel: str, blocks: int = 1) -> str:
    return emulated.fastkan_emulated_fault(kernel.encode(), blocks).decode()


@pytest.mark.parametrize(("kernel", "found"), [
    ("skipped_barrier", "1 threads have ended; 63 threads wait at __syncthreads"),
    ("lonely_named_barrier", "32 threads have ended; 32 threads wait at named barrier 3 for 64 threads"),
    ("forgotten_arrival",
     "64 threads wait at the mbarrier at shared memory 128 for the end of a phase of parity 0"),
    ("endless_polling", "64 threads poll for ever, at last at ballot"),
])  # fmt: skip
def test_a_hang_is_an_error_that_names_the_barrier(kernel, found):
    assert fault(kernel) == f"a hang in block 0; {found}"


def test_a_kernel_without_mistakes_has_no_fault():
    assert fault("right_copies", 20) == ""


def test_a_warp_that_disagrees_is_an_error():
    found = fault("different_operations")
    assert found in ("a warp is at ballot and at syncwarp", "a warp is at syncwarp and at ballot")


def test_a_product_of_memory_that_nobody_wrote_is_an_error():
    assert fault("unwritten_operand").startswith("a product takes numbers that nobody wrote (block 0")


@pytest.mark.parametrize("kernel", ["copy_not_waited_for", "stage_overwritten_early"])
def test_copies_arrive_early_and_late(kernel):
    """So that one block of several goes wrong, whichever is the mistake."""
    assert fault(kernel, 20) == "wrong numbers"


@pytest.mark.parametrize("contraction", ["kan_out", "kan_backward"])
def test_copies_of_the_next_stages_are_in_flight(monkeypatch, processors, contraction):  # noqa: F811
    """As many as the ring buffer has room for beside the one that is multiplied."""
    monkeypatch.setenv(ALGORITHM, "matrix")
    processors(FEW)
    emulated.fastkan_emulated_copies_in_flight()
    call(BACKEND, contraction, Problem.random(300, 80, 80, 5, knots="promised", dtype=BF16))
    assert emulated.fastkan_emulated_copies_in_flight() == 1
