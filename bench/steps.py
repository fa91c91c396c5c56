"""Times of training steps of small networks, one of them a PDE solver: on a GPU eager and as a CUDA graph.

    python -m bench.steps [--rounds N] [--threads N] [--out DIR]

measures them on the CPU, with AdamW as it comes and with fused=True, all peers in turns.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from fastkan import KANLinear, select
from fastkan.measure.correctness import RANGE, Case, Operands
from fastkan.measure.peers import BASELINE, EfficientKAN
from fastkan.measure.provenance import cpu_kind, write_csv
from fastkan.measure.table import table
from fastkan.measure.timing import quartiles, time_interleaved
from fastkan.nn import KANSequential

from .device import clock

GRID_SIZE = 5
# Relative error of a gradient: float32 is far below, a wrong gradient above.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Network:
    """Layer sizes, number of rows, and whether the loss has second derivatives with respect to the input."""

    sizes: tuple[int, ...]
    batch: int
    pde: bool = False
    grid_size: int = GRID_SIZE

    def __str__(self) -> str:
        loss = ", second derivatives" if self.pde else ""
        grid = "" if self.grid_size == GRID_SIZE else f", G = {self.grid_size}"
        return f"{'-'.join(map(str, self.sizes))}{grid}, {self.batch} rows{loss}"


FULL = (
    Network((2, 10, 1), 1000, pde=True), Network((784, 64, 10), 512), Network((2, 5, 1), 1000),
    Network((784, 64, 10), 8192), Network((2, 10, 1), 10_000, pde=True), Network((4, 10, 10, 1), 1000),
)  # fmt: skip
ON_CPU = (
    Network((64, 64, 10), 64), Network((784, 64, 10), 64), Network((784, 64, 10), 512),
    Network((20, 32, 32, 1), 256, grid_size=8), Network((2, 5, 1), 1000), Network((4, 10, 10, 1), 1000),
    Network((256, 256, 256), 1024), Network((2, 10, 1), 1000, pde=True),
)  # fmt: skip
OPTIMIZERS = {"AdamW": {}, "AdamW(fused=True)": {"fused": True}}
CPU = torch.device("cpu")
TINY = (Network((2, 3, 1), 8), Network((2, 3, 1), 8, pde=True))


def kan(network: Network, device: torch.device, backend: str, **options) -> nn.Module:
    torch.manual_seed(0)
    layers = (
        KANLinear(i, o, network.grid_size, backend=backend, device=device, **options)
        for i, o in itertools.pairwise(network.sizes)
    )
    return nn.Sequential(*layers)


def perceptron(network: Network, device: torch.device) -> nn.Module:
    """An MLP with as many parameters as the KAN and hidden layers of one width w: q w^2 + p w + c = parameters."""
    first, *hidden, last = network.sizes
    parameters = sum(i * o * (network.grid_size + 4) for i, o in itertools.pairwise(network.sizes))
    q, p, c = len(hidden) - 1, first + len(hidden) + last, last - parameters
    width = max(1, round((math.sqrt(p * p - 4 * q * c) - p) / (2 * q) if q else -c / p))
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise((first, *(width for _ in hidden), last)):
        layers += [nn.Linear(i, o, device=device), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def efficient_kan(network: Network, device: torch.device) -> nn.Module:
    cases = (Case(network.batch, i, o, network.grid_size) for i, o in itertools.pairwise(network.sizes))
    layers = [EfficientKAN(Operands.of(case, device=device)).to(device) for case in cases]
    for layer in layers:
        layer.spline_weight.data *= 0.1  # otherwise the second layer's inputs are all outside its grid
    return nn.Sequential(*layers)


PEERS: dict[str, Callable[[Network, torch.device], nn.Module]] = {
    BASELINE: perceptron,
    "native": lambda network, device: kan(network, device, "native"),
    "native-stack": lambda network, device: KANSequential(*kan(network, device, "native")),
    "triton": lambda network, device: kan(network, device, "triton"),
    "efficient-kan": efficient_kan,
}


class Training:
    """A network with data and an AdamW optimizer with these options."""

    def __init__(
        self, network: Network, model: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32, **options
    ):
        drawn = {"generator": torch.Generator(device).manual_seed(0), "device": device}
        low, high = RANGE
        self.model, self.pde = model, network.pde
        self.x = (low + (high - low) * torch.rand(network.batch, network.sizes[0], **drawn)).to(dtype)
        self.y = torch.randn(network.batch, network.sizes[-1], **drawn).to(dtype)
        self.x.requires_grad_(network.pde)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, capturable=device.type == "cuda", **options)

    def loss(self) -> Tensor:
        u = self.model(self.x)
        if not self.pde:
            return nn.functional.mse_loss(u, self.y)
        (slope,) = torch.autograd.grad(u.sum(), self.x, create_graph=True)
        curves = (
            torch.autograd.grad(slope[:, k].sum(), self.x, create_graph=True)[0][:, k] for k in range(slope.shape[1])
        )  # fmt: skip
        return (sum(curves) + 1).square().mean() + u.square().mean()

    def gradients(self) -> list[Tensor]:
        return list(torch.autograd.grad(self.loss(), list(self.model.parameters())))

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward(inputs=list(self.model.parameters()))
        self.optimizer.step()

    def captured(self) -> Callable[[], None]:
        """Capture the training step in a CUDA graph; returns its replay."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay


def wrong(network: Network, peer: str, device: torch.device) -> str:
    """Description of a wrong gradient of this peer, compared with the reference in float64; '' if all are right."""
    found = Training(network, PEERS[peer](network, device), device)
    exact = kan(network, device, "reference").double()
    truth = Training(network, exact, device, torch.float64)
    truth.x = found.x.detach().double().requires_grad_(network.pde)
    truth.y = found.y.double()
    for k, (got, want) in enumerate(zip(found.gradients(), truth.gradients(), strict=True)):
        error = float((got.double() - want).norm() / want.norm())
        if not error <= TOLERANCE:
            return f"wrong: the gradient of parameter {k} is off by {error:.1e} of its norm, tolerance {TOLERANCE:.0e}"
    return ""


def _absence(network: Network, peer: str, device: torch.device) -> str:
    """Reason not to time a peer, or ''."""
    backend = peer.removesuffix("-stack")
    if backend not in select.BACKENDS:
        return ""
    return select.missing(backend, device.type, (torch.float32,)) or wrong(network, peer, device)


def rows(
    which: Network, rounds: int, device: torch.device, optimizers: Sequence[str] = ()
) -> Iterator[dict[str, object]]:
    """One row per peer and mode: eager and, on a GPU, in a graph; or eager with each of these of OPTIMIZERS."""
    runs, failed, count = {}, {}, {}
    modes = tuple(optimizers) or (("eager", "graph") if device.type == "cuda" else ("eager",))
    for peer, mode in itertools.product(PEERS, modes):
        try:
            reason = _absence(which, peer, device)
            if not reason:
                training = Training(which, PEERS[peer](which, device), device, **OPTIMIZERS.get(mode, {}))
                count[peer] = sum(p.numel() for p in training.model.parameters())
                runs[peer, mode] = training.captured() if mode == "graph" else training.step
        except Exception as failure:  # becomes a row of the table
            reason = f"fails: {type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}"
        failed[peer, mode] = reason
    times, _ = time_interleaved(runs, rounds, 2e-3, label=str(which), sample=clock(device))
    for peer, mode in failed:
        row = {
            "network": str(which), "peer": peer, "mode": mode, "parameters": count.get(peer, ""), "seconds": "",
            "seconds_q1": "", "seconds_q3": "", "ratio": "", "reason": failed[peer, mode],
        }  # fmt: skip
        if samples := times.get((peer, mode)):
            low, high = quartiles(samples)
            row |= {"seconds": f"{median(samples):.4g}", "seconds_q1": f"{low:.4g}", "seconds_q3": f"{high:.4g}"}
            if base := times.get((BASELINE, mode)):
                row["ratio"] = f"{median(a / b for a, b in zip(samples, base, strict=True)):.4g}"
        yield row


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for steps.csv; default: by the kind of CPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = [row for network in ON_CPU for row in rows(network, args.rounds, CPU, tuple(OPTIMIZERS))]
    columns = ("network", "mode", "peer", "seconds", "ratio")
    timed = [row for row in found if row["seconds"]]
    print(table(columns, [[str(row[c]) for c in columns] for row in timed], left=3))
    write_csv((args.out or Path(__file__).parent / "results" / cpu_kind()) / "steps.csv", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
