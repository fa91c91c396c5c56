"""discover: from data to a formula without further ado: small networks are trained, made symbolic and refined.

A formula that is exact shows: once the right functions are on the edges, the error falls to rounding. So networks are
tried from the smallest on, several starts of each, and on each several choices of functions; the first that is exact
is the answer, and otherwise the simplest of those that are about as good as the best.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...arguments import integer, number
from ..activations import edge_values
from ..checkpoint import trained
from ..layers.library import SYMBOLIC_LIB, SymbolicFunction, in_library
from ..train.data import Data
from ..train.domain import hold, release
from ..train.jacobian import Residuals
from ..train.levenberg_marquardt import LevenbergMarquardt
from .edge_fit import fit_symbolic
from .edges import put
from .expression import import_sympy, symbolic_formula
from .redundant_parameters import symmetry
from .simplify import count_operations

GRIDS = (3, 5, 10)  # intervals, one after the other
NUMERIC_STEPS, TRIAL_STEPS, FINAL_STEPS = 15, 15, 200
GOOD, WORTH = 0.02, 0.5  # relative errors below which a numeric network is made symbolic at once, or at all
SPLINES = 2e-3  # relative error that networks of so few intervals leave of smooth functions
CHOICES = 24  # of functions that are tried on a network
PREFERENCES = (1e-4, 1.0), (1e-9, 0.3)  # the 1 - r2 that is as good as none, and the weight of simplicity beside it
EXACT = 1e-9  # relative error below which a formula is exact
ABOUT = 1.1  # errors that are larger by this are about as good
SAME = ("x^0.5", "1/x^0.5", "0")  # functions that the library has by another name, or that say nothing


class Discovery(NamedTuple):
    """model: symbolic, in float64. formulas, inputs: as symbolic_formula gives them, numbers recognised where that
    keeps the error. error: root mean square over the standard deviation of the labels, of the formulas on the test set
    or, without one, on a fifth of the data that was held out. exact: whether that is rounding.
    """

    model: torch.nn.Module
    formulas: list
    inputs: list
    error: float
    exact: bool


def discover(
    cls,
    dataset,
    shapes: Iterable[Sequence] | None = None,
    starts: int = 10,
    lib: Iterable[str | SymbolicFunction] | None = None,
    var: Sequence | None = None,
    *,
    seed: int = 0,
    simplify: bool | float = True,
    verbose: bool = True,
) -> Discovery:
    """Look for the formulas behind the data: KAN.discover((x, y)).

    Args:
        dataset: tensors (x, y), or what fit takes: x [N, inputs], y [N, outputs]. A few hundred rows are enough.
        shapes: widths of the networks to try, in this order; by default from [inputs, outputs] to one hidden layer of
            one or two nodes that sum or multiply.
        starts: of each network, from seed on.
        lib: functions to choose from, by default the library.
        var, simplify: of the formulas, see symbolic_formula.
        verbose: print what is tried.

    Returns:
        Discovery. On a CPU it is the same again for the same arguments.

    Raises:
        ValueError: data that are not finite, or a wrong argument; ImportError: SymPy is not installed.
    """
    import_sympy()
    data = _Split(dataset, integer("seed", seed, 0))
    lib = [in_library(f) for f in (SYMBOLIC_LIB if lib is None else lib)]
    lib = [f for f in lib if f.name not in SAME]
    number("simplify", float(simplify), 0.0)
    shapes, starts = _shapes(data) if shapes is None else list(shapes), integer("starts", starts, 1)
    found, later, floor = [], [], math.inf
    for width in shapes:
        numeric = _trained(cls, width, data, starts, seed)
        floor = min(floor, *(data.test_error(model) for model, _ in numeric))
        later.append((width, [pair for pair in numeric if pair[1] >= GOOD]))
        found += _made_symbolic(width, [pair for pair in numeric if pair[1] < GOOD], data, lib, verbose)
        if found and found[-1].error <= EXACT:
            return _written(found[-1], data, var, simplify)
        if found and SPLINES < found[-1].error <= ABOUT * floor:  # what is left is noise
            break
    for width, numeric in later:  # as noise leaves them, or a function that splines are slow to follow
        if found and min(s.error for s in found) <= ABOUT * floor:
            break
        found += _made_symbolic(width, [p for p in numeric if p[1] < min(WORTH, 3 * floor)], data, lib, verbose)
    if not found:
        raise ValueError(f"no network of the shapes {shapes} fits the data: expected other shapes or more starts")
    least = min(symbolic.error for symbolic in found)
    best = min((s for s in found if s.error <= max(ABOUT * least, EXACT)), key=lambda s: (s.length, s.error))
    return _written(best, data, var, simplify)


class _Symbolic(NamedTuple):
    """A symbolic network, its relative error on the test set, and the operations in its formulas."""

    model: torch.nn.Module
    error: float
    length: int


class _Fitted(NamedTuple):
    """A function on an edge: 1 - r2 is `missed`, `weight` its complexity and number of parameters."""

    name: str
    affine: Tensor
    missed: float
    weight: float


class _Split:
    """x, y to train on and x_test, y_test, in float64; scale, the standard deviation of y, or its size if that is 0."""

    def __init__(self, dataset, seed: int):
        data = Data(dataset, -1, seed, torch.device("cpu"))
        if not isinstance(data.train, tuple):
            raise TypeError("dataset: expected tensors, not a loader")
        x, y = (t.double().view(len(t), -1) for t in data.train)
        if data.test is data.train or torch.equal(data.test[0], data.train[0]):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            held, kept = order[: len(x) // 5], order[len(x) // 5 :]
            self.x_test, self.y_test, self.x, self.y = x[held], y[held], x[kept], y[kept]
        else:
            self.x, self.y = x, y
            self.x_test, self.y_test = (t.double().view(len(t), -1) for t in data.test)
        if not all(bool(t.isfinite().all()) for t in (self.x, self.y, self.x_test, self.y_test)):
            raise ValueError("dataset has NaN or infinite values: expected finite ones")
        spread, size = (float(t.square().mean().sqrt()) for t in (self.y - self.y.mean(0), self.y))
        self.scale = spread if spread > 1e-12 * size else size or 1.0

    def error(self, model) -> float:
        """The relative error on the data to train on."""
        return self._error(model, self.x, self.y)

    def test_error(self, model) -> float:
        return self._error(model, self.x_test, self.y_test)

    @torch.no_grad()
    def _error(self, model, x: Tensor, y: Tensor) -> float:
        error = float((model(x) - y).square().mean().sqrt()) / self.scale
        return error if math.isfinite(error) else math.inf


def _shapes(data: _Split) -> list[list]:
    n, m = data.x.shape[1], data.y.shape[1]
    return [[n, m], [n, 1, m], [n, [0, 1], m], [n, 2, m], [n, [1, 1], m], [n, [0, 2], m], [n, 3, m]]


def _trained(cls, width: Sequence, data: _Split, starts: int, seed: int) -> list[tuple]:
    """Numeric networks (model, relative error), the best first: the better half of the starts."""
    models = [
        _train(cls(width, grid=GRIDS[0], seed=start, dtype=torch.float64, outside="linear"), GRIDS[:1], data)
        for start in range(seed, seed + starts)
    ]
    models.sort(key=lambda pair: pair[1])
    finished = [_train(model, GRIDS, data) for model, _ in models[: (starts + 1) // 2]]
    return sorted(finished, key=lambda pair: pair[1])


def _train(model, grids: Sequence[int], data: _Split) -> tuple:
    for grid in grids:
        model = model.refine(grid) if model.grid != grid else model
        model.update_grid(data.x)
        _descend(model, data, NUMERIC_STEPS)
    return model, data.error(model)


def _descend(model, data: _Split, steps: int) -> float:
    """Levenberg-Marquardt until nothing is gained; the relative error."""
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


def _made_symbolic(width: Sequence, numeric: list[tuple], data: _Split, lib: list, verbose: bool) -> list[_Symbolic]:
    """The best that is found from numeric networks of one shape; none where there is none. The exact one ends it."""
    best, least = None, math.inf
    for model, _ in numeric:
        symbolic, error = _with_functions(model, data, lib)
        if error < least:
            best, least = symbolic, error
        if least <= EXACT:
            break
    if best is None:
        return []
    formulas, _ = symbolic_formula(best)
    found = _Symbolic(best, data.test_error(best), sum(count_operations(f) for f in formulas))
    if verbose:
        print(f"{width}: relative error {found.error:.2e} with a formula of {found.length} operations")
    return [found]


def _with_functions(model, data: _Split, lib: list[SymbolicFunction]) -> tuple:
    """The model with the functions on its edges that leave the least error, and that; (None, inf) where none works.

    Of about equal errors the first counts, which is the simpler.
    """
    layers, fits = _fits(model, data, lib)
    best, least = None, math.inf
    for choice in itertools.islice(_choices(fits), CHOICES):
        trial, picked = model.copy(), iter(choice)
        for l, edges in enumerate(layers):
            names, affine = zip(*itertools.islice(picked, len(edges)), strict=True)
            put(trial, l, edges, names, torch.stack(affine))
        error = _descend(trial, data, TRIAL_STEPS)
        trial, error = _at_edges(trial, error, data)
        if error < least / ABOUT:
            best, least = trial, error
            if least < 1e-3:
                least = _descend(best, data, FINAL_STEPS)
        if least <= EXACT:
            break
    return best, least


def _at_edges(model, error: float, data: _Split) -> tuple:
    """The model and its error; or those of one whose formulas end at the edges of their domains, if that is better."""
    held = model.copy()
    if error <= EXACT or not hold(held, data.x):
        return model, error
    _descend(held, data, TRIAL_STEPS)
    release(held, data.x)
    instead = data.error(held)
    return (held, instead) if instead < error else (model, error)


@torch.no_grad()
def _fits(model, data: _Split, lib: list[SymbolicFunction]) -> tuple[list, list[list[_Fitted]]]:
    """The edges of every layer, and for each edge of all layers what the functions make of it."""
    weights = [f.complexity + sum(not same for same in symmetry(f.torch_fn)[:2]) for f in lib]
    layers, fits = [], []
    x = data.x
    for l in range(model.depth):
        edges = (model.act_fun[l].edge_mask != 0).nonzero()
        inputs, outputs = edges.unbind(1)
        fit = fit_symbolic(x[:, inputs], edge_values(model, l, x, inputs, outputs), lib)
        for affine, r2 in zip(fit.affine, fit.r2.tolist(), strict=True):
            each = zip(fit.functions, weights, r2, affine, strict=True)
            fits.append([_Fitted(f.name, a, max(1 - r, 0.0), w) for f, w, r, a in each if r > -math.inf])
        layers.append([tuple(edge) for edge in edges.tolist()])
        x = model.nodes(l, model.sums(l, x))
    return layers, fits


def _choices(fits: list[list[_Fitted]]) -> Iterator[list[tuple[str, Tensor]]]:
    """A function for every edge, (name, affine), different every time: by turns the next for each of PREFERENCES."""
    orders, seen = [], set()
    for floor, bit in PREFERENCES:
        costs = [[(0.5 * math.log2(f.missed + floor) + bit * f.weight, f) for f in edge] for edge in fits]
        costs = [sorted(edge, key=lambda pair: pair[0])[:6] for edge in costs]
        orders.append((costs, _best_first([[cost for cost, _ in edge] for edge in costs])))
    for turn in itertools.zip_longest(*(places for _, places in orders)):
        for (costs, _), places in zip(orders, turn, strict=True):
            picked = [edge[at][1] for edge, at in zip(costs, places or (), strict=bool(places))]
            names = tuple(fitted.name for fitted in picked)
            if picked and names not in seen:
                seen.add(names)
                yield [(fitted.name, fitted.affine) for fitted in picked]


def _best_first(costs: list[list[float]]) -> Iterator[tuple[int, ...]]:
    """A choice from every list, by ascending sum of the costs; each list ascends."""
    first = (0,) * len(costs)
    queue, seen = [(sum(c[0] for c in costs), first)], {first}
    while queue:
        cost, choice = heapq.heappop(queue)
        yield choice
        for n, at in enumerate(choice):
            following = (*choice[:n], at + 1, *choice[n + 1 :])
            if at + 1 < len(costs[n]) and following not in seen:
                seen.add(following)
                heapq.heappush(queue, (cost + costs[n][at + 1] - costs[n][at], following))


def _written(found: _Symbolic, data: _Split, var: Sequence | None, simplify: bool | float) -> Discovery:
    """The formulas of a symbolic model, with as many numbers recognised as can be without loss."""
    sympy, results = import_sympy(), []
    for snap in (0.0, 1e-6) if found.error <= EXACT else (0.0, 1e-6, 1e-3, 1e-2):
        formulas, inputs = symbolic_formula(found.model, var, snap=snap)
        error = _formula_error(formulas, inputs, data)
        numbers = sum(len(formula.atoms(sympy.Float)) for formula in formulas)
        results.append((numbers, sum(map(count_operations, formulas)), snap, error))
    allowed = max(1.01 * results[0][-1], EXACT)
    *_, snap, _ = min(r for r in results if r[-1] <= allowed)
    formulas, inputs = symbolic_formula(found.model, var, snap=snap, simplify=simplify)
    error = _formula_error(formulas, inputs, data)
    found.model.get_act(data.x)
    return Discovery(found.model, formulas, inputs, error, error <= EXACT)


def _formula_error(formulas: list, inputs: list, data: _Split) -> float:
    """The relative error of formulas on the test set, by NumPy."""
    import numpy as np
    import sympy

    with np.errstate(all="ignore"):
        values = sympy.lambdify(inputs, formulas, "numpy")(*data.x_test.numpy().T)
    values = np.stack([np.broadcast_to(np.asarray(v, dtype=complex), len(data.x_test)) for v in values], 1)
    error = float(np.sqrt(np.mean(np.abs(values - data.y_test.numpy()) ** 2))) / data.scale
    return error if math.isfinite(error) else math.inf
