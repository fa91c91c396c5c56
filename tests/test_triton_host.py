"""What the host does for a step of a small layer, counted, not timed: its time is what a fast GPU waits for."""

import pytest

from support.triton_process import report_of

LAUNCHED = {"triton:features": {"features": 2, "slopes": 1}, "triton:fused": {"matrix": 3}}
CALLS = {"triton:features": 185, "triton:fused": 120}  # of Python functions, those of PyTorch included: a few less


@pytest.fixture(scope="module", params=LAUNCHED)
def report(request) -> dict:
    return report_of("triton_host", request.param) | {"backend": request.param}


def test_a_step_searches_no_compiled_kernel(report):
    assert report["launched"] == LAUNCHED[report["backend"]]
    assert report["searches"] == []


def test_a_step_makes_no_plan_and_passes_by_the_dispatcher(report):
    assert report["plans"] == report["operators"] == 0
    assert report["calls"] <= CALLS[report["backend"]]


@pytest.mark.parametrize("what", ["tf32", "gather", "grid", "strides"])
def test_what_a_plan_depends_on_makes_new_ones(report, what):
    assert report["changed"][what] > 0
    assert report["changed"]["nothing"] == 0


def test_a_tensor_on_another_device_is_an_error(report):
    """Kernels get pointers, which Triton does not look at."""
    assert "meta" in report["elsewhere"]
    if report["backend"] == "triton:fused":  # the other one multiplies by torch
        assert report["elsewhere"] == "a tensor is on meta: expected all on cpu, the device of x"
