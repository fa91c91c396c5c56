"""The backward of the CUDA kernels by matrix products: instructions counted in the machine code, and times that follow.

    python -m bench.sass_backward [--out DIR]

As bench/sass.py, for bf16, cubic splines on 5 intervals, shared knots, zero outside. Writes backward.csv. The busiest
of three units bounds the launch from below, if everything else overlaps with it: issue, one instruction a cycle and
scheduler; tensor cores, at the data sheet's rate for wgmma, and for mma on an A100; L2, the bytes that blocks copy.
Waits, the last blocks and adding up the splits are left out. cuBLAS has two products with as many parameters, at CUBLAS
of the peak.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastkan.measure.provenance import write_csv

from . import sass

CUBLAS = 0.75  # of the peak, that large products reach
SHAPES = ((16384, 256, 256), (65536, 64, 64), (4096, 1024, 1024))
SYMBOL = r"matrix_backward_kernelI.*{tile}.*Li3ELb{usual}E"
TILE = {64: "4TileILi64ELi64E", 128: "4TileILi128ELi128E", 256: "13WarpgroupTileILi2E"}
# By tiles, 256 for warpgroups: the landmarks of a step of coefficients, products, copies, features, base functions and
# loads of x; of a step of x, products and copies; and of four rows of x, D for four functions and the base, results.
USUAL = {
    256: ({"HGMMA": 4, "LDGSTS": 4, r"STS\.128": 2, r"MUFU\.EX2": 2, r"LDG\.E\.U16": 2}, {"HGMMA": 4, "LDGSTS": 8}),
    128: ({"HMMA": 64, "LDGSTS": 4, r"STS\.128": 4, r"MUFU\.EX2": 4, r"LDG\.E\.U16": 4}, {"HMMA": 64, "LDGSTS": 8}),
    64: ({"HMMA": 16, "LDGSTS": 2, r"STS\.128": 2, r"MUFU\.EX2": 2, r"LDG\.E\.U16": 2}, {"HMMA": 16, "LDGSTS": 4}),
}  # fmt: skip
ROWS = {"LDS": 20, "STG": 4, "MUFU": 4}
KEPT = 3  # tiles of x that a block with wgmma computes with the same coefficients, by its plan for the first shape
BLOCK = 600  # instructions of a warp around the steps of a tile: addresses, knots, results


@dataclass(frozen=True)
class Gpu:
    """Products: multiply-adds per multiprocessor and cycle; outputs of a tile of coefficients, whose Phi they share."""

    name: str
    arch: str
    processors: int
    clock: float  # GHz
    products: int
    l2: float  # bytes a microsecond
    tiles: int
    outputs: int


# L2: of the A100's whitepaper; of the H100 what public microbenchmarks measure
GPUS = (
    Gpu("A100", "80", 108, 1.41, 1024, 5120 * 1.41e3, 128, 128),
    Gpu("H100", "90a", 132, 1.755, 2048, 5.5e6, 256, 256),
)


def counted(kernels: list[sass.Kernel], tiles: int, usual: int, steps: tuple[dict, dict]) -> tuple[int, int, float]:
    """Instructions of a warp in a step of coefficients, in one of x, and in a row of x."""
    (kernel,) = (k for k in kernels if re.search(SYMBOL.format(tile=TILE[tiles], usual=usual), k.symbol))
    coef, x, rows = (len(sass.usual_path(kernel, landmarks)) for landmarks in (*steps, ROWS))
    return coef, x, rows / 4


def estimated(gpu: Gpu, counts: tuple[int, int, float], shape: tuple[int, int, int]) -> dict[str, float]:
    """Microseconds of each unit for the gradients of x, coefficients and base weights."""
    rows, inputs, outputs = shape
    coef, x, row = counts
    columns = (inputs + 13) // 14  # tiles of 128: 7 inputs and their base functions in 64
    coef_steps = columns * -(-outputs // gpu.outputs) * -(-rows // 32)
    x_tiles = columns * -(-rows // 128)
    x_steps = x_tiles * -(-outputs // 32)
    issue = coef_steps * coef * (gpu.outputs // 128) + x_steps * x + x_tiles * (16 * row + BLOCK)  # of 4 warps
    tensor = (coef_steps * gpu.outputs + x_steps * 128) * 128 * 32 / gpu.products
    # u of two tiles by way of L1; coefficients once for all tiles of a block, if they stay in shared memory
    kept = KEPT if gpu.tiles == 256 and outputs <= 256 else 1
    copied = coef_steps * 32 * (2 * gpu.outputs + 2 * 14) + x_steps * 32 * 2 * (128 / kept + 128 / 2)
    each = gpu.processors * gpu.clock * 1000
    return {"issue": issue / each, "tensor": tensor / each, "l2": copied / gpu.l2}


def model(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> Iterator[dict]:
    """Rows of backward.csv; `measured_us` is for `make gpu` to fill in."""
    for gpu in GPUS:
        kernels = sass.compiled(sass.ROOT / "csrc/cuda/matrix.cu", "bf16", gpu.arch)
        counts = counted(kernels, gpu.tiles, 1, USUAL[gpu.tiles])
        for shape in shapes:
            units = estimated(gpu, counts, shape)
            rows, inputs, outputs = shape
            cublas = 2 * rows * inputs * 9 * outputs / (gpu.processors * gpu.clock * 1000 * gpu.products) / CUBLAS
            yield {
                "of_gpu": gpu.name, "shape": "x".join(map(str, shape)),
                "coef_step": counts[0], "x_step": counts[1], "x_row": counts[2],
                **{f"{unit}_us": round(value, 1) for unit, value in units.items()},
                "bound_by": max(units, key=units.__getitem__), "cublas_us": round(cublas, 1),
                "ratio": round(max(units.values()) / cublas, 2), "measured_us": "",
            }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sass_backward", description=__doc__)
    parser.add_argument("--out", type=Path, default=sass.RESULTS, metavar="DIR", help="(bench/results/sass)")
    args = parser.parse_args()
    if reason := sass.missing():
        print(reason)
        return 1
    rows = list(model())
    write_csv(args.out / "backward.csv", rows)
    for row in rows:
        print(*(f"{name}={value}" for name, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
