"""The evaluations of the objective in one optimizer step: an optimizer's closure, and the checks of its results."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...devices import on_host
from ..checkpoint import State
from .lm_residuals import NotFinite
from .objective import NOTHING, Objective, Value
from .transfer import finite

if TYPE_CHECKING:
    from ..model import KAN

Test = Callable[[], Tensor]


class Read(NamedTuple):
    """The objective where a step ended, if it was evaluated there; whether all parameters are finite, and the test
    loss, None where unknown."""

    end: Value | None
    is_finite: bool | None = None
    tested: Tensor | None = None


class Evaluations:
    """The closure of one step of an optimizer, for a model on a CPU: checks what it returns at once.

    Raises NotFinite where the objective or a gradient is not finite at the start; otherwise the model there is kept in
    `state`. Later a large number takes the place of an objective that is not finite: every line search turns back.

    value: the objective at the last evaluation; first: its total at the first one; count: of evaluations; failed:
    whether a later one was not finite.
    """

    def __init__(self, objective: Objective, optimizer: Any, state: State, x: Tensor, y: Tensor):
        self.objective, self.optimizer, self.state, self.data = objective, optimizer, state, (x, y)
        self.evaluate = objective.step_function()
        self.value = NOTHING
        self.count, self.first, self.failed = 0, math.inf, False

    def __call__(self) -> Any:  # a tensor; torch declares a float
        self.optimizer.zero_grad()
        total, self.value = self.evaluate(*self.data)
        if self.count == 0:
            check(self.objective.model, self.value)
            self.state.keep()
            self.first = float(total)
        elif self.value.failure():
            self.failed, total = True, torch.full_like(total, _beyond(abs(self.first)))
            for p in self.objective.model.parameters():
                p.grad = None if p.grad is None else torch.zeros_like(p)
        self.count += 1
        return total

    def read(self, end: Value | None, test: Test | None) -> Read:
        """What the host has to know after the step. end: the objective there, if it was evaluated."""
        return Read(end)


class DeferredEvaluations(Evaluations):
    """Evaluations for a model on a device: what is not finite is replaced there, and the host looks once, in `read`.

    A start that is not finite has the gradient 0; `read` then undoes the step and raises NotFinite.
    """

    def __call__(self) -> Any:
        self.optimizer.zero_grad()
        total, self.value = self.evaluate(*self.data)
        right = self.value.loss.isfinite() & self.value.penalty.isfinite()
        graded = [p for p in self.objective.model.parameters() if p.grad is not None]
        if self.count == 0:
            if graded:
                right = right & finite([p.grad for p in graded if p.grad is not None])
            self.begun, self.before, self.total = self.value, State(self.objective.model), total
            self.right, self.later = right, torch.ones_like(right)
        else:
            self.later = self.later & right
            total = torch.where(right, total, _beyond(self.total.abs()))
        for p in graded:
            assert p.grad is not None
            p.grad = torch.where(right, p.grad, 0.0)
        self.count += 1
        return total

    def read(self, end: Value | None, test: Test | None) -> Read:
        parts = [self.total, self.right, self.later, *self.begun, *(end or ())]
        (total, right, later, *values), read = look(self.objective.model, test, *parts)
        self.value, self.first, self.failed = Value(*values[:2]), float(total), not later
        if not right:
            self.before.restore()
            self.optimizer.zero_grad()
            check(self.objective.model, self.evaluate(*self.data)[1])
            raise NotFinite("the objective or a gradient is not finite")
        self.state.parameters, self.state.grids = self.before.parameters, self.before.grids
        return read if end is None else read._replace(end=Value(*values[2:]))


def look(model: "KAN", test: Test | None, *numbers: Tensor) -> tuple[list[Tensor], Read]:
    """Numbers on the host, and what is known after a step without its end, in one wait."""
    read = on_host(*numbers, *(check() for check in checks(model, test)))
    return read[: len(numbers)], known(read[len(numbers) :])


def checks(model: "KAN", test: Test | None) -> list[Test]:
    """Functions that give what is to be known after a step: whether all parameters are finite, and the test loss."""
    return [lambda: finite(list(model.parameters())), *([] if test is None else [test])]


def known(results: list[Tensor]) -> Read:
    """Read of the results of checks, on the host."""
    return Read(None, bool(results[0]), results[1] if len(results) > 1 else None)


def _beyond(size: Any) -> Any:
    """A number above an objective of that size."""
    return 1e3 * size + 1.0


def check(model: "KAN", value: Value) -> None:
    """Raises NotFinite where the objective or a gradient is not finite."""
    if why := value.failure():
        raise NotFinite(why)
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if math.isfinite(sum(grad.sum() for grad in grads.values())):
        return
    for name, grad in grads.items():  # a sum may be infinite where its terms are not
        if not bool(grad.isfinite().all()):
            raise NotFinite(f"the gradient of {name} is not finite")
