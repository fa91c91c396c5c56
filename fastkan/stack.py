"""A stack of layers as one operator, with derivatives of every order, which are the same operators again.

With f the composition of the layers and t_1, ..., t_k tangents of x,

    out(x; t_1, ..., t_k)         = D^k f(x)[t_1, ..., t_k]                     [N, O]
    backward(x; t_1, ..., t_k; u) = the gradients of <u, out> by x, the tangents and the weights

A cotangent v of the gradient by x gives <v, grad_x> = <u, out(x; t_1, ..., t_k, v)>; a cotangent v of the gradient by
t_j gives <u, out> with v in place of t_j. So the derivatives of both operators consist of both, and losses with
derivatives of f by x (PDEs) run on them. By Faa di Bruno's formula, with h_A the derivative of a layer's input by the
tangents in A, its output has

    h'_A = sum_d out_d(h; s_{A,d}),   s_{A,d} = the sum over the partitions of A into d parts of the products of their h

`layered` computes this with the contractions of autograd.py. It is the definition, and runs in all other cases:
transforms, more tangents than the kernels support, and cotangents of the gradients by weights.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from . import autograd
from .ops import WEIGHTS
from .reference import total
from .select import functions_of
from .spec import Spec
from .transforms import is_transformed

# Limits of the kernels: see csrc/contract/problem.h and csrc/cuda/stack.h.
MAX_LAYERS, MAX_TANGENTS, MAX_GPU_TANGENTS = 8, 3, 2
# Largest sizes for one fused call, by shapes alone. On a CPU: the number of coefficients, and that times rows; beyond
# them a call per layer costs less than computing the activations twice.
COEFS, WORK = 1 << 14, 1 << 22
# On a GPU: the shared memory of a block, and about as many rows as there are threads; beyond them a launch per layer
# already fills the GPU. Estimates, not measured.
BLOCK_BYTES, GPU_ROWS = 96 << 10, 1 << 15

Maybe = Tensor | None


class Layer(NamedTuple):
    """A layer of a stack: coef [I, F, O]; scale, base_weight [I, O] or None; bias [O] or None; grid [I, M]."""

    coef: Tensor
    scale: Maybe
    base_weight: Maybe
    bias: Maybe
    grid: Tensor
    spec: Spec


def stack_out(x: Tensor, layers: Sequence[Layer], backend: str) -> Tensor:
    """f(x): x [N, I] -> [N, O], in one call unless torch.func or forward-mode AD is active; differentiable."""
    if not torch.compiler.is_compiling() and is_transformed():
        return layered(x, (), layers, backend)
    return _out(x, [], *parts(layers), backend)


def layered(x: Tensor, tangents: Sequence[Tensor], layers: Sequence[Layer], backend: str) -> Tensor:
    """out(x; tangents), layer by layer; differentiable in every mode."""
    h = {0: x} | {1 << t: tangent for t, tangent in enumerate(tangents)}
    everything = (1 << len(tangents)) - 1
    for layer in layers[:-1]:
        h = {subset: _derivative(h, subset, layer, backend) for subset in range(everything + 1)}
    return _derivative(h, everything, layers[-1], backend)


def _derivative(h: dict[int, Tensor], subset: int, layer: Layer, backend: str) -> Tensor:
    """h'_A of a layer, A = subset."""
    coef, scale, base_weight, bias, grid, spec = layer
    bias = None if subset else bias
    return total(
        autograd.kan_out(h[0], s, coef, base_weight, bias, grid, spec, order, backend, scale)
        for order, s in products(h, subset).items()
    )


def products(h: dict[int, Tensor], subset: int) -> dict[int, Maybe]:
    """s_{A,d} by d, A = subset; subsets that h lacks count as zero, and None stands for ones."""
    if subset == 0:
        return {0: None}
    found: dict[int, Maybe] = {}
    for parts in _partitions(subset):
        if all(part in h for part in parts):
            product = h[parts[0]]
            for part in parts[1:]:
                product = product * h[part]
            order = len(parts)
            found[order] = _plus(found.get(order), product)
    return found


def _partitions(subset: int) -> Iterator[tuple[int, ...]]:
    """Every partition of a set of bits into parts."""
    if subset == 0:
        yield ()
        return
    lowest = subset & -subset
    rest = others = subset ^ lowest
    while True:
        for parts in _partitions(rest ^ others):
            yield (lowest | others, *parts)
        if others == 0:
            return
        others = (others - 1) & rest


def parts(layers: Sequence[Layer]) -> tuple[list[Maybe], list[Tensor], list[int]]:
    """Arguments of the operators: weights, grids and specs of the layers."""
    weights, grids, specs = [], [], []
    for coef, scale, base_weight, bias, grid, spec in layers:
        weights += (coef, scale, base_weight, bias)
        grids.append(grid)
        specs += spec
    return weights, grids, specs


def _in_groups(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[at : at + size] for at in range(0, len(values), size)]


def _layers(weights: Sequence[Maybe], grids: Sequence[Tensor], specs: Sequence[int]) -> list[Layer]:
    of_each = _in_groups(weights, WEIGHTS), grids, _in_groups(specs, len(specs) // len(grids))
    return [Layer._make((*own, grid, Spec(*spec))) for own, grid, spec in zip(*of_each, strict=True)]


class StackOut(Function):
    """out(x; tangents) with k tangents, for ordinary autograd."""

    @staticmethod
    def forward(ctx, k, specs, backend, x, *rest):
        ctx.k, ctx.specs, ctx.backend = k, specs, backend
        ctx.save_for_backward(x, *rest)
        ctx.set_materialize_grads(False)
        return functions_of(backend).stack_out(x, *_split(rest, k), specs)

    @staticmethod
    def backward(ctx, u):
        if u is None:
            return (None,) * len(ctx.needs_input_grad)
        x, *rest = ctx.saved_tensors
        tangents, weights, grids = _split(rest, ctx.k)
        needed = _needed(ctx.needs_input_grad[3], ctx.needs_input_grad[4:], ctx.k, len(grids))
        grads = _backward(x, tangents, u, weights, grids, ctx.specs, needed, ctx.backend)
        return None, None, None, *grads, *(None,) * len(grids)


class StackBackward(Function):
    """The needed gradients of backward(x; tangents; u), for ordinary autograd."""

    @staticmethod
    def forward(ctx, specs, needed, backend, k, x, u, *rest):
        ctx.k, ctx.specs, ctx.needed, ctx.backend = k, specs, needed, backend
        ctx.save_for_backward(x, u, *rest)
        ctx.set_materialize_grads(False)
        tangents, weights, grids = _split(rest, k)
        return tuple(functions_of(backend).stack_backward(x, tangents, u, weights, grids, specs, *needed))

    @staticmethod
    def backward(ctx, *cotangents):
        x, u, *rest = ctx.saved_tensors
        tangents, weights, grids = _split(rest, ctx.k)
        cotangents = _aligned(cotangents, ctx.k, weights, ctx.needed)
        of_inputs, of_weights = cotangents[: ctx.k + 1], cotangents[ctx.k + 1 :]
        most = MAX_TANGENTS if x.device.type == "cpu" else MAX_GPU_TANGENTS
        fused = ctx.k + (of_inputs[0] is not None) <= most and all(c is None for c in of_weights)
        pull = _pull if fused and not is_transformed(*cotangents) else _layered_pull
        needs = ctx.needs_input_grad[4:]
        grads = pull(x, tangents, u, weights, grids, ctx.specs, ctx.backend, cotangents, needs)
        return None, None, None, None, *grads, *(None,) * len(grids)


def _backward(x, tangents, u, weights, grids, specs, needed, backend) -> list[Maybe]:
    """backward(x; tangents; u), differentiable; None for gradients that are not needed."""
    if not torch.compiler.is_compiling():
        if is_transformed(x, *tangents, u):
            return _layered_backward(x, tangents, u, weights, grids, specs, needed, backend)
        if torch.is_grad_enabled():
            grads = StackBackward.apply(specs, needed, backend, len(tangents), x, u, *tangents, *weights, *grids)
            return _aligned(grads, len(tangents), weights, needed)
    grads = functions_of(backend).stack_backward(x, tangents, u, weights, grids, specs, *needed)
    return _aligned(grads, len(tangents), weights, needed)


def gradients(x, u, weights, grids, specs, needed, backend) -> list[Maybe]:
    """backward(x; ; u), differentiable: the gradients by x and by the weights, None where not needed."""
    return _backward(x, [], u, weights, grids, specs, needed, backend)


def _pull(x, tangents, u, weights, grids, specs, backend, cotangents, needs) -> list[Maybe]:
    """Gradients of <cotangents of the gradients by x and the tangents, backward(x; tangents; u)>."""
    k = len(tangents)
    _, need_u, *rest = needs
    needed = _needed(needs[0], rest, k, len(grids))
    of_x = of_u = None
    of_tangents, of_weights = [None] * k, [None] * len(weights)
    for j, v in enumerate(cotangents[: k + 1]):
        if v is None:
            continue
        along = [*tangents, v] if j == 0 else [*tangents[: j - 1], v, *tangents[j:]]
        grads = _backward(x, along, u, weights, grids, specs, needed, backend)
        of_x = _plus(of_x, grads[0])
        of_tangents = [
            _plus(t, None if at == j else g)
            for at, (t, g) in enumerate(zip(of_tangents, grads[1 : k + 1], strict=True), 1)
        ]
        of_weights = [_plus(w, g) for w, g in zip(of_weights, grads[1 + len(along) :], strict=True)]
        if need_u:
            of_u = _plus(of_u, _out(x, along, weights, grids, specs, backend))
    return [of_x, of_u, *of_tangents, *of_weights]


def _layered_backward(x, tangents, u, weights, grids, specs, needed, backend) -> list[Maybe]:
    """_backward by autograd through the layers."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        x, *rest = _aliases([x, *tangents, *weights])
        tangents, weights = rest[: len(tangents)], rest[len(tangents) :]
        y = layered(x, tangents, _layers(weights, grids, specs), backend)
        flags = [needed[0], *(needed[1] for _ in tangents), *(needed[2] for _ in weights)]
        by = [t if need else None for t, need in zip((x, *tangents, *weights), flags, strict=True)]
        return _gradients(y, by, u, differentiable)


def _layered_pull(x, tangents, u, weights, grids, specs, backend, cotangents, needs) -> list[Maybe]:
    """_pull by autograd through the layers, also for cotangents of the gradients by the weights."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = _aliases([x, u, *tangents, *weights])
        x, u, *rest = inputs
        tangents, weights = rest[: len(tangents)], rest[len(tangents) :]
        y = layered(x, tangents, _layers(weights, grids, specs), backend)
        by = [None if c is None else t for t, c in zip((x, *tangents, *weights), cotangents, strict=True)]
        grads = _gradients(y, by, u, True)
        pairs = [(g, c) for g, c in zip(grads, cotangents, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            return [None] * len(inputs)
        grads, cotangents = zip(*pairs, strict=True)
        by = [t if need else None for t, need in zip(inputs, needs, strict=False)]
        return _gradients(grads, by, cotangents, differentiable)


def _gradients(outputs, by: list[Maybe], cotangents, differentiable: bool) -> list[Maybe]:
    """torch.autograd.grad by the tensors that require it; None for the others."""
    inputs = [t for t in by if t is not None and t.requires_grad]
    grads = iter(torch.autograd.grad(outputs, inputs, cotangents, create_graph=differentiable, allow_unused=True))
    return [next(grads) if t is not None and t.requires_grad else None for t in by]


def _aliases(tensors: list[Any]) -> list[Any]:
    """Views of the tensors, so that gradients by them are partial: without dependences among the tensors."""
    return [None if t is None else t.view_as(t) for t in tensors]


def _out(x, tangents, weights, grids, specs, backend) -> Tensor:
    """out(x; tangents), differentiable."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return StackOut.apply(len(tangents), specs, backend, x, *tangents, *weights, *grids)
    return functions_of(backend).stack_out(x, tangents, weights, grids, specs)


def _split(rest: Sequence[Any], k: int) -> tuple[list[Tensor], list[Maybe], list[Tensor]]:
    """Tangents, weights and grids."""
    grids = len(rest) - (len(rest) - k) // (WEIGHTS + 1)
    return list(rest[:k]), list(rest[k:grids]), list(rest[grids:])


def _needed(need_x: bool, needs: Sequence[bool], k: int, layers: int) -> tuple[bool, bool, bool]:
    """Whether gradients by x, by any of the k tangents and by any of the weights are needed."""
    return need_x, any(needs[:k]), any(needs[k : k + WEIGHTS * layers])


def _aligned(grads: Sequence[Maybe], k: int, weights: Sequence[Maybe], needed: tuple[bool, bool, bool]) -> list[Maybe]:
    """The gradients in the order of x, the k tangents and the weights, with None for those not computed."""
    values = iter(grads)
    flags = [needed[0], *(needed[1] for _ in range(k)), *(needed[2] and w is not None for w in weights)]
    return [next(values) if flag else None for flag in flags]


def _plus(a: Maybe, b: Maybe) -> Maybe:
    return b if a is None else a if b is None else a + b


def fits(device_type: str, layers: Sequence[Layer], rows: int | None) -> bool:
    """Whether these layers are small enough for one fused call; rows is None for a traced number of rows."""
    if device_type == "cpu":
        coefs = sum(layer.coef.numel() for layer in layers)
        return coefs <= COEFS and (rows is None or rows * coefs <= WORK)
    return device_type == "cuda" and (rows is None or rows <= GPU_ROWS) and block_bytes(layers) <= BLOCK_BYTES


def block_bytes(layers: Sequence[Layer], rows: int = 32, tangents: int = 2) -> int:
    """Shared memory of a block in the backward, in bytes; by default for the fewest rows and the most tangents."""
    shapes = [layer.coef.shape for layer in layers]
    item, subsets = layers[0].coef.element_size(), 1 << tangents
    nodes = sum(inputs for inputs, _, _ in shapes)
    widest = max(max(inputs, outputs) for inputs, _, outputs in shapes)
    weights = sum(inputs * (functions + 1) * outputs + outputs for inputs, functions, outputs in shapes)
    numbers = (11 * nodes, weights, weights, *(subsets * rows * count for count in (nodes, 2 * widest, 7)))
    return sum((count * item + 15) // 16 * 16 for count in numbers) + 4 * rows
