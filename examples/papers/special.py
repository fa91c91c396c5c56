"""The 15 special functions of two variables: one recipe chooses the network's shape and grid on validation rows."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from scipy import special
from torch import Tensor

from fastkan import KAN

from .baselines import pykan_kan, rmse, trainable, training_rows, uniform
from .experiment import Experiment, Rows

# Multiplication nodes, the second number of a pair, since many of these functions are sums of few products.
SHAPES: list[list[Any]] = [[2, [0, 1], 1], [2, 5, 1], [2, [2, 2], 1], [2, [0, 4], 1], [2, [3, 3], 1]]
PI = math.pi


class Target(NamedTuple):
    """A function of two numbers, the ranges chosen here for them, and the paper's RMSE of its best KAN and MLP."""

    function: Callable
    first: tuple[float, float]
    second: tuple[float, float]
    of_kan: float
    of_mlp: float

    def values(self, x: Tensor) -> Tensor:
        """[N, 1] at inputs [N, 2], which are scaled to [-1, 1]."""
        ends = zip((self.first, self.second), x.numpy().T, strict=True)
        columns = [low + (high - low) * (column + 1) / 2 for (low, high), column in ends]
        return torch.from_numpy(self.function(*columns))[:, None]


def _harmonic(order: int, degree: int) -> Callable:
    return lambda azimuth, polar: special.sph_harm_y(degree, order, polar, azimuth).real


AMPLITUDE, PARAMETER, AZIMUTH, POLAR = (0, PI / 2), (0, 0.9), (0, 2 * PI), (0, PI)
TARGETS = {
    "ellipj: sn(u, m)": Target(lambda u, m: special.ellipj(u, m)[0], (0, 3), PARAMETER, 1.33e-4, 6.48e-4),
    "ellipkinc(phi, m)": Target(special.ellipkinc, AMPLITUDE, PARAMETER, 1.24e-4, 5.52e-4),
    "ellipeinc(phi, m)": Target(special.ellipeinc, AMPLITUDE, PARAMETER, 8.26e-5, 3.04e-4),
    "jv(v, x)": Target(special.jv, (0, 5), (0, 10), 1.64e-3, 5.52e-3),
    "yv(v, x)": Target(special.yv, (0, 2), (1, 10), 1.49e-5, 3.45e-4),
    "kv(v, x)": Target(special.kv, (0, 2), (1, 5), 2.52e-5, 1.67e-4),
    "iv(v, x)": Target(special.iv, (0, 5), (0, 5), 9.28e-3, 1.07e-2),
    "lpmv(0, v, x)": Target(partial(special.lpmv, 0), (0, 5), (0, 0.9), 5.25e-5, 1.74e-2),
    "lpmv(1, v, x)": Target(partial(special.lpmv, 1), (0, 5), (0, 0.9), 6.90e-4, 1.50e-3),
    "lpmv(2, v, x)": Target(partial(special.lpmv, 2), (0, 5), (0, 0.9), 2.26e-4, 9.43e-4),
    "sph_harm(0, 1)": Target(_harmonic(0, 1), AZIMUTH, POLAR, 2.21e-7, 1.25e-6),
    "sph_harm(1, 1)": Target(_harmonic(1, 1), AZIMUTH, POLAR, 1.22e-4, 6.70e-4),
    "sph_harm(0, 2)": Target(_harmonic(0, 2), AZIMUTH, POLAR, 1.95e-7, 2.85e-6),
    "sph_harm(1, 2)": Target(_harmonic(1, 2), AZIMUTH, POLAR, 1.50e-5, 1.84e-3),
    "sph_harm(2, 2)": Target(_harmonic(2, 2), AZIMUTH, POLAR, 9.45e-5, 6.21e-4),
}


def by_recipe(target: Target, quick: bool) -> tuple[KAN, list]:
    """Every shape on coarse grids; the best of them on finer ones, as long as the validation error falls."""
    shapes, coarse, finer, rows = (SHAPES[:1], [3], (6,), 300) if quick else (SHAPES, [3, 6, 12], (24, 48), 3000)
    x, check = training_rows(rows, 2), uniform(1000, 2, seed=1)
    y, expected = target.values(x), target.values(check)

    def trained(model: KAN, sizes: list[int]) -> tuple[float, KAN]:
        model.fit((x, y), opt="LM", steps=8 * len(sizes), grid_sizes=sizes, progress=False)
        return rmse(model, check, expected), model

    made = [trained(KAN(shape, grid=3, seed=0, dtype=torch.float64), coarse) for shape in shapes]
    best = min(made, key=lambda entry: entry[0])
    shape = shapes[made.index(best)]
    for size in finer:
        finer_one = trained(best[1].copy(), [size])
        if finer_one[0] >= best[0]:
            break
        best = finer_one
    return best[1], shape


def run(quick: bool) -> Rows:
    rows: Rows = []
    KAN([2, 1]).fit((torch.rand(9, 2), torch.rand(9, 1)), opt="LM", steps=1, progress=False)  # torch's late imports
    test, x = uniform(5000, 2, seed=2), training_rows(100 if quick else 1000, 2)
    for name, target in TARGETS.items():
        expected, start = target.values(test), time.perf_counter()
        model, shape = by_recipe(target, quick)
        seconds, start = time.perf_counter() - start, time.perf_counter()
        other = pykan_kan([2, 5, 1], 5 if quick else 10, (x, target.values(x)), 1 if quick else 5)
        rows.append({
            "function": name, "first argument": _range(target.first), "second argument": _range(target.second),
            "paper's MLP": target.of_mlp, "paper's KAN": target.of_kan,
            "pykan's RMSE": rmse(other, test, expected), "pykan's seconds": round(time.perf_counter() - start, 1),
            "fastkan's RMSE": rmse(model, test, expected), "shape": str(shape), "grid": model.grid,
            "parameters": trainable(model), "seconds": round(seconds, 1),
        })  # fmt: skip
    return rows


def _range(ends: tuple[float, float]) -> str:
    names = {PI: "pi", PI / 2: "pi / 2", 2 * PI: "2 pi"}
    return " to ".join(names.get(end, f"{end:g}") for end in ends)


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """RMSE of every function."""
    axes = (figure := Figure(figsize=(9, 4.5), layout="constrained")).subplots()
    for name, mark in (("paper's MLP", "s"), ("paper's KAN", "^"), ("pykan's RMSE", "x"), ("fastkan's RMSE", "o")):
        axes.semilogy([row["function"] for row in rows], [float(row[name]) for row in rows], mark, label=name)
    axes.tick_params("x", rotation=60)
    axes.set(ylabel="RMSE on test rows")
    axes.grid(alpha=0.3)
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.08))
    return figure


EXPERIMENT = Experiment(
    "Special functions",
    "Liu et al., KAN (arXiv 2404.19756), section 4.1",
    "RMSE on 5000 test rows. Neither the paper nor pykan's repository gives the ranges of the two arguments (pykan's "
    "issue 369 asks for them): those of the table are chosen here, as are the first of the Jacobi functions and the "
    "real part of the harmonics. Legendre functions keep away from their singularities at -1 and 1. fastkan trains "
    "five shapes by Levenberg-Marquardt on coarse grids, and the best of them on finer grids while the error falls, "
    "all by 1000 validation rows; `[0, 4]` stands for four multiplication nodes. Training rows lie dense at the edges "
    "of the ranges, where grids end. The seconds are those of the whole choice. pykan trains `[2, 5, 1]` with "
    "`grid=10` by 5 steps of its L-BFGS on 1000 rows.",
    run,
    draw,
)
