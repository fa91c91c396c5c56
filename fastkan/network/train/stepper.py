"""One optimizer step at a time, undone or shortened where the objective is not finite."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import State, trained
from .domain import hold, release
from .evaluations import DeferredEvaluations, Evaluations, Read, Test, checks, known, look
from .lbfgs_on_device import lbfgs
from .levenberg_marquardt import LevenbergMarquardt
from .lm_residuals import NotFinite, ObjectiveResiduals, check_squares, without_scales
from .objective import Objective, Value
from .pointwise import PointwiseObjective, PointwiseResiduals
from .transfer import finite

MAX_HALVINGS = 30  # of a step after which the objective is not finite
_EXPECTED = (
    "'LBFGS', 'Adam', 'LM', 'auto', another name of torch.optim, an optimizer, its class or a function making one"
)


class Stepper:
    """An optimizer that minimises an objective, and the state of the model to return to.

    fixed: whether the parameters stay the same tensors; otherwise opt can't be an optimizer made before.
    """

    def __init__(self, opt: Any, lr: float | None, objective: Objective, fixed: bool = True):
        if isinstance(opt, str) and opt not in ("LBFGS", "Adam", "LM"):
            opt = _by_name(opt)
        if not isinstance(opt, str | torch.optim.Optimizer) and not callable(opt):
            raise TypeError(f"opt={opt!r}: expected {_EXPECTED}")
        if isinstance(opt, torch.optim.Optimizer) and not fixed:
            raise ValueError("opt is an optimizer: expected its class, or a function making one, with grid_sizes")
        self.opt, self.lr, self.objective, self.model = opt, lr, objective, objective.model
        self.optimizer = self._make(trained(self.model))
        check_squares(self.optimizer, objective.loss_fn)
        if getattr(self.model, "dropout", 0.0) and self.opt in ("LBFGS", "LM"):
            raise ValueError(f"opt={opt!r}: expected another, such as 'Adam', with dropout: losses are then random")
        self.state = State(self.model)

    def extend_grids(self, sizes: list[int]) -> None:
        """Give each layer that many grid intervals; the optimizer then takes the new parameters."""
        changed = [(layer, size) for layer, size in zip(self.model.act_fun, sizes, strict=True) if layer.num != size]
        for layer, size in changed:
            layer.linear.extend_grid(size)
        if changed:
            self.optimizer = self._make(trained(self.model))

    def step(self, x: Tensor, y: Tensor, last: bool, test: Test | None = None) -> tuple[Value, Tensor | None]:
        """One step; returns the loss and the penalty where it ended, or began if the optimizer evaluated only once, and
        the test loss after it. The host waits for a device once, beside what the optimizer waits.

        `state` is then the model before the step. last: no step follows that would evaluate the model where this one
        ended. Raises NotFinite where no finite step exists.
        """
        try:
            value, read = self._take(x, y, last, test)
        except NotFinite:  # the previous step, on another batch, went too far
            if self._shorten(x, y) is None:
                raise
            value, read = self._take(x, y, last, test)
        if not (bool(finite(list(self.model.parameters()))) if read.is_finite is None else read.is_finite):
            raise NotFinite("the step is not finite")
        return value, test() if read.tested is None and test is not None else read.tested

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
            return torch.optim.Adam(parameters, lr=1.0 if self.lr is None else self.lr, eps=max(1e-8, least))
        if self.opt == "LBFGS":
            return lbfgs(parameters, lr=1.0 if self.lr is None else self.lr)
        make: Any = self.opt
        return make(parameters, lr=self.lr) if isinstance(make, type) and self.lr is not None else make(parameters)

    def _take(self, x: Tensor, y: Tensor, last: bool, test: Test | None) -> tuple[Value, Read]:
        deferred = self.model.device.type != "cpu"
        if isinstance(self.optimizer, LevenbergMarquardt):
            further = checks(self.model, test) if deferred else []
            kind = PointwiseResiduals if isinstance(self.objective, PointwiseObjective) else ObjectiveResiduals
            residuals = kind(self.objective, x, y, self.state, further)
            self.optimizer.step(residuals)
            if not deferred:
                return residuals.value, Read(None)
            if residuals.read:
                return residuals.value, known(residuals.read)
            value, read = look(self.model, test, *residuals.value)
            return Value(*value), read
        kind = DeferredEvaluations if deferred else Evaluations
        evaluations = kind(self.objective, self.optimizer, self.state, x, y)
        try:
            self.optimizer.step(evaluations)
        except RuntimeError as error:
            if "overflow" not in str(error):  # torch's, of a number that float16 can't hold
                raise
            raise NotFinite("the step is not finite") from error
        once = evaluations.count == 1
        # The last evaluation need not be where the optimizer ended.
        read = evaluations.read(None if once and not last else self.objective.value(x, y), test)
        if (end := read.end) is None:
            return evaluations.value, read
        begun = evaluations.value
        if evaluations.failed and self._step_along_domain(x, end, evaluations):
            read = Read(end := self.objective.value(x, y))
        if why := end.failure():
            read = Read(end := self._shorten(x, y))
            if end is None:
                raise NotFinite(why)
        return begun if once else end, read

    def _step_along_domain(self, x: Tensor, value: Value, evaluations: Evaluations) -> bool:
        """Another step, with b of formulas held at the edge of their domains, if a line search left one in vain."""
        if value.failure() or self.objective.total(value) < evaluations.first or not hold(self.model, x):
            return False
        try:
            self.optimizer.step(evaluations)
        finally:
            release(self.model, x)
        return True

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


def _by_name(name: str) -> type:
    """The class of torch.optim with this name; ValueError for another."""
    found = getattr(torch.optim, name, None)
    if not isinstance(found, type) or not issubclass(found, torch.optim.Optimizer) or found is torch.optim.Optimizer:
        raise ValueError(f"opt={name!r}: expected {_EXPECTED}")
    return found
