"""The KAN system: the network of the KAN papers, its training, grids, pruning and formulas."""

from .compiler import kanpiler
from .curves import plot_training
from .history import History
from .model import KAN

__all__ = ["KAN", "plot_training", "History", "kanpiler"]
