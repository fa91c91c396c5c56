"""kan_linear and edge_mean: the formula of a KAN layer as functions, with full argument validation."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import autograd, direct, select, stack
from .basis.bspline import uniform_knots
from .devices import widest
from .snapshot import readable
from .spec import Spec
from .stack import Layer
from .transforms import by_jit, is_any_autocast


def kan_linear(
    x: Tensor,
    coef: Tensor,
    grid: Tensor,
    base_weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    degree: int,
    base: str | Callable[[Tensor], Tensor] = "silu",
    outside: str | None = None,
    uniform: bool = False,
    family: str = "bspline",
    backend: str | None = None,
) -> Tensor:
    """y[n,o] = sum_i (base_weight[i,o] b(x[n,i]) + scale[i,o] sum_f coef[i,f,o] B_{i,f}(x[n,i])) + bias[o].

    Args:
        x: [..., I], float32, float64, bfloat16 or float16. The spline coordinate is computed in float32 or better.
        coef: [I, F, O] spline coefficients (control points), F = G + degree. The result has their dtype.
        grid: [M] knots for all inputs or [I, M] for each, M = G + 2 * degree + 1, ascending. The grid range is
            [grid[degree], grid[-degree-1]]. Not differentiable.
        base_weight: [I, O] weights of the base function, or None for no base term.
        bias: [O] or None.
        scale: [I, O] factor of each edge's spline (w_s in the paper), or None for ones.
        degree: of the B-splines, 0 to 5.
        base: base function b: "silu", "identity", "zero", or any differentiable elementwise function of a tensor.
        outside: extrapolation of the splines outside the grid range: "zero" (as in the papers: the tail on the extended
            knots, and zero beyond; the default), "linear" (with the end's slope) or "clamp" (with the end's value). The
            base function is unaffected. Other families have one extrapolation each, which is their default.
        uniform: a promise that the knots are equidistant, which makes evaluation faster: only the first and the last
            knot of each row are then read.
        family: of the basis functions B_{i,f}: "bspline", or another such as "rbf", "chebyshev" or "fourier", see
            docs/families.md, of which each has F functions on F + 1 knots and takes degree 0 and uniform=True.
        backend: "native", "triton", "reference", or None for the automatic choice, see fastkan.backends().

    Returns:
        [..., O] in coef's dtype. A row with a NaN is NaN. Differentiable to every order, in forward and reverse mode,
        by x, coef, scale, base_weight and bias.

    Raises:
        TypeError, ValueError: an argument is of the wrong type, dtype, device, shape or name; the message says which.
        BackendError: the backend requested by name cannot run this.

    Source: Liu et al., KAN (arXiv 2404.19756), eqs. 2.10-2.12.
    """
    spec = Spec.of(degree, base if isinstance(base, str) else "zero", outside, uniform, family)
    _check(x, coef, grid, base_weight, bias, scale, degree, uniform)
    if isinstance(base, str):
        return apply(x, coef, _rows(grid, coef), base_weight, bias, scale, spec, backend)
    if not callable(base):
        raise TypeError(f"base={base!r}: expected a name or a callable")
    y = apply(x, coef, _rows(grid, coef), None, bias, scale, spec, backend)
    return y if base_weight is None else y + torch.matmul(base(x).to(base_weight.dtype), base_weight).to(y.dtype)


def edge_mean(
    x: Tensor,
    coef: Tensor,
    grid: Tensor,
    base_weight: Tensor | None = None,
    *,
    degree: int,
    base: str = "silu",
    outside: str | None = None,
    uniform: bool = False,
    family: str = "bspline",
    backend: str | None = None,
) -> Tensor:
    """E[i,o] = mean over the rows of x of |phi[i,o]|: the size of every edge, for L1 and entropy penalties and pruning.

    Arguments as in kan_linear. Returns [I, O] in coef's dtype, without a tensor of size [N, I, O]. Differentiable in
    every mode; derivatives beyond the gradient run on the reference backend. The mean of no rows is NaN.

    Source: Liu et al., KAN (arXiv 2404.19756), eq. 2.17.
    """
    spec = Spec.of(degree, base, outside, uniform, family)
    _check(x, coef, grid, base_weight, None, None, degree, uniform)
    return apply_edge_moments(x, coef, _rows(grid, coef), base_weight, spec, backend)[0].to(coef.dtype)


def apply(
    x: Tensor, coef: Tensor, grid: Tensor, base_weight: Tensor | None, bias: Tensor | None, scale: Tensor | None,
    spec: Spec, backend: str | None,
) -> Tensor:  # fmt: skip
    """kan_linear after validation: x [..., I], grid [I, M] as _rows returns it."""
    if direct.kan_out is not None and x.is_cpu and not torch.compiler.is_compiling() and select.is_native(backend):
        y = direct.kan_out(x, coef, grid, base_weight, bias, scale, spec)
        if y is not None:
            return y
    if is_any_autocast() and is_autocast(x.device):
        coef, base_weight, bias, scale = autocast(x.device, coef, base_weight, bias, scale)
    backend = select.choose_for(x, backend, coef, spec)
    if x.dim() == 2:
        return autograd.kan_out(x, None, coef, base_weight, bias, grid, spec, 0, backend, scale)
    lead = x.shape[:-1]
    y = autograd.kan_out(_flat(x), None, coef, base_weight, bias, grid, spec, 0, backend, scale)
    return y.view(*lead, coef.shape[2])


def apply_derivative(
    x: Tensor, s: Tensor, coef: Tensor, grid: Tensor, base_weight: Tensor | None, scale: Tensor | None, spec: Spec,
    order: int, backend: str | None,
) -> Tensor:  # fmt: skip
    """sum_i s[n,i] phi[i,o]^(order)(x[n,i]) after validation: x, s [N, I] -> [N, O], differentiable by all of them."""
    backend = select.choose_for(x, backend, coef, spec)
    return autograd.kan_out(x, s, coef, base_weight, None, grid, spec, order, backend, scale)


def apply_stack(x: Tensor, layers: Sequence[Layer], backend: str | None) -> Tensor:
    """Consecutive layers, x [..., I] -> [..., O]: as one fused call where that is faster; equal up to rounding."""
    if direct.stack_out is not None and x.is_cpu and not torch.compiler.is_compiling() and select.is_native(backend):
        y = direct.stack_out(x, layers, stack.COEFS, stack.WORK)
        if y is not None:
            return y
    if (chosen := stack_backend(x, layers, backend)) is None:
        for coef, scale, base_weight, bias, grid, spec in layers:
            x = apply(x, coef, grid, base_weight, bias, scale, spec, backend)
        return x
    if x.dim() == 2:
        return stack.stack_out(x, layers, chosen)
    return stack.stack_out(_flat(x), layers, chosen).view(*x.shape[:-1], layers[-1].coef.shape[2])


def stack_backend(x: Tensor, layers: Sequence[Layer], backend: str | None) -> str | None:
    """The backend that runs these layers as one fused call; None where they run one by one."""
    dtype, device = x.dtype, x.device
    if type(x) not in (Tensor, torch.nn.Parameter) and hasattr(x, "full_tensor"):
        return None  # a DTensor's operators are the contractions
    if not 2 <= len(layers) <= stack.MAX_LAYERS or dtype not in _STACKED or is_autocast(device):
        return None
    if by_jit() or torch.compiler.is_exporting():
        return None  # neither torch.jit.trace nor AOTInductor supports an operator with lists of optional tensors
    for coef, _, _, _, _, spec in layers:
        if coef.dtype != dtype or coef.device != device or spec.family:
            return None
    rows = None if torch.compiler.is_compiling() else x.numel() // x.shape[-1]
    if not stack.fits(device.type, layers, rows):
        return None
    return select.choose_stack(backend, device, (dtype, dtype), tuple(layer.spec for layer in layers))


def apply_edge_moments(
    x: Tensor, coef: Tensor, grid: Tensor, base_weight: Tensor | None, spec: Spec, backend: str | None
) -> Tensor:
    """reference.edge_moments of x [..., I], after validation; differentiable as edge_mean is."""
    backend = select.choose_for(x, backend, coef, spec)
    return autograd.edge_moments(_flat(x), coef, base_weight, grid, spec, backend)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _rows(grid: Tensor, coef: Tensor) -> Tensor:
    """The grid as [I, M] in the widest type of its device, each row contiguous; a shared row has stride 0."""
    grid = grid.detach().to(widest(grid.device))
    return (grid if grid.stride(-1) == 1 else grid.contiguous()).expand(coef.shape[0], -1)


def is_autocast(device: torch.device) -> bool:
    """Whether autocast is enabled on that device; never on "meta", which torch cannot answer for."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def autocast(
    device: torch.device, coef: Tensor, base_weight: Tensor | None, bias: Tensor | None, scale: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The parameters in the autocast dtype, as in a matrix product. x keeps its own, for the spline coordinate."""
    dtype = torch.get_autocast_dtype(device.type)

    def cast(t: Tensor) -> Tensor:
        return t if t.dtype == torch.float64 else t.to(dtype)

    base_weight, bias, scale = (None if t is None else cast(t) for t in (base_weight, bias, scale))
    return cast(coef), base_weight, bias, scale


_STACKED = (torch.float32, torch.float64)
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _check(
    x: Tensor, coef: Tensor, grid: Tensor, base_weight: Tensor | None, bias: Tensor | None, scale: Tensor | None,
    degree: int, uniform: bool,
) -> None:  # fmt: skip
    optional = {"base_weight": base_weight, "bias": bias, "scale": scale}
    for name, t in {"x": x, "coef": coef, "grid": grid, **optional}.items():
        if t is None and name in optional:
            continue
        t = check_tensor(name, t)
        if t.device != x.device:
            raise ValueError(f"{name} is on {t.device}: expected x's device, {x.device}")
    if coef.dim() != 3:
        raise ValueError(f"coef has shape {_shape(coef)}: expected [in_features, grid_size + degree, out_features]")
    inputs, functions, outputs = coef.shape
    check_input(x, inputs)
    if functions <= degree:
        raise ValueError(f"coef has shape {_shape(coef)}: expected at least degree + 1 = {degree + 1} functions")
    knots = functions + degree + 1
    if _shape(grid) not in ([knots], [inputs, knots]):
        raise ValueError(f"grid has shape {_shape(grid)}: expected [{knots}] or [{inputs}, {knots}], to go with coef")
    _check_knots(grid, degree, uniform)
    if grid.requires_grad:
        raise ValueError("grid.requires_grad is True: the result is not differentiable by the grid; pass grid.detach()")
    for name, t in optional.items():
        if t is None:
            continue
        shape = [outputs] if name == "bias" else [inputs, outputs]
        if _shape(t) != shape:
            raise ValueError(f"{name} has shape {_shape(t)}: expected {shape}, to go with coef")
        if t.dtype != coef.dtype:
            raise TypeError(f"{name}.dtype is {t.dtype}: expected coef's, {coef.dtype}")


def _check_knots(grid: Tensor, degree: int, uniform: bool) -> None:
    """Check the values of a grid on a CPU; on a GPU that would wait for the device, and a traced grid has none."""
    if not grid.is_cpu or not readable(grid):
        return
    knots = grid.detach().double()
    ascends = (knots[..., 1:] >= knots[..., :-1]).all() & knots.isfinite().all()
    if not bool(ascends & (knots[..., degree] < knots[..., -degree - 1]).all()):
        raise ValueError("grid does not ascend: expected sorted finite knots and a grid range that is not empty")
    if uniform:
        even = uniform_knots(knots[..., 0], knots[..., -1], knots.shape[-1] - 1, 0)
        rounding = 4 * torch.finfo(torch.float32).eps * knots.abs().amax(-1, keepdim=True)
        if bool(((knots - even).abs() > rounding).any()):
            raise ValueError("uniform=True: expected equidistant knots in grid, or uniform=False")


def check_input(x: Tensor, inputs: int) -> None:
    """x must be a tensor of floating-point numbers, [..., in_features]."""
    check_tensor("x", x)
    if not by_jit() and (x.dim() == 0 or x.shape[-1] != inputs):
        raise ValueError(f"x has shape {_shape(x)}: expected [..., {inputs}], the number of in_features last")


def check_tensor(name: str, t: object) -> Tensor:
    if not isinstance(t, Tensor):
        raise TypeError(f"{name} is a {type(t).__name__}: expected a tensor")
    if t.layout is not torch.strided or t.is_nested:
        kind = "nested" if t.is_nested else str(t.layout)
        raise TypeError(f"{name} is a {kind} tensor: expected a dense one, such as its values() or to_dense()")
    if t.dtype not in _DTYPES:
        raise TypeError(f"{name}.dtype is {t.dtype}: expected float32, float64, bfloat16 or float16")
    return t


def _shape(t: Tensor) -> list[int]:
    return list(t.shape)
