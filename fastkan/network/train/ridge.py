"""Ridge penalty on base weights, which splines make nearly redundant inside the grid range."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..model import KAN


class Ridge:
    """share * loss * sum (w / size)^2 over the base weights w of all active edges, added to the loss in training.

    loss is that at the start of a step, size the root mean square of the labels, 1 without any. Inside the grid range
    splines equal SiLU up to 1e-4 on 3 intervals, 1e-9 on 50. Without the ridge the minimum of the loss may use that
    difference, with a weight of 1e5 and coefficients that cancel it inside the range, but not outside. In proportion to
    the loss the ridge does not hinder an exact fit: it is a prior on the weights beside noise of unknown variance.
    """

    def __init__(self, model: "KAN", share: float):
        self.share = share
        self.weights: list[Tensor] = []
        self.masks: list[Tensor] = []
        for layer in model.act_fun:
            weight = layer.linear.base_weight
            if share and layer.active and weight is not None and weight.requires_grad and weight.is_leaf:
                self.weights.append(weight)
                self.masks.append((layer.edge_mask != 0).to(layer.edge_mask))
        self.curves: list[Tensor] = []

    @torch.no_grad()
    def set_scale(self, loss: Tensor, y: Tensor | None) -> None:
        """Set the curvature by every weight, [I, O] a layer, from the first loss of a step; the first call counts."""
        if self.weights and not self.curves:
            square = y.square().mean() if y is not None and y.is_floating_point() else torch.ones_like(loss)
            curve = 2 * self.share * loss.detach().abs() / torch.where(square > 0, square, 1.0)
            self.curves = [curve.to(mask) * mask for mask in self.masks]

    @torch.no_grad()
    def add(self) -> Tensor | float:
        """The value; adds its gradients to .grad."""
        if not self.weights:
            return 0.0
        slopes = torch._foreach_mul(self.curves, self.weights)  # pyright: ignore[reportPrivateImportUsage]
        for w, slope in zip(self.weights, slopes, strict=True):
            w.grad = slope if w.grad is None else w.grad.add_(slope)
        return sum((slope * w).sum() for slope, w in zip(slopes, self.weights, strict=True)) / 2
