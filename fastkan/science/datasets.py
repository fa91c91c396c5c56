"""create_dataset: training and test data from a function; create_dataset_from_data: a random split of a table.

The numbers equal pykan's for the same seed, bit for bit. Global random generators are not used.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..arguments import integer, number
from ..devices import HOST

MODES = ("col", "row")


def create_dataset(
    f: Callable[[Tensor], Tensor],
    n_var: int = 2,
    f_mode: str = "col",
    ranges: Sequence = (-1, 1),
    train_num: int = 1000,
    test_num: int = 1000,
    normalize_input: bool = False,
    normalize_label: bool = False,
    device: torch.device | str = "cpu",
    seed: int = 0,
    *,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """A dataset of uniform random inputs, with f as the labels.

    Args:
        f: the labels [N] or [N, outputs] as a function of x [N, n_var] with f_mode="col", as in
            `lambda x: x[:, [0]] * x[:, [1]]`, or of its transpose [n_var, N] with "row", as in `lambda x: x[0] * x[1]`.
        n_var: number of inputs.
        ranges: (low, high) for all inputs, or one pair for each; a list, an array or a tensor.
        train_num, test_num: number of rows N.
        normalize_input, normalize_label: standardise by the mean and standard deviation of the training set.
        device: of the result; the data are created on the CPU, so that they are the same for every device.
        seed: of the inputs.
        dtype: of the data, by default torch's default dtype.

    Returns train_input, train_label, test_input, test_label: a dictionary of tensors [N, ...] for KAN.fit.

    Raises TypeError or ValueError that name the argument, its value and what was expected; ValueError also for labels
    that are not finite, and for normalisation of a constant column.
    """
    n_var = integer("n_var", n_var, 1)
    if f_mode not in MODES:
        raise ValueError(f"f_mode={f_mode!r}: expected one of {', '.join(map(repr, MODES))}")
    sizes = integer("train_num", train_num, 1), integer("test_num", test_num, 0)
    limits = _limits(ranges, n_var)
    generator = torch.Generator("cpu").manual_seed(integer("seed", seed, 0))
    inputs = [torch.empty(size, n_var, dtype=dtype or torch.get_default_dtype()) for size in sizes]
    for i, (low, high) in enumerate(limits):
        for x in inputs:
            x[:, i] = torch.rand(len(x), generator=generator, dtype=x.dtype) * (high - low) + low
    labels = [_labels(f, f_mode, x) for x in inputs]
    if normalize_input:
        inputs = _normalized("normalize_input", "x", *inputs)
    if normalize_label:
        labels = _normalized("normalize_label", "f", *labels)
    return _dataset(inputs[0], inputs[1], labels[0], labels[1], device)


def create_dataset_from_data(
    inputs: Tensor,
    labels: Tensor,
    train_ratio: float = 0.8,
    device: torch.device | str = "cpu",
    *,
    seed: int | None = 0,
) -> dict[str, Tensor]:
    """A random split of the rows of a table into training and test data.

    Args:
        inputs [N, ...], labels [N, ...]: one row per sample.
        train_ratio: the share of training rows, above 0 and at most 1; their number is rounded down.
        device: of the result.
        seed: of the choice. None uses NumPy's global generator, as pykan does: np.random.seed(s) then has the effect
            of seed=s.

    Returns a dictionary as create_dataset. Raises TypeError or ValueError that name the argument, its value and what
    was expected, and ImportError without NumPy, whose random generator is used.
    """
    import numpy as np

    for name, data in (("inputs", inputs), ("labels", labels)):
        if not isinstance(data, Tensor):
            raise TypeError(f"{name} is a {type(data).__name__}: expected a tensor [N, ...]")
        if data.dim() == 0:
            raise ValueError(f"{name} has shape []: expected [N, ...]")
    count = len(inputs)
    if len(labels) != count:
        raise ValueError(f"inputs and labels have {count} and {len(labels)} rows: expected the same number")
    chosen = int(count * number("train_ratio", train_ratio, 0.0))
    if not 0 < chosen <= count:
        expected = "a share above 0, at most 1, with at least one row to train on"
        raise ValueError(f"train_ratio={train_ratio!r} of {count} rows is {chosen}: expected {expected}")
    draw = np.random if seed is None else np.random.RandomState(integer("seed", seed, 0))
    train = draw.choice(count, chosen, replace=False).tolist()
    test = list(set(range(count)) - set(train))  # pykan's order, which need not be sorted
    inputs, labels = inputs.detach(), labels.detach()
    return _dataset(inputs[train], inputs[test], labels[train], labels[test], device)


def _limits(ranges: Sequence, n_var: int) -> list[tuple[float, float]]:
    """(low, high) of every input."""
    expected = f"expected a finite (low, high), or a list of {n_var} of them"
    try:
        table = torch.tensor([[float(v) for v in pair] for pair in ranges], dtype=torch.float64, device=HOST)
    except TypeError:
        try:
            table = torch.tensor([float(v) for v in ranges], dtype=torch.float64, device=HOST)
        except TypeError:
            raise TypeError(f"ranges={ranges!r}: {expected}") from None
    except ValueError:
        raise ValueError(f"ranges={ranges!r}: {expected}") from None
    table = table.expand(n_var, -1) if table.dim() == 1 else table
    if list(table.shape) != [n_var, 2] or not table.isfinite().all():
        raise ValueError(f"ranges={ranges!r}: {expected}")
    return [(low, high) for low, high in table.tolist()]


def _labels(f: Callable, f_mode: str, x: Tensor) -> Tensor:
    """f at x [N, n_var], as [N, outputs]."""
    y = f(x if f_mode == "col" else x.T)
    if not isinstance(y, Tensor):
        raise TypeError(f"f returned a {type(y).__name__}: expected a tensor")
    y = y.detach()
    if y.dim() not in (1, 2) or len(y) != len(x):
        raise ValueError(f"f returned shape {list(y.shape)}: expected [{len(x)}] or [{len(x)}, outputs], {f_mode=}")
    if not y.isfinite().all():
        row = int((~y.isfinite()).reshape(len(x), -1).any(1).nonzero()[0])
        raise ValueError(f"f is {y[row].tolist()} at {x[row].tolist()}: expected finite labels; check the ranges")
    return y[:, None] if y.dim() == 1 else y


def _normalized(name: str, what: str, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    flat = (train == train[:1]).all(0)
    if flat.any():
        column = int(flat.nonzero()[0])
        raise ValueError(
            f"{name}=True: column {column} of {what} does not vary over {len(train)} rows: expected different values"
        )
    mean, std = train.mean(0, keepdim=True), train.std(0, keepdim=True)
    return (train - mean) / std, (test - mean) / std


def _dataset(
    train_input: Tensor, test_input: Tensor, train_label: Tensor, test_label: Tensor, device: torch.device | str
) -> dict[str, Tensor]:
    data = {"train_input": train_input, "test_input": test_input}
    data.update(train_label=train_label, test_label=test_label)
    return {name: tensor.to(device) for name, tensor in data.items()}
