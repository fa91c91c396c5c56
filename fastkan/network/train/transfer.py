"""What fit reads from a device: numbers together, in one wait, and again only where tensors have changed."""

from collections.abc import Callable, Hashable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ...snapshot import Snapshot


def on_host(*values: Tensor) -> list[Tensor]:
    """Numbers on the host: those of a device as copies, all in one transfer."""
    there = [v.detach() for v in values if not v.is_cpu]
    if not there:
        return list(values)
    dtype = reduce(torch.promote_types, (v.dtype for v in there), torch.float32)
    copies = iter(torch.stack([v.to(dtype).reshape(()) for v in there]).cpu())
    return [v if v.is_cpu else next(copies).to(v.dtype) for v in values]


def finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether all numbers are finite, as a tensor [] on their device."""
    return torch.cat([t.detach().reshape(-1) for t in tensors]).isfinite().all()


class Kept:
    """Results that depend on tensors' values, computed again where a tensor has changed; on a CPU always."""

    def __init__(self):
        self._results: dict[Hashable, tuple[list[Snapshot], Any]] = {}

    def __call__(self, key: Hashable, tensors: Sequence[Tensor], result: Callable[[], Any]) -> Any:
        if all(t.is_cpu for t in tensors):
            return result()
        snapshots, value = self._results.get(key, ([], None))
        if len(snapshots) != len(tensors) or not all(map(Snapshot.holds, snapshots, tensors)):
            value = result()
            self._results[key] = [Snapshot(t) for t in tensors], value
        return value
