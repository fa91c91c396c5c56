"""Rows in which a node is far from where it is otherwise, and what of that arrives at the outputs.

Scores are shares of standard deviations, and these can be those of very few rows: of an input that is 1 in two rows of
two thousand, which training was free to give any function. That makes a hidden node what it is nowhere else, and as a
rule the splines after it do not follow, or what follows cancels. There a deviation counts for as much as one in the
other rows that the nodes after it take as much notice of. Where they follow, as for an input that matters, all stays.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..activations import MAX_BYTES, postacts

FAR = 5.0  # standard deviations of the other rows
ROUNDS = 3
FEWEST, SAMPLE = 64, 1024  # of the other rows, and of those that are far, to take means over


class _Layer(NamedTuple):
    """Of the J sums of a layer: beyond [R, J], which is far in which of the far rows, and how many times its standard
    deviation in the other rows that is."""

    beyond: Tensor
    times: Tensor


class Outlying:
    """The rows in which a hidden node is far: `of` finds them. All is on some of them and some of the others."""

    def __init__(self, model, record, usual: Tensor, few: Tensor, weight: Tensor, layers: list[_Layer]):
        self.model, self.record, self.layers = model, record, layers
        self.rows, self.usual, self.weight = torch.cat([usual, few]), len(usual), weight
        self.factor: Tensor | None = None  # of deviations of the sums that a layer leads to, in the far rows

    @classmethod
    @torch.no_grad()
    def of(cls, model, record, last: int) -> "Outlying | None":
        """None where no node before layer `last` is far anywhere."""
        sums = [s.detach().double() for s in record.sums[: last - 1]]
        found = [_far(s) for s in sums]
        any_far = sum((far.any(1) for far, _, _ in found), torch.zeros(len(record.acts[0]), device=model.device)) > 0
        if not bool(any_far.any()) or bool(any_far.all()):
            return None
        most = MAX_BYTES // (8 * max(layer.in_dim * layer.out_dim for layer in model.act_fun))
        usual, few = (_some(rows, max(FEWEST, min(SAMPLE, most))) for rows in (~any_far, any_far))
        weight = [
            torch.full((len(some),), int(rows.sum()) / len(some), dtype=torch.float64, device=some.device)
            for rows, some in ((~any_far, usual), (any_far, few))
        ]
        layers = [
            _Layer(far[few], (s[few] - mean).abs() / std) for s, (far, mean, std) in zip(sums, found, strict=True)
        ]
        return cls(model, record, usual, few, torch.cat(weight), layers)

    @torch.no_grad()
    def shares(self, l: int, share: Tensor, score: Tensor) -> Tensor:
        """share [O, I], of edges of layer l in their sums, with deviations in the far rows that count as they arrive.

        Layers one after the other from the last; score [O]: of the sums that they lead to.
        """
        values = postacts(self.model, l, self.record.acts[l][self.rows], self.record.options).double()
        dev = values - values[: self.usual].mean(0)  # R O I
        few = dev[self.usual :]
        arriving = few if self.factor is None else few * self.factor[..., None]
        sums = torch.cat([dev[: self.usual], arriving]).sum(2)
        if l > 0:
            worth = score.double() / guarded(self.record.subnode_actscale[l].double())
            left = self._look_before(l, dev[: self.usual], arriving, worth)
            arriving = arriving * left[:, None]
        now = torch.cat([dev[: self.usual], arriving])
        change = _ratio(self._std(now), self._std(dev)) / _ratio(self._std(sums), self._std(dev.sum(2)))[:, None]
        return share * change.to(share)

    def _look_before(self, l: int, usual: Tensor, few: Tensor, worth: Tensor) -> Tensor:
        """How much is left of the deviations of edges out of the nodes of layer l, in the far rows [R, I]; and what
        of the deviations of the sums before these nodes arrives."""
        groups, (far, times) = self.model.subnodes(l), self.layers[l - 1]
        beyond = torch.stack([far[:, group].any(1) for group in groups], 1)  # R I
        few = few * beyond[:, None]
        nodes = beyond.any(0)
        single = usual.square().mean(0).sqrt().T @ worth  # I
        together = usual[..., nodes].sum(2).square().mean(0).sqrt() @ worth
        # Where several are far, and cancel more than they otherwise do, that much is left of each.
        left = _ratio(few.sum(2).abs() @ worth, few.abs().sum(2) @ worth) / _ratio(together, single[nodes].sum())
        left = torch.where(beyond, left.clamp_max(1.0)[:, None], 1.0)
        followed = few.abs().transpose(1, 2) @ worth / single * left
        self.factor = torch.ones_like(times)
        for node, group in enumerate(groups):
            for j in group:
                ratio = followed[:, node] / times[:, j]
                self.factor[:, j] = torch.where(far[:, j] & ratio.isfinite(), ratio.clamp_max(1.0), 1.0)
        return left

    def _std(self, dev: Tensor) -> Tensor:
        share = self.weight / self.weight.sum()
        mean = torch.tensordot(share, dev, 1)
        return torch.tensordot(share, (dev - mean).square(), 1).sqrt()


def guarded(std: Tensor) -> Tensor:
    """What to divide by: pykan's, 1e-4 more, but for small ones at most a hundredth more."""
    return std + (1e-2 * std).clamp(torch.finfo(std.dtype).tiny, 1e-4)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b; 1 where both are 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 1.0)


def _far(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which of values [N, J] are far from the others in their column, and the others' means and deviations."""
    far = torch.zeros_like(values, dtype=torch.bool)
    for _ in range(ROUNDS):
        weight = (~far).to(values.dtype)
        count = weight.sum(0).clamp_min(1.0)
        mean = (values * weight).sum(0) / count
        dev = (values - mean).abs()
        std = ((dev * weight).square().sum(0) / count).sqrt()
        far = dev > FAR * std + 1e-9 * dev.amax(0)
    return far, mean, std


def _some(rows: Tensor, most: int) -> Tensor:
    """The indices of rows, at most so many of them, evenly."""
    rows = rows.nonzero().flatten()
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, dtype=torch.float64, device=rows.device).round().long()]
