"""Outlier rows: rows in which a hidden node has extreme values, and their effect on the outputs.

Scores are shares of standard deviations, which very few rows can dominate: an input that is 1 in two rows of two
thousand gets an arbitrary function in training. It drives a hidden node to extreme values, but usually the splines
after the node do not follow, or their changes cancel. In such rows a deviation is scaled down to the deviation in the
other rows with the same effect on the next nodes. Where the next nodes do follow, as for an input that matters, nothing
changes.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...devices import at_home, exact, home
from ..activations import MAX_BYTES, Activations, postacts

if TYPE_CHECKING:
    from ..model import KAN

FAR = 5.0  # distance of an outlier, in standard deviations of the other rows
ROUNDS = 3
MIN_ROWS, MAX_ROWS = 64, 1024  # sample size of outlier rows, and of the others


class _LayerOutliers(NamedTuple):
    """The J sums of a layer in the R outlier rows: is_far [R, J], and distance [R, J] from the mean in standard
    deviations of the other rows."""

    is_far: Tensor
    distance: Tensor


class Outliers:
    """The outlier rows of a model, created by `of`. Uses a sample of them and a sample of the others."""

    def __init__(
        self,
        model: "KAN",
        record: Activations,
        usual: Tensor,
        few: Tensor,
        weight: Tensor,
        layers: list[_LayerOutliers],
    ):
        self.model, self.record, self.layers = model, record, layers
        self.rows, self.usual, self.weight = torch.cat([usual, few]), len(usual), weight
        self.factor: Tensor | None = None  # of the deviations of the next layer's sums in the outlier rows

    @classmethod
    @torch.no_grad()
    def of(cls, model: "KAN", record: Activations, last: int) -> "Outliers | None":
        """None where no node before layer `last` has outlier rows."""
        sums = [s.double() for s in at_home(*record.sums[: last - 1])]
        outliers = [_find(s) for s in sums]
        any_far = torch.zeros(len(record.acts[0]), dtype=torch.bool, device=home(model.device))
        for far, _, _ in outliers:
            any_far |= far.any(1)
        if int(any_far.sum()) in (0, len(any_far)):
            return None
        most = MAX_BYTES // (8 * max(layer.in_dim * layer.out_dim for layer in model.act_fun))
        usual, few = (_sample(rows, max(MIN_ROWS, min(MAX_ROWS, most))) for rows in (~any_far, any_far))
        weight = [
            torch.full((len(sample),), int(rows.sum()) / len(sample), dtype=torch.float64, device=sample.device)
            for rows, sample in ((~any_far, usual), (any_far, few))
        ]
        layers = [
            _LayerOutliers(far[few], (s[few] - mean).abs() / std)
            for s, (far, mean, std) in zip(sums, outliers, strict=True)
        ]
        return cls(model, record, usual, few, torch.cat(weight), layers)

    @torch.no_grad()
    def shares(self, l: int, share: Tensor, score: Tensor) -> Tensor:
        """share [O, I], of the edges of layer l in their sums, with the deviations of outlier rows scaled to their
        effect.

        To be called for one layer after the other, from the last; score [O]: of the layer's sums.
        """
        acts = self.record.acts[l]
        values = exact(postacts(self.model, l, acts[self.rows.to(acts.device)], self.record.options))
        dev = values - values[: self.usual].mean(0)  # R O I
        few = dev[self.usual :]
        scaled = few if self.factor is None else few * self.factor[..., None]
        sums = torch.cat([dev[: self.usual], scaled]).sum(2)
        if l > 0:
            weight = exact(score) / padded_std(exact(self.record.subnode_actscale[l]))
            scaled = scaled * self._remaining(l, dev[: self.usual], scaled, weight)[:, None]
        now = torch.cat([dev[: self.usual], scaled])
        change = _ratio(self._std(now), self._std(dev)) / _ratio(self._std(sums), self._std(dev.sum(2)))[:, None]
        return share * change.to(share)

    def _remaining(self, l: int, usual: Tensor, few: Tensor, weight: Tensor) -> Tensor:
        """The factor [R, I] of the deviations of edges from the nodes of layer l in the outlier rows that remains after
        cancellation; also sets self.factor for the sums before these nodes."""
        groups, (far, distance) = self.model.subnodes(l), self.layers[l - 1]
        is_far = torch.stack([far[:, group].any(1) for group in groups], 1)  # R I
        few = few * is_far[:, None]
        nodes = is_far.any(0)
        single = usual.square().mean(0).sqrt().T @ weight  # I
        together = usual[..., nodes].sum(2).square().mean(0).sqrt() @ weight
        # Several far nodes that cancel more than they do in the other rows are scaled down by the difference.
        left = _ratio(few.sum(2).abs() @ weight, few.abs().sum(2) @ weight) / _ratio(together, single[nodes].sum())
        left = torch.where(is_far, left.clamp_max(1.0)[:, None], 1.0)
        effect = few.abs().transpose(1, 2) @ weight / single * left
        self.factor = torch.ones_like(distance)
        for node, group in enumerate(groups):
            for j in group:
                ratio = effect[:, node] / distance[:, j]
                self.factor[:, j] = torch.where(far[:, j] & ratio.isfinite(), ratio.clamp_max(1.0), 1.0)
        return left

    def _std(self, dev: Tensor) -> Tensor:
        share = self.weight / self.weight.sum()
        mean = torch.tensordot(share, dev, 1)
        return torch.tensordot(share, (dev - mean).square(), 1).sqrt()


def padded_std(std: Tensor) -> Tensor:
    """A divisor above 0: std + 1e-4 as in pykan, but at most 1 % more than std."""
    return std + (1e-2 * std).clamp(torch.finfo(std.dtype).tiny, 1e-4)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b; 1 where both are 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 1.0)


def _find(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The outliers among values [N, J] of each column, a mask, and mean and standard deviation [J] of the others."""
    far = torch.zeros_like(values, dtype=torch.bool)
    mean = std = values.new_zeros(values.shape[1])
    for _ in range(ROUNDS):
        weight = (~far).to(values.dtype)
        count = weight.sum(0).clamp_min(1.0)
        mean = (values * weight).sum(0) / count
        dev = (values - mean).abs()
        std = ((dev * weight).square().sum(0) / count).sqrt()
        far = dev > FAR * std + 1e-9 * dev.amax(0)
    return far, mean, std


def _sample(rows: Tensor, most: int) -> Tensor:
    """The indices of a mask's rows, at most `most` of them, evenly spaced."""
    rows = rows.nonzero().flatten()
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, dtype=torch.float64, device=rows.device).round().long()]
