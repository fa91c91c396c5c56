"""Reflectional switch functions 1 - tanh(t)^2, one centred in each interval of width h.

"switch" has t = (x - c_f) / h. "unit_switch" has t = x - c_f, the formula that faster-kan's code computes: functions of
width one, whatever their distance. Source: Delis, FasterKAN (github.com/AthanasiosDelis/faster-kan).
"""

import torch
from torch import Tensor

from .series import Series, by_series, centred


@by_series
def switch_features(x: Series, grid: Tensor) -> Series:
    return _bump(centred(x, grid))


@by_series
def unit_switch_features(x: Series, grid: Tensor) -> Series:
    return _bump(centred(x, grid, torch.ones_like(grid[:, :1])))


def _bump(t: Series) -> Series:
    y = t.tanh()
    return 1.0 - y * y
