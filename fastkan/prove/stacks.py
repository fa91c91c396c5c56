"""Problems of stacks of layers as one call, with what the reference gives for them on the host, layer by layer."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import stack
from ..kinds import Kind
from ..select import functions_of
from ..stack import Layer
from ..testing import assert_within
from .accelerator import Results
from .contractions import problem

# Layer widths, rows, tangents.
SHAPES = (((1, 1, 1), 1, 0), ((3, 6, 2), 70, 0), ((2, 5, 1), 300, 1), ((3, 7, 4, 2), 300, 2), ((4, 33, 9, 1), 2000, 0))
# A result may be off by so many times the largest error of the reference in the operands' own dtype, and so many
# roundings of the largest result.
SHARE, ROUNDINGS = 8, 1 << 10


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
    """Operands on the host, and the results that they must have."""

    label: str
    operands: Operands
    truth: list[Tensor]
    allowed: list[float]

    @classmethod
    def of(cls, kind: Kind, widths: tuple[int, ...], rows: int, tangents: int) -> "Case":
        operands = random(kind, widths, rows, tangents)
        truth = _by_layers(operands.map(lambda t: t.double()))
        same = _by_layers(operands)
        eps = torch.finfo(kind.x).eps
        allowed = [
            SHARE * float((a.double() - b).abs().max()) + ROUNDINGS * eps * float(1 + b.abs().max())
            for a, b in zip(same, truth, strict=True)
        ]
        return cls(f"widths {widths}, {rows} rows, {tangents} tangents", operands, truth, allowed)

    def on(self, device: torch.device) -> Operands:
        return self.operands.map(lambda t: t.to(device))

    def run(self, name: str, operands: Operands) -> Results:
        functions, (x, u, along) = functions_of(name), (operands.x, operands.u, list(operands.along))
        parts = stack.parts(operands.layers)
        grads = functions.stack_backward(x, along, u, *parts, True, True, True)
        return functions.stack_out(x, along, *parts), *grads

    def check(self, results: Results, how: str = "") -> None:
        """AssertionError with the case, the error and its bound."""
        assert len(results) == len(self.truth), f"{len(results)} results, expected {len(self.truth)}"
        for k, (got, true, allowed) in enumerate(zip(results, self.truth, self.allowed, strict=True)):
            where = f"{how or self.label}: result {k}"
            assert got.shape == true.shape, f"{where}: shape {list(got.shape)}, expected {list(true.shape)}"
            assert_within(got.cpu().double(), true, torch.full_like(true, allowed), where)


def random(kind: Kind, widths: tuple[int, ...], rows: int, tangents: int) -> Operands:
    """Operands whose nodes mostly lie within the next layer's grid."""
    layers = []
    for seed, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        p, part = problem(kind, (1, inputs, outputs, 5), seed=seed), 0.5 / inputs**0.5
        base_weight = None if p.base_weight is None else p.base_weight * part
        layers.append(Layer(p.coef * part, None, base_weight, p.bias, p.grid, p.spec))
    drawn = [problem(kind, (rows, widths[0], widths[-1], 5), seed=seed) for seed in range(1 + tangents)]
    return Operands(drawn[0].x, tuple(p.x for p in drawn[1:]), drawn[0].u, tuple(layers))


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
    return Case.of(kind, (3, 16, 16, 2), shape[0], 0)


def steps(
    name: str, kind: Kind, shape: tuple[int, ...], device: torch.device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward and backward of a stack, layer by layer by dense and as one call."""
    operands = random(kind, (3, 16, 16, 2), shape[0], 0).map(lambda t: t.to(device))
    functions, parts = functions_of(name), stack.parts(operands.layers)

    def fused() -> None:
        functions.stack_out(operands.x, [], *parts)
        functions.stack_backward(operands.x, [], operands.u, *parts, True, False, True)

    return lambda: _by_layers(operands, "dense"), fused
