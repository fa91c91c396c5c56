"""Formulas of physics: the hidden symmetry of a black hole, constitutive laws, and a compiled formula."""

from typing import Any

import sympy
import torch
from torch import Tensor

from fastkan import KAN, kanpiler

from .experiment import Experiment
from .physics import LINES, SOLVER, SPLINES, Problems, Q, Result, V, draw, error, formula, random, solved

R = sympy.Symbol("r", real=True)
F11, F12, F13, F21, F22, F23 = F = sympy.symbols("F11 F12 F13 F21 F22 F23", real=True)
DET = sympy.Symbol("D", positive=True)
STRESS = *F, DET
MU, LAME = sympy.Rational(5, 12), sympy.Rational(5, 18)  # of Young's modulus 1 and Poisson's ratio 1/5


def black_hole(steps: int, truth: sympy.Expr) -> Result:
    """The time t + f(r) in which space is flat around a black hole of radius 1; the formula is that of the metric's
    only mixed term, (1 - 1 / r) df/dr, the velocity of the space that falls in."""
    r = torch.linspace(1.2, 3, 200, dtype=torch.float64)[:, None]
    n = torch.nn.functional.normalize(random(200, 1, 1, 1), dim=1)
    one, outer, s = torch.eye(3).double(), n[:, :, None] * n[:, None, :], r[:, :, None]

    def residuals(model: KAN) -> list[Tensor]:
        schwarzschild = -(one + outer / (s - 1))
        return [schwarzschild + (1 - 1 / s) * model.derivatives(r, 1)[1] ** 2 * outer + one]

    # It starts as f = r, since both signs of df/dr are solutions, and those that change are none.
    line: dict[str, Any] = {"base_fun": "identity", "scale_base_mu": 1.0, "scale_base_sigma": 0.0, "noise_scale": 0.01}
    model = KAN([1, 1], grid=10, k=5, grid_range=(1.2, 3), **line, **SPLINES)
    model.fit(residuals=residuals, steps=5 * steps, grid_sizes=[10, 20, 40, 80], **SOLVER)
    mixed = (1 - 1 / r) * model.derivatives(r, 1)[1][:, 0].detach()
    function = KAN([1, 1], grid=10, grid_range=(1.2, 3), **SPLINES)
    function.fit((r, mixed), steps=steps, **SOLVER)
    formula(function, r, (R,))
    function.fit((r, mixed), steps=steps, **SOLVER)
    return error(mixed, truth, (R,), r), function.symbolic_formula(var=(R,), snap=True)[0][0], (R,), r


def stress(row: int) -> tuple[Tensor, Tensor]:
    """F11 to F23 and det F of deformations F, and the stress mu (F F^T - 1) + lambda log(det F) in the first row."""
    f = torch.eye(3).double() + random(500, *[0.3] * 9).view(-1, 3, 3)
    det, one = torch.linalg.det(f)[:, None], torch.eye(3).double()[0]
    first = float(MU) * ((f @ f.mT)[:, 0] - one) + float(LAME) * det.log() * one
    return torch.cat([f[:, :2].flatten(1), det], 1), first[:, [row]]


def normal_stress(steps: int, truth: sympy.Expr) -> Result:
    """One layer; needless inputs are pruned."""
    x, y = stress(0)
    model = KAN([7, 1], grid=3, **SPLINES)
    model.fit((x, y), opt="LM", steps=steps, progress=False)
    of_network = error(model(x), truth, STRESS, x)
    model = model.prune_input(threshold=0.02)
    formula(model, x, STRESS)
    model.fit((x, y), opt="LM", steps=3 * steps, progress=False)
    return of_network, sympy.expand(model.symbolic_formula(var=STRESS, snap=True)[0][0]), STRESS, x


def shear_stress(steps: int, truth: sympy.Expr) -> Result:
    """Three products of lines."""
    x, y = stress(1)
    model = KAN([7, [0, 3], 1], **LINES)
    model.fit((x, y), steps=3 * steps, **SOLVER)
    return error(model(x), truth, STRESS, x), formula(model, x, STRESS, ["x"]), STRESS, x


def compiled(steps: int, truth: sympy.Expr) -> Result:
    """A formula as a network, and back."""
    model, x = kanpiler((Q, V), truth, dtype=torch.float64), random(500, 0.9, 0.9)
    return error(model(x), truth, (Q, V), x), model.symbolic_formula(var=(Q, V), snap=True)[0][0], (Q, V), x


PROBLEMS: Problems = {
    "black hole: mixed term": (black_hole, 1 / sympy.sqrt(R)),
    "neo-Hookean P11": (normal_stress, MU * (F11**2 + F12**2 + F13**2 - 1) + LAME * sympy.log(DET)),
    "neo-Hookean P12": (shear_stress, MU * (F11 * F21 + F12 * F22 + F13 * F23)),
    "kanpiler: sum of velocities": (compiled, (Q + V) / (1 + Q * V)),
}
EXPERIMENT = Experiment(
    "Hidden symmetry, constitutive laws, compiled formulas",
    "Liu et al., KAN 2.0 (arXiv 2408.10205), section 5",
    "The time t + f(r) makes the space around a black hole flat, which its coordinates hide (Painleve and Gullstrand): "
    "f is trained until the metric is flat; its mixed term then is the velocity of the space that falls in. The "
    "stress of a neo-Hookean material is found from deformation gradients F: P11 by a sum of functions, with the "
    "determinant D as another input, P12 by multiplication nodes. `kanpiler` makes a network of a formula. Errors are "
    "relative to the standard deviation.",
    lambda quick: solved(PROBLEMS, quick),
    draw,
)
