"""What the elementwise kernels of triton:features use of a GPU, by the compiler's word, for a GPU that need not be here.

    python -m support.triton_resources TARGET

Prints a line of JSON for each compiled kernel.
"""

import argparse
import itertools
import json
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import torch
import triton

from fastkan.backends.triton import features
from fastkan.testing import Problem
from support.families import OUTSIDE_OF, family_problem
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


def problems():
    """(a name, a problem): everyday splines of all widths and dtypes, then the other bases."""
    for inputs, functions, dtype in itertools.product((128, 5), (8, 6, 11), (BF16, HALF, SINGLE, DOUBLE)):
        yield Problem.random(2, inputs, 2, functions - 3, knots="promised", dtype=dtype)
    for degree, outside, knots in itertools.product((0, 2, 3, 5), ("zero", "linear"), ("promised", "uneven")):
        for dtype in (BF16, SINGLE):
            yield Problem.random(2, 128, 2, 5, degree, outside=outside, knots=knots, dtype=dtype, weighted=True)
    for family, dtype in itertools.product(OUTSIDE_OF, (BF16, SINGLE)):
        yield family_problem(family, 2, 128, 2, dtype=dtype)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.triton_resources", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    case = ""

    def compile(source, target, options) -> None:
        kernel = triton.compile(source, target=target, options=options.__dict__)
        rows.append({"case": case, "kernel": source.fn.__name__, **report(kernel)})

    rows: list[dict] = []
    Driver(parser.parse_args().target, compile).use()
    maker = features.Maker()
    for p, order in itertools.product(problems(), (0, 1)):
        x, dtype = p.x, p.coef.dtype
        case = f"{dtype} {list(p.coef.shape[:2])} {p.spec} order {order} {'with s' if p.s is not None else ''}"
        maker.features(x, p.s, p.grid, p.spec, order, dtype)
        g = torch.empty(x.shape[0], x.shape[1] * p.coef.shape[1], dtype=dtype)
        maker.slopes(x, g, p.grid, p.spec, order, dtype)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
