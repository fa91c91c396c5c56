"""What a device can do beyond running an operator: streams, graphs, a clock."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..measure.timing import Sample, event_clock, wall_clock

Results = tuple[torch.Tensor, ...]
WARM_UP = 3


class Host:
    """A device without streams and graphs, on which the checks themselves are tested."""

    clock: Sample = staticmethod(wall_clock)
    # rows, inputs, outputs, grid size
    load = (70, 3, 5, 5)
    race = ((16, 2, 2, 5), (33, 3, 2, 5), (9, 2, 3, 20))

    def __init__(self, device: torch.device):
        self.device = device

    def synchronize(self) -> None:
        """Wait for the device; raises what went wrong there."""

    def at_once(self, runs: Sequence[Callable[[], Results]]) -> list[Results]:
        """Results of calls on as many streams, none waiting for another."""
        return [run() for run in runs]

    def replayed(self, run: Callable[[], Results], prepare: Callable[[], None]) -> Results | None:
        """Results of a graph that was captured from `run` and replayed after `prepare`; None without graphs."""


class Cuda(Host):
    """A GPU of NVIDIA or AMD."""

    clock: Sample = staticmethod(event_clock)
    load = (1024, 48, 48, 5)
    race = ((4096, 64, 64, 5), (16384, 256, 256, 5), (1024, 64, 64, 200))

    def __init__(self, device: torch.device):
        super().__init__(device)
        torch.cuda.set_device(device)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def at_once(self, runs: Sequence[Callable[[], Results]]) -> list[Results]:
        streams: list[Any] = [torch.cuda.Stream(self.device) for _ in runs]
        found: list[Results] = []
        self.synchronize()
        for _ in range(WARM_UP):
            found = []
            for stream, run in zip(streams, runs, strict=True):
                with torch.cuda.stream(stream):
                    found.append(run())
        self.synchronize()
        return found

    def replayed(self, run: Callable[[], Results], prepare: Callable[[], None]) -> Results | None:
        side = torch.cuda.Stream(self.device)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run()
        self.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = run()
        for _ in range(WARM_UP):
            prepare()
            for t in results:
                t.fill_(torch.nan)
            graph.replay()
        self.synchronize()
        return results


def of(device: torch.device) -> Host:
    return Cuda(device) if device.type == "cuda" else Host(device)
