"""Grid extension: with Levenberg-Marquardt the error falls as G^-4; bench/extension.py goes on to rounding."""

import math
import statistics

import torch

from fastkan import KAN


def target(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)


def test_the_error_falls_with_the_fourth_power_of_the_grid():
    """On points that reach the ends of every grid, of the hidden node's too, and on uniform ones between them."""
    sizes, steps = (5, 10, 20, 40), 4
    u = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(2000, dtype=torch.float64)
    x = torch.cos(math.pi * u)
    test = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    model = KAN([2, 1, 1], grid=3, seed=3, dtype=torch.float64)
    options = {"opt": "LM", "progress": False}
    model.fit((x, target(x)), steps=40, grid_update_num=40, stop_grid_update_step=40, **options)
    results = model.fit(
        (x, target(x), test, target(test)), steps=len(sizes) * steps, grid_sizes=sizes, grid_update_num=8,
        stop_grid_update_step=16, **options,
    )  # fmt: skip
    for name in ("train_loss", "test_loss"):
        errors = results[name][steps - 1 :: steps]
        points = [math.log(size) for size in sizes], [math.log(error) for error in errors]
        assert statistics.linear_regression(*points).slope < -3.5, (name, errors)
    assert results["test_loss"][-1] < 1e-5
