"""KANConv2d against unfold and KANLinear: times and peak memory of a forward and of a step, and nn.Conv2d's beside."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from fastkan.measure.progress import bar
from fastkan.measure.timing import quartiles, time_interleaved
from fastkan.nn import KANConv2d, KANLinear

BASELINE = "unfold"
LABELS = {BASELINE: "unfold and KANLinear", "fastkan": "KANConv2d", "conv": "nn.Conv2d, of the same shape"}
PHASES = ("forward", "step")
# Relative difference of gradients due to float32 and the order of sums.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Shape:
    """Images [batch, inputs, size, size], a kernel of 3 x 3 with padding 1, `intervals` of the grid."""

    batch: int
    inputs: int
    outputs: int
    size: int
    stride: int = 1
    intervals: int = 5

    def __str__(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return f"{self.batch}, {self.inputs}->{self.outputs}, {self.size}x{self.size}{stride}, G={self.intervals}"


FULL = (
    Shape(64, 1, 16, 28), Shape(32, 3, 32, 32), Shape(32, 32, 32, 32), Shape(32, 32, 64, 32, stride=2),
    Shape(16, 64, 64, 32), Shape(8, 64, 64, 16), Shape(16, 128, 128, 8), Shape(32, 32, 32, 32, intervals=20),
    Shape(16, 64, 64, 32, intervals=20),
)  # fmt: skip
TINY = (Shape(2, 2, 3, 6), Shape(2, 2, 3, 6, stride=2))


class Unfolded(nn.Module):
    """A KANLinear of every patch, as torch's unfold gives it."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.linear = KANLinear(9 * shape.inputs, shape.outputs, grid_size=shape.intervals)

    def forward(self, x: Tensor) -> Tensor:
        patches = nn.functional.unfold(x, 3, padding=1, stride=self.shape.stride).transpose(1, 2)
        out = (self.shape.size - 1) // self.shape.stride + 1
        return self.linear(patches).transpose(1, 2).unflatten(2, (out, out))


def model(peer: str, shape: Shape) -> nn.Module:
    """A layer without a bias, all KAN layers of the same function."""
    torch.manual_seed(0)
    unfolded = Unfolded(shape)
    if peer == BASELINE:
        return unfolded
    args, options = (shape.inputs, shape.outputs, 3), {"stride": shape.stride, "padding": 1, "bias": False}
    if peer == "conv":
        return nn.Conv2d(*args, **options)
    layer = KANConv2d(*args, **options, grid_size=shape.intervals)
    with torch.no_grad():
        for name in ("coef", "base_weight"):
            values = getattr(unfolded.linear, name).unflatten(0, (shape.inputs, 9))  # I T ... O
            getattr(layer.edges, name).copy_(values.movedim(1, -2).flatten(-2))
    return layer


def rows(which: Sequence[Shape], rounds: int) -> list[dict[str, object]]:
    """One row per shape, phase and peer. Raises AssertionError if gradients of the KAN layers differ."""
    return [row for shape in bar(which, "convolutions") for row in _rows(shape, rounds)]


def _rows(shape: Shape, rounds: int) -> Iterator[dict[str, object]]:
    x = _images(shape)
    models = {peer: model(peer, shape) for peer in LABELS}
    _check(models, x, shape)
    for phase in PHASES:
        runs: dict[str, Callable[[], object]] = {peer: _run(layer, x, phase) for peer, layer in models.items()}
        times, _ = time_interleaved(runs, rounds, 5e-3, label=f"{shape}, {phase}")
        for peer, samples in times.items():
            low, high = quartiles(samples)
            ratios = [a / b for a, b in zip(samples, times[BASELINE], strict=True)]
            first, third = quartiles(ratios)
            yield {
                "shape": str(shape), "phase": phase, "peer": peer, "seconds": f"{median(samples):.4g}",
                "seconds_q1": f"{low:.4g}", "seconds_q3": f"{high:.4g}", "ratio": f"{median(ratios):.4g}",
                "ratio_q1": f"{first:.4g}", "ratio_q3": f"{third:.4g}", "peak_mib": peak_mib(peer, shape, phase),
                "reason": "",
            }  # fmt: skip


def _images(shape: Shape) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape.batch, shape.inputs, shape.size, shape.size, generator=generator) / 2


def _check(models: dict[str, nn.Module], x: Tensor, shape: Shape) -> None:
    """The gradients of x."""
    got, want = (_run(models[peer], x, "step")()[0] for peer in ("fastkan", BASELINE))
    off = float((got - want).norm() / want.norm())
    if off > TOLERANCE:
        raise AssertionError(f"{shape}: the gradient of x is off by {off:.1e} of its norm")


def _run(layer: nn.Module, x: Tensor, phase: str) -> Callable[[], tuple[Tensor, ...]]:
    """The forward without a graph, or forward and backward with gradients of x and of every parameter."""
    x = x.detach().requires_grad_()
    wanted = [x, *layer.parameters()]

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (layer(x),)

    def step() -> tuple[Tensor, ...]:
        y = layer(x)
        return torch.autograd.grad(y, wanted, torch.ones_like(y))

    return forward if phase == "forward" else step


def peak_mib(peer: str, shape: Shape, phase: str) -> str:
    """Increase of peak memory by the first call, in a fresh process after calls of a small layer, in MiB."""
    sizes = map(str, (*astuple(shape), torch.get_num_threads()))
    done = subprocess.run(
        [sys.executable, "-m", "bench.convolutions", peer, phase, *sizes], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    return done.stdout.split()[-1]


def _peak_increase(peer: str, shape: Shape, phase: str) -> float:
    from .fit import resident_kib

    small = TINY[0]
    _run(model(peer, small), _images(small), phase)()
    run = _run(model(peer, shape), _images(shape), phase)
    before = resident_kib()
    run()
    return (resident_kib() - before) / 1024


if __name__ == "__main__":
    name, of_phase, *numbers, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(f"{_peak_increase(name, Shape(*map(int, numbers)), of_phase):.1f}")
