"""The training objective: loss + lamb * penalty, with its gradients for one optimizer step."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...devices import HOST
from .data import Data
from .gradient import Gradient, is_supported, mean_square
from .penalties import penalty
from .ridge import Ridge
from .transfer import Kept

if TYPE_CHECKING:
    from ..model import KAN

Loss = Callable[[Tensor, Tensor], Tensor]


class Value(NamedTuple):
    """The loss and the penalty of a batch, numbers without a graph."""

    loss: Tensor
    penalty: Tensor

    def failure(self) -> str | None:
        """Which of the two is not finite, in words; None if both are."""
        for name, value in zip(self._fields, self, strict=True):
            if not math.isfinite(value):
                return f"the {name} is {float(value)}"
        return None


NOTHING = Value(torch.zeros((), device=HOST), torch.zeros((), device=HOST))


class Objective:
    """loss_fn(model(x), y) + lamb * penalty.

    Args:
        loss_fn: (prediction, label) -> number; None for the mean square error.
        lamb, reg_metric, lambdas: weight of the penalty, its metric, and the weights of its parts; see penalties.reg.
        options: keyword arguments of the model's forward.
        lamb_base: share of the ridge on base weights, see ridge.Ridge; only in the gradients of a step.
    """

    def __init__(
        self, model: "KAN", loss_fn: Loss | None, lamb: float, reg_metric: str, lambdas: dict[str, float],
        options: dict, lamb_base: float = 0.0,
    ):  # fmt: skip
        if reg_metric not in model.reg_metrics:
            raise ValueError(f"reg_metric={reg_metric!r}: expected one of {', '.join(map(repr, model.reg_metrics))}")
        self.model, self.lamb, self.reg_metric, self.lamb_base = model, lamb, reg_metric, lamb_base
        self.loss_fn, self.lambdas, self.options = loss_fn or mean_square, lambdas, options
        self.kept = Kept()

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Value]:
        """The differentiable objective of a batch, and its parts."""
        if not self.lamb:
            loss = self.loss_fn(self.model(x, **self.options), y)
            return loss, Value(loss.detach(), NOTHING.penalty)
        record = self.model.flow(x, **self.options)
        loss = self.loss_fn(record.acts[-1].reshape(*x.shape[:-1], -1), y)
        reg = penalty(self.model, record, self.reg_metric, **self.lambdas)
        return loss + self.lamb * reg, Value(loss.detach(), reg.detach())

    @torch.no_grad()
    def value(self, x: Tensor, y: Tensor) -> Value:
        """Loss and penalty of a batch, without gradients."""
        return self(x, y)[1]

    def total(self, value: Value) -> Tensor:
        """loss + lamb * penalty."""
        return value.loss + self.lamb * value.penalty

    def step_function(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Value]]:
        """(x, y) -> the objective with the ridge, and its parts; adds the gradients to .grad.

        For one optimizer step, in which nothing but parameters changes: the ridge is scaled by the first loss.
        """
        ridge, fused = Ridge(self.model, self.lamb_base), self.fused()
        dtype = self.model.act_fun[0].linear.coef.dtype if fused else None

        def evaluate(x: Tensor, y: Tensor) -> tuple[Tensor, Value]:
            if fused and x.dtype == dtype:
                value = Value(*fused(x, y))
                total = self.total(value)
            else:
                total, value = self(x, y)
                total.backward()
                total = total.detach()
            ridge.set_scale(value.loss, y)
            return total + ridge.add(), value

        return evaluate

    def fused(self) -> Gradient | None:
        """The objective with its gradients in fused calls; None where it has other parts."""
        if not is_supported(self.model, self.lamb, self.reg_metric):
            return None
        return Gradient(self.model, self.loss_fn, self.lamb, self.reg_metric, self.lambdas, self.options, self.kept)

    def points(self, x: Tensor, y: Tensor) -> Tensor:
        """The inputs of the model in an evaluation."""
        return x

    @torch.no_grad()
    def test(self, data: Data) -> Tensor:
        """The mean loss over the test set, each batch weighted by its rows, in evaluation mode."""
        total, rows, training = 0.0, 0, self.model.training
        self.model.train(training and not getattr(self.model, "dropout", 0.0))
        for x, y in data.test_batches():
            total = total + self.loss_fn(self.model(x, **self.options), y).detach() * len(x)
            rows += len(x)
        self.model.train(training)
        return torch.as_tensor(total) / max(rows, 1)

    def shown(self, loss: Tensor) -> float:
        """The root of a mean square error, as pykan shows it; other losses unchanged."""
        is_square = self.loss_fn is mean_square or getattr(self.loss_fn, "is_square", False)
        return loss.sqrt().item() if is_square else loss.item()
