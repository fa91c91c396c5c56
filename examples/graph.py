"""A graph layer of KAN edges by PyTorch Geometric's MessagePassing, beside an MLP of as many parameters.

    python examples/graph.py

Points in the unit square, neighbours within a radius; every point has a number x. The target is the mean over
neighbours j of i of sin(pi x_j) (1 - d_ij / radius)^2: a message is a function of the neighbour's number and the
distance, which is what the layer learns, by two KANLinear layers. Needs torch_geometric.
"""

import argparse
import math
import time

import torch
from torch import Tensor, nn

from fastkan.nn import KANLinear

POINTS, RADIUS = 400, 0.15
KAN_HIDDEN, HIDDEN = 5, 36


def kan(inputs: int, outputs: int) -> nn.Module:
    """Two KAN layers."""
    return nn.Sequential(
        KANLinear(inputs, KAN_HIDDEN, outside="linear"),
        KANLinear(KAN_HIDDEN, outputs, grid_range=(-2, 2), outside="linear"),
    )


def mlp(inputs: int, outputs: int) -> nn.Module:
    """Two linear layers, with about as many parameters."""
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, outputs))


def graph_layer(message: nn.Module) -> nn.Module:
    """y_i = mean_j message(x_i, x_j, d_ij): x [N, 1], edges [2, E] and distances [E, 1] -> [N, 1]."""
    from torch_geometric.nn import MessagePassing

    class Layer(MessagePassing):
        def __init__(self):
            super().__init__(aggr="mean")
            self.function = message

        def forward(self, x: Tensor, edge_index: Tensor, distance: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x, distance=distance)

        def message(self, x_i: Tensor, x_j: Tensor, distance: Tensor) -> Tensor:
            return self.function(torch.cat([x_i, x_j, distance], 1))

    return Layer()


def graph(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [N, 1] in [-1, 1], edges [2, E], distances [E, 1] scaled to [-1, 1], and the target [N, 1]."""
    generator = torch.Generator().manual_seed(seed)
    place, x = torch.rand(POINTS, 2, generator=generator), torch.rand(POINTS, 1, generator=generator) * 2 - 1
    apart = torch.cdist(place, place)
    edges = ((apart < RADIUS) & (apart > 0)).nonzero().T
    source, target = edges
    share = (apart[source, target] / RADIUS).unsqueeze(1)
    values = torch.sin(math.pi * x[source]) * (1 - share).square()
    count = torch.zeros(POINTS, 1).index_add_(0, target, torch.ones_like(values))
    return x, edges, 2 * share - 1, torch.zeros(POINTS, 1).index_add_(0, target, values) / count.clamp_min(1)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.split(",")[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="three steps")
    args = parser.parse_args(arguments)
    *inputs, y = graph(0)
    *test_inputs, y_test = graph(1)
    errors: dict[str, float] = {}
    print(f"{'':8}{'parameters':>12}{'seconds':>10}{'error':>10}  (over the target's standard deviation, a new graph)")
    for name, message in (("MLP", mlp), ("KAN", kan)):
        torch.manual_seed(0)
        model = graph_layer(message(3, 1))
        optimizer, start = torch.optim.Adam(model.parameters(), lr=1e-2), time.perf_counter()
        for _ in range(3 if args.quick else args.steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(*inputs), y).backward()
            optimizer.step()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            errors[name] = ((model(*test_inputs) - y_test).square().mean().sqrt() / y_test.std()).item()
        parameters = sum(p.numel() for p in model.parameters())
        print(f"{name:8}{parameters:12}{seconds:10.1f}{errors[name]:10.4f}")
    return errors


if __name__ == "__main__":
    main()
