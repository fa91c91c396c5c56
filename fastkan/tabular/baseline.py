"""Linear models: the baseline of a network, and where the training of one starts."""

import torch
from torch import Tensor

from .search import row_losses

RIDGE = 1e-3  # without it the weights of linearly separable classes have no optimum


def linear(
    x: Tensor, y: Tensor, outputs: int, classes: bool, ridge: float | None = None, share: Tensor | None = None,
    start: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Fit weights [inputs + 1, outputs], of x [N, inputs] and a constant, to y as in Prepared.

    ridge: weight of the sum of squares of the weights, but for the constant, beside the mean loss; by default a small
    one for classes and none for numbers. share: weight of every row [N], of sum 1; start: of the descent for classes.
    """
    x = with_constant(x)
    share = x.new_full((len(x),), 1 / len(x)) if share is None else share
    if not classes:
        root = share.sqrt()[:, None]
        if not ridge:
            return torch.linalg.lstsq(x * root, y * root, driver="gelsd").solution
        penalty = torch.full((x.shape[1],), ridge, dtype=x.dtype)
        penalty[-1] = 0.0
        weighted = x * share[:, None]
        return torch.linalg.solve(weighted.T @ x + penalty.diag(), weighted.T @ y)
    weight = x.new_zeros(x.shape[1], outputs) if start is None else start.clone()
    ridge = RIDGE / ((x.shape[1] - 1) * outputs) if ridge is None else ridge
    weight.requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = row_losses(x @ weight, y, True) @ share + ridge * weight[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()


def with_constant(x: Tensor) -> Tensor:
    """[N, inputs] -> [N, inputs + 1]."""
    return torch.cat([x, x.new_ones(len(x), 1)], 1)
