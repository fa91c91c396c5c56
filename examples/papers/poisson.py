"""Poisson's equation: u_xx + u_yy = f on [-1, 1]^2 with u = sin(pi x) sin(pi y^2) on its edge."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import kan as pykan
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastkan import KAN, science

from .experiment import Experiment, Rows

# Of the equation beside the values on the edge, since second derivatives are of size 50.
WEIGHT = 0.01


def solution(p: Tensor) -> Tensor:
    return torch.sin(torch.pi * p[:, :1]) * torch.sin(torch.pi * p[:, 1:] ** 2)


def source(p: Tensor) -> Tensor:
    """f, the Laplacian of the solution."""
    x, y = p[:, :1], p[:, 1:]
    of_y = 2 * torch.pi * torch.cos(torch.pi * y**2) - torch.pi**2 * (1 + 4 * y**2) * torch.sin(torch.pi * y**2)
    return torch.sin(torch.pi * x) * of_y


def points(n: int) -> tuple[Tensor, Tensor]:
    """(n - 2)^2 points inside of the square, and 4 n on its edge, both on a lattice."""
    t = torch.linspace(-1, 1, n, dtype=torch.float64)
    one = torch.ones_like(t)
    edge = torch.cat([torch.stack(p, 1) for p in ((t, -one), (t, one), (-one, t), (one, t))])
    return torch.cartesian_prod(t[1:-1], t[1:-1]), edge


def residuals(n: int) -> Callable[[KAN], list[Tensor]]:
    inside, edge = points(n)
    f, values = source(inside), solution(edge)

    return lambda model: [WEIGHT * (model.derivatives(inside, 2)[2].sum(-1) - f), model(edge) - values]


def error(model: Callable[[Tensor], Tensor]) -> float:
    """Mean square error at 5000 random points."""
    p = 2 * torch.rand(5000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 1
    with torch.no_grad():
        return (model(p) - solution(p)).square().mean().item()


def sums(quick: bool) -> tuple[KAN, int]:
    """[2, 10, 1]: summing nodes alone, as in the paper; finer and finer grids."""
    model = KAN([2, 10, 1], grid=5, k=5, seed=0, sp_trainable=False, dtype=torch.float64)
    steps, sizes, n = (6, [5], 15) if quick else (60, [5, 10, 20], 51)
    model.fit(residuals=residuals(n), opt="LM", steps=steps, grid_sizes=sizes, update_grid=False, progress=False)
    return model, steps


def product(quick: bool) -> tuple[KAN, int]:
    """[2, [0, 1], 1]: one product of two sums. Its two needless edges are pruned, the others refined."""
    model = KAN([2, [0, 1], 1], grid=3, k=5, seed=0, sp_trainable=False, base_fun="zero", dtype=torch.float64)
    options: dict[str, Any] = {"opt": "LM", "update_grid": False, "progress": False}
    steps, n, sizes = (30, 21, ()) if quick else (60, 31, (14, 28))
    model.fit(residuals=residuals(n), steps=steps, grid_sizes=[3, 6, 9], **options)
    model.get_act(points(n)[0])
    model.prune_edge(threshold=0.01)
    for size in sizes:
        model = model.refine(size)
        model.fit(residuals=residuals(61), steps=20, **options)
    return model, steps + 20 * len(sizes)


def parameters(model: nn.Module) -> int:
    """Trained numbers; of a KAN of fastkan those of the edges that are on."""
    if not isinstance(model, KAN):
        return sum(p.numel() for p in model.parameters() if p.requires_grad)
    layers = [(int((a.mask != 0).sum()), a.num + a.k + (a.linear.base_weight is not None)) for a in model.act_fun]
    return sum(edges * numbers for edges, numbers in layers)


def by_lbfgs(model: nn.Module, steps: int, n: int) -> tuple[nn.Module, int]:
    """L-BFGS with autograd, for networks that are not fastkan's."""
    inside, edge = points(n)
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", history_size=50)

    def closure() -> Tensor:
        optimizer.zero_grad()
        laplacian = science.batch_hessian(model, inside, create_graph=True).diagonal(dim1=-2, dim2=-1).sum(-1)
        of_edge = (model(edge) - solution(edge)).square().mean()
        loss = (WEIGHT * (laplacian[:, None] - source(inside))).square().mean() + of_edge
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)  # type: ignore[arg-type]
    return model, steps


def run(quick: bool) -> Rows:
    torch.manual_seed(0)
    widths = [2, 18, 18, 18]
    hidden = [m for i, o in zip(widths, widths[1:], strict=False) for m in (nn.Linear(i, o), nn.Tanh())]
    mlp = nn.Sequential(*hidden, nn.Linear(18, 1)).double()
    other = pykan.KAN(width=[2, 10, 1], grid=5, k=3, seed=0, auto_save=False).speed().double()
    rows: Rows = [_row("paper's KAN [2, 10, 1]", 1e-7, 100), _row("paper's MLP, 4 layers of 100", 1e-5, 10000)]
    for name, train in (
        ("fastkan [2, 10, 1], LM", sums),
        ("fastkan [2, [0, 1], 1], LM", product),
        ("tanh MLP, L-BFGS", lambda quick: by_lbfgs(mlp, *((1, 11) if quick else (60, 31)))),
        ("pykan [2, 10, 1], L-BFGS", lambda quick: by_lbfgs(other, *((1, 11) if quick else (10, 31)))),
    ):
        start = time.perf_counter()
        model, steps = train(quick)
        rows.append(_row(name, error(model), parameters(model), steps, time.perf_counter() - start))
    return rows


def _row(name: str, mse: float, count: int, steps: int | None = None, seconds: float = 0.0) -> dict[str, Any]:
    times = {
        "steps": steps,
        "seconds": steps and round(seconds, 1),
        "seconds a step": steps and round(seconds / steps, 3),
    }
    return {"network": name, "mean square error": mse, "parameters": count, **times}


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Error against parameters."""
    axes = (figure := Figure(figsize=(6, 4), layout="constrained")).subplots()
    for row in rows:
        at = float(row["parameters"]), float(row["mean square error"])
        axes.loglog(*at, "o" if "fastkan" in row["network"] else "s")
        axes.annotate(row["network"], at, textcoords="offset points", xytext=(0, 8), ha="center", fontsize=8)
    axes.set(
        xlabel="parameters", ylabel="mean square error of u", title="Poisson's equation", xmargin=0.35, ymargin=0.2
    )
    return figure


EXPERIMENT = Experiment(
    "Poisson's equation",
    "Liu et al., KAN (arXiv 2404.19756), section 3.4",
    "The networks see the equation inside of the square and the values on its edge, here on a lattice. fastkan's are "
    "trained by `fit(residuals=...)`, Levenberg-Marquardt on finer and finer grids, with `k=5`; the others by L-BFGS "
    "through autograd on the same loss, for about as long. One product of two functions is enough for this solution.",
    run,
    draw,
)
