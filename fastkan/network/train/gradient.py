"""Loss, penalty and their gradients in one pass, without autograd, whose graph costs more than a small layer.

A layer needs one backward pass for both: the loss's gradient by the sums over the edges and the penalty's gradient by
the edges' values, computed by edge_penalty from their moments, enter ops.edge_backward together. Symbolic edges, and
nodes that are more than sums, use autograd.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ... import functional, select, stack
from ...nn.hooks import altered
from ..activations import mixed
from ..layers.between import is_plain
from ..layers.numeric import KANLayer
from ..layers.symbolic import SymbolicLayer
from ..stacked import IDENTITY, STEPS, has_own_steps, nodes_are_sums
from .losses import squares
from .penalties import edge_penalty
from .transfer import Kept

if TYPE_CHECKING:
    from ..model import KAN


class Splines:
    """The numeric branch of a layer, for the inputs and outputs with an active edge; valid while its mask stays."""

    def __init__(self, layer: KANLayer):
        self.linear = linear = layer.linear
        plan = layer.plan_of(layer.edge_mask)
        self.inputs, self.outputs, self.shape = plan.inputs, plan.outputs, layer.edge_mask.shape
        self.mask = None if plan.full else layer.edge_mask
        name = select.choose(linear.backend, linear.coef.device, (linear.coef.dtype,) * 2, linear.spec)
        grid = linear.knots if plan.inputs is None else linear.knots[plan.inputs]
        self.ops, self.fixed = select.functions_of(name), (grid, linear.spec)

    def sums(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, O]."""
        linear, mask = self.linear, self.mask
        base, scale = linear.base_weight, linear.spline_scale
        if mask is not None:
            base, scale = None if base is None else base * mask, scale * mask
        self.scale = scale[:, None]
        self.x, self.base, self.coef = (
            _select(x, 1, self.inputs),
            self._select_edges(base),
            self._select_edges(linear.coef * self.scale),
        )
        y = self.ops.kan_out(self.x, None, self.coef, self.base, None, *self.fixed, 0)
        return _scatter(y, 1, self.outputs, self.shape[1])

    def moments(self) -> Tensor:
        """Moments [3, I, O], see ops.edge_moments; zeros for an edge that is off."""
        return self._scatter_edges(self.ops.edge_moments(self.x, self.coef, self.base, *self.fixed), 1)

    def backward(self, u: Tensor, terms: Tensor | None, need_x: bool) -> Tensor | None:
        """The gradient by x [N, I], from u [N, O], the gradient by the sums, and `terms`, see ops.edge_backward."""
        x, coef, base, u = self.x, self.coef, self.base, _select(u, 1, self.outputs)
        if terms is not None:
            terms = self._select_edges(terms, 1)
            grad_x, grad_coef, grad_base = self.ops.edge_backward(x, u, terms, coef, base, *self.fixed, need_x)
        elif need_x:
            grad_x, grad_coef, grad_base = self.ops.kan_backward(x, None, u, coef, base, *self.fixed, 0)
        else:
            grad_coef, grad_base = self.ops.kan_coef(x, None, u, *self.fixed, 0, base is not None)
        linear, mask, grad_coef = self.linear, self.mask, self._scatter_edges(grad_coef)
        if linear.spline_scale.requires_grad:
            grad_scale = (grad_coef * linear.coef).sum(1)
            add_grad(linear.spline_scale, grad_scale if mask is None else grad_scale * mask)
        if linear.coef.requires_grad:
            add_grad(linear.coef, grad_coef.mul_(self.scale))
        weight = linear.base_weight
        if grad_base is not None and weight is not None and weight.requires_grad:
            grad_base = self._scatter_edges(grad_base)
            add_grad(weight, grad_base if mask is None else grad_base * mask)
        return _scatter(grad_x, 1, self.inputs, self.shape[0]) if need_x else None

    def _select_edges(self, t: Tensor | None, dim: int = 0) -> Tensor | None:
        """The part of a tensor [..., I, ..., O] for the active inputs and outputs; dim: the dimension of the inputs."""
        return None if t is None else _select(_select(t, dim, self.inputs), -1, self.outputs)

    def _scatter_edges(self, t: Tensor, dim: int = 0) -> Tensor:
        """The inverse of _select_edges, with zeros for other edges."""
        return _scatter(_scatter(t, dim, self.inputs, self.shape[0]), -1, self.outputs, self.shape[1])


class Symbolic:
    """The symbolic branch of a layer.

    options: keyword arguments of its forward. penalised: whether moments and backward with terms are called.
    """

    def __init__(self, layer: SymbolicLayer, options: dict, penalised: bool):
        self.layer, self.options, self.penalised = layer, options, penalised

    def sums(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, O]."""
        self.x = x.detach().requires_grad_()
        with torch.enable_grad():
            if not self.penalised:
                self.values = self.layer(self.x, **self.options)
                return self.values.detach()
            self.outputs, self.inputs, self.values = self.layer.edges(self.x, **self.options)
        y = x.new_zeros(len(x), self.layer.out_dim)
        return y.index_add_(1, self.outputs, self.values.detach())

    def moments(self) -> Tensor:
        """Moments [3, I, O], see ops.edge_moments; the first is left at 0."""
        values = self.values.detach()
        moments = values.new_zeros(3, self.layer.in_dim, self.layer.out_dim)
        mean = values.mean(0)
        moments[1:, self.inputs, self.outputs] = torch.stack([mean, (values - mean).square().mean(0)])
        return moments

    def backward(self, u: Tensor, terms: Tensor | None, need_x: bool) -> Tensor | None:
        """The gradient by x [N, I], from u [N, O], the gradient by the sums, and `terms`, see ops.edge_backward."""
        if self.penalised:
            u = u[:, self.outputs]
        if terms is not None:
            _, constant, slope = terms[:, self.inputs, self.outputs]
            u = u + constant + slope * self.values.detach()
        wanted = [t for t in (self.layer.affine, self.x) if t.requires_grad and (need_x or t is not self.x)]
        found = torch.autograd.grad(self.values, wanted, u, allow_unused=True) if wanted else ()
        grads = {id(t): grad for t, grad in zip(wanted, found, strict=True) if grad is not None}
        if id(self.layer.affine) in grads:
            add_grad(self.layer.affine, grads[id(self.layer.affine)])
        return grads.get(id(self.x), torch.zeros_like(self.x)) if need_x else None


def add_grad(parameter: nn.Parameter, grad: Tensor) -> None:
    parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def _select(t: Tensor, dim: int, indices: Tensor | None) -> Tensor:
    return t if indices is None else t.index_select(dim, indices)


def _scatter(t: Tensor, dim: int, indices: Tensor | None, size: int) -> Tensor:
    """The inverse of _select: t at these indices of a dimension of that size, zeros elsewhere."""
    if indices is None:
        return t
    shape = list(t.shape)
    shape[dim] = size
    return t.new_zeros(shape).index_copy_(dim, indices, t)


# Metrics that are standard deviations of edges, and whether they are relative to the input's; metrics of both branches.
RELATIVE = {"edge_forward_spline_n": True, "edge_forward_sum": True, "edge_forward_spline_u": False}
OF_BOTH = ("edge_forward_sum", "edge_forward_spline_u")


def is_supported(model: "KAN", lamb: float, metric: str) -> bool:
    """Whether Gradient can be used for this model; otherwise autograd is."""
    if functional.is_autocast(model.device) or (lamb and metric not in RELATIVE):
        return False
    if lamb and metric in OF_BOTH and any(_mixed(model, l) for l in range(model.depth)):
        return False
    return (
        has_own_steps(model, ("forward", *STEPS))
        and not any(map(altered, model.modules()))
        and all(map(_numeric, model.act_fun))
    )


def _numeric(layer: nn.Module) -> bool:
    if type(layer) is not KANLayer or not layer.linear.fused or layer.linear.coef.dtype not in _DTYPES:
        return False
    return layer.current_plan() is not None


def _mixed(model: "KAN", l: int) -> bool:
    """Whether an edge of layer l is active in both branches: the variance of the sum is then not that of either."""
    symbolic = _symbolic(model, l)
    return symbolic is not None and mixed(model.act_fun[l], symbolic)


def _sums(model: "KAN", l: int, kept: Kept) -> bool:
    """stacked.nodes_are_sums, which reads the affine maps that are not trained."""
    if not is_plain(model, l):
        return False
    maps = [model._modules[name]._parameters[str(l)] for name in IDENTITY]
    if any(p is None or p.requires_grad for p in maps):
        return nodes_are_sums(model, l)
    return kept(("sums", l), maps, lambda: nodes_are_sums(model, l))


def _symbolic(model: "KAN", l: int) -> SymbolicLayer | None:
    """The symbolic branch of layer l; None if it is off."""
    symbolic = model.symbolic_fun[l]
    return symbolic if model.symbolic_enabled and symbolic.active else None


_DTYPES = (torch.float32, torch.float64)


class Gradient:
    """loss_fn + lamb * penalty of a supported model with its gradients; valid while masks and affine maps stay.

    lambdas: lamb_l1, lamb_entropy, lamb_coef, lamb_coefdiff of penalties.penalty; options: of the model's forward;
    kept: results of earlier calls for this model.
    """

    def __init__(
        self, model: "KAN", loss_fn, lamb: float, metric: str, lambdas: dict[str, float], options: dict,
        kept: Kept | None = None,
    ):  # fmt: skip
        self.model, self.loss_fn, self.lamb, self.lambdas = model, loss_fn, lamb, lambdas
        self.nodes_are_sums = [_sums(model, l, kept or Kept()) for l in range(model.depth)]
        weights = lambdas["lamb_l1"], lambdas["lamb_entropy"]
        self.weights: tuple[float, float, float] | None = None
        if lamb and any(weights):
            self.weights = *weights, float(lamb)
        self.edges = [Edges(model, l, metric, options, self.weights is not None) for l in range(model.depth)]
        whole = all(self.nodes_are_sums) and all(edges.full for edges in self.edges) and not lamb
        self.linears = [layer.linear for layer in model.act_fun] if whole else []
        self.relative = RELATIVE.get(metric, False)
        self.smooth = lamb and (lambdas["lamb_coef"] or lambdas["lamb_coefdiff"])

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the penalty on x, y; adds the gradients of loss + lamb * penalty to .grad."""
        model, h = self.model, self.model.rows(x)
        nodes: list[Nodes | None] = []  # None where they are the sums
        if (whole := self._whole(h)) is not None:
            return self._of_stack(x, y, *whole), h.new_zeros(())
        penalty = h.new_zeros(())
        for l, edges in enumerate(self.edges):
            sums = edges.sums(h)
            if self.weights is not None:
                penalty = penalty + edges.penalty(self.relative, *self.weights)
            after = None if self.nodes_are_sums[l] else Nodes(model, l, sums)
            nodes.append(after)
            h = sums if after is None else after.values.detach()
        loss, u = self._loss(h.view(*x.shape[:-1], -1), y)
        u = u.reshape(h.shape).to(h.dtype)
        for l, (edges, after) in reversed(list(enumerate(zip(self.edges, nodes, strict=True)))):
            u = edges.backward(u if after is None else after.backward(u), need_x=l > 0)
        if self.smooth:
            for layer in model.act_fun:
                penalty = penalty + self._smooth(layer.linear.coef)
        return loss, penalty

    def _whole(self, x: Tensor) -> tuple | None:
        """Arguments of one fused call of all layers: x, weights, grids, specs, operators; else None."""
        if not self.linears:
            return None
        layers = [layer for linear in self.linears if (layer := linear.as_layer()) is not None]
        backend = functional.stack_backend(x, layers, self.linears[0].backend)
        return None if backend is None else (x, *stack.parts(layers), select.functions_of(backend))

    def _of_stack(self, x: Tensor, y: Tensor, h: Tensor, weights, grids, specs, ops) -> Tensor:
        prediction = ops.stack_out(h, (), weights, grids, specs)
        loss, u = self._loss(prediction.view(*x.shape[:-1], -1), y)
        u = u.reshape(prediction.shape).to(h.dtype)
        grads = ops.stack_backward(h, (), u, weights, grids, specs, False, False, True)
        for weight, grad in zip((w for w in weights if w is not None), grads, strict=True):
            if weight.requires_grad:
                add_grad(weight, grad)
        return loss

    def _loss(self, prediction: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient by the prediction; gradients by anything else go into .grad."""
        if self.loss_fn is mean_square:
            return mean_square(prediction, y), (prediction - y) * (2 / prediction.numel())
        leaf = prediction.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss_fn(leaf, y)
            loss.backward()
        return loss.detach(), torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

    def _smooth(self, coef: nn.Parameter) -> Tensor:
        """The penalties of coefficients [I, F, O]: on their absolute values, and on their differences along F."""
        value, grad = coef.new_zeros(()), None
        outputs = coef.shape[2]
        if weight := self.lambdas["lamb_coef"]:
            value = value + weight * coef.abs().mean(2).sum()
            grad = coef.sign() * (weight / outputs)
        if weight := self.lambdas["lamb_coefdiff"]:
            steps = coef.diff(dim=1)
            value = value + weight * steps.abs().mean(2).sum()
            steps = nn.functional.pad(steps.sign() * (weight / outputs), (0, 0, 1, 1))  # 0, s_1, ..., 0
            grad = _plus(grad, -steps.diff(dim=1))
        if grad is not None and coef.requires_grad:
            add_grad(coef, grad * self.lamb)
        return value


class Nodes:
    """The nodes of a layer, multiplications and affine maps, by autograd."""

    def __init__(self, model: "KAN", l: int, sums: Tensor):
        self.sums = sums.detach().requires_grad_()
        with torch.enable_grad():
            self.values = model.nodes(l, self.sums)

    def backward(self, u: Tensor) -> Tensor:
        """The gradient by the sums [N, J], from u, the gradient by the nodes; those of affine maps go into .grad."""
        torch.autograd.backward(self.values, u)
        assert self.sums.grad is not None
        return self.sums.grad


class Edges:
    """The edges of a layer, numeric and symbolic, with their backward."""

    def __init__(self, model: "KAN", l: int, metric: str, options: dict, penalised: bool):
        layer, symbolic = model.act_fun[l], _symbolic(model, l)
        self.shape, self.full = layer.edge_mask.shape, layer.plan_of(layer.edge_mask).full and symbolic is None
        splines = [Splines(layer)] if layer.active else []
        both = penalised and metric in OF_BOTH
        self.branches = splines if symbolic is None else [*splines, Symbolic(symbolic, options, both)]
        self.penalised = self.branches if both else splines
        self.terms: Tensor | None = None
        self.of_x: list[Tensor] | None = None

    def sums(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, O]."""
        self.x = x
        return self._total([branch.sums(x) for branch in self.branches], self.shape[1])

    def penalty(self, relative: bool, l1: float, entropy: float, lamb: float) -> Tensor:
        """The penalty of the edges, see edge_penalty; its gradients are stored for backward."""
        x = self.x
        moments = [branch.moments() for branch in self.penalised]
        total = sum(moments[1:], moments[0]) if moments else x.new_zeros(3, *self.shape)
        value, self.terms, *of_x = edge_penalty(total, x if relative else None, len(x), l1, entropy, lamb)
        self.of_x = of_x if relative else None
        return value

    def backward(self, u: Tensor, need_x: bool) -> Tensor:
        """The gradient by x [N, I], if need_x, from u [N, O], that by the sums; those of parameters go into .grad."""
        parts = [b.backward(u, self.terms if b in self.penalised else None, need_x) for b in self.branches]
        if not need_x:
            return u
        grad_x = self._total([part for part in parts if part is not None], self.shape[0])
        if self.of_x is not None:
            mean, term = self.of_x
            grad_x.addcmul_(self.x - mean, term)
        return grad_x

    def _total(self, parts: list[Tensor], columns: int) -> Tensor:
        """The sum over the branches; zeros if there is none."""
        return sum(parts[1:], parts[0]) if parts else self.x.new_zeros(len(self.x), columns)


def mean_square(prediction: Tensor, label: Tensor) -> Tensor:
    """The mean square error; raises ValueError where the shapes differ."""
    return squares(prediction, label).mean()


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b
