"""The Triton kernels compile for every target within its limits, without float64 or atomics, and use its matrix cores.

Nothing of this needs a GPU. Here a sample of the table that `python -m bench.ahead` makes.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiers import long

pytestmark = pytest.mark.xdist_group("ahead")  # one process makes the table

ROOT = Path(__file__).parent.parent
PRODUCTS = {"kan_out.matrix", "kan_in.matrix", "kan_coef.matrix", "kan_coef.windowed", "edge_moments.grad_coef"}
KERNELS = {*PRODUCTS, "kan_out.gather", "kan_in.gather", "order.order", "edge_moments.moments", "edge_moments.grad_x"}

WITHOUT_FLOAT64 = ("sm_86", "sm_89", "sm_120")  # Triton has no matrix instructions of float64 there


@pytest.fixture(scope="module", params=[20, *long(120)])
def table(request, tmp_path_factory) -> list[dict[str, str]]:
    pytest.importorskip("triton")
    out = tmp_path_factory.mktemp("ahead")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(out)
    command = [sys.executable, "-W", "ignore", "-m", "bench.ahead", "--out", str(out), "--sample", str(request.param)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (out / "ahead.csv").exists(), done.stderr[-3000:]
    with open(out / "ahead.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_kernel_stays_within_the_limits_of_every_target(table):
    from bench.ahead import TARGETS

    assert {row["target"] for row in table} == set(TARGETS)
    assert {row["kernel"] for row in table} <= KERNELS
    if len(table) > 100:
        assert {row["kernel"] for row in table} == KERNELS
    assert [row for row in table if row["faults"]] == []
    for row in table:
        assert (int(row["float64"]) > 0) == (row["kind"] == "fp64"), row


def test_products_use_matrix_instructions(table):
    """On Hopper and Blackwell those of warpgroups and of tensor memory, where tiles are large enough."""
    for row in table:
        if row["kernel"] in PRODUCTS and (row["kind"] != "fp64" or row["target"] not in WITHOUT_FLOAT64):
            assert int(row["matrix_instructions"]) > 0, row
        own = {"sm_90": "wgmma", "sm_100": "tcgen05"}.get(row["target"])
        usual = row["degree"] == "3" and row["with_s"] == "False" and row["family"] == "bspline"
        if (
            own
            and usual
            and row["size"] == "large"
            and row["kernel"].endswith("matrix")
            and row["kind"] in ("bf16", "tf32")
        ):
            assert own in row["instructions"], row


def test_faults_are_found():
    from bench.ahead import TARGETS, faults

    fine = {"target": "sm_89", "kind": "fp32", "shared_bytes": 101_376, "spilled_bytes": 0, "float64": 0, "atomics": 0}
    assert [*faults(fine)] == []
    assert [*faults({**fine, "shared_bytes": 101_377, "spilled_bytes": 100})] == ["shared memory", "spills"]
    assert [*faults({**fine, "float64": 1, "atomics": 1})] == ["float64 arithmetic", "atomics"]
    assert [*faults({**fine, "float64": 1, "kind": "fp64"})] == []
    assert all(TARGETS[gpu].shared == 101_376 for gpu in ("sm_86", "sm_89", "sm_120"))
