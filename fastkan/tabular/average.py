"""A network that starts at a regularised linear model; an average of several, each ended by other rows.

The rows are cut into parts. Without each part, linear models with several ridges are fitted, and a network with one
hidden layer starts at the best of them, which is a hidden node for every output; it trains until its loss on the part
no longer falls. The average of these networks, which is one network, is kept if their losses on the parts are below
those of the linear models by more than a standard error; else the linear model of all rows.

Source: Breiman, Bagging predictors (1996), with parts of the rows in place of random samples.
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..network import KAN
from ..network.train.losses import cross_entropy, squares
from .baseline import linear, with_constant
from .search import threads

RIDGES = (1.0, 0.1, 1e-2, 1e-3, 1e-4)  # from strong to weak: a descent starts from the one before
FEWEST = 20  # different rows that a network needs
RANGE = (-2.5, 2.5)  # of grids: inputs have mean 0 and deviation 1, and splines continue as lines beyond
START = 0.1  # size of the hidden nodes' share of the outputs before training
MANY = 1 << 20  # numbers in x from which more than one thread gains something


class Options(NamedTuple):
    """Shape and training of the networks. parts: of the rows, each the held-out ones of a network; for 1, `share` of
    the rows is held out for one network, and for 0 none are. patience: epochs without a lower loss on held-out rows."""

    hidden: int
    grid: int
    degree: int
    parts: int
    share: float
    epochs: int
    patience: int
    batch_size: int
    lr: float
    weight_decay: float
    seed: int


class Fitted(NamedTuple):
    """network: one layer if the linear model was kept, else two. epochs: mean number of passes of its training."""

    network: KAN
    epochs: float


def fit(x: Tensor, y: Tensor, weight: Tensor, outputs: int, classes: bool, options: Options) -> Fitted:
    """Train on x [N, inputs], standardised, and y, standardised [N, outputs] or class indices [N], in float64.

    weight: of every row in the loss, [N], positive. Reproducible on a CPU.
    """
    with threads(1 if x.numel() < MANY else torch.get_num_threads()):
        parts = _parts(y, classes, options)
        if not parts:
            line = _lines(x, y, weight, outputs, classes)[RIDGES.index(1e-2)]
            network = start(line, options, options.seed)
            return Fitted(network, _train(network, x, y, weight, None, classes, options))
        held = torch.cat(parts)
        share = weight[held] / weight[held].sum()
        starts = [_lines(x[r], y[r], weight[r], outputs, classes) for r in _others(parts, len(x))]
        losses = torch.stack([_held_out([_of(s[n]) for s in starts], x, y, parts, classes) for n in range(len(RIDGES))])
        best = int((losses @ share).argmin())
        line = _of_line(_lines(x, y, weight, outputs, classes)[best], options)
        if len(x) < FEWEST:
            return Fitted(line, 0.0)
        networks = [start(s[best], options, options.seed + n) for n, s in enumerate(starts)]
        epochs = [_train(m, x, y, weight, part, classes, options) for m, part in zip(networks, parts, strict=True)]
        gain = losses[best] - _held_out(networks, x, y, parts, classes)
        mean = gain @ share
        error = ((gain - mean).square() @ share * share.square().sum()).sqrt()
        return Fitted(average(networks), sum(epochs) / len(epochs)) if mean > error else Fitted(line, 0.0)


# Parts of the rows


def _parts(y: Tensor, classes: bool, options: Options) -> list[Tensor]:
    """The held-out rows of every network; classes in equal shares. Empty where none are held out."""
    rows = len(y)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(options.seed))
    if classes:
        order = order[y[order].sort(stable=True).indices]
    if options.parts > 1 and rows > 2:
        count = min(options.parts, rows)
        return [order[n::count] for n in range(count)]
    count = round(options.share * rows)
    if not options.parts or not 0 < count < rows:
        return []
    return [order[(torch.arange(count) * (rows / count)).long()]]  # evenly, for classes


def _others(parts: Sequence[Tensor], rows: int) -> list[Tensor]:
    """The rows without each part."""
    every = torch.arange(rows)
    return [every[~torch.isin(every, part)] for part in parts]


@torch.no_grad()
def _held_out(models: Sequence, x: Tensor, y: Tensor, parts: Sequence[Tensor], classes: bool) -> Tensor:
    """The loss of every row in the parts, in their order, by the model without it."""
    return torch.cat([_row_losses(m(x[part]), y[part], classes) for m, part in zip(models, parts, strict=True)])


def _row_losses(prediction: Tensor, y: Tensor, classes: bool) -> Tensor:
    return cross_entropy(prediction, y) if classes else squares(prediction, y).mean(1)


# Linear models


def _lines(x: Tensor, y: Tensor, weight: Tensor, outputs: int, classes: bool) -> list[Tensor]:
    """Weights [inputs + 1, outputs] by the ridge."""
    found: list[Tensor] = []
    for ridge in RIDGES:
        start = found[-1] if found else None
        found.append(linear(x, y, outputs, classes, ridge, weight / weight.sum(), start))
    return found


def _of(line: Tensor):
    """The linear model as a function."""
    return lambda x: with_constant(x) @ line


@torch.no_grad()
def _set_line(network: KAN, line: Tensor) -> None:
    """Make the first outputs of the first layer those of the linear model: B-splines have the sum 1."""
    inputs, outputs = line.shape[0] - 1, line.shape[1]
    layer: Any = network.act_fun[0].linear
    layer.coef[:, :, :outputs] = (line[-1] / inputs / layer.spline_scale[:, :outputs])[:, None]
    layer.base_weight[:, :outputs] = line[:-1]


def _of_line(line: Tensor, options: Options) -> KAN:
    """The linear model as a network."""
    network = _new([line.shape[0] - 1, line.shape[1]], options, options.seed)
    _set_line(network, line)
    return network


# Networks


def _new(width: list[int], options: Options, seed: int) -> KAN:
    return KAN(
        width, grid=options.grid, k=options.degree, base_fun="identity", grid_range=RANGE, noise_scale=0.1, seed=seed,
        sp_trainable=False, dtype=torch.float64,
    )  # fmt: skip


@torch.no_grad()
def start(line: Tensor, options: Options, seed: int) -> KAN:
    """A network with a hidden layer that is nearly the linear model, which is its first hidden nodes."""
    outputs = line.shape[1]
    network = _new([line.shape[0] - 1, outputs + options.hidden, outputs], options, seed)
    _set_line(network, line)
    layer: Any = network.act_fun[1].linear
    for part in (layer.coef, layer.base_weight):
        part[:outputs] = 0.0
        part[outputs:] *= START
    layer.base_weight[:outputs] = torch.eye(outputs, dtype=torch.float64)
    return network


def optimizer(parameters: Iterable[Tensor], options: Options) -> torch.optim.Optimizer:
    """AdamW."""
    return torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)


def one_pass(network: KAN, opt: Any, x: Tensor, y: Tensor, weight: Tensor, classes: bool, options: Options) -> None:
    """Train on all rows once."""
    _train(network, x, y, weight, None, classes, options._replace(epochs=1), opt)


def _train(
    network: KAN,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    held: Tensor | None,
    classes: bool,
    options: Options,
    opt: Any = None,
) -> float:
    """Train on the rows that are not held out; returns the number of epochs."""
    rows = torch.arange(len(x)) if held is None else _others([held], len(x))[0]
    end = {} if held is None else {
        "validation_data": (x[held], y[held], weight[held]), "patience": options.patience, "keep_best": True,
    }  # fmt: skip
    steps = math.ceil(len(rows) / options.batch_size)
    size = len(rows) // steps  # of equal batches, since an incomplete one is left out
    results = network.fit(
        x[rows], y[rows], sample_weight=weight[rows], loss_fn="cross_entropy" if classes else "mse", log=steps,
        opt=opt or partial(optimizer, options=options), epochs=options.epochs, batch_size=size,
        lamb_base=0.0, update_grid=False, seed=options.seed, progress=False, **end,
    )  # fmt: skip
    return len(results["train_loss"]) / steps


@torch.no_grad()
def average(networks: Sequence[KAN]) -> KAN:
    """The mean of networks with one hidden layer on the same grids, as one network."""
    (inputs, _), (hidden, _), (outputs, _) = networks[0].width
    first = networks[0].act_fun[0].linear
    found = KAN(
        [inputs, hidden * len(networks), outputs], grid=networks[0].grid, k=networks[0].k, base_fun="identity",
        grid_range=first.grid_range, noise_scale=0.0, sp_trainable=False, dtype=first.coef.dtype,
    )  # fmt: skip
    for n, (layer, dim) in enumerate(zip(found.act_fun, (-1, 0), strict=True)):
        parts = [m.act_fun[n].linear for m in networks]
        for name in ("coef", "base_weight", "spline_scale"):
            getattr(layer.linear, name).copy_(torch.cat([getattr(part, name) for part in parts], dim))
    last: Any = found.act_fun[1].linear
    for part in (last.coef, last.base_weight):
        part /= len(networks)
    return found
