"""Anderson localisation: the mobility edges of three quasiperiodic chains, from the states of their Hamiltonians."""

import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import kan as pykan
import sympy
import torch
from matplotlib.figure import Figure
from torch import nn

from fastkan import KAN
from fastkan.network.layers.library import SYMBOLIC_LIB, add_symbolic

from .chains import CHAINS, SITES, Chain, Task, accuracy, states
from .experiment import Experiment, Rows

COLUMNS = ("model", "network", "accuracy", "parameters", "seconds", "edge, positive where extended")


def automatic(model: KAN, task: Task) -> KAN:
    """A function on every edge, then their constants."""
    model = model.copy()
    model.get_act(task.x[::5])
    with warnings.catch_warnings():  # that the outputs change: they are trained again
        warnings.simplefilter("ignore", UserWarning)
        model.auto_symbolic(verbose=0, r2_threshold=0.0)
    return task.fit(model)


def by_hand(chain: Chain, task: Task, seed: int) -> KAN:
    """The functions of the known edge, with all their constants trained from random ones."""
    torch.manual_seed(seed)
    model = KAN([len(chain.names), [1, 1], 1], dtype=torch.float64)
    functions = {(i, j): name for i, j, name in chain.by_hand}
    for i, j in itertools.product(range(len(chain.names)), range(3)):
        if (i, j) in functions:
            model.fix_symbolic(0, i, j, functions[i, j], fit_params_bool=False, random=True)
        else:
            model.remove_edge(0, i, j)
    model.fix_symbolic(1, 0, 0, "x", fit_params_bool=False)
    model.fix_symbolic(1, 1, 0, "x", fit_params_bool=False)
    return task.fit(model)


def formula(model: KAN, chain: Chain, task: Task) -> str:
    """Of the model, divided by the number that makes it closest to the known edge."""
    (found,), _ = model.symbolic_formula(var=chain.names)
    known = task.theory(task.x)
    scale = (model(task.x).detach() * known).sum() / known.square().sum()
    found = sympy.expand(found / scale.item())
    return str(found.xreplace({number: sympy.Float(round(number, 2), 3) for number in found.atoms(sympy.Float)}))


def train_pykan(width: Sequence, task: Task) -> nn.Module:
    model = pykan.KAN(width=[width[0], list(width[1]), 1], grid=3, k=3, seed=0, auto_save=False).speed().double()
    data = {"train_input": task.x[::4], "train_label": task.y[::4]}
    data |= {"test_input": task.valid[0], "test_label": task.valid[1]}
    model.fit(data, steps=task.steps, loss_fn=nn.functional.binary_cross_entropy_with_logits, log=1000)
    return model


def parameters(model: nn.Module) -> int:
    """Trained numbers; of a KAN of fastkan those of the edges that are on, four of a function."""
    if not isinstance(model, KAN):
        return sum(p.numel() for p in model.parameters() if p.requires_grad)
    splines = sum(int((a.mask != 0).sum()) * (a.num + a.k + 1) for a in model.act_fun)
    return splines + 4 * sum(int((f.mask != 0).sum()) for f in model.symbolic_fun)


def run(quick: bool) -> Rows:
    return [row for name, chain in CHAINS.items() for row in rows_of(name, chain, Task(chain, quick))]


def rows_of(name: str, chain: Chain, task: Task) -> Rows:
    width: list = [len(chain.names), [1, 1], 1]
    options: dict[str, Any] = {"sp_trainable": False, "dtype": torch.float64}
    rows: Rows = [_row(name, "known edge", accuracy(task.theory, *task.test), edge=chain.formula)]
    rows += [_row(name, f"paper's KAN, {kind}", right) for kind, right in chain.papers.items()]

    def add(network: str, train: Callable[[], list], edge: bool = False) -> list:
        start, models = time.perf_counter(), train()
        best, seconds = task.best(models), round(time.perf_counter() - start, 1)
        found = formula(best, chain, task) if edge else None
        rows.append(_row(name, network, accuracy(best, *task.test), parameters(best), seconds, found))
        return models

    seeds = range(task.starts)
    models = add("fastkan, numeric", lambda: [task.fit(KAN(width, seed=seed, **options)) for seed in seeds])
    add("fastkan, automatic", lambda: [automatic(model, task) for model in models])
    add_symbolic("cosh", torch.cosh)
    add("fastkan, by hand", lambda: [by_hand(chain, task, seed) for seed in range(2 * task.starts)], edge=True)
    del SYMBOLIC_LIB["cosh"]  # other experiments have the library as it is
    add("pykan, numeric", lambda: [train_pykan(width, task)])
    return rows


def _row(model: str, network: str, right: float, count=None, seconds=None, edge=None) -> dict[str, Any]:
    return dict(zip(COLUMNS, (model, network, right, count, seconds, edge), strict=True))


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """The phase diagram of the Mosaic chains, and the accuracies."""
    left, right = (figure := Figure(figsize=(11, 4.2), layout="constrained")).subplots(1, 2)
    x, dimension = (t.flatten(0, 1) for t in states(CHAINS["Mosaic"], 40))
    points = left.scatter(x[:, 0], x[:, 1], c=dimension[:, 0], s=5, cmap="viridis")
    energy = torch.linspace(0.3, 4, 100)
    left.plot(torch.cat([-energy.flip(0), energy]), 2 / torch.cat([energy.flip(0), energy]), "r")
    left.set(xlabel="E", ylabel="lambda", ylim=(0.5, 5.5), xlim=(-5, 5), title="Mosaic, with lambda = 2 / |E|")
    figure.colorbar(points, ax=left, label="fractal dimension")
    kinds = list(dict.fromkeys(row["network"] for row in rows))
    for place, kind in enumerate(kinds):
        found = [row for row in rows if row["network"] == kind]
        at = [list(CHAINS).index(row["model"]) + (place - len(kinds) / 2) * 0.1 for row in found]
        right.bar(at, [100 * float(row["accuracy"]) for row in found], 0.1, label=kind)
    right.set_xticks(range(len(CHAINS)), list(CHAINS))
    right.set(ylabel="accuracy in %", ylim=(94, 100))
    right.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


EXPERIMENT = Experiment(
    "Anderson localisation",
    "Liu et al., KAN (arXiv 2404.19756), section 5",
    f"States of {SITES} sites are called extended where their fractal dimension is above 1/2; of chains so short the "
    "known edge is right for 99 %. The networks are trained on other chains than they are tested on, by L-BFGS and "
    "binary cross entropy; random starts are chosen on a third set of chains. Automatic: `auto_symbolic` on every "
    "edge, and training again with the same loss, which is what recovers the accuracy: the functions are chosen by "
    "how well they fit an edge everywhere, the loss asks for the boundary. By hand: the functions of the known "
    "edge, all of their constants trained.",
    run,
    draw,
)
