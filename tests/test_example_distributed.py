"""examples/distributed.py: processes train as one does; its counts are what a step sends and computes."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastkan import KANLinear
from support.ranks import run
from support.tiers import long

PATH = Path(__file__).parents[1] / "examples" / "distributed.py"
spec = importlib.util.spec_from_file_location("example_distributed", PATH)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)

# The collectives of a step of two layers, as `sent` counts them; in both the gradient by x is taken.
COLLECTIVES = """
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from fastkan import KANLinear

mesh = init_device_mesh("cpu", (world,))
layers = torch.nn.Sequential(KANLinear(6, 6), KANLinear(6, 6))
tensor = parallelize_module(copy.deepcopy(layers), mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})
for layer in layers:
    fully_shard(layer, mesh=mesh)
x = torch.linspace(-1, 1, 60).view(10, 6).requires_grad_()
sharded = fully_shard(layers, mesh=mesh)
for model, expected in (tensor, {"all_reduce": 2}), (sharded, {"allgather": 4, "reduce_scatter": 2}):
    with CommDebugMode() as debug:
        model(x).square().sum().backward()
    found = {str(name): number for name, number in debug.get_comm_counts().items() if number}
    for name, number in expected.items():
        assert sum(n for of, n in found.items() if name in of) == number, (name, found)
    assert sum(found.values()) == sum(expected.values()), found
"""


@pytest.mark.parametrize("count", [2, *long(4)])
def test_processes_are_one(count):
    """Printed differences are those of sums in another order, far below 1e-6."""
    path = os.pathsep.join([str(PATH.parents[1]), *sys.path])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), str(PATH)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split(": ") for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == ["DistributedDataParallel", "fully_shard", "tensor parallel"]
    assert all(float(rest.split()[0]) < 1e-10 for _, rest in lines)


def test_collectives(tmp_path):
    run(COLLECTIVES, tmp_path)


def test_operations_and_parameters():
    from torch.utils.flop_counter import FlopCounterMode

    rows, inputs, outputs, grid_size, degree = 11, 7, 3, 4, 2
    layer = KANLinear(inputs, outputs, grid_size, degree)
    x = torch.zeros(rows, inputs, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == example.flops(rows, inputs, outputs, degree)
    assert sum(p.numel() for p in layer.parameters()) == example.parameters(inputs, outputs, grid_size, degree)


def test_the_table(capsys):
    """The page has it; and times are equal at the rows, and the width, that the page's formulas give."""
    example.count(20e12, 50e9)
    page = Path(__file__).parents[1] / "docs" / "how-to" / "distributed.md"
    assert capsys.readouterr().out in page.read_text()
    processes, speed, bandwidth = 8, 20e12, 50e9
    rows = round(4 / 3 * (processes - 1) / processes * 9 / 5 * speed / bandwidth)
    for kind, factor in ("replicated", 1), ("sharded", 1.5):
        sent = example.sent(kind, rows, 1024, processes) / bandwidth
        assert sent / (example.computed(kind, rows, 1024, processes) / speed) == pytest.approx(factor)
    width = round(4 / 3 * (processes - 1) / 5 * speed / bandwidth)
    sent = example.sent("tensor", 100, width, processes) / bandwidth
    assert sent / (example.computed("tensor", 100, width, processes) / speed) == pytest.approx(1, rel=1 / width)
