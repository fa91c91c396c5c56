"""Grids, refinement and checkpoints of models in several processes against one process."""

import pytest
import torch

from fastkan import KANLinear
from fastkan.nn.data_sample import SAMPLE_ROWS, Sample
from support.ranks import run
from support.tiers import long

# Every process has rows of its own, of another number; one has none. One process with all rows is the reference.
GRIDS = """
from torch.distributed import group
from support.model_kinds import MODELS, build

every = torch.randn(70, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) + 0.3
parts = every.tensor_split([20, 50])
mine = parts[rank] if rank < 3 else parts[0][:0]
if world == 2:
    mine = torch.cat(parts[1:]) if rank else parts[0]

for kind in MODELS:
    model, whole = build(kind), build(kind)
    batches = {"x": mine} if hasattr(model, "width") else {"x": iter([mine[:7], (mine[7:],)])}
    if kind == "KANSequential":
        model, whole, batches = model[0], whole[0], batches | {"margin": 0.1, "inwards": 0.5}
    whole.update_grid(every, **{name: v for name, v in batches.items() if name != "x"})
    model.update_grid(**batches, process_group=group.WORLD)
    for found, expected in zip(model.state_dict().values(), whole.state_dict().values(), strict=True):
        if isinstance(found, torch.Tensor):  # the same numbers, up to rounding of the layers before
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    if kind == "KANLinear":
        assert torch.equal(model.grid, whole.grid) and torch.equal(model.coef, whole.coef)
    for t in model.state_dict().values():
        if isinstance(t, torch.Tensor):  # bitwise the same in all processes
            first = t.clone()
            dist.broadcast(first, 0)
            assert torch.equal(first, t)

# One process alone neither waits nor changes what the others have.
alone = build("KANLinear")
if rank == 0:
    alone.update_grid(mine)
else:
    assert torch.equal(alone.grid, build("KANLinear").grid)

# An error in one process is an error in all, which leaves their models.
for kind in "KANLinear", "KAN":
    model = build(kind)
    for wrong in torch.full((3, 5), torch.nan, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64):
        try:
            model.update_grid(wrong if rank == 1 else mine, process_group=group.WORLD)
        except (ValueError, RuntimeError) as error:
            assert ("x " if rank == 1 else "processes [1] of process_group raised") in str(error), error
        else:
            raise AssertionError("no error")
    for found, expected in zip(model.parameters(), build(kind).parameters(), strict=True):
        assert torch.equal(found, expected)
try:
    alone.update_grid(mine[:0], process_group=group.WORLD)
except ValueError as error:
    assert "x is empty" in str(error)
else:
    raise AssertionError("no error")
"""

# Under fully_shard the rows of all processes count by default; the function and its training go on as in one process.
SHARDED = """
import itertools
from torch.distributed.fsdp import fully_shard
from fastkan import KAN
from support.model_kinds import CLOSE, MODELS, build, check, layers

every = torch.randn(24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) + 0.3
mine = every.chunk(world)[rank]


def train(model, whole):
    for run, part in (model, mine), (whole, every):
        optimizer = torch.optim.SGD(run.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            run(part).square().mean().backward()
            optimizer.step()


def same(model, whole):
    check(model, whole, every)
    model.reshard()  # or its parameters would be gathered ones, since no backward pass follows


def shard(model, inner):
    for part in (*(layers(model) if inner else ()), model):
        fully_shard(part, mesh=init_device_mesh("cpu", (world,)))
    return model


def message(call, *args, **options):
    try:
        call(*args, **options)
    except (RuntimeError, ValueError, TypeError) as error:
        return str(error)
    raise AssertionError("no error")


for kind, inner in itertools.product(MODELS, (False, True)):
    if kind == "KANLinear" and inner:
        continue
    whole = build(kind)
    model = shard(build(kind), inner)
    train(model, whole)
    if isinstance(whole, KAN):
        model.update_grid(mine)
        whole.update_grid(every)
    else:
        for layer, other in zip(layers(model), layers(whole), strict=True):
            rows = torch.randn(24, layer.in_features, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
            layer.update_grid(rows.chunk(world)[rank])
            other.update_grid(rows)
    assert all(hasattr(p, "full_tensor") for p in model.parameters())
    same(model, whole)
    train(model, whole)
    same(model, whole)

    model(mine)  # after which parameters may be together
    model(mine).sum().backward()
    model.zero_grad()
    layer = layers(model)[0]
    assert "fully_shard does not allow: expected the same number" in message(layer.extend_grid, 7)
    if not inner:
        model(mine)
        if not hasattr(layer.coef, "full_tensor"):
            assert "expected a backward pass before, or reshard()" in message(layer.update_grid, mine[:, :1])
    same(model, whole)
    if isinstance(whole, KAN):
        fine, expected = model.refine(8), whole.refine(8)
        assert type(fine) is KAN and fine.grid == 8 and type(model.gathered()) is KAN
        for found, of in zip(fine.state_dict().values(), expected.state_dict().values(), strict=True):
            if isinstance(of, torch.Tensor):
                torch.testing.assert_close(found, of, **CLOSE)
        assert [p.requires_grad for p in fine.parameters()] == [p.requires_grad for p in expected.parameters()]
        check(model.gathered(), whole, every)
        assert "expected model.gathered().save(path)" in message(model.save, store + ".pt")
        fine = shard(fine, inner)
        train(fine, expected)
        same(fine, expected)
"""

# Layers cut by outputs and by inputs: x is whole, in every process.
TENSOR = """
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from fastkan import KANLinear

generator = torch.Generator().manual_seed(3)
x = torch.randn(40, 6, dtype=torch.float64, generator=generator) + 0.3
hidden = torch.randn(40, 8, dtype=torch.float64, generator=generator)


def equal(model, whole):
    torch.testing.assert_close(model(x), whole(x))
    for part, other in zip(model, whole, strict=True):
        assert type(part.grid) is not torch.Tensor and type(part.coef.data) is not torch.Tensor
        torch.testing.assert_close(part.grid.full_tensor(), other.grid)
        torch.testing.assert_close(part.coef.full_tensor(), other.coef)


for options in {}, {"family": "legendre"}:
    torch.manual_seed(0)
    whole = torch.nn.Sequential(KANLinear(6, 8, **options), KANLinear(8, 3, **options)).double()
    plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
    model = parallelize_module(copy.deepcopy(whole), init_device_mesh("cpu", (world,)), plan)
    for run in model, whole:
        run[0].update_grid(x)
        run[1].update_grid(hidden, inwards=0.5)
    equal(model, whole)
    for run in model, whole:
        run[0].extend_grid(10)
        run[1].extend_grid(7)
        optimizer = torch.optim.Adam(run.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            run(x).square().mean().backward()
            optimizer.step()
    equal(model, whole)
    for run in model, whole:
        run[0].set_grid(torch.linspace(-3, 3, whole[0].grid.shape[1], dtype=torch.float64))
    equal(model, whole)
"""

# Rows over two pairs of processes, layers cut within a pair: parameters are on a mesh of two dimensions.
BOTH = """
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from fastkan import KANLinear

mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "layer"))
torch.manual_seed(0)
whole = torch.nn.Sequential(KANLinear(6, 8), KANLinear(8, 3)).double()
plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
model = parallelize_module(copy.deepcopy(whole), mesh["layer"], plan)
for part in (*model, model):
    fully_shard(part, mesh=mesh["rows"])
generator = torch.Generator().manual_seed(1)
for layer, other in zip(model, whole, strict=True):
    x = torch.randn(40, layer.in_features, dtype=torch.float64, generator=generator)
    mine = x.chunk(2)[mesh.get_local_rank("rows")]
    try:
        layer.update_grid(mine)
    except ValueError as error:
        assert "process_group=None: expected the group of the processes with different rows" in str(error)
    else:
        raise AssertionError("no error")
    layer.update_grid(mine, process_group=mesh.get_group("rows"))
    other.update_grid(x)
x = torch.randn(40, 6, dtype=torch.float64, generator=generator)
torch.testing.assert_close(model(x), whole(x))
"""

# Written by 2 processes, read by 4 or by 1, with the optimizer's state; training goes on as in one process.
CHECKPOINT = """
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from support.model_kinds import MODELS, build, check, perturb
from pathlib import Path

every = torch.randn(24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
mine = every.chunk(world)[rank]
folder = Path(store).parent


def train(run, optimizer, x):
    for _ in range(2):
        optimizer.zero_grad()
        run(x).square().mean().backward()
        optimizer.step()


for kind in MODELS:
    whole = build(kind)
    trained = torch.optim.Adam(whole.parameters(), lr=0.01)
    train(whole, trained, every)
    model = build(kind) if world == 2 else perturb(build(kind), 9)  # another start, which the file replaces
    if world > 1:
        fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if world == 2:
        train(model, optimizer, mine)
    states = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    if world == 2:
        dcp.save(states, checkpoint_id=folder / kind)
    else:
        dcp.load(states, checkpoint_id=folder / kind)
        set_state_dict(model, optimizer, model_state_dict=states["model"], optim_state_dict=states["optimizer"])
    check(model, whole, every)
    if world > 1:
        model.reshard()
    train(whole, trained, every)
    train(model, optimizer, mine)
    check(model, whole, every)
"""


@pytest.mark.parametrize("count", [2, *long(4)])
def test_grids_by_the_rows_of_all_processes(count, tmp_path):
    run(GRIDS, tmp_path, count)


@pytest.mark.parametrize("count", [2, *long(4)])
def test_grids_and_refinement_under_fully_shard(count, tmp_path):
    run(SHARDED, tmp_path, count)


@pytest.mark.long
def test_grids_of_layers_in_parallel_styles(tmp_path):
    run(TENSOR, tmp_path)


@pytest.mark.long
def test_grids_of_layers_sharded_in_both_ways(tmp_path):
    run(BOTH, tmp_path, 4)


@pytest.mark.parametrize("count", long(1, 4))
def test_distributed_checkpoints(count, tmp_path):
    run(CHECKPOINT, tmp_path, 2)
    run(CHECKPOINT, tmp_path, count)


@pytest.mark.parametrize("group", ["WORLD", 1, object()])
def test_process_group_of_another_type(group):
    with pytest.raises(TypeError, match=r"process_group=.*: expected None or a torch.distributed.ProcessGroup"):
        KANLinear(2, 3).update_grid(torch.zeros(4, 2), process_group=group)


def test_sample_of_streams_that_are_longer_than_it(monkeypatch):
    """Streams have shares in proportion to their lengths, and rows of the whole length."""
    lengths = SAMPLE_ROWS * 3, SAMPLE_ROWS // 2
    streams = [
        Sample.of(torch.arange(float(n))[:, None] - 1e6 * (s == 0), 1, torch.device("cpu"))
        for s, n in enumerate(lengths)
    ]
    calls = [
        [stream.low[None] for stream in streams], [stream.high[None] for stream in streams],
        [torch.cat(stream._order) for stream in streams], [stream.rows.double() for stream in streams],
        [torch.tensor([stream.seen]) for stream in streams],
    ]  # fmt: skip
    every = iter([torch.cat(parts) for parts in calls])
    monkeypatch.setattr("fastkan.nn.data_sample.gathered", lambda t, group, device: next(every))
    streams[0].share(None, 1, torch.device("cpu"))
    assert streams[0].seen == sum(lengths) and streams[0].low == -1e6 and streams[0].high == lengths[1] - 1
    kept = streams[0].rows.flatten()
    assert len(kept) == SAMPLE_ROWS
    for part, length in zip((kept[kept < 0] + 1e6, kept[kept >= 0]), lengths, strict=True):
        assert abs(len(part) - SAMPLE_ROWS * length / sum(lengths)) <= 2 + len(part) * 1e-3
        assert part.sort().values.diff().max() < 2 * 3 * length / len(part)
