"""KAN networks: the model of the KAN papers with training, grids, pruning, plots and symbolic formulas."""

from .compiler import kanpiler
from .history import History
from .layers.library import add_symbolic
from .model import KAN
from .plot.training_curves import plot_training
from .train.levenberg_marquardt import LevenbergMarquardt

__all__ = ["KAN", "plot_training", "History", "LevenbergMarquardt", "add_symbolic", "kanpiler"]
