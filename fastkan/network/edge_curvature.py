"""EdgeCurvature: how a penalty of the sizes of a layer's edges curves, for Gauss-Newton steps."""

import torch
from torch import Tensor

from .activations import std
from .edge_columns import INPUTS, EdgeColumns

# A standard deviation below this share of the input's + 0.1 curves no more: a smaller edge would be stuck where it is.
LEAST = 1e-3


class EdgeCurvature:
    """Of sum_e w_e size_e by the coefficients and base weights v_e of every edge: a block w size / S^2 C for each.

    S^2 is the variance of the edge's values, C the covariance of its functions over the data. Where the size is in
    proportion to S, the quadratic function with this curvature and the size's gradient touches w size where it is, and
    is nowhere below it, since S <= (S^2 / S_0 + S_0) / 2. Inputs count as given, weights below 0 as 0.

    size, weight: [O, I]. Source: the iteratively reweighted least squares of Chartrand and Yin, ICASSP 2008.
    """

    def __init__(self, part: EdgeColumns, size: Tensor, weight: Tensor):
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
        with torch.no_grad():
            spread, room = part.layer.edge_std(part.x), std(part.x)[inputs].double() + 0.1
        spread, size, weight = (t.detach().double()[outputs, inputs] for t in (spread, size, weight))
        share = torch.where(spread > 0, size / spread, 1 / room)
        curve = weight.clamp_min(0.0) * share / torch.maximum(spread, LEAST * room)
        self.blocks = curve[:, None, None] * _covariance(part)[inputs] * factor[:, :, None] * factor[:, None]

    def add_to(self, matrix: Tensor) -> None:
        """To a matrix [P, P] of the columns of J."""
        matrix.index_put_((self.columns[:, :, None], self.columns[:, None]), self.blocks, accumulate=True)

    def product(self, v: Tensor) -> Tensor:
        """Times v [P]."""
        image = torch.einsum("ecd,ed->ec", self.blocks, v[self.columns])
        return torch.zeros_like(v).index_add_(0, self.columns.flatten(), image.flatten())

    def diagonal(self, count: int) -> Tensor:
        """[P]."""
        entries = self.blocks.diagonal(dim1=1, dim2=2).flatten()
        return entries.new_zeros(count).index_add_(0, self.columns.flatten(), entries)


def _covariance(part: EdgeColumns) -> Tensor:
    """Of the functions of every input that have columns, splines and base function, over the rows: [I, C, C]."""
    linear, found = part.layer.linear, []
    trained = {id(p) for p in part.params}
    less = max(1, len(part.x) - 1)
    for i in range(0, part.x.shape[1], INPUTS):
        at, columns = slice(i, i + INPUTS), []
        if id(linear.coef) in trained:
            phi, index = part.phi[:, at], part.index[:, at]
            columns.append(phi.new_zeros(*phi.shape[:2], part.functions).scatter_(2, index, phi))
        if id(linear.base_weight) in trained:
            columns.append(part.base[:, at, None])
        rows = torch.cat(columns, 2)
        rows -= rows.mean(0)
        found.append(torch.einsum("nic,nid->icd", rows, rows) / less)
    return torch.cat(found)
