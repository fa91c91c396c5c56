"""ReLU-KAN's bumps (max(2 + t, 0) max(2 - t, 0) / 4)^2, t = (x - c_f) / h, one centred in each interval of width h.

These are the paper's with k = 3 and its initial phases, which are not trained here: G of its intervals on [0, 1] are
G + 3 functions on the grid range [-1.5 / G, 1 + 1.5 / G]. See fastkan.nn.ReLUKANLayer for trained phases.

Source: Qiu et al., ReLU-KAN (arXiv 2406.02075), eq. 6.
"""

from torch import Tensor

from .series import Series, by_series, centred


@by_series
def relu_features(x: Series, grid: Tensor) -> Series:
    t = centred(x, grid)
    root = (t + 2.0).relu() * (2.0 - t).relu() * 0.25
    return root * root
