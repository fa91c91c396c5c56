"""Rows of data with some of their columns taken from other rows: what tells whether variables act together.

Where f is a sum g(a) + h(b), f(a, b) - f(a', b) - f(a, b') + f(a', b') is 0 for any two rows (a, b) and (a', b'). So it
takes values of f alone, errors of a trained network stay as small as they are, and nothing is local. Exchanged rows are
as likely as others where inputs do not depend on one another.

Source: Liu and Owen, Estimating mean dimensionality of analysis of variance decompositions (JASA 2006), for sums.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..arguments import indices
from .derivatives import batch_jacobian, check_points

ROWS = 4096  # of the data that are looked at


class Exchange:
    """A function of one output at the rows of x [N, n], with columns of other rows; numbers are float64."""

    def __init__(self, func: Callable[[Tensor], Tensor], x: Tensor):
        check_points(x)
        if x.dim() != 2 or len(x) < 2:
            raise ValueError(f"x has shape {list(x.shape)}: expected [N, n] with at least 2 rows")
        x = x.detach()
        if len(x) > ROWS:
            x = x[torch.linspace(0, len(x) - 1, ROWS, device=x.device).long()]
        self.func, self.x, self.scale = func, x, x.double().std(0)
        generator = torch.Generator("cpu").manual_seed(0)
        order = torch.randperm(len(x), generator=generator)
        partner = torch.empty_like(order)
        partner[order] = order.roll(1)  # a cycle: nobody is his own partner
        self.other = x[partner.to(x.device)]

    @property
    def inputs(self) -> int:
        return self.x.shape[1]

    def rows(self, columns: Sequence[int]) -> Tensor:
        """x with these columns of other rows."""
        mixed = self.x.clone()
        mixed[:, list(columns)] = self.other[:, list(columns)]
        return mixed

    @torch.no_grad()
    def values(self, columns: Sequence[int] = ()) -> Tensor:
        """The function there, [N]."""
        y = self.func(self.rows(columns))
        if not isinstance(y, Tensor) or y.numel() != len(self.x):
            got = f"shape {list(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise ValueError(f"model(x) has {got}: expected one output, [{len(self.x)}, 1]")
        return finite(y.reshape(-1).double())

    def slopes(self, columns: Sequence[int] = ()) -> Tensor:
        """Its derivatives by every input there, times the inputs' standard deviations, [N, n]."""
        return finite(batch_jacobian(self.func, self.rows(columns)).double() * self.scale)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """The root mean square of part / whole over rows, [N] each with |part| <= whole: a number, 0 to 1.

    A row counts by whole / (whole + its median): fully where whole is large, so that no outlier outweighs the others,
    and less where it is small and errors of a model are all that there is.
    """
    weight = torch.nan_to_num(whole / (whole + whole.median()))
    share = torch.nan_to_num(part / whole).square()
    return torch.nan_to_num((weight * share).sum() / weight.sum()).sqrt()


def finite(values: Tensor) -> Tensor:
    """values, where all are finite; else ValueError."""
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise ValueError(f"model(x), or a derivative of it, is not finite at {bad} of {values.numel()} places")
    return values


def groups_of(name: str, groups: Sequence[Sequence[int]], inputs: int) -> list[list[int]]:
    """groups as lists of indices of the inputs, none of them twice."""
    found = [indices(f"{name}[{n}]", group, inputs) for n, group in enumerate(groups)]
    together = [i for group in found for i in group]
    if len(set(together)) != len(together) or not all(found):
        raise ValueError(f"{name}={groups!r}: expected groups of inputs, none empty and no input in two of them")
    return found
