"""What fit reads from a device: in few waits, and again only where tensors have changed."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...snapshot import Snapshot


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
