"""Every kind of model on two processes: DistributedDataParallel and fully_shard against one process."""

import pytest

from support.ranks import run

pytestmark = pytest.mark.long

START = """
from support.model_kinds import MODELS, check, data, layers, build, perturb

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
"""

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
        check(model, other)
"""


@pytest.mark.parametrize("what", [REPLICATED, SHARDED], ids=["replicated", "sharded"])
def test_two_processes_are_one(what, tmp_path):
    run(START + what, tmp_path)
