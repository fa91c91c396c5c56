"""L1 and entropy of the sizes of a layer's edges, and their gradients: on the CPU one call, csrc/cpu/edge_penalty.h."""

import math

import torch
from torch import Tensor

torch.library.define(
    "fastkan::edge_penalty",
    "(Tensor moments, Tensor? x, int rows, float l1, float entropy, float weight) -> (Tensor, Tensor, Tensor, Tensor)",
)


def reference(
    moments: Tensor, x: Tensor | None, rows: int, l1: float, entropy: float, weight: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The penalty of edges by moments [3, I, O], ops.edge_moments over that many rows; see regularize.penalty.

    An edge's size is its standard deviation S, with x [N, I] over that of its input + 0.1. Returns the penalty and,
    times `weight`, its gradients: terms [3, I, O] as ops.edge_backward takes them, and m [I] and t [I] of t (x - m),
    which is what comes by x itself; empty without x.

    With g the gradient by S, that by the edge's value phi in each row is g / ((N - 1) S) (phi - mean).
    """
    less = max(1, rows - 1)
    _, mean, variance = moments.unbind(0)
    std = (variance * (rows / less)).sqrt()
    x_mean = x_std = moments.new_empty(0)
    room = 1.0
    if x is not None:
        x_mean = x.mean(0)
        x_std = ((x - x_mean).square().sum(0) / less).sqrt()
        room = (x_std + 0.1)[:, None]
    size = std / room
    penalty, grad = l1 * size.sum(), torch.full_like(size, l1)
    for dim in (0, 1) if entropy else ():
        bits, slope = _entropy(size, dim)
        penalty, grad = penalty + entropy * bits, grad + entropy * slope
    by_std = weight * grad / room
    factor = torch.where(std > 0, by_std / (std * less), 0.0)
    terms = torch.stack([torch.zeros_like(factor), -factor * mean, factor])
    if x is None:
        return penalty, terms, x_mean, x_std
    of_x = -(by_std * size).sum(1)
    return penalty, terms, x_mean, torch.where(x_std > 0, of_x / (x_std * less), 0.0)


def _entropy(size: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """regularize.entropy of a matrix, and its gradient."""
    total = size.sum(dim, keepdim=True) + 1
    share = size / total
    bits = (share + 1e-4).log2()
    slope = bits + share / (share + 1e-4) / math.log(2)  # of share log2(share + 1e-4)
    grad = (slope - (slope * share).sum(dim, keepdim=True)) / total
    return -(share * bits).sum() / total.numel(), -grad / total.numel()


torch.library.impl("fastkan::edge_penalty", "CompositeExplicitAutograd", reference)
