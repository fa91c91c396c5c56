"""How many kernels Triton compiles for layers and batches of other sizes.

    python -m support.triton_recompiles [BACKEND]

Prints JSON: the compilations of each part of a program, in order. Nothing is compiled: they are counted.
"""

import json
import sys
from collections.abc import Callable

import torch
from torch import nn

from fastkan import KANLinear
from support.triton_driver import Driver


def layer(*sizes: int, **options) -> KANLinear:
    return KANLinear(*sizes, backend=BACKEND, **options)


def step(model: nn.Module, rows: int, **options) -> None:
    first = next(m for m in model.modules() if isinstance(m, KANLinear))
    model(torch.rand(rows, first.in_features, requires_grad=True, **options)).sum().backward()


def steps(model: nn.Module, rows: range) -> Callable[[], None]:
    return lambda: [step(model, n) for n in rows]


def moved() -> None:
    model = layer(64, 64, 5)
    model.update_grid(torch.rand(1024, 64))
    for rows in (1024, 101, 512):
        step(model, rows)


def parts() -> dict[str, Callable[[], object]]:
    one = layer(64, 64, 5)
    digits = nn.Sequential(layer(784, 64, 5), layer(64, 10, 5))
    return {
        "a layer": lambda: step(one, 1024),
        "again": lambda: step(one, 1024),
        "batches of 64 to 512": steps(one, range(64, 513, 64)),
        "batches of 101 to 999": steps(one, range(101, 1000, 100)),
        "another layer": lambda: step(layer(64, 64, 5), 1024),
        "other grid sizes": lambda: [step(layer(64, 64, size), 1024) for size in (6, 7, 8, 10, 11)],
        "other widths": lambda: [step(layer(width, 2 * width, 5), 1024) for width in (80, 96, 112)],
        "any knots": moved,
        "two layers": lambda: step(digits, 64),
        "the last batch": lambda: step(digits, 37),
    }


def main() -> None:
    driver = Driver().use()
    counts = {}
    for title, part in parts().items():
        driver.compiled.clear()
        part()
        counts[title] = driver.compiled.total()
    print(json.dumps(counts))


BACKEND = sys.argv[1] if len(sys.argv) > 1 else "triton"
if __name__ == "__main__":
    main()
