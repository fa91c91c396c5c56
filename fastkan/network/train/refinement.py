"""Refinement to a target: train, double the numbers of grid intervals, train again, until the loss is low enough."""

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ...arguments import integer, number
from ..checkpoint import State

if TYPE_CHECKING:
    from ..model import KAN

GAIN = 0.9  # a refinement has to bring the loss below this share of the last one
ROWS = 2  # least number of rows for an interval


def refined(
    fit: Callable, refine_to: float, model: "KAN", opt: Any, steps: int, callback: Callable | None, **options: Any
) -> dict[str, Any]:
    """fit with the other arguments, then on doubled grids, see fit's refine_to; the results of all of it."""
    target, steps = number("refine_to", refine_to, 0.0), integer("steps", steps, 1)
    if isinstance(opt, torch.optim.Optimizer):
        raise ValueError("opt is an optimizer: expected its class, or a function making one, with refine_to")
    results = fit(model, opt=opt, steps=steps, callback=callback, **options)
    while results["stopped"] is None and (loss := results["test_loss"][-1]) > target:
        sizes, points = [2 * layer.num for layer in model.act_fun], model.cache_data
        if points is not None and ROWS * max(sizes) > points.numel() // points.shape[-1]:
            return _stopped(results, f"finer grids would have fewer than {ROWS} rows an interval")
        before = State(model)
        of_all = None if callback is None else partial(_of_all, callback, results)
        options |= {"grid_sizes": [sizes], "update_grid": False, "starts": 1}
        results = _joined(results, fit(model, opt=opt, steps=steps, callback=of_all, **options))
        if results["stopped"] is None and not (reached := results["test_loss"][-1]) < max(GAIN * loss, target):
            if not reached < loss:
                before.restore()
            return _stopped(results, "finer grids no longer lower the loss")
    return results


def _stopped(results: dict[str, Any], reason: str) -> dict[str, Any]:
    """The results with the reason of the end."""
    return results | {"stopped": f"{reason}, at step {len(results['train_loss']) - 1}"}


def _of_all(callback: Callable, before: dict[str, Any], step: int, results: dict[str, Any]) -> Any:
    """The callback with the number of a step and the results of all trainings so far."""
    return callback(len(before["train_loss"]) + step, _joined(before, results))


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The results of two trainings, one after the other."""
    joined = {name: first[name] + of for name, of in second.items() if isinstance(of, list)}
    before = len(first["train_loss"])
    reason = second["stopped"] and re.sub(
        r"at step (\d+)", lambda m: f"at step {before + int(m[1])}", second["stopped"]
    )
    return first | joined | {"stopped": reason}
