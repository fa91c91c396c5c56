"""Linear baseline of a network: least squares, or logistic regression."""

import torch
from torch import Tensor

from .search import row_losses

RIDGE = 1e-3  # without it the weights of linearly separable classes have no optimum


def linear(x: Tensor, y: Tensor, outputs: int, classes: bool) -> Tensor:
    """Fit weights [inputs + 1, outputs], of x [N, inputs] and a constant, to y as in Prepared."""
    x = with_constant(x)
    if not classes:
        return torch.linalg.lstsq(x, y, driver="gelsd").solution
    weight = torch.zeros(x.shape[1], outputs, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = row_losses(x @ weight, y, True).mean() + RIDGE * weight[:-1].square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach()


def with_constant(x: Tensor) -> Tensor:
    """[N, inputs] -> [N, inputs + 1]."""
    return torch.cat([x, x.new_ones(len(x), 1)], 1)
