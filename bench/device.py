"""Measured limits of a device, timing by CUDA events, and memory of a call."""

from collections.abc import Callable
from statistics import median

import torch

from fastkan.measure.correctness import Candidate, Case
from fastkan.measure.timing import clock

ROUNDS = 9
# name -> dtype, torch.get_float32_matmul_precision(); the names are those of Case.arithmetic
ARITHMETICS = {
    "bfloat16": (torch.bfloat16, "highest"), "float16": (torch.float16, "highest"), "tf32": (torch.float32, "high"),
    "float32": (torch.float32, "highest"), "float64": (torch.float64, "highest"),
}  # fmt: skip


def limits(device: torch.device, size: int) -> list[dict[str, object]]:
    """Rows of measured rates: byte/s of a copy (reads and writes counted), and flop/s of matrix products of random
    size x size matrices."""
    take = clock(device)
    source = torch.randint(-128, 127, (64 * size * size,), dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    rows = [_limit("copy", "byte/s", 2 * source.numel(), lambda: target.copy_(source), take)]
    source = target = torch.empty(0)
    for name, (dtype, precision) in ARITHMETICS.items():
        n = size if dtype != torch.float64 else size // 2
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        torch.set_float32_matmul_precision(precision)
        rows.append(_limit(name, "flop/s", 2 * n**3, lambda a=a, b=b: torch.mm(a, b), take))
    torch.set_float32_matmul_precision("highest")
    return rows


def _limit(name: str, unit: str, work: int, run: Callable[[], object], take) -> dict[str, object]:
    for _ in range(3):
        run()
    seconds = median(take(run, 3) for _ in range(ROUNDS))
    return {"limit": name, "rate": f"{work / seconds:.4g}", "unit": unit, "seconds": f"{seconds:.4g}"}


def input_sets(candidate: Candidate, device: torch.device) -> int:
    """Number of input and cotangent pairs, up to 16, that together exceed twice the L2 cache."""
    if device.type != "cuda":
        return 2
    each = candidate.x.nbytes + candidate.grad_out.nbytes
    return max(1, min(16, -(-2 * torch.cuda.get_device_properties(device).L2_cache_size // each)))


def step_bytes(candidate: Candidate, device: torch.device) -> int | str:
    """Peak memory of forward and backward beyond input and parameters; '' on a CPU, where it is not measured."""
    if device.type != "cuda":
        return ""
    candidate.train()  # compiles, and allocates the libraries' workspaces
    candidate.x.grad = None
    for p in candidate.parameters:
        p.grad = None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    candidate.train()
    return torch.cuda.max_memory_allocated(device) - before


def floor_seconds(case: Case, peer: str, phase: str, parameters: int, rates: dict[str, float]) -> float:
    """The least time at these rates: the products that must be made, or each tensor read or written once.

    Of a KAN layer those are the K + 1 functions of every window and the base function, whatever a layer does.
    """
    linear = peer.startswith("linear")
    terms = parameters if linear else case.in_features * case.out_features * (case.degree + 2)
    inputs, outputs = case.in_features, case.out_features
    if linear and peer != "linear-same-shape":
        inputs = outputs = parameters**0.5  # about: the equal-parameter layer keeps the aspect
    flops = 2 * case.batch * terms
    numbers = case.batch * (inputs + outputs) + parameters  # x, y, the parameters; and the gradients of all of them
    if phase == "forward+backward":
        flops, numbers = 3 * flops, 2 * numbers
    return max(flops / rates[case.arithmetic], numbers * case.dtype.itemsize / rates["copy"])
