"""What the kernels of triton:features use of a GPU that need not be here, by the compiler and the machine code.

    python -m support.triton_resources [--all] TARGET

Prints JSON: a list of kernels.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import triton

from fastkan.backends.triton import features
from fastkan.testing import Problem
from support.families import family_problem
from support.problems import BF16, DOUBLE, HALF, SINGLE
from support.triton_driver import TARGETS, Driver

TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
# A machine instruction with its operands left out, in the disassembly of a cubin and in AMD's assembly.
SASS, AMD = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+ )?([A-Z][\w.]+)", re.M), re.compile(r"^\t([a-z]\w+)", re.M)
KINDS = {
    "barriers": r"BAR|s_barrier", "atomics": r"ATOM|RED\b|RED\.|\w+_atomic",
    "float64": r"D(ADD|MUL|FMA|SETP|MNMX)|F2F\.(F64|F32\.F64)|MUFU\.\w+64|[IU]2F\.F64|F2I\.F64|v_\w*f64",
    "products": r"HMMA|\w*GMMA|UTC\w*MMA|DMMA|v_mfma|v_wmma",
}  # fmt: skip


def report(kernel) -> dict[str, int]:
    """Registers and spills of a thread, bytes of shared memory, and numbers of instructions."""
    if "cubin" in kernel.asm:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            Path(file.name).write_bytes(kernel.asm["cubin"])
            usage, text = (
                subprocess.run([TOOL, flag, file.name], capture_output=True, text=True, check=True).stdout
                for flag in ("-res-usage", "-sass")
            )
        registers, *spills = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "LOCAL", "STACK"))
        names = SASS.findall(text)
    else:
        text = kernel.asm["amdgcn"]
        wanted = ("vgpr_count", "vgpr_spill_count", "sgpr_spill_count")
        registers, *spills = (int(re.search(rf"\.{name}:\s+(\d+)", text)[1]) for name in wanted)
        names = AMD.findall(text)
    counts = {kind: sum(bool(re.match(words, name)) for name in names) for kind, words in KINDS.items()}
    return {
        "registers": registers, "spills": sum(spills), "shared": kernel.metadata.shared, "instructions": len(names),
        **counts,
    }  # fmt: skip


def problems(all: bool) -> Iterator[Problem]:
    """Cubic splines in two types; then all other types, widths, bases and orders, one or two at a time."""
    for dtype, order in ((BF16, 0), (SINGLE, 1)):
        yield spline(8, dtype, order)
    if not all:
        return
    for dtype, order in ((HALF, 0), (DOUBLE, 0), (BF16, 1), (SINGLE, 0), (DOUBLE, 2)):
        yield spline(8, dtype, order, weighted=True)
    for functions, dtype, inputs in ((6, BF16, 128), (11, BF16, 5), (6, HALF, 5), (11, SINGLE, 128), (10, SINGLE, 16)):
        yield spline(functions, dtype, inputs=inputs)
    for degree, order, outside, knots in (
        (3, 0, "linear", "promised"), (3, 0, "zero", "uneven"), (3, 1, "linear", "uneven"), (2, 0, "linear", "uneven"),
        (5, 0, "linear", "uneven"), (5, 1, "clamp", "promised"), (1, 0, "linear", "promised"), (0, 0, "zero", "uneven"),
    ):  # fmt: skip
        dtype = (BF16, SINGLE)[(degree + order) % 2]
        yield spline(10, dtype, order, degree=degree, outside=outside, knots=knots, weighted=True)
    for family, dtype in (("rbf", BF16), ("chebyshev", SINGLE)):
        yield family_problem(family, 2, 128, 2, functions=8, dtype=dtype)


def spline(
    functions: int, dtype: torch.dtype, order: int = 0, inputs: int = 128, degree: int = 3, knots: str = "promised",
    **options,
) -> Problem:  # fmt: skip
    return Problem.random(
        2, inputs, 2, functions - degree, degree, order=order, knots=knots, dtype=dtype, **options
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.triton_resources", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--all", action="store_true", help="every kind of kernel, half a minute")
    args = parser.parse_args()
    case, found = "", []

    def compile(source, target, options) -> None:
        kernel = triton.compile(source, target=target, options=options.__dict__)
        found.append({"case": case, "kernel": source.fn.__name__, **report(kernel)})

    Driver(args.target, compile).use()
    maker = features.Maker()
    for p in problems(args.all):
        dtype = p.coef.dtype
        case = f"{dtype} {list(p.coef.shape[:2])} {p.spec} order={p.order} weighted={p.s is not None}"
        maker.features(p.x, p.s, p.grid, p.spec, p.order, dtype)
        g = torch.empty(p.x.shape[0], p.x.shape[1] * p.coef.shape[1], dtype=dtype)
        maker.slopes(p.x, g, p.grid, p.spec, p.order, dtype)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
