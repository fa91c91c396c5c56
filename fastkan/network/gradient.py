"""The loss, the penalty and their gradients in one pass, without autograd, whose graph costs more than a small layer.

With P_i [N, O] the values of the edges from input i, of mean m_i, u [N, O] the gradient by the sums over i, S[i,o] an
edge's standard deviation and g[i,o] the penalty's gradient by it, the gradient by P_i is

    u + g[i] / ((N - 1) S[i]) (P_i - m_i)

so that one pass back through the edges serves the loss and the penalty. [N, I, O] is held for small layers only.
"""

import math

import torch
from torch import Tensor, nn

from .. import functional, select, stack
from ..nn.sequential import hooked
from .layer import KANLayer

# Metrics that are standard deviations of the numeric branch, and whether they are taken over the input's.
RELATIVE = {"edge_forward_spline_n": True, "edge_forward_sum": True, "edge_forward_spline_u": False}
# Values of edges that are kept for the way back; more are computed again.
KEPT = 1 << 21
# Of inputs and of outputs: a layer with more of both is weighed by covariances, see KANLayer.edge_std.
NARROW = 64


def served(model, lamb: float, metric: str) -> bool:
    """Whether evaluate is right for this model as it is: all else is autograd's."""
    if torch.is_autocast_enabled(model.device.type) or (lamb and metric not in RELATIVE):
        return False
    if lamb and any(min(layer.in_dim, layer.out_dim) > NARROW for layer in model.act_fun):
        return False
    if any(symbolic.active for symbolic in model.symbolic_fun) and model.symbolic_enabled:
        return False
    return _unchanged(model) and all(map(_plain, model.modules())) and all(map(_numeric, model.act_fun))


def _unchanged(model) -> bool:
    """Whether the model computes what KAN does."""
    from .model import KAN  # which imports this module

    methods = ("forward", "rows", "sums", "nodes")
    return not any(m in model.__dict__ or getattr(type(model), m) is not getattr(KAN, m) for m in methods)


def _numeric(layer: nn.Module) -> bool:
    if type(layer) is not KANLayer or not layer.linear._fused or layer.linear.coef.dtype not in _DTYPES:
        return False
    plan = layer._current_plan()
    return plan is not None and plan.active and plan.inputs is None and plan.outputs is None


_DTYPES = (torch.float32, torch.float64)


def _plain(module: nn.Module) -> bool:
    return not hooked(module) and "parametrizations" not in module._modules


class Gradient:
    """The objective loss_fn + lamb * penalty of a model, for as long as its masks and affine maps stay; see served.

    lambdas: lamb_l1, lamb_entropy, lamb_coef and lamb_coefdiff of regularize.penalty.
    """

    def __init__(self, model, loss_fn, lamb: float, metric: str, lambdas: dict[str, float]):
        self.model, self.loss_fn, self.lamb, self.metric, self.lambdas = model, loss_fn, lamb, metric, lambdas
        self.weighs = bool(lamb and (lambdas["lamb_l1"] or lambdas["lamb_entropy"]))
        self.plain = [_identity(model, l) for l in range(model.depth)]
        full = all(layer._current_plan().full for layer in model.act_fun)
        self.linears = [layer.linear for layer in model.act_fun] if full and all(self.plain) and not lamb else []

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the penalty on x, y; adds the gradients of loss + lamb * penalty to .grad."""
        model, tape, h = self.model, [], self.model.rows(x)
        if (whole := self._whole(h)) is not None:
            return self._of_stack(*whole, x, y), h.new_zeros(())
        penalty = h.new_zeros(())
        for l, layer in enumerate(model.act_fun):
            edges = Edges(layer, h, l > 0)
            sums = edges.sums()
            if self.weighs:
                penalty += self._weigh(edges)
            nodes = None if self.plain[l] else Nodes(model, l, sums)
            h = sums if nodes is None else nodes.values.detach()
            tape.append((edges, nodes))
        loss, u = self._loss(h.view(*x.shape[:-1], -1), y)
        u = u.reshape(h.shape).to(h.dtype)
        for edges, nodes in reversed(tape):
            u = edges.back(u if nodes is None else nodes.back(u))
        if self.lamb:
            for layer in model.act_fun:
                penalty += self._smooth(layer.linear.coef)
        return loss, penalty

    def _whole(self, x: Tensor) -> tuple | None:
        """Where all layers run in one call: x, their weights, grids and specs, and the operators; see fastkan.stack."""
        if not self.linears:
            return None
        layers = [linear.as_layer() for linear in self.linears]
        backend = functional.stack_backend(x, layers, self.linears[0].backend)
        return None if backend is None else (x, *stack.parts(layers), select.BACKENDS[backend])

    def _of_stack(self, h: Tensor, weights, grids, specs, ops, x: Tensor, y: Tensor) -> Tensor:
        prediction = ops.stack_out(h, (), weights, grids, specs)
        loss, u = self._loss(prediction.view(*x.shape[:-1], -1), y)
        u = u.reshape(prediction.shape).to(h.dtype)
        grads = ops.stack_backward(h, (), u, weights, grids, specs, False, False, True)
        for weight, grad in zip((w for w in weights if w is not None), grads, strict=True):
            if weight.requires_grad:
                _add(weight, grad)
        return loss

    def _loss(self, prediction: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient by the prediction; by whatever else it reaches it goes into .grad."""
        if self.loss_fn is mean_square:
            return mean_square(prediction, y), (prediction - y) * (2 / prediction.numel())
        leaf = prediction.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss_fn(leaf, y)
            loss.backward()
        return loss.detach(), torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

    def _weigh(self, edges: "Edges") -> Tensor:
        """L1 and entropy of a layer; leaves their gradients with the edges."""
        size, l1, bits = edges.size(RELATIVE[self.metric]), self.lambdas["lamb_l1"], self.lambdas["lamb_entropy"]
        value, grad = size.sum().mul_(l1), torch.full_like(size, l1 * self.lamb)
        for dim in (0, 1) if bits else ():
            part, slope, rows = entropy_and_slope(size, dim)
            value.add_(part, alpha=-bits / rows)
            grad.add_(slope, alpha=-bits * self.lamb / rows)
        edges.weigh(grad)
        return value

    def _smooth(self, coef: nn.Parameter) -> Tensor:
        """The penalties of the coefficients [I, F, O]: of their sizes, and of their differences along F."""
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
        if grad is not None:
            _add(coef, grad * self.lamb)
        return value


class Nodes:
    """The nodes of a layer, forth and back by autograd: multiplications, affine maps."""

    def __init__(self, model, l: int, sums: Tensor):
        self.sums = sums.detach().requires_grad_()
        with torch.enable_grad():
            self.values = model.nodes(l, self.sums)

    def back(self, u: Tensor) -> Tensor:
        torch.autograd.backward(self.values, u)
        return self.sums.grad


class Edges:
    """The edges of a layer on x [N, I], forth and back.

    One input at a time, or one output where those are fewer: P [A, N, B] are the values of the edges with A the inputs
    and B the outputs, or the other way round.
    """

    def __init__(self, layer: KANLayer, x: Tensor, need_x: bool):
        self.layer, self.linear, self.x, self.need_x = layer, layer.linear, x, need_x
        full = layer._current_plan().full
        self.base, scale = (self.linear.base_weight, self.linear.spline_scale) if full else layer._masked()
        self.mask = None if full else layer.edge_mask
        self.scale, self.coef = scale, self.linear.coef * scale[:, None]
        linear = self.linear
        self.ops = select.BACKENDS[select.choose(linear.backend, x.device, (x.dtype, self.coef.dtype))]
        self.by_inputs = layer.in_dim <= layer.out_dim
        self.grad_size = None

    def sums(self) -> Tensor:
        """[N, O]."""
        linear = self.linear
        return self.ops.kan_out(self.x, None, self.coef, self.base, None, linear.grid, linear._spec, 0)

    # The penalty

    def size(self, relative: bool) -> Tensor:
        """The standard deviation of every edge, [A, B], over the input's + 0.1 where that is asked for."""
        self.pieces = self._pieces()
        wide = self.coef.shape[2] if self.by_inputs else self.coef.shape[0]
        step = max(1, KEPT // max(1, len(self.x) * wide))
        self.parts = [self.pieces[k : k + step] for k in range(0, len(self.pieces), step)]
        self.rows = max(1, len(self.x) - 1)
        deviations, squares = None, []
        for part in self.parts:
            deviations = self._deviations(part)
            squares.append(deviations.square().sum(1))
        self.kept = deviations if len(self.parts) == 1 else None
        squares = torch.cat(squares) if len(squares) > 1 else squares[0]
        self.std = squares.div_(self.rows).sqrt_()
        self.range = None
        if not relative:
            return self.std
        self.apart = self.x - self.x.mean(0)
        self.x_std = self.apart.square().sum(0).div_(self.rows).sqrt_()
        self.range = self.x_std + 0.1
        self.range = self.range[:, None] if self.by_inputs else self.range
        self.relative = self.std / self.range
        return self.relative

    def weigh(self, grad_size: Tensor) -> None:
        """The penalty's gradient by size."""
        self.grad_size = grad_size

    def _pieces(self) -> list[tuple]:
        """What an input, or an output, reads: x, coef, base_weight and grid."""
        coef, base, grid = self.coef, self.base, self.linear.grid
        if self.by_inputs:  # [N, 1], [1, F, O], [1, O], [1, M]
            bases = [None] * len(coef) if base is None else base.unsqueeze(1).unbind(0)
            columns = self.x.unsqueeze(2).unbind(1)
            return list(zip(columns, coef.unsqueeze(1).unbind(0), bases, grid.unsqueeze(1).unbind(0), strict=True))
        bases = [None] * coef.shape[2] if base is None else base.unsqueeze(2).unbind(1)
        return [(self.x, c, b, grid) for c, b in zip(coef.unsqueeze(3).unbind(2), bases, strict=True)]

    def _deviations(self, part: list[tuple]) -> Tensor:
        """The values of edges less their means, [a, N, B]."""
        spec, ops = self.linear._spec, self.ops
        if self.by_inputs:
            found = [ops.kan_out(x, None, c, b, None, grid, spec, 0) for x, c, b, grid in part]
        else:
            one = self.x.new_ones(len(self.x), 1)
            found = [ops.kan_in(x, one, c, b, grid, spec, 0) for x, c, b, grid in part]
        values = torch.stack(found) if len(found) > 1 else found[0][None]
        return values.sub_(values.mean(1, keepdim=True))

    # Back

    def back(self, u: Tensor) -> Tensor | None:
        """Given the gradient u [N, O] by the sums: that by x, where it is needed; the parameters' goes into .grad."""
        if self.grad_size is None:
            grad_x, grad_coef, grad_base = self._back(self.x, None, u, self.coef, self.base, self.linear.grid)
        else:
            grad_x, grad_coef, grad_base = self._back_through_edges(u)
        linear, mask = self.linear, self.mask
        if linear.coef.requires_grad:
            _add(linear.coef, grad_coef * self.scale[:, None])
        if linear.spline_scale.requires_grad:
            grad_scale = (grad_coef * linear.coef).sum(1)
            _add(linear.spline_scale, grad_scale if mask is None else grad_scale * mask)
        if grad_base is not None and linear.base_weight.requires_grad:
            _add(linear.base_weight, grad_base if mask is None else grad_base * mask)
        return grad_x

    def _back(self, x, s, u, coef, base, grid) -> tuple[Tensor | None, Tensor, Tensor | None]:
        if self.need_x:
            return self.ops.kan_backward(x, s, u, coef, base, grid, self.linear._spec, 0)
        return None, *self.ops.kan_coef(x, s, u, grid, self.linear._spec, 0, base is not None)

    def _back_through_edges(self, u: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        grad_std = self.grad_size if self.range is None else self.grad_size / self.range
        weight = (grad_std / self.std).masked_fill_(self.std == 0, 0.0).div_(self.rows)  # A B
        by_inputs = self.by_inputs
        given = u[None] if by_inputs else u.T[:, :, None]  # [A or 1, N, B or 1]
        one = None if by_inputs else self.x.new_ones(len(self.x), 1)
        grads, at = [], 0
        for part in self.parts:
            values = self._deviations(part) if self.kept is None else self.kept
            to = at + len(part)
            values.mul_(weight[at:to, None]).add_(given if by_inputs else given[at:to])
            for (x, c, b, grid), v in zip(part, values, strict=True):
                grads.append(self._back(x, None, v, c, b, grid) if by_inputs else self._back(x, v, one, c, b, grid))
            at = to
        grad_x, grad_coef, grad_base = zip(*grads, strict=True)
        at = 0 if by_inputs else 2
        grad_coef = torch.cat(grad_coef, at)
        grad_base = None if self.base is None else torch.cat(grad_base, at // 2)
        if not self.need_x:
            return None, grad_coef, grad_base
        if by_inputs:
            grad_x = torch.cat(grad_x, 1)
        else:
            grad_x = torch.stack(grad_x).sum(0) if len(grad_x) > 1 else grad_x[0]
        return self._back_through_range(grad_x), grad_coef, grad_base

    def _back_through_range(self, grad_x: Tensor) -> Tensor:
        if self.range is None:
            return grad_x
        grad_range = -(self.grad_size * self.relative / self.range).sum(1 if self.by_inputs else 0)  # I
        weight = (grad_range / self.x_std).masked_fill_(self.x_std == 0, 0.0).div_(self.rows)
        return grad_x.addcmul_(self.apart, weight)


def entropy_and_slope(size: Tensor, dim: int) -> tuple[Tensor, Tensor, int]:
    """regularize.entropy of a matrix, times -rows, and its gradient, times -rows; and the rows.

    sum share log2(share + e), share = size / (sum of size + 1).
    """
    total = size.sum(dim, keepdim=True).add_(1)
    share = size / total
    inner = share + 1e-4
    bits = inner.log2()
    slope = torch.addcdiv(bits, share, inner, value=1 / math.log(2))  # of share log2(share + e)
    grad = slope.sub((slope * share).sum(dim, keepdim=True)).div_(total)
    return torch.dot(share.view(-1), bits.view(-1)), grad, total.numel()


def mean_square(prediction: Tensor, label: Tensor) -> Tensor:
    if prediction.shape != label.shape:
        raise ValueError(
            f"labels have shape {list(label.shape)}: expected that of the prediction, {list(prediction.shape)}"
        )
    return (prediction - label).square().mean()


def _identity(model, l: int) -> bool:
    """Whether the nodes after layer l are its sums."""
    factors, terms = (model.subnode_scale[l], model.node_scale[l]), (model.subnode_bias[l], model.node_bias[l])
    if model.width[l + 1][1] or any(p.requires_grad for p in (*factors, *terms)):
        return False
    return all(bool((p == 1).all()) for p in factors) and not any(bool(p.any()) for p in terms)


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


def _add(parameter: nn.Parameter, grad: Tensor) -> None:
    parameter.grad = grad if parameter.grad is None else parameter.grad + grad
