"""The checks of one implementation: parity with the reference on the host, repeats, streams, graphs, and the race."""

from statistics import median
from typing import Any

import torch

from ..kinds import Kind
from ..measure.timing import time_interleaved
from ..select import functions_of
from . import contractions, stacks
from .accelerator import Host, Results

REPEATS = 50
STREAMS = 3
ROUNDS = 9


def parity(name: str, kind: Kind, host: Host) -> None:
    """AssertionError at the first result that is farther from the reference's than rounding explains."""
    for case in _of(name).cases(kind):
        case.check(case.run(functions_of(name), case.on(host.device)))


def steadiness(name: str, kind: Kind, host: Host) -> None:
    """AssertionError unless repeats are equal bit for bit, and results right on several streams and in a graph."""
    case = _of(name).load(kind, host.load)
    operands = case.on(host.device)

    def run() -> Results:
        return case.run(functions_of(name), operands)

    first = run()
    for n in range(1, REPEATS):
        same = all(map(torch.equal, first, run()))
        assert same, f"call {n + 1} of equal ones gives another result than the first"
    for results in host.at_once([run] * STREAMS):
        case.check(results, f"on {STREAMS} streams")
    varied = [(t, t.clone()) for t in _of(name).varied(operands)]

    def restore() -> None:  # the graph must read its operands anew
        for t, values in varied:
            t.copy_(values)

    for t, _ in varied:
        t.zero_()
    replayed = host.replayed(run, restore)
    restore()
    if replayed is not None:
        case.check(replayed, "in a replayed graph")


def race(name: str, kind: Kind, host: Host) -> tuple[float, ...]:
    """How many times as fast as dense forward and backward are, at each shape of the device's race."""
    ratios = []
    for shape in host.race:
        runs = _of(name).steps(name, kind, shape, host.device)
        times, _ = time_interleaved({"dense": runs[0], name: runs[1]}, ROUNDS, sample=host.clock)
        ratios.append(median(a / b for a, b in zip(times["dense"], times[name], strict=True)))
    return tuple(ratios)


def _of(name: str) -> Any:
    return stacks if name.endswith(":stack") else contractions
