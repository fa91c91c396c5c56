"""Column resampling: rows of data with some columns taken from other rows, to detect interactions of variables.

If f is a sum g(a) + h(b), f(a, b) - f(a', b) - f(a, b') + f(a', b') is 0 for any two rows (a, b) and (a', b'). The test
is global and uses only values of f, not derivatives, which would amplify the errors of a trained network. The new rows
are as likely as the data's if the inputs are independent.

Source: Liu and Owen, Estimating mean dimensionality of analysis of variance decompositions (JASA 2006), for sums.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..arguments import indices
from ..devices import exact
from .derivatives import batch_jacobian, check_points

MAX_ROWS = 4096  # more data are subsampled


class Resampled:
    """A function with one output at the rows of x [N, n], with columns from other rows; results are float64,
    on the host where the data's device has none."""

    def __init__(self, func: Callable[[Tensor], Tensor], x: Tensor):
        check_points(x)
        if x.dim() != 2 or len(x) < 2:
            raise ValueError(f"x has shape {list(x.shape)}: expected [N, n] with at least 2 rows")
        x = x.detach()
        if len(x) > MAX_ROWS:
            x = x[torch.linspace(0, len(x) - 1, MAX_ROWS, device=x.device).long()]
        self.func, self.x, self.scale = func, x, exact(x).std(0)
        generator = torch.Generator("cpu").manual_seed(0)
        order = torch.randperm(len(x), generator=generator)
        partner = torch.empty_like(order)
        partner[order] = order.roll(1)  # a cycle, in which no row is its own partner
        self.other = x[partner.to(x.device)]

    @property
    def inputs(self) -> int:
        return self.x.shape[1]

    def rows(self, columns: Sequence[int]) -> Tensor:
        """x with these columns from other rows."""
        mixed = self.x.clone()
        mixed[:, list(columns)] = self.other[:, list(columns)]
        return mixed

    @torch.no_grad()
    def values(self, columns: Sequence[int] = ()) -> Tensor:
        """The function at rows(columns), [N]."""
        y = self.func(self.rows(columns))
        if not isinstance(y, Tensor) or y.numel() != len(self.x):
            got = f"shape {list(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise ValueError(f"model(x) has {got}: expected one output, [{len(self.x)}, 1]")
        return finite(exact(y.reshape(-1)))

    def gradient(self, columns: Sequence[int] = ()) -> Tensor:
        """The function's derivatives at rows(columns), times the inputs' standard deviations, [N, n]."""
        return finite(exact(batch_jacobian(self.func, self.rows(columns))) * self.scale)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """The weighted root mean square of part / whole over rows, [N] each with |part| <= whole: between 0 and 1.

    The weight of a row is whole / (whole + median of whole): bounded by 1, so that outliers do not dominate, and small
    where whole is small and consists of errors of the model.
    """
    weight = torch.nan_to_num(whole / (whole + whole.median()))
    share = torch.nan_to_num(part / whole).square()
    return torch.nan_to_num((weight * share).sum() / weight.sum()).sqrt()


def finite(values: Tensor) -> Tensor:
    """values; ValueError unless all are finite."""
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise ValueError(f"model(x), or a derivative of it, is not finite at {bad} of {values.numel()} places")
    return values


def groups_of(name: str, groups: Sequence[Sequence[int]], inputs: int) -> list[list[int]]:
    """groups as validated lists of indices of inputs, without duplicates."""
    lists = [indices(f"{name}[{n}]", group, inputs) for n, group in enumerate(groups)]
    members = [i for group in lists for i in group]
    if len(set(members)) != len(members) or not all(lists):
        raise ValueError(f"{name}={groups!r}: expected groups of inputs, none empty and no input in two of them")
    return lists
