"""Several starts: train from other random parameters, and keep the model of the least loss."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ...arguments import integer
from ..checkpoint import State
from ..layers.edge_linear import first_mask

if TYPE_CHECKING:
    from ..model import KAN


def best_start(fit: Callable, starts: int, model: "KAN", opt: Any, seed: int, **options: Any) -> dict[str, Any]:
    """fit with the other arguments from the model as it is, then from reset_parameters with other seeds.

    The model becomes the trained one of the least loss. Returns the results of its training, and "starts", the last
    loss of every one.
    """
    if isinstance(opt, torch.optim.Optimizer):
        raise ValueError("opt is an optimizer: expected its class, or a function making one, with starts")
    _check_edges(model)
    start, best = State(model), State(model)
    least, losses, kept = math.inf, [], {}
    try:
        for n in range(integer("starts", starts, 1)):
            if n:
                start.restore()
                model.reset_parameters(model._seed + n)
            results = fit(model, opt=opt, seed=seed, **options)
            losses.append(results["test_loss"][-1] if results["test_loss"] else math.inf)
            if not kept or losses[-1] < least:
                least, kept = losses[-1], results
                best.keep()
    finally:
        best.restore()
    return kept | {"starts": losses}


def _check_edges(model: "KAN") -> None:
    """ValueError where reset_parameters would undo more than training: pruned or symbolic edges."""
    for l, (numeric, symbolic) in enumerate(zip(model.act_fun, model.symbolic_fun, strict=True)):
        first = first_mask(numeric.in_dim, numeric.out_dim, numeric.linear.start.sparse_init).to(numeric.edge_mask)
        if symbolic.active or not torch.equal(numeric.edge_mask, first):
            raise ValueError(f"layer {l} has pruned or symbolic edges: expected starts=1 for such a model")
