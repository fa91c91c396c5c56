"""Inputs, tolerances and assertions for tests/ and bench/.

A backend is correct if its error is that of its arithmetic. The truth is the reference in float64 on the same (already
rounded) inputs, and an element of a result may be off by

    2 |reference in this dtype - truth| + band,
    band = eps_t S_d + eps_a (8 (K + 2) + 2 sqrt(n)) A_d + 4 eps_a D A_{d+1} + 4 eps_r |truth|

S_d is the sum of the absolute values of the terms, A_d the same with a feature counting as the absolute values of its
own terms (`absolute_features`); eps_t, eps_a and eps_r are the machine epsilons of the coefficients, of the accumulator
(float32, float64 where an operand is) and of the result; n is the number of terms. In order: a finished feature is
rounded to the operands' type; a feature takes K + 1 stages of at most 8 roundings, and a sum of n terms wanders by
sqrt(n) roundings (Higham and Mary, SIAM J. Sci. Comput. 41, 2019); the coordinate x - t, made with 4 roundings of
numbers up to D = max |t| + |x|, moves a feature by its derivative; the result is rounded, at most four times
(s in_{d+1} is a product of rounded numbers). Where a matrix product rounds both its operands to a coarser type than
they are stored in, as tf32 does to float32, twice that type's epsilon (`Problem.operand_epsilon`) adds to eps_t.
Functions of the other families count as splines of degree 0 in the number of roundings, and Gaussians below the
least normal number may be 0.
"""

from dataclasses import dataclass, replace
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from . import reference
from .basis.base import BASES, sigmoid_derivative
from .basis.bspline import OUTSIDE, uniform_knots
from .basis.chebyshev import chebyshev_features
from .basis.rbf import REACH
from .spec import FAMILIES, Spec

CONTRACTIONS = ("kan_out", "kan_in", "kan_coef", "kan_backward", "edge_moments", "edge_backward")
KNOTS = ("promised", "even", "uneven")

# The machine epsilon of tf32, 10 bits after the point: a rounding is off by half of it, a truncation by all of it.
TF32 = 2.0**-10

# Upper bound of the factor by which a sum of squares about a value other than the mean is larger: the first row's value
# for 16 rows, then the mean of the previous rows, at least a 16th of all (csrc/cpu/edge_moments.h).
SQUARES = 16

# No x is closer to a knot than this share of a mean interval: in float32 it may be on either side there.
MARGIN = 1e-3


@dataclass(frozen=True)
class Problem:
    """The arguments of the contractions.

    x, s [N, I]; u [N, O]; coef [I, F, O]; base_weight [I, O]; grid [I, M]; terms [3, I, O].
    """

    x: Tensor
    s: Tensor | None
    u: Tensor
    coef: Tensor
    base_weight: Tensor | None
    bias: Tensor | None
    grid: Tensor
    terms: Tensor
    spec: Spec
    order: int = 0
    operand_epsilon: float = 0.0  # of a matrix product's operands, where they are rounded further than to their dtype

    @classmethod
    def random(
        cls, rows: int, inputs: int, outputs: int, grid_size: int, degree: int = 3, *, order: int = 0,
        base: str | None = "silu", outside: str = "zero", knots: str = "even", per_input: bool = False,
        weighted: bool = False, with_bias: bool = True, dtype: torch.dtype = torch.float32,
        x_dtype: torch.dtype | None = None, seed: int = 0,
    ) -> "Problem":  # fmt: skip
        """A seeded problem, its x inside the grid, in the tail and beyond it; `knots` is one of KNOTS.

        Without a `base` there is no base_weight. The grid range is [-1, 1], in 16 bits wider, so that high derivatives
        stay within float16's range.
        """
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, to: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(to)

        end = 1.0 if dtype.itemsize > 2 else max(1.0, 0.2 * grid_size)
        grid = random_grid(inputs, grid_size, degree, end, knots, per_input, generator)
        x_dtype = x_dtype or dtype
        x = away_from_knots(random_x(grid, degree, rows, generator).to(x_dtype), grid, 2 * end / grid_size)
        return cls(
            x=x,
            s=normal(rows, inputs, to=x_dtype) if weighted else None,
            u=normal(rows, outputs),
            coef=normal(inputs, grid_size + degree, outputs),
            base_weight=None if base is None else normal(inputs, outputs),
            bias=normal(outputs) if with_bias else None,
            grid=grid,
            terms=normal(3, inputs, outputs, to=accumulator(x_dtype, dtype)),
            spec=Spec.of(degree, base or "zero", outside, knots == "promised"),
            order=order,
        )

    def to(self, dtype: torch.dtype) -> "Problem":
        """The same values in another dtype."""
        tensors = {name: value.to(dtype) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{**tensors, "grid": self.grid})

    def on(self, device: torch.device | str) -> "Problem":
        """The same values on another device; a grid row that all inputs share stays one."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        if self.grid.stride(0) == 0:
            tensors["grid"] = self.grid[:1].to(device).expand(self.grid.shape)
        return replace(self, **tensors)


def random_grid(
    inputs: int, grid_size: int, degree: int, end: float, knots: str, per_input: bool, generator: torch.Generator
) -> Tensor:
    """[I, M] knots around [-end, end]; a row shared by all inputs has stride 0."""
    if knots not in KNOTS:
        raise ValueError(f"knots={knots!r}: expected one of {KNOTS}")
    shift = 0.1 * torch.rand(inputs if per_input else 1, generator=generator, dtype=torch.float64)
    grid = uniform_knots(-end - shift, end - shift, grid_size, degree)
    if knots == "uneven":
        jitter = torch.rand(grid.shape, generator=generator, dtype=torch.float64) - 0.5
        grid = grid + 0.7 * (2 * end / grid_size) * jitter
    return grid.expand(inputs, -1)


def random_x(grid: Tensor, degree: int, rows: int, generator: torch.Generator) -> Tensor:
    """[N, I]: 90 % within the extended knots, the others up to half a grid range beyond them."""
    reach = 0.5 * (grid[:, -degree - 1] - grid[:, degree])
    place = torch.rand(rows, grid.shape[0], generator=generator, dtype=torch.float64)
    far = torch.rand(rows, grid.shape[0], generator=generator, dtype=torch.float64) < 0.1
    low, high = torch.where(far, grid[:, 0] - reach, grid[:, 0]), torch.where(far, grid[:, -1] + reach, grid[:, -1])
    return low + (high - low) * place


def away_from_knots(x: Tensor, grid: Tensor, interval: float) -> Tensor:
    """x with each element that is too close to a knot moved away, by steps of a few margins."""
    for _ in range(1000):
        near = ((x.double()[..., None] - grid).abs() < MARGIN * interval).any(-1)
        if not near.any():
            return x
        step = 3 * max(MARGIN * interval, float(torch.finfo(x.dtype).eps * grid.abs().max()))
        x = torch.where(near, (x.double() - step).to(x.dtype), x)
    raise ValueError(f"the knots are too dense for {x.dtype}: no x between them")


def on_knots(
    degree: int, order: int, outside: str, knots: str, dtype: torch.dtype, x_dtype: torch.dtype | None = None,
) -> Problem:  # fmt: skip
    """x on each knot and beyond, of a grid that every dtype holds: the interval, not the rounding, is tested."""
    grid = (torch.arange(4 + 2 * degree + 1, dtype=torch.float64) - degree) / 4  # range [0, 1]
    p = Problem.random(
        len(grid) + 2, 3, 5, 4, degree, order=order, outside=outside, knots=knots, dtype=dtype,
        x_dtype=x_dtype,
    )  # fmt: skip
    x = torch.cat([grid, grid[:1] - 0.25, grid[-1:] + 0.25]).to(x_dtype or dtype)
    return replace(p, grid=grid.expand(3, -1), x=x[:, None].expand(-1, 3).contiguous())


def call(backend: ModuleType, contraction: str, p: Problem) -> tuple[Tensor, ...]:
    """The results of a contraction by the backend's own function, without None."""
    x, s, u, coef, base, bias, grid, spec, order = (
        p.x, p.s, p.u, p.coef, p.base_weight, p.bias, p.grid, p.spec, p.order,
    )  # fmt: skip
    args = {
        "kan_out": (x, s, coef, base, bias, grid, spec, order),
        "kan_in": (x, u, coef, base, grid, spec, order),
        "kan_coef": (x, s, u, grid, spec, order, base is not None),
        "kan_backward": (x, s, u, coef, base, grid, spec, order),
        "edge_moments": (x, coef, base, grid, spec),
        "edge_backward": (x, u, p.terms, coef, base, grid, spec, True),
    }[contraction]
    result = getattr(backend, contraction)(*args)
    return (result,) if isinstance(result, Tensor) else tuple(t for t in result if t is not None)


class Expected(NamedTuple):
    """A result of the reference in the operands' dtype, the truth, and how far from it a result may be."""

    result: Tensor
    truth: Tensor
    allowed: Tensor


def expected(contraction: str, p: Problem) -> list[Expected]:
    """What a backend's results are compared with, on p's device."""
    exact, same = p.to(torch.float64), call(reference, contraction, p)
    truth = call(reference, contraction, exact)
    bands = absolute_errors(contraction, p, truth)
    allowed = [2 * (ours.double() - true).abs() + band for ours, true, band in zip(same, truth, bands, strict=True)]
    if not p.x.isnan().any():  # a bound may be NaN only where an operand is
        allowed = [t.nan_to_num(nan=0.0, posinf=torch.inf) for t in allowed]
    return list(map(Expected, same, truth, allowed))


def assert_matches_reference(backend: ModuleType, contraction: str, p: Problem) -> None:
    """AssertionError if the backend's results differ from the reference's by more than arithmetic explains."""
    assert_expected(contraction, call(backend, contraction, p), expected(contraction, p))


def assert_expected(contraction: str, results: tuple[Tensor, ...], of: list[Expected]) -> None:
    """As assert_matches_reference. Where the truth is NaN, so must the result be; where only the bound is NaN,
    since x has one, anything is right.
    """
    assert len(results) == len(of), f"{contraction}: {len(results)} results, expected {len(of)}"
    for k, (got, (ours, true, allowed)) in enumerate(zip(results, of, strict=True)):
        where = f"{contraction}, result {k}"
        assert got.dtype == ours.dtype, f"{where}: dtype {got.dtype}, expected {ours.dtype}"
        assert got.shape == ours.shape, f"{where}: shape {list(got.shape)}, expected {list(ours.shape)}"
        got = got.to(true.device, torch.float64)
        right = torch.where(true.isnan(), got.isnan(), allowed.isnan())
        got, true, allowed = (t.masked_fill(right, 0.0) for t in (got, true, allowed))
        assert_within(got, true, allowed, where)


def assert_within(result: Tensor, truth: Tensor, allowed: Tensor, where: str = "result") -> None:
    """AssertionError unless |result - truth| <= allowed everywhere; a NaN is never within."""
    error = (result - truth).abs()
    bad = ~(error <= allowed)
    if bad.any():
        worst = torch.where(bad, (error / allowed).nan_to_num(nan=torch.inf), 0.0).argmax()
        raise AssertionError(
            f"{where}: {int(bad.sum())} of {bad.numel()} elements off; the worst at flat index {int(worst)}: "
            f"{result.flatten()[worst]:.9g}, expected {truth.flatten()[worst]:.9g} +- {allowed.flatten()[worst]:.3g}"
        )


def absolute_errors(contraction: str, p: Problem, truth: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The band of the module's docstring, for each result."""
    if contraction.startswith("edge"):
        bands = _edge_bands(contraction, p)
    elif contraction == "kan_backward":
        grad_x = _bands("kan_in", replace(p, order=p.order + 1))[0]
        bands = (grad_x if p.s is None else grad_x * p.s.double().abs(), *_bands("kan_coef", p))
    else:
        bands = _bands(contraction, p)
    results = {
        "kan_in": (p.x,),
        "kan_backward": (p.x, p.coef, p.coef),
        "edge_backward": (p.x, p.coef, p.coef),
        "edge_moments": (p.terms,),
    }
    limits = [torch.finfo(t.dtype) for t in results.get(contraction, (p.coef, p.coef))]
    return tuple(
        band + 4 * limit.eps * true.abs() + limit.smallest_normal * limit.eps
        for band, limit, true in zip(bands, limits, truth, strict=False)
    )


def _bands(contraction: str, p: Problem) -> tuple[Tensor, ...]:
    phi = perturbation(p, p.order, {"kan_out": p.x.shape[1], "kan_in": p.u.shape[1]}.get(contraction, p.x.shape[0]))
    s = torch.ones_like(phi[..., 0]) if p.s is None else p.s.double().abs()
    u, weight = p.u.double().abs(), _weight(p)
    if contraction == "kan_out":
        band = torch.einsum("nif,ifo->no", phi * s[..., None], weight)
        return (band if p.bias is None else band + _epsilon(p) * p.bias.double().abs(),)
    if contraction == "kan_in":
        return (torch.einsum("nif,nif->ni", phi, torch.einsum("no,ifo->nif", u, weight)),)
    return _split(torch.einsum("nif,no->ifo", phi * s[..., None], u), p)


def _edge_bands(contraction: str, p: Problem) -> tuple[Tensor, ...]:
    p = replace(p, order=0)
    rows, weight = p.x.shape[0], _weight(p)
    value = torch.einsum("nif,ifo->nio", perturbation(p, 0, rows), weight)
    exact = p.to(torch.float64)
    with_base = p.base_weight is not None
    phi, slope = (reference.features(exact.x, p.grid, p.spec, d, with_base) for d in (0, 1))
    edges = torch.einsum("nif,ifo->nio", phi, reference.weights(exact.coef, exact.base_weight, torch.float64))
    if contraction == "edge_moments":
        mean = value.sum(0) / rows
        apart, off = (edges - edges.sum(0) / rows).abs(), value + mean
        squares = apart.square() * SQUARES * _epsilon(p) * (8 + 2 * rows**0.5)
        return (torch.stack([mean, mean, (2 * apart * off + off.square() + squares).sum(0) / rows]),)
    of_sign, constant, factor = exact.terms.abs()
    u = exact.u.abs()[:, None] + of_sign + constant + factor * edges.abs()
    off = 2 * of_sign * (edges.abs() <= value)  # rounding decides the sign of an edge that is nearly 0
    off = off + factor * value + 4 * _epsilon(p) * u
    rounding, rounding_slope = (perturbation(p, d, rows * p.u.shape[1]) for d in (0, 1))
    grad_x = torch.einsum("nif,nif->ni", rounding_slope, torch.einsum("ifo,nio->nif", weight, u))
    grad_x = grad_x + torch.einsum("nif,nif->ni", slope.abs(), torch.einsum("ifo,nio->nif", weight, off))
    grads = torch.einsum("nif,nio->ifo", rounding, u) + torch.einsum("nif,nio->ifo", phi.abs(), off)
    return (grad_x, *_split(grads, p))


def accumulator(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype of the arithmetic."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def _epsilon(p: Problem) -> float:
    return torch.finfo(accumulator(p.x.dtype, p.coef.dtype)).eps


def _weight(p: Problem) -> Tensor:
    return reference.weights(p.coef, p.base_weight, torch.float64).abs()


def _split(grads: Tensor, p: Problem) -> tuple[Tensor, ...]:
    functions = p.coef.shape[1]
    return (grads[:, :functions], grads[:, functions]) if p.base_weight is not None else (grads,)


def perturbation(p: Problem, order: int, terms: int) -> Tensor:
    """[N, I, F] or [N, I, F + 1]: error bound of a term with weight one, before the result is rounded."""
    eps = _epsilon(p)
    degree = p.spec.degree
    functions = degree + 1 if FAMILIES[p.spec.family] == "bspline" else p.coef.shape[1]  # that are not zero
    rounding = eps * (8 * (degree + 2) + 2 * (terms * (functions + 1)) ** 0.5)
    x = p.x.double()
    with_base = p.base_weight is not None
    reach = (p.grid.abs().amax(-1) + x.abs())[..., None]
    moved = absolute_features(x, p.grid, p.spec, order + 1, with_base, flat_from=p.order)
    if with_base:
        moved[..., -1] = 0  # the base function is of x itself
    operands = torch.finfo(p.coef.dtype).eps + 2 * p.operand_epsilon
    finished = operands * reference.features(x, p.grid, p.spec, order, with_base).abs()
    if FAMILIES[p.spec.family] == "rbf":  # less than the least normal number may be 0
        tiny = torch.finfo(accumulator(p.x.dtype, p.coef.dtype)).tiny
        finished[..., :functions] += _absolute_gaussians(x, p.grid, order, tiny)
    return finished + rounding * absolute_features(x, p.grid, p.spec, order, with_base) + 4 * eps * reach * moved


def absolute_features(
    x: Tensor, grid: Tensor, spec: Spec, order: int, with_base: bool, flat_from: int | None = None
) -> Tensor:
    """Phi^(order) with absolute values of all terms of its evaluation and 1 for every lower-degree spline, in float64.

    Where `outside` makes a feature constant its derivatives are 0, judged by the order `flat_from` (`order` itself).
    """
    outside, degree, family = OUTSIDE[spec.outside], spec.degree, FAMILIES[spec.family]
    flat_from = order if flat_from is None else flat_from
    if family == "rbf":
        phi = _absolute_gaussians(x, grid, order)
    elif family == "chebyshev":  # largest at the ends of their range, derivatives of every order
        phi = chebyshev_features(grid[:, -1].expand_as(x), grid, order)
    elif family != "bspline":
        raise NotImplementedError(f"family={family!r}: no bound on its rounding errors")
    elif outside == "zero":
        phi = _absolute_splines(x, grid, degree, order)
    else:
        end = torch.minimum(torch.maximum(x, grid[:, degree]), grid[:, -degree - 1])
        phi = _absolute_splines(end, grid, degree, order)
        if outside == "linear" and order == 0:
            phi = phi + (x - end).abs()[..., None] * _absolute_splines(end, grid, degree, 1)
        if flat_from >= (2 if outside == "linear" else 1):
            phi = phi.masked_fill((x != end)[..., None], 0.0)
    if with_base:
        phi = torch.cat([phi, _absolute_base(x, BASES[spec.base], order)[..., None]], -1)
    return phi


def _absolute_splines(x: Tensor, grid: Tensor, degree: int, order: int) -> Tensor:
    functions = grid.shape[-1] - degree - 1
    if order > degree:
        return x.new_zeros(*x.shape, functions)
    closed = torch.where((x == grid[:, -degree - 1])[..., None], x[..., None] > grid, x[..., None] >= grid)
    b = (closed.sum(-1, keepdim=True) - 1 == torch.arange(grid.shape[-1] - 1, device=x.device)).double()
    for k in range(1, degree + 1):
        if k <= degree - order:
            b = torch.maximum(b[..., :-1], b[..., 1:])
        else:
            width = grid[:, k:] - grid[:, :-k]
            scale = torch.where(width > 0, 1 / width, 0.0)
            b = k * (b[..., :-1] * scale[:, :-1] + b[..., 1:] * scale[:, 1:])
    return b


def _absolute_gaussians(x: Tensor, grid: Tensor, order: int, least: float | None = None) -> Tensor:
    """The Gaussian features with absolute values of all terms; with `least` in place of every Gaussian, if given."""
    functions = grid.shape[-1] - 1
    over_h = functions / (grid[:, -1:] - grid[:, :1])  # I 1
    centres = torch.arange(functions, dtype=x.dtype, device=x.device) + 0.5
    t = ((x[..., None] - grid[:, :1]) * over_h - centres).abs().clamp(max=REACH)
    below, here = torch.zeros_like(t), torch.exp(-t * t) if least is None else torch.full_like(t, least)
    for n in range(order):
        below, here = here, 2 * t * here + 2 * n * below
    return here * over_h**order


def _absolute_base(x: Tensor, base: str, order: int) -> Tensor:
    if base != "silu":
        return reference.base_feature(x, base, order).abs()
    sigma = torch.sigmoid(x)
    top, rest = (
        sum(abs(c) * sigma**k for k, c in enumerate(sigmoid_derivative(max(0, d)))) for d in (order, order - 1)
    )
    return x.abs() * top + order * rest
