"""Banded linear systems against dense ones."""

import pytest
import torch

from fastkan.nn.banded import Factor


def system(rows: int, degree: int, inputs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """A positive definite matrix [I, F, F] = C C^T of half-bandwidth K, and its lower band."""
    generator = torch.Generator().manual_seed(rows)
    lower = torch.rand(inputs, rows, rows, generator=generator, dtype=torch.float64).tril().triu(-degree)
    lower.diagonal(dim1=1, dim2=2).add_(degree)
    matrix = lower @ lower.mT
    padded = torch.nn.functional.pad(matrix, (degree, 0))
    return matrix, torch.stack([padded[:, f, f : f + degree + 1] for f in range(rows)], 1)


@pytest.mark.parametrize("degree", range(6))
@pytest.mark.parametrize("rows", [1, 6, 8, 32, 33, 67, 200])
def test_it_solves(rows, degree):
    matrix, band = system(rows, degree)
    expected = torch.ones(3, rows, 2, dtype=torch.float64).cumsum(2)
    found = Factor(band.clone()).solve(matrix @ expected)
    # the ridge of 64 eps and rounding, times the condition
    tolerance = 200 * torch.finfo(torch.float64).eps * torch.linalg.cond(matrix).max().item()
    assert (found - expected).abs().max() < tolerance


def test_nothing_before_the_first_column_is_read():
    _, band = system(40, 3)
    side = torch.ones(3, 40, 1, dtype=torch.float64)
    expected = Factor(band).solve(side)
    for f in range(3):
        band[:, f, : 3 - f] = torch.nan
    assert torch.equal(Factor(band).solve(side), expected)


def test_a_singular_matrix_has_a_solution():
    band = torch.ones(1, 50, 2, dtype=torch.float64)  # x[f-1] + x[f], squared and summed
    band[:, 1:-1, 1] = 2.0
    side = torch.zeros(1, 50, 1, dtype=torch.float64)
    side[:, 0], side[:, 1] = 1.0, 1.0  # of x[0] + x[1] = 1
    x = Factor(band).solve(side)[0, :, 0]
    sums = x[1:] + x[:-1]
    assert x.isfinite().all() and (sums[0] - 1).abs() < 1e-6 and sums[1:].abs().max() < 1e-6


@pytest.mark.parametrize("rows", [8, 50])
def test_an_indefinite_matrix_gives_nan(rows):
    _, band = system(rows, 2, inputs=2)
    band[1, rows - 1, 2] = -1.0
    found = Factor(band).solve(torch.ones(2, rows, 1, dtype=torch.float64))
    assert found[0].isfinite().all() and found[1].isnan().any()
