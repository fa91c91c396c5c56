"""Ridge: keeps base weights moderate in training, where splines can do nearly all that the base function does."""

import torch
from torch import Tensor


class Ridge:
    """share * loss * sum (w / size)^2 over the base weights w of all edges that are on: what training adds to a loss.

    The loss is that at the start of a step, size the root mean square of the labels. Within the grid range splines do
    what SiLU does but for 1e-4 of it on 3 intervals, 1e-9 on 50. The least of the loss alone may make use of such a
    rest by a weight of 1e5 and coefficients that cancel it, and beyond the range nothing does. In proportion to the
    loss the ridge is no hindrance to an exact fit: it is a prior of the weights beside noise of an unknown variance.
    """

    def __init__(self, model, share: float):
        self.share = share
        layers = [layer for layer in model.act_fun if share and layer.active and layer.linear.base_weight is not None]
        layers = [
            layer for layer in layers if layer.linear.base_weight.requires_grad and layer.linear.base_weight.is_leaf
        ]
        self.weights = [layer.linear.base_weight for layer in layers]
        self.masks = [(layer.edge_mask != 0).to(layer.edge_mask) for layer in layers]
        self.curves: list[Tensor] | None = None

    @torch.no_grad()
    def settle(self, loss: Tensor, y: Tensor) -> None:
        """Take the curvature by every weight, [I, O] a layer, for a step that begins with this loss, unless taken."""
        if self.curves is None:
            square = y.square().mean() if y.is_floating_point() else torch.ones_like(loss)
            curve = 2 * self.share * loss.detach().abs() / torch.where(square > 0, square, 1.0)
            self.curves = [curve.to(mask) * mask for mask in self.masks]

    @torch.no_grad()
    def add(self) -> Tensor | float:
        """The value, whose gradients are added to .grad."""
        if not self.weights:
            return 0.0
        slopes = torch._foreach_mul(self.curves, self.weights)
        for w, slope in zip(self.weights, slopes, strict=True):
            w.grad = slope if w.grad is None else w.grad.add_(slope)
        return sum((slope * w).sum() for slope, w in zip(slopes, self.weights, strict=True)) / 2
