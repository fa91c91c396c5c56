"""`fastkan demo`: classify scanned digits with nn.Linear and with KANLinear, find formulas, time every backend."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..measure import provenance
from ..measure.correctness import Case
from ..measure.peers import DEFAULT, builds
from ..measure.progress import bar
from ..measure.table import duration, table
from ..measure.timing import measure, time_interleaved
from ..nn import KANLinear, replace_linear
from . import MissingExtra, formulas
from .bench import FOOTNOTE, headline, results_table

HIDDEN = 64
CLASSES = 10
BATCH = 64
LEARNING_RATE = 3e-3
OPTIMIZERS: dict[str, dict[str, Any]] = {"AdamW": {}, "AdamW(fused=True)": {"fused": True}}
CASES = (Case(1024, 256, 256, 5), Case(256, 64, 64, 200))


def run(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    digits = load_digits(args.seed)
    print(
        f"Scanned digits of scikit-learn: {len(digits.train_y)} for training, {len(digits.test_y)} held out; "
        f"{args.epochs} epochs, batch size {BATCH}, AdamW.\n"
        f"{torch.get_num_threads()} threads, {provenance.cpu_model()}\n"
    )
    outcomes = [train(name, model, digits, args.epochs, args.seed) for name, model in models(args.seed).items()]
    print(outcome_table(outcomes, step_seconds(digits, args.seed, args.rounds)))
    print(
        f"\nAccuracy on the {len(digits.test_y)} held-out digits, with its standard error. The third network is the "
        "first\nafter replace_linear; share of held-out inputs outside the grid, layer by layer: "
        f"{', '.join(f'{share:.1%}' for share in outcomes[-1].outside)}.\n"
        f"A step is forward, backward and optimizer for {BATCH} digits, timed in turns; kept: what the forward saves "
        "for\nthe backward beside parameters and data."
    )
    print()
    formulas.show(args.folder, args.seed)
    for case in CASES:
        print(f"\nForward, and forward + backward: {headline(case)}")
        print(results_table(measure(case, builds(DEFAULT), args.rounds, progress=bar)))
    print(FOOTNOTE)
    return 0


def require_extra() -> None:
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
        import sympy  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"needs scikit-learn, SymPy and matplotlib ({error}): pip install scikit-learn sympy matplotlib tqdm"
        ) from error


@dataclass
class Digits:
    """x [N, 64] in [-1, 1], y [N] classes."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def load_digits(seed: int) -> Digits:
    """1797 digits of 8 x 8 pixels, a fifth held out, the same share of every class."""
    require_extra()
    from sklearn import datasets, model_selection

    pixels, labels = datasets.load_digits(return_X_y=True)  # pixels are 0 to 16
    parts = model_selection.train_test_split(
        pixels / 8 - 1, labels, test_size=0.2, stratify=labels, random_state=seed
    )  # fmt: skip
    train_x, test_x, train_y, test_y = map(torch.as_tensor, parts)
    return Digits(train_x.float(), train_y.long(), test_x.float(), test_y.long())


def models(seed: int) -> dict[str, nn.Sequential]:
    """One network with nn.Linear, one with as many parameters as the third, one with its layers replaced by KANLinear.

    Tanh keeps the second layer's inputs inside its grid, [-1, 1].
    """
    torch.manual_seed(seed)
    plain, kan = perceptron(HIDDEN), perceptron(HIDDEN)
    replace_linear(kan)
    wide = round((parameter_count(kan) - CLASSES) / (64 + 1 + CLASSES))  # H (64 + 1) + H 10 + 10 parameters
    return {
        "nn.Linear": plain,
        "nn.Linear, as many parameters": perceptron(wide),
        "KANLinear": kan,
    }


def perceptron(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, CLASSES))


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@dataclass
class Outcome:
    name: str
    shape: str
    parameters: int
    accuracy: float
    tested: int
    kept_bytes: int
    outside: list[float]  # share of the test inputs outside the grid of each KAN layer


def train(name: str, model: nn.Sequential, digits: Digits, epochs: int, seed: int) -> Outcome:
    """Train by cross entropy, then test once."""
    g = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    steps = math.ceil(len(digits.train_y) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for _ in bar(range(epochs), name):
        for rows in torch.randperm(len(digits.train_y), generator=g).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(digits.train_x[rows]), digits.train_y[rows]).backward()
            optimizer.step()
            schedule.step()
    accuracy, outside = test(model, digits)
    linears = [layer for layer in model if hasattr(layer, "in_features")]
    shape = "-".join(str(layer.in_features) for layer in linears) + f"-{CLASSES}"
    kept = saved_bytes(model, digits.train_x[:BATCH])
    return Outcome(name, shape, parameter_count(model), accuracy, len(digits.test_y), kept, outside)


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """What a forward saves for the backward, beside x, parameters and buffers."""
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(x)
    own = {t.untyped_storage().data_ptr() for t in (x, *model.parameters(), *model.buffers())}
    return sum(storage.nbytes() for at, storage in saved.items() if at not in own)


def step_seconds(digits: Digits, seed: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a training step of every network, with each of OPTIMIZERS."""
    x, y = digits.train_x[:BATCH], digits.train_y[:BATCH]

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    runs: dict[str, Callable[[], object]] = {}
    for options in OPTIMIZERS.values():
        for name, model in models(seed).items():
            optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, **options)
            runs[f"{name} {options}"] = partial(step, model, optimizer)
    times, _ = time_interleaved(runs, rounds, progress=bar, label="steps")
    return {name: [median(times[f"{name} {options}"]) for options in OPTIMIZERS.values()] for name in models(seed)}


@torch.no_grad()
def test(model: nn.Sequential, digits: Digits) -> tuple[float, list[float]]:
    """Share of right answers, and of inputs outside each KAN layer's grid."""
    x, outside = digits.test_x, []
    for layer in model:
        if isinstance(layer, KANLinear):
            outside.append(layer.outside_share(x).mean().item())
        x = layer(x)
    return (x.argmax(1) == digits.test_y).double().mean().item(), outside


def outcome_table(outcomes: list[Outcome], seconds: dict[str, list[float]]) -> str:
    rows = [
        [
            o.name, o.shape, str(o.parameters),
            f"{o.accuracy:.3f} +- {math.sqrt(o.accuracy * (1 - o.accuracy) / o.tested):.3f}",
            *map(duration, seconds[o.name]), f"{o.kept_bytes / 1024:.0f} kB",
        ]
        for o in outcomes
    ]  # fmt: skip
    steps = (f"step, {name}" for name in OPTIMIZERS)
    return table(("layers", "sizes", "parameters", "accuracy", *steps, "kept"), rows, left=2)
