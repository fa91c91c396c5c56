"""Quasiperiodic tight-binding chains with a mobility edge: Mosaic, generalised and modified Aubry-Andre models."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastkan import KAN

GOLDEN = (1 + 5**0.5) / 2
SITES = 377
STATES = 40  # of every chain, to train, choose and test on


class Chain(NamedTuple):
    """A family of chains with the parameters a and b, drawn from these ranges; potential: of cos(2 pi n b + phase) and
    the parameters; far: whether the hopping is exp(b - b |n - m|), or else 1 between neighbours; edge: of energy and
    parameters, positive for extended states, and its formula; by_hand: the edges (input, node, function) that the
    formula needs in a network of a sum, 0, and a product of 1 and 2; papers: accuracies of the paper's KANs."""

    names: list[str]
    ranges: tuple[tuple[float, float], tuple[float, float]]
    potential: Callable[[Tensor, Tensor, Tensor], Tensor]
    far: bool
    edge: Callable[[Tensor, Tensor, Tensor], Tensor]
    formula: str
    by_hand: tuple[tuple[int, int, str], ...]
    papers: dict[str, float]


SITE = torch.arange(SITES, dtype=torch.float64)
CHAINS = {
    "Mosaic": Chain(
        ["E", "lambda"], ((0.5, 5.5), (0.0, 1.0)), lambda c, a, b: a * c * (SITE % 2 == 0), False,
        lambda e, a, b: 2 - a * e.abs(), "2 - lambda Abs(E)", ((0, 1, "abs"), (1, 2, "x")), {},
    ),
    "GAAM": Chain(
        ["E", "lambda", "alpha"], ((0.2, 1.8), (0.0, 0.9)), lambda c, a, b: 2 * a * c / (1 - b * c), False,
        lambda e, a, b: 2 - 2 * a - b * e, "2 - 2 lambda - alpha E", ((1, 0, "x"), (0, 1, "x"), (2, 2, "x")),
        {"numeric": 0.987, "automatic": 0.989},
    ),
    "MAAM": Chain(
        ["E", "lambda", "p"], ((0.5, 4.0), (0.7, 3.0)), lambda c, a, b: a * c, True,
        lambda e, a, b: e + b.exp() - a * b.cosh(), "E + exp(p) - lambda cosh(p)",
        ((0, 0, "x"), (2, 0, "exp"), (1, 1, "x"), (2, 2, "cosh")),
        {"numeric": 0.984, "automatic": 0.971, "by hand": 0.969},
    ),
}  # fmt: skip


def states(chain: Chain, count: int) -> tuple[Tensor, Tensor]:
    """Energy, parameters [count, STATES, 3] and fractal dimension of STATES states of each of `count` random chains."""
    generator, found = torch.Generator().manual_seed(0), []
    distance = (SITE[:, None] - SITE).abs()
    for u in torch.rand(count, 3, dtype=torch.float64, generator=generator):
        a, b = (low + (high - low) * v for (low, high), v in zip(chain.ranges, u[:2], strict=True))
        hopping = torch.exp(b - b * distance).fill_diagonal_(0) if chain.far else (distance == 1).double()
        potential = chain.potential(torch.cos(2 * math.pi * (GOLDEN * SITE + u[2])), a, b)
        energies, vectors = torch.linalg.eigh(hopping + torch.diag(potential))
        dimension = -(vectors**4).sum(0).log() / math.log(SITES)
        some = torch.randperm(SITES, generator=generator)[:STATES]
        found.append(torch.stack([energies, a.expand(SITES), b.expand(SITES), dimension], 1)[some])
    x = torch.stack(found)
    return x[..., :3], x[..., 3:]


def accuracy(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return ((model(x) > 0) == (y > 0.5)).double().mean().item()


class Task:
    """Chains to train on, to choose by and to test on: whether each state is extended."""

    def __init__(self, chain: Chain, quick: bool):
        x, dimension = states(chain, 16 if quick else 400)
        self.theory = lambda x: chain.edge(x[:, :1], x[:, 1:2], x[:, -1:])
        x, y, n = x[..., : len(chain.names)], (dimension > 0.5).double(), len(x)
        parts = slice(0, n * 5 // 8), slice(n * 5 // 8, n * 3 // 4), slice(n * 3 // 4, n)
        (self.x, self.y), self.valid, self.test = ((x[part].flatten(0, 1), y[part].flatten(0, 1)) for part in parts)
        self.steps, self.starts = (2, 1) if quick else (12, 2)

    def fit(self, model: KAN) -> KAN:
        """By L-BFGS; the output is the logarithm of the odds that the state is extended."""
        data, loss = (self.x, self.y, *self.valid), nn.functional.binary_cross_entropy_with_logits
        model.fit(data, steps=self.steps, loss_fn=loss, keep_best=True, progress=False)
        return model

    def best(self, models: Sequence) -> Any:
        return max(models, key=lambda model: accuracy(model, *self.valid))
