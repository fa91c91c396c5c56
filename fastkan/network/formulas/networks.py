"""network_formulas: small networks, trained, made symbolic, and trained again.

An exact formula is recognised by its error: with the right functions on the edges it falls to rounding. Networks are
tried from the smallest on, with several seeds each and several choices of functions for each network.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...devices import HOST
from ..activations import edge_values
from ..checkpoint import trained
from ..layers.library import SymbolicFunction
from ..train.domain import hold, release
from ..train.jacobian import Residuals
from ..train.levenberg_marquardt import LevenbergMarquardt
from .edge_fit import fit_symbolic
from .edges import set_symbolic
from .redundant_parameters import symmetry
from .split import Split

if TYPE_CHECKING:
    from ..model import KAN

GRIDS = (3, 5, 10)  # numbers of intervals, one after the other
NUMERIC_STEPS, TRIAL_STEPS, FINAL_STEPS = 15, 15, 200
GOOD, USABLE = 0.02, 0.5  # relative error below which a numeric network is made symbolic at once, or later
SPLINE_ERROR = 2e-3  # relative approximation error of splines with so few intervals for smooth functions
CHOICES = 24  # of functions that are tried on a network
PREFERENCES = (1e-4, 1.0), (1e-9, 0.3)  # of two rankings: a negligible 1 - r2, and the weight of simplicity
EXACT = 1e-9  # relative error below which a formula is exact
EQUAL = 1.1  # ratio of errors that are about as good
SKIPPED = ("x^0.5", "1/x^0.5", "0")  # duplicates under another name, and the constant


def network_formulas(
    cls: "type[KAN]",
    shapes: Sequence[Sequence],
    starts: int,
    functions: list[SymbolicFunction],
    data: Split,
    seed: int,
    time_left: Callable[[], float],
) -> "Iterator[tuple[Sequence, Symbolic]]":
    """Symbolic networks, with their shapes, from the smallest shape on; the last is exact, or about as good as any."""
    candidates: list[Symbolic] = []
    later, floor = [], math.inf
    for width in shapes:
        if time_left() < 0:
            return
        numeric = _train_starts(cls, width, data, starts, seed, time_left)
        floor = min([floor, *(data.test_error(model) for model, _ in numeric)])
        later.append((width, [pair for pair in numeric if pair[1] >= GOOD]))
        for symbolic in _make_symbolic([pair for pair in numeric if pair[1] < GOOD], data, functions, time_left):
            candidates.append(symbolic)
            yield width, symbolic
            if symbolic.error <= EXACT:
                return
        if candidates and SPLINE_ERROR < candidates[-1].error <= EQUAL * floor:  # the rest of the error is noise
            break
    for width, numeric in later:  # large errors: noise, or a function that splines approximate slowly
        if time_left() < 0 or (candidates and min(s.error for s in candidates) <= EQUAL * floor):
            return
        usable = [pair for pair in numeric if pair[1] < min(USABLE, 3 * floor)]
        for symbolic in _make_symbolic(usable, data, functions, time_left):
            candidates.append(symbolic)
            yield width, symbolic


class Symbolic(NamedTuple):
    """A symbolic network, and its relative error on the test set."""

    model: "KAN"
    error: float


class _EdgeFit(NamedTuple):
    """A function for an edge: unexplained is 1 - r2, weight its complexity plus number of parameters."""

    name: str
    affine: Tensor
    unexplained: float
    weight: float


def default_shapes(data: Split) -> list[list]:
    n, m = data.x.shape[1], data.y.shape[1]
    return [[n, m], [n, 1, m], [n, [0, 1], m], [n, 2, m], [n, [1, 1], m], [n, [0, 2], m], [n, 3, m]]


def _train_starts(
    cls: "type[KAN]", width: Sequence, data: Split, starts: int, seed: int, time_left: Callable[[], float]
) -> "list[tuple[KAN, float]]":
    """Trained numeric networks and their relative errors, the best first: from the better half of the starts."""
    options: dict[str, Any] = {"grid": GRIDS[0], "dtype": torch.float64, "outside": "linear", "device": HOST}
    models = []
    for start in range(seed, seed + starts):
        if time_left() < 0:
            break
        models.append(_train(cls(width, seed=start, **options), GRIDS[:1], data))
    models.sort(key=lambda pair: pair[1])
    finished = [_train(model, GRIDS, data) for model, _ in models[: (starts + 1) // 2] if time_left() > 0]
    return sorted(finished, key=lambda pair: pair[1])


def _train(model: "KAN", grids: Sequence[int], data: Split) -> "tuple[KAN, float]":
    for grid in grids:
        model = model.refine(grid) if model.grid != grid else model
        model.update_grid(data.x)
        _descend(model, data, NUMERIC_STEPS)
    return model, data.error(model)


def _descend(model: "KAN", data: Split, steps: int) -> float:
    """Levenberg-Marquardt until it converges; the relative error."""
    optimizer = LevenbergMarquardt(trained(model))
    residuals, last = Residuals(model, data.x, data.y), math.inf
    for step in range(steps):
        loss = float(optimizer.step(residuals))
        if not math.isfinite(loss):
            break
        if step % 10 == 9:
            if loss > 0.99 * last:
                break
            last = loss
    return data.error(model)


def _make_symbolic(
    numeric: "list[tuple[KAN, float]]", data: Split, lib: list[SymbolicFunction], time_left: Callable[[], float]
) -> list[Symbolic]:
    """The best symbolic network from numeric networks of one shape, in a list, empty if there is none. Stops at an
    exact one."""
    best, least = None, math.inf
    for model, _ in numeric:
        if time_left() < 0:
            break
        symbolic, error = _choose_functions(model, data, lib)
        if error < least:
            best, least = symbolic, error
        if least <= EXACT:
            break
    return [] if best is None else [Symbolic(best, data.test_error(best))]


def _choose_functions(model: "KAN", data: Split, lib: list[SymbolicFunction]) -> "tuple[KAN | None, float]":
    """The model with the functions on its edges that have the lowest error, and the error; (None, inf) if none works.

    Among errors that are about equal, the first choice, which is the simplest.
    """
    layers, fits = _fit_edges(model, data, lib)
    best, least = None, math.inf
    for choice in itertools.islice(_choices(fits), CHOICES):
        trial, functions = model.copy(), iter(choice)
        for l, edges in enumerate(layers):
            names, affine = zip(*itertools.islice(functions, len(edges)), strict=True)
            set_symbolic(trial, l, edges, names, torch.stack(affine))
        error = _descend(trial, data, TRIAL_STEPS)
        trial, error = _fit_at_domain_ends(trial, error, data)
        if error < least / EQUAL:
            best, least = trial, error
            if least < 1e-3:
                least = _descend(best, data, FINAL_STEPS)
        if least <= EXACT:
            break
    return best, least


def _fit_at_domain_ends(model: "KAN", error: float, data: Split) -> "tuple[KAN, float]":
    """The model and its error, or a better one whose data reach the ends of the functions' domains, see domain.hold."""
    other = model.copy()
    if error <= EXACT or not hold(other, data.x):
        return model, error
    _descend(other, data, TRIAL_STEPS)
    release(other, data.x)
    other_error = data.error(other)
    return (other, other_error) if other_error < error else (model, error)


@torch.no_grad()
def _fit_edges(
    model: "KAN", data: Split, lib: list[SymbolicFunction]
) -> tuple[list[list[tuple[int, int]]], list[list[_EdgeFit]]]:
    """The edges (i, j) of every layer, and for each edge of all layers the fits of all functions."""
    weights = [f.complexity + sum(not same for same in symmetry(f.torch_fn)[:2]) for f in lib]
    layers, fits = [], []
    x = data.x
    for l in range(model.depth):
        edges = (model.act_fun[l].edge_mask != 0).nonzero()
        inputs, outputs = edges.unbind(1)
        fit = fit_symbolic(x[:, inputs], edge_values(model, l, x, inputs, outputs), lib)
        for affine, r2 in zip(fit.affine, fit.r2.tolist(), strict=True):
            each = zip(fit.functions, weights, r2, affine, strict=True)
            fits.append([_EdgeFit(f.name, a, max(1 - r, 0.0), w) for f, w, r, a in each if r > -math.inf])
        layers.append([(i, j) for i, j in edges.tolist()])
        x = model.nodes(l, model.sums(l, x))
    return layers, fits


def _choices(fits: list[list[_EdgeFit]]) -> Iterator[list[tuple[str, Tensor]]]:
    """Distinct choices of a function (name, affine) for every edge: alternately the next best by each preference."""
    orders, seen = [], set()
    for floor, bit in PREFERENCES:
        costs = [[(0.5 * math.log2(f.unexplained + floor) + bit * f.weight, f) for f in edge] for edge in fits]
        costs = [sorted(edge, key=lambda pair: pair[0])[:6] for edge in costs]
        orders.append((costs, _best_first([[cost for cost, _ in edge] for edge in costs])))
    for turn in itertools.zip_longest(*(indices for _, indices in orders)):
        for (costs, _), indices in zip(orders, turn, strict=True):
            choice = [edge[n][1] for edge, n in zip(costs, indices or (), strict=bool(indices))]
            names = tuple(fit.name for fit in choice)
            if choice and names not in seen:
                seen.add(names)
                yield [(fit.name, fit.affine) for fit in choice]


def _best_first(costs: list[list[float]]) -> Iterator[tuple[int, ...]]:
    """Choices of an index into every list, in ascending order of the sum of costs; each list is ascending."""
    first = (0,) * len(costs)
    seen: set[tuple[int, ...]] = {first}
    queue: list[tuple[float, tuple[int, ...]]] = [(sum((c[0] for c in costs), 0.0), first)]
    while queue:
        cost, choice = heapq.heappop(queue)
        yield choice
        for n, at in enumerate(choice):
            following = (*choice[:n], at + 1, *choice[n + 1 :])
            if at + 1 < len(costs[n]) and following not in seen:
                seen.add(following)
                heapq.heappush(queue, (cost + costs[n][at + 1] - costs[n][at], following))
