"""Symbolic functions on edges: fix_symbolic, suggest_symbolic, auto_symbolic and unfix_symbolic, with pykan's names."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...devices import HOST
from ..activations import edge_values, latest
from ..layers.library import SymbolicFunction, get_symbolic, in_library
from ..layers.shape import check_edge, edges_on
from .edge_fit import Fit, fit_params, fit_symbolic
from .suggest import Candidate, r2_bits, rank, suggest

if TYPE_CHECKING:
    from ..model import KAN

OFF = -1e8  # pykan's r2 of an edge that is off
LOW_R2 = 0.9  # warn below this r2
MIN_R2 = 0.9  # default of r2_threshold
LARGE_CHANGE = 0.1  # warn above this change of the outputs, in standard deviations
SHOWN = 5  # edges in a warning


def fix_symbolic(
    model: "KAN",
    l: int,
    i: int,
    j: int,
    fun_name: str | SymbolicFunction | Callable[[Tensor], Tensor],
    fit_params_bool: bool = True,
    a_range: tuple[float, float] = (-10, 10),
    b_range: tuple[float, float] = (-10, 10),
    verbose: bool = True,
    random: bool = False,
) -> Tensor | None:
    """Set the edge from node i of layer l to subnode j to y = c f(a x + b) + d, with its numeric branch off.

    Args:
        fun_name: f: a name in the library, or a function of a tensor, which is added to the library under its __name__;
            a lambda needs add_symbolic, which names it.
        fit_params_bool: fit a, b, c, d to the output of the edge (both branches) on the data of get_act or fit.
            Otherwise they are 1, 0, 1, 0; or with random=True uniform in [-1, 1], from torch's global generator.
        a_range, b_range: see edge_fit.fit_symbolic.
        verbose: print r2.

    Returns:
        r2, a float64 tensor []; -1e8 for an edge that was off, which becomes f with c = 0. None without a fit.

    Raises:
        ValueError: no data, data that are not finite, f is finite on none of them, or the fit needs numbers that cancel
            in the model's dtype. Then, and with KeyError, IndexError or TypeError for a wrong argument, the model stays
            as it was.
    """
    check_edge(model, l, i, j)
    function = in_library(fun_name)
    r2 = None
    if fit_params_bool:
        x, y = _edge_data(model, l, [i], [j])
        affine, r2 = fit_params(x[:, 0], y[:, 0], function, a_range, b_range, dtype=_dtype(model, l))
        if not bool(r2.isfinite()):
            raise ValueError(f"fun_name={function.name!r}: expected a function that is finite on the data of the edge")
        if not edges_on(model, l)[i, j]:
            r2 = torch.full_like(r2, OFF)
        if verbose:
            print(f"r2 is {r2.item():.10g}")
            if r2 < LOW_R2:
                print(f"r2 is low: {function.name} may not be the function of this edge.")
    else:
        affine = torch.rand(4, device=HOST) * 2 - 1 if random else torch.tensor([1.0, 0.0, 1.0, 0.0], device=HOST)
    set_symbolic(model, l, [(i, j)], [function.name], affine[None])
    return r2


def unfix_symbolic(model: "KAN", l: int, i: int, j: int) -> None:
    """Remove an edge's function and switch its numeric branch on again, with its last parameters."""
    check_edge(model, l, i, j)
    with torch.no_grad():
        model.act_fun[l].mask[i, j] = 1.0
    model.symbolic_fun[l].set_edge(i, j, "0", (0.0, 0.0, 0.0, 0.0), 0.0)
    model.forget()


def unfix_symbolic_all(model: "KAN") -> None:
    """unfix_symbolic for all edges with a function. Edges that are off stay off; in pykan they are switched on."""
    for l, symbolic in enumerate(model.symbolic_fun):
        for j, i in (symbolic.edge_mask != 0).nonzero().tolist():
            unfix_symbolic(model, l, i, j)


def suggest_symbolic(
    model: "KAN",
    l: int,
    i: int,
    j: int,
    a_range: tuple[float, float] = (-10, 10),
    b_range: tuple[float, float] = (-10, 10),
    lib: Iterable[str | SymbolicFunction] | None = None,
    topk: int | None = 5,
    verbose: bool = True,
    r2_loss_fun: Callable[[Tensor], Tensor] = r2_bits,
    c_loss_fun: Callable[[Tensor], Tensor] | None = None,
    weight_simple: float = 0.8,
) -> tuple[str, SymbolicFunction, float, float]:
    """The best functions of the library for edge (l, i, j) on the data of get_act or fit; the model stays.

    Args: as suggest.suggest; verbose prints the `topk` best as a table, None all.

    Returns:
        name, function, r2 and complexity of the best.
    """
    check_edge(model, l, i, j)
    x, y = _edge_data(model, l, [i], [j])
    (candidates,) = suggest(
        x, y, lib, weight_simple, topk=topk, r2_loss_fun=r2_loss_fun, c_loss_fun=c_loss_fun, a_range=a_range,
        b_range=b_range, dtype=_dtype(model, l),
    )  # fmt: skip
    if verbose:
        print(_table(candidates))
    best = candidates[0]
    return best.name, get_symbolic(best.name), best.r2, best.complexity


class EdgeReport(NamedTuple):
    """Edge (i, j) of layer l, the best function for it and its r2; stays: whether the edge stayed numeric."""

    l: int
    i: int
    j: int
    name: str
    r2: float
    stays: bool


class Report:
    """The result of auto_symbolic: edges; change, the root mean square of the change of the outputs on the data over
    their standard deviation. undo() restores the edges."""

    def __init__(self, edges: list[EdgeReport], change: float, before: "_EdgeState"):
        self.edges, self.change, self._before = edges, change, before

    @property
    def numeric(self) -> list[EdgeReport]:
        """The edges that stay numeric, since no function fits well enough."""
        return [edge for edge in self.edges if edge.stays]

    def undo(self) -> None:
        """Restore the masks and symbolic functions of all edges from before auto_symbolic."""
        self._before.restore()

    def __str__(self) -> str:
        fixed = len(self.edges) - len(self.numeric)
        return (
            f"{fixed} edges are symbolic, {len(self.numeric)} stay numeric; the outputs change by {self.change:.2%} of "
            "their standard deviation"
        )


def auto_symbolic(
    model: "KAN",
    a_range: tuple[float, float] = (-10, 10),
    b_range: tuple[float, float] = (-10, 10),
    lib: Iterable[str | SymbolicFunction] | None = None,
    verbose: int = 1,
    weight_simple: float = 0.8,
    r2_threshold: float = MIN_R2,
) -> Report:
    """Replace every numeric edge by its best function of the library: by suggest, on the data of get_act.

    One batched fit for each layer, from the first to the last: each layer is fitted on the outputs of the formulas
    before it, which removes their errors. Symbolic edges stay; edges that are off become "0" and stay off; constant
    edges become "0" with d. Afterwards `fit` trains a, b, c, d only: to rounding with opt="LM" and float64 where the
    functions are the right ones.

    Args:
        lib: the functions to choose from, by default the whole library, with "0" for constant edges only, since
            removing edges is the task of prune. a_range, b_range: see fit_symbolic.
        verbose: 1 prints every new function, 2 also edges that are off or symbolic.
        weight_simple: from 0, the best fit, to 1, the simplest function.
        r2_threshold: minimum r2 of a function. An edge for which no function reaches it stays numeric. 0.0 makes all
            edges symbolic.

    Returns:
        Report: the edges, the change of the outputs, and undo(). Warns where edges stay numeric or get a function with
        r2 below 0.9, and where the outputs change by more than a tenth of their standard deviation.

    Raises as fix_symbolic, and then leaves the model as it was.
    """
    record, before = latest(model), _EdgeState(model)
    y = record.acts[-1].detach()
    edges = replace_edges(model, a_range, b_range, lib, verbose, weight_simple, r2_threshold)
    if model.last_activations is None:
        model.get_act(**record.options)
    report = Report(edges, _relative_change(latest(model).acts[-1], y), before)
    if verbose:
        print(report)
    if message := _warning(report):
        warnings.warn(message, stacklevel=3)
    return report


def replace_edges(
    model: "KAN",
    a_range: tuple[float, float] = (-10, 10),
    b_range: tuple[float, float] = (-10, 10),
    lib: Iterable[str | SymbolicFunction] | None = None,
    verbose: int = 0,
    weight_simple: float = 0.8,
    r2_threshold: float = 0.0,
) -> list[EdgeReport]:
    """auto_symbolic without the change of the outputs and the warning."""
    if isinstance(lib, str):
        raise TypeError(f"lib={lib!r}: expected a list of names, or None for all")
    lib = None if lib is None else [in_library(fun) for fun in lib]
    reports = []
    with _restored_on_error(model):
        for l in range(model.depth):
            edges = _numeric_edges(model, l, verbose)
            if not edges:
                continue
            dtype = _dtype(model, l)
            data = _edge_data(model, l, [i for i, _ in edges], [j for _, j in edges])
            fit = fit_symbolic(*data, lib, a_range=a_range, b_range=b_range, dtype=dtype)
            if lib is None:
                _allow_zero_for_constants(fit)
            best = [c[0] for c in rank(fit, weight_simple, topk=1, dtype=dtype, r2_threshold=r2_threshold)]
            fits = [max(c.r2, 0.0) >= r2_threshold and c.loss < torch.inf for c in best]
            reports += [EdgeReport(l, *e, c.name, c.r2, not ok) for e, c, ok in zip(edges, best, fits, strict=True)]
            if verbose:
                _print_choices(l, edges, best, fits, r2_threshold)
            chosen = [(edge, c) for edge, c, ok in zip(edges, best, fits, strict=True) if ok]
            affine = torch.tensor([c.affine for _, c in chosen], dtype=torch.float64, device=HOST).view(-1, 4)
            set_symbolic(model, l, [edge for edge, _ in chosen], [c.name for _, c in chosen], affine)
    return reports


@torch.no_grad()
def _relative_change(now: Tensor, before: Tensor) -> float:
    """The root mean square of the change of outputs over their standard deviation."""
    now, before = torch.stack((now, before)).to(HOST)
    error, deviation = (now - before).double(), (before - before.mean(0)).double()
    size = deviation.square().mean()
    return float((error.square().mean() / size).sqrt()) if bool(size > 0) else float(bool(error.any()))


def _warning(report: Report) -> str:
    """The warning of auto_symbolic, empty if there is nothing to warn of."""
    low = [edge for edge in report.edges if edge.r2 < LOW_R2 and not edge.stays]
    parts = []
    if report.numeric:
        parts.append(f"no function fits the edges {_list(report.numeric)}, which stay numeric")
    if low:
        parts.append(f"the functions on the edges {_list(low)} fit badly (r2 below {LOW_R2})")
    if not report.change <= LARGE_CHANGE:
        parts.append(f"the outputs change by {report.change:.1%} of their standard deviation")
    hint = "the report that auto_symbolic returns has undo(); r2_threshold is the minimum r2 of a function"
    return f"{'; '.join(parts)} ({hint})" if parts else ""


def _list(edges: list[EdgeReport]) -> str:
    shown = ", ".join(f"({e.l},{e.i},{e.j}) {e.name} r2={e.r2:.3g}" for e in edges[:SHOWN])
    return shown if len(edges) <= SHOWN else f"{shown} and {len(edges) - SHOWN} more"


@torch.no_grad()
def set_symbolic(model: "KAN", l: int, edges: Sequence[tuple[int, int]], names: Sequence[str], affine: Tensor) -> None:
    """Set E edges (i, j) of layer l to functions with affine [E, 4], and switch their numeric branches off."""
    on = torch.tensor([name != "0" for name in names], dtype=torch.bool, device=affine.device) | (affine[:, 3] != 0)
    model.symbolic_fun[l].set_edges(edges, names, affine, on)
    if edges:
        inputs, outputs = torch.tensor(edges, device=model.device).unbind(1)
        model.act_fun[l].mask[inputs, outputs] = 0.0
    model.forget()


@torch.no_grad()
def _edge_data(model: "KAN", l: int, inputs: Sequence[int], outputs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """x and y [N, E] of edges of layer l, both branches, on the data of get_act with the model's present edges; copies
    on the host."""
    options = latest(model).options
    assert model.cache_data is not None
    x = model.rows(model.cache_data)
    for before in range(l):
        x = model.nodes(before, model.sums(before, x, **options))
    i, j = torch.tensor([inputs, outputs], device=x.device)
    x, y = x[:, i], edge_values(model, l, x, i, j, **options)
    if x.dtype == y.dtype and not x.is_cpu:
        x, y = torch.stack((x, y)).to(HOST).unbind()  # one transfer
    return x.to(HOST), y.to(HOST)


def _numeric_edges(model: "KAN", l: int, verbose: int) -> list[tuple[int, int]]:
    """The edges of layer l with a numeric branch; those that are off in both get the function "0"."""
    symbolic = model.symbolic_fun[l]
    numeric, formula = torch.stack((model.act_fun[l].edge_mask, symbolic.edge_mask.T)).to(HOST) != 0
    off = [(i, j) for i, j in (~(numeric | formula)).nonzero().tolist()]
    if verbose > 1:
        for i, j in off:
            print(f"fixing ({l},{i},{j}) with 0")
        for j, i in (formula & ~numeric).T.nonzero().tolist():
            print(f"skipping ({l},{i},{j}) since already symbolic")
    if off:
        symbolic.set_edges(off, ["0"] * len(off), torch.zeros(len(off), 4, device=HOST), 0.0)
    return [(i, j) for i, j in numeric.nonzero().tolist()]


def _allow_zero_for_constants(fit: Fit) -> None:
    """Exclude the function "0" for edges that are not constant."""
    zero = torch.tensor([function.name == "0" for function in fit.functions], device=fit.r2.device)
    fit.r2.masked_fill_(zero & (fit.r2 < 1), -torch.inf)


def _print_choices(
    l: int, edges: list[tuple[int, int]], best: list[Candidate], fits: list[bool], r2_threshold: float
) -> None:
    for (i, j), candidate, ok in zip(edges, best, fits, strict=True):
        if ok:
            print(f"fixing ({l},{i},{j}) with {candidate.name}, r2={candidate.r2:.10g}, c={candidate.complexity}")
        else:
            print(f"({l},{i},{j}) stays: the best is {candidate.name}, r2={candidate.r2:.6g} is below {r2_threshold}")


def _dtype(model: "KAN", l: int) -> torch.dtype:
    """The dtype of the symbolic parameters of layer l."""
    return model.symbolic_fun[l].affine.dtype


class _EdgeState:
    """A snapshot of the masks and symbolic functions of a model."""

    def __init__(self, model: "KAN"):
        self.model = model
        self.masks = [layer.edge_mask.clone() for layer in model.act_fun]
        self.states = [copy.deepcopy(layer.state_dict()) for layer in model.symbolic_fun]

    def restore(self) -> None:
        model = self.model
        expected, present = [m.shape for m in self.masks], [layer.edge_mask.shape for layer in model.act_fun]
        if expected != present:
            raise ValueError(
                f"the model has layers of {list(map(list, present))} edges: expected {list(map(list, expected))}, as "
                "before auto_symbolic"
            )
        for numeric, mask, symbolic, state in zip(
            model.act_fun, self.masks, model.symbolic_fun, self.states, strict=True
        ):
            numeric.mask = mask
            symbolic.load_state_dict(state)
        model.forget()


@contextmanager
def _restored_on_error(model: "KAN") -> Iterator[None]:
    """Restores the masks and symbolic functions of the model if the block fails."""
    before = _EdgeState(model)
    try:
        yield
    except BaseException:
        before.restore()
        raise


def _table(candidates: list[Candidate]) -> str:
    width = max(len("function"), *(len(candidate.name) for candidate in candidates))
    lines = [f"{'':>2}  {'function':<{width}}  {'r2':>12}  {'complexity':>10}  {'loss':>9}"]
    for n, c in enumerate(candidates):
        lines.append(f"{n:>2}  {c.name:<{width}}  {c.r2:>12.9f}  {c.complexity:>10g}  {c.loss:>9.4f}")
    return "\n".join(lines)
