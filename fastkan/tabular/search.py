"""Model search for a table: compare shapes and penalties, refine grids, prune edges and inputs, fit symbolic functions.

The simplest model wins that is not worse on the validation rows. A model is worse than another if the mean difference
of their row losses exceeds its standard error, the rule of Breiman et al., Classification and Regression Trees (1984),
3.4.3; a deeper network must be better by two standard errors.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..network import KAN
from ..network.formulas.edges import replace_edges
from ..network.train.losses import cross_entropy
from . import laws, skew
from .delimited import TableError
from .prepare import Prepared

GRIDS = (3, 6, 12)  # intervals, from coarse to fine
SHAPES = (), (1,), (4,)  # hidden layers
PENALTIES = (3e-2, 1e-2, 1e-3)
STEPS = 12  # LBFGS steps of up to 20 iterations
SEARCH_ROWS = 2500  # rows that models are compared on; the final training takes all
ROWS_FOR_THREADS = 20000  # the final training uses all threads from this size on
ABOUT = 0.03  # relative difference of losses that does not count as worse
FORMULA_ROWS = 2000  # rows for training a formula's numbers by Levenberg-Marquardt
MANY = 30  # with more inputs, only this many important ones go into wide networks
# Sets of functions, tried in this order; finite everywhere, so that a formula gives a number for every row.
LIBRARIES = (
    ("x",),
    ("x", "x^2"),
    ("x", "x^2", "x^3", "exp", "tanh", "sin", "gaussian"),
)
FOLDS, FOLDS_ROWS, FOLDS_CELLS = 5, 500, 5000  # number of folds, and the largest tables that have several
FEWEST_SHARE = 50  # of many edges, at least about this share is removed at a time
READABLE = 100  # edges that a formula may have


class Found(NamedTuple):
    """data: as searched, with the target on its scale (skew.py). network: pruned, with splines. formula: the same with
    symbolic functions on its edges, or the network of `law`; None without."""

    data: Prepared
    network: KAN
    formula: KAN | None
    formula_is_as_good: bool
    law: laws.Law | None = None

    def model(self, kind: str) -> KAN:
        """The "formula" or the "network"."""
        model = self.formula if kind == "formula" else self.network
        assert model is not None
        return model


def find(
    data: Prepared, seed: int, progress: Callable[[str], object] = lambda stage: None, with_laws: bool = True
) -> Found:
    """Search and train; progress is called with the name of each stage. Reproducible on a CPU."""
    with threads(1):
        progress("laws")
        inputs = range(data.x.shape[1])
        law = laws.find(data, seed, inputs) if with_laws else None
        if law is None or not law.exact:
            progress("scale of the target")
            own, data = data, skew.scaled(data, lambda d, rows, others: additive(d, rows, others, seed))
            if with_laws and data is not own:
                law = laws.find(data, seed, inputs)
        search = Search(data, seed, progress)
        model = search.shaped()
        model = search.refined(model)
        model = search.pruned(model, lambda m: search.fit(m, search.train, search.lamb))
        if with_laws and len(inputs) > laws.MOST_INPUTS:
            progress("laws of the inputs that are left")
            law = laws.find(data, seed, model.input_id.tolist())
        formula, law, good = search.symbolic(model, law)
    progress("final training")
    everything = torch.cat([data.train, data.valid])
    with threads(1 if len(everything) < ROWS_FOR_THREADS else torch.get_num_threads()):
        search.fit(model, everything, search.lamb)
        if law is not None:
            law = laws.refitted(law, data, everything)
            formula = law.model
        elif formula is not None:
            search.polish(formula, everything, 30)
    return Found(data, model, formula, good, law)


def folds(
    data: Prepared, prepared: Callable[[int], Prepared], seed: int, progress: Callable[[str], object]
) -> list[Found]:
    """The search, and for a small table those of other folds, so that errors do not depend on the luck of one split;
    not where the first finds an exact law.

    prepared: the data of fold 1, 2, ...
    """
    found = [find(data, seed, progress)]
    small = len(data.x) <= FOLDS_ROWS and data.x.numel() <= FOLDS_CELLS
    law = found[0].law
    exact = law is not None and law.exact
    count = min(FOLDS, len(data.x) // len(data.test)) if small and not exact else 1
    for n in range(1, count):
        with contextlib.suppress(TableError):  # without a column or a class in so few rows
            said = partial(_say, progress, f"fold {n + 1} of {count}: ")
            found.append(find(prepared(n), seed, said, with_laws=law is not None))
    return found


def _say(progress: Callable[[str], object], before: str, stage: str) -> None:
    progress(before + stage)


@torch.no_grad()
def additive(data: Prepared, rows: Tensor, others: Tensor, seed: int) -> Tensor:
    """The outputs at the other rows of a network without hidden nodes, trained on the rows."""
    search = Search(data._replace(train=rows, valid=others), seed, lambda stage: None)
    model = search.new([data.x.shape[1], data.preparation.outputs])
    with torch.enable_grad():
        search.fit(model, rows, search.lamb)
    return model(data.x[others])


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of torch threads: small networks gain nothing from more, and lose on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Search:
    """Trains models on the training rows and compares them on the validation rows."""

    def __init__(self, data: Prepared, seed: int, progress: Callable[[str], object]):
        self.data, self.seed, self.progress = data, seed, progress
        self.train, self.valid = data.train[:SEARCH_ROWS], data.valid[:SEARCH_ROWS]
        self.classes = data.preparation.classes is not None
        self.lamb = PENALTIES[0]

    # Training and comparing

    def loss_rows(self, prediction: Tensor, rows: Tensor) -> Tensor:
        """The loss of every row, [N]."""
        return row_losses(prediction, self.data.y[rows], self.classes)

    def fit(self, model: KAN, rows: Tensor, lamb: float) -> None:
        """Train with a penalty."""

        def log_loss(prediction: Tensor, label: Tensor) -> Tensor:
            return row_losses(prediction, label, True).mean()

        loss = log_loss if self.classes else None
        pair = self.data.x[rows], self.data.y[rows]
        model.fit(
            pair, steps=STEPS, lamb=lamb, lamb_entropy=1.0, loss_fn=loss, reg_metric="edge_forward_sum",
            progress=False, log=STEPS, update_grid=False,
        )  # fmt: skip

    def polish(self, model: KAN, rows: Tensor, steps: int) -> None:
        """Train the numbers of a formula. For classification keep the penalty: on separable classes the likelihood has
        no maximum."""
        if not self.classes:
            few = rows[:FORMULA_ROWS]
            pair = self.data.x[few], self.data.y[few]
            model.fit(pair, opt="LM", steps=steps, progress=False, log=steps, update_grid=False)
        if self.classes or len(rows) > FORMULA_ROWS:
            self.fit(model, rows, self.lamb if self.classes else 0.0)

    @torch.no_grad()
    def losses(self, model: KAN) -> Tensor:
        """Validation loss of every row, inf if the model's output is not finite."""
        rows = self.valid
        return self.loss_rows(model(self.data.x[rows]), rows).nan_to_num(math.inf)

    # Stages

    def shaped(self) -> KAN:
        """The network of the simplest shape that is not worse than a deeper one, with its best penalty."""
        best: tuple[KAN, Tensor] | None = None
        inputs = None
        for hidden in SHAPES:
            tried = []
            for lamb in PENALTIES:
                shape = [self.data.x.shape[1], *hidden, self.data.preparation.outputs]
                self.progress(f"{'-'.join(map(str, shape))}, penalty {lamb:g}")
                model = self.new(shape)
                if inputs is not None:
                    model = model.prune_input(active_inputs=inputs)
                self.fit(model, self.train, lamb)
                tried.append((model, self.losses(model), lamb))
            model, losses, lamb = min(tried, key=lambda result: float(result[1].mean()))
            if best is None or worse(best[1], losses, 2.0):
                best, self.lamb = (model, losses), lamb
            if not hidden and len(self.data.preparation.inputs) > MANY:
                best[0].get_act(self.data.x[self.train])
                inputs = sorted(best[0].feature_score.topk(MANY).indices.tolist())
        assert best is not None
        return best[0]

    def new(self, shape: Sequence[int]) -> KAN:
        """A new network with grids from the data."""
        model = KAN(
            shape, grid=GRIDS[0], grid_range=(-3, 3), seed=self.seed, dtype=torch.float64, outside="linear",
            grid_eps=0.5, noise_scale=0.1,
        )  # fmt: skip
        model.update_grid(self.data.x[self.train])
        return model

    def refined(self, model: KAN) -> KAN:
        """Refine the grids as long as the coarser ones are worse."""
        least = self.losses(model)
        for grid in GRIDS[1:]:
            self.progress(f"grid of {grid}")
            finer = model.refine(grid)
            self.fit(finer, self.train, self.lamb)
            losses = self.losses(finer)
            if not worse(least, losses):
                break
            model, least = finer, losses
        return model

    def pruned(self, model: KAN, train: Callable[[KAN], object]) -> KAN:
        """Remove edges, nodes and inputs, weakest first, while the validation loss does not grow; after each removal
        train(model) is called."""
        least, best = self.losses(model), model
        step = best.n_edge // 3
        while step > best.n_edge // FEWEST_SHARE and best.n_edge > 1:
            step = min(step, best.n_edge - 1)
            self.progress(f"{best.n_edge - step} of {model.n_edge} edges")
            smaller = self.without(best, best.n_edge - step)
            if smaller is not None:
                train(smaller)
                if not worse(self.losses(smaller), least):
                    best = smaller
                    continue
            step //= 2
        return best

    def without(self, model: KAN, count: int) -> KAN | None:
        """A copy with at most `count` edges, without unconnected nodes. None if an output would lose its last edge."""
        x, smaller = self.data.x[self.train], model.copy()
        try:
            smaller.prune_edge(count=count, x=x)
            return smaller.prune(0.0, 0.0, x=x).prune_input(0.0)
        except ValueError:
            return None

    def symbolic(self, model: KAN, law: laws.Law | None) -> tuple[KAN | None, laws.Law | None, bool]:
        """The formula, with the law if it is that, and whether it is as good as the splines."""
        if model.n_edge > READABLE:
            self.data.notes.append(f"no formula: the network needs {model.n_edge} edges")
            return None, None, False
        found = None if law is not None and law.exact else self.replaced(model)
        if law is not None and found is not None:
            losses, others = self.losses(law.model), self.losses(found)
            shorter = law.model.n_edge <= found.n_edge
            law = law if worse(others, losses) or (shorter and not worse(losses, others)) else None
        found = found if law is None else law.model
        return found, law, found is not None and not worse(self.losses(found), self.losses(model))

    def replaced(self, model: KAN) -> KAN | None:
        """The model with symbolic functions of the smallest set that is not worse than a larger one."""
        best: tuple[KAN, Tensor] | None = None
        for lib in LIBRARIES:
            self.progress(f"functions {', '.join(lib)}")
            trial = model.copy()
            try:
                trial.get_act(self.data.x[self.train])
                replace_edges(trial, lib=lib)
                self.polish(trial, self.train[:FORMULA_ROWS], 10)
            except (ValueError, RuntimeError):  # no function is finite on an edge
                continue
            losses = self.losses(trial)
            if bool(losses.isfinite().all()) and (best is None or worse(best[1], losses)):
                best = trial, losses
        if best is None:
            return None
        return self.pruned(best[0], lambda m: self.polish(m, self.train[:FORMULA_ROWS], 10))


def row_losses(prediction: Tensor, label: Tensor, classes: bool) -> Tensor:
    """Squared error, or negative log-likelihood in nats, of every row: [N]."""
    return cross_entropy(prediction, label) if classes else (prediction - label).square()[:, 0]


def worse(losses: Tensor, others: Tensor, errors: float = 1.0) -> bool:
    """Whether the mean of `losses` [N] exceeds that of `others` by more than `errors` standard errors of the row-wise
    difference, and by more than the share ABOUT."""
    difference = losses - others
    if not bool(difference.isfinite().all()):
        return not bool(losses.isfinite().all())
    chance = errors * float(difference.std()) / math.sqrt(len(difference))
    return float(difference.mean()) > max(chance, ABOUT * float(others.mean()))
