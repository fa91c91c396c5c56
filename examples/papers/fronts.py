"""Burgers' and Allen-Cahn equations, whose solutions have steep fronts: solved forward in time."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.polynomial.hermite import hermgauss
from scipy.fft import dst
from torch import Tensor

from fastkan import KAN, science

from .equations import figure, row
from .experiment import Experiment, Rows
from .poisson import parameters

VISCOSITY, DIFFUSION, RATE = 0.01 / math.pi, 1e-4, 5.0
# Grids, the time up to which the equation holds, and steps: a front is found where the solution before it is.
STAGES = [(5, 0.25, 15), (10, 0.25, 8), (10, 0.35, 10), (10, 0.5, 10), (10, 0.75, 10), (10, 1.0, 15)]
STAGES += [(20, 1.0, 20), ([30, 20, 20], 1.0, 20)]


class Equation(NamedTuple):
    """equation(u, first, second): what is 0, with the derivatives [N, 2] by t and x; weight(t): its weight; start: u at
    t = 0; of_start: its weight; ends(model, left, right): residuals at x = 0 and 1; reference(): t, x, and u there, of
    0 <= t, x <= 1."""

    name: str
    equation: Callable[[Tensor, Tensor, Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]
    start: Callable[[Tensor], Tensor]
    of_start: float
    ends: Callable[[Any, Tensor, Tensor], list[Tensor]]
    reference: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]


def burgers_reference() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By Cole and Hopf's integral, at Gauss-Hermite points."""
    (z, w), t, x = hermgauss(200), np.linspace(0, 1, 100), np.linspace(0, 1, 129)
    y = x[None, :, None] - np.sqrt(4 * VISCOSITY * t)[:, None, None] * z
    log = -np.cos(np.pi * y) / (2 * np.pi * VISCOSITY)
    share = w * np.exp(log - log.max(-1, keepdims=True))
    return t, x, -(share * np.sin(np.pi * y)).sum(-1) / share.sum(-1)


def allen_cahn_reference(n: int = 1024, steps: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By Strang's splitting: exact flows of the diffusion, in sines of x, and of the reaction."""
    x, growth = -1 + 2 * np.arange(1, n) / n, math.exp(RATE / steps)
    half = np.exp(-DIFFUSION * (np.pi * np.arange(1, n) / 2) ** 2 / (2 * steps))

    def diffused(v: np.ndarray) -> np.ndarray:
        return np.asarray(dst(half * np.asarray(dst(v, 1, norm="ortho")), 1, norm="ortho"))

    found = [x**2 * np.cos(np.pi * x) + 1]
    for _ in range(steps):
        u = diffused(found[-1]) - 1
        found.append(diffused(u * growth / np.sqrt(1 + u**2 * (growth**2 - 1)) + 1))
    return np.linspace(0, 1, 101), x[n // 2 - 1 :: 4], np.stack(found)[:: steps // 100, n // 2 - 1 :: 4] - 1


BURGERS = Equation(
    "Burgers",
    lambda u, first, second: first[:, :1] + u * first[:, 1:] - VISCOSITY * second[:, 1:],
    lambda t: torch.full_like(t, 0.2),
    lambda x: -torch.sin(torch.pi * x),
    1.0,
    lambda model, left, right: [model(torch.cat([left, right]))],
    burgers_reference,
)
ALLEN_CAHN = Equation(
    "Allen-Cahn",
    lambda u, first, second: first[:, :1] - DIFFUSION * second[:, 1:] - RATE * (u - u**3),
    lambda t: 0.2 * torch.exp(-2 * t),
    lambda x: x**2 * torch.cos(torch.pi * x),
    3.0,
    lambda model, left, right: [0.1 * model.derivatives(left, 1)[1][:, 0, 1:], model(right) + 1],
    allen_cahn_reference,
)


def terms(of: Equation, model: KAN, until: float, n: int, stage: int) -> Callable[[Any], list[Tensor]]:
    """The residuals at n points, other ones in each stage: where the model violates the equation most."""

    def residual(x: Tensor) -> Tensor:
        u, first, second = model.derivatives(x, 2)
        return of.equation(u, first[:, 0], second[:, 0])

    box = [(0, until), (0, 1)]
    at, start = science.adaptive_points(residual, n, box, seed=stage), science.boundary_points(300, box)[0]
    left, right = science.boundary_points(100, box)[2:]
    weight, of_x = of.weight(at[:, :1]), of.start(start[:, 1:])

    def found(model: Any) -> list[Tensor]:
        u, first, second = model.derivatives(at, 2)
        inside, at_start = weight * of.equation(u, first[:, 0], second[:, 0]), model(start) - of_x
        return [inside, of.of_start * at_start, *of.ends(model, left, right)]

    return found


def forward_in_time(of: Equation, quick: bool) -> tuple[KAN, int]:
    """[2, 5, 5, 1], trained in stages."""
    model = KAN([2, 5, 5, 1], grid=5, k=4, seed=0, sp_trainable=False, dtype=torch.float64)
    stages, count, n = [(5, 0.25, 3)] if quick else STAGES, 0, 300 if quick else 2500
    for stage, (size, until, steps) in enumerate(stages):
        model = model.refine(size)
        model.fit(residuals=terms(of, model, until, n, stage), opt="LM", steps=steps, update_grid=False, progress=False)
        count += steps
    return model, count


def run(quick: bool) -> Rows:
    rows = [
        row("Allen-Cahn", "paper's KAN [2, 8, 8, 1], diffusion 1e-3 (2407.17611)", 1.41e-2, 1513),
        row("Allen-Cahn", "paper's KAN [2, 8, 8, 1] (2509.03417)", 6.3e-2, 2217),
        row("Burgers", "paper's KAN [2, 8, 8, 1] (2407.17611)", 2.43e-2, 1689),
        row("Burgers", "paper's KAN [2, 4, 4, 4, 4, 1] (2509.03417)", 4.2e-2, 1517),
    ]
    for of in (ALLEN_CAHN, BURGERS):
        begin = time.perf_counter()
        model, steps = forward_in_time(of, quick)
        seconds = time.perf_counter() - begin
        t, x, u = (torch.from_numpy(part) for part in of.reference())
        with torch.no_grad():
            difference = model(torch.cartesian_prod(t, x)).view(u.shape) - u
        error = (difference.norm() / u.norm()).item()
        rows.append(row(of.name, "fastkan [2, 5, 5, 1], LM", error, parameters(model), steps, seconds))
    return sorted(rows, key=lambda of: of["equation"])


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """The solutions, and the errors against the numbers of parameters."""
    return figure([(of.name, ("t", "x"), *of.reference()) for of in (ALLEN_CAHN, BURGERS)], rows)


EXPERIMENT = Experiment(
    "Burgers' and Allen-Cahn equations",
    "Rigas et al. (arXiv 2407.17611, section III, and its notebooks) and Rigas et al. (arXiv 2509.03417, the medians "
    "of its data): u_t + u u_x = (0.01 / pi) u_xx, u = -sin(pi x) at the start and 0 at x = -1 and 1; "
    "u_t = 0.0001 u_xx + 5 (u - u^3), u = x^2 cos(pi x) at the start and -1 at x = -1 and 1",
    "Burgers' solution is odd in x and Allen-Cahn's even, so the networks see 0 <= x <= 1. `fit(residuals=...)` with "
    "Levenberg-Marquardt is called for longer and longer times: with the whole time at once, it would end with fronts "
    "at wrong places, where the equation holds nearly everywhere too. Every call has other points, "
    "by `science.adaptive_points`: most where the equation is violated most, which is at the fronts.",
    run,
    draw,
)
