"""Times of forward and forward+backward of a layer: all peers at every shape."""

from collections.abc import Sequence

import torch

from fastkan.measure.correctness import Case
from fastkan.measure.peers import builds
from fastkan.measure.progress import bar
from fastkan.measure.timing import csv_rows, measure

from . import cases
from .peers import PEERS, versions

FULL, TINY = (*cases.LAYERS, *cases.NARROW), cases.TINY


def rows(which: Sequence[Case], rounds: int, peers: Sequence[str] = tuple(PEERS)) -> list[dict[str, object]]:
    """One row per case, peer and phase."""
    measured = []
    for case in which:
        torch._dynamo.reset()  # otherwise torch.compile stops compiling after a few shapes
        measured += csv_rows(measure(case, builds(peers, PEERS), rounds, progress=bar))
    known = versions()
    return [{**row, "peer_version": known.get(row["peer"], "")} for row in measured]
