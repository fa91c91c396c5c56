"""Test errors of network, formula and baselines, in the target's units."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..network import KAN
from ..network.train.predict import chosen
from .baseline import linear, with_constant
from .columns import of_numbers
from .prepare import Prepared
from .search import Found, row_losses, worse
from .skew import with_target


def errors(found: Sequence[Found]) -> dict[str, dict[str, float]]:
    """Errors by model on the test rows of every search: "rmse" and "r2" for numbers; "accuracy" and "log_loss", in
    nats, for classes; and with "_error" the standard error of each. The formula is there if every search found one."""
    parts = [outcomes(one) for one in found]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    score = number_scores if found[0].data.preparation.classes is None else class_scores
    return {
        name: score(*(torch.cat(part) for part in zip(*(part[name] for part in parts), strict=True))) for name in names
    }


@torch.no_grad()
def outcomes(found: Found) -> dict[str, tuple[Tensor, Tensor]]:
    """By model the predictions and the truth at the test rows: numbers [N, 1] in the target's units, or outputs
    [N, outputs] and class indices [N]."""
    data = found.data
    p, seen, test, classes = data.preparation, torch.cat([data.train, data.valid]), data.test, data.y.dim() == 1
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
        return {name: (prediction, data.y[test]) for name, prediction in (baselines | predictions).items()}
    units = own.preparation.target
    values = {name: units.unscaled(value) for name, value in baselines.items()}
    values |= {name: p.target.unscaled(value) for name, value in predictions.items()}
    return {name: (value, units.unscaled(own.y[test])) for name, value in values.items()}


def formula_is_as_good(found: Sequence[Found]) -> bool:
    """Whether the formula is not worse than the network on the test rows of several searches; of one, by its own
    validation rows."""
    parts = [outcomes(one) for one in found]
    if len(parts) == 1 or not all("formula" in part for part in parts):
        return found[0].formula_is_as_good
    classes = found[0].data.preparation.classes is not None
    formula, network = (
        torch.cat([row_losses(*part[name], classes) for part in parts]) for name in ("formula", "network")
    )
    return not worse(formula, network)


@torch.no_grad()
def mean_over_median(found: Found, model: KAN) -> float | None:
    """Of a target fitted as its logarithm, the factor from predictions to means; None for others.

    Source: Duan, Smearing estimate (1983).
    """
    data, target = found.data, found.data.preparation.target
    if target.transform != "log":
        return None
    seen = torch.cat([data.train, data.valid])
    return float(((data.y[seen] - model(data.x[seen])) * target.std).exp().mean())


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
    """RMSE and R^2 of predictions [N, 1], in the units of y, with standard errors; without overflow of squares."""
    size = float(y.abs().max()) or 1.0
    squares = (prediction / size - y / size).square()
    mean, variance = float(squares.mean()), float((y / size).var(correction=0))
    root, error = math.sqrt(mean), standard_error(squares)
    r2 = 1 - mean / variance if variance else float(not mean)
    return {
        "rmse": root * size, "r2": r2, "rmse_error": error / (2 * root) * size if root else 0.0,
        "r2_error": error / variance if variance else 0.0,
    }  # fmt: skip


def class_scores(prediction: Tensor, y: Tensor) -> dict[str, float]:
    """Accuracy and log loss of outputs [N, classes], or [N, 1] for two classes, with standard errors."""
    right, losses = (chosen(prediction) == y).double(), row_losses(prediction, y, True)
    return {
        "accuracy": float(right.mean()), "log_loss": float(losses.mean()), "accuracy_error": standard_error(right),
        "log_loss_error": standard_error(losses),
    }  # fmt: skip


def standard_error(values: Tensor) -> float:
    """That of the mean of values [N] or [N, 1]."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def lines(
    errors: Mapping[str, Mapping[str, float]], where: str = "on held-out rows"
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of errors."""
    kinds = {"rmse": "RMSE", "r2": "R^2", "accuracy": "accuracy", "log_loss": "log loss"}
    used = [kind for kind in kinds if kind in next(iter(errors.values()))]
    return [where, *(kinds[kind] for kind in used)], [
        [name, *(_shown(row, k) for k in used)] for name, row in errors.items()
    ]


def _shown(scores: Mapping[str, float], kind: str) -> str:
    """A score with its standard error."""
    value, error = scores[kind], scores[f"{kind}_error"]
    if kind != "rmse" and abs(value) < 1e4:
        return f"{value:.3f} ± {error:.3f}"
    return f"{value:.4g} ± {error:.0f}" if 10 <= error < 1e5 else f"{value:.4g} ± {error:.1g}"
