"""The KAN system: the network of the KAN papers, its training, grids, pruning and formulas."""

from .model import KAN

__all__ = ["KAN"]
