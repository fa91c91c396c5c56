"""Residuals of a function of the network and its derivatives, such as those of a differential equation.

The sum of the mean squares of the terms is the loss. Their Jacobian comes from the propagation of the derivatives: a
row of a term depends on one row of points, so its column for coefficient c_ifo is sum_j g_j[n,o] B_f^(j)(x_i(n)), g the
gradient of the term by the sums of the layer and their derivatives, and B^(j) the derivatives of the basis function
along the directions.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ... import functional
from ...basis.base import BASES
from ...devices import exact
from ..layers.numeric import BLOCK, KANLayer
from .data import Data
from .jacobian import Products
from .lm_residuals import WatchedResiduals
from .objective import NOTHING, Objective, Value
from .penalties import penalty
from .taylor import Propagation, Series, check, derivatives, factors, is_layered

if TYPE_CHECKING:
    from ..model import KAN

Terms = Callable[["KAN"], Tensor | Sequence[Tensor]]


class Recorder:
    """The model as the terms see it: its calls are recorded, for the Jacobian and for grid updates.

    Has the model's attributes.
    """

    def __init__(self, model: "KAN"):
        self._model, self._layered = model, is_layered(model)
        self.points: list[Tensor] = []
        self.passes: list[Propagation] = []

    def __call__(self, x: Tensor, **options: Any) -> Tensor:
        """As KAN.forward."""
        if not self._layered or x.dim() != 2 or options:
            self.points.append(x.detach().reshape(-1, x.shape[-1]))
            return self._model(x, **options)
        return self.derivatives(x, 0)[0]

    def derivatives(self, x: Tensor, order: int = 2, directions: Tensor | None = None) -> list[Tensor]:
        """As KAN.derivatives."""
        order, directions = check(self._model, x, order, directions)
        self.points.append(x.detach())
        if not self._layered:
            return derivatives(self._model, x, order, directions)
        self.passes.append(Propagation(self._model, x, order, directions))
        return self.passes[-1].results()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class PointwiseObjective(Objective):
    """The sum of the mean squares of terms(model), and of model(x) - y where there are data, + lamb * penalty.

    pointwise: whether a row of each term depends on one row of points; found False by the Jacobian.
    """

    def __init__(self, model: "KAN", terms: Terms, *rest: Any):
        super().__init__(model, None, *rest)
        self.terms, self.pointwise = terms, True
        self.seen: Tensor | None = None

    def recorded(self, x: Tensor | None, y: Tensor | None) -> tuple[list[Tensor], Recorder]:
        """The terms, and the calls of the model that they made."""
        recorder = Recorder(self.model)
        found: Any = self.terms(recorder)  # type: ignore[arg-type]
        terms = [found] if isinstance(found, Tensor) else found
        if not isinstance(terms, list | tuple) or not all(isinstance(t, Tensor) and t.numel() for t in terms):
            raise TypeError(f"residuals returned {found!r}: expected a tensor, or a list of tensors, with elements")
        terms = list(terms)
        if x is not None:
            prediction = recorder(x)
            if y is None or prediction.shape != y.shape:
                raise ValueError(f"labels have another shape than the prediction, {list(prediction.shape)}")
            terms.append(prediction - y)
        if not terms:
            raise ValueError("residuals returned an empty list: expected at least one tensor")
        self.seen = torch.cat(recorder.points) if recorder.points else x
        return terms, recorder

    def __call__(self, x: Tensor | None, y: Tensor | None) -> tuple[Tensor, Value]:
        terms, _ = self.recorded(x, y)
        loss = mean_squares(terms)
        if not self.lamb:
            return loss, Value(loss.detach(), NOTHING.penalty)
        if self.seen is None:
            raise ValueError(f"lamb={self.lamb}: expected 0, since residuals did not call the model")
        record = self.model.flow(self.seen, **self.options)
        reg = penalty(self.model, record, self.reg_metric, **self.lambdas)
        return loss + self.lamb * reg, Value(loss.detach(), reg.detach())

    def fused(self) -> None:
        """No fused gradient."""
        return None

    @torch.no_grad()
    def test(self, data: Data) -> Tensor:
        """The loss, with the test set's mean square error in place of the training set's."""
        of_terms = mean_squares(self.recorded(None, None)[0])
        return of_terms if data.train is None else of_terms + super().test(data)

    @torch.no_grad()
    def points(self, x: Tensor | None, y: Tensor | None) -> Tensor | None:
        """The inputs of the model in the terms."""
        self.recorded(x, y)
        return self.seen


class PointwiseResiduals(WatchedResiduals):
    """The terms as one vector whose sum of squares is the loss: each over the root of its number of elements.

    The closure of a Levenberg-Marquardt step.
    """

    def __call__(self) -> Tensor:
        objective: Any = self.objective
        if objective.lamb:
            raise ValueError(f"lamb={objective.lamb}: expected 0 with residuals and Levenberg-Marquardt")
        self.found, self.recorder = objective.recorded(self.x, self.y)
        self.last = Value(mean_squares([t.detach() for t in self.found]), NOTHING.penalty)
        self.ridge.set_scale(self.last.loss, self.y)
        of_ridge = zip(self.ridge.weights, self.ridge.curves, strict=True)
        rows = [((curve / 2).sqrt() * w).flatten() for w, curve in of_ridge]
        return torch.cat([*(t.flatten() / t.numel() ** 0.5 for t in self.found), *rows])

    def linearised(self, params: list[Tensor]) -> Products:
        with torch.enable_grad():
            residuals = self()
        return PointwiseProducts(self, residuals, params)


class NotPointwise(Exception):
    """A row of a term depends on several rows of points."""


class PointwiseProducts(Products):
    """Products with the Jacobian, and the Jacobian itself by the propagation where the terms are pointwise."""

    def __init__(self, closure: PointwiseResiduals, residuals: Tensor, params: list[Tensor]):
        super().__init__(residuals, params)
        self.closure = closure

    def jacobian(self, max_bytes: int) -> Tensor:
        """J [R, P]."""
        objective: Any = self.closure.objective
        if objective.pointwise and self.closure.recorder.passes:
            try:
                return self._structured()
            except NotPointwise:
                objective.pointwise = False
        return super().jacobian(max_bytes)

    def _structured(self) -> Tensor:
        closure, model = self.closure, self.closure.model
        passes = closure.recorder.passes
        sums = [t for p in passes for s in p.sums for t in (s.value, *s.derivatives)]
        found = torch.zeros(len(self.residuals), self.count, dtype=torch.float64, device=self.residuals.device)
        starts, start = {}, 0
        for p in self.params:
            starts[id(p)], start = start, start + p.numel()
        basis = [[_basis(layer, p.acts[l]) for l, layer in enumerate(model.act_fun)] for p in passes]
        of_edges, row = set(), 0
        for term in closure.found:
            columns = term.reshape(len(term) if term.dim() else 1, -1) / term.numel() ** 0.5
            for q in range(columns.shape[1]):
                at = torch.arange(row + q, row + columns.numel(), columns.shape[1], device=found.device)
                grads = iter(_gradients(columns[:, q], sums))
                for p, of_pass in zip(passes, basis, strict=True):
                    for l, layer in enumerate(model.act_fun):
                        of_sums = [next(grads) for _ in range(1 + len(p.sums[l].derivatives))]
                        if all(g is None for g in of_sums):
                            continue
                        if len(p.sums[l].value) != len(at):
                            raise NotPointwise
                        for parameter, block in _columns(layer, of_sums, *of_pass[l]):
                            if id(parameter) in starts:
                                first = starts[id(parameter)]
                                found[at, first : first + parameter.numel()] += block
            row += columns.numel()
        for layer in model.act_fun:
            of_edges |= {id(layer.linear.coef), id(layer.linear.base_weight)}
        rest = [p for p in self.params if id(p) not in of_edges]
        if rest:
            products = Products(self.graph, rest)
            eye = torch.eye(products.count, dtype=self.graph.dtype, device=self.graph.device)
            part, at = exact(products.push(eye)).T, 0
            for p in rest:
                found[:, starts[id(p)] : starts[id(p)] + p.numel()] = part[:, at : at + p.numel()]
                at += p.numel()
        row = len(found) - sum(w.numel() for w in closure.ridge.weights)
        for w, curve in zip(closure.ridge.weights, closure.ridge.curves, strict=True):
            at = torch.arange(w.numel(), device=found.device)
            if id(w) in starts:
                found[row + at, starts[id(w)] + at] = exact((curve / 2).sqrt().flatten())
            row += w.numel()
        self._check(found)
        return found

    def _check(self, jacobian: Tensor) -> None:
        """NotPointwise unless a product with J^T is that by autograd; a sum over several rows would be another one."""
        generator = torch.Generator("cpu").manual_seed(0)
        u = torch.randn(len(jacobian), dtype=torch.float64, generator=generator, device="cpu").to(jacobian.device)
        expected = self.transposed(u)
        bound = (jacobian.abs().T @ u.abs()).max()
        rounding = torch.finfo(self.graph.dtype).eps ** 0.5
        if not bool((jacobian.T @ u - expected).abs().max() <= rounding * bound):
            raise NotPointwise


def mean_squares(terms: Sequence[Tensor]) -> Tensor:
    """The sum of the terms' mean squares."""
    squares = [t.square().mean() for t in terms]
    return sum(squares[1:], squares[0])


def _gradients(column: Tensor, sums: list[Tensor]) -> list[Tensor | None]:
    """The gradients of every element of a column by its row of each of the sums."""
    wanted = [t for t in sums if t.requires_grad]
    if not column.requires_grad or not wanted:
        return [None] * len(sums)
    grads = iter(torch.autograd.grad(column.sum(), wanted, retain_graph=True, allow_unused=True))
    return [next(grads) if t.requires_grad else None for t in sums]


@torch.no_grad()
def _basis(layer: KANLayer, x: Series) -> tuple[list[Tensor], list[Tensor]]:
    """Values of the basis functions [N, I, F] and of the base function [N, I, 1], and their derivatives [D, N, ...]."""
    x = Series(x.value.detach(), [c.detach() for c in x.derivatives])
    return _of(layer, x, False), [] if layer.linear.base_weight is None else _of(layer, x, True)


def _of(layer: KANLayer, x: Series, base: bool) -> list[Tensor]:
    """Values and derivatives of the basis functions, or of the base function."""
    found = [_contracted(layer, x.value, torch.ones_like(x.value), 0, base)]
    for j in range(1, len(x.derivatives) + 1):
        terms = [_contracted(layer, x.value, s, d, base) for d, s in enumerate(factors(x, j), start=1)]
        found.append(torch.stack(terms).sum(0))
    return found


def _contracted(layer: KANLayer, x: Tensor, s: Tensor, order: int, base: bool) -> Tensor:
    """s times the derivatives of the basis functions, or of the base function, at x: [..., N, I, F or 1].

    By the fused operator, with one output for every function of a few inputs.
    """
    linear, functions = layer.linear, layer.num + layer.k
    dtype = torch.promote_types(linear.coef.dtype, torch.float32)
    spec = linear.spec if base else linear.spec._replace(base=BASES.index("zero"))
    rows = x.expand(s.shape).reshape(-1, x.shape[1])
    parts = []
    step = x.shape[1] if base else BLOCK
    for part, factor, grid in zip(
        rows.split(step, 1), s.reshape(rows.shape).split(step, 1), linear.knots.split(step), strict=True
    ):
        inputs = len(grid)
        if base:
            coef, weight, width = rows.new_zeros(inputs, functions, inputs, dtype=dtype), _eye(inputs, rows, dtype), 1
        else:
            coef = _eye(inputs * functions, rows, dtype).view(inputs, functions, inputs * functions)
            weight, width = None, functions
        y = functional.apply_derivative(part, factor, coef, grid, weight, None, spec, order, linear.backend)
        parts.append(y.view(*s.shape[:-1], inputs, width))
    return torch.cat(parts, -2)


def _eye(n: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.eye(n, dtype=dtype, device=like.device)


def _columns(
    layer: KANLayer, gradients: list[Tensor | None], splines: list[Tensor], base: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """The parameters of a layer's edges and their columns [N, numel]."""
    linear, mask = layer.linear, layer.edge_mask.detach().double()
    found = []
    for p, features, factor in (
        (linear.coef, splines, (linear.spline_scale.detach() * mask)[:, None]),
        (linear.base_weight, base, mask[:, None]),
    ):
        if p is None:
            continue
        block = torch.zeros(1, dtype=torch.float64, device=mask.device)
        for g, phi in zip(gradients, features, strict=True):
            if g is not None:
                g, phi = g.detach().double(), phi.double()
                g, phi = g.reshape(-1, *g.shape[-2:]), phi.reshape(-1, *phi.shape[-3:])  # D N O, D N I F
                block = block + torch.einsum("dnif,dno->nifo", phi, g)
        found.append((p, (block * factor).flatten(1)))
    return found
