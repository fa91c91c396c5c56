"""Triton compiles a kernel once, not again for each number of rows: a compilation takes seconds. Without a GPU."""

import pytest

from support.triton_process import report_of


@pytest.fixture(scope="module", params=["triton:features", "triton:fused"])
def compilations(request) -> dict[str, int]:
    return report_of("triton_recompiles", request.param)


@pytest.mark.parametrize("part", ["again", "batches of 64 to 512", "batches of 101 to 999", "another layer"])
def test_no_other_batch_compiles_a_kernel(compilations, part):
    assert compilations["a layer"] > 0
    assert compilations[part] == 0


def test_few_kernels_for_layers_of_other_sizes(compilations):
    """One pair for each power of two of a width, and of what divides the number of functions."""
    assert compilations["other grid sizes"] <= 4
    assert compilations["other widths"] <= 2
    assert compilations["any knots"] <= 4
    assert compilations["two layers"] <= 4
