"""Columns of a network's Jacobian for the edges of one layer, and the curvature of the edge-size penalty."""

from collections.abc import Container
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from ... import functional
from ...basis.base import BASES
from ...devices import exact, place
from ..activations import std
from ..layers.numeric import KANLayer, Plan

# Inputs whose basis functions are evaluated in one call.
INPUTS = 8
# Lower bound of an edge's standard deviation in its curvature, over the input's + 0.1: smaller edges could not move.
MIN_STD = 1e-3


class EdgeTensors(NamedTuple):
    """What the columns and the curvature of a layer's edges are computed from, on the layer's device without a graph.

    gradient [N, Q, O]: of the network's outputs by the layer's sums; along: J^T r of the parameters, see
    EdgeColumns.pull; sizes [3, O, I]: standard deviation, size and weight of the edges, and spread [I]: the standard
    deviation of the inputs, None without a curvature.
    """

    x: Tensor
    gradient: Tensor
    along: Tensor
    mask: Tensor
    coef: Tensor
    scale: Tensor
    knots: Tensor
    phi: Tensor
    base: Tensor | None
    sizes: Tensor | None
    spread: Tensor | None


class EdgeColumns:
    """Columns of J for the coefficients, base weights and scales of the edges of a layer whose mask is not 0.

    Order: F coefficients of each edge, then base_weight, then spline_scale, as far as they are trained. gradient
    [N, Q, O]: that of the network's outputs by the layer's sums. `tensors` are on the layer's device; `arrange` takes
    them where float64 can be computed. Then there are `places`, indices of the columns' parameters in the flat vector
    of all; `start`, the first column; and `along`, J^T r.
    """

    def __init__(
        self, layer: KANLayer, x: Tensor, gradient: Tensor, r: Tensor, trained: Container[int],
        curve: tuple[Tensor, Tensor] | None,
    ):  # fmt: skip
        linear = layer.linear
        self.layer, self.x, self.gradient, self.functions = layer, x, gradient, linear.coef.shape[1]
        every = linear.coef, linear.base_weight, linear.spline_scale
        self.params = [p for p in every if p is not None and id(p) in trained]
        self.sums: Tensor | None = None
        base = None if linear.base_weight is None else linear.base_activation
        if all(p is linear.spline_scale for p in self.params):
            curve = None
        with torch.no_grad():
            self.tensors = EdgeTensors(
                x, gradient, self.pull(r), layer.edge_mask, linear.coef, linear.spline_scale, linear.knots,
                local_features(layer, x), None if base is None else base(x),
                None if curve is None else torch.stack([layer.edge_std(x), *curve]),
                None if curve is None else std(x),
            )  # fmt: skip

    def arrange(self, tensors: EdgeTensors, starts: dict[int, int], start: int) -> None:
        """Take copies of `tensors` where float64 can be computed, and the first column."""
        layer, linear, self.tensors, self.start = self.layer, self.layer.linear, tensors, start
        self.inputs, self.outputs = (layer.current_plan() or Plan(layer.edge_mask)).edges
        self.mask = tensors.mask[self.inputs, self.outputs].double()
        self.scale = tensors.scale.double()[self.inputs, self.outputs] * self.mask  # E
        edge = self.inputs * layer.out_dim + self.outputs
        inside = torch.arange(self.functions, device=edge.device) * layer.out_dim
        at_coef = (edge + self.inputs * (self.functions - 1) * layer.out_dim)[:, None] + inside
        self.at = [at_coef.flatten() if p is linear.coef else edge for p in self.params]  # indices in each parameter
        sizes = accumulate((p.numel() for p in self.params[:-1]), initial=0)
        self.within = torch.cat([start + at for start, at in zip(sizes, self.at, strict=True)])  # and in all of them
        self.places = torch.cat([starts[id(p)] + at for p, at in zip(self.params, self.at, strict=True)])
        self.along = tensors.along.double()[self.within]
        self.phi = tensors.phi.double()
        self.index = _indices(layer, tensors.knots.double(), tensors.x.double())
        self.base = None if tensors.base is None else tensors.base.double()

    @property
    def width(self) -> int:
        """Structural non-zeros of a row."""
        return sum((self.layer.nonzero if p.dim() == 3 else 1) for p in self.params) * len(self.inputs)

    def entries(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Columns and values [rows Q, width] of the structural non-zeros of these rows of the data."""
        linear, inputs, coef = self.layer.linear, self.inputs, self.tensors.coef
        gradient = self.tensors.gradient[rows].double()[:, :, self.outputs]  # N Q E
        count, q, edges = gradient.shape
        phi, index = self.phi[rows][:, inputs], self.index[rows][:, inputs]  # N E K+1
        number, start, columns, values = torch.arange(edges, device=phi.device), self.start, [], []
        for p in self.params:
            single = (start + number[:, None]).expand(count, -1, -1)
            if p is linear.coef:
                at, value = start + number[:, None] * self.functions + index, phi * self.scale[:, None]
            elif p is linear.base_weight and self.base is not None:
                at, value = single, (self.base[rows][:, inputs] * self.mask)[..., None]
            else:
                spline = phi * coef[inputs[:, None], index, self.outputs[:, None]].double()
                at, value = single, (spline.sum(-1) * self.mask)[..., None]
            start += edges * (self.functions if p is linear.coef else 1)
            columns.append(at[:, None].expand(-1, q, -1, -1).flatten(2))
            values.append((value[:, None] * gradient[..., None]).flatten(2))
        return torch.cat(columns, 2).flatten(0, 1), torch.cat(values, 2).flatten(0, 1)

    def forward(self, v: Tensor) -> Tensor:
        """v [columns of the network] -> J v [R], by one call of the fused layer."""
        linear, like = self.layer.linear, self.layer.linear.coef
        coef, base = torch.zeros_like(like), None
        mask = self.layer.edge_mask
        for p, part in zip(self.params, self._pieces(v), strict=True):
            tangent = v.new_zeros(p.numel()).index_copy_(0, *part)
            tangent = place(tangent, p.device).to(p.dtype).view_as(p)
            if p is linear.coef:
                coef += tangent * (linear.spline_scale * mask)[:, None]
            elif p is linear.base_weight:
                base = tangent * mask
            else:
                coef += linear.coef * (tangent * mask)[:, None]
        with torch.no_grad():
            sums = linear.evaluate(self.x, coef, linear.knots, base, None, None)
        return exact(torch.einsum("nqo,no->nq", self.gradient, sums.to(self.gradient.dtype)).flatten())

    def transposed(self, u: Tensor) -> Tensor:
        """u [R] -> J^T u [columns of the layer], by one backward pass of the fused layer."""
        return exact(self.pull(place(u, self.x.device)))[self.within]

    def pull(self, u: Tensor) -> Tensor:
        """u [R] on the layer's device -> J^T u of all elements of the parameters there."""
        sums = self.sums
        if sums is None:
            with torch.enable_grad():
                sums = self.sums = self.layer.sums(self.x)
        of_sums = torch.einsum("nqo,nq->no", self.gradient, u.view(self.gradient.shape[:2]).to(self.gradient.dtype))
        grads = torch.autograd.grad(sums, self.params, of_sums.to(sums.dtype), retain_graph=True)
        return torch.cat([g.reshape(-1) for g in grads])

    def _pieces(self, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each parameter: indices in it, and the part of v for them."""
        parts = v[self.start : self.start + len(self.places)].split([len(at) for at in self.at])
        return list(zip(self.at, parts, strict=True))


def local_features(layer: KANLayer, x: Tensor) -> Tensor:
    """Values [N, I, nonzero] of the basis functions that are not zero at x [N, I], in the order of _indices.

    By the fused operator, with coefficients that sum all functions f of equal f mod nonzero: one spline of each such
    class is on a knot span. As accurate as the layer's.
    """
    linear, order, functions = layer.linear, layer.nonzero, layer.num + layer.k
    spec = linear.spec._replace(base=BASES.index("zero"))
    dtype = torch.promote_types(linear.coef.dtype, torch.float32)
    own = torch.eye(order, device=x.device, dtype=dtype).repeat(-(-functions // order), 1)[:functions]  # F K+1
    parts = []
    for part, grid in zip(x.split(INPUTS, 1), linear.knots.split(INPUTS), strict=True):
        apart = torch.einsum("ij,fk->ifjk", torch.eye(len(grid), device=x.device, dtype=dtype), own).flatten(2)
        y = functional.apply(part, apart, grid, None, None, None, spec, linear.backend)
        parts.append(y.view(len(x), len(grid), order))
    return torch.cat(parts, 1)


def _indices(layer: KANLayer, knots: Tensor, x: Tensor) -> Tensor:
    """Indices [N, I, nonzero] of the basis functions that are not zero at x [N, I]."""
    order = layer.nonzero
    first = torch.searchsorted(knots.contiguous(), x.T.contiguous(), right=True).T - 1 - layer.k
    first = first.clamp(0, layer.num + layer.k - order)[..., None]
    number = torch.arange(order, device=x.device)
    return first + (number - first) % order


class EdgeCurvature:
    """Gauss-Newton curvature of the penalty sum_e w_e size_e of one layer: a block w size / S^2 C for each edge e.

    S^2 is the variance of the edge's values, C the covariance of its basis functions over the data. For a size in
    proportion to S this gives a quadratic upper bound that touches w size at the current parameters, since
    S <= (S^2 / S_0 + S_0) / 2. Inputs are constants here, negative weights count as 0.

    size, weight: [O, I]. Source: iteratively reweighted least squares, Chartrand and Yin, ICASSP 2008.
    """

    def __init__(self, part: EdgeColumns):
        linear, inputs, outputs = part.layer.linear, part.inputs, part.outputs
        scale, mask = part.scale[:, None], part.mask[:, None]  # E 1
        factors, columns, start = [], [], part.start
        number = torch.arange(len(inputs), device=scale.device)[:, None]
        for p in part.params:
            width = part.functions if p is linear.coef else 1
            if p is not linear.spline_scale:
                factors.append(scale.expand(-1, width) if p is linear.coef else mask)
                columns.append(start + number * width + torch.arange(width, device=scale.device))
            start += len(inputs) * width
        self.columns = torch.cat(columns, 1)  # E C
        factor = torch.cat(factors, 1)
        assert part.tensors.sizes is not None and part.tensors.spread is not None
        room = part.tensors.spread.double()[inputs] + 0.1
        spread, size, weight = part.tensors.sizes.double()[:, outputs, inputs]
        share = torch.where(spread > 0, size / spread, 1 / room)
        curve = weight.clamp_min(0.0) * share / torch.maximum(spread, MIN_STD * room)
        self.blocks = curve[:, None, None] * _covariance(part)[inputs] * factor[:, :, None] * factor[:, None]

    def add_to(self, matrix: Tensor) -> None:
        """Add the blocks to J^T J [P, P]."""
        matrix.index_put_((self.columns[:, :, None], self.columns[:, None]), self.blocks, accumulate=True)

    def product(self, v: Tensor) -> Tensor:
        """Product with v [P]."""
        image = torch.einsum("ecd,ed->ec", self.blocks, v[self.columns])
        return torch.zeros_like(v).index_add_(0, self.columns.flatten(), image.flatten())

    def diagonal(self, count: int) -> Tensor:
        """Diagonal [P]; count: P."""
        entries = self.blocks.diagonal(dim1=1, dim2=2).flatten()
        return entries.new_zeros(count).index_add_(0, self.columns.flatten(), entries)


def _covariance(part: EdgeColumns) -> Tensor:
    """Covariance [I, C, C] over the rows of each input's trained functions, B-splines and base function."""
    linear, found = part.layer.linear, []
    trained = {id(p) for p in part.params}
    less = max(1, len(part.x) - 1)
    for i in range(0, part.x.shape[1], INPUTS):
        at, columns = slice(i, i + INPUTS), []
        if id(linear.coef) in trained:
            phi, index = part.phi[:, at], part.index[:, at]
            columns.append(phi.new_zeros(*phi.shape[:2], part.functions).scatter_(2, index, phi))
        if part.base is not None and id(linear.base_weight) in trained:
            columns.append(part.base[:, at, None])
        rows = torch.cat(columns, 2)
        rows -= rows.mean(0)
        found.append(torch.einsum("nic,nid->icd", rows, rows) / less)
    return torch.cat(found)
