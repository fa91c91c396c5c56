"""3033 hyperbolic knots of at most 13 crossings: their invariants, and folds to train and test on."""

import csv
import gzip
import itertools
from collections.abc import Sequence
from pathlib import Path

import sympy
import torch
from torch import Tensor

DATA = Path(__file__).parent / "data" / "knots.csv.gz"
# The complex translations of the cusp along the meridian, mu, and along the longitude, lambda, which is real.
CUSP = ["meridional_translation_real", "meridional_translation_imag", "longitudinal_translation"]
# A knot's mirror image has these with the other sign, as it has the signature.
ODD = ("short_geodesic_imag", "chern_simons", "meridional_translation_real")
GEOMETRY = ["short_geodesic_real", *ODD, *CUSP[1:], "cusp_volume", "volume"]
SYMMETRY = ("0", "D3", "D4", "D6", "D8", "Z/2 + Z/2")
NAMES = [*GEOMETRY, "torsion_degree", *(f"symmetry {group}" for group in SYMMETRY)]
FOLDS = 5


def knots() -> tuple[Tensor, Tensor]:
    """The invariants [3033, NAMES] and the signature [3033, 1]."""
    with gzip.open(DATA, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    of_symmetry = [[float(row["symmetry"] == group) for group in SYMMETRY] for row in rows]
    x = [[float(row[n]) for n in GEOMETRY] + [4.0 * int(row["genus"]) - 2] for row in rows]
    x = torch.tensor([a + b for a, b in zip(x, of_symmetry, strict=True)], dtype=torch.float64)
    return x, torch.tensor([[float(row["signature"])] for row in rows], dtype=torch.float64)


class Fold:
    """A fifth of the knots to test on, 400 to choose by, the others to train on with their mirror images."""

    def __init__(self, number: int, names: Sequence[str] = NAMES):
        x, y = knots()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        rest = order[torch.arange(len(x)) % FOLDS != number]
        sign = torch.tensor([-1.0 if name in ODD else 1.0 for name in NAMES], dtype=torch.float64)
        both, labels = torch.cat([x, x * sign]), torch.cat([y, -y])
        valid, train = (torch.cat([rows, rows + len(x)]) for rows in (rest[:400], rest[400:]))
        mean, std, columns = (
            both[train].mean(0),
            both[train].std(0).clamp(min=0.1),
            [NAMES.index(name) for name in names],
        )
        scaled = ((both - mean) / std)[:, columns]
        self.mean, self.std, self.x = mean[columns], std[columns], both[train][:, columns]
        self.data = scaled[train], labels[train], scaled[valid], labels[valid]
        self.test = scaled[order[number::FOLDS]], y[order[number::FOLDS]]


def cusp_expressions() -> tuple[list[sympy.Symbol], dict[object, str]]:
    """Symbols for CUSP, and Re and Im of products of powers of lambda and mu in them, with their names."""
    real, imag, length = symbols = sympy.symbols("x y lambda", real=True)
    found: dict[object, str] = {}
    for m, n in itertools.product((1, 2), (-2, -1, 1, 2)):
        parts = (length**m * (real + sympy.I * imag) ** n).as_real_imag()
        found |= {part: f"{of}(lambda^{m} mu^{n})" for of, part in zip(("Re", "Im"), parts, strict=True)}
    return list(symbols), found
