"""Prototype of a backend: the contractions in plain PyTorch in the operands' own type: local windows, one matrix product.

Same six functions as fastkan/reference.py. Coordinates in float32 (float64 where an operand is), origin as a sum of two.
"""
import torch
from torch import Tensor
from .. import reference
from ..basis.base import BASES, base_feature as _base_feature
from ..basis.bspline import OUTSIDE
from ..spec import FAMILIES

BLOCK = 1 << 24          # features held at a time
CLOSED = True            # uniform cubics in closed form over all F where F is small
CLOSED_TO = 16
def missing(*_): return None


def _acc(*ts): return torch.float64 if any(t.dtype == torch.float64 for t in ts) else torch.float32


def _coordinate(x, grid):
    """(x - first) / h and 1/h [I]; nothing of float64 has the size of x."""
    first, over = grid[:, 0], (grid.shape[1] - 1) / (grid[:, -1] - grid[:, 0])
    high = first.to(x.dtype)
    low = (first - high.to(first.dtype)).to(x.dtype)
    over = over.to(x.dtype)
    return (x - high).sub_(low).mul_(over), over


def _local_uniform(u, over, order, degree):
    w = [torch.ones_like(u)]
    if order > degree: return [torch.zeros_like(u)] * (degree + 1)
    if degree == 3 and order == 0:
        v = 1 - u; u2, v2 = u * u, v * v; a, d = u2 * u / 6, v2 * v / 6
        b = torch.addcmul(torch.full_like(u, 2 / 3), u2, u.mul(.5).sub_(1))
        return [d, b, (1 - a).sub_(b).sub_(d), a]
    if degree == 3 and order == 1:
        v = 1 - u; a, d = u * u * .5 * over, v * v * (-.5) * over
        b = (1.5 * u - 2).mul_(u).mul_(over)
        return [d, b, -(a + b + d), a]
    for r in range(1, degree + 1):
        below, v = 0, []
        for k in range(r):
            q = w[k] / r
            v.append(r * (below - q) if r > degree - order else (u + (r - k)) * below + ((k + 1) - u) * q)
            below = q
        w = v + [r * below if r > degree - order else u * below]
    if order: w = [y * over ** order for y in w]
    return w


def _local_any(x, m, t, order, degree):
    M = t.shape[1]
    if order > degree: return [torch.zeros_like(x)] * (degree + 1)
    row = torch.arange(t.shape[0], device=x.device) * M
    flat = t.reshape(-1)
    at = lambda j: flat[row + (m + j).clamp_(0, M - 1)]
    left = [x - at(1 - j) for j in range(1, degree + 1)]
    right = [at(j) - x for j in range(1, degree + 1)]
    w = [torch.ones_like(x)]
    for r in range(1, degree + 1):
        below, v = 0, []
        for k in range(r):
            support = right[k] + left[r - k - 1]
            q = torch.where(support > 0, w[k] / support, 0)
            if r > degree - order: v.append(r * (below - q))
            else: v.append(right[k] * q if k == 0 else left[r - k] * below + right[k] * q)
            below = q
        w = v + [r * below if r > degree - order else left[0] * below]
    return w


def window(x, grid, spec, order):
    """start [N, I] and K+1 values [N, I]: fastkan/backends/triton/kernels/bspline.py::window in plain PyTorch."""
    K, M = spec.degree, grid.shape[1]
    F, last = M - K - 1, M - 1
    out = OUTSIDE[spec.outside]
    if spec.uniform:
        z, over = _coordinate(x, grid)
        if out == "zero":
            inside = (z >= 0) & (z < last)
            end = z.clamp(0, last)
            at_end = z == F
        else:
            end = z.clamp(K, F)
            at_end = end == F
        m = torch.minimum(end.nan_to_num(0.).int(), torch.where(at_end, F - 1, last - 1))
        beyond = None if out == "zero" else (z - end) / over
        fn = lambda d: _local_uniform(end - m, over, d, K)
    else:
        t = grid.to(x.dtype)
        low, high = t[:, K], t[:, F]
        inside = (x >= t[:, 0]) & (x < t[:, -1])
        end = x if out == "zero" else torch.minimum(torch.maximum(x, low), high)
        at_end = end == high
        beyond = None if out == "zero" else x - end
        tc = t.contiguous()
        xs = end.T.contiguous()
        m = (torch.searchsorted(tc, xs, right=True).T - 1).clamp(0, last - 1)
        n_left = (torch.searchsorted(tc, tc[:, F:F + 1].contiguous(), right=False) - 1).view(-1)
        m = torch.where(at_end, n_left.clamp_min(0), m).to(torch.int32)
        fn = lambda d: _local_any(end, m, t, d, K)
    w = fn(order)
    if out == "zero": keep = inside | at_end
    elif order >= (2 if out == "linear" else 1): keep = beyond == 0
    else: keep = None
    if out == "linear" and order == 0:
        w = [a + torch.where(b == 0, 0, beyond * b) for a, b in zip(w, fn(1), strict=True)]
    nan = x.isnan()
    w = torch.stack(w, -1)
    if keep is not None: w = torch.where(keep[..., None], w, 0)
    start = torch.where(nan, 0, m - K)
    w = torch.where(nan[..., None], x[..., None], w)
    f = start[..., None].long() + torch.arange(K + 1, device=x.device)
    w = torch.where((f >= 0) & (f < F), w, 0)
    return torch.remainder(f, F), w


def _closed(x, grid, order, out, K=3):
    F = grid.shape[1] - K - 1
    z, over = _coordinate(x, grid)
    beyond = None
    if out != "zero":
        end = z.clamp(K, F)
        beyond = z - end
        z = torch.where(beyond == 0, end, -1e6) if order >= (2 if out == "linear" else 1) else end
    t = z[..., None] - torch.arange(2, F + 2, device=x.device, dtype=x.dtype)
    a = t.abs()
    if order == 0:
        p = (2 - a).clamp_min_(0); q = (1 - a).clamp_min_(0)
        y = (p * p).mul_(p).sub_((q * q).mul_(q), alpha=4).mul_(1 / 6)
    else:
        p = (2 - a).clamp_min_(0); q = (1 - a).clamp_min_(0)
        y = (q * q).mul_(2).addcmul_(p, p, value=-.5).mul_(t.sign()).mul_(over[:, None])
    return y


def _is_closed(spec, order, F):
    return CLOSED and spec.uniform and spec.degree == 3 and order < 2 and F <= CLOSED_TO and OUTSIDE[spec.outside] == "zero"


def base_feature(x, base, order):
    if base == "silu" and order == 0: return torch.nn.functional.silu(x)
    if base == "silu" and order == 1:
        s = torch.sigmoid(x)
        return torch.addcmul(s, s * x, 1 - s)
    return _base_feature(x, base, order)


def features(x, grid, spec, order, with_base, acc, to):
    """[N, I, F] dense, of type `to`."""
    fam = FAMILIES[spec.family]
    if fam != "bspline":
        return reference._FEATURES[fam](x.to(acc), grid.to(acc), spec, order).to(to)
    K = spec.degree; F = grid.shape[1] - K - 1
    x = x.to(acc)
    if _is_closed(spec, order, F):
        y = _closed(x, grid, order, "zero").to(to)
        return y
    f, w = window(x, grid, spec, order)
    return torch.zeros(*x.shape, F, dtype=to, device=x.device).scatter_(-1, f, w.to(to))


def _rows(N, width):
    if torch.compiler.is_compiling() or isinstance(N, torch.SymInt): return [slice(None)]
    step = max(1, BLOCK // max(1, width))
    return [slice(a, min(a + step, N)) for a in range(0, max(1, N), step)]


def _op(dtype, order):  # float16 overflows in derivatives
    return torch.float32 if order > 0 and dtype == torch.float16 else dtype


def kan_out(x, s, coef, base_weight, bias, grid, spec, order):
    acc = _acc(x, coef); op = acc if acc == torch.float64 else _op(coef.dtype, order)
    I, F, O = coef.shape
    W = coef.reshape(I * F, O).to(op)
    ys = []
    for r in _rows(x.shape[0], I * F):
        xr = x[r]
        phi = features(xr, grid, spec, order, False, acc, op if s is None else acc)
        if s is not None: phi = (phi * s[r, :, None].to(acc)).to(op)
        phi = phi.reshape(xr.shape[0], I * F)
        y = phi @ W if bias is None else torch.addmm(bias.to(op), phi, W)
        if base_weight is not None:
            b = base_feature(xr.to(acc), BASES[spec.base], order)
            if s is not None: b = b * s[r].to(acc)
            y = torch.addmm(y, b.to(op), base_weight.to(op))
        ys.append(y)
    return (ys[0] if len(ys) == 1 else torch.cat(ys)).to(coef.dtype)


def _in(x, u, coef, base_weight, grid, spec, order, acc, op):
    I, F, O = coef.shape
    xr = x.to(acc)
    slopes = (u.to(op) @ coef.reshape(I * F, O).to(op).T).view(x.shape[0], I, F)
    fam = FAMILIES[spec.family]
    if fam == "bspline" and _is_closed(spec, order, F):
        y = _closed(xr, grid, order, "zero")
        g = (y.mul_(slopes) if slopes.dtype == acc else y * slopes).sum(-1)
    elif fam == "bspline":
        f, w = window(xr, grid, spec, order)
        g = (slopes.gather(-1, f).to(acc) * w).sum(-1)
    else:
        g = (slopes.to(acc) * features(x, grid, spec, order, False, acc, acc)).sum(-1)
    if base_weight is not None:
        g = torch.addcmul(g, base_feature(xr, BASES[spec.base], order), (u.to(op) @ base_weight.to(op).T).to(acc))
    return g


def kan_in(x, u, coef, base_weight, grid, spec, order):
    acc = _acc(x, coef); op = acc if acc == torch.float64 else coef.dtype
    gs = [_in(x[r], u[r], coef, base_weight, grid, spec, order, acc, op) for r in _rows(x.shape[0], coef.shape[0] * coef.shape[1])]
    g = gs[0] if len(gs) == 1 else torch.cat(gs)
    return torch.where(x.isnan(), x, g.to(x.dtype))


def kan_coef(x, s, u, grid, spec, order, with_base):
    acc = _acc(x, u); op = acc if acc == torch.float64 else _op(u.dtype, order)
    I, F = x.shape[1], grid.shape[1] - spec.degree - 1
    rows = _rows(x.shape[0], I * F)
    total = base = None
    for r in rows:
        phi = features(x[r], grid, spec, order, False, acc, op if s is None else acc)
        if s is not None: phi = (phi * s[r, :, None].to(acc)).to(op)
        phi = phi.reshape(phi.shape[0], I * F)
        ur = u[r].to(op)
        g = phi.T @ ur
        total = g.to(acc) if total is None and len(rows) > 1 else g if total is None else total.add_(g)
        if with_base:
            b = base_feature(x[r].to(acc), BASES[spec.base], order)
            if s is not None: b = b * s[r].to(acc)
            b = b.to(op).T @ ur
            base = b if base is None else base + b
    return total.view(I, F, u.shape[1]).to(u.dtype), base.to(u.dtype) if with_base else None


def kan_backward(x, s, u, coef, base_weight, grid, spec, order):
    g = kan_in(x, u, coef, base_weight, grid, spec, order + 1)
    c, b = kan_coef(x, s, u, grid, spec, order, base_weight is not None)
    return (g if s is None else g * s), c, b


edge_moments, edge_backward = reference.edge_moments, reference.edge_backward
