"""The machine code of the CUDA kernels. Needs nvcc, no GPU."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
if NVCC is None:
    pytest.skip("no nvcc", allow_module_level=True)

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("nvcc")]  # one process compiles

# The flags of CMakeLists.txt.
FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-prec-div=false", "--expt-relaxed-constexpr", f"-I{ROOT / 'csrc'}")
UNITS = [("gather", "f32", "90a"), ("gather", "f32", "80"), ("gather", "bf16", "90a"), ("gather", "f64", "90a")]
PRODUCTS = [("matrix", "bf16", "80"), ("matrix", "f16", "90a")]
ROW_WALKS = ("gradients", "edge_moments", "edge_gradients")
# Maximum registers per thread, float32 kernels for cubics: room for 16, 12 or 8 warps on a multiprocessor.
MOST_REGISTERS = {"out_kernel": 128, **dict.fromkeys(ROW_WALKS, 168), "edge_gradients": 255}
# Of the matrix kernels, by the rows of a tile: room for two and three blocks of 128 threads.
MOST_IN_PRODUCTS = {128: 255, 64: 168}


@dataclass(frozen=True)
class Kernel:
    """The assembler's report of a kernel, and its machine code."""

    name: str
    operand: str
    cubic: bool
    tile: int
    columns: int
    registers: int
    stack: int
    spills: int
    code: str


def disassembler() -> str:
    """From the CUDA toolkit, else from Triton's wheel."""
    if found := shutil.which("nvdisasm") or shutil.which("nvdisasm", path="/usr/local/cuda/bin"):
        return found
    triton = pytest.importorskip("triton", reason="no nvdisasm")
    return str(Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm")


def kernels(report: str, assembly: str) -> Iterator[Kernel]:
    entries = re.compile(
        r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers", re.S
    )
    code = dict(re.findall(r"\.section\s+\.text\.(\w+),(.*?)(?=\n\s*\.section\s|\Z)", assembly, re.S))
    for symbol, stack, spills, registers in entries.findall(report):
        if "matrix_backward_kernel" in symbol:  # see test_cuda_backward_compile.py
            continue
        name = re.search(r"fastkan\d+(\w+?_kernel)", symbol)[1]
        if name == "row_walk_kernel":
            name = ROW_WALKS[int(re.search(r"ReductionE?(\d)", symbol)[1])]
        operand = (re.search(r"(Vectors|Elements)I", symbol) or [""])[0].rstrip("I")
        shape = re.search(r"TileILi(\d+)ELi(\d+)", symbol)
        tile, columns = map(int, shape.groups()) if shape else (0, 0)
        cubic = "Li3ELb1E" in symbol
        yield Kernel(name, operand, cubic, tile, columns, int(registers), int(stack), int(spills), code[symbol])


def compiled(folder: Path, file: str, kind: str, arch: str) -> list[Kernel]:
    cubin = folder / f"{file}_{kind}.cubin"
    elements = int(kind in ("f32", "f64"))
    command = [NVCC, *FLAGS, f"-DFASTKAN_TYPE={kind}", f"-DFASTKAN_ELEMENTS={elements}", "-Xptxas", "-v", "-cubin"]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}", str(ROOT / f"csrc/cuda/{file}.cu"), "-o", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not re.search("wgmma.* are serialized|arrive is injected", done.stderr), done.stderr
    assembly = subprocess.run([disassembler(), str(cubin)], capture_output=True, text=True, check=True).stdout
    return list(kernels(done.stderr, assembly))


@pytest.fixture(scope="module", params=UNITS, ids="-".join)
def unit(request, tmp_path_factory) -> list[Kernel]:
    return compiled(tmp_path_factory.mktemp("cubin"), *request.param)


@pytest.fixture(scope="module", params=PRODUCTS, ids="-".join)
def products(request, tmp_path_factory) -> list[Kernel]:
    return compiled(tmp_path_factory.mktemp("cubin"), *request.param)


WAITING = """
#include "cuda/matrix/tma.h"
__global__ void waiting_kernel(int* parity) {
  __shared__ fastkan::Barrier barrier;
  fastkan::wait_for(&barrier, *parity);
}
"""


@pytest.mark.parametrize("release", [True, False])
def test_a_wait_for_a_barrier_ends_in_debug_builds(tmp_path, release):
    """With a trap, which is an error of the kernel: a release waits for ever."""
    source, cubin = tmp_path / "waiting.cu", tmp_path / "waiting.cubin"
    source.write_text(WAITING)
    flags = [flag for flag in FLAGS if release or flag != "-DNDEBUG"]
    subprocess.run(
        [NVCC, *flags, "-cubin", "-gencode=arch=compute_90a,code=sm_90a", str(source), "-o", str(cubin)], check=True
    )
    code = subprocess.run([disassembler(), str(cubin)], capture_output=True, text=True, check=True).stdout
    assert "SYNCS.PHASECHK.TRANS64.TRYWAIT" in code
    assert ("BPT.TRAP" in code) != release


def test_stack_kernels_have_no_spills_and_no_atomics(tmp_path):
    found = compiled(tmp_path, "stack", "f32", "80")
    assert sorted(k.name for k in found) == ["stack_kernel"] * 6 + ["stack_sum_kernel"] * 3  # up to two tangents
    assert_in_registers(found)
    assert_no_atomics(found)


def test_all_kernels_are_compiled(unit):
    operands = {k.operand for k in unit} - {""}
    expected = {
        (name, operand, cubic) for name in ("out_kernel", *ROW_WALKS) for operand in operands for cubic in (0, 1)
    }
    assert {(k.name, k.operand, int(k.cubic)) for k in unit if k.operand} == expected
    assert {"reduce_kernel", "moments_kernel"} <= {k.name for k in unit}


def assert_in_registers(kernels: list[Kernel]) -> None:
    for k in kernels:
        assert k.stack == k.spills == 0, (k.name, k.operand, k.cubic, k.stack, k.spills)
        assert not re.search(r"\b(STL|LDL)\b", k.code), (k.name, k.operand, k.cubic)
        assert re.search(r"\b(EXIT|BPT.TRAP)\b", k.code)


def test_no_local_memory(unit):
    assert_in_registers(unit)


@pytest.mark.parametrize("unit", UNITS[:2], ids="-".join, indirect=True)
def test_register_limits(unit):
    for k in unit:
        if k.cubic:
            assert k.registers <= MOST_REGISTERS[k.name], (k.name, k.operand, k.registers)


def test_coefficients_are_read_16_bytes_at_a_time(unit):
    for k in unit:
        wide = len(re.findall(r"\bLDG\.E\.128\b", k.code))
        assert (wide > 0) == (k.operand == "Vectors"), (k.name, k.operand, wide)


def assert_no_atomics(kernels: list[Kernel]) -> None:
    for k in kernels:
        assert not re.search(r"(?<!\.)\b(ATOM|ATOMG|ATOMS|RED)\b", k.code), (k.name, k.operand)


def test_no_atomics(unit):
    """No atomics, to global or shared memory."""
    assert_no_atomics(unit)


def found_in(k: Kernel, instruction: str) -> int:
    return len(re.findall(rf"\b{re.escape(instruction)}\b", k.code))


def test_matrix_kernels_use_tensor_cores(products):
    """Sparse products for the window, dense ones otherwise; asynchronous copies of 16 bytes."""
    tiles = [k for k in products if k.tile]
    expected = [("matrix_out_kernel", tile) for tile in (64, 128)]
    assert sorted((k.name, k.tile) for k in tiles) == sorted(4 * expected)  # degrees 2 and 3; usual or any
    for k in tiles:
        blocks = k.tile // 32 * k.tile // 16  # products [16, 8] of a warp
        assert found_in(k, "HMMA.SP.16832.F32") == 2 * blocks  # 64 columns a step
        assert found_in(k, "HMMA.16816.F32") == blocks
        assert found_in(k, "LDGSTS.E.BYPASS.128")
        assert found_in(k, "LDSM.16.MT88.4")
        assert found_in(k, "STG.E.128")


@pytest.mark.parametrize("products", PRODUCTS, ids="-".join, indirect=True)
def test_wgmma_kernels_are_warp_specialised(products, request):
    """64 x 256 a step, TMA copies, mbarriers and register reallocation to the consumers; on sm_90a only."""
    found = [k for k in products if k.name == "matrix_out_wgmma_kernel"]
    assert len(found) == 4  # degrees; usual or any
    there = "90a" in request.node.callspec.id
    for k in found:
        assert k.registers <= 65536 // 512  # launched with 512 threads
        assert found_in(k, "HGMMA.SP.64x128x32.F32") == (2 * 2 if there else 0)
        assert found_in(k, "HGMMA.64x128x16.F32") == (2 if there else 0)
        for instruction in ("UTMALDG.4D", "UTMALDG.4D.MULTICAST", "SYNCS.PHASECHK.TRANS64.TRYWAIT",
                            "USETMAXREG.DEALLOC.CTAPOOL", "LDGSTS.E.BYPASS.128", "STG.E"):  # fmt: skip
            assert bool(found_in(k, instruction)) == there, instruction


def test_tf32_uses_tensor_cores(tmp_path):
    """Sparse products for the window, dense ones otherwise; operands are loaded 16 bytes at a time."""
    found = compiled(tmp_path, "matrix", "f32", "80")
    tiles = [k for k in found if k.tile]
    expected = [("matrix_out_kernel", tile) for tile in (64, 128)]
    assert sorted((k.name, k.tile) for k in tiles) == sorted(4 * expected)
    for k in tiles:
        high, wide = k.tile // 32, k.tile // 16  # row blocks and column blocks of a warp
        assert found_in(k, "HMMA.SP.16816.F32.TF32") == found_in(k, "HMMA.1688.F32.TF32") == 2 * high * wide
        right = 4 * wide // 4 + 2 * wide // 4  # pieces of a product 16 deep and of one 8 deep
        assert found_in(k, "LDS.128") >= 2 * (high + right)
        assert found_in(k, "LDGSTS.E.BYPASS.128")
        assert found_in(k, "STG.E.128")
    assert_no_spills_no_atomics(found)


@pytest.mark.parametrize(("arch", "instruction", "each"), [("80", "DMMA.884", 4), ("90a", "DMMA.16x8x8", 1)])
def test_float64_uses_tensor_cores(tmp_path, arch, instruction, each):
    found = compiled(tmp_path, "matrix", "f64", arch)
    tiles = [k for k in found if k.tile]
    expected = [("matrix_out_kernel", 64), ("matrix_out_kernel", 128)]
    assert sorted((k.name, k.columns) for k in tiles) == sorted(2 * expected)
    for k in tiles:
        high, wide = k.tile // 32, k.columns // 16  # row blocks and column blocks of a warp
        assert found_in(k, instruction) == 2 * 2 * high * wide * each  # two kinds of step, 16 deep
        assert found_in(k, "LDS.128") >= 2 * 2 * (2 * high + wide)  # two numbers each
        assert found_in(k, "LDGSTS.E.BYPASS.128") + found_in(k, "LDGSTS.E.BYPASS.128.ZFILL")
        assert found_in(k, "STG.E.128")
    assert_no_spills_no_atomics(found, {64: 255})


def test_matrix_kernels_have_no_spills_and_no_atomics(products):
    assert_no_spills_no_atomics(products)


def assert_no_spills_no_atomics(products: list[Kernel], most: dict[int, int] = MOST_IN_PRODUCTS) -> None:
    assert_in_registers(products)
    assert_no_atomics(products)
    for k in products:
        if k.tile:
            assert k.registers <= most[k.tile], (k.name, k.tile, k.registers)
