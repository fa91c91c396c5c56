"""fit's data and loss from its arguments: arrays and frames as tensors, labels, weights and validation data."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...arguments import number
from ...devices import HOST
from . import losses
from .arrays import columns, is_data, is_text, is_whole, tensor
from .gradient import mean_square
from .losses import RowLoss, Weighted

if TYPE_CHECKING:
    from ..model import KAN


def takes_labels(fit: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """fit(model, x, y, ...) as fit(model, x, ..., y=y): in pykan's order of arguments the second one is opt."""

    @functools.wraps(fit)
    def method(model: "KAN", dataset: Any = None, *args: Any, **options: Any) -> dict[str, Any]:
        if args and is_data(args[0]):
            if options.get("y") is not None:
                raise TypeError("y: expected once, as the second argument or by its name")
            options["y"], args = args[0], args[1:]
        return fit(model, dataset, *args, **options)

    return method


class Given(NamedTuple):
    """Data as train.data.Data takes it, and the loss."""

    dataset: Any
    loss_fn: Callable | None


def given(
    model: "KAN", dataset: Any, y: Any, validation_data: Any, sample_weight: Any, loss_fn: Any, seed: int
) -> Given:
    """The dataset and the loss of fit. Sets model.classes for class labels, and to None for numbers.

    Raises TypeError or ValueError that name the argument.
    """
    if isinstance(loss_fn, str) and loss_fn not in losses.NAMES:
        raise ValueError(f"loss_fn={loss_fn!r}: expected a function or one of {', '.join(map(repr, losses.NAMES))}")
    parts = _parts(dataset, y)
    if parts is None:
        for name, value in (("sample_weight", sample_weight), ("y", y)):
            if value is not None:
                raise ValueError(f"{name}: expected None with a loader, which gives pairs (x, y)")
        count = max(2, int(getattr(model, "width_in", model.width)[-1]))
        model.classes = list(range(count)) if loss_fn == "cross_entropy" else None
        if isinstance(loss_fn, str):
            loss_fn = None if loss_fn == "mse" else RowLoss(losses.NAMES[loss_fn])
        if validation_data is not None:
            dataset = (dataset, [_pair(model, validation_data)])
        return Given(dataset, loss_fn)
    return _of_arrays(model, parts, validation_data, sample_weight, loss_fn, seed)


def _parts(dataset: Any, y: Any) -> list | None:
    """x, y of training and perhaps of tests; None for loaders and for what Data refuses."""
    if y is not None:
        if not is_data(dataset):
            raise TypeError(f"dataset is a {type(dataset).__name__}: expected x, an array or a tensor, with y")
        return [dataset, y]
    if isinstance(dataset, dict):
        names = ("train_input", "train_label", "test_input", "test_label")
        values = [dataset.get(name) for name in names]
        if values[0] is None or values[1] is None:
            return None
        return values if all(value is not None for value in values) else values[:2]
    tensors = getattr(dataset, "tensors", None)  # of a TensorDataset
    parts = tensors if isinstance(tensors, tuple) else dataset
    if isinstance(parts, tuple | list) and len(parts) in (2, 4) and all(map(is_data, parts)):
        return list(parts)
    return None


def _of_arrays(model: "KAN", parts: Sequence, validation: Any, weight: Any, loss_fn: Any, seed: int) -> Given:
    is_class = loss_fn == "cross_entropy" or (loss_fn is None and _are_classes(model, parts[1]))
    model.classes = losses.class_names(model, parts[1]) if is_class else None
    loss: Any = RowLoss(losses.cross_entropy) if is_class else None if loss_fn == "mse" else loss_fn
    x, y = _tensors(model, "x", parts[0]), _labels(model, parts[1], loss is None)
    if weight is not None:
        _same_rows(x, y)
        weight = losses.weights(_tensors(model, "sample_weight", weight), len(x))
        y = Weighted(y, weight.to(y.device))
        if loss is None or loss is mean_square:
            loss = RowLoss(losses.squares, is_square=True)
        elif not isinstance(loss, RowLoss):
            loss = RowLoss(loss)
    if len(parts) == 4:
        if validation is not None:
            raise ValueError("validation_data: expected None with test data in dataset")
        validation = tuple(parts[2:])
    if validation is None:
        return Given((x, y), loss)
    if isinstance(validation, int | float):
        return Given(_split(x, y, number("validation_data", validation, 0.0, 1.0), seed), loss)
    if not isinstance(validation, tuple | list) or len(validation) not in (2, 3):
        return Given(((x, y), validation), loss)  # a loader
    return Given((x, y, *_validation(model, validation, loss_fn is None or loss_fn == "mse", weight is None)), loss)


def _validation(model: "KAN", given: Sequence, is_square: bool, unweighted: bool) -> tuple[Tensor, Any]:
    """x and labels of (x, y) or (x, y, weight)."""
    x, y = _tensors(model, "x", given[0]), _labels(model, given[1], is_square)
    if len(given) == 2:
        return x, y
    if unweighted:
        raise ValueError("validation_data has weights: expected sample_weight too, or (x, y)")
    _same_rows(x, y)
    return x, Weighted(y, losses.weights(_tensors(model, "sample_weight", given[2]), len(x)).to(y.device))


def _split(x: Tensor, y: Any, share: float, seed: int) -> tuple:
    """Training and validation rows: a share of them, chosen by the seed, for validation."""
    _same_rows(x, y)
    count = round(share * len(x))
    if not 0 < count < len(x):
        raise ValueError(f"validation_data={share}: expected a share that leaves rows on both sides, of {len(x)}")
    order = torch.randperm(len(x), generator=torch.Generator(HOST).manual_seed(seed), device=HOST)
    rest, held = order[count:].sort().values.to(x.device), order[:count].sort().values.to(x.device)
    return x[rest], y[rest], x[held], y[held]


def _same_rows(x: Tensor, y: Any) -> None:
    if len(x) != len(y):
        raise ValueError(f"dataset: input and label have {len(x)} and {len(y)} rows: expected as many of both")


def _are_classes(model: "KAN", y: Any) -> bool:
    """Whether labels are classes without being called so: texts, truth values, whole numbers [N] for many outputs."""
    if is_text(y) or getattr(y, "dtype", None) in (torch.bool, bool):
        return True
    return is_whole(y) and columns(y) == 1 and int(getattr(model, "width_in", model.width)[-1]) > 1


def _tensors(model: "KAN", name: str, value: Any) -> Tensor:
    return tensor(name, value, next(model.parameters()).dtype)


def _labels(model: "KAN", value: Any, is_square: bool) -> Tensor:
    """Labels as the loss takes them: class indices [N], else numbers; [N] becomes [N, 1] for the square error."""
    if model.classes is not None:
        return losses.class_indices(value, model.classes)
    whole = is_whole(value) and not is_square  # a function of the user's may take class indices
    y = (
        value
        if isinstance(value, Tensor)
        else tensor("y", value, torch.long if whole else next(model.parameters()).dtype)
    )
    return y[:, None] if is_square and y.dim() == 1 else y


def _pair(model: "KAN", value: Any) -> tuple[Tensor, Tensor]:
    """Validation data beside a loader."""
    if not isinstance(value, tuple | list) or len(value) != 2 or not all(map(is_data, value)):
        raise TypeError("validation_data: expected a pair (x, y) with a loader, or two loaders as dataset")
    return _tensors(model, "x", value[0]), _labels(model, value[1], False)
