"""Grids of a network: grid updates from data, refinement, and the values of its edges."""

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ..basis.bspline import OUTSIDE, bspline_features, uniform_knots
from ..devices import home, host
from ..nn.grid import is_uniform, resized_knots
from ..nn.processes import checked_group, is_sharded, together
from ..nn.refit import refit
from ..nn.refit_family import refit_family
from .activations import edge_values, latest
from .checkpoint import State, gathered
from .layers.numeric import KANLayer
from .layers.shape import check_edge, per_layer

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from .model import KAN

Model = TypeVar("Model", bound="KAN")
BLOCK = 1 << 22  # elements of a temporary in the change of degree


def padded(inner: Tensor, degree: int) -> Tensor:
    """The knots of splines of this degree on intervals with the ends inner [I, G + 1]: `degree` more on each side."""
    size = inner.shape[1] - 1
    if is_uniform(inner):
        knots = uniform_knots(inner[:, 0], inner[:, -1], size, degree)
        knots[:, degree + size] = inner[:, -1]
        return knots
    steps = torch.arange(1, degree + 1, device=inner.device)
    first, last = inner[:, 1:2] - inner[:, :1], inner[:, -1:] - inner[:, -2:-1]
    return torch.cat([inner[:, :1] - steps.flip(0) * first, inner, inner[:, -1:] + steps * last], 1)


def redegree(coef: Tensor, old_grid: Tensor, new_grid: Tensor, old: int, new: int) -> Tensor:
    """Least-squares conversion of coefficients from degree `old` on old_grid to degree `new` on new_grid.

    Minimises the mean square of the difference at Chebyshev points in every interval of the two grids together, enough
    of them for full rank; solved by SVD.

    coef [I, F, O], old_grid [I, M], new_grid [I, M'] in float64 -> [I, F', O] in float64.
    """
    if all(bool((grid == grid[:1]).all()) for grid in (old_grid, new_grid)):  # one fit serves all inputs
        transfer = _transfer(old_grid[:1], new_grid[:1], old, new)
        return transfer @ coef.double()
    points = (max(old, new) + 2) * (old_grid.shape[1] + new_grid.shape[1])
    step = max(1, BLOCK // (points * (old_grid.shape[1] + new_grid.shape[1])))
    parts = zip(coef.split(step), old_grid.split(step), new_grid.split(step), strict=True)
    return torch.cat([_transfer(mine, other, old, new) @ c.double() for c, mine, other in parts])


def _transfer(old_grid: Tensor, new_grid: Tensor, old: int, new: int) -> Tensor:
    """[I, F', F]: new coefficients = transfer @ old ones."""
    points, weights = _points(old_grid, new_grid, old, new)
    target = weights * bspline_features(points, old_grid, old, "clamp").transpose(0, 1)  # I P F
    phi = weights * bspline_features(points, new_grid, new, "clamp").transpose(0, 1)  # I P F'
    solve = torch.linalg.pinv(phi)
    transfer = solve @ target
    return transfer + solve @ (target - phi @ transfer)


def _points(old_grid: Tensor, new_grid: Tensor, old: int, new: int) -> tuple[Tensor, Tensor]:
    """Chebyshev points of every interval of the two grids within the range of the new one, [P, I], weights [I, P, 1].

    A squared weight is the share of the interval in the range, so that slivers between knots that differ by rounding
    have no influence.
    """
    inner = new_grid[:, new : new_grid.shape[1] - new]
    within = old_grid[:, old : old_grid.shape[1] - old].clamp(inner[:, :1], inner[:, -1:])
    breaks = torch.cat([inner, within], 1).sort(1).values
    width = breaks.diff(dim=1)[..., None]  # I U 1
    count = max(old, new) + 2
    at = (torch.arange(count, device=inner.device, dtype=torch.float64) + 0.5) * (torch.pi / count)
    points = breaks[:, :-1, None] + width * (1 - at.cos()) / 2
    weights = (width / (inner[:, -1:] - inner[:, :1])[..., None]).sqrt().expand_as(points)
    return points.flatten(1).T.contiguous(), weights.flatten(1)[..., None]


@torch.no_grad()
def update_grid_from_samples(
    model: "KAN", x: Tensor, *, inwards: float = 1.0, process_group: "ProcessGroup | None" = None
) -> None:
    """Adapt every layer's knots to its inputs, from the first layer to the last, in one forward pass of x.

    Splines are refitted by least squares on the data, see KANLinear.update_grid; x may have constant, binary or few
    distinct values. Layers whose edges are all symbolic or pruned stay. inwards: when the range of a hidden layer
    shrinks, the fraction of the way that its ends move. Raises ValueError where x, or the inputs of a layer, are empty
    or not finite; the model then stays as it was.

    process_group: processes that have one model, such as torch.distributed.group.WORLD under DistributedDataParallel:
    grids are by the rows of all of them, and every process calls this with rows of its own; by default x of this
    process alone counts. Under fully_shard all processes must call this, and by default the rows of all count; each has
    the whole model in memory for the time of the call. See KANLinear.update_grid.
    """
    if is_sharded(model):
        _update_sharded(model, x, inwards, process_group)
        return
    group = checked_group(process_group)
    with together(group, home(model.device)):
        x, before = model.rows(x), State(model)
    try:
        for l in range(model.depth):
            if model.act_fun[l].active:
                model.act_fun[l].linear.update_grid(x, margin=0.0, inwards=inwards if l else 1.0, process_group=group)
            if l + 1 < model.depth:
                x = model.nodes(l, model.sums(l, x))
    except Exception:
        before.restore()
        raise


def _update_sharded(model: "KAN", x: Tensor, inwards: float, process_group: "ProcessGroup | None") -> None:
    group = model.act_fun[0].linear.rows_group(process_group)
    full = gathered(model)
    update_grid_from_samples(full, x, inwards=inwards, process_group=group)
    _set_splines(model, [(layer.linear.grid, layer.linear.coef) for layer in full.act_fun])


def refine(model: Model, new_grid: int | list[int]) -> Model:
    """A copy of the model with other numbers of grid intervals, one for all layers or a list.

    For multiples of the present numbers it is the same function, to rounding, inside the grid ranges; else the
    least-squares approximation over them. Needs no data; the model stays as it is. Of a model whose parameters are
    sharded the copy is an ordinary one in every process, see gathered: shard it again.
    """
    sizes = per_layer("new_grid", new_grid, model.depth, 1)
    refined = gathered(model) if is_sharded(model) else copy.deepcopy(model)
    for layer, size in zip(refined.act_fun, sizes, strict=True):
        if size != layer.num:
            layer.linear.extend_grid(size)
    refined.forget()
    return refined


@torch.no_grad()
def initialize_grid_from_another_model(model: "KAN", another: "KAN", x: Tensor | None = None) -> None:
    """Copy another model's grid ranges and knot density, with this model's numbers of intervals.

    The splines become the other's, by least squares over the range. x is pykan's and not used.
    """
    _check_same(model, another, "width", "mult_arity")
    _set_splines(model, [splines_of(m, o) for m, o in zip(model.act_fun, another.act_fun, strict=True)])


@torch.no_grad()
def initialize_from_another_model(model: Model, another: "KAN", x: Tensor | None = None) -> Model:
    """Copy another model's function to this model's numbers of grid intervals and degrees; returns the model.

    Both need the same width, arities and base function. For multiples of the other's numbers of intervals and the same
    degree it is the same function, to rounding, inside the grid ranges; else the least-squares approximation over
    them. No tensor is shared with the other model. After an error nothing has changed. x is pykan's and not used.
    """
    _check_same(model, another, "width", "mult_arity")
    expected, given = ([layer.base_fun for layer in of.act_fun] for of in (model, another))
    if expected != given:
        raise ValueError(f"another.base_fun is {given}, layer by layer: expected that of the model, {expected}")
    splines = [splines_of(m, o) for m, o in zip(model.act_fun, another.act_fun, strict=True)]
    _set_splines(model, splines)
    for mine, other in zip(model.act_fun, another.act_fun, strict=True):
        mine.scale_base, mine.scale_sp, mine.mask = other.scale_base, other.scale_sp, other.edge_mask
    for mine, other in zip(model.symbolic_fun, another.symbolic_fun, strict=True):
        mine.funs_name, mine.mask = other.funs_name, other.edge_mask
        mine.affine.copy_(other.affine)
    for name in ("node_bias", "node_scale", "subnode_bias", "subnode_scale"):
        for mine, other in zip(getattr(model, name), getattr(another, name), strict=True):
            mine.copy_(other)
    model.input_id, model.in_features = another.input_id.to(model.device).clone(), another.in_features
    model.symbolic_enabled = another.symbolic_enabled
    return model


def splines_of(mine: KANLayer, other: KANLayer) -> tuple[Tensor, Tensor]:
    """Knots and coefficients that give layer `mine`, with its grid size and degree, the splines of layer `other`."""
    device, outside = home(mine.linear.coef.device), OUTSIDE[mine.linear.spec.outside]
    grid, coef = other.linear.exact_knots.to(device), host(other.linear.coef).to(device)
    if not coef.isfinite().all():
        raise ValueError("another has coefficients that are not finite: expected finite ones")
    if "bspline" != mine.linear.family or "bspline" != other.linear.family:
        low, high = grid[:, other.k], grid[:, -other.k - 1]
        knots = uniform_knots(low, high, mine.num, mine.k)
        return knots, refit_family(coef, grid, other.linear.spec, knots, mine.linear.spec)
    knots = resized_knots(grid, other.k, mine.num)
    if mine.k == other.k:
        return knots, refit(coef, grid, knots, other.k, outside)
    knots = padded(knots[:, other.k : knots.shape[1] - other.k], mine.k)
    return knots, redegree(coef, grid, knots, other.k, mine.k)


def _set_splines(model: "KAN", splines: list[tuple[Tensor, Tensor]]) -> None:
    before = State(model)
    try:
        for layer, (knots, coef) in zip(model.act_fun, splines, strict=True):
            layer.linear.set_grid(knots, coef)
    except Exception:
        before.restore()
        raise


def get_range(model: "KAN", l: int, i: int, j: int, verbose: bool = True) -> tuple[float, float, float, float]:
    """The range of the input and output of edge (l, i, j) on the data of get_act: x_min, x_max, y_min, y_max."""
    x, y = get_fun(model, l, i, j)
    bounds = x.min().item(), x.max().item(), y.min().item(), y.max().item()
    if verbose:
        print("x range: [{:.2f}, {:.2f}]\ny range: [{:.2f}, {:.2f}]".format(*bounds))
    return bounds


@torch.no_grad()
def get_fun(model: "KAN", l: int, i: int, j: int) -> tuple[Tensor, Tensor]:
    """Inputs and outputs of the edge from node i of layer l to subnode j of layer l + 1 on the data of get_act.

    Returns [N] each, in ascending order of the inputs, on the CPU. Both branches count.
    """
    check_edge(model, l, i, j)
    record = latest(model)
    rows = record.acts[l]
    edge = torch.tensor([i], device=rows.device), torch.tensor([j], device=rows.device)
    y = edge_values(model, l, rows, *edge, **record.options)[:, 0]
    x, order = rows[:, i].sort()
    return x.cpu(), y[order].cpu()


def _check_same(model: "KAN", another: "KAN", *names: str) -> None:
    for name in names:
        mine, other = getattr(model, name), getattr(another, name)
        if mine != other:
            raise ValueError(f"another.{name} is {other}: expected that of the model, {mine}")
