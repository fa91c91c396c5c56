"""Choice of algorithm and tile sizes: tables by architecture and operand type.

Nothing here has been measured on a GPU yet: the tables follow from operation counts and from the compiler's report of
registers and shared memory (bench/ahead.py).
"""

import functools
import os
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
import triton

from ... import devices, ops
from ...spec import Spec
from .kernels.family import Family

CHUNK = 1024  # rows sorted together
# F / (K + 2) above which gathering K + 2 rows of coefficients on the ordinary cores is faster than a product over all
# F on tensor cores: about the ratio of their rates.
GATHER_FROM = {torch.bfloat16: 24.0, torch.float16: 24.0, torch.float32: 8.0, torch.float64: 2.0}
# Triton multiplies on the ordinary cores there.
WITHOUT_MATRIX = ("sm_70", "sm_75")
# Number of multiprocessors assumed in the interpreter.
PROCESSORS = 8


@dataclass(frozen=True)
class Tiles:
    """Tile sizes, by the kernels' names for them, and Triton's launch options."""

    num_warps: int
    num_stages: int
    BN: int
    BI: int | None
    BO: int
    BF: int | None = None

    @functools.cached_property
    def blocks(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if name.isupper() and value is not None}

    @functools.cached_property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}


# kernel -> (bits of an operand, size) -> tiles. "large" where they occupy the multiprocessors and the features take few
# registers. As large as registers and shared memory of every such GPU allow: see bench/results/ahead.
_AMPERE = {
    "out": {
        (16, "large"): Tiles(8, 3, 128, 16, 256),
        (16, "small"): Tiles(4, 3, 64, 16, 64),
        (32, "large"): Tiles(8, 3, 128, 16, 128),
        (32, "small"): Tiles(4, 3, 64, 16, 64),
        (64, "large"): Tiles(8, 2, 64, 16, 64),
        (64, "small"): Tiles(4, 2, 32, 16, 32),
    },
    "in": {
        (16, "large"): Tiles(8, 3, 128, 64, 64),
        (16, "small"): Tiles(4, 3, 64, 32, 32),
        (32, "large"): Tiles(8, 3, 64, 64, 16),
        (32, "small"): Tiles(4, 3, 32, 32, 32),
        (64, "large"): Tiles(8, 2, 32, 16, 32),
        (64, "small"): Tiles(4, 2, 16, 16, 32),
    },
    "coef": {
        (16, "large"): Tiles(8, 3, 64, 64, 128),
        (16, "small"): Tiles(4, 3, 32, 64, 64),
        (32, "large"): Tiles(8, 3, 32, 64, 64),
        (32, "small"): Tiles(4, 3, 32, 32, 64),
        (64, "large"): Tiles(8, 2, 16, 32, 64),
        (64, "small"): Tiles(4, 2, 16, 32, 32),
    },
}
_HOPPER = {
    "out": _AMPERE["out"] | {(16, "large"): Tiles(8, 4, 128, 16, 256), (32, "large"): Tiles(8, 3, 128, 32, 128)},
    "in": _AMPERE["in"] | {(32, "large"): Tiles(8, 2, 128, 32, 32)},
    "coef": _AMPERE["coef"] | {(16, "large"): Tiles(8, 3, 64, 64, 256), (32, "large"): Tiles(8, 2, 32, 64, 128)},
}
_BLACKWELL = {
    "out": _AMPERE["out"] | {(16, "large"): Tiles(8, 3, 128, 64, 128)},
    "in": _HOPPER["in"] | {(32, "large"): Tiles(8, 2, 128, 64, 32)},
    "coef": _HOPPER["coef"] | {(16, "large"): Tiles(8, 3, 64, 64, 128)},
}
_CDNA = {
    "out": {
        (16, "large"): Tiles(8, 2, 128, 32, 128),
        (16, "small"): Tiles(4, 2, 64, 32, 64),
        (32, "large"): Tiles(8, 2, 128, 32, 128),
        (32, "small"): Tiles(4, 2, 64, 32, 64),
        (64, "large"): Tiles(8, 2, 64, 16, 64),
        (64, "small"): Tiles(4, 2, 32, 16, 32),
    },
    "in": {
        (16, "large"): Tiles(8, 2, 128, 64, 64),
        (16, "small"): Tiles(4, 2, 64, 64, 32),
        (32, "large"): Tiles(8, 2, 128, 64, 32),
        (32, "small"): Tiles(4, 2, 64, 32, 32),
        (64, "large"): Tiles(8, 2, 32, 16, 32),
        (64, "small"): Tiles(4, 2, 16, 16, 32),
    },
    "coef": {
        (16, "large"): Tiles(8, 2, 64, 64, 128),
        (16, "small"): Tiles(4, 2, 32, 64, 64),
        (32, "large"): Tiles(8, 2, 32, 64, 128),
        (32, "small"): Tiles(4, 2, 32, 32, 64),
        (64, "large"): Tiles(8, 2, 16, 32, 64),
        (64, "small"): Tiles(4, 2, 16, 32, 32),
    },
}
TABLES = {"sm_90": _HOPPER, "sm_100": _BLACKWELL, "sm_103": _BLACKWELL}  # others: by vendor
# kernel -> bits of the accumulator -> tiles
GATHERS = {
    "out": {32: Tiles(4, 2, 32, None, 64), 64: Tiles(8, 2, 16, None, 64)},
    "in": {32: Tiles(4, 2, 16, 16, 64), 64: Tiles(8, 2, 32, 16, 32)},
    "windowed": {32: Tiles(4, 2, 32, None, 64, 16), 64: Tiles(8, 2, 16, None, 64, 16)},
    "moments": {32: Tiles(4, 2, 32, None, 64), 64: Tiles(4, 2, 16, None, 32)},
    "grad_x": {32: Tiles(4, 2, 32, None, 64), 64: Tiles(4, 2, 16, None, 32)},
    "grad_coef": {32: Tiles(4, 2, 32, None, 64, 16), 64: Tiles(4, 2, 16, None, 32, 16)},
}  # fmt: skip

# Autotune at the first call for a key: measures a few tiles around the table's, caches the fastest on disk.
tune = os.environ.get("FASTKAN_TRITON_TUNE", "0") != "0"
# True or False overrides `gathers`, for tests and measurements.
gather: bool | None = None


class Settings(NamedTuple):
    """What a plan depends on beside its operands."""

    device: torch.device
    architecture: str
    processors: int
    gather: bool | None
    tune: bool
    chunk: int
    tf32: bool


def settings(device: torch.device) -> tuple[Any, ...]:
    """The fields of the present Settings, as a plain tuple: every call makes one."""
    return device, architecture(device), processors(device), gather, tune, CHUNK, ops.allows_tf32()


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def gathers(family: Family, spec: Spec, functions: int, operand: torch.dtype) -> bool:
    """Whether to gather the coefficients of each window instead of multiplying by all features."""
    if family.window is None:
        return False
    if gather is not None:
        return gather
    return not spec.uniform or functions + 1 > GATHER_FROM[operand] * (spec.degree + 2)


def precision(operand: torch.dtype, architecture: str) -> str:
    """Precision of float32 products, following torch's own setting where the GPU has its instructions."""
    of_amd = architecture.startswith("gfx")
    if operand != torch.float32 or (of_amd and architecture != "gfx942") or architecture in WITHOUT_MATRIX:
        return "ieee"
    if ops.allows_tf32():
        return "tf32"
    return "ieee" if of_amd else "tf32x3"


def matrix(
    kernel: str, architecture: str, processors: int, operand: torch.dtype, light: bool, rows: int, inputs: int,
    outputs: int,
) -> Tiles:  # fmt: skip
    """Tiles of a matrix product, fitted to all sizes but the rows, which vary. light: features take few registers."""
    table = TABLES.get(architecture, _CDNA if architecture.startswith("gfx") else _AMPERE)[kernel]
    bits = 8 * operand.itemsize
    large = table[bits, "large"]
    across = cdiv(outputs, large.BO) if kernel == "out" else cdiv(inputs, large.BI or 1)
    large_fits = light and cdiv(rows, large.BN) * across >= processors
    return _fitted(large if large_fits else table[bits, "small"], inputs, outputs)


def gathered(kernel: str, accumulator: torch.dtype, inputs: int, outputs: int) -> Tiles:
    """Tiles of the kernels that read the coefficients of a window, or of one input at a time."""
    return _fitted(GATHERS[kernel][8 * accumulator.itemsize], inputs, outputs)


def candidates(tiles: Tiles) -> tuple[Tiles, ...]:
    """Candidates for autotuning, at most seven: other pipeline depths, and each tile size halved."""
    found = [tiles, *(replace(tiles, num_stages=stages) for stages in (2, 3, 4))]
    for name, extent in tiles.blocks.items():
        if extent >= 32:
            found.append(replace(tiles, **{name: extent // 2}))
    return tuple(dict.fromkeys(found))


def _fitted(tiles: Tiles, inputs: int, outputs: int) -> Tiles:
    """Tiles reduced to the size of the dimensions, but at least 16, which tl.dot requires."""
    fit = {"BO": min(tiles.BO, max(16, triton.next_power_of_2(outputs)))}
    if tiles.BI is not None:
        fit["BI"] = min(tiles.BI, max(16, triton.next_power_of_2(inputs)))
    return replace(tiles, **fit)


@functools.cache
def architecture(device: torch.device) -> str:
    """The name of a GPU's architecture; in the interpreter, of one whose tiles are small."""
    if device.type != "cuda":
        return "sm_80"
    return devices.architecture(device)


def splits(processors: int, programs: int, steps: int) -> int:
    """Number of splits of the rows (split-K) that occupy all multiprocessors: at most one per step of rows."""
    wanted = 2 * processors
    return 1 if programs >= wanted else max(1, min(cdiv(wanted, programs), steps))


@functools.cache
def processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else PROCESSORS
