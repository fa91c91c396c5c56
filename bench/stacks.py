"""Times of loss and gradients of small networks: in one call each way, layer by layer, and of an MLP."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import torch
from torch import nn

from fastkan import KAN
from fastkan.measure.timing import quartiles, time_interleaved
from fastkan.nn import KANSequential

from .steps import GRID_SIZE, TOLERANCE, Network, Training, kan

CPU = torch.device("cpu")
BASELINE = "mlp"
FULL = (Network((2, 5, 1), 1000), Network((4, 10, 10, 1), 1000), Network((2, 10, 1), 1000, pde=True))
TINY = (Network((2, 3, 1), 8), Network((2, 3, 1), 8, pde=True))


def mlp(network: Network) -> nn.Module:
    """An MLP of nn.Linear and SiLU with the same widths."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(network.sizes):
        layers += [nn.Linear(i, o), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


PEERS: dict[str, Callable[[Network], nn.Module]] = {
    BASELINE: mlp,
    "whole": lambda network: KANSequential(*kan(network, CPU, "native")),
    "layers": lambda network: kan(network, CPU, "native"),
    "KAN": lambda network: KAN(network.sizes, grid=GRID_SIZE, backend="native"),
}
LABELS = {
    BASELINE: "MLP, same widths", "whole": "fastkan, KANSequential", "layers": "fastkan, nn.Sequential",
    "KAN": "fastkan, KAN",
}  # fmt: skip


def wrong(network: Network, peer: str) -> str:
    """Description of wrong gradients of a peer, compared with the reference in float64; '' if they are right."""
    if peer == BASELINE:
        return ""
    model = PEERS[peer](network)
    tested, exact = Training(network, model, CPU), PEERS[peer](network).double()
    exact.load_state_dict(model.state_dict())
    for module in exact.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"
    truth = Training(network, exact, CPU, torch.float64)
    truth.x, truth.y = tested.x.detach().double().requires_grad_(network.pde), tested.y.double()
    worst = max(
        float((got.double() - want).norm() / want.norm())
        for got, want in zip(gradients(tested), gradients(truth), strict=True)
    )
    return "" if worst <= TOLERANCE else f"wrong: a gradient is off by {worst:.1e} of its norm"


def gradients(training: Training) -> tuple[torch.Tensor, ...]:
    wanted = [p for p in training.model.parameters() if p.requires_grad]
    return torch.autograd.grad(training.loss(), wanted)


def step(training: Training) -> None:
    for p in training.model.parameters():
        p.grad = None
    training.loss().backward()


def rows(which: Sequence[Network], rounds: int) -> list[dict[str, object]]:
    """One row per network and peer; a peer with wrong gradients is not timed."""
    return [row for network in which for row in _rows(network, rounds)]


def _rows(network: Network, rounds: int) -> Iterator[dict[str, object]]:
    reasons = {peer: wrong(network, peer) for peer in PEERS}
    trainings = {peer: Training(network, PEERS[peer](network), CPU) for peer in PEERS if not reasons[peer]}
    runs = {peer: lambda t=training: step(t) for peer, training in trainings.items()}
    times, _ = time_interleaved(runs, rounds, 5e-3, label=str(network))
    for peer, reason in reasons.items():
        row = {"network": str(network), "peer": peer, "seconds": "", "seconds_q1": "", "seconds_q3": "", "ratio": ""}
        if samples := times.get(peer):
            low, high = quartiles(samples)
            row |= {"seconds": f"{median(samples):.4g}", "seconds_q1": f"{low:.4g}", "seconds_q3": f"{high:.4g}"}
            row["ratio"] = f"{median(a / b for a, b in zip(samples, times[BASELINE], strict=True)):.4g}"
        yield row | {"reason": reason}
