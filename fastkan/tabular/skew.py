"""Whether a target is fitted as its logarithm or asinh: if it is skewed or has heavy tails, by cross-validation.

The scales are compared by the likelihood of the target in its own units, with normal deviations on each scale, of
additive networks on rows that they were not trained on.

Source: Box and Cox, An analysis of transformations (1964).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from .columns import Column, of_numbers
from .prepare import Prepared
from .transform import TRANSFORMS

SKEWNESS, KURTOSIS = 1.0, 6.0  # from which on other scales are tried; of a normal distribution 0 and 3
UNITS = (1.0, 0.1, 0.01)  # of asinh, in medians of the sizes
ROWS, PARTS = 1000, 4  # of the cross-validation
GAIN = 0.1  # nats a row that another scale has to be better by, beside two standard errors


Additive = Callable[[Prepared, Tensor, Tensor], Tensor]


def scaled(data: Prepared, additive: Additive) -> Prepared:
    """The data with the target on the scale that fits it best, with a note if that is not its own.

    additive: of data, training rows and other rows, the outputs at the others of a network without hidden nodes.
    """
    if data.preparation.classes is not None or data.numbers is None:
        return data
    seen = torch.cat([data.train, data.valid])[:ROWS]
    if not is_skewed(data.numbers[seen]):
        return data
    own = _densities(data, seen, additive)
    best, most = data, 0.0
    for column in _candidates(data):
        other = with_target(data, column)
        gain = _densities(other, seen, additive) - own
        mean, error = float(gain.mean()), float(gain.std()) / math.sqrt(len(gain))
        if mean > max(GAIN, 2 * error, most):
            best, most = other, mean
    target = best.preparation.target
    if target.transform is not None:
        best.notes.append(
            f"{target.name} is skewed: {target.fitted_name} was fitted, and predictions are medians rather than means"
        )
    return best


def is_skewed(values: Tensor) -> bool:
    """Whether numbers [N] have a large skewness or kurtosis."""
    centred = (values - values.mean()) / values.std(correction=0)
    return float((centred**3).mean().abs()) > SKEWNESS or float((centred**4).mean()) > KURTOSIS


def _candidates(data: Prepared) -> Iterator[Column]:
    """The target's column on other scales."""
    assert data.numbers is not None
    values, name = data.numbers, data.preparation.target.name
    if bool((values > 0).all()):
        scales = [("log", 1.0)]
    elif bool((values == values.round()).all()):
        scales = [("asinh", 1.0)]  # counts
    else:
        sizes = values[torch.cat([data.train, data.valid])].abs()
        middle = float(sizes[sizes > 0].median())
        scales = [("asinh", float(f"{middle * share:.1g}")) for share in UNITS]
    for transform, unit in scales:
        moved = TRANSFORMS[transform].forward(values / unit)
        column = of_numbers(name, moved[torch.cat([data.train, data.valid])])
        if column is not None:
            column.transform, column.unit = transform, unit
            yield column


def with_target(data: Prepared, column: Column) -> Prepared:
    """The data with the target as this column has it."""
    assert data.numbers is not None
    preparation = replace(data.preparation, target=column)
    return data._replace(preparation=preparation, y=column.scaled(data.numbers)[:, None])


def _densities(data: Prepared, seen: Tensor, additive: Additive) -> Tensor:
    """The log-density of every seen row's target, in its own units, by networks trained without it: [N]."""
    assert data.numbers is not None
    rest = torch.empty(len(seen), dtype=torch.float64)
    for part in range(PARTS):
        held = torch.arange(len(seen)) % PARTS == part
        rest[held] = (data.y[seen[held]] - additive(data, seen[~held], seen[held]))[:, 0]
    variance, target = rest.square().mean(), data.preparation.target
    density = -0.5 * (variance.log() + rest.square() / variance) - math.log(target.std)
    if target.transform is None:
        return density
    slope = TRANSFORMS[target.transform].log_slope(data.numbers[seen] / target.unit)
    return density + slope - math.log(target.unit)
