"""Five toy functions: the error and the time of a fit by the grid size, G = 3 to 1000, with MLPs beside."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from scipy.special import j0
from torch import Tensor, nn

from fastkan import KAN
from fastkan.network import LevenbergMarquardt

from .baselines import SCAN, mlp, pykan_kan, rmse, scan, training_rows, uniform
from .experiment import Experiment, Rows

SIZES = (3, 5, 10, 20, 50, 100, 200, 500, 1000)
SETTLED = 200  # the largest grid on which the knots still follow the activations


class Toy(NamedTuple):
    """A function and its network. first: grid, steps and grid updates of the starts, of which validation rows choose;
    solver: "cg", whose cost hardly depends on G, or "dense", for networks whose edges depend much on each other."""

    function: Callable[[Tensor], Tensor]
    width: list[int]
    rows: int = 20_000
    sizes: tuple[int, ...] = SIZES
    first: tuple[tuple[int, int, int], ...] = ((3, 40, 40),)
    seeds: int = 4
    base: str = "zero"
    solver: str = "cg"
    steps: int = 4
    starts: int = 2000

    def data(self, rows: int) -> tuple[Tensor, Tensor]:
        x = training_rows(rows, self.width[0])
        return x, self.function(x)

    def error(self, model: nn.Module, seed: int = 2) -> float:
        """RMSE on test rows, or with seed 1 on validation rows."""
        x = uniform(3000, self.width[0], seed)
        return rmse(model, x, self.function(x))


SUM, FOUR = "exp(sin(πx) + y²)", "exp((sin(π(x₁² + x₂²)) + sin(π(x₃² + x₄²))) / 2)"
TOYS = {
    # SciPy's function: torch's is off by up to 4e-7 here.
    "J₀(20x)": Toy(lambda x: torch.from_numpy(j0(20 * x.numpy())), [1, 1], seeds=1),
    SUM: Toy(lambda x: torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2), [2, 1, 1]),
    "xy": Toy(lambda x: x[:, :1] * x[:, 1:], [2, 2, 1]),
    "exp(mean sin²(πxᵢ / 2)), 100 inputs": Toy(
        lambda x: torch.exp(torch.sin(math.pi * x / 2).square().mean(1, keepdim=True)),
        [100, 1, 1], 10_000, SIZES[:5], seeds=1,
    ),
    FOUR: Toy(
        lambda x: (torch.sin(math.pi * (x[:, ::2] ** 2 + x[:, 1::2] ** 2)).sum(1, keepdim=True) / 2).exp(),
        [4, 4, 2, 1], 5000, SIZES[1:5], ((3, 40, 40), (5, 20, 10)), 6, "silu", "dense", 8, 1500,
    ),
}  # fmt: skip


def by_lm(toy: Toy, quick: bool) -> dict:
    """Starts on coarse grids that follow the activations at every step; the best of them on finer and finer grids."""
    data, made = toy.data(100 if quick else toy.starts), []
    for seed in range(1 if quick else toy.seeds):
        model = KAN(toy.width, grid=3, seed=seed, base_fun=toy.base, sp_trainable=False, dtype=torch.float64)
        for size, steps, updates in toy.first:
            options: dict[str, Any] = {"grid_update_num": updates, "stop_grid_update_step": steps, "progress": False}
            model.fit(data, opt="LM", steps=1 if quick else steps, grid_sizes=[size], **options)
        made.append((toy.error(model, 1), seed, model))

    model, data = min(made)[2], toy.data(500 if quick else toy.rows)

    def optimizer(parameters: list[Tensor]) -> LevenbergMarquardt:
        return LevenbergMarquardt(parameters, solver=toy.solver, cg_steps=200, cg_tolerance=0.1)

    def finer(size: int) -> nn.Module:
        options = {"update_grid": size <= SETTLED, "grid_update_num": 2, "stop_grid_update_step": toy.steps}
        model.fit(data, opt=optimizer, steps=1 if quick else toy.steps, grid_sizes=[size], progress=False, **options)
        return model

    return scan(toy.sizes[:2] if quick else toy.sizes, finer, toy.error)


def by_pykan(toy: Toy, quick: bool) -> dict:
    """The best of 4 seeds at G = 3, then finer grids."""
    data, steps = toy.data(100 if quick else 2000), 1 if quick else 4
    models = [pykan_kan(toy.width, 3, data, steps, seed) for seed in range(1 if quick else 4)]
    model = min(models, key=lambda model: toy.error(model, 1))

    def finer(size: int) -> nn.Module:
        nonlocal model
        model = pykan_kan(toy.width, size, data, steps, coarser=model)
        return model

    return scan(toy.sizes[1 : 2 if quick else 5], finer, toy.error)


def by_mlp(toy: Toy, depth: int, quick: bool) -> dict:
    def trained(width: int) -> nn.Module:
        hidden, data = [width] * (depth - 1), toy.data(100 if quick else 2000)
        return mlp([toy.width[0], *hidden, 1], data, 2 if quick else 300)

    return scan((8, 32), trained, toy.error)


def run(quick: bool) -> Rows:
    rows: Rows = []
    KAN([2, 1]).fit((torch.rand(9, 2), torch.rand(9, 1)), opt="LM", steps=1, progress=False)  # torch's late imports
    for name, toy in TOYS.items():
        rows.append({"function": name, "network": f"fastkan {toy.width}, LM", **by_lm(toy, quick)})
        for depth in (2, 3, 4, 5):
            rows.append({"function": name, "network": f"MLP, {depth} layers", **by_mlp(toy, depth, quick)})
    return [*rows, {"function": SUM, "network": "pykan [2, 1, 1], L-BFGS", **by_pykan(TOYS[SUM], quick)}]


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Error against parameters for each function, and time against G."""
    *panels, times = (figure := Figure(figsize=(11, 6.5), layout="constrained")).subplots(2, 3).flat
    for row in rows:
        sizes, counts, errors, seconds = ([float(n) for n in str(row[key]).split()] for key in SCAN)
        axes, network = panels[list(TOYS).index(row["function"])], row["network"]
        axes.loglog(counts, errors, "o-" if "fastkan" in network else "s:", label=network.split(" [")[0])
        if "fastkan" in network:
            axes.loglog(counts, [errors[-1] * (n / counts[-1]) ** -4 for n in counts], "k--", lw=0.8, label=r"$N^{-4}$")
            axes.set_title(row["function"], fontsize=9)
        if "MLP" not in network:
            times.loglog(sizes, seconds, "o-", label=network.split(", L")[0])
    for axes in panels:
        axes.set(xlabel="parameters", ylabel="RMSE on test rows")
    panels[0].legend(fontsize=7)
    panels[3].xaxis.set_minor_formatter("")
    times.set(xlabel="G", ylabel="seconds of the fit with this G", ylim=(0.01, None))
    times.legend(fontsize=7, loc="lower left", ncols=2)
    return figure


EXPERIMENT = Experiment(
    "Toy functions: scaling",
    "Liu et al., KAN (arXiv 2404.19756), sections 2.3 and 3.1",
    "RMSE on test rows and seconds by the grid size G, and of MLPs with 8 and 32 units in a layer; the paper shows "
    "curves. The slope is that of log RMSE by log G, from G = 10 to the first RMSE below 1e-9; the theory's is -4. "
    "fastkan trains from coarse to fine grids by few steps of Levenberg-Marquardt each. By conjugate gradients a fine "
    "grid takes about as long as a coarse one; the last network, whose edges depend much on each other, takes dense "
    "steps and keeps its base functions. The last two end where parameters become too many for the rows.",
    run,
    draw,
)
