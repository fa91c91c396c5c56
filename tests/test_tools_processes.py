"""Every kind of model on two processes: DistributedDataParallel and fully_shard against one process."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long

START = """
import copy, sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from support.model_kinds import MODELS, check, data, layers, build, perturb

store, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
x, mine = data(), data().chunk(2)[rank]


def rows(layer):
    return torch.randn(100, layer.in_features, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def train(model, whole, steps=2):
    for run, part in (model, mine), (whole, x):
        optimizer = torch.optim.SGD(run.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            run(part).square().mean().backward()
            optimizer.step()
"""

# The second process begins as another model. Grids are changed by the first alone, which sends what it has, and then by
# both with the same data.
REPLICATED = """
from torch.nn.parallel import DistributedDataParallel

for kind in MODELS:
    model = perturb(build(kind), 8 * rank)
    parallel = DistributedDataParallel(model)
    whole = copy.deepcopy(model)
    train(parallel, whole)
    check(parallel, whole)
    if rank == 0:
        for layer in layers(model):
            layer.update_grid(rows(layer))
    for t in (*model.parameters(), *model.buffers()):
        dist.broadcast(t.detach(), 0)
    whole = copy.deepcopy(model)
    train(parallel, whole)
    check(parallel, whole)
    for layer in (*layers(model), *layers(whole)):
        layer.update_grid(rows(layer))
    train(parallel, whole)
    check(parallel, whole)
    check(parallel, model)
dist.destroy_process_group()
"""

# Grids can't be changed, also while FSDP has parameters together for a forward pass: what is written then is lost.
SHARDED = """
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard

whole_state = StateDictOptions(full_state_dict=True)
for kind in MODELS:
    for inner in (False,) if kind == "KANLinear" else (True, False):
        whole = build(kind)
        model = copy.deepcopy(whole)
        for part in (*(layers(model) if inner else ()), model):
            fully_shard(part, mesh=init_device_mesh("cpu", (2,)))
        train(model, whole)
        check(model, whole)
        model(mine).sum().backward()
        model.zero_grad()
        state = get_model_state_dict(model, options=whole_state)
        if rank == 0:
            other = build(kind)
            other.load_state_dict(state)
            check(other, whole)
        other = perturb(copy.deepcopy(whole), 5)
        set_model_state_dict(model, other.state_dict(), options=whole_state)
        check(model, other)  # after which all parameters are together
        for change in lambda layer: layer.update_grid(rows(layer)), lambda layer: layer.extend_grid(7):
            try:
                change(layers(model)[0])
            except RuntimeError as error:
                assert "call update_grid, extend_grid and set_grid before fully_shard" in str(error)
            else:
                raise AssertionError("the grid was changed")
        check(model, other)
dist.destroy_process_group()
"""


@pytest.mark.parametrize("what", [REPLICATED, SHARDED], ids=["replicated", "sharded"])
def test_two_processes_are_one(what, tmp_path, request):
    command = [sys.executable, "-c", START + what, str(tmp_path / "store")]
    ranks = [subprocess.Popen([*command, str(n)], env=_with_path(request.path.parent)) for n in range(2)]
    try:
        assert [process.wait(120) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()


def _with_path(folder) -> dict[str, str]:
    """Environment of a process that can import the modules of the tests."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
