"""Penalties for sparse and smooth networks: L1 and entropy of edge sizes, and penalties on coefficients."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..activations import Activations
from ..scores import attribution

if TYPE_CHECKING:
    from ..model import KAN


def reference(
    moments: Tensor, x: Tensor | None, rows: int, l1: float, entropy: float, weight: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The penalty on the sizes of a layer's edges and its gradients, from the edges' moments.

    moments: [3, I, O] of ops.edge_moments over `rows` rows. The size of an edge is its standard deviation S; with x
    [N, I], S over the input's standard deviation + 0.1. Returns the penalty and, times `weight`, its gradients: terms
    [3, I, O] for ops.edge_backward, and m, t [I] of the gradient by x itself, t (x - m); empty without x.

    With g the gradient by S, that by the edge's value phi in a row is g / ((N - 1) S) (phi - mean).
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
    """`entropy` of a matrix, and its gradient."""
    total = size.sum(dim, keepdim=True) + 1
    share = size / total
    bits = (share + 1e-4).log2()
    slope = bits + share / (share + 1e-4) / math.log(2)  # of share log2(share + 1e-4)
    grad = (slope - (slope * share).sum(dim, keepdim=True)) / total
    return -(share * bits).sum() / total.numel(), -grad / total.numel()


torch.library.impl("fastkan::edge_penalty", "CompositeExplicitAutograd", reference)
edge_penalty = torch.ops.fastkan.edge_penalty

METRICS = (
    "edge_forward_spline_n", "edge_forward_spline_u", "edge_forward_sum", "edge_forward_mean", "edge_backward",
    "node_backward",
)  # fmt: skip


def penalty(
    model: "KAN", record: Activations, reg_metric: str, lamb_l1: float, lamb_entropy: float, lamb_coef: float,
    lamb_coefdiff: float,
) -> Tensor:  # fmt: skip
    """The penalty of a forward pass: a differentiable number. See reg."""
    total = record.acts[-1].new_zeros(())
    if lamb_l1 or lamb_entropy:
        total = total + of_sizes(model.reg_sizes(record, reg_metric), lamb_l1, lamb_entropy)
    for layer in model.act_fun:
        coef = layer.linear.coef  # I F O
        if lamb_coef:
            total = total + lamb_coef * coef.abs().mean(2).sum()
        if lamb_coefdiff:
            total = total + lamb_coefdiff * coef.diff(dim=1).abs().mean(2).sum()
    return total


def of_sizes(matrices: list[Tensor], lamb_l1: float, lamb_entropy: float) -> Tensor:
    """The L1 and entropy penalty of sizes, differentiable."""
    total = matrices[0].new_zeros(())
    for size in matrices:
        spread = sum(entropy(size, dim) for dim in reversed(range(size.dim())))
        total = total + lamb_l1 * size.sum() + lamb_entropy * spread
    return total


def sizes(model: "KAN", record: Activations, metric: str) -> list[Tensor]:
    """The sizes that the metric defines: [O, I] of every layer's edges, or [1, nodes] for "node_backward"."""
    if metric not in METRICS:
        raise ValueError(f"reg_metric={metric!r}: expected one of {', '.join(map(repr, METRICS))}")
    if metric == "edge_forward_mean":
        return [model.act_fun[l].edge_mean(x) for l, x in enumerate(record.acts[:-1])]
    record.scale_up(model)
    if metric == "edge_backward":
        return [edges.mean(0) for edges in attribution.from_outputs(model, record, rows=False).edges]
    if metric == "node_backward":
        return [attribution.from_nodes(model, record, l, rows=False) for l in range(1, model.depth + 1)]
    field = {
        "edge_forward_spline_n": "acts_scale_spline",
        "edge_forward_spline_u": "edge_actscale",
        "edge_forward_sum": "acts_scale",
    }[metric]
    return getattr(record, field)


def entropy(size: Tensor, dim: int) -> Tensor:
    """The mean entropy, in bits, of the rows (dim=1) or columns (dim=0) of size, as pykan defines it."""
    share = size / (size.sum(dim, keepdim=True) + 1)
    return -(share * (share + 1e-4).log2()).sum(dim).mean()


def reg(
    model: "KAN",
    reg_metric: str = "edge_forward_spline_n",
    lamb_l1: float = 1.0,
    lamb_entropy: float = 2.0,
    lamb_coef: float = 0.0,
    lamb_coefdiff: float = 0.0,
    x: Tensor | None = None,
) -> Tensor:
    """lamb_l1 * L1 + lamb_entropy * entropy of the edges' sizes, + penalties on the coefficients.

    A number, differentiable by the parameters. x: data, by default those of the last get_act.

    reg_metric: the size of an edge over the data:
        "edge_forward_spline_n": standard deviation of the numeric branch, over the input's + 0.1;
        "edge_forward_sum": the same of both branches;
        "edge_forward_spline_u": standard deviation of both branches;
        "edge_forward_mean": mean absolute value of the numeric branch, the paper's, by the fused operator;
        "edge_backward", "node_backward": scores of attribute.
    lamb_coef, lamb_coefdiff: weights of the mean absolute coefficients, and of their successive differences.

    Source: Liu et al., KAN (arXiv 2404.19756), eqs. 2.17 to 2.20; the normalisation is pykan's.
    """
    x = model.cache_data if x is None else x
    if x is None:
        raise ValueError("x=None: expected data, since this model has seen none yet")
    record = model.flow(x)
    return penalty(model, record, reg_metric, lamb_l1, lamb_entropy, lamb_coef, lamb_coefdiff)


@torch.no_grad()
def evaluate(model: "KAN", dataset: dict[str, Tensor]) -> dict[str, float | int | list[int]]:
    """test_loss, the root of the mean square error on test_input and test_label; n_edge and n_grid."""
    loss = (model(dataset["test_input"]) - dataset["test_label"]).square().mean().sqrt().item()
    return {"test_loss": loss, "n_edge": model.n_edge, "n_grid": model.grid}
