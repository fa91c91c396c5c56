"""Damped oscillations: y = c + exp(a t) (b cos w t + d sin w t) of one input t, on a lattice of a and w."""

import math

import torch
from torch import Tensor

GROWTH = (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0, 8.0, -8.0)  # a times the length of the range of t
WAVES = 25  # the most waves in the range
STEP = 0.125  # of waves, between two frequencies of the lattice
KEPT = 3


def oscillations(t: Tensor, v: Tensor, weights: Tensor) -> list[tuple[float, float, float, float, float]]:
    """The best (a, w, phase, amplitude, c) of v [rows] = c + amplitude exp(a t) cos(w t + phase), by weighted squares.

    One for every a, the best KEPT of them; none where t is constant.
    """
    length, start = float(t.max() - t.min()), t.min()
    if length == 0:
        return []
    root = weights.sqrt()
    w = 2 * math.pi / length * torch.arange(STEP, min(WAVES, len(t) / 8), STEP, dtype=t.dtype)
    angle = t[:, None] * w
    found = []
    for growth in GROWTH:
        decay = (growth * (t - start) / length).exp() * root
        waves = torch.stack([angle.cos(), angle.sin()], 2) * decay[:, None, None]  # rows, w, 2
        ones = root / root.norm()
        rest = v * root - ones * (ones @ (v * root))
        waves = waves - ones[:, None, None] * torch.einsum("r,rwk->wk", ones, waves)
        gram = torch.einsum("rwk,rwl->wkl", waves, waves)
        along = torch.einsum("rwk,r->wk", waves, rest)
        solution = torch.linalg.solve(gram + 1e-9 * gram.diagonal(0, 1, 2).mean() * torch.eye(2, dtype=t.dtype), along)
        gain, n = (solution * along).sum(1).max(0)
        b, d = solution[n].tolist()
        a, phase = growth / length, math.atan2(-d, b)
        size = math.hypot(b, d) * math.exp(-a * float(start))
        shift = v - size * (a * t).exp() * (w[n] * t + phase).cos()
        found.append((-float(gain), a, float(w[n]), phase, size, float((shift * weights).sum() / weights.sum())))
    return [tuple(of[1:]) for of in sorted(found)[:KEPT]]  # type: ignore[misc]
