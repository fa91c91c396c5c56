"""What a GPU's limits are, how time is taken on it, and what a call allocates."""

from collections.abc import Callable
from statistics import median

import torch

from fastkan.measure.correctness import Candidate, Case
from fastkan.measure.timing import wall_clock

ROUNDS = 9
# name -> dtype, torch.get_float32_matmul_precision(); the names are those of Case.arithmetic
ARITHMETICS = {
    "bfloat16": (torch.bfloat16, "highest"), "float16": (torch.float16, "highest"), "tf32": (torch.float32, "high"),
    "float32": (torch.float32, "highest"), "float64": (torch.float64, "highest"),
}  # fmt: skip


def event_clock(run: Callable[[], object], repeats: int) -> float:
    """Seconds a call by the events of the current stream, the mean of so many in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3 / repeats


def clock(device: torch.device):
    return event_clock if device.type == "cuda" else wall_clock


def limits(device: torch.device, size: int) -> list[dict[str, object]]:
    """Rows of the rates this device reaches: bytes/s of a copy, read and written both counted, and flop/s of products
    of random size x size matrices."""
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
    """How many inputs and cotangents together are twice the second-level cache, up to 16."""
    if device.type != "cuda":
        return 2
    each = candidate.x.nbytes + candidate.grad_out.nbytes
    return max(1, min(16, -(-2 * torch.cuda.get_device_properties(device).L2_cache_size // each)))


def step_bytes(candidate: Candidate, device: torch.device) -> int | str:
    """The most that forward and backward allocate beyond input and parameters; '' on a CPU, which does not tell."""
    if device.type != "cuda":
        return ""
    candidate.train()  # compiles, and makes the libraries' workspaces
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
