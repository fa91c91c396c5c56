"""OnEdges: modules that compute with the functions of a KANLinear in their own way, and the methods about these."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .linear import KANLinear

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class OnEdges(nn.Module):
    """A module whose functions are the edges of a KANLinear, `edges`, seen by the rows that `rows` makes of x."""

    edges: KANLinear

    def rows(self, x: Tensor) -> Tensor:
        """What the functions see: x as [..., I]."""
        raise NotImplementedError

    def _scale_base(self, fan_in: int) -> None:
        """Initial base weights as those of a KANLinear of fan_in inputs."""
        weight = self.edges.base_weight
        if weight is not None:
            with torch.no_grad():
                weight.mul_((self.edges.in_features / fan_in) ** 0.5)

    def update_grid(
        self,
        x: Tensor | Iterable[Any],
        margin: float = 0.01,
        inwards: float = 1.0,
        *,
        process_group: "ProcessGroup | None" = None,
    ) -> None:
        """KANLinear.update_grid by the rows of x, or of batches of it, as there."""
        batches = self._batches([x] if isinstance(x, Tensor) else x)  # in there, so that all processes know of an error
        self.edges.update_grid(batches, margin, inwards, process_group=process_group)

    def _batches(self, batches: Iterable[Any]) -> Iterator[Tensor]:
        for batch in batches:
            x: Any = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
            yield self.rows(x)

    def extend_grid(self, new_size: int) -> None:
        """KANLinear.extend_grid: another number of grid intervals on the same range."""
        self.edges.extend_grid(new_size)

    def outside_share(self, x: Tensor) -> Tensor:
        """The share of the rows of x outside the grid range, for every input: [I]; NaN is outside."""
        return self.edges.outside_share(self.rows(x))

    def edge_mean(self, x: Tensor) -> Tensor:
        """The mean of |phi| over the rows of x, for every edge, as KANLinear.edge_mean."""
        return self.edges.edge_mean(self.rows(x))

    def regularization(self, x: Tensor, l1: float = 1.0, entropy: float = 1.0) -> Tensor:
        """KANLinear.regularization of the edges, by the rows of x."""
        return self.edges.regularization(self.rows(x), l1, entropy)

    def regularization_loss(self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0) -> Tensor:
        """The same on coefficients, without data: KANLinear.regularization_loss."""
        return self.edges.regularization_loss(regularize_activation, regularize_entropy)
