"""Time of the host for a small layer on a GPU, by a driver that launches nothing: what is left where a GPU is faster.

    python -m bench.host [--out DIR]

Forward and backward of layers and of nn.Linear in turns, on one thread; medians of the thread's own time. The products
of nn.Linear and of triton:features are computed on the CPU: with these few rows they take a few microseconds.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from fastkan import KANLinear  # noqa: E402
from fastkan.measure.provenance import write_csv  # noqa: E402
from support.triton_driver import Driver  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "ahead"
ROWS, WIDTH = 8, 16
MODELS: dict[str, Callable[[], nn.Module]] = {
    "nn.Linear": lambda: nn.Linear(WIDTH, WIDTH),
    **{
        f"KANLinear, {name}": lambda name=name: KANLinear(WIDTH, WIDTH, backend=name)
        for name in ("triton:fused", "triton:features", "dense")
    },
}


def rows(rounds: int) -> list[dict[str, object]]:
    """A row for each model: microseconds of forward and of backward, and as multiples of nn.Linear's."""
    torch.set_num_threads(1)
    models = {name: make() for name, make in MODELS.items()}
    x = torch.rand(ROWS, WIDTH, requires_grad=True)
    u = torch.rand(ROWS, WIDTH)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    gc.disable()
    for _ in range(rounds):
        for name, model in models.items():
            for _ in range(20):
                start = time.thread_time()
                y = model(x)
                middle = time.thread_time()
                y.backward(u)
                times[name].append(((middle - start) * 1e6, (time.thread_time() - middle) * 1e6))
    gc.enable()
    medians = {name: tuple(map(median, zip(*pairs, strict=True))) for name, pairs in times.items()}
    linear = medians["nn.Linear"]
    return [
        {
            "model": name, "rows": ROWS, "width": WIDTH, "forward_us": f"{forward:.1f}",
            "backward_us": f"{backward:.1f}", "forward_of_linear": f"{forward / linear[0]:.2f}",
            "backward_of_linear": f"{backward / linear[1]:.2f}",
            "both_of_linear": f"{(forward + backward) / sum(linear):.2f}",
        }
        for name, (forward, backward) in medians.items()
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.host", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    Driver().use()
    found = rows(args.rounds)
    for row in found:
        print(*row.values(), sep="\t")
    write_csv(args.out / "host.csv", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
