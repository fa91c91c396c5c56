"""What a table's columns become: inputs of a network with a mean of 0 and a standard deviation of 1, and its target."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from .delimited import different
from .row_sample import Field

MOST_LEVELS = 20  # values of a column of text that become inputs
SHARE, FEWEST = 0.01, 5  # of the rows, and rows, that a value needs for it


@dataclass
class Column:
    """A column that is read, in its own units.

    Of numbers: mean and standard deviation, what stands in for a missing one (the median), and the range, all of the
    rows that were trained on. Of texts: `levels`, the values that become inputs of 0 or 1; all others, and missing
    ones, count as the most common value, for which all these inputs are 0.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    fill: float = 0.0
    low: float = 0.0
    high: float = 0.0
    levels: list[str] | None = None

    @property
    def inputs(self) -> list[str]:
        """The names of the network's inputs that it becomes."""
        if self.levels is None:
            return [self.name]
        return [f"{self.name}={level}" for level in self.levels]

    def features(self, values: Tensor) -> Tensor:
        """[N] numbers, or indices of levels, NaN where there is none -> [N, inputs]."""
        if self.levels is None:
            return self.scaled(values.nan_to_num(self.fill))[:, None]
        return (values[:, None] == torch.arange(len(self.levels))).to(torch.float64)

    def scaled(self, values: Tensor) -> Tensor:
        """(values - mean) / std, without an overflow on the way."""
        return values / self.std - self.mean / self.std

    def unscaled(self, values: Tensor) -> Tensor:
        return values * self.std + self.mean

    def outside(self, values: Tensor) -> Tensor:
        """[N], whether a number is beyond those that were trained on."""
        return (values < self.low) | (values > self.high) if self.levels is None else torch.zeros_like(values).bool()


def of_numbers(name: str, values: Tensor) -> Column | None:
    """The column of these numbers [N], NaN where there is none; None where they are all the same."""
    values = values[~values.isnan()]
    if not len(values) or bool((values == values[0]).all()):
        return None
    size = float(values.abs().max())
    mean, std = float((values / size).mean()) * size, float((values / size).std(correction=0)) * size
    if not std > 1e-12 * size:
        return None
    return Column(name, mean, std, float(values.median()), float(values.min()), float(values.max()))


def of_texts(name: str, field: Field, codes: Tensor) -> Column | None:
    """The column of these codes [N]; None where no value, or a single one, is common."""
    count = Counter(codes[~codes.isnan()].long().tolist())
    common = [code for code, times in count.most_common() if times >= max(FEWEST, SHARE * len(codes))]
    names = list(field.texts)
    levels = [names[code] for code in common[1 : MOST_LEVELS + 1] if code < len(names)]
    return Column(name, levels=sorted(levels)) if levels else None


def indices(names: Sequence[str], levels: Sequence[str]) -> Tensor:
    """For codes of texts, by their names: the index in levels, NaN for others; one more for codes beyond the names."""
    place = {level: float(n) for n, level in enumerate(levels)}
    return torch.tensor([*(place.get(name, math.nan) for name in names), math.nan], dtype=torch.float64)


def looked_up(codes: Tensor, table: Tensor) -> Tensor:
    """table[codes], NaN for NaN."""
    at = codes.nan_to_num(len(table) - 1).clamp_max(len(table) - 1).long()
    return table[at]


def variable(name: str) -> str:
    """The name as it stands in a formula: what is no word is put in brackets."""
    return name if re.fullmatch(r"[^\W\d]\w*", name) else f"[{name}]"


@dataclass
class Preparation:
    """Everything that leads from a table to a network and back.

    classes: the values of the target in the order of the network's outputs (with two classes, its one output is the
    log-odds of the second); None where the target is a number.
    """

    columns: list[Column]
    target: Column
    classes: list[str] | None
    header: bool

    @property
    def inputs(self) -> list[str]:
        return different([name for column in self.columns for name in column.inputs])

    @property
    def outputs(self) -> int:
        return 1 if self.classes is None or len(self.classes) == 2 else len(self.classes)

    @property
    def outcomes(self) -> list[str]:
        """What each output of the network is."""
        if self.classes is None:
            return [self.target.name]
        shown = self.classes[1:] if len(self.classes) == 2 else self.classes
        return [f"log-odds of {name}" if len(self.classes) == 2 else f"score of {name}" for name in shown]

    def features(self, values: dict[str, Tensor]) -> Tensor:
        """Numbers or indices of levels, by the columns' names, [N] each -> [N, inputs]."""
        return torch.cat([column.features(values[column.name]) for column in self.columns], 1)

    def normalizer(self) -> tuple[list[float], list[float]]:
        """Means and standard deviations of the inputs."""
        pairs = [(column.mean, column.std) for column in self.columns for _ in column.inputs]
        return [mean for mean, _ in pairs], [std for _, std in pairs]

    def output_normalizer(self) -> tuple[list[float], list[float]] | None:
        return None if self.classes else ([self.target.mean], [self.target.std])

    def as_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict) -> "Preparation":
        columns = [Column(**column) for column in content["columns"]]
        return cls(columns, Column(**content["target"]), content["classes"], content["header"])
