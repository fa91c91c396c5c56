"""The cases under pytest-benchmark: `pytest bench --benchmark-only`. Every candidate passes the gate first."""

from functools import cache

import pytest
import torch

from bench import cases
from bench.peers import PEERS
from fastkan.measure.correctness import Candidate, Case, Checker, Operands, Unavailable

THREADS = 2


@cache
def gate(case: Case) -> tuple[Operands, Checker]:
    problem = Operands.of(case)
    return problem, Checker(problem)


def name(case: Case) -> str:
    """Without what pytest's -k cannot read."""
    return f"{case.batch}x{case.in_features}x{case.out_features}-G{case.grid_size}"


def admitted(case: Case, peer: str) -> Candidate:
    problem, door = gate(case)
    try:
        torch._dynamo.reset()
        candidate = PEERS[peer].build(problem)
    except Unavailable as absent:
        pytest.skip(str(absent))
    if candidate.gradients is not None:
        _, reason = door.check(candidate)
        assert not reason, reason
    return candidate


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", cases.LAYERS, ids=name)
def bench_layer(benchmark, case, peer):
    """Forward and backward."""
    torch.set_num_threads(THREADS)
    benchmark.group = str(case)
    benchmark(admitted(case, peer).train)
