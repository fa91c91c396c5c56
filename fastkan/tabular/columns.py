"""Convert a table's columns to network inputs and target, standardised to mean 0 and standard deviation 1."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from .delimited import different
from .row_sample import Field
from .transform import TRANSFORMS

MOST_LEVELS = 20  # text values of a column that become inputs
CYCLES = {"year": 365.2425, "week": 7.0, "day": 1.0}  # of dates, in days
SHARE, FEWEST = 0.01, 5  # share of the rows and number of rows that such a value needs


@dataclass
class Column:
    """An input or target column, in its own units.

    Numbers: mean, standard deviation, the fill value of missing cells (the median) and the range, over the training
    rows. Text: `levels`, the values with an input of 0 or 1 each; all others, and missing cells, count as the most
    common value, for which all these inputs are 0. Dates, `dates` in one of dates.ORDERS: days, with a cosine and a
    sine of every one of `cycles`. A target may be fitted as `transform`, one of TRANSFORMS, of the numbers over `unit`;
    mean and standard deviation are then of that.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    fill: float = 0.0
    low: float = 0.0
    high: float = 0.0
    levels: list[str] | None = None
    dates: str | None = None
    cycles: list[str] = field(default_factory=list)
    transform: str | None = None
    unit: float = 1.0

    @property
    def inputs(self) -> list[str]:
        """Names of the network inputs made from this column."""
        if self.levels is None:
            waves = [f"{self.name}, {wave} of the {cycle}" for cycle in self.cycles for wave in ("cosine", "sine")]
            return [self.name, *waves]
        return [f"{self.name}={level}" for level in self.levels]

    def features(self, values: Tensor) -> Tensor:
        """[N] numbers or indices of levels, NaN if missing -> [N, inputs]."""
        if self.levels is None:
            values = values.nan_to_num(self.fill)
            angles = [2 * math.pi / CYCLES[cycle] * values for cycle in self.cycles]
            waves = [wave for angle in angles for wave in (angle.cos(), angle.sin())]
            return torch.stack([self.scaled(values), *waves], 1)
        return (values[:, None] == torch.arange(len(self.levels))).to(torch.float64)

    def scaled(self, values: Tensor) -> Tensor:
        """(values - mean) / std, without intermediate overflow: halves are exact."""
        if self.transform is not None:
            values = TRANSFORMS[self.transform].forward(values / self.unit)
        return (values / 2 - self.mean / 2) / (self.std / 2)

    def unscaled(self, values: Tensor) -> Tensor:
        """The inverse of scaled."""
        values = values * self.std + self.mean
        return values if self.transform is None else TRANSFORMS[self.transform].inverse(values) * self.unit

    @property
    def fitted_name(self) -> str:
        """What is fitted: y, or log(y) where that is the transform."""
        return self.name if self.transform is None else TRANSFORMS[self.transform].written(self.name, self.unit)

    def outside(self, values: Tensor) -> Tensor:
        """[N], whether a number is outside the training range."""
        return (values < self.low) | (values > self.high) if self.levels is None else torch.zeros_like(values).bool()


def of_numbers(name: str, values: Tensor, weight: Tensor | None = None) -> Column | None:
    """The column of these numbers [N], NaN if missing; None if it is constant. weight: how often each row counts."""
    given = ~values.isnan()
    weight = torch.ones_like(values) if weight is None else weight
    values, weight = values[given], weight[given]
    if not len(values) or bool((values == values[0]).all()):
        return None
    size, share = float(values.abs().max()), weight / weight.sum()
    apart = values / 2 - values[0] / 2  # halves of the differences, which do not overflow
    spread = float(apart.abs().max())
    shift = float(apart / spread @ share)
    mean = float(values[0] / 2 + shift * spread) * 2
    std = float((apart / spread - shift).square() @ share) ** 0.5 * spread * 2
    if not std > 1e-12 * size and not bool((values == values.round()).all()):
        return None  # rounding errors
    ordered, order = values.sort()
    middle = int((2 * weight[order].cumsum(0) < weight.sum()).sum())
    return Column(name, mean, std, float(ordered[middle]), float(values.min()), float(values.max()))


def of_texts(name: str, field: Field, codes: Tensor, weight: Tensor | None = None) -> Column | None:
    """The column of these text codes [N]; None if fewer than two values are common. weight: as in of_numbers."""
    weight = torch.ones_like(codes) if weight is None else weight
    given = ~codes.isnan()
    times = torch.bincount(codes[given].long(), weight[given]).tolist()
    least, names = max(FEWEST, SHARE * float(weight.sum())), list(field.texts)
    common = sorted((code for code, count in enumerate(times) if count >= least), key=lambda code: -times[code])
    levels = [names[code] for code in common[1 : MOST_LEVELS + 1] if code < len(names)]
    return Column(name, levels=sorted(levels)) if levels else None


def of_field(field: Field, values: Tensor, weight: Tensor | None = None) -> Column | None:
    """The column of these numbers or text codes [N]; None if it can't tell rows apart."""
    if field.is_text:
        return of_texts(field.name, field, values, weight)
    column = of_numbers(field.name, values, weight)
    if column is not None and field.dates is not None:
        column.dates, column.cycles = field.dates, cycles(values)
    return column


def cycles(days: Tensor) -> list[str]:
    """Of CYCLES, those that the days [N] see at least twice and more often than once each time."""
    days = days[~days.isnan()].sort().values
    span, step = float(days[-1] - days[0]), float(days.diff().median()) if len(days) > 1 else math.inf
    return [
        name for name, length in CYCLES.items() if span >= 2 * length and step <= length / 2 and _turns(days, length)
    ]


def _turns(days: Tensor, length: float) -> bool:
    """Whether days are at several phases of a cycle."""
    return bool((days % length / length).std() > 0.01)


def by_level(field: Field, values: Tensor, column: Column) -> Tensor:
    """The values [N] of a field as Column.features takes them: codes of texts as indices of the column's levels."""
    return looked_up(values, indices(list(field.texts), column.levels or ())) if field.is_text else values


def indices(names: Sequence[str], levels: Sequence[str]) -> Tensor:
    """Lookup table from text code to index in `levels`, NaN for other texts and, last, for codes without a name."""
    place = {level: float(n) for n, level in enumerate(levels)}
    return torch.tensor([*(place.get(name, math.nan) for name in names), math.nan], dtype=torch.float64)


def looked_up(codes: Tensor, table: Tensor) -> Tensor:
    """table[codes], NaN for NaN."""
    at = codes.nan_to_num(len(table) - 1).clamp_max(len(table) - 1).long()
    return table[at]


def variable(name: str) -> str:
    """The column name in formulas, in brackets unless it is a valid identifier."""
    return name if re.fullmatch(r"[^\W\d]\w*", name) else f"[{name}]"


@dataclass
class Preparation:
    """Conversion from table columns to network inputs, and from outputs to the target.

    classes: the target's values in the order of the outputs (two classes: one output, the log-odds of the second);
    None for a numeric target.
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
        """Names of the network's outputs."""
        if self.classes is None:
            return [self.target.name]
        shown = self.classes[1:] if len(self.classes) == 2 else self.classes
        return [f"log-odds of {name}" if len(self.classes) == 2 else f"score of {name}" for name in shown]

    def features(self, values: dict[str, Tensor]) -> Tensor:
        """Numbers, days or indices of levels [N] by column name -> [N, inputs]."""
        return torch.cat([column.features(values[column.name]) for column in self.columns], 1)

    def normalizer(self) -> tuple[list[float], list[float]]:
        """Means and standard deviations of the inputs."""
        plain = (0.0, 1.0)  # of inputs that are as they are
        pairs = [
            (column.mean, column.std) if n == 0 else plain for column in self.columns for n in range(len(column.inputs))
        ]
        return [mean for mean, _ in pairs], [std for _, std in pairs]

    def output_normalizer(self) -> tuple[list[float], list[float]] | None:
        return None if self.classes else ([self.target.mean], [self.target.std])

    def as_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict) -> "Preparation":
        columns = [Column(**column) for column in content["columns"]]
        return cls(columns, Column(**content["target"]), content["classes"], content["header"])
