"""Rounding errors of c f(a x + b) + d in a dtype: they matter where c f and d are large and cancel."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ...devices import exact
from .library import SYMBOLIC_LIB

POINTS = 65  # samples of an input's grid range
SHOWN = 5  # edges in a warning


def allowed(dtype: torch.dtype) -> float:
    """The accepted relative rounding error: a share of the function's standard deviation."""
    return max(1e-3, 32 * torch.finfo(dtype).eps)


def rounding_error(fun: Callable[[Tensor], Tensor], x: Tensor, affine: Tensor, dtype: torch.dtype) -> Tensor:
    """The relative error of computing in dtype, [E]: root mean square over standard deviation; x [E, N], affine [E, 4].

    As in a SymbolicLayer, parameters have the dtype and are computed with in float32 or better. x is rounded to dtype
    in both, since its rounding does not depend on the formula. Samples at which f is not defined are ignored.
    """
    x = x.to(dtype)

    def value(parameters: Tensor, computed: torch.dtype) -> Tensor:
        a, b, c, d = parameters.to(computed)[..., None].unbind(1)
        return (c * fun(a * x.to(computed) + b) + d).double()

    exact = value(affine, torch.float64)
    defined = exact.isfinite()
    count = defined.sum(1).clamp_min(1)
    exact = torch.where(defined, exact, 0.0)
    error = torch.where(defined, value(affine.to(dtype), torch.promote_types(dtype, torch.float32)) - exact, 0.0)
    mean = exact.sum(1) / count
    std = (torch.where(defined, exact - mean[:, None], 0.0).square().sum(1) / count).sqrt()
    error = (error.square().sum(1) / count).sqrt().nan_to_num(torch.inf)
    # The rounding of the values themselves is accepted, as for a constant.
    return error / torch.maximum(std, 4 * torch.finfo(dtype).eps / allowed(dtype) * mean.abs()).clamp_min(1e-300)


def narrower(new: torch.dtype, old: torch.dtype) -> bool:
    return new.is_floating_point and old.is_floating_point and torch.finfo(new).eps > torch.finfo(old).eps


def warn_of_rounding(layers: Iterable[tuple[list[list[str]], Tensor, Tensor, Tensor]], dtype: torch.dtype) -> None:
    """Warn of edges whose functions lose too much by rounding to dtype.

    layers: of each the names [O][I], mask [O, I] and affine [O, I, 4] of the edges and the inputs' ranges [I, 2]."""
    edges = []
    for l, (names, mask, affine, ends) in enumerate(layers):
        if not narrower(dtype, affine.dtype) or ends.is_meta or not bool(mask.any()):
            continue
        ends, affine = exact(ends), exact(affine.detach())
        part = torch.linspace(0, 1, POINTS, dtype=torch.float64, device=ends.device)
        x = torch.lerp(ends[:, :1], ends[:, 1:], part)  # I P
        for j, i in (mask != 0).nonzero().tolist():
            if names[j][i] not in ("0", "x") and names[j][i] in SYMBOLIC_LIB:
                function, numbers = SYMBOLIC_LIB[names[j][i]], affine[[j], i].to(x.device)
                error = rounding_error(function, x[[i]], numbers, dtype).item()
                if not error <= allowed(dtype):
                    edges.append(f"({l},{i},{j}) {names[j][i]}: {error:.1%}")
    if edges:
        more = f" and {len(edges) - SHOWN} more" if len(edges) > SHOWN else ""
        warnings.warn(
            f"{dtype} loses a large share of the functions on the edges {', '.join(edges[:SHOWN])}{more}: their "
            "parameters are large and cancel. Keep the wider dtype, or fit these edges again by fix_symbolic",
            stacklevel=2,
        )
