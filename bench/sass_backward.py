"""The backward of the CUDA kernels by matrix products: instructions counted in the machine code, and times that follow.

Part of bench/sass.py, for bf16, cubic splines on 5 intervals, shared knots, zero outside. The busiest of three units
bounds the launch from below, if everything else overlaps with it: issue, one instruction a cycle and scheduler; tensor
cores, at the data sheet's rate for wgmma, and for mma on an A100; L2, the bytes that blocks copy. Waits, the last
blocks and adding up the splits are left out.
"""

import re
from collections.abc import Iterator

from . import sass
from .sass_model import CUBLAS, GPUS, Gpu

SHAPES = ((16384, 256, 256), (65536, 64, 64), (4096, 1024, 1024))
SYMBOL = r"matrix_backward_kernelI.*{tile}.*Li3ELb{usual}E"
TILE = {64: "4TileILi64ELi64E", 128: "4TileILi128ELi128E", 256: "13WarpgroupTileILi2E"}
# By tiles, 256 for warpgroups: the landmarks of a step of coefficients, products, copies, features, base functions and
# loads of x; of a step of x, products and copies; and of four rows of x, D for four functions and the base, and the
# base functions.
USUAL = {
    256: ({"HGMMA": 4, "LDGSTS": 4, r"STS\.128": 2, r"MUFU\.EX2": 2, r"LDG\.E\.U16": 2}, {"HGMMA": 4, "LDGSTS": 8}),
    128: ({"HMMA": 64, "LDGSTS": 4, r"STS\.128": 4, r"MUFU\.EX2": 4, r"LDG\.E\.U16": 4}, {"HMMA": 64, "LDGSTS": 8}),
    64: ({"HMMA": 16, "LDGSTS": 2, r"STS\.128": 2, r"MUFU\.EX2": 2, r"LDG\.E\.U16": 2}, {"HMMA": 16, "LDGSTS": 4}),
}  # fmt: skip
ROWS = {"LDS": 20, r"MUFU\.RCP": 4}
KEPT = 4  # tiles of x that a block with wgmma computes with the same coefficients, by its plan for the first shape
BLOCK = 600  # instructions of a warp around the steps of a tile: addresses, knots, results


# Tiles on each GPU by the outputs of a tile of coefficients, whose Phi they share.
TILES = {"A100": 128, "H100": 256}


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
    coef_steps = columns * -(-outputs // TILES[gpu.name]) * -(-rows // 32)
    x_tiles = columns * -(-rows // 128)
    x_steps = x_tiles * -(-outputs // 32)
    issue = coef_steps * coef * (TILES[gpu.name] // 128) + x_steps * x + x_tiles * (16 * row + BLOCK)  # of 4 warps
    tensor = (coef_steps * TILES[gpu.name] + x_steps * 128) * 128 * 32 / gpu.products
    # u of two tiles by way of L1; coefficients once for all tiles of a block, if they stay in shared memory
    kept = KEPT if TILES[gpu.name] == 256 and outputs <= 256 else 1
    copied = coef_steps * 32 * (2 * TILES[gpu.name] + 2 * 14) + x_steps * 32 * 2 * (128 / kept + 128 / 2)
    each = gpu.processors * gpu.clock * 1000
    return {"issue": issue / each, "tensor": tensor / each, "l2": copied / gpu.l2 / each}


def model(shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> Iterator[dict]:
    """Rows of backward.csv; `measured_us` is for `make gpu` to fill in."""
    for gpu in GPUS:
        kernels = sass.compiled(sass.ROOT / "csrc/cuda/matrix.cu", "bf16", gpu.arch.removeprefix("sm_"))
        counts = counted(kernels, TILES[gpu.name], 1, USUAL[TILES[gpu.name]])
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
