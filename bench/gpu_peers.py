"""Candidates on a GPU alone: kernels that run only by name."""

import os

import torch
from torch import Tensor

from fastkan.measure.correctness import Candidate, Operands, Unavailable
from fastkan.measure.peers import fastkan

from .kernels import ALGORITHM


def with_tma(problem: Operands) -> Candidate:
    """The compiled kernels with the forward that copies by TMA."""
    x = problem.x
    if x.device.type != "cuda" or torch.cuda.get_device_capability(x.device)[0] != 9 or x.dtype.itemsize != 2:
        raise Unavailable("the TMA kernels take sm_90 and 16 bits")
    candidate = fastkan("native")(problem)
    forward = candidate.forward

    def run(x: Tensor) -> Tensor:
        os.environ[ALGORITHM] = "tma"
        try:
            return forward(x)
        finally:
            del os.environ[ALGORITHM]

    candidate.forward = run
    return candidate
