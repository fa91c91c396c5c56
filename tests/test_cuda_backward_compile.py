"""The machine code of the backward by matrix products, along the usual path, and the costs that plans are made of."""

import ctypes
import re

import pytest

from bench import sass
from bench.sass_backward import ROWS, SYMBOL, TILE, USUAL
from support.emulated import LIBRARY

if reason := sass.missing():
    pytest.skip(reason, allow_module_level=True)

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("nvcc")]  # one process compiles

SOURCE = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include "cuda/matrix/kan_backward.h"
namespace fastkan {
void run(const Problem& p, const Device& device) { matrix_backward<STORED>(p, device); }
}
"""
STORED = {"bf16": "__nv_bfloat16", "f32": "float", "f64": "double"}
BYTES = {"bf16": 2, "f32": 4, "f64": 8}


def compiled(tmp_path_factory, kind: str, arch: str) -> list[sass.Kernel]:
    source = tmp_path_factory.mktemp("backward") / "backward.cu"
    source.write_text(SOURCE.replace("STORED", STORED[kind]))
    return [k for k in sass.compiled(source, kind, arch) if "matrix_backward_kernel" in k.symbol]


@pytest.fixture(scope="module", params=[("bf16", "80"), ("bf16", "90a"), ("bf16", "120"), ("f32", "80"), ("f64", "80")],
                ids="-".join)  # fmt: skip
def unit(request, tmp_path_factory) -> tuple[str, str, list[sass.Kernel]]:
    return (*request.param, compiled(tmp_path_factory, *request.param))


def test_registers(unit):
    """No spills, no local memory, no atomics; two warps for each scheduler, three blocks of small tiles."""
    kind, _, kernels = unit
    # degrees 2 and 3: small tiles; in 16 bits large ones and warpgroups, too; in tf32 large ones of the usual case
    assert len(kernels) == 2 * {"bf16": 5, "f32": 3, "f64": 1}[kind]
    for k in kernels:
        assert k.spills == 0, k.symbol
        assert not any(re.match(r"STL|LDL|ATOM|RED", i.opcode) for i in k.code), k.symbol
        assert k.registers <= (168 if TILE[64] in k.symbol and kind != "f64" else 255), k.symbol


# Of each kind: products of both tiles, m16n8 or less, for blocks [16, 8] of a warp
PRODUCTS = {"bf16": ("HMMA.16816.F32.BF16", 4), "f32": ("HMMA.1688.F32.TF32", 4), "f64": ("DMMA.884", 16)}


@pytest.mark.parametrize("unit", [("bf16", "80"), ("f32", "80"), ("f64", "80")], ids="-".join, indirect=True)
def test_tensor_cores(unit):
    """Two steps, one of each kind of tile, and operands of 16 bytes: by ldmatrix, in 32 and 64 bits by lanes."""
    kind, _, kernels = unit
    instruction, each = PRODUCTS[kind]
    for k in kernels:
        if TILE[256] in k.symbol:
            assert not any("MMA" in i.opcode for i in k.code)  # it has code for sm_90a alone
            continue
        size = 128 if TILE[128] in k.symbol else 64
        opcodes = [i.opcode for i in k.code]
        assert opcodes.count(instruction) == each * (size // 32) * (size // 16)
        assert any(re.match(r"LDGSTS\.E\.BYPASS\.128", o) for o in opcodes) and "STG.E.128" in opcodes
        loads = {"LDSM.16.MT88.4", "LDSM.16.M88.4"} if kind == "bf16" else {"LDS.128"}
        assert loads <= {*opcodes}


@pytest.mark.parametrize("unit", [("bf16", "90a")], ids="-".join, indirect=True)
def test_warpgroups(unit):
    """Products by wgmma from registers and shared memory: 4 a step of coefficients, 4 a step of x."""
    *_, kernels = unit
    for k in kernels:
        products = [i.opcode for i in k.code if i.opcode.startswith("HGMMA")]
        assert products == (8 * ["HGMMA.64x128x16.F32.BF16"] if TILE[256] in k.symbol else [])


# The landmarks of a step of coefficients: products, copies, features stored, base functions (loads of x in the usual
# case); of x: products, copies; of four rows of x: four of D and one of the base's, base functions.
STEPS = {
    ("bf16", "90a", 256, 1): USUAL[256],
    ("bf16", "80", 128, 1): USUAL[128],
    ("bf16", "80", 64, 1): USUAL[64],
    ("bf16", "80", 128, 0): ({"HMMA": 64, "LDGSTS": 4, r"STS\.128": 4, "MUFU": 4}, {"HMMA": 64, "LDGSTS": 8}),
    ("bf16", "80", 64, 0): ({"HMMA": 16, "LDGSTS": 2, r"STS\.128": 2, "MUFU": 2}, {"HMMA": 16, "LDGSTS": 4}),
    ("f32", "80", 128, 1): ({"HMMA": 64, "LDGSTS": 4, "STS": 26, r"MUFU\.EX2": 2}, {"HMMA": 64, "LDGSTS": 8}),
    ("f32", "80", 64, 1): ({"HMMA": 16, "LDGSTS": 2, "STS": 13, r"MUFU\.EX2": 1}, {"HMMA": 16, "LDGSTS": 4}),
    ("f32", "80", 64, 0): ({"HMMA": 16, "LDGSTS": 2, "STS": 13, "MUFU": 1}, {"HMMA": 16, "LDGSTS": 4}),
    ("f64", "80", 64, 0): ({"DMMA": 64, "LDGSTS": 4, "STS": 13, "MUFU": 1}, {"DMMA": 64, "LDGSTS": 8}),
}  # fmt: skip
# Cycles of the tensor cores of a multiprocessor, of an A100 or H100, for a step of coefficients and of x
TENSOR = {"HGMMA": (512, 256), 128: (512, 512), 64: (128, 128), "DMMA": (1024, 1024)}
# Most instructions of a warp: the same, and a row of x
MOST = {("bf16", "90a", 256, 1): (262, 150, 84), ("bf16", "80", 128, 1): (470, 210, 84),
        ("bf16", "80", 64, 1): (240, 120, 120)}  # fmt: skip


COUNTED = [("bf16", "80"), ("bf16", "90a"), ("f32", "80"), ("f64", "80")]


@pytest.mark.parametrize("unit", COUNTED, ids="-".join, indirect=True)
def test_instructions_of_a_step(unit):
    """The costs of the plans are these, of the shortest way, or the tensor cores' cycles where these are more."""
    kind, arch, kernels = unit
    emulated = ctypes.CDLL(str(LIBRARY))
    for key, steps in STEPS.items():
        *of_unit, tiles, usual = key
        if of_unit != [kind, arch]:
            continue
        (kernel,) = (k for k in kernels if re.search(SYMBOL.format(tile=TILE[tiles], usual=usual), k.symbol))
        # General windows take several ways through a row: no single one is counted.
        landmarks = (*steps, ROWS) if usual else steps
        coef, x, *rows = (len(sass.usual_path(kernel, passed)) for passed in landmarks)
        row = rows[0] / 4 if rows else 0
        assert all(n <= most for n, most in zip((coef, x, row), MOST.get(key, (coef, x, row)), strict=True))
        costs = (ctypes.c_int * 4)()
        emulated.fastkan_emulated_backward_costs(BYTES[kind], tiles, bool(usual), costs)
        warpgroups = 2 if tiles == 256 else 1
        products = next(iter(steps[0]))
        tensor = TENSOR.get(products) or TENSOR[tiles]
        assert costs[0] == pytest.approx(max(coef * warpgroups, tensor[0]), rel=0.05), key
        assert costs[1] == pytest.approx(max(x, tensor[1]), rel=0.05), key
        assert costs[2] == pytest.approx(row, rel=0.05) if usual else costs[2] > 150, key
