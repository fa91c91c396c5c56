"""Which algorithm, and in which tiles: tables by device and by the type of the operands.

Nothing here was measured on a GPU yet: the tables follow from operation counts and from what the compiler reports of
registers and shared memory (tests/test_triton_compile.py).
"""

import functools
from dataclasses import asdict, dataclass

import torch
import triton
import triton.language as tl

from ...spec import Spec
from .kernels.family import Family

CHUNK = 1024  # rows that are sorted together
# F / (K + 2) from which gathering K + 2 rows of coefficients on the ordinary cores beats a product over all F on the
# matrix cores: about the ratio of their rates.
GATHER_FROM = {tl.bfloat16: 24.0, tl.float16: 24.0, tl.float32: 8.0, tl.float64: 0.0}
# Where no device says how many programs it runs at once.
PROCESSORS = 8


@dataclass(frozen=True)
class Tiles:
    """Extents of a kernel's tiles by the names that it gives them, and Triton's launch options."""

    num_warps: int
    num_stages: int

    def blocks(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if name.isupper()}

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


# (type of the operands, large or small) -> tiles; small is where large tiles would leave processors idle.
OUT = {
    (16, "large"): OutTiles(8, 3, 128, 64, 256),
    (16, "small"): OutTiles(4, 3, 64, 32, 64),
    (32, "large"): OutTiles(8, 3, 128, 32, 128),
    (32, "small"): OutTiles(4, 3, 64, 32, 64),
    (64, "large"): OutTiles(4, 2, 64, 16, 64),
    (64, "small"): OutTiles(4, 2, 32, 16, 32),
}
BACKWARD = {
    (16, "large"): BackwardTiles(8, 3, 128, 128, 64, 64, 128, 128),
    (16, "small"): BackwardTiles(4, 3, 64, 64, 32, 32, 64, 64),
    (32, "large"): BackwardTiles(8, 3, 128, 64, 32, 32, 64, 128),
    (32, "small"): BackwardTiles(4, 3, 64, 32, 32, 32, 64, 64),
    (64, "large"): BackwardTiles(4, 2, 64, 16, 32, 16, 32, 64),
    (64, "small"): BackwardTiles(4, 2, 32, 16, 32, 16, 32, 32),
}
GATHER_BACKWARD = BackwardTiles(4, 2, 32, 16, 64, 32, 64, 64)
GATHER_OUT = GatherTiles(4, 2, 32, 64)
EDGE = EdgeTiles(4, 2, 32, 64)

# Set to True or False to overrule `gathers`, for tests and measurements.
gather: bool | None = None


def gathers(family: Family, spec: Spec, functions: int, operand: tl.dtype) -> bool:
    """Whether rows of coefficients are gathered, instead of multiplied by all features."""
    if family.window is None:
        return False
    if gather is not None:
        return gather
    return functions + 1 > GATHER_FROM[operand] * (spec.degree + 2)


def sorts(rows: int, functions: int) -> bool:
    """Whether rows are sorted by their windows for the gradient of the coefficients."""
    return True


def precision(operand: torch.dtype) -> str:
    """How float32 operands are multiplied, by torch.get_float32_matmul_precision()."""
    if operand != torch.float32:
        return "ieee"
    if torch.get_float32_matmul_precision() == "highest":
        return "ieee" if torch.version.hip else "tf32x3"
    return "tf32"


def matrix_out(
    device: torch.device, operand: tl.dtype, precision: str, rows: int, inputs: int, outputs: int
) -> OutTiles:
    bits = operand.primitive_bitwidth
    large = OUT[bits, "large"]
    enough = triton.cdiv(rows, large.BN) * triton.cdiv(outputs, large.BO) >= processors(device)
    t = large if enough else OUT[bits, "small"]
    return OutTiles(
        t.num_warps, t.num_stages, _fit(t.BN, rows), _fit(t.BI, inputs), _fit(t.BO, outputs), t.GROUP
    )  # fmt: skip


def backward(
    device: torch.device, operand: tl.dtype, precision: str, gather: bool, rows: int, inputs: int, outputs: int
) -> BackwardTiles:
    bits = operand.primitive_bitwidth
    large = BACKWARD[bits, "large"]
    enough = triton.cdiv(rows, large.XN) * triton.cdiv(inputs, large.XI) >= processors(device)
    t = GATHER_BACKWARD if gather else large if enough else BACKWARD[bits, "small"]
    return BackwardTiles(
        t.num_warps, t.num_stages, _fit(t.XN, rows), _fit(t.XI, inputs), _fit(t.XO, outputs), _fit(t.CN, rows),
        _fit(t.CI, inputs), _fit(t.CO, outputs), t.BF,
    )  # fmt: skip


def gather_out(rows: int, outputs: int) -> GatherTiles:
    t = GATHER_OUT
    return GatherTiles(t.num_warps, t.num_stages, _fit(t.BN, rows), _fit(t.BO, outputs))


def edge(rows: int, outputs: int) -> EdgeTiles:
    t = EDGE
    return EdgeTiles(t.num_warps, t.num_stages, _fit(t.BN, rows), _fit(t.BO, outputs), t.BF)


def splits(device: torch.device, programs: int, steps: int) -> int:
    """Shares of the rows such that every processor has work: at most one for each step of rows."""
    wanted = 2 * processors(device)
    return 1 if programs >= wanted else max(1, min(triton.cdiv(wanted, programs), steps))


@functools.cache
def processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else PROCESSORS


def _fit(extent: int, size: int) -> int:
    """The extent of a tile, but no larger than a dimension of that size needs, and 16 for a matrix product."""
    return min(extent, max(16, triton.next_power_of_2(size)))
