"""The vocabulary of the search: what may be summed, and what may be multiplied, in three sizes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .columns import (
    MORE_SHIFTS,
    SHIFTS,
    SMOOTH,
    WAVES,
    Columns,
    distinct,
    functions,
    inputs,
    join,
    monomials,
    powers,
    products,
    sums,
)


class Size(NamedTuple):
    """Numbers of monomials, of those that functions are applied to, and of the columns of every further kind."""

    monomials: int
    arguments: int
    kind: int


SUMMANDS = Size(150, 60, 500), Size(500, 100, 1500), Size(2000, 250, 3500)
FACTORS = Size(150, 60, 500), Size(400, 200, 1500), Size(1500, 500, 3000)
OF_SUMS = ("cos(z)", "sin(z)", "exp(z)", "log(z)", "Abs(z)", "1 - cos(z)", "tanh(z)", "1 + z", "1 - z")


def summands(x: Tensor, columns: Sequence[int], level: int) -> Columns:
    """Terms of a sum: monomials, functions of them and of sums of two, powers of sums, and products of these."""
    size = SUMMANDS[level]
    monomial = monomials(x, columns, size.monomials).cheapest()
    few, single = monomial.first(25), inputs(x, columns)
    function = functions((*SMOOTH, "Abs(z)"), monomial.first(size.arguments)).cheapest(2 * size.kind)
    total = sums(few).cheapest(200)
    of_total = functions(OF_SUMS, total).cheapest(size.kind)
    power = [
        powers(total, (2, -1, -2, 0.5, -0.5)),
        powers(functions((*SHIFTS, *MORE_SHIFTS), single), (-1, -2)),
        powers(functions(SHIFTS[:2], few), (-1, 0.5, -0.5)),
    ]
    power = join(power).cheapest(size.kind)
    both = join([function, of_total]).cheapest(size.kind // 5)
    parts = [
        *(monomial, function, total, of_total, power),
        products(_waves(x, columns), monomial.first(size.arguments)).cheapest(size.kind),
        products(both, monomial.first(40)).cheapest(size.kind),
        products(power.first(200), monomial.first(40)).cheapest(size.kind),
        products(total.first(60), total.first(60)).cheapest(size.kind // 3),
        products(function.first(120), function.first(120)).cheapest(size.kind // 2),
    ]
    found = join(parts).cheapest()
    return found.take(distinct(found.values, found.costs, x.new_ones(len(x), 1)))


def alike(x: Tensor, columns: Sequence[int]) -> list[Columns]:
    """Sets of terms of the same kind: one power of every input, products of two, powers of all differences of two."""
    single = inputs(x, columns)
    sets = [single, *(powers(single, (p,)) for p in (2, 3, 4, 0.5, -1, -2))]
    if len(columns) > 2:
        pair = sums(single)
        sets += [products(single, single), *(powers(pair, (p,)) for p in (2, 4)), functions(("Abs(z)",), pair)]
    found = [part.cheapest() for part in sets]
    return [part.take(distinct(part.values, part.costs, x.new_ones(len(x), 1))) for part in found if len(part) > 2]


def factors(x: Tensor, columns: Sequence[int], level: int) -> tuple[Columns, Tensor]:
    """Factors of a product besides powers of inputs, and the logarithms of their sizes.

    1 + M stands for all sums of two monomials, since M_1 + M_2 = M_1 (1 + M_2 / M_1). Those that are exponentials
    have their arguments for logarithms, so that any multiple of the argument is found.
    """
    size = FACTORS[level]
    monomial = monomials(x, columns, size.monomials).cheapest()
    total = sums(monomial.first(30)).cheapest(size.kind // 5)
    wave = _waves(x, columns)
    waves = join([wave, products(wave, monomial.first(size.arguments)).cheapest(size.kind)])
    parts = [
        wave,
        functions(SHIFTS[:2], monomial),
        functions(MORE_SHIFTS, inputs(x, columns)),
        functions([name for name in (*SMOOTH, *SHIFTS[2:]) if name != "exp(z)"], monomial.first(size.arguments)),
        functions(("cos(z)", "sin(z)", "1 - cos(z)", "1 + cos(z)", "exp(z) - 1", "tanh(z)", "log(z)"), total),
        functions(SHIFTS[:2], waves),
        sums(join([monomial.first(20), wave]).cheapest(60)).cheapest(size.kind),
        functions(SHIFTS[:2], sums(monomial.first(60)).cheapest(size.kind // 2)),
    ]
    arguments = [monomial, total, waves]
    if len(columns) > 1:
        pair = sums(inputs(x, columns)).cheapest(60)
        square = powers(pair, (2,))
        scaled = products(pair, monomial.first(40)).cheapest(size.kind // 2)
        parts.append(functions(("cos(z)", "sin(z)", "1 - cos(z)"), scaled))
        arguments += [scaled, square, products(square, monomial.first(40)).cheapest(size.kind // 2)]
    plain, argument = join(parts).cheapest(), join(arguments).cheapest()
    logs = torch.cat([plain.values.abs().log(), argument.values], 1)
    values = torch.cat([plain.values, torch.ones_like(argument.values)], 1)
    costs = torch.cat([plain.costs, argument.costs + 1.5])

    def describe(c: int):
        return plain.describe(c) if c < len(plain) else ("exp(z)", argument.describe(c - len(plain)))

    kept = distinct(logs, costs, logarithms(x)[1])
    return Columns(values, costs, describe).take(kept), logs[:, kept]


def logarithms(x: Tensor) -> tuple[list[int], Tensor]:
    """The inputs that are never 0, and [rows, 1 + inputs]: ones, and the logarithms of the sizes of these inputs."""
    columns = (x != 0).all(0).nonzero()[:, 0].tolist()
    return columns, torch.cat([x.new_ones(len(x), 1), x[:, columns].abs().log()], 1)


def _waves(x: Tensor, columns: Sequence[int]) -> Columns:
    """Cosines and sines of the inputs, and of sums and differences of two."""
    single = inputs(x, columns)
    parts = [functions(WAVES, single)]
    if len(columns) > 1:
        parts.append(functions(WAVES[:2], sums(single).cheapest(60)))
    return join(parts).cheapest()
