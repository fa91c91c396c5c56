"""The KAN system: the network of the KAN papers, its training, grids, pruning and formulas."""

from .compiler import kanpiler
from .history import History
from .model import KAN

__all__ = ["KAN", "History", "kanpiler"]
