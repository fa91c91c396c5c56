"""Derivatives of the contractions of the trilinear form, which are the same contractions again.

    T_d(x; s, coef, u) = sum_{n,i,o} s[n,i] u[n,o] phi_d[i,o](x[n,i])
    phi_d = base_weight b^(d) + sum_f coef_f B_f^(d)

    out_d  = dT_d/du      in_d = dT_d/ds      coef_d = dT_d/dcoef      dT_d/dx = s in_{d+1}

so gradients of every order, forward-mode tangents and vmap run on the fused kernels. Saved for backward: the inputs.
`spec` is a Spec, `backend` a name in select.BACKENDS, s=None stands for ones.

Each contraction is one autograd.Function in the form for torch.func, with `jvp` and `vmap`. `first` converts it to the
form with all code in `forward`, which torch.compile can trace and which takes PyTorch a third of the time per call.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import reference
from .reference import total
from .select import direct_functions_of, functions_of
from .spec import Spec
from .transforms import (
    add_batch_dim,
    by_jit,
    grad_batch_level,
    is_dual,
    is_grad_batch,
    is_plain,
    is_third_forward,
    is_transformed,
    remove_batch_dim,
)

Maybe = Tensor | None


def kan_out(
    x: Tensor, s: Maybe, coef: Tensor, base_weight: Maybe, bias: Maybe, grid: Tensor, spec: Spec, order: int,
    backend: str, scale: Maybe = None,
) -> Tensor:  # fmt: skip
    """reference.kan_out on `backend`, differentiable; with scale [I, O] its coef is coef * scale[:, None]."""
    args = (x, s, coef, scale, base_weight, bias, grid, spec, order, backend)
    return FirstKanOut.apply(*args) if torch.compiler.is_compiling() else _run(KanOut, FirstKanOut, args, 7)


def kan_in(
    x: Tensor, u: Tensor, coef: Tensor, base_weight: Maybe, grid: Tensor, spec: Spec, order: int, backend: str
) -> Tensor:
    """reference.kan_in on `backend`, differentiable."""
    return _run(KanIn, FirstKanIn, (x, u, coef, base_weight, grid, spec, order, backend), 5)


def kan_coef(
    x: Tensor, s: Maybe, u: Tensor, grid: Tensor, spec: Spec, order: int, with_base: bool, backend: str
) -> tuple[Tensor, Maybe]:
    """reference.kan_coef on `backend`, differentiable."""
    return _run(KanCoef, FirstKanCoef, (x, s, u, grid, spec, order, with_base, backend), 4)


def kan_backward(
    x: Tensor, s: Maybe, u: Tensor, coef: Tensor, base_weight: Maybe, grid: Tensor, spec: Spec, order: int, backend: str
) -> tuple[Tensor, Tensor, Maybe]:
    """reference.kan_backward on `backend`, differentiable."""
    return _run(KanBackward, FirstKanBackward, (x, s, u, coef, base_weight, grid, spec, order, backend), 6)


def edge_moments(x: Tensor, coef: Tensor, base_weight: Maybe, grid: Tensor, spec: Spec, backend: str) -> Tensor:
    """reference.edge_moments on `backend`, differentiable."""
    args = (x, coef, base_weight, grid, spec, backend)
    if torch.compiler.is_compiling():
        return FirstEdgeMoments.apply(*args)
    return _run(EdgeMoments, FirstEdgeMoments, args, 4)


def _run(function: type[Function], first_function: Any, args: Sequence[Any], tensors: int) -> Any:
    """The call in the cheapest form that the active modes of autograd allow; that many arguments are tensors."""
    if is_plain(args[:tensors]):
        if torch.is_grad_enabled():
            return first_function.at_once(*args)
        return function.forward(*args[:-1], direct_functions_of(args[-1]))
    if torch.compiler.is_compiling() or by_jit():
        # A compiled backward is not differentiated again, and torch.jit.trace cannot save a Function.
        return function.forward(*args)
    if is_transformed():
        return function.forward(*args[:-1], "reference") if is_third_forward() else function.apply(*args)
    if not torch.is_grad_enabled():
        return function.forward(*args)
    if any(map(is_grad_batch, args)):
        return _one_by_one(function, first_function, args, tensors)
    return first_function.apply(*args)


def _one_by_one(function: type[Function], first_function: Any, args: Sequence[Any], tensors: int) -> Any:
    """One call per member of a batch of autograd.grad(is_grads_batched=True), which loses a Function's graph."""
    level = grad_batch_level()
    batched = [is_grad_batch(arg) for arg in args]
    args = [remove_batch_dim(arg, level, 1, 0) if b else arg for arg, b in zip(args, batched, strict=True)]
    size = next(len(arg) for arg, b in zip(args, batched, strict=True) if b)
    calls = [[arg[n] if b else arg for arg, b in zip(args, batched, strict=True)] for n in range(size)]
    results = [_run(function, first_function, call, tensors) for call in calls]
    if isinstance(results[0], Tensor):
        return add_batch_dim(torch.stack(results), 0, level)
    columns = zip(*results, strict=True)
    return tuple(None if c[0] is None else add_batch_dim(torch.stack(c), 0, level) for c in columns)


def first(function: type[Function]) -> Any:
    """`function` with ctx in forward, for torch.compile; its `at_once` is for plain calls, see transforms.is_plain."""

    def forward(ctx, *args):
        output = function.forward(*args)
        function.setup_context(ctx, args, output)
        return output

    def forward_at_once(ctx, *args):
        *others, backend = args
        output = function.forward(*others, direct_functions_of(backend))
        function.setup_context(ctx, args, output)
        return output

    made, at_once = _with_forward("First", function, forward), _with_forward("Direct", function, forward_at_once)
    # Function.apply without its Python, which looks for transforms and for the tensors that they leave.
    made.at_once = super(Function, at_once).apply  # pyright: ignore[reportAttributeAccessIssue]
    return made


def _with_forward(prefix: str, function: type[Function], forward: Callable[..., Any]) -> Any:
    methods = {"forward": staticmethod(forward), "backward": staticmethod(function.backward)}
    return type(prefix + function.__name__, (Function,), methods)


def _save(ctx, *tensors: Maybe) -> None:
    ctx.save_for_backward(*tensors)
    if is_dual() and not torch.compiler.is_compiling():
        ctx.save_for_forward(*tensors)


def _scaled(coef: Tensor, scale: Maybe) -> Tensor:
    return coef if scale is None else coef * scale[:, None]


def _times(a: Maybe, b: Maybe) -> Maybe:
    return b if a is None else a if b is None else a * b


def _plus(a: Maybe, b: Maybe) -> Maybe:
    return b if a is None else a if b is None else a + b


def _gradients(x, s, u, coef, base_weight, grid, spec, order, backend, need_x, need_params) -> Any:
    """dT_order/dx, /dcoef and /dbase_weight where needed, else None; all together in one launch."""
    if need_x and need_params:
        return kan_backward(x, s, u, coef, base_weight, grid, spec, order, backend)
    grad_x = grad_coef = grad_base = None
    if need_x:
        grad_x = _times(s, kan_in(x, u, coef, base_weight, grid, spec, order + 1, backend))
    elif need_params:
        grad_coef, grad_base = kan_coef(x, s, u, grid, spec, order, base_weight is not None, backend)
    return grad_x, grad_coef, grad_base


def kan_out_gradients(u, x, s, coef, scale, base_weight, grid, spec, order, backend, needs):
    """Gradients of <u, kan_out> by x, coef, scale, base_weight and bias, those that are needed, differentiable."""
    need_x, need_coef, need_scale, need_base, need_bias = needs
    grad_x, grad_coef, grad_base = _gradients(
        x, s, u, _scaled(coef, scale), base_weight, grid, spec, order, backend, need_x,
        need_coef or need_scale or need_base,
    )  # fmt: skip
    grad_scale = (grad_coef * coef).sum(1) if need_scale else None
    grad_coef = _scaled(grad_coef, scale) if need_coef else None
    return grad_x, grad_coef, grad_scale, grad_base, u.sum(0) if need_bias else None


class KanOut(Function):
    """y = out_d(x, s, coef * scale, base_weight) + bias."""

    @staticmethod
    def forward(x, s, coef, scale, base_weight, bias, grid, spec, order, backend):
        return functions_of(backend).kan_out(x, s, _scaled(coef, scale), base_weight, bias, grid, spec, order)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, s, coef, scale, base_weight, _, grid, *ctx.rest = inputs
        _save(ctx, x, s, coef, scale, base_weight, grid)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, u):
        if u is None:
            return (None,) * 10
        x, s, coef, scale, base_weight, grid = ctx.saved_tensors
        need_x, need_s, *needs = ctx.needs_input_grad[:6]
        spec, order, backend = ctx.rest
        grad_x, *grads = kan_out_gradients(
            u, x, s, coef, scale, base_weight, grid, spec, order, backend, (need_x, *needs)
        )
        scaled = _scaled(coef, scale)
        grad_s = kan_in(x, u, scaled, base_weight, grid, spec, order, backend) if need_s else None
        return grad_x, grad_s, *grads, None, None, None, None

    @staticmethod
    def jvp(ctx, dx, ds, dcoef, dscale, dbase, dbias, *_):
        x, s, coef, scale, base_weight, grid = ctx.saved_tensors
        spec, order, backend = ctx.rest
        scaled = _scaled(coef, scale)
        dscaled = None if dcoef is None else _scaled(dcoef, scale)
        if dscale is not None:
            dscaled = _plus(dscaled, _scaled(coef, dscale))
        dy = None
        if dx is not None:
            dy = kan_out(x, _times(s, dx), scaled, base_weight, None, grid, spec, order + 1, backend)
        if ds is not None:
            dy = _plus(dy, kan_out(x, ds, scaled, base_weight, None, grid, spec, order, backend))
        if dscaled is not None or dbase is not None:
            dscaled = torch.zeros_like(coef) if dscaled is None else dscaled
            dy = _plus(dy, kan_out(x, s, dscaled, dbase, None, grid, spec, order, backend))
        if dbias is not None:
            dy = _plus(dy, dbias.expand(x.shape[0], -1))
        return dy

    @staticmethod
    def vmap(info, in_dims, *args):
        rows, fixed = (0, 1), (2, 3, 4, 5, 6)
        if any(in_dims[k] is not None for k in fixed):
            return _loop(KanOut.apply, info, in_dims, args)
        args = _fold(info, in_dims, args, rows)
        return KanOut.apply(*args).unflatten(0, (info.batch_size, -1)), 0


class KanIn(Function):
    """r = in_d(x, u, coef, base_weight)."""

    @staticmethod
    def forward(x, u, coef, base_weight, grid, spec, order, backend):
        return functions_of(backend).kan_in(x, u, coef, base_weight, grid, spec, order)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.spec, ctx.order, ctx.backend = inputs
        _save(ctx, *tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, v):
        if v is None:
            return (None,) * 8
        x, u, coef, base_weight, grid = ctx.saved_tensors
        grads = _in_vjp(v, x, u, coef, base_weight, grid, ctx.spec, ctx.order, ctx.backend, ctx.needs_input_grad)
        return *grads, None, None, None, None

    @staticmethod
    def jvp(ctx, dx, du, dcoef, dbase, *_):
        x, u, coef, base_weight, grid = ctx.saved_tensors
        return _in_jvp(dx, du, dcoef, dbase, x, u, coef, base_weight, grid, ctx.spec, ctx.order, ctx.backend)

    @staticmethod
    def vmap(info, in_dims, *args):
        rows, fixed = (0, 1), (2, 3, 4)
        if any(in_dims[k] is not None for k in fixed):
            return _loop(kan_in, info, in_dims, args)
        args = _fold(info, in_dims, args, rows)
        return kan_in(*args).unflatten(0, (info.batch_size, -1)), 0


class KanCoef(Function):
    """grad_coef, grad_base = coef_d(x, s, u)."""

    @staticmethod
    def forward(x, s, u, grid, spec, order, with_base, backend):
        return functions_of(backend).kan_coef(x, s, u, grid, spec, order, with_base)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, s, u, grid, ctx.spec, ctx.order, ctx.with_base, ctx.backend = inputs
        _save(ctx, x, s, u, grid)

    @staticmethod
    def backward(ctx, c, b):
        x, s, u, grid = ctx.saved_tensors
        grads = _coef_vjp(c, b, x, s, u, grid, ctx.spec, ctx.order, ctx.backend, ctx.needs_input_grad)
        return *grads, None, None, None, None, None

    @staticmethod
    def jvp(ctx, dx, ds, du, *_):
        x, s, u, grid = ctx.saved_tensors
        return _coef_jvp(dx, ds, du, x, s, u, grid, ctx.spec, ctx.order, ctx.with_base, ctx.backend)

    @staticmethod
    def vmap(info, in_dims, *args):
        return _loop(kan_coef, info, in_dims, args)


class KanBackward(Function):
    """r, grad_coef, grad_base = s in_{d+1}(x, u, coef, base_weight), coef_d(x, s, u)."""

    @staticmethod
    def forward(x, s, u, coef, base_weight, grid, spec, order, backend):
        return functions_of(backend).kan_backward(x, s, u, coef, base_weight, grid, spec, order)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.spec, ctx.order, ctx.backend = inputs
        _save(ctx, *tensors)

    @staticmethod
    def backward(ctx, v, c, b):
        x, s, u, coef, base_weight, grid = ctx.saved_tensors
        spec, order, backend = ctx.spec, ctx.order, ctx.backend
        need_x, need_s, need_u, need_coef, need_base, *_ = ctx.needs_input_grad
        grad_x, grad_u, grad_coef, grad_base = _in_vjp(
            _times(s, v), x, u, coef, base_weight, grid, spec, order + 1, backend,
            (need_x, need_u, need_coef, need_base),
        )  # fmt: skip
        needs = (need_x, need_s, need_u)
        more_x, grad_s, more_u = _coef_vjp(c, b, x, s, u, grid, spec, order, backend, needs)
        if need_s:
            grad_s = grad_s + v * kan_in(x, u, coef, base_weight, grid, spec, order + 1, backend)
        return (
            _plus(grad_x, more_x), grad_s, _plus(grad_u, more_u), grad_coef, grad_base, None, None, None, None,
        )  # fmt: skip

    @staticmethod
    def jvp(ctx, dx, ds, du, dcoef, dbase, *_):
        x, s, u, coef, base_weight, grid = ctx.saved_tensors
        spec, order, backend = ctx.spec, ctx.order, ctx.backend
        dr = _times(s, _in_jvp(dx, du, dcoef, dbase, x, u, coef, base_weight, grid, spec, order + 1, backend))
        if ds is not None:
            dr = _plus(dr, ds * kan_in(x, u, coef, base_weight, grid, spec, order + 1, backend))
        with_base = base_weight is not None
        return dr, *_coef_jvp(dx, ds, du, x, s, u, grid, spec, order, with_base, backend)

    @staticmethod
    def vmap(info, in_dims, x, s, u, coef, base_weight, grid, spec, order, backend):
        dims = in_dims[:6]
        inner = (dims[0], *dims[2:6], *in_dims[6:])
        r, r_dim = KanIn.vmap(info, inner, x, u, coef, base_weight, grid, spec, order + 1, backend)
        if s is not None:
            s_first = s if dims[1] is None else s.movedim(dims[1], 0)
            r = r * s_first
        inner = (*dims[:3], dims[5], in_dims[6], None, None, None)
        grads, g_dims = KanCoef.vmap(info, inner, x, s, u, grid, spec, order, base_weight is not None, backend)
        return (r, *grads), (r_dim, *g_dims)


def _in_vjp(v, x, u, coef, base_weight, grid, spec, order, backend, needs):
    """Gradients of <v, in_d(x, u, coef, base_weight)> = T_d(x; v, coef, u) by x, u, coef and base_weight."""
    need_x, need_u, need_coef, need_base, *_ = needs
    grad_x, grad_coef, grad_base = _gradients(
        x, v, u, coef, base_weight, grid, spec, order, backend, need_x, need_coef or need_base
    )
    grad_u = kan_out(x, v, coef, base_weight, None, grid, spec, order, backend) if need_u else None
    return grad_x, grad_u, grad_coef, grad_base


def _in_jvp(dx, du, dcoef, dbase, x, u, coef, base_weight, grid, spec, order, backend):
    dr = None
    if dx is not None:
        dr = dx * kan_in(x, u, coef, base_weight, grid, spec, order + 1, backend)
    if du is not None:
        dr = _plus(dr, kan_in(x, du, coef, base_weight, grid, spec, order, backend))
    if dcoef is not None or dbase is not None:
        dcoef = torch.zeros_like(coef) if dcoef is None else dcoef
        dr = _plus(dr, kan_in(x, u, dcoef, dbase, grid, spec, order, backend))
    return torch.zeros_like(x) if dr is None else dr


def _coef_vjp(c, b, x, s, u, grid, spec, order, backend, needs):
    """Gradients of <(c, b), coef_d(x, s, u)> = T_d(x; s, (c, b), u) by x, s and u."""
    need_x, need_s, need_u, *_ = needs
    grad_x = _times(s, kan_in(x, u, c, b, grid, spec, order + 1, backend)) if need_x else None
    grad_s = kan_in(x, u, c, b, grid, spec, order, backend) if need_s else None
    grad_u = kan_out(x, s, c, b, None, grid, spec, order, backend) if need_u else None
    return grad_x, grad_s, grad_u


def _coef_jvp(dx, ds, du, x, s, u, grid, spec, order, with_base, backend) -> tuple[Tensor, Maybe]:
    terms: list[Any] = []
    if dx is not None:
        terms.append(kan_coef(x, _times(s, dx), u, grid, spec, order + 1, with_base, backend))
    if ds is not None:
        terms.append(kan_coef(x, ds, u, grid, spec, order, with_base, backend))
    if du is not None:
        terms.append(kan_coef(x, s, du, grid, spec, order, with_base, backend))
    if not terms:
        terms.append(kan_coef(x, s, torch.zeros_like(u), grid, spec, order, with_base, backend))
    coefs, bases = zip(*terms, strict=True)
    return total(coefs), total(bases) if with_base else None


class EdgeMoments(Function):
    """mean_n |phi|, mean_n phi and mean_n (phi - mean)^2: [3, I, O], without a tensor of size [N, I, O]."""

    @staticmethod
    def forward(x, coef, base_weight, grid, spec, backend):
        return functions_of(backend).edge_moments(x, coef, base_weight, grid, spec)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.spec, ctx.backend = inputs
        _save(ctx, *tensors, output)

    @staticmethod
    def backward(ctx, grad):
        x, coef, base_weight, grid, moments = ctx.saved_tensors
        size, mean, variance = (grad / x.shape[0]).unbind(0)
        terms = torch.stack([size, mean - 2 * variance * moments[1], 2 * variance])
        args = (x, terms, coef, base_weight, grid, ctx.spec, ctx.needs_input_grad[0], ctx.backend)
        return *_run(EdgeBackward, FirstEdgeBackward, args, 5), None, None, None

    @staticmethod
    def jvp(ctx, *tangents):
        *tensors, grid, _ = ctx.saved_tensors

        def moments(x, coef, base_weight=None):
            return reference.edge_moments(x, coef, base_weight, grid, ctx.spec)

        return _tangents(moments, tensors, tangents)

    @staticmethod
    def vmap(info, in_dims, *args):
        return _loop(edge_moments, info, in_dims, args)


class EdgeBackward(Function):
    """reference.edge_backward without u; its own derivatives, rarely needed, run on the reference."""

    @staticmethod
    def forward(x, terms, coef, base_weight, grid, spec, with_x, backend):
        return _contiguous(functions_of(backend).edge_backward(x, None, terms, coef, base_weight, grid, spec, with_x))

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.spec, ctx.with_x, _ = inputs
        _save(ctx, *tensors)

    @staticmethod
    def backward(ctx, *cotangents):
        gradients, tensors = EdgeBackward.on_reference(ctx)
        _, pull, *_ = torch.func.vjp(gradients, *_present(tensors))
        grads = pull(tuple(_present(cotangents)))
        return *grads, *(None,) * (8 - len(grads))

    @staticmethod
    def jvp(ctx, *tangents):
        gradients, tensors = EdgeBackward.on_reference(ctx)
        results = _contiguous(_tangents(gradients, tensors, tangents))
        results = results if ctx.with_x else (None, *results)
        return *results, *(None,) * (3 - len(results))

    @staticmethod
    def on_reference(ctx):
        *tensors, grid = ctx.saved_tensors

        def gradients(x, terms, coef, base_weight=None):
            return tuple(
                _present(reference.edge_backward(x, None, terms, coef, base_weight, grid, ctx.spec, ctx.with_x))
            )

        return gradients, tensors

    @staticmethod
    def vmap(info, in_dims, *args):
        def apply(*one):
            return EdgeBackward.apply(*one)

        return _loop(apply, info, in_dims, args)


def _contiguous(tensors: Iterable[Maybe]) -> tuple[Maybe, ...]:
    """Of results that may be views: forward mode wants tangents with the strides of their primals."""
    return tuple(None if t is None else t.contiguous() for t in tensors)


def _present(tensors: Iterable[Maybe]) -> list[Tensor]:
    return [t for t in tensors if t is not None]


def _tangents(function: Callable[..., Any], tensors: Iterable[Maybe], tangents: Iterable[Maybe]) -> Any:
    """Tangents of function(*tensors), by the transpose of its transpose, since forward modes do not nest.

    The last tensor may be None, and any tangent.
    """
    tensors = _present(tensors)
    output, pull, *_ = torch.func.vjp(function, *tensors)
    zeros = torch.zeros_like(output) if isinstance(output, Tensor) else tuple(map(torch.zeros_like, output))
    _, push, *_ = torch.func.vjp(pull, zeros)
    pairs = zip(tensors, tangents, strict=False)
    return push(tuple(torch.zeros_like(t) if tangent is None else tangent for t, tangent in pairs))[0]


FirstKanOut, FirstKanIn, FirstKanCoef = first(KanOut), first(KanIn), first(KanCoef)
FirstKanBackward, FirstEdgeMoments, FirstEdgeBackward = first(KanBackward), first(EdgeMoments), first(EdgeBackward)


def _fold(info, in_dims, args, rows):
    """Merge the batch dimension into the rows: [B, N, .] -> [B N, .] for the arguments at positions `rows`."""
    args = list(args)
    for k in rows:
        if args[k] is not None:
            t, d = args[k], in_dims[k]
            t = t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
            args[k] = t.flatten(0, 1)
    return args


def _loop(function: Callable[..., Any], info, in_dims, args) -> tuple[Any, Any]:
    """One call per member of the batch, where weights or sums over rows depend on it."""
    results: list[Any] = []
    for b in range(info.batch_size):
        one = (a.select(d, b) if isinstance(d, int) else a for a, d in zip(args, in_dims, strict=True))
        results.append(function(*one))
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    stacked = tuple(None if parts[0] is None else torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, tuple(None if t is None else 0 for t in stacked)
