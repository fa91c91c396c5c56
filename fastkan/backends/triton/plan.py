"""Choice of algorithm and tile sizes: tables by architecture and operand type.

Nothing here has been measured on a GPU yet: the tables follow from operation counts and from the compiler's report of
registers and shared memory (bench/ahead.py).
"""

import functools
import os
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
import triton
import triton.language as tl

from ... import ops
from ...spec import Spec
from .kernels.family import Family

CHUNK = 1024  # rows sorted together
# F / (K + 2) above which gathering K + 2 rows of coefficients on the ordinary cores is faster than a product over all
# F on tensor cores: about the ratio of their rates.
GATHER_FROM = {tl.bfloat16: 24.0, tl.float16: 24.0, tl.float32: 8.0, tl.float64: 2.0}
# Number of multiprocessors assumed in the interpreter.
PROCESSORS = 8


@dataclass(frozen=True)
class Tiles:
    """Tile sizes, by the kernel's names for them, and Triton's launch options."""

    num_warps: int
    num_stages: int

    @functools.cached_property
    def blocks(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if name.isupper()}

    @functools.cached_property
    def options(self) -> dict[str, int]:
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}


@dataclass(frozen=True)
class OutTiles(Tiles):
    BN: int
    BI: int
    BO: int
    GROUP: int = 8


@dataclass(frozen=True)
class GatherTiles(Tiles):
    BN: int
    BO: int


@dataclass(frozen=True)
class BackwardTiles(Tiles):
    XN: int
    XI: int
    XO: int
    CN: int
    CI: int
    CO: int
    BF: int = 16


@dataclass(frozen=True)
class EdgeTiles(Tiles):
    BN: int
    BO: int
    BF: int = 16


@dataclass(frozen=True)
class OrderTiles(Tiles):
    BF: int


# architecture -> (bits of an operand, size) -> tiles; "small" is used if large tiles would leave multiprocessors idle.
# Tiles are as large as the registers allow: none of these spills, see bench/results/ahead.
OUT = {
    "sm_80": {
        (16, "large"): OutTiles(8, 3, 128, 16, 256),
        (16, "small"): OutTiles(4, 3, 64, 32, 64),
        (32, "large"): OutTiles(8, 3, 128, 16, 128),
        (32, "small"): OutTiles(4, 3, 64, 16, 64),
        (64, "large"): OutTiles(8, 2, 64, 16, 64),
        (64, "small"): OutTiles(4, 2, 32, 16, 32),
    },
    "sm_90": {
        (16, "large"): OutTiles(8, 4, 128, 16, 256),
        (16, "small"): OutTiles(4, 3, 64, 32, 64),
        (32, "large"): OutTiles(8, 3, 128, 32, 128),
        (32, "small"): OutTiles(4, 3, 64, 32, 64),
        (64, "large"): OutTiles(8, 2, 64, 16, 64),
        (64, "small"): OutTiles(4, 2, 32, 16, 32),
    },
    "sm_100": {
        (16, "large"): OutTiles(8, 3, 128, 64, 128),
        (16, "small"): OutTiles(4, 3, 64, 32, 64),
        (32, "large"): OutTiles(8, 3, 128, 32, 128),
        (32, "small"): OutTiles(4, 3, 64, 32, 64),
        (64, "large"): OutTiles(8, 2, 64, 16, 64),
        (64, "small"): OutTiles(4, 2, 32, 16, 32),
    },
    "gfx942": {
        (16, "large"): OutTiles(8, 2, 128, 32, 128),
        (16, "small"): OutTiles(4, 2, 64, 32, 64),
        (32, "large"): OutTiles(8, 2, 128, 32, 128),
        (32, "small"): OutTiles(4, 2, 64, 32, 64),
        (64, "large"): OutTiles(8, 2, 64, 16, 64),
        (64, "small"): OutTiles(4, 2, 32, 16, 32),
    },
}
BACKWARD = {
    "sm_80": {
        (16, "large"): BackwardTiles(8, 3, 128, 64, 64, 64, 64, 128),
        (16, "small"): BackwardTiles(4, 3, 64, 32, 32, 32, 64, 64),
        (32, "large"): BackwardTiles(8, 3, 64, 64, 32, 32, 64, 64),
        (32, "small"): BackwardTiles(4, 3, 64, 32, 32, 32, 32, 64),
        (64, "large"): BackwardTiles(8, 2, 32, 16, 32, 16, 32, 64),
        (64, "small"): BackwardTiles(4, 2, 16, 16, 32, 16, 32, 32),
    },
    "sm_90": {
        (16, "large"): BackwardTiles(8, 3, 128, 64, 64, 64, 64, 256),
        (16, "small"): BackwardTiles(4, 3, 64, 64, 32, 32, 64, 64),
        (32, "large"): BackwardTiles(8, 2, 128, 64, 32, 32, 64, 128),
        (32, "small"): BackwardTiles(4, 3, 64, 32, 32, 32, 64, 64),
        (64, "large"): BackwardTiles(8, 2, 32, 16, 32, 16, 32, 64),
        (64, "small"): BackwardTiles(4, 2, 16, 16, 32, 16, 32, 32),
    },
    "sm_100": {
        (16, "large"): BackwardTiles(8, 3, 128, 64, 64, 64, 64, 128),
        (16, "small"): BackwardTiles(4, 3, 64, 32, 32, 32, 64, 64),
        (32, "large"): BackwardTiles(8, 2, 128, 64, 32, 32, 64, 128),
        (32, "small"): BackwardTiles(4, 3, 64, 32, 32, 32, 64, 64),
        (64, "large"): BackwardTiles(8, 2, 32, 16, 32, 16, 32, 64),
        (64, "small"): BackwardTiles(4, 2, 16, 16, 32, 16, 32, 32),
    },
    "gfx942": {
        (16, "large"): BackwardTiles(8, 2, 128, 64, 64, 64, 64, 128),
        (16, "small"): BackwardTiles(4, 2, 64, 64, 32, 32, 64, 64),
        (32, "large"): BackwardTiles(8, 2, 128, 64, 32, 32, 64, 128),
        (32, "small"): BackwardTiles(4, 2, 64, 32, 32, 32, 64, 64),
        (64, "large"): BackwardTiles(8, 2, 32, 16, 32, 16, 32, 64),
        (64, "small"): BackwardTiles(4, 2, 16, 16, 32, 16, 32, 32),
    },
}
# bits of the accumulator -> tiles
GATHER_OUT = {32: GatherTiles(4, 2, 32, 64), 64: GatherTiles(8, 2, 32, 64)}
GATHER_BACKWARD = {
    32: BackwardTiles(4, 2, 16, 16, 64, 32, 32, 64),
    64: BackwardTiles(8, 2, 32, 16, 32, 16, 32, 64),
}  # fmt: skip
EDGE = {32: EdgeTiles(4, 2, 32, 64), 64: EdgeTiles(4, 2, 16, 32)}

# Autotune at the first call for a key: measures a few tiles around the table's, caches the fastest on disk.
tune = os.environ.get("FASTKAN_TRITON_TUNE", "0") != "0"
# True or False overrides `gathers`, for tests and measurements.
gather: bool | None = None


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up; 100 times as fast as triton.cdiv."""
    return -(-a // b)


def gathers(family: Family, spec: Spec, functions: int, operand: tl.dtype) -> bool:
    """Whether to gather the coefficients of each window instead of multiplying by all features."""
    if family.window is None:
        return False
    if gather is not None:
        return gather
    return functions + 1 > GATHER_FROM[operand] * (spec.degree + 2)


def precision(operand: torch.dtype) -> str:
    """Precision of float32 products, following torch's own setting."""
    if operand != torch.float32:
        return "ieee"
    if ops.allows_tf32():
        return "tf32"
    return "ieee" if torch.version.hip else "tf32x3"


def matrix_out(device: torch.device, operand: tl.dtype, rows: int, inputs: int, outputs: int) -> OutTiles:
    return _matrix_out(architecture(device), processors(device), operand, rows, inputs, outputs)


def matrix_backward(device: torch.device, operand: tl.dtype, rows: int, inputs: int, outputs: int) -> BackwardTiles:
    return _matrix_backward(architecture(device), processors(device), operand, rows, inputs, outputs)


@functools.lru_cache(1024)
def _matrix_out(row: str, processors: int, operand: tl.dtype, rows: int, inputs: int, outputs: int) -> OutTiles:
    large = OUT[row][operand.primitive_bitwidth, "large"]
    idle = cdiv(rows, large.BN) * cdiv(outputs, large.BO) < processors
    t = OUT[row][operand.primitive_bitwidth, "small"] if idle else large
    return _fitted(t, BN=rows, BI=inputs, BO=outputs)


@functools.lru_cache(1024)
def _matrix_backward(
    row: str, processors: int, operand: tl.dtype, rows: int, inputs: int, outputs: int
) -> BackwardTiles:
    large = BACKWARD[row][operand.primitive_bitwidth, "large"]
    idle = cdiv(rows, large.XN) * cdiv(inputs, large.XI) < processors
    t = BACKWARD[row][operand.primitive_bitwidth, "small"] if idle else large
    return _fitted(t, XN=rows, XI=inputs, XO=outputs, CN=rows, CI=inputs, CO=outputs)


@functools.lru_cache(1024)
def gather_out(accumulator: tl.dtype, rows: int, outputs: int) -> GatherTiles:
    return _fitted(GATHER_OUT[accumulator.primitive_bitwidth], BN=rows, BO=outputs)


@functools.lru_cache(1024)
def gather_backward(accumulator: tl.dtype, rows: int, inputs: int, outputs: int) -> BackwardTiles:
    t = GATHER_BACKWARD[accumulator.primitive_bitwidth]
    return _fitted(t, XN=rows, XI=inputs, XO=outputs, CN=rows, CI=inputs, CO=outputs)


@functools.lru_cache(1024)
def edge(accumulator: tl.dtype, rows: int, outputs: int) -> EdgeTiles:
    return _fitted(EDGE[accumulator.primitive_bitwidth], BN=rows, BO=outputs)


def candidates(tiles: Tiles) -> tuple[Tiles, ...]:
    """Candidates for autotuning, at most eight: other pipeline depths, and each tile size halved."""
    found = [tiles, *(replace(tiles, num_stages=stages) for stages in (2, 3, 4))]
    for name, extent in tiles.blocks.items():
        if name in ("BN", "BI", "BO", "XN", "XI", "CO") and extent >= 32:
            found.append(replace(tiles, **{name: extent // 2}))
    return tuple(dict.fromkeys(found))


_AnyTiles = TypeVar("_AnyTiles", bound=Tiles)


def _fitted(tiles: _AnyTiles, **sizes: int) -> _AnyTiles:
    """Tiles reduced to the size of the dimensions, but at least 16, which tl.dot requires."""
    fit = {name: min(getattr(tiles, name), max(16, triton.next_power_of_2(size))) for name, size in sizes.items()}
    return replace(tiles, **fit)


@functools.cache
def architecture(device: torch.device) -> str:
    """The architecture in the tables for a device: its own, else the most similar one."""
    if torch.version.hip:
        return "gfx942"
    major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 8
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


def splits(device: torch.device, programs: int, steps: int) -> int:
    """Number of splits of the rows (split-K) that occupy all multiprocessors: at most one per step of rows."""
    wanted = 2 * processors(device)
    return 1 if programs >= wanted else max(1, min(cdiv(wanted, programs), steps))


@functools.cache
def processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else PROCESSORS
