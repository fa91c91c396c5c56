"""Training by Levenberg-Marquardt: what a batch's loss and penalty are as residuals."""

import torch
from torch import Tensor

from ..checkpoint import State
from ..layers.numeric import safe_sqrt
from .gradient import mean_square
from .jacobian import Residuals
from .levenberg_marquardt import LevenbergMarquardt
from .penalties import of_sizes, penalty
from .ridge import Ridge

_SQUARES = (mean_square, torch.nn.functional.mse_loss)


class Batch(Residuals):
    """The residuals of a batch, the penalty and the ridge: their squares sum up to R times the objective, for R errors.

    The penalty gives one, sqrt(R lamb penalty), of which a step takes the gradient; the curvature is that of the edges'
    sizes. A penalty below 0 counts as 0. Keeps the model's state before a step. Raises NotFinite where the objective is
    not finite then.
    """

    def __init__(self, objective, x: Tensor, y: Tensor, state: State):
        super().__init__(objective.model, x, y, self._penalty if objective.lamb else None, **objective.options)
        self.objective, self.state, self.best = objective, state, None
        self.scale = y.numel() * objective.lamb
        self.sizes = self.of_sizes = None
        self.ridge = Ridge(objective.model, objective.lamb_base)

    def __call__(self) -> Tensor:
        residuals = super().__call__()
        self.ridge.settle((self.prediction - self.y).square().mean(), self.y)
        rows = [(root * w).flatten() for w, root in self.roots()]
        residuals = torch.cat([residuals, *rows])
        total = residuals.detach().double().square().sum()
        if self.best is None or total < self.best:  # as a step is taken
            self.best, objective = total, self.objective
            objective.loss = (self.prediction - self.y).square().mean()
            if self.extra is not None:
                objective.penalty = self.extra.detach().square().sum() / (self.y.numel() * objective.lamb)
        return residuals

    def linearised(self, params: list[Tensor]):
        linear = super().linearised(params)
        if not linear.residuals.isfinite().all():
            raise NotFinite(self.objective.failure() or "a residual is not finite")
        if not linear.transposed(linear.residuals).isfinite().all():
            raise NotFinite("the gradient is not finite")
        self.state.keep()
        return linear

    def roots(self) -> list[tuple[Tensor, Tensor]]:
        """What parameters are multiplied by to give further residuals, one for each of their numbers: the ridge."""
        pairs = zip(self.ridge.weights, self.ridge.curves, strict=True)
        return [(w, (curve * (self.y.numel() / 2)).sqrt()) for w, curve in pairs]

    def weights(self) -> list[tuple[Tensor, Tensor]] | None:
        """Sizes and what the objective grows by with each, times R / 2."""
        if self.sizes is None or self.objective.reg_metric == "node_backward":
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


def without_scales(model, params: list[Tensor]) -> list[Tensor]:
    """params without scale_sp of the layers where the coefficients can do all that it can.

    What only their product decides makes steps long, and a product of two steps is what a linear model does not see.
    """
    redundant = set()
    for layer in model.act_fun:
        linear = layer.linear
        if linear.coef.requires_grad and bool((linear.spline_scale[layer.edge_mask != 0] != 0).all()):
            redundant.add(id(linear.spline_scale))
    return [p for p in params if id(p) not in redundant]


class NotFinite(Exception):
    """The objective or a gradient is not finite; says which."""


def check_squares(optimizer, loss_fn) -> None:
    """ValueError where the loss is none that the optimizer minimises."""
    if isinstance(optimizer, LevenbergMarquardt) and loss_fn not in _SQUARES:
        raise ValueError(
            f"loss_fn={loss_fn!r}: expected None, the mean square error, with Levenberg-Marquardt, which minimises "
            "sums of squares; 'LBFGS' and 'Adam' take any loss"
        )
