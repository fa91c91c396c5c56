"""One-pass range and bounded row sample of batched data, for grid updates."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .processes import gathered, together

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Rows of data to place knots and to fit coefficients by.
SAMPLE_ROWS = 8192


class Rows:
    """A sample of up to SAMPLE_ROWS rows of a stream of batches [N, I]; all rows of a shorter stream.

    Row n of the stream belongs to the sample if n * golden ratio mod 1 is among the smallest: evenly spread, in step
    with no period of the data, and the same for every division into batches.
    """

    def __init__(self):
        self.seen = 0
        self.bound: int | None = None
        self._order: list[Tensor] = []
        self._parts: list[Tensor] = []

    def keep(self, rows: Tensor) -> None:
        """Add the next rows of the stream."""
        index = torch.arange(self.seen, self.seen + len(rows), device="cpu")
        order = index * -0x61C8864680B583EB  # 2^64 / golden ratio, in wrapping arithmetic
        self.seen += len(rows)
        if self.bound is not None:
            chosen = (order < self.bound).nonzero().flatten()
            order, rows = order[chosen], rows[chosen.to(rows.device)]
        if len(rows):
            self._order.append(order)
            self._parts.append(rows.detach().clone())
        if sum(map(len, self._order)) > 2 * SAMPLE_ROWS:
            self._select()

    @property
    def rows(self) -> Tensor:
        """The sample, in the order of the stream."""
        self._select()
        return self._parts[0]

    def share(self, group: "ProcessGroup", width: int, device: torch.device) -> None:
        """Make this the sample of the streams [N, width] of all processes of the group, in float64.

        Row n of every stream is in step with row n of the others: each has a share in proportion to its length, and
        streams that have up to SAMPLE_ROWS rows together are in the sample whole.
        """
        if self.seen:
            self._select()
        order = torch.cat(self._order) if self.seen else torch.empty(0, dtype=torch.long)
        rows = self._parts[0].double() if self.seen else torch.empty(0, width, dtype=torch.float64)
        self._order = [gathered(order, group, device).cpu()]
        self._parts = [gathered(rows, group, device)]
        self.seen = int(gathered(torch.tensor([self.seen]), group, device).sum())

    def _select(self) -> None:
        order, rows = torch.cat(self._order), torch.cat(self._parts)
        if len(order) > SAMPLE_ROWS:
            chosen = order.topk(SAMPLE_ROWS, largest=False).indices.sort().values
            order, rows = order[chosen], rows[chosen.to(rows.device)]
            self.bound = int(order.max())
        self._order, self._parts = [order], [rows]


class Sample(Rows):
    """The range and the row sample of a stream of batches.

    low, high: [I] in float64, once a row was added.
    """

    low: Tensor
    high: Tensor

    def __init__(self, inputs: int, device: torch.device):
        super().__init__()
        self.inputs, self.device = inputs, device

    @classmethod
    def of(
        cls, x: Tensor | Iterable[Any], inputs: int, device: torch.device, group: "ProcessGroup | None" = None
    ) -> "Sample":
        """Of a tensor [..., I], or of an iterable of tensors or of tuples that begin with one, like a DataLoader.

        With a group, of what its processes have together; one of them may have no rows.
        """
        sample = cls(inputs, device)
        with together(group, device):
            for batch in [x] if isinstance(x, Tensor) else x:
                sample.add(batch[0] if isinstance(batch, (tuple, list)) and batch else batch)
        if group is not None:
            sample.share(group, inputs, device)
        if sample.seen == 0:
            raise ValueError("x is empty: expected at least one row")
        return sample

    def add(self, batch: Any) -> None:
        """Add a tensor [..., I]."""
        if not isinstance(batch, Tensor):
            raise TypeError(f"x contains a {type(batch).__name__}: expected a tensor, or batches that begin with one")
        if batch.dim() == 0 or batch.shape[-1] != self.inputs:
            shape = list(batch.shape)
            raise ValueError(f"x has shape {shape}: expected [..., {self.inputs}], the number of in_features last")
        rows: Tensor
        for rows in batch.detach().reshape(-1, self.inputs).split(SAMPLE_ROWS):
            self._add(rows.to(self.device))

    def _add(self, rows: Tensor) -> None:  # at most SAMPLE_ROWS
        if not len(rows):
            return
        low, high = rows.amin(0).double(), rows.amax(0).double()
        if not torch.cat([low, high]).isfinite().all():
            bad: list[int] = (~rows.isfinite()).any(0).nonzero().flatten().tolist()
            raise ValueError(f"x has NaN or infinite entries in its inputs {bad[:8]}: expected finite numbers")
        if self.seen:
            low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.low, self.high = low, high
        self.keep(rows)

    def share(self, group: "ProcessGroup", width: int, device: torch.device) -> None:
        unknown = torch.full((1, width), torch.inf, dtype=torch.float64)
        low, high = (self.low[None], self.high[None]) if self.seen else (unknown, -unknown)
        self.low, self.high = gathered(low, group, device).amin(0), gathered(high, group, device).amax(0)
        super().share(group, width, device)

    @cached_property
    def ordered(self) -> Tensor:
        """The sampled values of every input, ascending: [I, N] in float64."""
        return self.rows.T.contiguous().sort(-1).values.double()

    def quantiles(self, count: int) -> Tensor:
        """The sampled values at `count` equidistant ranks, the first and the last included: [I, count]."""
        last = self.rows.shape[0] - 1
        rank = torch.linspace(0, last, count, device=self.device, dtype=torch.float64)
        below = rank.long()
        above = (below + 1).clamp_max(last)
        return torch.lerp(self.ordered[:, below], self.ordered[:, above], rank - below)
