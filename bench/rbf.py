"""Times of FastKANLayer on the kernels, of fast-kan's formula in PyTorch and of nn.Linear with as many parameters."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from fastkan import FastKANLayer, use_backend
from fastkan.measure.progress import bar
from fastkan.measure.timing import quartiles, time_interleaved

BASELINE = "linear"
LABELS = {BASELINE: "nn.Linear, equal parameters", "formula": "fast-kan's formula", "native": "FastKANLayer, native"}
# Relative difference of gradients due to float32 and the order of sums.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Shape:
    """Sizes of a FastKANLayer, with `functions` Gaussians per edge, layer norm and base."""

    batch: int
    inputs: int
    outputs: int
    functions: int

    def __str__(self) -> str:
        return f"{self.batch}, {self.inputs}->{self.outputs}, F={self.functions}"


FULL = (
    Shape(1024, 256, 256, 8), Shape(4096, 64, 64, 8), Shape(1024, 784, 64, 8), Shape(256, 64, 10, 8),
    Shape(1000, 5, 1, 8), Shape(1024, 128, 128, 14), Shape(4096, 64, 64, 20), Shape(256, 64, 64, 50),
    Shape(1024, 256, 256, 100),
)  # fmt: skip
TINY = (Shape(16, 3, 2, 4),)


def rows(which: Sequence[Shape], rounds: int) -> list[dict[str, object]]:
    """One row per shape and candidate. Raises AssertionError if the kernels' gradients differ from the formula's."""
    return [row for shape in bar(which, "rbf") for row in _rows(shape, rounds)]


def _rows(shape: Shape, rounds: int) -> Iterator[dict[str, object]]:
    torch.manual_seed(0)
    layer = FastKANLayer(shape.inputs, shape.outputs, num_grids=shape.functions)
    per_edge = math.sqrt(shape.functions + 1)
    linear = nn.Linear(round(shape.inputs * per_edge), max(1, round(shape.outputs * per_edge)))
    x, wide = torch.randn(shape.batch, shape.inputs), torch.randn(shape.batch, linear.in_features)
    by = {BASELINE: _step(linear, wide, None), **{p: _step(layer, x, b) for p, b in _BACKENDS.items()}}
    for got, want in zip(by["native"](), by["formula"](), strict=True):
        off = float((got - want).norm() / want.norm())
        if off > TOLERANCE:
            raise AssertionError(f"{shape}: a gradient is off by {off:.1e} of its norm")
    times, _ = time_interleaved(by, rounds, 5e-3, label=str(shape))
    for peer, samples in times.items():
        low, high = quartiles(samples)
        ratio = median(a / b for a, b in zip(samples, times[BASELINE], strict=True))
        yield {
            "shape": str(shape), "peer": peer, "seconds": f"{median(samples):.4g}", "seconds_q1": f"{low:.4g}",
            "seconds_q3": f"{high:.4g}", "ratio": f"{ratio:.4g}",
        }  # fmt: skip


_BACKENDS = {
    "formula": "reference",
    "native": "native",
}  # "reference": FastKANLayer's own formula in PyTorch


def _step(layer: nn.Module, x: Tensor, backend: str | None) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward, with gradients of x and of every parameter."""
    x = x.requires_grad_()
    wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]

    def step() -> tuple[Tensor, ...]:
        with use_backend(backend):
            y = layer(x)
            return torch.autograd.grad(y, wanted, torch.ones_like(y))

    return step
