"""Suggestions of functions for edges: fits of the whole library, ranked by error and complexity."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..layers.library import SymbolicFunction
from .edge_fit import Fit, fit_symbolic
from .redundant_parameters import symmetry

TIE = 0.05  # bits: losses that differ by less are equal


class Candidate(NamedTuple):
    """A function for an edge, y = c f(a x + b) + d with affine = (a, b, c, d); a smaller loss is better."""

    name: str
    r2: float
    complexity: float
    loss: float
    affine: tuple[float, float, float, float]


def r2_bits(r2: Tensor) -> Tensor:
    """log2(1 + 1e-5 - r2): the unexplained variance in bits; pykan's r2_loss_fun."""
    return torch.log2(1 + 1e-5 - r2)


def suggest(
    x: Tensor,
    y: Tensor,
    lib: Iterable[str | SymbolicFunction] | None = None,
    weight_simple: float = 0.8,
    *,
    topk: int | None = 5,
    r2_loss_fun: Callable[[Tensor], Tensor] = r2_bits,
    c_loss_fun: Callable[[Tensor], Tensor] | None = None,
    **options,
) -> list[list[Candidate]]:
    """The `topk` best functions for every edge, best first.

    The loss is pykan's, weight_simple c_loss_fun(complexity) + (1 - weight_simple) r2_loss_fun(r2). Equal losses are
    ordered by complexity, then r2, then the order in the library. Among losses within 0.05 of the lowest, the function
    with the fewest parameters is first: x^2 has one beside c and d, and sin, which is similar near its maximum, two.

    Args:
        x: [N] or [N, E]; y: [N, E], or [N] for one edge.
        lib, options: as in fit_symbolic.
        weight_simple: from 0, the best fit, to 1, the simplest function.
        topk: number of functions, None for all.
        r2_loss_fun: r2 [E, n_functions] -> bits. c_loss_fun: complexities [n_functions] -> bits, by default unchanged.

    Returns:
        E lists of candidates.

    Raises:
        ValueError: weight_simple or topk out of range; and as fit_symbolic.
    """
    _check_weight(weight_simple)
    if topk is not None and (isinstance(topk, bool) or not isinstance(topk, int) or topk < 1):
        raise ValueError(f"topk={topk!r}: expected an integer, at least 1, or None")
    fit = fit_symbolic(x, y, lib, **options)
    dtype = options.get("dtype", torch.float64)
    return rank(fit, weight_simple, topk=topk, r2_loss_fun=r2_loss_fun, c_loss_fun=c_loss_fun, dtype=dtype)


def rank(
    fit: Fit,
    weight_simple: float = 0.8,
    *,
    topk: int | None = 5,
    r2_loss_fun: Callable[[Tensor], Tensor] = r2_bits,
    c_loss_fun: Callable[[Tensor], Tensor] | None = None,
    dtype: torch.dtype = torch.float64,
    r2_threshold: float = 0.0,
) -> list[list[Candidate]]:
    """suggest for existing fits. Functions that can't be computed in dtype have an infinite loss; functions with r2
    below r2_threshold come last."""
    _check_weight(weight_simple)
    complexity = torch.tensor([f.complexity for f in fit.functions], dtype=torch.float64, device=fit.r2.device)
    bits = complexity if c_loss_fun is None else c_loss_fun(complexity)
    loss = weight_simple * bits + (1 - weight_simple) * r2_loss_fun(fit.r2)
    loss = loss.masked_fill(~(fit.r2.isfinite() & fit.is_representable(dtype)), math.inf).tolist()
    r2, affine, cost = fit.r2.tolist(), fit.affine.tolist(), complexity.tolist()
    redundant = [sum(symmetry(f.torch_fn)[:2]) for f in fit.functions]
    ranked = []
    for edge in range(len(r2)):
        keys = [(max(r2[edge][i], 0.0) < r2_threshold, loss[edge][i], cost[i], -r2[edge][i]) for i in range(len(cost))]
        order = sorted(range(len(cost)), key=keys.__getitem__)
        below, lowest, *_ = keys[order[0]]
        tied = [i for i in order if loss[edge][i] <= lowest + TIE and keys[i][0] == below]
        tied.sort(key=lambda i: redundant[i], reverse=True)
        order = (tied + order[len(tied) :])[:topk]
        ranked.append([
            Candidate(fit.functions[i].name, r2[edge][i], cost[i], loss[edge][i], tuple(affine[edge][i])) for i in order
        ])  # fmt: skip
    return ranked


def _check_weight(weight_simple: float) -> None:
    if not 0 <= weight_simple <= 1:
        raise ValueError(f"weight_simple={weight_simple!r}: expected a number from 0 to 1")
