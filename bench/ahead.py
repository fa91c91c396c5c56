"""Ahead-of-time compilation of every Triton kernel in every shipped configuration, for GPUs that need not be present.

    python -m bench.ahead [--out DIR]

Reports registers, shared memory, spills and matrix instructions, from the machine code and the assembly.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastkan.backends.triton import launch, plan
from fastkan.measure.provenance import write_csv
from fastkan.measure.table import table as table_of
from fastkan.spec import Spec
from fastkan.testing import Problem, call

RESULTS = Path(__file__).parent / "results" / "ahead"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# matrix instructions in the assembly of every architecture
MATRIX = ("mma.sync", "wgmma.mma_async", "tcgen05.mma", "v_mfma")
KERNELS = ("kan_out", "kan_backward", "edge_moments", "edge_backward")
# name -> (type of the tensors, torch.get_float32_matmul_precision())
TYPES = {
    "bf16": (torch.bfloat16, "highest"), "fp16": (torch.float16, "highest"), "tf32": (torch.float32, "high"),
    "fp32": (torch.float32, "highest"), "fp64": (torch.float64, "highest"),
}  # fmt: skip
SHAPES = {"large": (2048, 512, 512, 5), "small": (64, 64, 64, 5), "gather": (2048, 64, 256, 500)}


@dataclass(frozen=True)
class Launch:
    """A recorded kernel launch."""

    kernel: object
    args: tuple
    constants: dict
    options: dict

    def source(self) -> ASTSource:
        """Specialise arguments as Triton's launcher does: ones and absent tensors become constants."""
        signature, constants, attributes = {}, dict(self.constants), {}
        for k, (name, value) in enumerate(zip(self.kernel.arg_names, self.args, strict=False)):
            if isinstance(value, torch.Tensor):
                signature[name] = "*" + _NAMES[value.dtype]
                attributes[(k,)] = [["tt.divisibility", 16]]
            elif value is None or value == 1:
                signature[name], constants[name] = "constexpr", value
            else:
                signature[name] = "i32" if abs(value) < 2**31 else "i64"
                if value % 16 == 0:
                    attributes[(k,)] = [["tt.divisibility", 16]]
        signature.update(dict.fromkeys(self.constants, "constexpr"))
        return ASTSource(self.kernel, signature, constants, attributes)


_NAMES = {
    torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32",
}  # fmt: skip


def launches(contraction: str, kind: str, shape: str, target: str) -> list[Launch]:
    """The launches of one call of a contraction."""
    dtype, precision = TYPES[kind]
    rows, inputs, outputs, grid_size = SHAPES[shape]
    grid = torch.empty(inputs, grid_size + 7, dtype=torch.float64, device="meta")
    small = Problem.random(2, 2, 2, 5, dtype=dtype, knots="promised")
    meta = {"dtype": dtype, "device": "meta"}
    p = Problem(
        x=torch.empty(rows, inputs, **meta), s=None, u=torch.empty(rows, outputs, **meta),
        coef=torch.empty(inputs, grid_size + 3, outputs, **meta), base_weight=torch.empty(inputs, outputs, **meta),
        bias=torch.empty(outputs, **meta), grid=grid, terms=torch.empty(3, inputs, outputs, **meta), spec=small.spec,
    )  # fmt: skip
    recorded: list[Launch] = []

    def record(kernel, programs, device, args, constants, options):
        recorded.append(Launch(kernel, args, constants, options))

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with (
            mock.patch.object(launch, "_run", record),
            mock.patch.object(plan, "architecture", lambda device: target),
            mock.patch.object(plan, "processors", lambda device: 1 if shape == "large" else 1 << 30),
            mock.patch.object(torch.version, "hip", "ahead of time" if target.startswith("gfx") else None),
        ):
            call(SimpleNamespace(**{contraction: _without_dispatch(contraction)}), contraction, p)
    finally:
        torch.set_float32_matmul_precision(before)
    return recorded


def _without_dispatch(contraction: str):
    """The launching function of a contraction; its operator would not call it for meta tensors."""

    def function(*args):
        return getattr(launch, contraction)(*(item for a in args for item in (a if isinstance(a, Spec) else (a,))))

    return function


def cases() -> Iterator[tuple[str, str, str]]:
    for contraction in KERNELS:
        for kind in TYPES:
            for shape in SHAPES:
                if contraction.startswith("edge") and shape != "gather":
                    continue
                if kind == "fp16" and shape != "large":
                    continue
                yield contraction, kind, shape


def compiled(case: tuple[str, str, str, str]) -> list[dict[str, object]]:
    """One row per kernel of the case."""
    contraction, kind, shape, target = case
    rows = []
    for one in launches(contraction, kind, shape, target):
        options = {**one.options, "enable_fp_fusion": True}
        kernel = triton.compile(one.source(), target=TARGETS[target], options=options)
        assembly = kernel.asm.get("ptx") or kernel.asm["amdgcn"]
        products = {name: count for name in MATRIX if (count := assembly.count(name))}
        blocks = {k: v for k, v in one.constants.items() if len(k) <= 2 and k.isupper()}
        rows.append({
            "target": target, "kernel": f"{one.kernel.__module__.rpartition('.')[2]}.{one.kernel.__name__}",
            "operands": kind, "shape": shape, "tiles": " ".join(f"{k}={v}" for k, v in blocks.items()),
            "warps": one.options.get("num_warps", 4), "shared_bytes": kernel.metadata.shared,
            **_resources(kernel, target), "matrix_instructions": sum(products.values()),
            "instructions": " ".join(products),
        })  # fmt: skip
    return rows


def _resources(kernel, target: str) -> dict[str, int]:
    """Registers per thread, and spilled bytes or registers."""
    if target.startswith("gfx"):
        text = kernel.asm["amdgcn"]
        found = {name: int(re.search(rf"\.{name}:\s+(\d+)", text)[1]) for name in ("vgpr_count", "vgpr_spill_count")}
        return {"registers": found["vgpr_count"], "spills": found["vgpr_spill_count"]}
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {"registers": int(re.search(r"REG:(\d+)", text)[1]), "spills": int(re.search(r"LOCAL:(\d+)", text)[1])
            + int(re.search(r"STACK:(\d+)", text)[1])}  # fmt: skip


def table(targets: list[str], workers: int = 2) -> list[dict[str, object]]:
    work = [(*case, target) for target in targets for case in cases()]
    with ProcessPoolExecutor(workers) as pool:
        return [row for rows in pool.map(compiled, work, chunksize=4) for row in rows]


def report(rows: list[dict[str, object]]) -> str:
    """One Markdown table per target."""
    parts = [f"Triton {triton.__version__}, torch {torch.__version__}. Compiled, not run."]
    for target in dict.fromkeys(row["target"] for row in rows):
        mine = [{k: str(v) for k, v in row.items() if k != "target"} for row in rows if row["target"] == target]
        parts += [f"## {target}", table_of(list(mine[0]), [list(row.values()) for row in mine], left=4)]
    return "\n\n".join(["# Every Triton kernel, compiled ahead of time", *parts]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ahead", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    args = parser.parse_args()
    rows = table(args.targets)
    for row in rows:
        print(*row.values(), sep="\t")
    write_csv(args.out / "ahead.csv", rows)
    (args.out / "report.md").write_text(report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
