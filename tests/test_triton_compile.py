"""Every Triton kernel in every shipped configuration compiles for each architecture, spills nothing and uses its matrix
cores. Nothing of this needs a GPU."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("ahead")]  # one process makes the table

ROOT = Path(__file__).parent.parent
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
NO_PRODUCTS = {"kan_out.gather", "order.order", "edge_moments.moments"}
PRODUCTS = {"kan_out.matrix", "kan_backward.backward", "edge_moments.backward"}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> list[dict[str, str]]:
    pytest.importorskip("triton")
    out = tmp_path_factory.mktemp("ahead")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-m", "bench.ahead", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(out / "ahead.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_without_spilling(table, target):
    rows = [row for row in table if row["target"] == target]
    assert {row["kernel"] for row in rows} == NO_PRODUCTS | PRODUCTS
    assert {row["operands"] for row in rows} == {"bf16", "fp16", "tf32", "fp32", "fp64"}
    for row in rows:
        assert int(row["spills"]) == 0, row
        if row["kernel"] not in NO_PRODUCTS:
            assert int(row["matrix_instructions"]) > 0, row


def test_hopper_and_blackwell_use_their_own_matrix_instructions(table):
    """Warpgroup and tensor-memory instructions for tiles that are large enough, not the older ones."""
    for row in table:
        instruction = {"sm_90": "wgmma", "sm_100": "tcgen05"}.get(row["target"])
        large = row["shape"] == "large" and row["kernel"] in ("kan_out.matrix", "kan_backward.backward")
        if instruction and large and row["operands"] != "fp64":
            assert instruction in row["instructions"], row


def test_every_shipped_configuration_is_in_the_table(table):
    from fastkan.backends.triton import plan

    assert set(plan.OUT) == set(plan.BACKWARD) == set(TARGETS)
    for target in TARGETS:
        for kernel, tiles in (("kan_out.matrix", plan.OUT), ("kan_backward.backward", plan.BACKWARD)):
            compiled = {row["tiles"] for row in table if row["target"] == target and row["kernel"] == kernel}
            for t in tiles[target].values():
                blocks = " ".join(f"{k}={v}" for k, v in t.blocks.items() if len(k) <= 2)
                assert blocks in compiled, (target, kernel, blocks)
