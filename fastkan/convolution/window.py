"""Window: what the kernel of a convolution spans; the parameters of its edges as an ordinary convolution's weight."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..transforms import by_func

Maybe = Tensor | None


class Window(NamedTuple):
    """Kernel size, stride, padding, dilation and output padding in every dimension, as torch.convolution takes them.

    padding: the functions are zero there, whatever x would be.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @property
    def places(self) -> int:
        """T, the number of places of the kernel."""
        return math.prod(self.kernel)

    @property
    def spans(self) -> list[int]:
        """The pixels from the first to the last place, in every dimension."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    def out_sizes(self, sizes: Sequence[int]) -> list[int]:
        """The sizes of the results' images."""
        found: list[int] = []
        of = zip(sizes, self.stride, self.padding, self.spans, self.output_padding, strict=True)
        for size, stride, padding, span, more in of:
            inner = (size - 1) * stride - 2 * padding + span + more
            found.append(inner if self.transposed else (size + 2 * padding - span) // stride + 1)
        return found

    def with_row(self) -> "Window":
        """The same in images of one row: one more dimension, before the others."""
        kernel, stride, padding, dilation, _, more, _ = self
        return self._replace(
            kernel=(1, *kernel), stride=(1, *stride), padding=(0, *padding), dilation=(1, *dilation),
            output_padding=(0, *more),
        )  # fmt: skip


def weight_of(coef: Tensor, base_weight: Maybe, window: Window) -> Tensor:
    """The parameters as the weight of torch.convolution of all functions' maps, channels last in memory if they can."""
    w = coef if base_weight is None else torch.cat([coef, base_weight[:, None]], 1)
    groups = window.groups
    w = w.view(groups, w.shape[0] // groups, w.shape[1], *window.kernel, w.shape[2] // window.places)
    if window.transposed:  # (g i f) o k
        w = w.movedim(-1, 3).flatten(0, 2)
    else:  # (g o) (i f) k
        w = w.movedim(-1, 1).flatten(2, 3).flatten(0, 1)
    if by_func():  # vmap knows no memory formats
        return w
    return w.contiguous(memory_format=torch.channels_last if w.dim() == 4 else torch.channels_last_3d)


def convolution(maps: Tensor, weight: Tensor, bias: Maybe, window: Window) -> Tensor:
    """torch's."""
    return torch.convolution(maps, weight, bias, *window[1:])
