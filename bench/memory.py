"""Bytes saved by forward for backward, beyond the layer's input, parameters and constants."""

from collections.abc import Sequence

import torch

from fastkan.measure.correctness import Candidate, Case, Operands, Unavailable
from fastkan.measure.progress import bar

from . import cases
from .peers import PEERS

FULL, TINY = cases.MEMORY, cases.TINY


def rows(which: Sequence[Case], rounds: int) -> list[dict[str, object]]:
    """One row per case and peer; `rounds` is ignored."""
    return [_row(case, name) for case in bar(which, "memory") for name in PEERS]


def _row(case: Case, name: str) -> dict[str, object]:
    row = {
        "batch": case.batch,
        "in_features": case.in_features,
        "out_features": case.out_features,
        "grid_size": case.grid_size,
        "peer": name,
        "saved_bytes": "",
        "reason": "",
    }
    try:
        torch._dynamo.reset()
        return {**row, "saved_bytes": saved_bytes(PEERS[name].build(Operands.of(case)))}
    except Unavailable as absent:
        return {**row, "reason": str(absent)}
    except Exception as failure:  # another library's failure becomes a row of the table
        return {**row, "reason": f"fails: {type(failure).__name__}"}


def saved_bytes(candidate: Candidate) -> int:
    """Total size of the storages that autograd saves, except those of x, parameters and constants."""
    candidate.train()  # exclude what the first call compiles or caches
    saved = {}  # address -> storage, kept alive so that no address is reused

    def keep(t: torch.Tensor) -> torch.Tensor:
        storage = t.untyped_storage()
        saved[storage.data_ptr()] = storage
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        candidate.forward(candidate.x)
    for own in (candidate.x, *candidate.parameters, *candidate.constants):
        saved.pop(own.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in saved.values())
