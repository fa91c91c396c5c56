"""Helmholtz's equation and a wave equation, whose solutions are products, or sums of products, of functions."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import kan as pykan
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastkan import KAN, science

from .equations import by_lbfgs, figure, lattice, row
from .experiment import Experiment, Rows
from .poisson import parameters


class Equation(NamedTuple):
    """solution(p); terms(n): the residuals at about n points, as a function of a model; low: the corner (low, low) of
    the square that ends at (1, 1); axes: the names of the inputs."""

    name: str
    solution: Callable[[Tensor], Tensor]
    terms: Callable[[int], Callable[[Any], list[Tensor]]]
    low: float
    axes: tuple[str, str]


def helmholtz(p: Tensor) -> Tensor:
    return torch.sin(torch.pi * p[:, :1]) * torch.sin(4 * torch.pi * p[:, 1:])


def helmholtz_terms(n: int) -> Callable[[Any], list[Tensor]]:
    """u_xx + u_yy + u = f, over the size of f, and u = 0 on the edge."""
    square, size = [(-1, 1), (-1, 1)], 17 * math.pi**2
    inside, edge = science.collocation_points(n, square), torch.cat(science.boundary_points(n // 8, square))
    f = (1 - size) * helmholtz(inside)

    def terms(model: Any) -> list[Tensor]:
        u, _, second = model.derivatives(inside, 2)
        return [(second.sum(-1) + u - f) / size, model(edge)]

    return terms


def wave(p: Tensor) -> Tensor:
    t, x = torch.pi * p[:, :1], torch.pi * p[:, 1:]
    return torch.sin(x) * torch.cos(2 * t) + 0.5 * torch.sin(4 * x) * torch.cos(8 * t)


def wave_terms(n: int) -> Callable[[Any], list[Tensor]]:
    """u_tt = 4 u_xx, over the size of u_tt, u and u_t at the start, and u = 0 at both ends."""
    square = [(0, 1), (0, 1)]
    inside, (start, _, left, right) = science.collocation_points(n, square), science.boundary_points(n // 8, square)
    ends, at_start = torch.cat([left, right]), wave(start)

    def terms(model: Any) -> list[Tensor]:
        second, (u, first) = model.derivatives(inside, 2)[2], model.derivatives(start, 1)
        along_t = (second[..., 0] - 4 * second[..., 1]) / (32 * math.pi**2)
        return [along_t, u - at_start, first[..., 0] / (8 * math.pi), model(ends)]

    return terms


HELMHOLTZ = Equation("Helmholtz", helmholtz, helmholtz_terms, -1.0, ("x", "y"))
WAVE = Equation("wave", wave, wave_terms, 0.0, ("t", "x"))


def error(model: Callable[[Tensor], Tensor], equation: Equation) -> float:
    """Relative L2 error on a lattice of 100 by 256."""
    p = lattice(equation.low, 100, 256)
    with torch.no_grad():
        return ((model(p) - equation.solution(p)).norm() / equation.solution(p).norm()).item()


def by_lm(equation: Equation, width: list, sizes: Sequence[int], starts: int, quick: bool) -> tuple[KAN, int]:
    """The best of a few starts on coarse grids, by the loss; then, without edges of no effect, on finer grids."""
    options: dict[str, Any] = {"opt": "LM", "update_grid": False, "progress": False}
    terms, steps = equation.terms(400 if quick else 2000), 4 if quick else 12
    starts = 1 if quick else starts
    shape: dict[str, Any] = {"grid": sizes[0], "k": 5, "grid_range": (equation.low, 1), "base_fun": "zero"}
    model = KAN(width, seed=0, sp_trainable=False, dtype=torch.float64, **shape)
    model.fit(residuals=terms, steps=2 * steps, grid_sizes=sizes[:2], starts=starts, **options)
    count = 2 * steps * starts
    for size in sizes[2:3] if quick else sizes[2:]:
        model.get_act(science.collocation_points(1000, [(equation.low, 1)] * 2))
        model.prune_edge(threshold=0.003)
        model = model.refine(size)
        model.fit(residuals=terms, steps=steps, **options)
        count += steps
    return model, count


def by_pykan(quick: bool) -> tuple[nn.Module, int]:
    """pykan's [2, 10, 1], at fewer points."""
    network = pykan.KAN(width=[2, 10, 1], grid=5, k=3, seed=0, auto_save=False).speed().double()
    steps = 1 if quick else 10
    return by_lbfgs(network, HELMHOLTZ.terms(100 if quick else 500), steps), steps


def run(quick: bool) -> Rows:
    rows = [
        row(HELMHOLTZ.name, "paper's KAN [2, 8, 8, 1] (2407.17611)", 1.02e-3, 1777),
        row(WAVE.name, "paper's KAN [2, 10, 30, 10, 1] (2411.15111)", 0.224, 6300),
        row(WAVE.name, "paper's KAN of Gaussians, 4 layers of 150 (2411.15111)", 0.147, 543600),
        row(WAVE.name, "paper's MLP, 4 layers of 300 (2411.15111)", 0.136, 272101),
    ]
    for equation, name, train in (
        (HELMHOLTZ, "fastkan [2, [0, 1]], LM", lambda q: by_lm(HELMHOLTZ, [2, [0, 1]], [10, 20, 40, 80], 1, q)),
        (HELMHOLTZ, "fastkan [2, 10, 1], LM", lambda q: by_lm(HELMHOLTZ, [2, 10, 1], [10, 20, 40], 1, q)),
        (HELMHOLTZ, "pykan [2, 10, 1], L-BFGS", by_pykan),
        (WAVE, "fastkan [2, [0, 2], 1], LM", lambda q: by_lm(WAVE, [2, [0, 2], 1], [10, 20, 40, 80], 5, q)),
    ):
        start = time.perf_counter()
        model, steps = train(quick)
        seconds = time.perf_counter() - start
        rows.append(row(equation.name, name, error(model, equation), parameters(model), steps, seconds))
    return sorted(rows, key=lambda of: of["equation"])


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """The solutions, and the errors against the numbers of parameters."""
    parts = []
    for equation in (HELMHOLTZ, WAVE):
        p = lattice(equation.low, 101, 101)
        first, second, u = p[::101, 0].numpy(), p[:101, 1].numpy(), equation.solution(p).view(101, 101).numpy()
        parts.append((equation.name, equation.axes, first, second, u))
    return figure(parts, rows)


EXPERIMENT = Experiment(
    "Helmholtz's and a wave equation",
    "Helmholtz's of Rigas et al. (arXiv 2407.17611, section III, and its notebooks): u_xx + u_yy + u = f, "
    "u = sin(pi x) sin(4 pi y); the wave equation of Farea and Celebi (arXiv 2411.15111, and its notebooks): "
    "u_tt = 4 u_xx, u = sin(pi x) cos(2 pi t) + 0.5 sin(4 pi x) cos(8 pi t)",
    "The networks see the equations and the values on the edges at points that fill the square. The solutions are a "
    "product and a sum of two products, so one and two multiplication nodes are enough. `fit(residuals=...)` with "
    "Levenberg-Marquardt starts on coarse grids; the best start by the loss is then refined, without edges of "
    "no effect. pykan is trained by L-BFGS through autograd on the same residuals.",
    run,
    draw,
)
