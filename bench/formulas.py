"""Recovery of exact formulas from data: by KAN.discover, and by the recipe of pykan's tutorial in both packages.

The recipe trains with a penalty, prunes, trains, makes all edges symbolic by auto_symbolic, and trains their affine
parameters. A formula counts as exact if its error on new data, divided by the labels' standard deviation, is below
EXACT, before or after its numbers are replaced by nearby fractions and multiples of pi.
"""

import contextlib
import io
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

import fastkan
from fastkan.measure.correctness import Unavailable
from fastkan.measure.progress import bar
from fastkan.network.formulas.simplify import snap_numbers

from .peers import installed

EXACT = 1e-8
NEAR = 1e-3  # distance of numbers to fractions, after a recipe
ROWS = 500
STEPS = 20  # LBFGS steps, in each of three trainings
LABELS = {
    "discover": "KAN.discover", "lm": "recipe, fastkan, opt='LM'",
    "recipe": "recipe, fastkan", "pykan": "recipe, pykan",
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A function of x [N, inputs], the range of its inputs, and the networks of the recipe and of KAN.discover."""

    name: str
    truth: Callable[[Tensor], Tensor]
    low: float
    high: float
    width: tuple
    shapes: tuple | None = None
    inputs: int = 2

    def data(self, seed: int, rows: int = ROWS) -> dict[str, Tensor]:
        """Data of a seed as pykan's dictionary, in float64."""
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(2 * rows, self.inputs, generator=generator, dtype=torch.float64)
        x = self.low + (self.high - self.low) * x
        y = self.truth(x)[:, None]
        return {"train_input": x[:rows], "train_label": y[:rows], "test_input": x[rows:], "test_label": y[rows:]}


def _product(x: Tensor) -> Tensor:
    return x[:, 0] * x[:, 1]


TARGETS = (
    Target("exp(sin(pi x) + y^2)", lambda x: (torch.sin(torch.pi * x[:, 0]) + x[:, 1] ** 2).exp(), -1, 1, (2, 5, 1)),
    Target("x y, squares", _product, -1, 1, (2, 5, 1), ((2, 2, 1),)),
    Target("x y, multiplication node", _product, -1, 1, (2, (2, 2), 1), ((2, (0, 1), 1),)),
    Target("x / y", lambda x: x[:, 0] / x[:, 1], 0.5, 2, (2, 5, 1)),
    Target("sqrt(x^2 + y^2)", lambda x: x.square().sum(1).sqrt(), -1, 1, (2, 5, 1)),
    Target("(x + y) / (1 + x y)", lambda x: x.sum(1) / (1 + x.prod(1)), -0.9, 0.9, (2, 5, 1)),
)
# Targets, seeds of discover and the recipe, seeds of pykan
FULL = tuple((target, 20, 20) for target in TARGETS)
TINY = ((Target("x + y", lambda x: x.sum(1), -1, 1, (2, 1, 1), ((2, 1),)), 1, 0),)


def rows(which: Sequence[tuple[Target, int, int]], rounds: int) -> list[dict[str, object]]:
    """One row per target and candidate; rounds: the maximum number of seeds."""
    return [row for entry in bar(which, "formulas") for row in _rows(*entry, rounds)]


def _rows(target: Target, seeds: int, pykan_seeds: int, rounds: int) -> Iterator[dict[str, object]]:
    for peer in LABELS:
        count = min(rounds, pykan_seeds if peer == "pykan" else seeds)
        reason, times, errors, shown = "", [], [], ""
        try:
            for seed in range(count):
                start = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    error, formula = FINDERS[peer](target, seed)
                times.append(time.perf_counter() - start)
                errors.append(error)
                shown = shown or (str(formula) if error <= EXACT else "")
                reason = reason or (formula if isinstance(formula, str) else "")
        except Unavailable as absent:
            reason = str(absent)
        row = {"target": target.name, "peer": peer, "seeds": len(times), "exact": sum(e <= EXACT for e in errors)}
        row |= {"error": f"{median(errors):.3g}" if errors else "", "formula": shown, "reason": reason}
        yield row | {"seconds": f"{median(times):.4g}" if times else ""}


def discover(target: Target, seed: int) -> tuple[float, object]:
    """Relative error and formula of KAN.discover."""
    data = target.data(seed)
    found = fastkan.KAN.discover(data, target.shapes, seed=seed, verbose=False)
    return best_form(found.formulas[0], found.inputs, data, 0.0)


def recipe(target: Target, seed: int) -> tuple[float, object]:
    network = fastkan.KAN(_listed(target.width), grid=5, k=3, seed=seed, dtype=torch.float64)
    return _run_recipe(network, target.data(seed), {"progress": False})


def lm_recipe(target: Target, seed: int) -> tuple[float, object]:
    """The recipe with 2.5 times as many Levenberg-Marquardt steps in the trainings without a penalty."""
    network = fastkan.KAN(_listed(target.width), grid=5, k=3, seed=seed, dtype=torch.float64)
    return _run_recipe(network, target.data(seed), {"progress": False}, "LM", 50)


def pykan_recipe(target: Target, seed: int) -> tuple[float, object]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(
        torch.float64
    )  # as its documentation advises; a network converted to double can't be pruned
    try:
        with tempfile.TemporaryDirectory() as folder:  # prune writes to disk even with auto_save=False
            options = {"grid": 5, "k": 3, "seed": seed, "ckpt_path": folder}
            network = installed("kan", "pykan").KAN(_listed(target.width), **options)
            return _run_recipe(network, target.data(seed), {})
    finally:
        torch.set_default_dtype(before)


FINDERS = {"discover": discover, "lm": lm_recipe, "recipe": recipe, "pykan": pykan_recipe}


def _run_recipe(
    network, data: dict[str, Tensor], options: dict, opt: str = "LBFGS", steps: int = STEPS
) -> tuple[float, object]:
    """Run the recipe, with the same calls in both packages; a failure counts as an infinite error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.fit(data, opt="LBFGS", steps=STEPS, lamb=1e-3, **options)
            network = network.prune()
            network.fit(data, opt=opt, steps=steps, **options)
            network.get_act(data["train_input"])
            network.auto_symbolic(verbose=0, r2_threshold=0.0)
            network.fit(data, opt=opt, steps=steps, update_grid=False, **options)
            (formula,), inputs = network.symbolic_formula()
        return best_form(formula, inputs, data, NEAR)
    except (ValueError, RuntimeError, TypeError, LookupError, AttributeError, NameError) as failure:
        return math.inf, f"fails: {type(failure).__name__}: {str(failure).partition(chr(10))[0]}"


def best_form(formula, inputs: list, data: dict[str, Tensor], near: float) -> tuple[float, object]:
    """The formula, as it is or with its numbers recognised, whichever has the smaller error; error first."""
    forms = [formula, snap_numbers(formula, near)] if near else [formula]
    return min(((relative_error(form, inputs, data), form) for form in forms), key=lambda pair: pair[0])


def relative_error(formula, inputs: list, data: dict[str, Tensor]) -> float:
    import sympy

    x, y = data["test_input"].numpy(), data["test_label"].numpy()[:, 0]
    with np.errstate(all="ignore"):
        values = np.broadcast_to(sympy.lambdify(inputs, formula, "numpy")(*x.T), len(x))
    error = float(np.sqrt(np.mean(np.abs(values - y) ** 2)) / np.std(y))
    return error if math.isfinite(error) else math.inf


def _listed(width: tuple) -> list:
    return [list(entry) if isinstance(entry, tuple) else entry for entry in width]
