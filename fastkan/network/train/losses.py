"""Losses of rows and their weights: names for fit's loss_fn, class labels, sample weights."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .arrays import entries

if TYPE_CHECKING:
    from ..model import KAN

Rows = Callable[[Tensor, Tensor], Tensor]


class Weighted:
    """Labels [N, ...] with a weight for every row; taken, moved and measured as a tensor of labels."""

    def __init__(self, label: Tensor, weight: Tensor):
        self.label, self.weight = label, weight

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: Tensor) -> "Weighted":
        return Weighted(self.label[rows], self.weight[rows])

    def to(self, device: torch.device) -> "Weighted":
        return Weighted(self.label.to(device), self.weight.to(device))

    def is_floating_point(self) -> bool:
        return self.label.is_floating_point()

    def square(self) -> Tensor:
        return self.label.square()


class RowLoss:
    """The mean of a loss of every row, times the row's weight where the labels are Weighted.

    rows: (prediction, label) -> [N, ...], one value or several for every row. is_square: fit reports the loss's root.
    """

    def __init__(self, rows: Rows, is_square: bool = False):
        self.rows, self.is_square = rows, is_square

    def __call__(self, prediction: Tensor, label: Tensor | Weighted) -> Tensor:
        if not isinstance(label, Weighted):
            return self.rows(prediction, label).mean()
        losses, weight = self.rows(prediction, label.label), label.weight
        if not losses.dim() or len(losses) != len(weight):
            raise ValueError(
                f"loss_fn gives shape {list(losses.shape)}: expected a loss for every row, [{len(weight)}, ...], with "
                "sample_weight (reduction='none')"
            )
        return (losses.reshape(len(weight), -1).mean(1) * weight).mean()


def squares(prediction: Tensor, label: Tensor) -> Tensor:
    """Square errors; ValueError where the shapes differ."""
    if prediction.shape != label.shape:
        raise ValueError(
            f"labels have shape {list(label.shape)}: expected that of the prediction, {list(prediction.shape)}"
        )
    return (prediction - label).square()


def cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Negative log-likelihood in nats of class indices [N], by scores [N, classes], or [N, 1] for two classes: [N]."""
    if prediction.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(prediction[:, 0], label.to(prediction.dtype), reduction="none")
    return F.cross_entropy(prediction, label, reduction="none")


NAMES: dict[str, Rows] = {"mse": squares, "cross_entropy": cross_entropy}


def weights(value: Tensor, rows: int) -> Tensor:
    """Sample weights with mean 1, [N]. Raises ValueError where one is negative or not finite, or all are 0."""
    if value.shape != (rows,):
        raise ValueError(f"sample_weight has shape {list(value.shape)}: expected a number for every row, [{rows}]")
    if not bool((value >= 0).all() & value.isfinite().all()) or not bool(value.any()):
        raise ValueError("sample_weight: expected finite numbers, at least 0 and not all 0")
    return value / value.mean()


def class_names(model: "KAN", value: Any) -> list:
    """The classes in the order of the model's outputs (two classes for one output).

    Whole numbers below the number of classes are the indices of outputs; other labels are sorted. Raises ValueError
    where there are more or fewer classes than the model tells apart.
    """
    outputs = int(getattr(model, "width_in", model.width)[-1])
    count, found = max(2, outputs), set(entries(value))
    if all(isinstance(name, int) and 0 <= name < count for name in found) and not any(name is True for name in found):
        return list(range(count))
    if any(name != name or name is None for name in found):
        raise ValueError("labels: a class is missing (NaN or None), expected one for every row")
    try:
        names = sorted(found)
    except TypeError:
        raise ValueError("labels: expected classes of one kind, numbers or texts") from None
    if len(names) != count:
        raise ValueError(
            f"labels have {len(names)} classes, such as {names[0]!r}: expected {count}, for {outputs} "
            f"output{'s' if outputs > 1 else ''}"
        )
    return names


def class_indices(value: Any, names: list) -> Tensor:
    """The index of every label among the classes, [N]; ValueError for an unknown one."""
    place = {name: index for index, name in enumerate(names)}
    labels = entries(value)
    unknown = next((label for label in labels if label not in place), None)
    if unknown is not None:
        raise ValueError(f"labels: no class {unknown!r}, expected one of {', '.join(map(repr, names))}")
    return torch.tensor([place[label] for label in labels], dtype=torch.long)
