"""Tests of a compiled backend's other basis families; a file that imports them defines the fixture `native`."""

import itertools
from dataclasses import replace

import pytest
import torch

from fastkan import reference
from fastkan.spec import Spec
from fastkan.testing import CONTRACTIONS, assert_matches_reference, assert_within, call
from support.families import family_problem
from support.problems import BF16, DOUBLE, SINGLE


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
def test_gaussians_have_the_error_of_their_argument(native, dtype):
    """Relative, over the whole range of the type: exp(-t^2) takes t with two roundings, and its own are eight."""
    grid, eps = torch.linspace(-1.0, 1.0, 9, dtype=DOUBLE)[None], torch.finfo(dtype).eps
    x = torch.linspace(-6, 6, 20001, dtype=dtype)[:, None]
    coef = torch.eye(8, dtype=dtype)[None]  # outputs are functions
    found = native.kan_out(x, None, coef, None, None, grid, Spec.of(0, "zero", "zero", True, "rbf"), 0).double()
    t = (x.double() + 1) * 4 - torch.arange(8) - 0.5
    truth = torch.exp(-t * t)
    assert_within(found, truth, (4 * t * t + 8) * eps * truth + 2 * torch.finfo(dtype).tiny)
    assert (found[t.abs() > 30] == 0).all()


def test_native_reads_any_strides_and_empty_batches(native):
    p = family_problem("rbf", 30, 5, 7, functions=9, weighted=True)
    other = replace(
        p, x=p.x.t().contiguous().t(), u=p.u.repeat_interleave(2, 1)[:, ::2], s=p.s[:1].expand(30, -1),
        coef=p.coef.permute(2, 0, 1).contiguous().permute(1, 2, 0), grid=p.grid[:1].expand(5, -1),
    )  # fmt: skip
    for contraction in CONTRACTIONS:
        assert_matches_reference(native, contraction, other)
        empty = replace(p, x=p.x[:0], u=p.u[:0], s=p.s[:0])
        for got, want in zip(call(native, contraction, empty), call(reference, contraction, empty), strict=True):
            assert got.shape == want.shape and torch.equal(got.nan_to_num(7), want.nan_to_num(7))


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE, BF16], ids=str)
def test_native_far_from_the_grid(native, dtype):
    p = family_problem("rbf", 6, 2, 3, functions=40, base=None, with_bias=False, dtype=dtype)
    p.x[:] = torch.tensor([torch.inf, -torch.inf, 1e30, -1e30, 1e4, -50.0])[:, None]
    for order, contraction in itertools.product((0, 1, 3), CONTRACTIONS):
        for found in call(native, contraction, replace(p, order=order, terms=p.terms * 0)):
            assert torch.equal(found, torch.zeros_like(found))
