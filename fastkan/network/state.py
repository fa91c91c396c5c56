"""State: the numbers of a model, kept and put back; which of them are trained."""

import torch
from torch import nn


class State:
    """Parameters and grids of a model at a moment; its shape may differ only in the numbers of grid intervals."""

    def __init__(self, model):
        self.model = model
        self.keep()

    @torch.no_grad()
    def keep(self) -> None:
        """Keep what the model now is."""
        self.parameters = [p.detach().clone() for p in self.model.parameters()]
        self.grids = [layer.grid.clone() for layer in self.model.act_fun]

    @torch.no_grad()
    def restore(self) -> None:
        """Make the model what was kept."""
        for layer, grid in zip(self.model.act_fun, self.grids, strict=True):
            functions = grid.shape[1] - layer.k - 1
            layer.linear.set_grid(grid, layer.linear.coef.new_zeros(layer.in_dim, functions, layer.out_dim))
        for p, kept in zip(self.model.parameters(), self.parameters, strict=True):
            p.copy_(kept)

    @torch.no_grad()
    def approach(self) -> bool:
        """Go halfway to what was kept; False, and nothing is changed, where that is on other grids, or no change."""
        pairs = list(zip(self.model.parameters(), self.parameters, strict=True))
        grids = zip(self.model.act_fun, self.grids, strict=True)
        if not all(layer.grid.shape == grid.shape and torch.equal(layer.grid, grid) for layer, grid in grids):
            return False
        if all(torch.equal(p, kept) for p, kept in pairs):
            return False
        for p, kept in pairs:
            p.copy_(torch.where(p == kept, p, kept + (p - kept) / 2))
        return True


def trained(model) -> list[nn.Parameter]:
    """The parameters that take a gradient, without those of layers whose edges are all off."""
    off = {id(p) for layer in model.act_fun if not layer.active for p in layer.linear.parameters()}
    for layer in model.symbolic_fun:
        layer.active  # noqa: B018  decides whether its affine takes a gradient
    return [p for p in model.parameters() if p.requires_grad and id(p) not in off]
