"""Residuals of a network and their Jacobian J: from the structure of a KAN, or by autograd.

By the coefficients of a layer J is sparse: its entries are the K + 1 B-splines that are not zero at an edge's input,
times the gradient of an output by the sum that the edge enters. One backward pass for each output gives those
gradients for all rows and layers.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...devices import at_home, exact, place, widest
from ...nn.hooks import altered
from ..activations import Activations
from .edge_jacobian import EdgeColumns, EdgeCurvature, EdgeTensors

if TYPE_CHECKING:
    from ..model import KAN

# Per entry, a dense matrix product is about this many times faster than index_add_.
DENSE_IS_FASTER = 800
# Columns of J^T J per dense product: only its upper triangle is computed.
BLOCK = 256


class Residuals:
    """model(x) - y, flattened: a closure for LevenbergMarquardt.step whose Jacobian comes from the model's structure.

    Args:
        model: a KAN; x [..., in_features], y of the prediction's shape.
        penalty: activations.Activations -> further residuals [E], differentiable.
        options: keyword arguments of the model's forward.

    A call sets `record`, the Activations, `prediction`, and `extra`, the penalty's residuals or None.
    """

    def weights(self) -> list[tuple[Tensor, Tensor]] | None:
        """Sizes and weights [O, I] of every layer's edges in a penalty sum weight * size, or None."""
        return None

    def roots(self) -> list[tuple[Tensor, Tensor]]:
        """Parameters p and factors f of the same shape: the last residuals are the entries of f p."""
        return []

    def begun(self, loss: float, slope: float) -> None:
        """Called in a step before any parameter changes, with half the sum of squares and |J^T r|."""

    def numbers(self) -> list[Tensor]:
        """Numbers of the last call, on any device, that `taken` gets on the host."""
        return []

    def taken(self, numbers: list[Tensor]) -> None:
        """Called at the end of a step that changes the parameters, with the numbers there."""

    def __init__(self, model: "KAN", x: Tensor, y: Tensor, penalty: Callable | None = None, **options):
        self.model, self.x, self.y, self.penalty, self.options = model, x, y, penalty, options
        self.record: Activations
        self.prediction: Tensor
        self.extra: Tensor | None = None

    def __call__(self) -> Tensor:
        """The residuals [R], differentiable."""
        self.record = self.model.flow(self.x, **self.options)
        out = self.record.acts[-1].reshape(*self.x.shape[:-1], -1)
        self.prediction = out.detach()
        if out.shape != self.y.shape:
            raise ValueError(
                f"labels have shape {list(self.y.shape)}: expected that of the prediction, {list(out.shape)}"
            )
        residuals = (out - self.y).flatten()
        self.extra = None if self.penalty is None else self.penalty(self.record)
        return residuals if self.extra is None else torch.cat([residuals, self.extra])

    def linearised(self, params: list[Tensor]) -> "Structured | Products":
        """Residuals and Jacobian at the current parameters."""
        with torch.enable_grad():
            residuals = self()
        if any(altered(module) for layer in self.model.act_fun for module in layer.modules()):
            return Products(residuals, params)
        return Structured(self, residuals, params)


class Products:
    """Products with the Jacobian of any residuals, by autograd: J v is the gradient of (J^T u) v by u.

    Vectors and matrices are float64, on the host where the residuals' device has none, but for those of push.
    """

    curved = False  # gram is J^T J alone

    def __init__(self, residuals: Tensor, params: list[Tensor]):
        self.graph, self.params, self.count = residuals.flatten(), params, sum(p.numel() for p in params)
        self._transposed = None

    @cached_property
    def residuals(self) -> Tensor:
        """[R]."""
        return exact(self.graph.detach())

    @cached_property
    def gradient(self) -> Tensor:
        """J^T r [P]."""
        return self.transposed(self.residuals)

    def transposed(self, u: Tensor) -> Tensor:
        """u [R] or [B, R] -> J^T u [P] or [B, P]."""
        grads = torch.autograd.grad(
            self.graph, self.params, _like(self.graph, u), retain_graph=True, allow_unused=True,
            is_grads_batched=u.dim() == 2,
        )  # fmt: skip
        return exact(_flat(grads, self.params, u.shape[:-1]))

    def forward(self, v: Tensor) -> Tensor:
        """v [P] or [B, P] -> J v [R] or [B, R]."""
        return exact(self.push(place(v, self.graph.device)))

    def push(self, v: Tensor) -> Tensor:
        """forward on the residuals' device, in their type."""
        if self._transposed is None:
            with torch.enable_grad():
                self._dual = torch.zeros_like(self.graph).requires_grad_()
                grads = torch.autograd.grad(self.graph, self.params, self._dual, create_graph=True, allow_unused=True)
                self._transposed = [(i, g) for i, g in enumerate(grads) if g is not None and g.requires_grad]
        if not self._transposed:
            return self.graph.new_zeros(*v.shape[:-1], len(self.graph))
        pieces = v.split([p.numel() for p in self.params], -1)
        shapes = [(*v.shape[:-1], *self.params[i].shape) for i, _ in self._transposed]
        parts = zip(self._transposed, shapes, strict=True)
        tangents = [_like(g, pieces[i].reshape(shape)) for (i, g), shape in parts]
        (out,) = torch.autograd.grad(
            [g for _, g in self._transposed], self._dual, tangents, retain_graph=True, is_grads_batched=v.dim() == 2
        )
        return out

    def jacobian(self, max_bytes: int) -> Tensor:
        """J [R, P], by columns where the parameters are fewer than the residuals, and by rows otherwise."""
        rows = len(self.graph)
        by_columns = self.count <= rows
        eye = torch.eye(min(self.count, rows), dtype=torch.float64, device=self.residuals.device)
        product = self.forward if by_columns else self.transposed
        parts = torch.cat([product(part) for part in eye.split(max(1, max_bytes // (64 * (self.count + rows))))])
        return parts.T if by_columns else parts

    def product(self, v: Tensor) -> Tensor:
        """gram times v [P]."""
        return self.transposed(self.forward(v))

    def gram(self, max_bytes: int) -> Tensor:
        """J^T J [P, P]."""
        jacobian = self.jacobian(max_bytes)
        return jacobian.T @ jacobian

    def diagonal(self, max_bytes: int) -> Tensor | None:
        """Diagonal of J^T J [P]; None if it costs as much as J."""
        return None

    def bytes_of(self, gram: bool) -> int:
        """Bytes that gram or jacobian allocates beside its result."""
        return 8 * self.count * len(self.graph)

    def expanded(self, step: Tensor) -> Tensor:
        """A step in the columns of J as a step in all parameters."""
        return step


class Structured:
    """The Jacobian of Residuals, with the methods of Products; pruned edges have no columns.

    With weights for the edges' sizes, gram has their curvature instead of that of `extra`, the square root of the
    penalty, whose linear model ignores that sizes cannot be negative.
    """

    def __init__(self, closure: Residuals, residuals: Tensor, params: list[Tensor]):
        record, weights = closure.record, closure.weights()
        outputs, self.total = record.acts[-1], sum(p.numel() for p in params)
        self.outputs, self.data = outputs.shape[1], outputs.numel()
        self.alone = self.data + (0 if closure.extra is None else len(closure.extra))
        starts = dict(zip(map(id, params), _starts(params), strict=True))
        gradients, data = _gradients(outputs, record.sums), residuals[: self.data]
        self.layers = [
            EdgeColumns(
                layer, record.acts[l].detach(), gradients[l], data.detach(), starts,
                None if weights is None else weights[l],
            )
            for l, layer in enumerate(closure.model.act_fun)
            if layer.active and any(id(p) in starts for p in layer.linear.parameters())
        ]  # fmt: skip
        of_edges = {id(p) for layer in closure.model.act_fun for p in layer.linear.parameters()}
        rest = [p for p in params if id(p) not in of_edges]
        extra = () if closure.extra is None else (_rows(residuals[self.data : self.alone], params),)
        roots = closure.roots()
        self.residuals, self.rest, *copies = at_home(
            residuals, _columns(data, rest), *extra, *(factor for _, factor in roots),
            *(t for layer in self.layers for t in layer.tensors if t is not None),
        )  # fmt: skip
        self.residuals, self.rest, take = self.residuals.double(), self.rest.double(), iter(copies)
        self.extra = next(take).double() if extra else None
        # Residuals that are a parameter times a factor, from row `alone` on: the factor and the row of each parameter.
        self.factor = self.residuals.new_zeros(self.total)
        self.row = torch.zeros(self.total, dtype=torch.long, device=self.factor.device)
        row = self.alone
        for p, factor in zip((p for p, _ in roots), take, strict=False):
            if id(p) in starts:
                own = slice(starts[id(p)], starts[id(p)] + p.numel())
                self.factor[own] = factor.flatten()
                self.row[own] = torch.arange(row, row + p.numel(), device=self.row.device)
            row += p.numel()
        self.curvatures: list[EdgeCurvature] = []
        self.edges = 0
        for layer in self.layers:
            arrived = EdgeTensors._make(t if t is None else next(take) for t in layer.tensors)
            layer.arrange(arrived, starts, self.edges)
            self.edges += len(layer.places)
            if layer.tensors.sizes is not None:
                self.curvatures.append(EdgeCurvature(layer))
        self.curved = bool(self.curvatures)
        of_rest = (starts[id(p)] + torch.arange(p.numel(), device=self.row.device) for p in rest)
        self.places = torch.cat([*(layer.places for layer in self.layers), *of_rest])
        self.count = len(self.places)
        self.factor, self.row = self.factor[self.places], self.row[self.places]
        self.extra = None if self.extra is None else self.extra[:, self.places]
        self.gradient = self._transposed([layer.along for layer in self.layers], self.residuals)

    def forward(self, v: Tensor) -> Tensor:
        """v [P] -> J v [R]."""
        image = torch.zeros_like(self.residuals)
        data = image[: self.data]
        data += self.rest @ v[self.edges :]
        for layer in self.layers:
            data += layer.forward(v)
        if self.extra is not None:
            image[self.data : self.alone] = self.extra @ v
        return image.index_add_(0, self.row, self.factor * v)

    def transposed(self, u: Tensor) -> Tensor:
        """u [R] -> J^T u [P]."""
        return self._transposed([layer.transposed(u[: self.data]) for layer in self.layers], u)

    def _transposed(self, of_edges: list[Tensor], u: Tensor) -> Tensor:
        """transposed, from the parts of the edges of every layer."""
        image = torch.cat([*of_edges, self.rest.T @ u[: self.data]]).add_(self.factor * u[self.row])
        return image if self.extra is None else image + self.extra.T @ u[self.data : self.alone]

    def product(self, v: Tensor) -> Tensor:
        """gram times v [P]."""
        if not self.curved:
            return self.transposed(self.forward(v))
        image = self.forward(v)
        image[self.data : self.alone] = 0
        return self.transposed(image) + sum(c.product(v) for c in self.curvatures)

    def entries(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Columns and values [R', C] of the structural non-zeros of these rows of the data."""
        rest = self.rest[rows.start * self.outputs : rows.stop * self.outputs]
        of_rest = (self.edges + torch.arange(rest.shape[1], device=rest.device)).expand(len(rest), -1)
        parts = [layer.entries(rows) for layer in self.layers] + [(of_rest, rest)]
        columns, values = zip(*parts, strict=True)
        return torch.cat(columns, 1), torch.cat(values, 1)

    def blocks(self, bytes_of_a_row: int, max_bytes: int) -> Iterator[slice]:
        """Slices of the rows of the data that need at most max_bytes."""
        count = self.data // self.outputs
        step = max(1, max_bytes // (self.outputs * bytes_of_a_row))
        return (slice(start, start + step) for start in range(0, count, step))

    def jacobian(self, max_bytes: int) -> Tensor:
        """J [R, P]."""
        full = self.residuals.new_zeros(len(self.residuals), self.count)
        for rows in self.blocks(64 * self.width, max_bytes):
            columns, values = self.entries(rows)
            full[rows.start * self.outputs :][: len(values)].scatter_(1, columns, values)
        if self.extra is not None:
            full[self.data : self.alone] = self.extra
        return full.index_put_((self.row, torch.arange(self.count, device=full.device)), self.factor, accumulate=True)

    @property
    def width(self) -> int:
        """Structural non-zeros of a row."""
        return sum(layer.width for layer in self.layers) + self.rest.shape[1]

    def gram(self, max_bytes: int) -> Tensor:
        """J^T J [P, P] + curvature: entry by entry if the rows are sparse enough, else by dense products."""
        p, width = self.count, self.width
        sparse = DENSE_IS_FASTER * width**2 < p**2
        gram = self.residuals.new_zeros(p, p)
        for rows in self.blocks(32 * width**2 if sparse else 8 * p + 64 * width, max_bytes):
            columns, values = self.entries(rows)
            if sparse:
                at = (p * columns[:, :, None] + columns[:, None]).flatten()
                gram.view(-1).index_add_(0, at, (values[:, :, None] * values[:, None]).flatten())
            else:
                block = values.new_zeros(len(values), p).scatter_(1, columns, values)
                for start in range(0, p, BLOCK):
                    stop = min(start + BLOCK, p)
                    gram[start:stop, start:].addmm_(block[:, start:stop].T, block[:, start:])
        if not sparse:
            gram = gram.triu() + gram.triu(1).T
        for curvature in self.curvatures:
            curvature.add_to(gram)
        gram.diagonal().add_(self.factor.square())
        return gram if self.extra is None or self.curved else gram.addmm_(self.extra.T, self.extra)

    def bytes_of(self, gram: bool) -> int:
        """Bytes of the result of jacobian, or that gram allocates beside its result."""
        return 0 if gram else 8 * self.count * len(self.residuals)

    def diagonal(self, max_bytes: int) -> Tensor:
        """Diagonal of gram [P]."""
        diagonal = self.residuals.new_zeros(self.count)
        for rows in self.blocks(64 * self.width, max_bytes):
            columns, values = self.entries(rows)
            diagonal.index_add_(0, columns.flatten(), values.square().flatten())
        for curvature in self.curvatures:
            diagonal += curvature.diagonal(self.count)
        diagonal += self.factor.square()
        return diagonal if self.extra is None or self.curved else diagonal + self.extra.square().sum(0)

    def expanded(self, step: Tensor) -> Tensor:
        """A step in the columns of J as a step in all parameters."""
        return step.new_zeros(self.total).index_copy_(0, self.places, step)


def _gradients(outputs: Tensor, sums: list[Tensor]) -> list[Tensor]:
    """Gradients of every output by the sums of every layer: [N, Q, O] each. Rows are independent of one another."""
    wanted = [s for s in sums if s.requires_grad]
    found = [
        torch.autograd.grad(y.sum(), wanted, retain_graph=True, allow_unused=True) if wanted else ()
        for y in outputs.unbind(1)
    ]
    stacked = (
        torch.stack([torch.zeros_like(s) if g is None else g for g in grads], 1)
        for s, grads in zip(wanted, zip(*found, strict=True), strict=True)
    )
    return [next(stacked) if s.requires_grad else s.new_zeros(len(s), outputs.shape[1], s.shape[1]) for s in sums]


def _columns(residuals: Tensor, params: list[Tensor]) -> Tensor:
    """J [R, P] by a few parameters, by forward products; on the residuals' device."""
    products = Products(residuals, params)
    if not products.count:
        return residuals.new_zeros(len(residuals), 0)
    return products.push(torch.eye(products.count, dtype=widest(residuals.device), device=residuals.device)).T


def _rows(residuals: Tensor, params: list[Tensor]) -> Tensor:
    """J [R, P] of a few residuals, by backward passes; on the residuals' device."""
    return torch.stack(
        [_flat(torch.autograd.grad(r, params, retain_graph=True, allow_unused=True), params) for r in residuals]
    )


def _flat(grads, params: list[Tensor], batch: tuple[int, ...] = ()) -> Tensor:
    parts = [
        p.new_zeros(*batch, p.numel()) if g is None else g.reshape(*batch, p.numel())
        for p, g in zip(params, grads, strict=True)
    ]
    return torch.cat(parts, -1)


def _like(t: Tensor, u: Tensor) -> Tensor:
    """u on the device and in the dtype of t."""
    return place(u, t.device).to(t.dtype)


def _starts(params: list[Tensor]) -> list[int]:
    """Offset of each parameter in the flat vector of all."""
    return [0, *itertools.accumulate(p.numel() for p in params)][:-1]
