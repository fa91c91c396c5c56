"""The two branches of a layer's edges, forth and back: the splines by fused calls alone, the symbolic one by autograd.

Both have sums, moments and back: moments are those of ops.edge_moments for the input that sums last had, and back adds
the parameters' gradients to .grad. terms [3, I, O] are a penalty's, as ops.edge_backward takes them.
"""

import torch
from torch import Tensor, nn

from .. import select
from .layer import KANLayer
from .symbolic import SymbolicLayer


class Splines:
    """The numeric branch of a layer, on the inputs and outputs that have an edge, for as long as its mask stays."""

    def __init__(self, layer: KANLayer):
        self.linear = linear = layer.linear
        plan = layer.current_plan()
        self.inputs, self.outputs, self.shape = plan.inputs, plan.outputs, layer.edge_mask.shape
        self.mask = None if plan.full else layer.edge_mask
        name = select.choose(linear.backend, linear.coef.device, (linear.coef.dtype,) * 2)
        grid = linear.knots if plan.inputs is None else linear.knots[plan.inputs]
        self.ops, self.fixed = select.BACKENDS[name], (grid, linear.spec)

    def sums(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, O]."""
        linear, mask = self.linear, self.mask
        base, scale = linear.base_weight, linear.spline_scale
        if mask is not None:
            base, scale = None if base is None else base * mask, scale * mask
        self.scale = scale[:, None]
        self.x, self.base, self.coef = _kept(x, 1, self.inputs), self._cut(base), self._cut(linear.coef * self.scale)
        y = self.ops.kan_out(self.x, None, self.coef, self.base, None, *self.fixed, 0)
        return _put(y, 1, self.outputs, self.shape[1])

    def moments(self) -> Tensor:
        """[3, I, O]; an edge that is off has zeros."""
        return self._spread(self.ops.edge_moments(self.x, self.coef, self.base, *self.fixed), 1)

    def back(self, u: Tensor, terms: Tensor | None, need_x: bool) -> Tensor | None:
        """The gradient by x [N, I], given that by the sums, u [N, O]."""
        x, coef, base, u = self.x, self.coef, self.base, _kept(u, 1, self.outputs)
        if terms is not None:
            terms = self._cut(terms, 1)
            grad_x, grad_coef, grad_base = self.ops.edge_backward(x, u, terms, coef, base, *self.fixed, need_x)
        elif need_x:
            grad_x, grad_coef, grad_base = self.ops.kan_backward(x, None, u, coef, base, *self.fixed, 0)
        else:
            grad_coef, grad_base = self.ops.kan_coef(x, None, u, *self.fixed, 0, base is not None)
        linear, mask, grad_coef = self.linear, self.mask, self._spread(grad_coef)
        if linear.spline_scale.requires_grad:
            grad_scale = (grad_coef * linear.coef).sum(1)
            add(linear.spline_scale, grad_scale if mask is None else grad_scale * mask)
        if linear.coef.requires_grad:
            add(linear.coef, grad_coef.mul_(self.scale))
        if grad_base is not None and linear.base_weight.requires_grad:
            grad_base = self._spread(grad_base)
            add(linear.base_weight, grad_base if mask is None else grad_base * mask)
        return _put(grad_x, 1, self.inputs, self.shape[0]) if need_x else None

    def _cut(self, t: Tensor | None, dim: int = 0) -> Tensor | None:
        """Of a tensor [..., I, ..., O] what belongs to the edges that are computed; dim: where the inputs are."""
        return None if t is None else _kept(_kept(t, dim, self.inputs), -1, self.outputs)

    def _spread(self, t: Tensor, dim: int = 0) -> Tensor:
        """The way back, with zeros for other edges."""
        return _put(_put(t, dim, self.inputs, self.shape[0]), -1, self.outputs, self.shape[1])


class Symbolic:
    """The symbolic branch of a layer; options: of its forward. weighed: whether moments and back with terms follow."""

    def __init__(self, layer: SymbolicLayer, options: dict, weighed: bool):
        self.layer, self.options, self.weighed = layer, options, weighed

    def sums(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, O]."""
        self.x = x.detach().requires_grad_()
        with torch.enable_grad():
            if not self.weighed:
                self.values = self.layer(self.x, **self.options)
                return self.values.detach()
            self.outputs, self.inputs, self.values = self.layer.edges(self.x, **self.options)
        y = x.new_zeros(len(x), self.layer.out_dim)
        return y.index_add_(1, self.outputs, self.values.detach())

    def moments(self) -> Tensor:
        """[3, I, O], without the first."""
        values = self.values.detach()
        moments = values.new_zeros(3, self.layer.in_dim, self.layer.out_dim)
        mean = values.mean(0)
        moments[1:, self.inputs, self.outputs] = torch.stack([mean, (values - mean).square().mean(0)])
        return moments

    def back(self, u: Tensor, terms: Tensor | None, need_x: bool) -> Tensor | None:
        """The gradient by x [N, I], given that by the sums, u [N, O]."""
        if self.weighed:
            u = u[:, self.outputs]
        if terms is not None:
            _, constant, slope = terms[:, self.inputs, self.outputs]
            u = u + constant + slope * self.values.detach()
        wanted = [t for t in (self.layer.affine, self.x) if t.requires_grad and (need_x or t is not self.x)]
        found = torch.autograd.grad(self.values, wanted, u, allow_unused=True) if wanted else ()
        grads = {id(t): grad for t, grad in zip(wanted, found, strict=True) if grad is not None}
        if id(self.layer.affine) in grads:
            add(self.layer.affine, grads[id(self.layer.affine)])
        return grads.get(id(self.x), torch.zeros_like(self.x)) if need_x else None


def add(parameter: nn.Parameter, grad: Tensor) -> None:
    parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def _kept(t: Tensor, dim: int, places: Tensor | None) -> Tensor:
    return t if places is None else t.index_select(dim, places)


def _put(t: Tensor, dim: int, places: Tensor | None, size: int) -> Tensor:
    """The reverse of _kept: t at these places of a dimension of that size, zeros elsewhere."""
    if places is None:
        return t
    shape = list(t.shape)
    shape[dim] = size
    return t.new_zeros(shape).index_copy_(dim, places, t)
