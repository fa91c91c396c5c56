"""The CUDA kernels as nvcc makes them, read off the machine code. Nothing of this needs a GPU, all of it nvcc."""

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

pytestmark = pytest.mark.xdist_group("nvcc")  # one process compiles

# The flags of CMakeLists.txt.
FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-prec-div=false", "--expt-relaxed-constexpr", f"-I{ROOT / 'csrc'}")
UNITS = [("f32", "90a"), ("f32", "80"), ("bf16", "90a"), ("f64", "90a")]
WALKS = ("gradients", "edge_mean", "edge_gradients")
# Registers of a thread in the cubic's kernels of float32: at most what leaves room for 16 and 12 warps on a processor.
MOST_REGISTERS = {"out_kernel": 128, **dict.fromkeys(WALKS, 168)}


@dataclass(frozen=True)
class Kernel:
    """What the assembler says of it, and its instructions."""

    name: str
    operand: str
    cubic: bool
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
        name = re.search(r"(out_kernel|walk_kernel|reduce_kernel)", symbol)[1]
        if name == "walk_kernel":
            name = WALKS[int(re.search(r"VisitE?(\d)", symbol)[1])]
        operand = (re.search(r"(Vectors|Elements)I", symbol) or [""])[0].rstrip("I")
        yield Kernel(
            name, operand, "Li3ELb1E" in symbol, int(registers), int(stack), int(spills), code[symbol]
        )  # fmt: skip


@pytest.fixture(scope="module", params=UNITS, ids="-sm_".join)
def unit(request, tmp_path_factory) -> list[Kernel]:
    kind, arch = request.param
    cubin = tmp_path_factory.mktemp("cubin") / f"{kind}.cubin"
    elements = int(kind in ("f32", "f64"))
    command = [NVCC, *FLAGS, f"-DFASTKAN_TYPE={kind}", f"-DFASTKAN_ELEMENTS={elements}", "-Xptxas", "-v", "-cubin"]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}", str(ROOT / "csrc/cuda/kernels.cu"), "-o", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assembly = subprocess.run([disassembler(), str(cubin)], capture_output=True, text=True, check=True).stdout
    return list(kernels(done.stderr, assembly))


def test_every_kernel_is_there(unit):
    operands = {k.operand for k in unit} - {""}
    expected = {(name, operand, cubic) for name in ("out_kernel", *WALKS) for operand in operands for cubic in (0, 1)}
    assert {(k.name, k.operand, int(k.cubic)) for k in unit if k.operand} == expected
    assert any(k.name == "reduce_kernel" for k in unit)


def test_nothing_goes_to_local_memory(unit):
    for k in unit:
        assert k.stack == k.spills == 0, (k.name, k.operand, k.cubic, k.stack, k.spills)
        assert not re.search(r"\b(STL|LDL)\b", k.code), (k.name, k.operand, k.cubic)
        assert "EXIT" in k.code


@pytest.mark.parametrize("unit", UNITS[:2], ids="-sm_".join, indirect=True)
def test_registers_leave_room_for_other_warps(unit):
    for k in unit:
        if k.cubic:
            assert k.registers <= MOST_REGISTERS[k.name], (k.name, k.operand, k.registers)


def test_coefficients_are_read_16_bytes_at_a_time(unit):
    for k in unit:
        wide = len(re.findall(r"\bLDG\.E\.128\b", k.code))
        assert (wide > 0) == (k.operand == "Vectors"), (k.name, k.operand, wide)


def test_numbers_are_added_in_one_order(unit):
    """No atomics, to global or shared memory."""
    for k in unit:
        assert not re.search(r"\b(ATOM|ATOMG|ATOMS|RED)\b", k.code), (k.name, k.operand)
