"""Triton compiles a kernel once, not again for each number of rows: a compilation takes seconds. Without a GPU."""

import pytest

from support.triton_process import report_of


@pytest.fixture(scope="module")
def compilations() -> dict[str, int]:
    return report_of("triton_recompiles")


@pytest.mark.parametrize("part", ["again", "batches of 64 to 512", "batches of 101 to 999", "another layer"])
def test_no_other_batch_compiles_a_kernel(compilations, part):
    assert compilations["a layer"] > 0
    assert compilations[part] == 0
