"""One optimizer step at a time, undone or shortened where the objective is not finite."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import State, trained
from .domain import hold, release
from .lbfgs import LBFGS
from .levenberg_marquardt import LevenbergMarquardt
from .lm_residuals import NotFinite, ObjectiveResiduals, check_squares, without_scales
from .objective import Objective, Value

MAX_HALVINGS = 30  # of a step after which the objective is not finite
_EXPECTED = "'LBFGS', 'Adam', 'LM', an optimizer, its class or a function making one"


class Stepper:
    """An optimizer that minimises an objective, and the state of the model to return to.

    fixed: whether the parameters stay the same tensors; otherwise opt can't be an optimizer made before.
    """

    def __init__(self, opt: Any, lr: float, objective: Objective, fixed: bool = True):
        if isinstance(opt, str) and opt not in ("LBFGS", "Adam", "LM"):
            raise ValueError(f"opt={opt!r}: expected {_EXPECTED}")
        if not isinstance(opt, str | torch.optim.Optimizer) and not callable(opt):
            raise TypeError(f"opt={opt!r}: expected {_EXPECTED}")
        if isinstance(opt, torch.optim.Optimizer) and not fixed:
            raise ValueError("opt is an optimizer: expected its class, or a function making one, with grid_sizes")
        self.opt, self.lr, self.objective, self.model = opt, lr, objective, objective.model
        self.optimizer = self._make(trained(self.model))
        check_squares(self.optimizer, objective.loss_fn)
        self.state = State(self.model)

    def extend_grids(self, sizes: list[int]) -> None:
        """Give each layer that many grid intervals; the optimizer then takes the new parameters."""
        changed = [(layer, size) for layer, size in zip(self.model.act_fun, sizes, strict=True) if layer.num != size]
        for layer, size in changed:
            layer.linear.extend_grid(size)
        if changed:
            self.optimizer = self._make(trained(self.model))

    def step(self, x: Tensor, y: Tensor, last: bool) -> Value:
        """One step; returns the loss and the penalty where it ended, or began if the optimizer evaluated only once.

        `state` is then the model before the step. last: no step follows that would evaluate the model where this one
        ended. Raises NotFinite where no finite step exists.
        """
        try:
            value = self._take(x, y, last)
        except NotFinite:  # the previous step, on another batch, went too far
            if self._shorten(x, y) is None:
                raise
            value = self._take(x, y, last)
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise NotFinite("the step is not finite")
        return value

    def _make(self, parameters: Sequence[Tensor]) -> Any:
        """The optimizer of these parameters: any object with zero_grad and step."""
        if not parameters:
            raise ValueError("the model has no parameter to train: expected one that requires a gradient")
        if isinstance(self.opt, torch.optim.Optimizer):
            return self.opt
        if isinstance(previous := getattr(self, "optimizer", None), LevenbergMarquardt):
            previous.follow(without_scales(self.model, parameters))
            return previous
        if self.opt == "LM" or self.opt is LevenbergMarquardt:
            return LevenbergMarquardt(without_scales(self.model, parameters))
        if self.opt == "Adam":
            least = max(torch.finfo(p.dtype).tiny for p in parameters)  # float16 has no 1e-8
            return torch.optim.Adam(parameters, lr=self.lr, eps=max(1e-8, least))
        if self.opt == "LBFGS":
            return LBFGS(parameters, lr=self.lr)
        make: Any = self.opt
        return make(parameters, lr=self.lr) if isinstance(make, type) else make(parameters)

    def _take(self, x: Tensor, y: Tensor, last: bool) -> Value:
        if isinstance(self.optimizer, LevenbergMarquardt):
            residuals = ObjectiveResiduals(self.objective, x, y, self.state)
            self.optimizer.step(residuals)
            return residuals.value
        evaluate, value = self.objective.step_function(), Value(torch.zeros(()), torch.zeros(()))
        evaluations, first, failed = 0, math.inf, False

        def closure() -> Any:  # a tensor; torch declares a float
            nonlocal value, evaluations, first, failed
            self.optimizer.zero_grad()
            total, value = evaluate(x, y)
            if evaluations == 0:
                self._check(value)
                self.state.keep()
                first = float(total)
            elif value.failure():  # a large number, at which every line search turns back
                failed, total = True, torch.full_like(total, 1e3 * abs(first) + 1.0)
                for p in self.model.parameters():
                    p.grad = None if p.grad is None else torch.zeros_like(p)
            evaluations += 1
            return total

        try:
            self.optimizer.step(closure)
        except RuntimeError as error:
            if "overflow" not in str(error):  # torch's, of a number that float16 can't hold
                raise
            raise NotFinite("the step is not finite") from error
        if evaluations == 1 and not last:
            return value
        begun = value if evaluations == 1 else None
        if failed:
            self._step_along_domain(x, y, first, closure)
        value = self.objective.value(x, y)  # the last evaluation need not be where the optimizer ended
        if why := value.failure():
            value = self._shorten(x, y)
            if value is None:
                raise NotFinite(why)
        return begun or value

    def _step_along_domain(self, x: Tensor, y: Tensor, before: float, closure: Callable[[], Any]) -> None:
        """Another step, with b of formulas held at the edge of their domains, if a line search left one in vain."""
        value = self.objective.value(x, y)
        if value.failure() or self.objective.total(value) < before:
            return
        if hold(self.model, x):
            try:
                self.optimizer.step(closure)
            finally:
                release(self.model, x)

    def _shorten(self, x: Tensor, y: Tensor) -> Value | None:
        """Move formulas into their domains, or go halfway back to `state` until the objective is finite.

        Returns the objective there; None where it never is.
        """
        if hold(self.model, x, beside=0.0):
            release(self.model, x)
            value = self.objective.value(x, y)
            if not value.failure():
                return value
        for _ in range(MAX_HALVINGS):
            if not self.state.approach():
                return None
            value = self.objective.value(x, y)
            if not value.failure():
                return value
        return None

    def _check(self, value: Value) -> None:
        """Raises NotFinite where the objective or a gradient is not finite."""
        if why := value.failure():
            raise NotFinite(why)
        grads = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        if math.isfinite(sum(grad.sum() for grad in grads.values())):
            return
        for name, grad in grads.items():  # a sum may be infinite where its terms are not
            if not bool(grad.isfinite().all()):
                raise NotFinite(f"the gradient of {name} is not finite")
