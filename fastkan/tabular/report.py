"""Test errors of network, formula and baselines, in the target's units."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..network.train.predict import chosen
from .baseline import linear, with_constant
from .prepare import Prepared
from .search import Found, row_losses


@torch.no_grad()
def errors(data: Prepared, found: Found) -> dict[str, dict[str, float]]:
    """Test errors by model: "rmse" and "r2" for numbers; "accuracy" and "log_loss", in nats, for classes."""
    p = data.preparation
    seen, test, classes = torch.cat([data.train, data.valid]), data.test, p.classes is not None
    with torch.enable_grad():
        weight = linear(data.x[seen], data.y[seen], p.outputs, classes)
    rows = data.x[test]
    predictions = {
        ("most common class" if classes else "mean"): _baseline(data, seen).expand(len(test), -1),
        ("logistic regression" if classes else "linear model"): with_constant(rows) @ weight,
        "network": found.network(rows),
    }
    if found.formula is not None:
        predictions["formula"] = found.formula(rows)
    score = class_scores if classes else number_scores
    return {name: score(prediction, data.y[test], p.target.std) for name, prediction in predictions.items()}


def _baseline(data: Prepared, seen: Tensor) -> Tensor:
    """The best constant prediction [1, outputs]: the mean, or the class frequencies as log-odds."""
    y, classes = data.y[seen], data.preparation.classes
    if classes is None:
        return y.mean(0, keepdim=True)
    share = (torch.bincount(y, minlength=len(classes)) + 0.5) / (len(y) + 0.5 * len(classes))
    return (share[1:] / share[0]).log()[None] if len(classes) == 2 else share.log()[None].to(data.x.dtype)


def number_scores(prediction: Tensor, y: Tensor, std: float) -> dict[str, float]:
    """RMSE and R^2 of standardised predictions [N, 1]."""
    mean_square = float((prediction - y).square().mean())
    variance = float(y.var(correction=0))
    r2 = 1 - mean_square / variance if variance else float(not mean_square)
    return {"rmse": math.sqrt(mean_square) * std, "r2": r2}


def class_scores(prediction: Tensor, y: Tensor, std: float = 1.0) -> dict[str, float]:
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
