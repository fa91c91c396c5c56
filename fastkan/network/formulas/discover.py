"""discover: symbolic regression: fit small networks, replace their edges by functions, refine.

An exact formula is recognised by its error: with the right functions on the edges it falls to rounding. Networks are
tried from the smallest on, with several seeds each and several choices of functions for each network. The first exact
formula is returned, otherwise the simplest of those that are about as good as the best.
"""

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from ...arguments import integer, number
from ...devices import HOST
from ..activations import edge_values
from ..checkpoint import trained
from ..layers.library import SYMBOLIC_LIB, SymbolicFunction, in_library
from ..train.data import Data
from ..train.domain import hold, release
from ..train.jacobian import Residuals
from ..train.levenberg_marquardt import LevenbergMarquardt
from .edge_fit import fit_symbolic
from .edges import set_symbolic
from .expression import import_sympy, symbolic_formula
from .redundant_parameters import symmetry
from .simplify import count_operations

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


class Discovery(NamedTuple):
    """The result of discover.

    model: symbolic, in float64. formulas, inputs: as returned by symbolic_formula, with fractions where that keeps the
    error. error: root mean square over the standard deviation of the labels, of the formulas on the test set or,
    without one, on a held-out fifth of the data. exact: whether it is a rounding error.
    """

    model: "KAN"
    formulas: list
    inputs: list
    error: float
    exact: bool

    def __repr__(self) -> str:
        return f"Discovery(formulas={self.formulas}, error={self.error:.3g}, exact={self.exact})"


def discover(
    cls: "type[KAN]",
    dataset: Any,
    shapes: Iterable[Sequence] | None = None,
    starts: int = 10,
    lib: Iterable[str | SymbolicFunction] | None = None,
    var: Sequence | None = None,
    *,
    seed: int = 0,
    simplify: bool | float = True,
    verbose: bool = True,
) -> Discovery:
    """Symbolic regression: search formulas for the data: KAN.discover((x, y)).

    Args:
        dataset: tensors (x, y), or a dataset as in fit: x [N, inputs], y [N, outputs]. A few hundred rows are enough.
        shapes: widths of the networks to try, in this order; by default from [inputs, outputs] to one hidden layer of
            up to three nodes that sum or multiply.
        starts: number of seeds for each network, from `seed` on.
        lib: functions to choose from, by default the library.
        var, simplify: of the formulas, see symbolic_formula.
        verbose: print the result for every shape.

    Returns:
        Discovery. Bitwise reproducible on a CPU.

    Raises:
        ValueError: data that are not finite, or a wrong argument; ImportError: SymPy is not installed.
    """
    import_sympy()
    data = _Split(dataset, integer("seed", seed, 0))
    functions = [in_library(f) for f in (SYMBOLIC_LIB if lib is None else lib)]
    functions = [f for f in functions if f.name not in SKIPPED]
    number("simplify", float(simplify), 0.0)
    shapes, starts = _shapes(data) if shapes is None else list(shapes), integer("starts", starts, 1)
    candidates: list[_Symbolic] = []
    later, floor = [], math.inf
    for width in shapes:
        numeric = _train_starts(cls, width, data, starts, seed)
        floor = min(floor, *(data.test_error(model) for model, _ in numeric))
        later.append((width, [pair for pair in numeric if pair[1] >= GOOD]))
        candidates += _make_symbolic(width, [pair for pair in numeric if pair[1] < GOOD], data, functions, verbose)
        if candidates and candidates[-1].error <= EXACT:
            return _discovery(candidates[-1], data, var, simplify)
        if candidates and SPLINE_ERROR < candidates[-1].error <= EQUAL * floor:  # the rest of the error is noise
            break
    for width, numeric in later:  # large errors: noise, or a function that splines approximate slowly
        if candidates and min(s.error for s in candidates) <= EQUAL * floor:
            break
        usable = [pair for pair in numeric if pair[1] < min(USABLE, 3 * floor)]
        candidates += _make_symbolic(width, usable, data, functions, verbose)
    if not candidates:
        raise ValueError(f"no network of the shapes {shapes} fits the data: expected other shapes or more starts")
    least = min(symbolic.error for symbolic in candidates)
    best = min((s for s in candidates if s.error <= max(EQUAL * least, EXACT)), key=lambda s: (s.length, s.error))
    return _discovery(best, data, var, simplify)


class _Symbolic(NamedTuple):
    """A symbolic network, its relative error on the test set, and the number of operations in its formulas."""

    model: "KAN"
    error: float
    length: int


class _EdgeFit(NamedTuple):
    """A function for an edge: unexplained is 1 - r2, weight its complexity plus number of parameters."""

    name: str
    affine: Tensor
    unexplained: float
    weight: float


class _Split:
    """Training data x, y and test data x_test, y_test in float64; scale: the standard deviation of y, or its root mean
    square where y is constant."""

    def __init__(self, dataset: Any, seed: int):
        data = Data(dataset, -1, seed, HOST)
        if not isinstance(data.train, tuple):
            raise TypeError("dataset: expected tensors, not a loader")
        x, y = (t.double().view(len(t), -1) for t in data.train)
        test = cast(tuple[Tensor, Tensor], data.test)
        if test is data.train or torch.equal(test[0], data.train[0]):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            held_out, rest = order[: len(x) // 5], order[len(x) // 5 :]
            self.x_test, self.y_test, self.x, self.y = x[held_out], y[held_out], x[rest], y[rest]
        else:
            self.x, self.y = x, y
            self.x_test, self.y_test = (t.double().view(len(t), -1) for t in test)
        if not all(bool(t.isfinite().all()) for t in (self.x, self.y, self.x_test, self.y_test)):
            raise ValueError("dataset has NaN or infinite values: expected finite ones")
        std, size = (float(t.square().mean().sqrt()) for t in (self.y - self.y.mean(0), self.y))
        self.scale = std if std > 1e-12 * size else size or 1.0

    def error(self, model: "KAN") -> float:
        """The relative error on the training data."""
        return self._error(model, self.x, self.y)

    def test_error(self, model: "KAN") -> float:
        return self._error(model, self.x_test, self.y_test)

    @torch.no_grad()
    def _error(self, model: "KAN", x: Tensor, y: Tensor) -> float:
        error = float((model(x) - y).square().mean().sqrt()) / self.scale
        return error if math.isfinite(error) else math.inf


def _shapes(data: _Split) -> list[list]:
    n, m = data.x.shape[1], data.y.shape[1]
    return [[n, m], [n, 1, m], [n, [0, 1], m], [n, 2, m], [n, [1, 1], m], [n, [0, 2], m], [n, 3, m]]


def _train_starts(cls: "type[KAN]", width: Sequence, data: _Split, starts: int, seed: int) -> "list[tuple[KAN, float]]":
    """Trained numeric networks and their relative errors, the best first: from the better half of the starts."""
    options: dict[str, Any] = {"grid": GRIDS[0], "dtype": torch.float64, "outside": "linear", "device": HOST}
    models = [_train(cls(width, seed=start, **options), GRIDS[:1], data) for start in range(seed, seed + starts)]
    models.sort(key=lambda pair: pair[1])
    finished = [_train(model, GRIDS, data) for model, _ in models[: (starts + 1) // 2]]
    return sorted(finished, key=lambda pair: pair[1])


def _train(model: "KAN", grids: Sequence[int], data: _Split) -> "tuple[KAN, float]":
    for grid in grids:
        model = model.refine(grid) if model.grid != grid else model
        model.update_grid(data.x)
        _descend(model, data, NUMERIC_STEPS)
    return model, data.error(model)


def _descend(model: "KAN", data: _Split, steps: int) -> float:
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
    width: Sequence,
    numeric: "list[tuple[KAN, float]]",
    data: _Split,
    lib: list[SymbolicFunction],
    verbose: bool,
) -> list[_Symbolic]:
    """The best symbolic network from numeric networks of one shape, in a list, empty if there is none. Stops at an
    exact one."""
    best, least = None, math.inf
    for model, _ in numeric:
        symbolic, error = _choose_functions(model, data, lib)
        if error < least:
            best, least = symbolic, error
        if least <= EXACT:
            break
    if best is None:
        return []
    formulas, _ = symbolic_formula(best)
    result = _Symbolic(best, data.test_error(best), sum(count_operations(f) for f in formulas))
    if verbose:
        print(f"{width}: relative error {result.error:.2e} with a formula of {result.length} operations")
    return [result]


def _choose_functions(model: "KAN", data: _Split, lib: list[SymbolicFunction]) -> "tuple[KAN | None, float]":
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


def _fit_at_domain_ends(model: "KAN", error: float, data: _Split) -> "tuple[KAN, float]":
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
    model: "KAN", data: _Split, lib: list[SymbolicFunction]
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


def _discovery(symbolic: _Symbolic, data: _Split, var: Sequence | None, simplify: bool | float) -> Discovery:
    """The formulas of a symbolic model, with as many numbers replaced by fractions as possible without loss."""
    sympy, results = import_sympy(), []
    for snap in (0.0, 1e-6) if symbolic.error <= EXACT else (0.0, 1e-6, 1e-3, 1e-2):
        formulas, inputs = symbolic_formula(symbolic.model, var, snap=snap)
        error = _formula_error(formulas, inputs, data)
        numbers = sum(len(formula.atoms(sympy.Float)) for formula in formulas)
        results.append((numbers, sum(map(count_operations, formulas)), snap, error))
    allowed = max(1.01 * results[0][-1], EXACT)
    *_, snap, _ = min(r for r in results if r[-1] <= allowed)
    formulas, inputs = symbolic_formula(symbolic.model, var, snap=snap, simplify=simplify)
    error = _formula_error(formulas, inputs, data)
    symbolic.model.get_act(data.x)
    return Discovery(symbolic.model, formulas, inputs, error, error <= EXACT)


def _formula_error(formulas: list, inputs: list, data: _Split) -> float:
    """The relative error of formulas on the test set, computed by NumPy."""
    import numpy as np
    import sympy

    with np.errstate(all="ignore"):
        values = sympy.lambdify(inputs, formulas, "numpy")(*data.x_test.numpy().T)
    values = np.stack([np.broadcast_to(np.asarray(v, dtype=complex), len(data.x_test)) for v in values], 1)
    error = float(np.sqrt(np.mean(np.abs(values - data.y_test.numpy()) ** 2))) / data.scale
    return error if math.isfinite(error) else math.inf
