"""Stacks of layers with random options, and losses of their derivatives."""

import itertools
import random

import torch

from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.stack import Layer
from fastkan.testing import KNOTS, Problem
from support.problems import DOUBLE


def layers(widths: tuple[int, ...], seed: int = 0, dtype: torch.dtype = DOUBLE, **fixed) -> list[Layer]:
    """Layers of these widths with random degree, grid, base, outside and optional tensors, unless fixed."""
    draw, found = random.Random(seed), []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        drawn = {
            "degree": draw.choice(range(6)), "outside": draw.choice(OUTSIDE), "knots": draw.choice(KNOTS),
            "base": draw.choice((None, *BASES)), "per_input": draw.random() < 0.5, "with_bias": draw.random() < 0.5,
        }  # fmt: skip
        size = draw.choice((1, 2, 5, 9))
        p = Problem.random(1, inputs, outputs, size, seed=seed + number, dtype=dtype, **drawn | fixed)
        scale = p.terms[0] if draw.random() < 0.5 else None
        part = 0.5 / inputs**0.5  # most outputs lie within the next layer's grid
        coef, base_weight = p.coef * part, None if p.base_weight is None else p.base_weight * part
        found.append(Layer(coef, scale, base_weight, p.bias, p.grid, p.spec))
    return found


def smooth(widths: tuple[int, ...] = (3, 4, 2), **fixed) -> list[Layer]:
    """Layers whose derivatives of several orders are continuous, with every tensor."""
    made = layers(widths, **{"degree": 5, "base": "silu", "outside": "zero", "with_bias": True, **fixed})
    return [
        m
        if m.scale is not None
        else m._replace(scale=torch.linspace(0.5, 1.5, m.coef[:, 0].numel(), dtype=m.coef.dtype).view_as(m.coef[:, 0]))
        for m in made
    ]


def leaves(made: list[Layer]) -> list[Layer]:
    """Copies whose weights require gradients."""
    return [Layer(*(None if t is None else t.clone().requires_grad_() for t in m[:4]), m.grid, m.spec) for m in made]


def weights(made: list[Layer]) -> list[torch.Tensor]:
    return [t for m in made for t in m[:4] if t is not None]


def rows(number: int, width: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(number, width, generator=generator, dtype=DOUBLE) * 2.4 - 1.2).to(dtype)


def nested(f, x, parameters, depth: int, by_weights: bool) -> list[torch.Tensor]:
    """Gradients of a scalar function of gradients, and so on, by x, at the last level by everything."""
    outputs, found = [f(x)], []
    for level in range(depth):
        number = sum((o.mean() * (k + 1) + o.square() / (1 + o.square())).sum() for k, o in enumerate(outputs))
        last = level + 1 == depth
        by = [x, *parameters] if last or by_weights else [x]
        outputs = [
            g for g in torch.autograd.grad(number, by, create_graph=not last, allow_unused=True) if g is not None
        ]
        found += [g.detach() for g in outputs]
    return found


def burgers(f, x: torch.Tensor) -> torch.Tensor:
    """A loss of values, first and second derivatives: u_t + u u_x - u_xx, with cotangents that depend on u."""
    u = f(x)
    (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (flux,) = torch.autograd.grad((du[:, 0] * (1 + u[:, 0].square())).sum(), x, create_graph=True)
    residual = du[:, 1] + u[:, 0] * du[:, 0] - flux[:, 0]
    return residual.square().mean() + (u - 1).square().mean()
