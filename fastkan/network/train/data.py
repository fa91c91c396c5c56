"""Training and test data of fit: pykan's dictionary, tensors, or loaders, as batches."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ...devices import HOST
from ...nn.data_sample import SAMPLE_ROWS, Rows
from .losses import Weighted

_EXPECTED = (
    "expected a dictionary with train_input and train_label (and test_input, test_label), x and y, (x, y) or "
    "(x, y, x_test, y_test) of tensors, arrays or frames, a TensorDataset, a DataLoader that gives (x, y), or two of "
    "them, for training and for testing"
)


class Data:
    """Endless training batches, epoch after epoch, and the test set.

    x [N, ..., inputs] and y of tensors are cut into batches of `batch` rows, shuffled anew every epoch by a generator
    with the seed; -1 takes all of them, in order. A loader makes its own batches. Without a
    test set the training set takes its place.

    seen: the inputs trained on: all of a tensor; for a loader a bounded sample of rows.
    """

    def __init__(self, dataset, batch: int, seed: int, device: torch.device):
        self.device, self.batch = device, batch
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self.train, self.test = _split(dataset)
        self.epochs, self.rows = 0, Rows()
        if isinstance(self.train, tuple):
            self.train = self._to_device(self.train)
            if not 0 < self.batch < len(self.train[0]):
                self.batch = len(self.train[0])
        if isinstance(self.test, tuple):
            self.test = self._to_device(self.test)

    @property
    def at_once(self) -> bool:
        """Whether every batch has all rows."""
        return isinstance(self.train, tuple) and self.batch == len(self.train[0])

    @property
    def seen(self) -> Tensor | None:
        if isinstance(self.train, tuple):
            return self.train[0]
        return self.rows.rows if self.rows.seen else None

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches of a pass over the training rows; TypeError for a loader without a length."""
        if isinstance(self.train, tuple):
            return max(1, len(self.train[0]) // max(1, self.batch))
        if not hasattr(self.train, "__len__"):
            raise TypeError(f"epochs: the loader, a {type(self.train).__name__}, has no length: expected steps")
        return len(self.train)

    def trained_on(self, x: Tensor) -> None:
        """Add the rows of a batch to the sample, in the first epoch: later epochs repeat them."""
        if self.epochs == 0 and not isinstance(self.train, tuple):
            for rows in x.reshape(-1, x.shape[-1]).split(SAMPLE_ROWS):
                self.rows.keep(rows)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Training batches, epoch after epoch."""
        while True:
            count = 0
            for pair in self._epoch():
                count += 1
                yield pair
            if not count:
                raise ValueError("dataset gives no batches: expected at least one row to train on")
            self.epochs += 1

    def test_batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """The whole test set."""
        if isinstance(self.test, tuple):
            return [self._to_device(self.test)]
        return (self._to_device(pair) for pair in self.test)

    def _epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not isinstance(self.train, tuple):
            for pair in self.train:
                yield self._to_device(pair)
            return
        x, y = self.train
        if self.batch == len(x):
            if len(x):
                yield x, y
            return
        order = torch.randperm(len(x), generator=self.generator, device=HOST).to(self.device)
        for rows in order[: len(x) // self.batch * self.batch].split(self.batch):
            yield x[rows], y[rows]

    def _to_device(self, pair) -> tuple[Tensor, Tensor]:
        if (
            not isinstance(pair, tuple | list)
            or len(pair) != 2
            or not all(isinstance(t, Tensor | Weighted) for t in pair)
        ):
            raise TypeError(f"dataset gives a {type(pair).__name__}: expected pairs of tensors (x, y)")
        x, y = (t.to(self.device) for t in pair)
        if len(x) != len(y):
            raise ValueError(f"dataset: input and label have {len(x)} and {len(y)} rows: expected as many of both")
        return x, y


class NoData:
    """The batches of a training without data."""

    train = seen = None
    at_once = True

    def trained_on(self, x: None) -> None:
        """Nothing to remember."""

    def batches(self) -> Iterator[tuple[None, None]]:
        """Batches without rows."""
        while True:
            yield None, None


def _split(dataset):
    """Training and test set: a pair of tensors or a loader each."""
    if isinstance(dataset, dict):
        missing = [key for key in ("train_input", "train_label") if key not in dataset]
        if missing:
            raise ValueError(f"dataset has no {missing[0]!r}: {_EXPECTED}")
        train = dataset["train_input"], dataset["train_label"]
        test = dataset.get("test_input"), dataset.get("test_label")
        return train, train if any(part is None for part in test) else test
    if isinstance(dataset, tuple | list):
        if all(isinstance(part, Tensor | Weighted) for part in dataset) and len(dataset) in (2, 4):
            return tuple(dataset[:2]), tuple(dataset[-2:])
        if len(dataset) == 2 and all(hasattr(part, "__iter__") for part in dataset):
            return dataset[0], dataset[1]
    elif hasattr(dataset, "__iter__") and not isinstance(dataset, Tensor | str | Iterator):
        return dataset, dataset
    raise TypeError(f"dataset is a {type(dataset).__name__}: {_EXPECTED}")
