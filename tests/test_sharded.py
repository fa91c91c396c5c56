"""Layers with parameters sharded over processes (FSDP, tensor parallelism) against whole layers."""

import subprocess
import sys

import pytest
import torch

from support.ranks import run
from support.tiers import long

PROCESS = """
from torch.distributed.fsdp import fully_shard
from fastkan import KANLinear

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
"""


# Forward and gradients on two processes and on one: layers cut by outputs and by inputs, by plans of torch's styles, in
# sizes that two divides and does not, and by rows, as plain DTensors.
PARALLEL = """
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from fastkan import KANLinear
from fastkan.nn import KANSequential

mesh = init_device_mesh("cpu", (2,))


def same(model, whole, *lead):
    results = []
    for run in model, whole:
        x = torch.linspace(-1.2, 1.2, 60).view(*lead, 6).sin().requires_grad_()
        y = run(x)
        y.square().sum().backward()
        grads = [p.grad.full_tensor() if run is model else p.grad for p in run.parameters()]
        results.append([y.detach(), x.grad, *grads])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


class Rows(torch.nn.Sequential):
    def forward(self, x):
        x = DTensor.from_local(x, mesh, [Replicate()]).redistribute(placements=[Shard(0)])
        return super().forward(x).full_tensor()


torch.manual_seed(0)
whole_x, whole_y = {"input_layouts": Replicate()}, {"output_layouts": Replicate()}
for options in (
    {}, {"bias": True, "enable_standalone_scale_spline": True}, {"base_activation": torch.tanh, "bias": True},
    {"base_activation": None, "backend": "reference", "bias": True},
):
    for kind in torch.nn.Sequential, KANSequential:
        whole = kind(KANLinear(6, 8, **options), KANLinear(8, 3, **options))
        plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
        model = parallelize_module(copy.deepcopy(whole), mesh, plan)
        assert model[0].coef.to_local().shape == (6, 8, 4) and model[1].coef.to_local().shape == (4, 8, 3)
        model.load_state_dict(model.state_dict())
        same(model, whole, 10)
        same(model, whole, 2, 5)
    whole = torch.nn.Sequential(KANLinear(6, 5, **options), KANLinear(5, 3, **options))
    plan = {"0": ColwiseParallel(**whole_y), "1": RowwiseParallel(**whole_x)}
    same(parallelize_module(copy.deepcopy(whole), mesh, plan), whole, 10)
    whole = KANSequential(KANLinear(6, 4, **options), KANLinear(4, 3, **options))
    same(Rows(distribute_module(copy.deepcopy(whole), mesh)), whole, 10)

for backend in "native", "reference":
    whole = KANLinear(6, 4, backend=backend)
    model, x = copy.deepcopy(whole), torch.linspace(-1, 1, 60).view(10, 6)
    parallelize_module(model, mesh, ColwiseParallel())
    penalties = model.regularization(DTensor.from_local(x, mesh, [Replicate()])), whole.regularization(x)
    for penalty in penalties:
        penalty.backward()
    torch.testing.assert_close(penalties[0].full_tensor(), penalties[1])
    torch.testing.assert_close(model.coef.grad.full_tensor(), whole.coef.grad)
"""


def test_sharded_parameters_train_as_whole_ones_do(tmp_path):
    run(PROCESS, tmp_path)


@pytest.mark.long
def test_parallel_layers_are_whole_ones(tmp_path):
    run(PARALLEL, tmp_path)


def test_torchs_styles_refuse_what_they_refused():
    from torch.distributed.tensor.parallel import ColwiseParallel

    with pytest.raises(NotImplementedError, match="nn.Linear"):
        ColwiseParallel()._apply(torch.nn.LayerNorm(3), None)


@pytest.mark.parametrize(
    "part",
    ["torch.distributed.fsdp", *long("torch.distributed.tensor.parallel", "torch._dynamo", "torch.utils.flop_counter")],
)
def test_additions_to_torch_are_lazy(part):
    """In either order of the imports, and not before."""
    ours = "fastkan.flops" if "flop" in part else "fastkan.sharding"
    for first, second in ("fastkan", part), (part, "fastkan"):
        asked = f"print({ours!r} in sys.modules)"
        code = f"import sys, {first}; {asked}; import {second}; {asked}"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert result.stdout.split() == ["False", "True"]
