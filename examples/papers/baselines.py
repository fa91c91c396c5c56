"""Rows for training and tests, and the networks beside fastkan's, for the experiments on functions."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import kan as pykan
import torch
from torch import Tensor, nn

SCAN = ("G or width", "parameters", "RMSE", "seconds")  # the lists of scan


def uniform(rows: int, inputs: int, seed: int) -> Tensor:
    """[rows, inputs] on [-1, 1]."""
    return 2 * torch.rand(rows, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 1


def training_rows(rows: int, inputs: int) -> Tensor:
    """[rows, inputs] on [-1, 1], dense at the edges and in the corners, since grids end where the training data end.

    Of one input a lattice, and of many inputs, whose sums are seldom near their ends, uniform rows.
    """
    if inputs == 1:
        return torch.linspace(-1, 1, rows, dtype=torch.float64)[:, None]
    if inputs > 4:
        return uniform(rows, inputs, seed=0)
    u = torch.quasirandom.SobolEngine(inputs, scramble=True, seed=0).draw(rows, dtype=torch.float64)
    return torch.cos(math.pi * u)


@torch.no_grad()
def rmse(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return (model(x) - y).square().mean().sqrt().item()


def trainable(model: nn.Module) -> int:
    """The number of parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def scan(sizes: Sequence[int], trained: Callable[[int], nn.Module], error: Callable[[nn.Module], float]) -> dict:
    """Train a network of each size: lists of what was measured, each in one cell, and the slope."""
    found: list[tuple] = []
    for size in sizes:
        since = time.perf_counter()
        model = trained(size)
        seconds = time.perf_counter() - since
        found.append((size, trainable(model), f"{error(model):.1e}", f"{seconds:.2f}"))
    lists = list(zip(*found, strict=True))
    cells = (" ".join(map(str, cell)) for cell in lists)
    return {**dict(zip(SCAN, cells, strict=True)), "slope": slope(sizes, list(map(float, lists[2])))}


def slope(sizes: Sequence[int], errors: Sequence[float], first: int = 10, last: float = 1e-9) -> float | None:
    """Of log error by log size, by least squares, from the size `first` to the first error below `last`."""
    kept = [i for i, size in enumerate(sizes) if size >= first and min(errors[:i], default=1.0) > last]
    if len(kept) < 2:
        return None
    logs = [(math.log(sizes[i]), math.log(errors[i])) for i in kept]
    return round(statistics.linear_regression(*zip(*logs, strict=True)).slope, 2)


def mlp(widths: list[int], data: tuple[Tensor, Tensor], iterations: int) -> nn.Module:
    """A SiLU network, trained by L-BFGS."""
    torch.manual_seed(0)
    layers = [m for i, o in zip(widths, widths[1:], strict=False) for m in (nn.Linear(i, o), nn.SiLU())]
    model = nn.Sequential(*layers[:-1]).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(data[0]) - data[1]).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return model


def pykan_kan(
    width: list[int],
    grid: int,
    data: tuple[Tensor, Tensor],
    steps: int,
    seed: int = 0,
    coarser: Any = None,
) -> nn.Module:
    """pykan's network by its own training in float64, from scratch or refined from a coarser one."""
    x, y = data
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = coarser.refine(grid) if coarser else pykan.KAN(width=[*width], grid=grid, seed=seed, auto_save=False)
        model.auto_save = False  # refine turns it on
        test = {"test_input": x[:9], "test_label": y[:9]}
        model.fit({"train_input": x, "train_label": y, **test}, opt="LBFGS", steps=steps, log=steps)
    finally:
        torch.set_default_dtype(before)
    return model
