"""Averages of weights by torch.optim.swa_utils, of layers whose grids move in the meantime.

AveragedModel averages parameters, and unless use_buffers=True its buffers are the last model's: coefficients of other
knots would be averaged, which is no function of the models'. So its layers go to the model's grids first: an average of
coefficients on the same grid is the average of the functions.

Imported when torch.optim.swa_utils is.
"""

import functools

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from .nn import KANLinear


def _layers(model: nn.Module) -> list[KANLinear]:
    return [module for module in model.modules() if isinstance(module, KANLinear)]


def _follow(average: AveragedModel, model: nn.Module) -> None:
    """Carry the averaged functions to the grids of the model, by least squares, as update_grid and extend_grid do."""
    for mine, theirs in zip(_layers(average.module), _layers(model), strict=False):
        grid = theirs.knots.to(mine.grid.device)
        if not torch.equal(mine.knots, grid):
            mine.move_grid(grid)


def _take_layers() -> None:
    known = AveragedModel.update_parameters

    @functools.wraps(known)
    def update_parameters(self, model: nn.Module) -> None:
        if not self.use_buffers:
            _follow(self, model)
        known(self, model)

    AveragedModel.update_parameters = update_parameters


_take_layers()
