"""The CUDA backend without its matrix products: on the emulated GPU, and which operators it calls."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastkan import ops
from fastkan.backends import native
from fastkan.testing import CONTRACTIONS, Problem, assert_matches_reference, call
from support.emulated import BACKEND, MAJOR, algorithm
from support.matrix_product_tests import ALGORITHM, LARGE
from support.matrix_product_tests import CONTRACTIONS as OF_PRODUCTS
from support.problems import BF16, DOUBLE, HALF, SINGLE
from test_cuda_wide import Operators

each_contraction = pytest.mark.parametrize("contraction", CONTRACTIONS)


@each_contraction
@pytest.mark.parametrize("asked", ["", "gather", "matrix", "wgmma"])
@pytest.mark.parametrize("dtype", [BF16, HALF, SINGLE, DOUBLE], ids=str)
def test_never_a_matrix_product(monkeypatch, contraction, asked, dtype):
    """In shapes for which the GPU's best choice is another, and whatever is asked of the whole backend."""
    monkeypatch.setenv(ALGORITHM, asked)
    monkeypatch.setenv(MAJOR, "9")
    p = Problem.random(**{**LARGE, "dtype": dtype}, weighted=True)
    if asked == "" and dtype == BF16 and contraction in OF_PRODUCTS:
        assert_matches_reference(BACKEND, contraction, p)
        assert algorithm() == ("wgmma" if contraction == "kan_out" else "matrix")
    assert_matches_reference(BACKEND.gather, contraction, p)
    assert algorithm() == "gather"


@each_contraction
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_operators_of_the_form(contraction, precision):
    """Those without products at every precision; edges have no other kernels."""
    p = Problem.random(2, 2, 4, 5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with FakeTensorMode(), Operators() as ran:
            tensors = {name: torch.empty(t.shape, dtype=t.dtype, device="cuda")
                       for name, t in vars(p).items() if isinstance(t, torch.Tensor)}  # fmt: skip
            call(native.gather, contraction, replace(p, **tensors))
    finally:
        torch.set_float32_matmul_precision(before)
    form = "" if contraction.startswith("edge") else ops.GATHER
    assert ran.names[-1] == f"fastkan::{contraction}{form}"


def test_it_is_for_nvidias_gpus_alone(monkeypatch):
    monkeypatch.setitem(native.ABSENT, "cuda", None)
    monkeypatch.setattr(native, "_unserved_here", lambda: None)
    assert native.gather.missing("cuda", (SINGLE, BF16)) is None
    assert native.gather.missing("cuda", (torch.int32,)) == "no compiled kernels for torch.int32"
    reason = "gathering alone is a choice on NVIDIA's GPUs, not on device 'cpu'"
    assert native.gather.missing("cpu", (SINGLE,)) == reason
