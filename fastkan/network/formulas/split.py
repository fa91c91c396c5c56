"""Split: the training and test data of discover."""

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ...devices import HOST
from ..train.data import Data

if TYPE_CHECKING:
    from ..model import KAN


MOST_CLASSES = 20


class Split:
    """Training data x, y and test data x_test, y_test in float64; scale: the standard deviation of y, or its root mean
    square where y is constant.

    classes: None, or the sorted labels of a classification; y is then 1 for the second of two, or has a column for each
    of more, 1 for its label.
    """

    classes: list | None = None

    def __init__(self, dataset: Any, seed: int, classification: bool = False):
        data = Data(dataset, -1, seed, HOST)
        if not isinstance(data.train, tuple):
            raise TypeError("dataset: expected tensors, not a loader")
        x, y = (t.double().view(len(t), -1) for t in data.train)
        test = cast(tuple[Tensor, Tensor], data.test)
        if test is data.train or torch.equal(test[0], data.train[0]):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            held_out, rest = order[: len(x) // 5], order[len(x) // 5 :]
            self.x_test, self.y_test, self.x, self.y = x[held_out], y[held_out], x[rest], y[rest]
        else:
            self.x, self.y = x, y
            self.x_test, self.y_test = (t.double().view(len(t), -1) for t in test)
        if classification:
            self.classes = sorted(torch.cat([self.y, self.y_test]).unique().tolist())
            self.y, self.y_test = self._indicators(self.y), self._indicators(self.y_test)
        if not all(bool(t.isfinite().all()) for t in (self.x, self.y, self.x_test, self.y_test)):
            raise ValueError("dataset has NaN or infinite values: expected finite ones")
        std, size = (float(t.square().mean().sqrt()) for t in (self.y - self.y.mean(0), self.y))
        self.scale = std if std > 1e-12 * size else size or 1.0

    def _indicators(self, labels: Tensor) -> Tensor:
        assert self.classes is not None
        if labels.shape[1] != 1 or not 2 <= len(self.classes) <= MOST_CLASSES:
            raise ValueError(
                f"labels [{len(labels)}, {labels.shape[1]}] with {len(self.classes)} different values: expected one "
                f"column of 2 to {MOST_CLASSES} classes"
            )
        shown = self.classes[1:] if len(self.classes) == 2 else self.classes
        return torch.cat([(labels == label).double() for label in shown], 1)

    def error(self, model: "KAN") -> float:
        """The relative error on the training data."""
        return self._error(model, self.x, self.y)

    def test_error(self, model: "KAN") -> float:
        return self._error(model, self.x_test, self.y_test)

    @torch.no_grad()
    def _error(self, model: "KAN", x: Tensor, y: Tensor) -> float:
        error = float((model(x) - y).square().mean().sqrt()) / self.scale
        return error if math.isfinite(error) else math.inf
