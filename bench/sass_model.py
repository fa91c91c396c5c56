"""Times of the CUDA forward that follow from the counts of bench/sass.py, beside cuBLAS with as many parameters.

The busiest of four units bounds a step, if everything else overlaps with it:

- issue: instructions of the warps of one scheduler, one a cycle;
- tensor: multiply-adds at the rate of the data sheet, sparse ones twice as fast;
- shared: 128 bytes a cycle for loads, stores, copies, and the right operands that wgmma reads;
- L2: the coefficients of a tile, once for every cluster, and x.

That is a bound from below. cuBLAS reaches CUBLAS of the tensor cores' peak on large products. Sources: NVIDIA's
data sheets and whitepapers; L2 of the H100: 5.5 TB/s, as public microbenchmarks measure it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

CUBLAS = 0.75
SHARED_BYTES = 128  # a cycle
ROWS = 128  # of a tile
SPLINE, BASE = 8, 16  # inputs of a step


@dataclass(frozen=True)
class Gpu:
    name: str
    arch: str
    processors: int
    clock: float  # GHz
    products: int  # dense multiply-adds in 16 bits, per multiprocessor and cycle
    l2: float  # bytes per multiprocessor and cycle


@dataclass(frozen=True)
class Kernel:
    """The walks of a step, and how many warps of a scheduler go each; columns of a tile; blocks that share copies."""

    name: str
    spline: tuple[tuple[str, int], ...]
    base: tuple[tuple[str, int], ...]
    columns: int
    cluster: int


GPUS = (Gpu("A100", "sm_80", 108, 1.41, 1024, 5120 / 108), Gpu("H100", "sm_90a", 132, 1.755, 2048, 5500 / 132 / 1.755))
MMA = Kernel("mma", (("mma, 8 inputs", 1),), (("mma, 16 base functions", 1),), 128, 1)
WGMMA = Kernel(
    "wgmma",
    (("wgmma producers, 8 inputs", 1), ("wgmma consumers, 8 inputs", 2)),
    (("wgmma producers, 16 base functions", 1), ("wgmma consumers, 16 base functions", 2)),
    256, 2,
)  # fmt: skip
PAIRS = ((GPUS[0], MMA), (GPUS[1], MMA), (GPUS[1], WGMMA))
SHAPES = ((4096, 1024, 1024), (16384, 256, 256))


def cycles(gpu: Gpu, kernel: Kernel, counts: dict[tuple[str, str], dict]) -> dict[str, float]:
    """Cycles of each unit for 8 inputs of a tile, with half a step of base functions."""

    def counted(column: str) -> float:
        steps = ((kernel.spline, 1.0), (kernel.base, SPLINE / BASE))
        return sum(
            share * warps * int(counts[name, gpu.arch][column]) for walks, share in steps for name, warps in walks
        )

    sums = ROWS * kernel.columns
    right = 4 * 2 * SPLINE * kernel.columns * 2 + SPLINE * kernel.columns * 2  # bytes: 4 chunk columns, 2 chunks
    x = 2 * ROWS * SPLINE * 2  # bytes, for windows and base functions
    return {
        "issue": counted("instructions"),
        "tensor": sums * SPLINE * (8 / 2 + 1) / gpu.products,
        "shared": 4 * counted("shared_bytes") / SHARED_BYTES,  # four schedulers
        "l2": (right / kernel.cluster + x) / gpu.l2,
    }


def model(counts: Sequence[dict], shapes: Iterable[tuple[int, int, int]] = SHAPES) -> Iterator[dict]:
    """Rows of model.csv; `measured_us` is for `make gpu` to fill in."""
    by_name = {(row["walk"], row["arch"]): row for row in counts}
    for gpu, kernel in PAIRS:
        if (kernel.spline[0][0], gpu.arch) not in by_name:
            continue
        units = cycles(gpu, kernel, by_name)
        for rows, inputs, outputs in shapes:
            tiles = -(-rows // ROWS) * -(-outputs // kernel.columns)
            waves = -(-tiles // gpu.processors)
            microseconds = waves * -(-inputs // SPLINE) * max(units.values()) / gpu.clock / 1000
            peak = rows * inputs * 9 * outputs / (gpu.processors * gpu.products * gpu.clock * 1000)  # us
            yield {
                "on": gpu.name, "kernel": kernel.name, "shape": f"{rows}x{inputs}x{outputs}",
                **{f"{unit}_cycles": round(value) for unit, value in units.items()},
                "bound_by": max(units, key=units.__getitem__),
                "tensor_busy": round(units["tensor"] / max(units.values()), 2),
                "waves": waves, "estimated_us": round(microseconds, 1), "cublas_us": round(peak / CUBLAS, 1),
                "ratio": round(microseconds * CUBLAS / peak, 2), "measured_us": "",
            }  # fmt: skip
