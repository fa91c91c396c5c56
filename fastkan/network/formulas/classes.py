"""Formulas for the logarithm of the odds of a class: sparse logistic regression on the vocabulary of the search.

A smooth network is trained on the labels first. Around it the likelihood is a weighted sum of squares, for which sums
are found as for numbers; their constants are then fitted by the likelihood itself, which also decides among formulas.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .search.constants import Formula, Labels, sum_of_squares
from .search.outer import IDENTITY
from .search.power_factors import Factor
from .search.search import ALIKE, Scan, Search
from .search.vocabulary import alike, summands

if TYPE_CHECKING:
    from ..model import KAN

ROWS = 1000  # of the regressions
SMOOTHING = 0.02  # of the labels, so that logarithms of odds are finite
STEPS, PATIENCE, SHARE = 60, 5, 0.25  # of the training; share of the rows that end it


class LabelSearch(Search):
    """Formulas for the logarithm of the odds of y [N] = 1 against 0. smooth [N]: a first approximation of it."""

    most_error = math.inf

    def __init__(
        self, x: Tensor, y: Tensor, smooth: Tensor, symbols: list, seed: int, time_left: Callable[[], float],
        report: Callable,
    ):  # fmt: skip
        share = smooth.sigmoid()
        weights = share * (1 - share)
        super().__init__(x, smooth + (y - share) / weights, symbols, seed, time_left, report)
        self.rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:ROWS]
        self.root = weights[self.rows].sqrt()
        self.row_unit = sum_of_squares(self.y[self.rows] * self.root)
        self.table = Labels(x, y, symbols)

    def run(self) -> bool:
        """Search until a formula leaves nothing to explain (True), or until the time is over (False)."""
        import sympy

        constant = sympy.Symbol("c_0", real=True)
        self._consider(Formula(constant, (constant,), (0.0,), 1.0))
        whole = Factor(self.x.new_ones(len(self.rows)), sympy.Integer(1), list(range(self.x.shape[1])))
        for level in range(3):
            self._scan([whole], level, (self._sum_scans,))
            self._round()
            if self._explains_all():
                return True
        return False

    def _sum_scans(self, factor: Factor, level: int) -> Iterator[tuple[Scan, int]]:
        """log odds = c_0 + c_1 f_1 + ..."""
        x, target = self.x[self.rows], self.y[self.rows]
        yield Scan(IDENTITY, factor, 0, target, self.root, summands(x, factor.columns, level), None), level + 3
        for terms in alike(x, factor.columns) if level == 0 else []:
            yield Scan(IDENTITY, factor, 0, target, self.root, terms, None), ALIKE


def smooth_log_odds(cls: "type[KAN]", x: Tensor, y: Tensor, seed: int) -> Tensor:
    """The logarithms of odds by the better of an additive network and one with a hidden layer, [N]."""
    target = (SMOOTHING + (1 - 2 * SMOOTHING) * y)[:, None]
    scaled = (x - x.mean(0)) / x.std(0).clamp_min(1e-300)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    valid, train = order[: int(SHARE * len(x))], order[int(SHARE * len(x)) :]
    data = (scaled[train], target[train], scaled[valid], target[valid])
    options: dict[str, Any] = {"steps": STEPS, "patience": PATIENCE, "keep_best": True, "progress": False}
    best, least = torch.zeros_like(y), float("inf")
    for width in ([x.shape[1], 1], [x.shape[1], 4, 1]):
        model = cls(width, grid=3, seed=seed, dtype=torch.float64, outside="linear")
        results = model.fit(data, loss_fn=nn.functional.binary_cross_entropy_with_logits, **options)
        if (loss := min(map(float, results["test_loss"]))) < least:
            with torch.no_grad():
                best, least = model(scaled)[:, 0], loss
    return best
