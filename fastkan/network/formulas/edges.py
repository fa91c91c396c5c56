"""Edges become formulas: fix_symbolic, suggest_symbolic, auto_symbolic and their way back, in pykan's names."""

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ...arguments import index
from ..activations import edge_values
from ..layers.library import SymbolicFunction, get_symbolic, in_library
from .edge_fit import Fit, fit_params, fit_symbolic
from .suggest import Candidate, r2_bits, rank, suggest

OFF = -1e8  # pykan's r2 of an edge that is off
POOR = 0.9  # an r2 below is told
FITS = 0.9  # the r2 that an edge's function must have to take its place
CHANGED = 0.1  # of the outputs' standard deviation: a change that is told
SHOWN = 5  # edges that a warning names


def fix_symbolic(
    model,
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
    """Put y = c f(a x + b) + d on the edge from node i of layer l to subnode j, and switch its numeric branch off.

    Args:
        fun_name: f: a name in the library, or a function of a tensor. One that is not in the library is added to it by
            its __name__; a lambda needs add_symbolic, which names it.
        fit_params_bool: fit a, b, c, d to what the edge (both its branches) makes of the data of get_act or fit.
            Otherwise they are 1, 0, 1, 0; or with random=True uniform in [-1, 1], from torch's global generator.
        a_range, b_range: see edge_fit.fit_symbolic.
        verbose: print r2.

    Returns:
        r2, a float64 tensor []; -1e8 for an edge that was off, which becomes f with c = 0. None without a fit.

    Raises:
        ValueError: no data, data that are not finite, f is not finite on any of them, or fits only by numbers that
            cancel in the model's type. Then, and with KeyError, IndexError or TypeError for a wrong argument, the
            model stays as it was.
    """
    _edge(model, l, i, j)
    function = in_library(fun_name)
    r2 = None
    if fit_params_bool:
        x, y = _edge_data(model, l, [i], [j])
        affine, r2 = fit_params(x[:, 0], y[:, 0], function, a_range, b_range, dtype=_dtype(model, l))
        if not bool(r2.isfinite()):
            raise ValueError(f"fun_name={function.name!r}: expected a function that is finite on the data of the edge")
        if not _is_on(model, l)[i, j]:
            r2 = torch.full_like(r2, OFF)
        if verbose:
            print(f"r2 is {r2.item():.10g}")
            if r2 < POOR:
                print(f"r2 is low: {function.name} may not be the function of this edge.")
    else:
        affine = torch.rand(4) * 2 - 1 if random else torch.tensor([1.0, 0.0, 1.0, 0.0])
    put(model, l, [(i, j)], [function.name], affine[None])
    return r2


def unfix_symbolic(model, l: int, i: int, j: int) -> None:
    """Switch the numeric branch of an edge on again, with the parameters it last had, and its function off."""
    _edge(model, l, i, j)
    with torch.no_grad():
        model.act_fun[l].mask[i, j] = 1.0
    model.symbolic_fun[l].set_edge(i, j, "0", (0.0, 0.0, 0.0, 0.0), 0.0)
    model.forget()


def unfix_symbolic_all(model) -> None:
    """unfix_symbolic of all edges with a function. Edges that are off stay off, which in pykan come back."""
    for l, symbolic in enumerate(model.symbolic_fun):
        for j, i in (symbolic.edge_mask != 0).nonzero().tolist():
            unfix_symbolic(model, l, i, j)


def suggest_symbolic(
    model,
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
    """The functions of the library that edge (l, i, j) looks like on the data of get_act or fit; the model stays.

    Args: those of suggest.suggest; verbose prints the `topk` best as a table, `topk` None all.

    Returns:
        of the best: its name, the function, its r2 and its complexity.
    """
    _edge(model, l, i, j)
    x, y = _edge_data(model, l, [i], [j])
    options = {"r2_loss_fun": r2_loss_fun, "c_loss_fun": c_loss_fun, "a_range": a_range, "b_range": b_range}
    (found,) = suggest(x, y, lib, weight_simple, topk=topk, dtype=_dtype(model, l), **options)
    if verbose:
        print(_table(found))
    best = found[0]
    return best.name, get_symbolic(best.name), best.r2, best.complexity


class Replaced(NamedTuple):
    """An edge (i, j) of layer l, the function that suits it best and its r2; stays: whether the edge stayed numeric."""

    l: int
    i: int
    j: int
    name: str
    r2: float
    stays: bool


class Report:
    """What auto_symbolic did: edges, a list of Replaced; change, the root mean square of the change of the outputs on
    the data over their standard deviation. undo() makes the edges what they were."""

    def __init__(self, edges: list[Replaced], change: float, before: "_Edges"):
        self.edges, self.change, self._before = edges, change, before

    @property
    def numeric(self) -> list[Replaced]:
        """The edges that no function fits well enough: they stay numeric."""
        return [edge for edge in self.edges if edge.stays]

    def undo(self) -> None:
        """Make all edges, symbolic and numeric, those before auto_symbolic; the numeric parameters are as they were."""
        self._before.restore()

    def __str__(self) -> str:
        fixed = len(self.edges) - len(self.numeric)
        return (
            f"{fixed} edges are symbolic, {len(self.numeric)} stay numeric; the outputs change by {self.change:.2%} of "
            "their standard deviation"
        )


def auto_symbolic(
    model,
    a_range: tuple[float, float] = (-10, 10),
    b_range: tuple[float, float] = (-10, 10),
    lib: Iterable[str | SymbolicFunction] | None = None,
    verbose: int = 1,
    weight_simple: float = 0.8,
    r2_threshold: float = FITS,
) -> Report:
    """Put on every numeric edge the function of the library that suits it best: by suggest, on the data of get_act.

    One batched fit for each layer, from the first to the last: a layer is fitted on what the formulas before it make of
    the data, and so leaves no error of theirs. Edges that are symbolic stay, edges that are off become "0" and stay
    off; what is constant becomes "0" with d. Afterwards `fit` trains the a, b, c, d alone: with opt="LM" and in float64
    to rounding, where the functions are the right ones.

    Args:
        lib: the functions to choose from, by default the whole library, with "0" for what is constant only: which
            edges matter is for prune to say. a_range, b_range: see fit_symbolic.
        verbose: 1 prints what is put where, 2 edges that are off or symbolic too.
        weight_simple: from 0, the best fit, to 1, the simplest function.
        r2_threshold: the least r2 of a function: the choice is among those that reach it, and an edge of which none
            does stays numeric. 0.0 makes all edges symbolic.

    Returns:
        Report: the edges, how much the outputs change, and undo(). A warning tells where edges stay numeric or got a
        function of an r2 below 0.9, and where the outputs change by more than a tenth of their standard deviation.

    Raises as fix_symbolic, and then leaves the model as it was.
    """
    if model._record is None:
        model.get_act()
    before, y, options = _Edges(model), model._record.acts[-1].detach(), model._record.options
    edges = replace_edges(model, a_range, b_range, lib, verbose, weight_simple, r2_threshold)
    report = Report(edges, _change(model, y, options), before)
    if verbose:
        print(report)
    if told := _told(report):
        warnings.warn(told, stacklevel=3)
    return report


def replace_edges(
    model, a_range=(-10, 10), b_range=(-10, 10), lib=None, verbose: int = 0, weight_simple: float = 0.8,
    r2_threshold: float = 0.0,
) -> list[Replaced]:  # fmt: skip
    """auto_symbolic without the report of what became of the outputs."""
    if isinstance(lib, str):
        raise TypeError(f"lib={lib!r}: expected a list of names, or None for all")
    lib = None if lib is None else [in_library(fun) for fun in lib]
    found = []
    with _all_or_nothing(model):
        for l in range(model.depth):
            _switch_off(model, l, verbose)
            edges = (model.act_fun[l].edge_mask != 0).nonzero().tolist()
            if not edges:
                continue
            dtype = _dtype(model, l)
            data = _edge_data(model, l, *zip(*edges, strict=True))
            fit = fit_symbolic(*data, lib, a_range=a_range, b_range=b_range, dtype=dtype)
            if lib is None:
                _zero_for_constants(fit)
            best = [c[0] for c in rank(fit, weight_simple, topk=1, dtype=dtype, r2_threshold=r2_threshold)]
            fixed = [n for n, c in enumerate(best) if max(c.r2, 0.0) >= r2_threshold and c.loss < torch.inf]
            found += [Replaced(l, *edges[n], c.name, c.r2, n not in fixed) for n, c in enumerate(best)]
            if verbose:
                _tell(l, edges, best, fixed, r2_threshold)
            affine = torch.tensor([best[n].affine for n in fixed], dtype=torch.float64).view(-1, 4)
            put(model, l, [tuple(edges[n]) for n in fixed], [best[n].name for n in fixed], affine)
    return found


@torch.no_grad()
def _change(model, y: Tensor, options: dict) -> float:
    """The root mean square of the change of the outputs from y on, over y's standard deviation."""
    if model._record is None:
        model.get_act(**options)
    error, spread = (model._record.acts[-1] - y).double(), (y - y.mean(0)).double()
    size = spread.square().mean()
    return float((error.square().mean() / size).sqrt()) if bool(size > 0) else float(bool(error.any()))


def _told(report: Report) -> str:
    """What a user of auto_symbolic has to know; nothing where all went well."""
    poor = [edge for edge in report.edges if edge.r2 < POOR and not edge.stays]
    lines = []
    if report.numeric:
        lines.append(f"no function fits the edges {_places(report.numeric)}, which stay numeric")
    if poor:
        lines.append(f"the functions on the edges {_places(poor)} fit badly (r2 below {POOR})")
    if not report.change <= CHANGED:
        lines.append(f"the outputs change by {report.change:.1%} of their standard deviation")
    hint = "the report that auto_symbolic returns has undo(); r2_threshold is the r2 that a function must have"
    return f"{'; '.join(lines)} ({hint})" if lines else ""


def _places(edges: list[Replaced]) -> str:
    shown = ", ".join(f"({e.l},{e.i},{e.j}) {e.name} r2={e.r2:.3g}" for e in edges[:SHOWN])
    return shown if len(edges) <= SHOWN else f"{shown} and {len(edges) - SHOWN} more"


@torch.no_grad()
def put(model, l: int, edges: list[tuple[int, int]], names: list[str], affine: Tensor) -> None:
    """Make edges (i, j) of layer l, E of them, these functions with affine [E, 4], and nothing else."""
    on = torch.tensor([name != "0" for name in names], dtype=torch.bool, device=affine.device) | (affine[:, 3] != 0)
    model.symbolic_fun[l].set_edges(edges, names, affine, on)
    if edges:
        inputs, outputs = torch.tensor(edges, device=model.device).unbind(1)
        model.act_fun[l].mask[inputs, outputs] = 0.0
    model.forget()


@torch.no_grad()
def _edge_data(model, l: int, inputs: Sequence[int], outputs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """x and y [N, E] of edges of layer l, both branches, on the data of get_act through the model as it now is."""
    if model._record is None:
        model.get_act()
    options = model._record.options
    x = model.rows(model.cache_data)
    for before in range(l):
        x = model.nodes(before, model.sums(before, x, **options))
    inputs, outputs = (torch.tensor(list(t), device=x.device) for t in (inputs, outputs))
    y = edge_values(model, l, x, inputs, outputs, **options)
    return x[:, inputs], y


def _switch_off(model, l: int, verbose: int) -> None:
    """Edges of layer l that are off in both branches become "0"."""
    symbolic = model.symbolic_fun[l]
    off = ~_is_on(model, l)
    if verbose > 1:
        for i, j in off.nonzero().tolist():
            print(f"fixing ({l},{i},{j}) with 0")
        for j, i in ((symbolic.edge_mask != 0) & (model.act_fun[l].edge_mask.T == 0)).nonzero().tolist():
            print(f"skipping ({l},{i},{j}) since already symbolic")
    edges = [(i, j) for i, j in off.nonzero().tolist()]
    symbolic.set_edges(edges, ["0"] * len(edges), torch.zeros(len(edges), 4), 0.0)


def _zero_for_constants(fit: Fit) -> None:
    zero = torch.tensor([function.name == "0" for function in fit.functions], device=fit.r2.device)
    fit.r2.masked_fill_(zero & (fit.r2 < 1), -torch.inf)


def _tell(l: int, edges: list, best: list[Candidate], fixed: list[int], r2_threshold: float) -> None:
    for n, ((i, j), found) in enumerate(zip(edges, best, strict=True)):
        if n in fixed:
            print(f"fixing ({l},{i},{j}) with {found.name}, r2={found.r2:.10g}, c={found.complexity}")
        else:
            print(f"({l},{i},{j}) stays: the best is {found.name}, and r2={found.r2:.6g} is below {r2_threshold}")


def _dtype(model, l: int) -> torch.dtype:
    """Of the parameters that a formula on an edge of layer l has."""
    return model.symbolic_fun[l].affine.dtype


def _is_on(model, l: int) -> Tensor:
    """[I, O], whether an edge has a branch that is on."""
    return (model.act_fun[l].edge_mask != 0) | (model.symbolic_fun[l].edge_mask.T != 0)


def _edge(model, l: int, i: int, j: int) -> None:
    index("l", l, model.depth)
    index("i", i, model.width_in[l])
    index("j", j, model.width_out[l + 1])


class _Edges:
    """The masks and the symbolic functions of a model, kept and put back."""

    def __init__(self, model):
        self.model = model
        self.masks = [layer.edge_mask.clone() for layer in model.act_fun]
        self.states = [copy.deepcopy(layer.state_dict()) for layer in model.symbolic_fun]

    def restore(self) -> None:
        model = self.model
        expected, found = (
            [list(m.shape) for m in masks] for masks in (self.masks, [a.edge_mask for a in model.act_fun])
        )
        if expected != found:
            raise ValueError(f"the model has layers of {found} edges: expected {expected}, as before auto_symbolic")
        for numeric, mask, symbolic, state in zip(
            model.act_fun, self.masks, model.symbolic_fun, self.states, strict=True
        ):
            numeric.mask = mask
            symbolic.load_state_dict(state)
        model.forget()


@contextmanager
def _all_or_nothing(model):
    """What is done to the masks and the symbolic functions within is undone where it fails."""
    before = _Edges(model)
    try:
        yield
    except BaseException:
        before.restore()
        raise


def _table(found: list[Candidate]) -> str:
    width = max(len("function"), *(len(candidate.name) for candidate in found))
    lines = [f"{'':>2}  {'function':<{width}}  {'r2':>12}  {'complexity':>10}  {'loss':>9}"]
    for n, c in enumerate(found):
        lines.append(f"{n:>2}  {c.name:<{width}}  {c.r2:>12.9f}  {c.complexity:>10g}  {c.loss:>9.4f}")
    return "\n".join(lines)
