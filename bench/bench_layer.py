"""The cases under pytest-benchmark: `pytest bench --benchmark-only`. Every candidate is checked first."""

from functools import cache

import pytest
import torch

from bench import cases
from bench.peers import PEERS
from fastkan.measure.correctness import Candidate, Case, Checker, Operands, Unavailable

THREADS = 2


@cache
def checked_problem(case: Case) -> tuple[Operands, Checker]:
    problem = Operands.of(case)
    return problem, Checker(problem)


def name(case: Case) -> str:
    """A name that pytest's -k can parse."""
    return f"{case.batch}x{case.in_features}x{case.out_features}-G{case.grid_size}"


def checked(case: Case, peer: str) -> Candidate:
    problem, checker = checked_problem(case)
    try:
        torch._dynamo.reset()
        candidate = PEERS[peer].build(problem)
    except Unavailable as absent:
        pytest.skip(str(absent))
    if candidate.gradients is not None:
        _, reason = checker.check(candidate)
        assert not reason, reason
    return candidate


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", cases.LAYERS, ids=name)
def bench_layer(benchmark, case, peer):
    """Time forward and backward."""
    torch.set_num_threads(THREADS)
    benchmark.group = str(case)
    benchmark(checked(case, peer).train)
