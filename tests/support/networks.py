"""Networks that run in one call, and the same networks layer by layer."""

import torch
from torch import nn

from fastkan import KAN, KANLinear
from fastkan.nn import KANSequential

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def sequence(*options: dict, dtype: torch.dtype = torch.float64, **common) -> KANSequential:
    generator = torch.Generator().manual_seed(0)
    widths = (3, 5, 4, 2)
    options = options or ({},) * 3
    return KANSequential(
        *(
            KANLinear(a, b, dtype=dtype, generator=generator, scale_noise=5.0, **common | own)
            for a, b, own in zip(widths, widths[1:], options, strict=False)
        )
    )


def data(rows: int = 40, width: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (torch.rand(rows, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1).to(dtype)


def results(model: nn.Module, run, x: torch.Tensor) -> list[torch.Tensor]:
    """Values, and the gradients of a loss of values and slopes."""
    x = x.clone().requires_grad_()
    y = run(x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = y.square().mean() + slope.square().mean()
    return [y, *torch.autograd.grad(loss, [x, *parameters], allow_unused=True, materialize_grads=True)]


def assert_same(model: nn.Module, apart, x: torch.Tensor, **tolerance) -> None:
    for got, want in zip(results(model, model, x), results(model, apart, x), strict=True):
        torch.testing.assert_close(got, want, **(tolerance or CLOSE))


def network(*args, **options) -> KAN:
    return KAN(*(args or ([3, 5, 4, 2],)), **{"seed": 2, "dtype": torch.float64, "noise_scale": 2.0, **options})


def in_turn(model: KAN, x: torch.Tensor) -> torch.Tensor:
    for at in range(model.depth):
        x = model.nodes(at, model.sums(at, x))
    return x
