"""What the experiments on differential equations share: L-BFGS for other networks, the table, the figure."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor, nn

from fastkan import science


def lattice(low: float, n: int, m: int) -> Tensor:
    """n by m points of the square."""
    first, second = (torch.linspace(low, 1, size, dtype=torch.float64) for size in (n, m))
    return torch.cartesian_prod(first, second)


class ByAutograd(nn.Module):
    """A network that is not fastkan's, with KAN.derivatives to order 2."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def derivatives(self, x: Tensor, order: int) -> list[Tensor]:
        first = science.batch_jacobian(self.network, x, create_graph=True)
        second = science.batch_hessian(self.network, x, create_graph=True) if order > 1 else first[..., None]
        return [self(x), first[:, None], second.diagonal(dim1=-2, dim2=-1)[:, None]]


def by_lbfgs(network: nn.Module, terms: Callable[[Any], list[Tensor]], steps: int) -> nn.Module:
    """Train a network that is not fastkan's by L-BFGS, through autograd; returns it with KAN.derivatives."""
    model = ByAutograd(network)
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", history_size=50)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([term.square().mean() for term in terms(model)]).sum()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)  # type: ignore[arg-type]
    return model


def row(equation: str, name: str, error: float, count: int, steps: int | None = None, seconds: float = 0.0) -> dict:
    """A row of the table; count: of the parameters. Without steps, of a published result."""
    found = {"equation": equation, "network": name, "relative L2 error": error, "parameters": count}
    return {**found, "steps": steps, "seconds": steps and round(seconds, 1)}


def figure(parts: Sequence[tuple[str, tuple[str, str], Any, Any, Any]], rows: Sequence[dict[str, Any]]) -> Figure:
    """Of each equation (name, names of the inputs, the inputs, the solution): the solution, and the networks' errors
    against their numbers of parameters."""
    whole = Figure(figsize=(9, 6), layout="constrained")
    for (left, right), (name, labels, first, second, solution) in zip(whole.subplots(2, 2), parts, strict=True):
        picture = left.pcolormesh(first, second, solution.T, cmap="RdBu_r", shading="gouraud")
        whole.colorbar(picture, ax=left)
        left.set(xlabel=labels[0], ylabel=labels[1], title=f"{name}: solution")
        shown = [row for row in rows if row["equation"] == name]
        counts, errors = ([float(row[c]) for row in shown] for c in ("parameters", "relative L2 error"))
        for row, count, error in zip(shown, counts, errors, strict=True):
            right.loglog(count, error, "o" if "fastkan" in row["network"] else "s", label=row["network"])
        right.set(xlim=decades(counts), ylim=decades(errors, below=2), title=f"{name}: errors")
        right.set(xlabel="parameters", ylabel="relative L2 error")
        right.xaxis.set_minor_formatter(NullFormatter())
        right.legend(fontsize=7)
    return whole


def decades(values: Sequence[float], below: int = 0) -> tuple[float, float]:
    """The powers of ten around the values; below: further ones under them, with room for a legend."""
    return 10.0 ** (math.floor(math.log10(min(values))) - below), 10.0 ** math.ceil(math.log10(max(values)))
