"""Epochs and schedulers of learning rates."""

from collections.abc import Callable
from typing import Any

import torch

from ...arguments import integer


def steps_of(data: Any, steps: int, epochs: int | None) -> tuple[int, int]:
    """The number of steps, and of those between two steps of a scheduler."""
    if epochs is None:
        return steps, 1
    if not hasattr(data, "batches_per_epoch"):
        raise ValueError(f"epochs={epochs!r}: expected None, and steps, without a dataset")
    epoch = data.batches_per_epoch
    return integer("epochs", epochs, 0) * epoch, epoch


class Schedule:
    """A scheduler of torch.optim.lr_scheduler, which steps after every `epoch` steps of the optimizer; or none.

    make: function of the optimizer that returns it. grid_sizes: of fit, with which optimizers are replaced.
    """

    def __init__(self, make: Callable | None, optimizer: Any, epoch: int, grid_sizes: list):
        self.scheduler, self.epoch = None, epoch
        if make is None:
            return
        if not callable(make):
            raise TypeError(f"scheduler={make!r}: expected a function of the optimizer that returns a scheduler")
        if grid_sizes or not any("lr" in group for group in getattr(optimizer, "param_groups", ())):
            other = "grid_sizes" if grid_sizes else f"{type(optimizer).__name__}, which has no learning rate"
            raise ValueError(f"scheduler={make!r}: expected None with {other}")
        self.scheduler = make(optimizer)
        if not hasattr(self.scheduler, "step"):
            raise TypeError(f"scheduler gives a {type(self.scheduler).__name__}: expected a scheduler")

    def step(self, step: int, test_loss: float) -> None:
        """Note the end of a step of the optimizer."""
        if self.scheduler is None or (step + 1) % self.epoch:
            return
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(test_loss)
        else:
            self.scheduler.step()
