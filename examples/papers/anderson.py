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
from torch import Tensor, nn

from fastkan import KAN
from fastkan.network.layers.library import SYMBOLIC_LIB, add_symbolic

from .chains import CHAINS, SITES, Chain, states
from .experiment import Experiment, Rows


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
        self.steps, self.starts = (2, 1) if quick else (15, 2)

    def fit(self, model: KAN) -> KAN:
        """By L-BFGS; the output is the logarithm of the odds that the state is extended."""
        data, loss = (self.x, self.y, *self.valid), nn.functional.binary_cross_entropy_with_logits
        model.fit(data, steps=self.steps, loss_fn=loss, keep_best=True, progress=False)
        return model

    def best(self, models: Sequence[KAN]) -> KAN:
        return max(models, key=lambda model: accuracy(model, *self.valid))


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
    for i in range(2):
        model.fix_symbolic(1, i, 0, "x", fit_params_bool=False)
    return task.fit(model)


def formula(model: KAN, chain: Chain, task: Task) -> str:
    """Of the model, divided by the number that makes it closest to the known edge."""
    (found,), _ = model.symbolic_formula(var=chain.names)
    known = task.theory(task.x)
    with torch.no_grad():
        scale = float((model(task.x) * known).sum() / known.square().sum())
    found = sympy.expand(found / scale)
    return str(found.xreplace({number: sympy.Float(round(number, 2), 3) for number in found.atoms(sympy.Float)}))


def train_pykan(width: Sequence, task: Task) -> nn.Module:
    model = pykan.KAN(width=[width[0], list(width[1]), 1], grid=3, k=3, seed=0, auto_save=False).speed().double()
    data = {"train_input": task.x[::4], "train_label": task.y[::4]}
    data |= {"test_input": task.valid[0], "test_label": task.valid[1]}
    model.fit(data, steps=task.steps, loss_fn=nn.functional.binary_cross_entropy_with_logits, log=1000)
    return model


def run(quick: bool) -> Rows:
    return [row for name, chain in CHAINS.items() for row in rows_of(name, chain, Task(chain, quick))]


def rows_of(name: str, chain: Chain, task: Task) -> Rows:
    width, options = [len(chain.names), [1, 1], 1], {"sp_trainable": False, "dtype": torch.float64}
    rows: Rows = [_row(name, "known edge", accuracy(task.theory, *task.test), edge=chain.formula)]
    rows += [_row(name, f"paper's KAN, {kind}", right) for kind, right in chain.papers.items()]

    def add(network: str, train: Callable[[], list], edge: bool = False) -> list:
        start, models = time.perf_counter(), train()
        best, seconds = task.best(models), round(time.perf_counter() - start, 1)
        count = sum(p.numel() for p in best.parameters() if p.requires_grad)
        found = formula(best, chain, task) if edge else None
        rows.append(_row(name, network, accuracy(best, *task.test), count, seconds, found))
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
    values = {"model": model, "network": network, "accuracy": right, "parameters": count, "seconds": seconds}
    return {**values, "edge, positive where extended": edge}


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """The phase diagram of the Mosaic chains, and the accuracies."""
    left, right = (figure := Figure(figsize=(11, 4.2), layout="constrained")).subplots(1, 2)
    x, dimension = (t.flatten(0, 1) for t in states(CHAINS["Mosaic"], 40))
    points = left.scatter(x[:, 0], x[:, 1], c=dimension[:, 0], s=5, cmap="viridis")
    energy = torch.linspace(0.3, 4, 100)
    left.plot(torch.cat([-energy.flip(0), energy]), 2 / torch.cat([energy.flip(0), energy]), "r", label="2 / |E|")
    left.set(xlabel="E", ylabel="lambda", ylim=(0.5, 5.5), xlim=(-5, 5), title="Mosaic")
    left.legend(loc="upper right")
    figure.colorbar(points, ax=left, label="fractal dimension")
    kinds = list(dict.fromkeys(row["network"] for row in rows))
    for place, kind in enumerate(kinds):
        found = [
            (i, row) for i, name in enumerate(CHAINS) for row in rows if (row["model"], row["network"]) == (name, kind)
        ]
        at = [i + (place - len(kinds) / 2) * 0.1 for i, _ in found]
        right.bar(at, [100 * float(row["accuracy"]) for _, row in found], 0.1, label=kind)
    right.set_xticks(range(len(CHAINS)), list(CHAINS))
    right.set(ylabel="accuracy in %", ylim=(94, 100))
    right.legend(fontsize=7, ncols=2, loc="upper center")
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
