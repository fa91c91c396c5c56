"""Layers whose parameters are spread over processes (FSDP) train as whole ones do."""

import subprocess
import sys

PROCESS = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from fastkan import KANLinear

store, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
x = torch.linspace(-1, 1, 60).view(10, 6).sin()
results = []
for sharded in True, False:
    torch.manual_seed(0)
    model = torch.nn.Sequential(KANLinear(6, 8), KANLinear(8, 3, enable_standalone_scale_spline=True))
    if sharded:
        for part in *model, model:
            fully_shard(part, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    results.append(model(x))
    assert sharded == hasattr(model[0].coef, "to_local")
torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)
dist.destroy_process_group()
"""


def test_sharded_parameters_train_as_whole_ones_do(tmp_path):
    ranks = [subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path / "store"), str(n)]) for n in range(2)]
    try:
        assert [process.wait(120) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
