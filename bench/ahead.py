"""Ahead-of-time compilation of the Triton kernels for GPUs that need not be present.

    python -m bench.ahead [--out DIR] [--targets sm_90 ...] [--sample N]

For every target each kernel in its most usual forms, and in others drawn from a fixed seed: basis family, degree,
extrapolation, knots, order of the derivative, a factor s, dtype, size. Reports shared memory, registers, bytes spilled,
instructions, and what breaks the target's limits. A sample has N of the calls, as many of every target.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastkan.backends.triton import launch, plan
from fastkan.basis.bspline import OUTSIDE
from fastkan.measure.provenance import write_csv
from fastkan.measure.table import table as table_of
from fastkan.spec import MAX_DEGREE, Spec

RESULTS = Path(__file__).parent / "results" / "ahead"


@dataclass(frozen=True)
class Target:
    compiler: GPUTarget
    shared: int  # bytes of shared memory that a launch may have


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 166_912),
    "sm_86": Target(GPUTarget("cuda", 86, 32), 101_376),
    "sm_89": Target(GPUTarget("cuda", 89, 32), 101_376),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 232_448),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 232_448),
    "sm_120": Target(GPUTarget("cuda", 120, 32), 101_376),
    "gfx90a": Target(GPUTarget("hip", "gfx90a", 64), 65_536),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 65_536),
    "gfx950": Target(GPUTarget("hip", "gfx950", 64), 65_536),
}
SPILLED = 32  # bytes a thread that may be spilled
DRAWS = 4  # kinds of each contraction at random
# matrix instructions in the assembly of every architecture
MATRIX = ("mma.sync", "wgmma.mma_async", "tcgen05.mma", "v_mfma")
# name -> (type of the tensors, whether tf32 is allowed)
TYPES = {
    "bf16": (torch.bfloat16, False), "fp16": (torch.float16, False), "tf32": (torch.float32, True),
    "fp32": (torch.float32, False), "fp64": (torch.float64, False),
}  # fmt: skip
SIZES = {"large": (2048, 512, 512), "small": (64, 64, 64)}  # rows, inputs, outputs


@dataclass(frozen=True)
class Case:
    """A contraction with a kind of arguments."""

    contraction: str
    algorithm: str  # matrix or gather
    kind: str
    size: str = "large"
    family: str = "bspline"
    degree: int = 3
    outside: str = "zero"
    uniform: bool = True
    order: int = 0
    with_s: bool = False

    @property
    def spec(self) -> Spec:
        return Spec.of(self.degree, "silu", self.outside, self.uniform, self.family)


@dataclass(frozen=True)
class Launch:
    """A recorded kernel launch."""

    kernel: Any
    args: tuple[Any, ...]
    constants: dict[str, Any]
    options: dict[str, int]

    @property
    def name(self) -> str:
        return f"{self.kernel.__module__.rpartition('.')[2]}.{self.kernel.__name__}"

    def source(self) -> ASTSource:
        """Specialise arguments as Triton's launcher does: ones and absent tensors become constants."""
        signature, constants, attributes = {}, dict(self.constants), {}
        for k, (parameter, value) in enumerate(zip(self.kernel.params, self.args, strict=False)):
            name, fixed = parameter.name, not parameter.do_not_specialize
            if isinstance(value, torch.Tensor):
                signature[name] = "*" + _NAMES[value.dtype]
                attributes[(k,)] = [["tt.divisibility", 16]]
            elif value is None or (value == 1 and fixed):
                signature[name], constants[name] = "constexpr", value
            else:
                signature[name] = "i32" if abs(value) < 2**31 else "i64"
                if value % 16 == 0 and fixed:
                    attributes[(k,)] = [["tt.divisibility", 16]]
        signature.update(dict.fromkeys(self.constants, "constexpr"))
        return ASTSource(self.kernel, signature, constants, attributes)


_NAMES = {
    torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32",
}  # fmt: skip


def launches(case: Case, target: str) -> list[Launch]:
    """The kernels of one call on tensors of that kind."""
    dtype, allow_tf32 = TYPES[case.kind]
    rows, inputs, outputs = SIZES[case.size]
    functions = 500 if case.algorithm == "gather" and case.uniform else 5 + case.degree
    recorded: list[Launch] = []

    def tensor(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    x, u, s = tensor(rows, inputs), tensor(rows, outputs), tensor(rows, inputs) if case.with_s else None
    coef, base_weight, bias = tensor(inputs, functions, outputs), tensor(inputs, outputs), tensor(outputs)
    terms = tensor(3, inputs, outputs, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    spec = tensor(inputs, functions + case.degree + 1, dtype=torch.float64), case.spec
    calls: dict[str, Callable[[], object]] = {
        "kan_out": lambda: launch.kan_out(x, s, coef, base_weight, bias, *spec, case.order),
        "kan_in": lambda: launch.kan_in(x, u, coef, base_weight, *spec, case.order),
        "kan_coef": lambda: launch.kan_coef(x, s, u, *spec, case.order, True),
        "edge_moments": lambda: launch.edge_moments(x, coef, base_weight, *spec),
        "edge_backward": lambda: launch.edge_backward(x, u, terms, coef, base_weight, *spec, True),
    }

    def record(made: launch.direct.Launch, *tensors) -> None:
        recorded.append(Launch(made.kernel, (*tensors, *made.numbers), made.constants, made.options))

    with (
        mock.patch.object(launch.direct, "run", record),
        mock.patch.object(plan, "architecture", lambda device: target),
        mock.patch.object(plan, "processors", lambda device: 1 if case.size == "large" else 1 << 30),
        mock.patch.object(plan, "gather", case.algorithm == "gather"),
        mock.patch.object(plan.ops, "allows_tf32", lambda: allow_tf32),
    ):
        calls[case.contraction]()
    return recorded


def cases() -> Iterator[Case]:
    """The most usual kinds of each contraction, and others at random, the same for all targets."""
    kinds = list(TYPES)
    forms = (
        ("kan_out", "matrix"), ("kan_out", "gather"), ("kan_in", "matrix"), ("kan_in", "gather"),
        ("kan_coef", "matrix"), ("kan_coef", "gather"), ("edge_moments", "gather"), ("edge_backward", "gather"),
    )  # fmt: skip
    for contraction, algorithm in forms:
        usual = kinds if algorithm == "matrix" else ("fp32",)
        yield from (Case(contraction, algorithm, kind, order=int(contraction == "kan_in")) for kind in usual)
        draw = random.Random(f"{contraction} {algorithm}")
        for _ in range(DRAWS):
            yield _drawn(draw, contraction, algorithm, kinds)


def _drawn(draw: random.Random, contraction: str, algorithm: str, kinds: list[str]) -> Case:
    family = draw.choice(("bspline", "bspline", "bspline", "rbf", "chebyshev")) if algorithm == "matrix" else "bspline"
    case = Case(
        contraction, algorithm, draw.choice(kinds), draw.choice(tuple(SIZES)), order=draw.choice((0, 1, 2)),
        with_s=draw.random() < 0.5,
    )  # fmt: skip
    if family == "bspline":
        uniform = algorithm == "matrix" or draw.random() < 0.5
        return replace(case, degree=draw.randint(0, MAX_DEGREE), outside=draw.choice(OUTSIDE), uniform=uniform)
    return replace(case, family=family, degree=0, outside="zero" if family == "rbf" else "clamp")


def compiled(case: Case, target: str) -> list[dict[str, object]]:
    """One row for each kernel of the case."""
    return [_row(case, one, target) for one in launches(case, target)]


def _row(case: Case, one: Launch, target: str) -> dict[str, object]:
    options = {**one.options, "enable_fp_fusion": True}
    kernel = triton.compile(one.source(), target=TARGETS[target].compiler, options=options)
    text = kernel.asm["ptx"] if "ptx" in kernel.asm else kernel.asm["amdgcn"]
    products = {name: count for name in MATRIX if (count := text.count(name))}
    blocks = {k: v for k, v in one.constants.items() if len(k) == 2 and k.isupper()}
    row = {
        "target": target, "kernel": one.name, **{k: str(v) for k, v in asdict(case).items()},
        "tiles": " ".join(f"{k}={v}" for k, v in blocks.items()), "warps": one.options.get("num_warps", 4),
        "shared_bytes": kernel.metadata.shared, **_resources(kernel), "matrix_instructions": sum(products.values()),
        "float64": len(re.findall(r"[._]f64\b", text)), "atomics": len(re.findall(r"_atomic_|\batom\.|\bred\.", text)),
        "instructions": " ".join(products),
    }  # fmt: skip
    return {**row, "faults": ", ".join(faults(row))}


def faults(row: dict[str, Any]) -> Iterator[str]:
    """What breaks the target's limits."""
    if row["shared_bytes"] > TARGETS[row["target"]].shared:
        yield "shared memory"
    if row["spilled_bytes"] > SPILLED:
        yield "spills"
    if row["float64"] and row["kind"] != "fp64":
        yield "float64 arithmetic"
    if row["atomics"]:
        yield "atomics"


def _resources(kernel: Any) -> dict[str, int]:
    """Registers per thread, and bytes spilled."""
    if "amdgcn" in kernel.asm:
        fields = ("vgpr_count", "private_segment_fixed_size")
        registers, spilled = (int(re.search(rf"\.{name}:\s+(\d+)", kernel.asm["amdgcn"])[1]) for name in fields)
    else:
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        registers, local, stack = (int(re.search(rf"{name}:(\d+)", text)[1]) for name in ("REG", "LOCAL", "STACK"))
        spilled = local + stack
    return {"registers": registers, "spilled_bytes": spilled}


def table(targets: list[str], sample: int | None = None, workers: int = 2) -> list[dict[str, object]]:
    chosen = []
    for target in targets:
        of_target = [*dict.fromkeys(cases())]
        if sample is not None:
            of_target = random.Random(target).sample(of_target, sample // len(targets))
        chosen += [(case, target) for case in of_target]
    with ProcessPoolExecutor(workers) as pool:
        return [row for rows in pool.map(compiled, *zip(*chosen, strict=True)) for row in rows]


def report(rows: list[dict[str, object]], sample: int | None = None) -> str:
    """One Markdown table per target."""
    parts = [f"Triton {triton.__version__}, torch {torch.__version__}. Compiled, not run."]
    parts += [f"{len(rows)} kernels, of {'all' if sample is None else f'a sample of {sample}'} calls."]
    for target in dict.fromkeys(row["target"] for row in rows):
        mine = [{k: str(v) for k, v in row.items() if k != "target"} for row in rows if row["target"] == target]
        parts += [f"## {target}", table_of(list(mine[0]), [list(row.values()) for row in mine], left=11)]
    return "\n\n".join(["# The Triton kernels, compiled ahead of time", *parts]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ahead", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--sample", type=int, metavar="N", help="of the calls; default: all, about 15 minutes")
    args = parser.parse_args()
    rows = table(args.targets, args.sample)
    write_csv(args.out / "ahead.csv", rows)
    (args.out / "report.md").write_text(report(rows, args.sample))
    faulty = [row for row in rows if row["faults"]]
    for row in faulty:
        print(*row.values(), sep="\t")
    print(f"{len(rows)} kernels, {len(faulty)} beyond the limits of their target")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
