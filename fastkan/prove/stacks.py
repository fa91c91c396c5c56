"""Problems of stacks of layers as one call, with what the reference gives for them on the host, layer by layer."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import stack
from ..kinds import Kind
from ..select import functions_of
from ..stack import Layer
from ..testing import assert_within
from .accelerator import Results
from .contractions import problem
from .stack_bounds import apart, bounds

# Layer widths, rows, tangents, grid size. Derivatives of a stack on a fine grid are the differences of large numbers.
SHAPES = (
    ((1, 1, 1), 1, 0, 5), ((3, 6, 2), 70, 0, 9), ((2, 5, 1), 300, 1, 4), ((3, 7, 4, 2), 300, 2, 1),
    ((4, 24, 9, 1), 1000, 0, 3),
)  # fmt: skip
WIDTHS = (3, 16, 16, 2)  # of the repeats and the race


@dataclass(frozen=True)
class Operands:
    """x [N, I] and tangents of it, the cotangent u [N, O], and the layers."""

    x: Tensor
    along: tuple[Tensor, ...]
    u: Tensor
    layers: tuple[Layer, ...]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Operands":
        """With other tensors; grids stay in float64."""
        layers = tuple(
            Layer._make((*(None if t is None else change(t) for t in m[:4]), m.grid.to(change(m.grid).device), m.spec))
            for m in self.layers
        )
        return Operands(change(self.x), tuple(map(change, self.along)), change(self.u), layers)


@dataclass(frozen=True)
class Case:
    """Operands on the host, the results that they must have, and how far these may be off."""

    label: str
    operands: Operands
    truth: list[Tensor]
    allowed: list[Tensor]

    @classmethod
    def of(cls, kind: Kind, widths: tuple[int, ...], rows: int, tangents: int, grid_size: int) -> "Case":
        operands = random(kind, widths, rows, tangents, grid_size)
        truth = _by_layers(operands.map(lambda t: t.double()))
        allowed = bounds(operands.x, operands.along, operands.u, operands.layers)
        return cls(f"widths {widths}, {rows} rows, {tangents} tangents", operands, truth, allowed)

    def on(self, device: torch.device) -> Operands:
        return self.operands.map(lambda t: t.to(device))

    def run(self, functions: Any, operands: Operands) -> Results:
        x, u, along, parts = operands.x, operands.u, list(operands.along), stack.parts(operands.layers)
        grads = functions.stack_backward(x, along, u, *parts, True, True, True)
        return functions.stack_out(x, along, *parts), *grads

    def check(self, results: Results, how: str = "") -> None:
        """AssertionError with the case, the error and its bound."""
        assert len(results) == len(self.truth), f"{len(results)} results, expected {len(self.truth)}"
        for k, (got, true, allowed) in enumerate(zip(results, self.truth, self.allowed, strict=True)):
            where = f"{how or self.label}: result {k}"
            assert got.shape == true.shape, f"{where}: shape {list(got.shape)}, expected {list(true.shape)}"
            assert_within(got.cpu().double(), true, allowed, where)


def random(kind: Kind, widths: tuple[int, ...], rows: int, tangents: int, grid_size: int) -> Operands:
    """Operands whose nodes mostly lie within the next layer's grid, and apart from its knots."""
    layers = []
    for seed, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        p, part = problem(kind, (1, inputs, outputs, grid_size), seed=seed), 0.5 / inputs**0.5
        scale, base_weight = p.terms[0] if seed % 2 else None, None if p.base_weight is None else p.base_weight * part
        layers.append(Layer(p.coef * part, scale, base_weight, p.bias, p.grid, p.spec))
    x, *along = (problem(kind, (2 * rows + 16, widths[0], 1, grid_size), seed=seed).x for seed in range(1 + tangents))
    x = x[apart(x, layers)][:rows]
    u = problem(kind, (rows, 1, widths[-1], grid_size)).u
    return Operands(x, tuple(t[:rows] for t in along), u, tuple(layers))


def varied(operands: Operands) -> tuple[Tensor, ...]:
    """The operands that change from one call to the next."""
    return operands.x, operands.u


def _by_layers(operands: Operands, backend: str = "reference") -> list[Tensor]:
    """The output and its gradients by x, the tangents and the weights."""
    o = operands.map(lambda t: t.detach().requires_grad_())
    weights = [t for m in o.layers for t in m[:4] if t is not None]
    y = stack.layered(o.x, o.along, o.layers, backend)
    by = [o.x, *o.along, *weights]
    grads = torch.autograd.grad(y, by, o.u.detach(), allow_unused=True, materialize_grads=True)
    return [y.detach(), *grads]


@functools.lru_cache(maxsize=1)
def cases(kind: Kind) -> list[Case]:
    return [Case.of(kind, *shape) for shape in SHAPES]


def load(kind: Kind, shape: tuple[int, ...]) -> Case:
    """One large case."""
    return Case.of(kind, WIDTHS, shape[0], 0, 5)


def steps(
    name: str, kind: Kind, shape: tuple[int, ...], device: torch.device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward and backward of a stack, layer by layer by dense and as one call."""
    operands = random(kind, WIDTHS, shape[0], 0, 5).map(lambda t: t.to(device))
    functions, parts = functions_of(name), stack.parts(operands.layers)

    def fused() -> None:
        functions.stack_out(operands.x, [], *parts)
        functions.stack_backward(operands.x, [], operands.u, *parts, True, False, True)

    return lambda: _by_layers(operands, "dense"), fused
