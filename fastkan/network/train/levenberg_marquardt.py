"""Levenberg-Marquardt optimizer: damped Gauss-Newton steps, dense for small networks, matrix-free for larger ones.

A step minimises |r + J step|^2 + damping |step|^2 for residuals r with Jacobian J. It is accepted if the sum of squares
falls. The damping follows the ratio of the actual to the predicted gain.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ...devices import at_home, on_host, place
from .jacobian import Products, Residuals

SOLVERS = ("auto", "dense", "cg")
DAMPING_RANGE = 1e-14, 1e14  # relative to the largest curvature
# The first step searches for its damping: times SEARCH while the gain grows and is at least TRUSTED of the predicted
# one. Where the model is far from linear the damping stays, and with it the basin.
SEARCH, TRUSTED = 0.1, 0.9


class LevenbergMarquardt(torch.optim.Optimizer):
    """Levenberg-Marquardt for 1/2 sum r^2; a call of step is one step with its retries.

    Args:
        params: real floating-point tensors, one group. Those without requires_grad stay unchanged.
        damping: initial damping, relative to the curvature along the gradient; above 0. The first step tries smaller
            values while they gain more and the linear model holds, so that many short trainings equal a long one.
        solver: "dense" forms J and solves by Cholesky; "cg" runs conjugate gradients on products with J and J^T, two
            backward passes each; "auto" takes dense where J and the matrix to solve fit into max_bytes.
        max_trials: number of trials of a step, each with larger damping, at least 1.
        cg_steps: maximum number of conjugate gradient steps; cg_tolerance: relative residual at which they end.
        max_bytes: bound on J with the matrix to solve, and on the part of J computed at a time.

    step(closure): closure() returns the residuals, a tensor of any shape, as a differentiable function of the
    parameters; any number of calls must return the same. With jacobian.Residuals of a KAN for closure, J comes from the
    network's structure, at a fraction of the cost of autograd. Neither zero_grad nor backward is needed.
    Returns the mean of the squared residuals before the step, as a tensor. A trial that is not finite or not better is
    undone; if none is better the parameters stay bit for bit, and the next call continues with larger damping. After a
    change of data, grids or parameters it restarts at the damping of the last accepted step. If the residuals are not
    finite at the start, nothing is changed.

    state_dict holds the damping; with the same state, parameters and closure a step is the same.

    Raises TypeError or ValueError that name the argument, its value and what was expected.

    Source: Levenberg 1944, Marquardt 1963; the damping's schedule is Nielsen's (IMM-REP-1999-05).
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        damping: float = 0.03,
        *,
        solver: str = "auto",
        max_trials: int = 10,
        cg_steps: int = 50,
        cg_tolerance: float = 0.3,
        max_bytes: int = 1 << 28,
    ):
        if not (isinstance(damping, int | float) and math.isfinite(damping) and damping > 0):
            raise ValueError(f"damping={damping!r}: expected a finite number above 0")
        if solver not in SOLVERS:
            raise ValueError(f"solver={solver!r}: expected one of {', '.join(map(repr, SOLVERS))}")
        if not (isinstance(cg_tolerance, int | float) and 0 < cg_tolerance < 1):
            raise ValueError(f"cg_tolerance={cg_tolerance!r}: expected a number between 0 and 1")
        for name, value in {"max_trials": max_trials, "cg_steps": cg_steps, "max_bytes": max_bytes}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: expected an integer, at least 1")
        defaults = {
            "damping": float(damping), "solver": solver, "max_trials": max_trials, "cg_steps": cg_steps,
            "cg_tolerance": cg_tolerance, "max_bytes": max_bytes,
        }  # fmt: skip
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError(
                f"params has {len(self.param_groups)} groups: expected one, steps are taken in all at once"
            )
        for p in self.param_groups[0]["params"]:
            if not p.is_floating_point():
                raise TypeError(f"params has a tensor of {p.dtype}: expected real floating-point ones")

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """One step; see the class."""
        if not callable(closure):
            raise TypeError(f"closure={closure!r}: expected a function that returns the residuals")
        group = self.param_groups[0]
        params = [p for p in group["params"] if p.requires_grad]
        if not params:
            raise ValueError("params: expected at least one tensor with requires_grad")
        system = _choose_solver(_linearised(closure, params), group)
        residuals = system.linear.residuals
        value = residuals.square().mean().to(params[0].dtype)
        loss, norm, curvature = map(float, on_host(0.5 * residuals.square().sum(), *system.scales))
        if isinstance(closure, Residuals):
            closure.begun(loss, norm)
        if not math.isfinite(loss):
            return value
        state = self.state[group["params"][0]]
        if norm > 0:
            self._descend(closure, params, system, loss, max(curvature, 1e-300), state, group)
        state["steps"] = state.get("steps", 0) + 1
        return value

    def follow(self, params: Iterable[Tensor]) -> None:
        """Continue with other parameters, such as those after a grid extension: the damping stays."""
        group = self.param_groups[0]
        state = self.state.pop(group["params"][0], {})
        group["params"] = list(params)
        if state:
            self.state[group["params"][0]] = state

    def _descend(self, closure, params, system, loss: float, curvature: float, state: dict, group: dict) -> None:
        """Trials with increasing damping until one is better; on the first step then with smaller ones."""
        low, high = (bound * curvature for bound in DAMPING_RANGE)
        start = "damping" not in state
        damping, growth = state.get("damping", group["damping"] * curvature), 2.0
        if state.get("failed") == loss:  # the same step again
            damping, growth = state["trial"]
        before = [p.detach().clone() for p in params]
        rounding = _rounding(params, loss)
        for _ in range(group["max_trials"]):
            damping = min(max(damping, low), high)
            best = self._try(closure, params, before, system, loss, damping)
            if 0 <= best.predicted <= rounding or best.gain > 0:
                break
            damping *= growth
            growth, start = min(2 * growth, 64.0), False
        if not best.gain > 0:
            _move(params, before, None)
            state["failed"], state["trial"] = loss, (damping, growth)
            return
        while start and best.damping > low and best.gain > TRUSTED * best.predicted:
            trial = self._try(closure, params, before, system, loss, max(best.damping * SEARCH, low))
            if not trial.gain > best.gain:
                _move(params, before, system.linear.expanded(best.step))
                break
            best = trial
        if isinstance(closure, Residuals):
            closure.taken(best.numbers)
        ratio = best.gain / best.predicted
        state["damping"] = best.damping * max(1 / 5, 1 - (2 * min(ratio, 2.0) - 1) ** 3)

    def _try(self, closure, params, before, system, loss: float, damping: float) -> "_Trial":
        """A step with this damping, and its gain where the predicted one exceeds rounding; the parameters are then
        moved, and else in vain where only the device knows the prediction: all numbers are read in one wait."""
        step, predicted = system.solve(damping)
        if predicted.is_cpu and not _is_gain(float(predicted), params, loss):
            return _Trial(damping, step, float(predicted), -math.inf, [])
        _move(params, before, system.linear.expanded(step))
        with torch.enable_grad():
            residuals = closure().detach()
        numbers = closure.numbers() if isinstance(closure, Residuals) else ()
        residuals, *numbers = at_home(residuals, *numbers)
        after, predicted, *numbers = on_host(0.5 * residuals.double().square().sum(), predicted, *numbers)
        gain = loss - float(after) if _is_gain(float(predicted), params, loss) else -math.inf
        return _Trial(damping, step, float(predicted), gain, numbers)


class _Trial(NamedTuple):
    """A step, its predicted gain, its actual gain, -inf if that was not looked for or is not finite, and the closure's
    numbers there."""

    damping: float
    step: Tensor
    predicted: float
    gain: float
    numbers: list[Tensor]


def _check_residuals(residuals: Tensor) -> None:
    if not isinstance(residuals, Tensor) or not residuals.is_floating_point() or not residuals.numel():
        raise TypeError(f"closure returned {residuals!r}: expected a tensor of residuals")
    if not residuals.requires_grad:
        raise ValueError("closure returned residuals without a graph: expected a function of the parameters")


def _rounding(params: list[Tensor], loss: float) -> float:
    """Gain below which rounding hides a change of the loss."""
    return torch.finfo(params[0].dtype).eps * loss


def _is_gain(predicted: float, params: list[Tensor], loss: float) -> bool:
    return math.isfinite(predicted) and predicted > _rounding(params, loss)


def _move(params: list[Tensor], before: list[Tensor], step: Tensor | None) -> None:
    """Set params to before + step, or to before: through .data, since the graph of the residuals is still needed."""
    offset, step = 0, None if step is None else place(step, params[0].device)
    for p, start in zip(params, before, strict=True):
        if step is None:
            p.data.copy_(start)
        else:
            p.data.copy_(start + step[offset : offset + p.numel()].view_as(p).to(p.dtype))
        offset += p.numel()


def _linearised(closure, params: list[Tensor]):
    """Residuals and their Jacobian, with the methods of jacobian.Products."""
    if isinstance(closure, Residuals):
        return closure.linearised(params)
    with torch.enable_grad():
        residuals = closure()
    _check_residuals(residuals)
    return Products(residuals, params)


def _choose_solver(linear, group: dict):
    p, r = linear.count, len(linear.residuals)
    solver = group["solver"]
    if solver == "auto":
        primal = linear.curved or p <= r
        held = linear.bytes_of(primal) + 16 * (p if primal else r) ** 2
        solver = "dense" if held <= group["max_bytes"] else "cg"
    if solver == "dense":
        return _Dense(linear, group["max_bytes"])
    return _MatrixFree(linear, group["cg_steps"], group["cg_tolerance"], group["max_bytes"])


class _Dense:
    """Cholesky factors of J^T J or of J J^T, whichever is smaller. scales: |J^T r| and the largest curvature.

    (J^T J + d)^-1 J^T = J^T (J J^T + d)^-1.
    """

    def __init__(self, linear, max_bytes: int):
        self.linear, self.residuals = linear, linear.residuals
        self.primal = linear.curved or linear.count <= len(self.residuals)
        if self.primal:
            self.matrix, self.grad = linear.gram(max_bytes), linear.gradient
        else:
            self.jacobian = linear.jacobian(max_bytes)
            self.matrix, self.grad = self.jacobian @ self.jacobian.T, self.jacobian.T @ self.residuals
        self.scales = self.grad.norm(), self.matrix.diagonal().max()

    def solve(self, damping: float) -> tuple[Tensor, Tensor]:
        """The step and its predicted gain, NaN where there is none."""
        damped = self.matrix.clone()
        damped.diagonal().add_(damping)
        factor, failed = torch.linalg.cholesky_ex(damped)
        side = self.grad if self.primal else self.residuals
        solution = torch.cholesky_solve(side[:, None], factor)[:, 0]
        step = -solution if self.primal else -(self.jacobian.T @ solution)
        gain = 0.5 * (step @ (damping * step - self.grad))
        return step, torch.where(failed == 0, gain, math.nan)


class _MatrixFree:
    """Conjugate gradients on the normal equations, from products with J and J^T. scales: |J^T r| and the curvature
    along the gradient, NaN where that is 0."""

    def __init__(self, linear, steps: int, tolerance: float, max_bytes: int):
        self.linear, self.steps, self.tolerance = linear, steps, tolerance
        self.grad = linear.gradient
        self.diagonal = linear.diagonal(max_bytes)
        norm = self.grad.norm()
        self.scales = norm, (self.grad @ linear.product(self.grad)) / norm.square()

    def solve(self, damping: float) -> tuple[Tensor, Tensor]:
        """As _Dense.solve, to the tolerance. Each iterate is a descent direction."""
        inverse = 1.0 if self.diagonal is None else 1.0 / (self.diagonal + damping)
        step = torch.zeros_like(self.grad)
        rest = -self.grad
        direction = inverse * rest
        size = float(rest @ direction)
        target = self.tolerance**2 * size
        for _ in range(self.steps):
            applied = self.linear.product(direction) + damping * direction
            curvature = float(direction @ applied)
            if not (math.isfinite(curvature) and curvature > 0):
                break
            length = size / curvature
            step += length * direction
            rest -= length * applied
            preconditioned = inverse * rest
            size, last = float(rest @ preconditioned), size
            if size <= target:
                break
            direction = preconditioned + (size / last) * direction
        # gain = -grad.step - 1/2 step.A step, and A step = -grad - rest - damping step
        return step, 0.5 * (step @ (damping * step - self.grad + rest))
