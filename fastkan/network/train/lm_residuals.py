"""Residual form of the training objective, for Levenberg-Marquardt."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..checkpoint import State
from ..layers.numeric import safe_sqrt
from .gradient import mean_square
from .jacobian import Residuals
from .levenberg_marquardt import LevenbergMarquardt
from .objective import NOTHING, Objective, Value
from .penalties import of_sizes, penalty
from .ridge import Ridge

if TYPE_CHECKING:
    from ..model import KAN

_SQUARES = (mean_square, nn.functional.mse_loss)


class NotFinite(Exception):
    """The objective or a gradient is not finite; the message says which."""


class WatchedResiduals(Residuals):
    """Residuals of an objective, with what a step has to know of it. Saves the model in `state` before a step. Raises
    NotFinite where the objective or its gradient is not finite at the start.

    value: the objective where a step began, and after it where it ended; further: functions of more numbers, of which
    `read` has the results after a step, on the host, if it has changed the parameters.
    """

    def __init__(
        self, objective: Objective, x: Tensor, y: Tensor, state: State, further: Sequence[Callable[[], Tensor]] = (),
        penalty: Callable | None = None,
    ):  # fmt: skip
        super().__init__(objective.model, x, y, penalty, **objective.options)
        self.objective, self.state, self.further = objective, state, further
        self.value = self.last = NOTHING
        self.read: list[Tensor] = []
        self.ridge = Ridge(objective.model, objective.lamb_base)

    def begun(self, loss: float, slope: float) -> None:
        self.value = self.last
        if not math.isfinite(loss):
            raise NotFinite(self.value.failure() or "a residual is not finite")
        if not math.isfinite(slope):
            raise NotFinite("the gradient is not finite")
        self.state.keep()

    def numbers(self) -> list[Tensor]:
        return [*self.last, *(function() for function in self.further)]

    def taken(self, numbers: list[Tensor]) -> None:
        self.value, self.read = Value(*numbers[:2]), numbers[2:]


class ObjectiveResiduals(WatchedResiduals):
    """Residuals of a batch, the penalty and the ridge: R errors whose squares, with the others, sum to R * objective.

    The penalty is one residual, sqrt(R lamb penalty), whose gradient a step uses; its curvature is that of the edges'
    sizes. A negative penalty counts as 0.
    """

    def __init__(
        self, objective: Objective, x: Tensor, y: Tensor, state: State, further: Sequence[Callable[[], Tensor]] = ()
    ):
        super().__init__(objective, x, y, state, further, self._penalty if objective.lamb else None)
        self.scale = y.numel() * objective.lamb
        self.sizes: list[Tensor] | None = None
        self.of_sizes: Tensor | None = None

    def __call__(self) -> Tensor:
        residuals = super().__call__()
        loss = (self.prediction - self.y).square().mean()
        self.ridge.set_scale(loss, self.y)
        rows = [(root * w).flatten() for w, root in self.roots()]
        of_penalty = NOTHING.penalty if self.extra is None else self.extra.detach().square().sum() / self.scale
        self.last = Value(loss, of_penalty)
        return torch.cat([residuals, *rows])

    def roots(self) -> list[tuple[Tensor, Tensor]]:
        """Base weights and the factors that make the ridge's residuals of them, one for each weight."""
        pairs = zip(self.ridge.weights, self.ridge.curves, strict=True)
        return [(w, (curve * (self.y.numel() / 2)).sqrt()) for w, curve in pairs]

    def weights(self) -> list[tuple[Tensor, Tensor]] | None:
        """Sizes of every layer's edges, and R / 2 times the objective's gradient by them."""
        if self.sizes is None or self.of_sizes is None or self.objective.reg_metric == "node_backward":
            return None
        grads = torch.autograd.grad(self.of_sizes, self.sizes, retain_graph=True)
        return [(size, self.scale / 2 * grad) for size, grad in zip(self.sizes, grads, strict=True)]

    def _penalty(self, record) -> Tensor:
        objective, lambdas = self.objective, self.objective.lambdas
        of_edges = {name: lambdas[name] for name in ("lamb_l1", "lamb_entropy")}
        total = penalty(self.model, record, objective.reg_metric, **(lambdas | dict.fromkeys(of_edges, 0.0)))
        if any(of_edges.values()):
            self.sizes = self.model.reg_sizes(record, objective.reg_metric)
            self.of_sizes = of_sizes(self.sizes, **of_edges)
            total = total + self.of_sizes
        return safe_sqrt(self.scale * total).reshape(1)


def without_scales(model: "KAN", params: Sequence[Tensor]) -> list[Tensor]:
    """params without scale_sp of the layers whose coefficients are trained too, where it is redundant.

    Only the product of the two matters, and a linear model does not see the product of two steps.
    """
    redundant = set()
    for layer in model.act_fun:
        linear = layer.linear
        if linear.coef.requires_grad and bool(((linear.spline_scale != 0) | (layer.edge_mask == 0)).all()):
            redundant.add(id(linear.spline_scale))
    return [p for p in params if id(p) not in redundant]


def is_squares(loss_fn: object) -> bool:
    """Whether the loss is the mean square error."""
    return loss_fn in _SQUARES


def check_squares(optimizer: object, loss_fn: object) -> None:
    """Raises ValueError where Levenberg-Marquardt is asked to minimise another loss than the mean square error."""
    if isinstance(optimizer, LevenbergMarquardt) and not is_squares(loss_fn):
        raise ValueError(
            f"loss_fn={loss_fn!r}: expected None, the mean square error, with Levenberg-Marquardt, which minimises "
            "sums of squares; 'LBFGS' and 'Adam' take any loss"
        )
