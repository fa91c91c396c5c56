"""discover: symbolic regression: a search among sums and products of simple functions, then symbolic networks.

The search (search/) takes seconds and finds most formulas of the sciences. What it lacks, functions of any scale inside
of one another, small networks find: trained, and then made symbolic (networks.py). An exact formula is recognised by
its error, which falls to rounding; among others the one with the shortest description of data and formula is taken.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ...arguments import integer, number
from ..layers.library import SYMBOLIC_LIB, SymbolicFunction, in_library
from .classes import LabelSearch, smooth_log_odds
from .compiler import compile_formulas
from .expression import SECONDS, import_sympy, named_inputs, symbolic_formula
from .networks import EXACT, SKIPPED, Symbolic, default_shapes, network_formulas
from .search.constants import Formula, evaluator, length
from .search.search import Search, pareto
from .simplify import count_operations, shortest_form, snap_numbers
from .split import Split

if TYPE_CHECKING:
    from ..model import KAN

SHARE = 0.7  # of the time that the search may take, where networks can follow
SNAPS = (0.0, 1e-6, 1e-3, 1e-2)  # tolerances of fractions


class Discovery(NamedTuple):
    """The result of discover.

    model: symbolic, in float64. formulas, inputs: as returned by symbolic_formula. error: root mean square over the
    standard deviation of the labels, of the formulas on the test set or, without one, on a held-out fifth of the data;
    of a classification, the share of wrong classes. exact: whether it is a rounding error. front: of one output, the
    formulas that are best for their length, from the shortest on, with their errors on the training data (of a
    classification, roots of the shares of the deviance that they leave); for those who want a simpler or a better one.
    """

    model: "KAN"
    formulas: list
    inputs: list
    error: float
    exact: bool
    front: list

    def __repr__(self) -> str:
        return f"Discovery(formulas={self.formulas}, error={self.error:.3g}, exact={self.exact})"


class _Candidate(NamedTuple):
    """Formulas of all outputs; error on the test set; description: length of data and formulas, the less the better."""

    formulas: list
    error: float
    description: float
    model: "KAN | None" = None


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
    time_limit: float | None = 60.0,
    task: str = "regression",
) -> Discovery:
    """Symbolic regression: search formulas for the data: KAN.discover((x, y)).

    Args:
        dataset: tensors (x, y), or a dataset as in fit: x [N, inputs], y [N, outputs]. A few hundred rows are enough.
        shapes: widths of the networks to try, in this order, and nothing but networks; by default formulas are searched
            first, and then networks from [inputs, outputs] to one hidden layer of up to three nodes that sum or
            multiply.
        starts: number of seeds for each network, from `seed` on.
        lib: functions on the edges of networks, and nothing but networks; by default the library.
        var, simplify: of the formulas, see symbolic_formula.
        verbose: print every better formula.
        time_limit: seconds, before simplify; the best formula so far is returned, also at an interruption (Ctrl-C).
            None: no limit.
        task: "regression", or "classification" for y of up to 20 classes: the formula of two is the logarithm of the
            odds of the second in their order, positive where it is likelier; of more, there is one for each class
            against the others. Not with shapes or lib.

    Returns:
        Discovery. Bitwise reproducible on a CPU, if it ends before the time limit.

    Raises:
        ValueError: data that are not finite, or a wrong argument; ImportError: SymPy is not installed.
    """
    import_sympy()
    if task not in ("regression", "classification"):
        raise ValueError(f"task={task!r}: expected 'regression' or 'classification'")
    networks_only = shapes is not None or lib is not None
    if task == "classification" and networks_only:
        raise ValueError("shapes and lib are for regression: expected neither with task='classification'")
    data = Split(dataset, integer("seed", seed, 0), task == "classification")
    functions = [in_library(f) for f in (SYMBOLIC_LIB if lib is None else lib)]
    functions = [f for f in functions if f.name not in SKIPPED]
    seconds = number("simplify", SECONDS if simplify is True else float(simplify), 0.0)
    limit = math.inf if time_limit is None else number("time_limit", time_limit, 0.0)
    shapes, starts = default_shapes(data) if shapes is None else list(shapes), integer("starts", starts, 1)
    outputs = _Outputs(data, verbose) if task == "regression" else _Classes(cls, data, verbose)
    inputs = named_inputs(var, [data.x.shape[1]])
    found = []
    try:
        if not networks_only:
            found.append(outputs.searched(seed, SHARE * limit if task == "regression" else limit))
        if networks_only or not outputs.explained:
            left = outputs.clock(limit)
            for shape, symbolic in network_formulas(cls, shapes, starts, functions, data, seed, left):
                found.append(outputs.of_network(shape, symbolic))
    except KeyboardInterrupt:
        if not found:
            raise
        warnings.warn("interrupted: the best formulas so far", RuntimeWarning, stacklevel=2)
    if not found:
        raise ValueError(
            f"no network of the shapes {shapes} fits the data: expected other shapes, more starts or more time"
        )
    best = min(found, key=lambda c: (c.error > EXACT, c.description))
    return outputs.discovery(cls, best, inputs, seconds)


class _Outputs:
    """The data, symbols x_1, x_2, ... of the inputs, and candidates for all outputs."""

    def __init__(self, data: Split, verbose: bool):
        import sympy

        self.data, self.verbose, self.start = data, verbose, time.monotonic()
        self.symbols = [sympy.Symbol(f"x_{i + 1}", real=True) for i in range(data.x.shape[1])]
        self.fronts: list[list[Formula]] = []
        self.explained = False

    def clock(self, seconds: float) -> Callable[[], float]:
        """Seconds that are left of so many since the start."""
        return lambda: self.start + seconds - time.monotonic()

    def searched(self, seed: int, seconds: float) -> _Candidate:
        """The best formulas of the search; self.explained: whether they are exact, or leave noise only."""
        chosen, explained, count = [], [], self.data.y.shape[1]
        for j, y in enumerate(self.data.y.T.contiguous()):
            left = self.clock(seconds * (j + 1) / count)
            search = self._search(y, seed, left)
            try:
                explained.append(search.run())
            except KeyboardInterrupt:
                if len(chosen) < count - 1:
                    raise
                explained.append(True)
            chosen.append(self._first_finite(search))
            self.fronts.append(pareto([f for f in search.formulas.values() if f.error < 1]))
        self.explained = all(explained) or self.data.classes is not None
        snapped = [snap_numbers(f, SNAPS[1]) for f in chosen]
        candidates = [self._candidate(formulas) for formulas in (chosen, snapped)]
        return min(candidates, key=lambda c: (c.error > EXACT, c.description))

    def _first_finite(self, search: Search):
        """The best formula that has finite values at the test rows too. A constant, in the end."""
        best = sorted(search.formulas.values(), key=search.table.merit)
        filled = (formula.filled for formula in best)
        return next(f for f in filled if bool(evaluator(self.symbols, [f])(self.data.x_test).isfinite().all()))

    def _search(self, y: Tensor, seed: int, time_left: Callable[[], float]) -> Search:
        return Search(self.data.x, y, self.symbols, seed, time_left, self._report)

    def of_network(self, shape: Sequence, symbolic: Symbolic) -> _Candidate:
        """The formulas of a symbolic network, with as many numbers replaced by fractions as possible without loss."""
        candidates = []
        for snap in SNAPS[:2] if symbolic.error <= EXACT else SNAPS:
            formulas, _ = symbolic_formula(symbolic.model, self.symbols, snap=snap)
            candidates.append(self._candidate(formulas, symbolic.model))
        best = min(candidates, key=lambda c: (c.error > EXACT, c.description))
        self._say(best.error, f"network {list(shape)}, {sum(map(count_operations, best.formulas))} operations")
        return best

    def _report(self, formula: Formula) -> None:
        self._say(formula.error**0.5, str(formula.filled))

    def _say(self, error: float, text: str) -> None:
        if self.verbose:
            text = text if len(text) <= 90 else text[:87] + "..."
            print(f"{time.monotonic() - self.start:6.1f} s, relative error {error:.1e}: {text}", flush=True)

    def _candidate(self, formulas: list, model: "KAN | None" = None) -> _Candidate:
        data, description = self.data, 0.0
        values = evaluator(self.symbols, formulas)(data.x)
        for j, formula in enumerate(formulas):
            y = data.y[:, j]
            unit = float((y - y.mean()).square().sum()) or float(y.square().sum()) or 1.0
            error = float((values[:, j] - y).square().sum()) / unit
            description += len(y) * math.log(error + EXACT**2) + 2 * length(formula) if error < math.inf else math.inf
        rest = evaluator(self.symbols, formulas)(data.x_test) - data.y_test
        error = float(rest.square().mean().sqrt()) / data.scale
        return _Candidate(formulas, error if math.isfinite(error) else math.inf, description, model)

    def discovery(self, cls: "type[KAN]", best: _Candidate, inputs: list, seconds: float) -> Discovery:
        """The result: formulas simplified, in the user's symbols."""
        table = dict(zip(self.symbols, inputs, strict=True))
        formulas = best.formulas
        if seconds:
            short = [shortest_form(f, seconds / len(formulas)) for f in formulas]
            formulas = min(self._candidate(short), best, key=lambda c: c.error > max(EXACT, 1.01 * best.error)).formulas
        model = best.model
        if model is None:
            model = compile_formulas(cls, self.symbols, formulas, 5, 3, dtype=torch.float64)
        model.get_act(self.data.x)
        error = self._candidate(formulas).error
        front = (
            [(f.filled.xreplace(table), f.error**0.5) for f in self.fronts[0]]
            if len(formulas) == 1 == len(self.fronts)
            else []
        )
        exact = error <= EXACT and self.data.classes is None
        return Discovery(model, [f.xreplace(table) for f in formulas], inputs, error, exact, front)


class _Classes(_Outputs):
    """The data of a classification."""

    def __init__(self, cls: "type[KAN]", data: Split, verbose: bool):
        super().__init__(data, verbose)
        self.cls = cls

    def _search(self, y: Tensor, seed: int, time_left: Callable[[], float]) -> Search:
        smooth = smooth_log_odds(self.cls, self.data.x, y, seed)
        return LabelSearch(self.data.x, y, smooth, self.symbols, seed, time_left, self._report)

    def _candidate(self, formulas: list, model: "KAN | None" = None) -> _Candidate:
        data, evaluate = self.data, evaluator(self.symbols, formulas)
        losses = zip(evaluate(data.x).T, data.y.T, strict=True)
        nats = sum(float(binary_cross_entropy_with_logits(values, y, reduction="sum")) for values, y in losses)
        values = evaluate(data.x_test)
        if len(formulas) == 1:
            wrong = (values[:, 0] > 0) != (data.y_test[:, 0] > 0)
        else:
            wrong = values.argmax(1) != data.y_test.argmax(1)
        return _Candidate(formulas, float(wrong.double().mean()), 2 * (nats + sum(map(length, formulas))), model)
