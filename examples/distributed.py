"""A KAN trained in several processes, with grid updates from the rows of all, against one process.

    torchrun --nproc-per-node 2 examples/distributed.py
    python examples/distributed.py --count

Data parallelism (DistributedDataParallel), sharded parameters (fully_shard) and tensor parallelism (ColwiseParallel and
RowwiseParallel), each on the same data from the same start; printed is the largest difference of the predictions from
those of a model that a process trains alone. Everything is in float64, so that only the order of sums differs.
--count prints what a step of these sends and computes, see docs/how-to/distributed.md.
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastkan import KAN, KANLinear

ROWS, STEPS, GRID_STEPS = 240, 30, (0, 10)  # ROWS is a multiple of 2, 3 and 4 processes: all have as many
RATE = 0.02


def data() -> tuple[Tensor, Tensor]:
    """x [N, 2] and y [N, 1] = sin(pi x0) exp(x1)."""
    x = torch.rand(ROWS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x, (torch.pi * x[:, :1]).sin() * x[:, 1:].exp()


def train(model: nn.Module, x: Tensor, y: Tensor, update: Callable[[], None]) -> None:
    """Adam, with a grid update before the steps GRID_STEPS."""
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for step in range(STEPS):
        if step in GRID_STEPS:
            update()
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def alone(model: Any, x: Tensor, y: Tensor) -> Tensor:
    """Predictions after training in one process."""
    train(model, x, y, lambda: model.update_grid(x))
    return model(x)


def replicated(model: Any, x: Tensor, y: Tensor, mine: slice) -> Tensor:
    """DistributedDataParallel: a model in every process, gradients are averaged."""
    from torch.nn.parallel import DistributedDataParallel

    parallel = DistributedDataParallel(model)
    train(parallel, x[mine], y[mine], lambda: model.update_grid(x[mine], process_group=dist.group.WORLD))
    return model(x)


def sharded(model: Any, x: Tensor, y: Tensor, mine: slice) -> Tensor:
    """fully_shard: every process keeps a part of the parameters and of the optimizer's state."""
    from torch.distributed.fsdp import fully_shard

    for layer in model.act_fun:
        fully_shard(layer)
    fully_shard(model)
    train(model, x[mine], y[mine], lambda: model.update_grid(x[mine]))
    return model(x)


def in_parallel(model: Any, x: Tensor, y: Tensor) -> Tensor:
    """Two layers, the first cut by outputs and the second by inputs: every process sees all rows."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})
    train(model, x, y, lambda: model[0].update_grid(x))
    return model(x)


def compare() -> dict[str, float]:
    """The largest difference from one process, by name; the same in every process."""
    x, y = data()
    size = ROWS // dist.get_world_size()
    mine = slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)
    kan = KAN([2, 4, 1], grid=5, dtype=torch.float64)
    torch.manual_seed(0)
    layers = nn.Sequential(KANLinear(2, 8), KANLinear(8, 1)).double()
    single = copy.deepcopy(layers)
    train(single, x, y, lambda: single[0].update_grid(x))
    one, found = alone(copy.deepcopy(kan), x, y), {}
    found["DistributedDataParallel"] = replicated(copy.deepcopy(kan), x, y, mine) - one
    found["fully_shard"] = sharded(copy.deepcopy(kan), x, y, mine) - one
    found["tensor parallel"] = in_parallel(layers, x, y) - single(x)
    largest = {name: difference.detach().abs().max() for name, difference in found.items()}
    for difference in largest.values():
        dist.all_reduce(difference, op=dist.ReduceOp.MAX)
    return {name: difference.item() for name, difference in largest.items()}


# What a step sends and computes

KINDS = ("replicated", "sharded", "tensor")


def flops(rows: int, inputs: int, outputs: int, degree: int = 3) -> int:
    """Of a layer with a base function, forward and backward by x and the parameters, as fastkan.flops counts."""
    return 3 * 2 * rows * inputs * outputs * (degree + 2)


def parameters(inputs: int, outputs: int, grid_size: int = 5, degree: int = 3) -> int:
    """Of a layer: the coefficients and the base weights."""
    return inputs * outputs * (grid_size + degree + 1)


def sent(kind: str, rows: int, width: int, processes: int, grid_size: int = 5, degree: int = 3, size: int = 4) -> float:
    """Bytes that a process sends in a step for two layers [width, width, width], numbers of `size` bytes, by rings.

    "replicated": an all-reduce of the gradients, which is a reduce-scatter and an all-gather. "sharded": an all-gather
    of the parameters for the forward, one for the backward, a reduce-scatter of the gradients. "tensor": an all-reduce
    of the outputs of the second layer in the forward and of the gradient by the inputs of the first in the backward.
    """
    numbers = {
        "replicated": 2 * 2 * parameters(width, width, grid_size, degree),
        "sharded": 3 * 2 * parameters(width, width, grid_size, degree),
        "tensor": 2 * 2 * rows * width,
    }[kind]
    return (processes - 1) / processes * numbers * size


def computed(kind: str, rows: int, width: int, processes: int, degree: int = 3) -> float:
    """Operations of a process in a step for the same layers; rows: of a process, or all of them with "tensor"."""
    total = 2 * flops(rows, width, width, degree)
    return total / processes if kind == "tensor" else total


def count(speed: float, bandwidth: float) -> None:
    """Print the table of the page: speed in operations, bandwidth in bytes a second."""
    print("kind        processes  width   rows       MB   GFLOP  ms to send  ms to compute")
    for kind, processes, width, rows in (
        *((kind, p, 1024, rows) for kind in KINDS for p in (2, 8) for rows in (256, 8192)),
        ("tensor", 8, 256, 8192),
    ):
        volume, work = sent(kind, rows, width, processes), computed(kind, rows, width, processes)
        times = volume / bandwidth * 1e3, work / speed * 1e3
        print(
            f"{kind:11} {processes:9} {width:6} {rows:6} {volume / 1e6:8.1f} {work / 1e9:7.1f} "
            f"{times[0]:11.3f} {times[1]:14.3f}"
        )


def main() -> None:
    """The comparison, in processes that torchrun started; or the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="print bytes and operations of a step")
    parser.add_argument("--speed", type=float, default=20e12, help="operations a second of a device")
    parser.add_argument("--bandwidth", type=float, default=50e9, help="bytes a second that a device sends")
    options = parser.parse_args()
    if options.count:
        count(options.speed, options.bandwidth)
        return
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name, difference in compare().items():
        if dist.get_rank() == 0:
            print(f"{name}: {difference:.1e} from one process")
        if difference > 1e-6:
            raise SystemExit(f"{name}: {difference}: expected at most 1e-6")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
