"""Layers of other libraries before and after accelerate, compared in float64."""

import pytest
import torch
from torch import nn

# float64 rounding of sums of some hundred terms of about one
CLOSE = {"rtol": 1e-11, "atol": 1e-11}


@pytest.fixture(autouse=True)
def float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def results(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradient of x and of every parameter."""
    x = x.clone().requires_grad_()
    y = model(x)
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    grads = torch.autograd.grad((weights * y.sin()).sum(), [x, *trained], allow_unused=True)
    return [y.detach(), *(torch.zeros(()) if g is None else g for g in grads)]


def assert_same(model: nn.Module, x: torch.Tensor, expected: list[torch.Tensor]) -> None:
    for found, value in zip(results(model, x), expected, strict=True):
        torch.testing.assert_close(found, value, **CLOSE)
