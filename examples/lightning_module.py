"""A KAN as a LightningModule: exp(sin(pi x_0) + x_1^2), from a coarse grid to finer ones, with a checkpoint of each.

    python examples/lightning_module.py

Needs lightning.
"""

import argparse
import logging
import math
import tempfile
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import disable_possible_user_warnings
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fastkan import KAN

BATCH, RATE, WIDTH, GRIDS = 100, 2e-2, (2, 5, 1), (3, 6, 12)
GRID_UPDATES = 5  # epochs that begin with one


class Regression(LightningModule):
    """Mean squared error by Adam. Grids follow the data in the first epochs, while activations still change much."""

    def __init__(self, grid: int = GRIDS[0], rate: float = RATE, seed: int = 0):
        super().__init__()
        self.save_hyperparameters()
        self.kan = KAN(WIDTH, grid=grid, seed=seed)
        self.grid_updates = GRID_UPDATES

    def forward(self, x: Tensor) -> Tensor:
        return self.kan(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        if batch_idx == 0 and self.current_epoch < self.grid_updates:
            self.kan.update_grid(x)  # in several processes: with the same x in each
        return (self(x) - y).square().mean()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("error", (self(x) - y).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["rate"])

    def refine(self, grid: int) -> None:
        """As many grid intervals, the same function. coef are new parameters then: fit with another Trainer."""
        self.kan = self.kan.refine(grid)
        self.grid_updates = 0


def batches(rows: int, seed: int, shuffle: bool = False) -> DataLoader:
    x = torch.rand(rows, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    y = torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)
    return DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=shuffle)


def main(arguments: list[str] | None = None) -> dict[int, float]:
    """The mean squared error of every grid, of the model in its checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--epochs", type=int, default=60, help="for each grid")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="ten epochs on two grids")
    args = parser.parse_args(arguments)
    epochs, grids = (10, GRIDS[:2]) if args.quick else (args.epochs, GRIDS)
    disable_possible_user_warnings()  # of few batches and workers, which are right here
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(args.seed)  # the order of the rows
    training, test = batches(1000, args.seed, shuffle=True), batches(1000, args.seed + 1)
    model, errors = Regression(seed=args.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        for grid in grids:
            if grid != model.kan.grid:
                model.refine(grid)
            options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            trainer = Trainer(max_epochs=epochs, enable_model_summary=False, **options)
            trainer.fit(model, training)
            path = Path(folder) / f"{grid}.ckpt"
            trainer.save_checkpoint(path)
            again = Regression.load_from_checkpoint(path, weights_only=True)  # has the first grid until its layers load
            errors[grid] = trainer.validate(again, test, verbose=False)[0]["error"]
            print(f"{grid} intervals: mean squared error {errors[grid]:.1e}")
    return errors


if __name__ == "__main__":
    main()
