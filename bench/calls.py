"""Time of a call of a layer of one edge, in C++ and by Python, beside nn.Linear; and of AdamW by its number of tensors.

    python -m bench.calls

One thread, the thread's own time, all in turns; medians in microseconds.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from fastkan import KANLinear, direct
from fastkan.measure.provenance import cpu_kind, write_csv

IN_CPP = direct.kan_out
ROUNDS, CALLS = 60, 50


def microseconds(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Medians by name."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            direct.kan_out = None if "by Python" in name else IN_CPP
            start = time.thread_time()
            for _ in range(CALLS):
                run()
            times[name].append((time.thread_time() - start) / CALLS * 1e6)
    direct.kan_out = IN_CPP
    return {name: median(of) for name, of in times.items()}


def calls() -> dict[str, Callable[[], object]]:
    x, u = torch.rand(1, 1), torch.ones(1, 1)
    linear, kan = nn.Linear(1, 1), KANLinear(1, 1)

    def without_gradients(layer: nn.Module) -> None:
        with torch.no_grad():
            layer(x)

    runs = {}
    for name, layer in (("nn.Linear", linear), ("KANLinear", kan), ("KANLinear by Python", kan)):
        runs[f"{name}, no gradients"] = lambda layer=layer: without_gradients(layer)
        runs[f"{name}, forward"] = lambda layer=layer: layer(x)
        runs[f"{name}, forward and backward"] = lambda layer=layer: layer(x).backward(u)
    return runs


def steps() -> dict[str, Callable[[], object]]:
    """Steps of AdamW for the parameters of layers 64 -> 64 -> 10, one or two tensors a layer."""
    runs = {}
    for tensors, shapes in ((2, ((8,), ())), (1, ((9,),))):
        for fused in (False, True):
            parameters: list[Tensor] = [torch.randn(64, *f, o, requires_grad=True) for o in (64, 10) for f in shapes]
            for p in parameters:
                p.grad = torch.randn_like(p)
            optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=fused or None)
            runs[f"AdamW{'(fused=True)' if fused else ''}, tensors a layer: {tensors}"] = optimizer.step
    return runs


def main() -> int:
    torch.set_num_threads(1)
    found = [{"what": name, "microseconds": f"{us:.1f}"} for name, us in microseconds(calls() | steps()).items()]
    for row in found:
        print(*row.values(), sep="\t")
    write_csv(Path(__file__).parent / "results" / cpu_kind() / "calls.csv", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
