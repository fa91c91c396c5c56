"""Symmetric positive definite banded systems: batched block Cholesky factor in O(F), in plain PyTorch."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import torch
from torch import Tensor

# Rows of a block: few steps for large systems, one for ordinary grids.
ROWS = 32
# Relative increase of the diagonal, so that Cholesky succeeds where rounding makes a system singular.
RIDGE = 64 * torch.finfo(torch.float64).eps


class Factor:
    """L of A = L L^T, for matrices A [I, F, F] of half-bandwidth K, given by their lower band.

    band [I, F, K+1] has A[f, f-K+d] at [f, d]; entries before the first column are not read. With blocks of at least K
    rows A is block tridiagonal, D[k] on its diagonal and B[k] left of it:

        L[k] L[k]^T = D[k] - X[k] X[k]^T,   X[k] = B[k] L[k-1]^-T

    A matrix that is not positive definite beyond rounding gives NaN.
    """

    def __init__(self, band: Tensor):
        inputs, rows, width = band.shape
        degree = width - 1
        count = -(-rows // max(ROWS, degree))
        block = max(-(-rows // count), degree)
        self.rows, self.padding, self.count, self.block = rows, count * block - rows, count, block
        band = torch.nn.functional.pad(band, (0, 0, 0, self.padding))
        band[..., degree] *= 1 + RIDGE
        band[:, rows:, degree] = 1.0
        # Row r of a block's columns -block..block-1 holds its band from column r - K on.
        wide = band.new_zeros(inputs, count, block, 2 * block)
        step = wide.stride()
        skewed = wide.as_strided((inputs, count, block, width), (*step[:2], step[2] + 1, 1), block - degree)
        skewed.copy_(band.view(inputs, count, block, width))
        self.lower: list[Tensor] = []
        self.left: list[Tensor] = []
        for k in range(count):
            left, diagonal = wide[:, k, :, :block], wide[:, k, :, block:]
            if k:
                left: Tensor = torch.linalg.solve_triangular(self.lower[-1], left.mT, upper=False).mT
                diagonal = torch.baddbmm(diagonal, left, left.mT, alpha=-1)
            lower: Tensor
            failed: Tensor
            lower, failed = torch.linalg.cholesky_ex(diagonal)
            self.lower.append(lower.masked_fill_((failed != 0)[:, None, None], torch.nan))
            self.left.append(left)

    def solve(self, side: Tensor) -> Tensor:
        """A^-1 side, [I, F, O]."""
        if self.count == 1 and not self.padding:
            return torch.cholesky_solve(side, self.lower[0])
        side = torch.nn.functional.pad(side, (0, 0, 0, self.padding))
        x: list[Tensor] = list(side.split(self.block, 1))
        for k, (lower, left) in enumerate(zip(self.lower, self.left, strict=True)):
            if k:
                x[k] = torch.baddbmm(x[k], left, x[k - 1], alpha=-1)
            x[k] = torch.linalg.solve_triangular(lower, x[k], upper=False)
        for k in reversed(range(self.count)):
            if k + 1 < self.count:
                x[k] = torch.baddbmm(x[k], self.left[k + 1].mT, x[k + 1], alpha=-1)
            x[k] = torch.linalg.solve_triangular(self.lower[k].mT, x[k], upper=True)
        return torch.cat(x, 1)[:, : self.rows]
