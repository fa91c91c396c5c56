"""The KAN system: the network of the KAN papers, its training, grids, pruning and formulas."""

from .history import History
from .kanpiler import kanpiler
from .layers.library import add_symbolic
from .model import KAN
from .plot.training_curves import plot_training

__all__ = ["KAN", "plot_training", "History", "add_symbolic", "kanpiler"]
