"""Test errors of network, formula and baselines, in the target's units."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..network.train.predict import chosen
from .baseline import linear, with_constant
from .columns import of_numbers
from .prepare import Prepared
from .search import Found, row_losses
from .skew import with_target


@torch.no_grad()
def errors(found: Found) -> dict[str, dict[str, float]]:
    """Test errors by model: "rmse" and "r2" for numbers; "accuracy" and "log_loss", in nats, for classes."""
    data = found.data
    p = data.preparation
    seen, test, classes = torch.cat([data.train, data.valid]), data.test, p.classes is not None
    own = _own_scale(data)  # of the baselines
    with torch.enable_grad():
        weight = linear(data.x[seen], own.y[seen], p.outputs, classes)
    rows = data.x[test]
    baselines = {
        ("most common class" if classes else "mean"): _baseline(own, seen).expand(len(test), -1),
        ("logistic regression" if classes else "linear model"): with_constant(rows) @ weight,
    }
    predictions = {"network": found.network(rows)}
    if found.formula is not None:
        predictions["formula"] = found.formula(rows)
    if classes:
        return {name: class_scores(prediction, data.y[test]) for name, prediction in (baselines | predictions).items()}
    y = own.preparation.target.unscaled(own.y[test])
    found_values = {name: own.preparation.target.unscaled(value) for name, value in baselines.items()}
    found_values |= {name: p.target.unscaled(value) for name, value in predictions.items()}
    return {name: number_scores(value, y) for name, value in found_values.items()}


def _own_scale(data: Prepared) -> Prepared:
    """The data with the target in its own units, standardised."""
    target = data.preparation.target
    if data.numbers is None or target.transform is None:
        return data
    column = of_numbers(target.name, data.numbers[torch.cat([data.train, data.valid])])
    assert column is not None
    return with_target(data, column)


def _baseline(data: Prepared, seen: Tensor) -> Tensor:
    """The best constant prediction [1, outputs]: the mean, or the class frequencies as log-odds."""
    y, classes = data.y[seen], data.preparation.classes
    if classes is None:
        return y.mean(0, keepdim=True)
    share = (torch.bincount(y, minlength=len(classes)) + 0.5) / (len(y) + 0.5 * len(classes))
    return (share[1:] / share[0]).log()[None] if len(classes) == 2 else share.log()[None].to(data.x.dtype)


def number_scores(prediction: Tensor, y: Tensor) -> dict[str, float]:
    """RMSE and R^2 of predictions [N, 1], in the units of y; without overflow or underflow of squares."""
    size = float(y.abs().max()) or 1.0
    mean_square = float((prediction / size - y / size).square().mean())
    variance = float((y / size).var(correction=0))
    r2 = 1 - mean_square / variance if variance else float(not mean_square)
    return {"rmse": math.sqrt(mean_square) * size, "r2": r2}


def class_scores(prediction: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy and log loss of outputs [N, classes], or [N, 1] for two classes."""
    right = chosen(prediction) == y
    return {"accuracy": float(right.double().mean()), "log_loss": float(row_losses(prediction, y, True).mean())}


def lines(errors: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of errors."""
    kinds = {"rmse": "RMSE", "r2": "R^2", "accuracy": "accuracy", "log_loss": "log loss"}
    shown = {"rmse": "{:.4g}", "r2": "{:.3f}", "accuracy": "{:.3f}", "log_loss": "{:.3f}"}
    first = next(iter(errors.values()))
    header = ["on held-out rows", *(kinds[kind] for kind in first)]
    return header, [[name, *(shown[k].format(v) for k, v in row.items())] for name, row in errors.items()]
