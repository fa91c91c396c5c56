"""What of c f(a x + b) + d a type carries: where c f and d cancel, its rounding shows in what is left."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .library import SYMBOLIC_LIB

POINTS = 65  # of an input's grid range
SHOWN = 5


def allowed(dtype: torch.dtype) -> float:
    """The share of a function's standard deviation that rounding may take."""
    return max(1e-3, 32 * torch.finfo(dtype).eps)


def lost(fun: Callable[[Tensor], Tensor], x: Tensor, affine: Tensor, dtype: torch.dtype) -> Tensor:
    """Root mean squares over standard deviations, [E]: what computing in dtype changes for x [E, N], affine [E, 4].

    As a SymbolicLayer computes: parameters are of the dtype, and what is made of them of float32 or better. x is of the
    dtype in both: what its rounding changes is no matter of the formula. Where f is not defined does not count.
    """
    x = x.to(dtype)

    def value(parameters: Tensor, computed: torch.dtype) -> Tensor:
        a, b, c, d = parameters.to(computed)[..., None].unbind(1)
        return (c * fun(a * x.to(computed) + b) + d).double()

    right = value(affine, torch.float64)
    defined = right.isfinite()
    count = defined.sum(1).clamp_min(1)
    right = torch.where(defined, right, 0.0)
    error = torch.where(defined, value(affine.to(dtype), torch.promote_types(dtype, torch.float32)) - right, 0.0)
    mean = right.sum(1) / count
    spread = (torch.where(defined, right - mean[:, None], 0.0).square().sum(1) / count).sqrt()
    error = (error.square().sum(1) / count).sqrt().nan_to_num(torch.inf)
    # What rounding the values themselves would change is allowed, as it is of a constant.
    return error / torch.maximum(spread, 4 * torch.finfo(dtype).eps / allowed(dtype) * mean.abs()).clamp_min(1e-300)


def narrower(new: torch.dtype, old: torch.dtype) -> bool:
    return new.is_floating_point and old.is_floating_point and torch.finfo(new).eps > torch.finfo(old).eps


def warn_of_lost(layers: Iterable[tuple[list[list[str]], Tensor, Tensor, Tensor]], dtype: torch.dtype) -> None:
    """Tell of edges whose functions dtype can't carry: of every layer names [O][I], mask, affine [O, I, 4] and the
    inputs' ranges [I, 2]."""
    found = []
    for l, (names, mask, affine, ends) in enumerate(layers):
        if not narrower(dtype, affine.dtype) or ends.is_meta or not bool(mask.any()):
            continue
        part = torch.linspace(0, 1, POINTS, dtype=torch.float64, device=ends.device)
        x = torch.lerp(ends[:, :1].double(), ends[:, 1:].double(), part)  # I P
        for j, i in (mask != 0).nonzero().tolist():
            if names[j][i] not in ("0", "x") and names[j][i] in SYMBOLIC_LIB:
                share = lost(SYMBOLIC_LIB[names[j][i]], x[[i]], affine[[j], i].detach().double(), dtype).item()
                if not share <= allowed(dtype):
                    found.append(f"({l},{i},{j}) {names[j][i]}: {share:.1%}")
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        warnings.warn(
            f"{dtype} loses this much of the functions on the edges {', '.join(found[:SHOWN])}{more}: their numbers "
            "are large and cancel. Keep the wider type, or fit these edges again by fix_symbolic in this one",
            stacklevel=2,
        )
