"""Time to import fastkan and to construct a layer."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from fastkan.measure.correctness import RANGE, Case, Unavailable
from fastkan.measure.peers import EfficientKAN, equal_linear
from fastkan.measure.progress import bar
from fastkan.nn import KANLinear

from .peers import installed

# The second has a hundredth of the edges, for layers that cannot be built at the first size.
FULL = (Case(1, 1000, 1000, 200), Case(1, 100, 100, 200))
TINY = (Case(1, 4, 3, 5),)


def rows(which: Sequence[Case], rounds: int) -> list[dict[str, object]]:
    """Imports in fresh processes, then constructions; medians of up to five runs."""
    repeats = min(rounds, 5)
    measured = [_import_row(name, statement, repeats) for name, statement in IMPORTS.items()]
    for case in bar(which, "construction"):
        measured += [_construction_row(case, name, repeats) for name in CONSTRUCTIONS]
    return measured


IMPORTS = {"import torch": ("pass", "import torch"), "import fastkan, after torch": ("import torch", "import fastkan")}


def _import_row(name: str, statements: tuple[str, str], repeats: int) -> dict[str, object]:
    before, timed = statements
    code = f"import time\n{before}\nt = time.perf_counter()\n{timed}\nprint(time.perf_counter() - t)"
    runs = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(repeats)
    )
    return _row(name, seconds=[float(done.stdout) for done in runs])


def _construction_row(case: Case, name: str, repeats: int) -> dict[str, object]:
    try:
        seconds = []
        for _ in range(1 if name in SLOW else repeats):
            start = time.perf_counter()
            CONSTRUCTIONS[name](case)
            seconds.append(time.perf_counter() - start)
        return _row(f"construct {name}", case, seconds)
    except Unavailable as absent:
        return _row(f"construct {name}", case, reason=str(absent))


def _row(what: str, case: Case | None = None, seconds: Sequence[float] = (), reason: str = "") -> dict[str, object]:
    return {
        "what": what,
        "in_features": case.in_features if case else "",
        "out_features": case.out_features if case else "",
        "grid_size": case.grid_size if case else "",
        "seconds": f"{median(seconds):.4g}" if seconds else "",
        "repeats": len(seconds),
        "reason": reason,
    }


def _linear(case: Case) -> nn.Module:
    return nn.Linear(*equal_linear(case), bias=False)


def _kan_linear(case: Case) -> nn.Module:
    return KANLinear(case.in_features, case.out_features, grid_size=case.grid_size, spline_order=case.degree)


@dataclass
class _Blank:
    """Operands for EfficientKAN with uninitialised parameters."""

    case: Case
    coef: torch.Tensor
    base_weight: torch.Tensor


def _efficient_kan(case: Case) -> nn.Module:
    """EfficientKAN with its initialisation: splines that interpolate noise at the grid points, by least squares."""
    i, o = case.in_features, case.out_features
    layer = EfficientKAN(_Blank(case, torch.empty(i, case.functions, o), torch.empty(i, o)))
    points = torch.linspace(*RANGE, case.grid_size + 1)[:, None].expand(-1, i)  # G+1 I
    noise = (torch.rand(case.grid_size + 1, i, o) - 0.5) * 0.1 / case.grid_size
    with torch.no_grad():
        solution = torch.linalg.lstsq(layer.features(points).transpose(0, 1), noise.transpose(0, 1)).solution  # I F O
        layer.spline_weight.copy_(solution.permute(2, 0, 1))
        nn.init.kaiming_uniform_(layer.base_weight, a=5**0.5)
    return layer


def _pykan(case: Case) -> nn.Module:
    if case.in_features * case.out_features > 10_000:
        raise Unavailable("would store a least-squares matrix per edge")
    return installed("kan.KANLayer", "pykan").KANLayer(
        case.in_features, case.out_features, num=case.grid_size, k=case.degree
    )


CONSTRUCTIONS: dict[str, Callable[[Case], nn.Module]] = {
    "nn.Linear, equal parameters": _linear,
    "fastkan.KANLinear": _kan_linear,
    "efficient-kan's formula": _efficient_kan,
    "pykan": _pykan,
}
SLOW = ("efficient-kan's formula", "pykan")
