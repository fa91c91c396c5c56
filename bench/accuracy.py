"""Largest errors in float32, against the reference in float64 on the same inputs."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from fastkan.measure.correctness import RANGE, Candidate, Case, Operands, Unavailable, formula
from fastkan.measure.progress import bar

from . import cases
from .peers import PEERS

FULL, TINY = cases.ACCURACY, cases.TINY
POINTS = 20_001


def rows(which: Sequence[Case], rounds: int) -> list[dict[str, object]]:
    """One row per case and peer; `rounds` is ignored."""
    return [_row(case, name) for case in bar(which, "accuracy") for name in PEERS]


def _row(case: Case, name: str) -> dict[str, object]:
    shape = {"in_features": case.in_features, "out_features": case.out_features}
    row = {**shape, "grid_size": case.grid_size, "degree": case.degree, "peer": name}
    errors: dict[str, object] = dict.fromkeys(("feature_error", "slope_error", "layer_error"), "")
    try:
        torch._dynamo.reset()
        one_input = splines(case)
        if PEERS[name].build(one_input).gradients is None:
            return {**row, **errors, "reason": "computes another function"}
        found, truth = _both(name, one_input)
        interval = (RANGE[1] - RANGE[0]) / case.grid_size
        errors["feature_error"] = _largest(found["y"] - truth["y"])
        errors["slope_error"] = _largest(interval * (found["grad_x"] - truth["grad_x"]))
        found, truth = _both(name, Operands.of(case))
        errors["layer_error"] = _largest((found["y"] - truth["y"]) / truth["y"].square().mean().sqrt())
    except Unavailable as absent:
        return {**row, **errors, "reason": str(absent)}
    except Exception as failure:  # another library's failure becomes a row of the table
        return {**row, **errors, "reason": f"fails: {type(failure).__name__}"}
    return {**row, **errors, "reason": ""}


def splines(case: Case) -> Operands:
    """Operands of a layer with one input whose output f is B_f: coef is the identity, the base weight 0."""
    functions = case.functions
    problem = Operands.of(replace(case, batch=POINTS, in_features=1, out_features=functions))
    problem.coef = torch.eye(functions, dtype=case.dtype)[None]
    problem.base_weight = torch.zeros_like(problem.base_weight)
    problem.grad_out = problem.grad_out.sign()
    return problem


def _both(name: str, problem: Operands) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    candidate: Candidate = PEERS[name].build(problem)
    found = {key: value.double() for key, value in candidate.results().items()}
    return found, formula(problem.double(), "reference").results()


def _largest(error: torch.Tensor) -> str:
    return f"{error.abs().max().item():.3g}"
