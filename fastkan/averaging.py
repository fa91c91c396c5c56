"""AveragedModel of torch.optim.swa_utils for layers whose grids move during training.

AveragedModel averages parameters and, unless use_buffers=True, takes the buffers of the last model. Coefficients on
different knots cannot be averaged, so the averaged layers are refitted on the model's grids first: an average of
coefficients on the same grid is the average of the functions.

Imported when torch.optim.swa_utils is.
"""

import functools

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from .devices import home
from .nn import KANLinear


def _layers(model: nn.Module) -> list[KANLinear]:
    return [module for module in model.modules() if isinstance(module, KANLinear)]


def _move_to_grids_of(average: AveragedModel, model: nn.Module) -> None:
    """Refit the averaged functions on the grids of the model by least squares, as update_grid and extend_grid do."""
    for mine, theirs in zip(_layers(average.module), _layers(model), strict=False):
        grid = theirs.exact_knots.to(home(mine.grid.device))
        if not torch.equal(mine.exact_knots, grid):
            mine.move_grid(grid)


def _patch() -> None:
    original = AveragedModel.update_parameters

    @functools.wraps(original)
    def update_parameters(self: AveragedModel, model: nn.Module) -> None:
        if not self.use_buffers:
            _move_to_grids_of(self, model)
        original(self, model)

    AveragedModel.update_parameters = update_parameters


_patch()
