"""Conserved quantities and Lagrangians from motions, as formulas."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastkan import KAN, kanpiler

from .experiment import Experiment, Rows

SOLVER: dict[str, Any] = {"opt": "LM", "update_grid": False, "progress": False}
SPLINES: dict[str, Any] = {"seed": 0, "dtype": torch.float64, "sp_trainable": False}
LINES: dict[str, Any] = {**SPLINES, "grid": 1, "k": 1, "base_fun": "zero"}
Q, V = sympy.symbols("q v", real=True)
Q1, V1, Q2, V2 = sympy.symbols("q1 v1 q2 v2", real=True)
Result = tuple[float, sympy.Expr, Sequence, Tensor]  # error of the network, its formula, the inputs, points
Problems = dict[str, tuple[Callable[[int, sympy.Expr], Result], sympy.Expr]]


def random(rows: int, *ranges: float) -> Tensor:
    """Uniform points, input i between -ranges[i] and ranges[i]."""
    x = torch.rand(rows, len(ranges), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (2 * x - 1) * torch.tensor(ranges, dtype=torch.float64)


def points(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def error(y: Tensor, truth: sympy.Expr, inputs: Sequence, x: Tensor) -> float:
    """Root mean square error relative to the standard deviation."""
    true = torch.as_tensor(sympy.lambdify(inputs, truth, "numpy")(*x.numpy().T))[:, None]
    return ((y.detach() - true).square().mean().sqrt() / true.std()).item()


def formula(model: KAN, x: Tensor, inputs: Sequence, lib: Sequence[str] | None = None) -> sympy.Expr:
    """With the best function of the library on every edge."""
    model.get_act(x)
    model.auto_symbolic(lib=lib, verbose=0)
    return sympy.expand(model.symbolic_formula(var=inputs, snap=True)[0][0])


def energy(steps: int, truth: sympy.Expr) -> Result:
    """No change along the flow (v, -q) of an oscillator, and two values for zero and scale."""
    x = random(500, 1, 1)

    def residuals(model: KAN) -> list[Tensor]:
        slope = model.derivatives(x, 1)[1][:, 0]
        return [slope[:, 0] * x[:, 1] - slope[:, 1] * x[:, 0], model(points((0, 0), (1, 0))) - points((0,), (0.5,))]

    model = KAN([2, 1], grid=3, **SPLINES)
    model.fit(residuals=residuals, steps=steps, **SOLVER)
    return error(model(x), truth, (Q, V), x), formula(model, x, (Q, V)), (Q, V), x


def angular_momentum(steps: int, truth: sympy.Expr) -> Result:
    """Two oscillators: of the quadratic conserved quantities that vanish at six points the one that is 1 at a
    seventh, by two products of lines."""
    x, inputs = random(500, 1, 1, 1, 1), (Q1, V1, Q2, V2)
    known = points((0, 0, 0, 0), *torch.eye(4).tolist(), (1, 0, 1, 0), (1, 0, 0, 1))
    flow = torch.stack([x[:, 1], -x[:, 0], x[:, 3], -x[:, 2]], 1)

    def residuals(model: KAN) -> list[Tensor]:
        return [(model.derivatives(x, 1)[1][:, 0] * flow).sum(1), model(known) - points(*[(0,)] * 6, (1,))]

    model = KAN([4, [0, 2], 1], **LINES)
    model.fit(residuals=residuals, steps=3 * steps, **SOLVER)
    return error(model(x), truth, inputs, x), formula(model, x, inputs, ["x"]), inputs, x


def lagrangian(speed: float, acceleration: Callable[[Tensor], Tensor]) -> Callable[[int, sympy.Expr], Result]:
    """From accelerations: dL/dq = d/dt dL/dv. Zero and scale of L, and a total derivative, are free: given at 0."""
    x, zero, along = random(1000, 2, speed), points((0, 0)), points((1, 0), (0, 1), (1, 1))

    def residuals(model: KAN) -> list[Tensor]:
        _, slope, second = (part[:, 0] for part in model.derivatives(x, 2, along))
        mixed = (second[:, 2] - second[:, 0] - second[:, 1]) / 2
        value, slope_0, second_0 = (part[:, 0] for part in model.derivatives(zero, 2))
        motion = slope[:, 0] - mixed * x[:, 1] - second[:, 1] * acceleration(x)
        return [motion, value, slope_0[:, 1], second_0[:, 1] - 1]

    def run(steps: int, truth: sympy.Expr) -> Result:
        model = KAN([2, 1], grid=80, k=5, **SPLINES)
        model.update_grid(x)
        model.fit(residuals=residuals, steps=15, **SOLVER)
        of_network = error(model(x), truth, (Q, V), x)
        rows = x[:300]
        kinetic = KAN([1, 1, 1], grid=5, **SPLINES)  # even in v, so a function of v^2
        kinetic.get_act(rows[:, 1:])
        kinetic.fix_symbolic(0, 0, 0, "x^2", fit_params_bool=False, verbose=False)
        still = model(rows * points((0, 1))).detach()
        kinetic.fit((rows[:, 1:], still), opt="LM", steps=40, grid_sizes=[5, 10, 20], progress=False)
        model.remove_edge(0, 1, 0)
        parts = formula(kinetic, rows[:, 1:], (V,)) + formula(model, rows, (Q, V))
        compiled = kanpiler((Q, V), parts, dtype=torch.float64)  # its constants are trained on the same equation
        compiled.fit(residuals=residuals, steps=steps, **SOLVER)
        return of_network, compiled.symbolic_formula(var=(Q, V), snap=True)[0][0], (Q, V), x

    return run


def solved(problems: Problems, quick: bool) -> Rows:
    """A row for each problem."""
    rows = []
    for name, (solve, truth) in problems.items():
        start = time.perf_counter()
        of_network, found, inputs, x = solve(10 if quick else 30, truth)
        values = torch.as_tensor(sympy.lambdify(inputs, found, "numpy")(*x.numpy().T))[:, None]
        errors = {"network's error": of_network, "formula's error": error(values, truth, inputs, x)}
        seconds = round(time.perf_counter() - start, 1)
        rows.append({"problem": name, "formula": str(found), **errors, "seconds": seconds})
    return rows


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Errors of the networks and of their formulas."""
    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    for name, marker in (("network's error", "o"), ("formula's error", "s")):
        axes.semilogx([max(float(row[name]), 1e-17) for row in rows], range(len(rows)), marker, label=name)
    axes.set_yticks(range(len(rows)), [row["problem"] for row in rows])
    axes.set(xlabel="relative error")
    axes.invert_yaxis()
    axes.legend()
    return figure


PROBLEMS: Problems = {
    "oscillator: conserved": (energy, (Q**2 + V**2) / 2),
    "two oscillators: conserved": (angular_momentum, Q1 * V2 - V1 * Q2),
    "pendulum: Lagrangian": (lagrangian(2, lambda x: -torch.sin(x[:, 0])), V**2 / 2 + sympy.cos(Q) - 1),
    "relativistic mass: Lagrangian": (
        lagrangian(0.8, lambda x: (1 - x[:, 1] ** 2) ** 1.5), 1 + Q - sympy.sqrt(1 - V**2),
    ),
}  # fmt: skip
EXPERIMENT = Experiment(
    "Conserved quantities and Lagrangians",
    "Liu et al., KAN 2.0 (arXiv 2408.10205), section 5",
    "A conserved quantity does not change along the flow, a Lagrangian gives the measured accelerations by the "
    "Euler-Lagrange equation: `fit(residuals=...)` has both as they are written, with first and second derivatives "
    "of the network. Functions of the library on the edges then give the formula. That of a Lagrangian is compiled "
    "to a network again by `kanpiler`, whose constants are trained on the same equation until they are exact. "
    "Errors are relative to the standard deviation.",
    lambda quick: solved(PROBLEMS, quick),
    draw,
)
