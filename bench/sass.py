"""Instructions of a step of the CUDA kernels, counted in their machine code: a bound on their speed that needs no GPU.

    python -m bench.sass [--out DIR] [--archs 80 90a ...]

Compiles the kernels with nvcc, disassembles them, and walks through their main loops along the usual path: the shortest
one from the loop's head to its end that does all of a step's work (its products, copies, loads of x and stores of the
left operand, see WALKS). Instructions are classed by the source line that they come from. Writes counts.csv, model.csv
with the times of the forward that follow (bench/sass_model.py), and backward.csv with those of the backward
(bench/sass_backward.py).
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastkan.measure.provenance import write_csv

from .sass_model import model

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "sass"
ARCHS = ("80", "86", "89", "90a", "100", "120")
# The flags of CMakeLists.txt.
FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-prec-div=false", "--expt-relaxed-constexpr", f"-I{ROOT / 'csrc'}")


def find(tool: str) -> str | None:
    return shutil.which(tool) or shutil.which(tool, path="/usr/local/cuda/bin")


def disassembler() -> str | None:
    """From the CUDA toolkit, else from Triton's wheel."""
    if found := find("nvdisasm"):
        return found
    try:
        import triton
    except ImportError:
        return None
    found = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    return str(found) if found.exists() else None


def missing() -> str | None:
    """Why nothing can be counted here; None if it can."""
    return "no nvcc" if find("nvcc") is None else "no nvdisasm" if disassembler() is None else None


def present(tool: str | None) -> str:
    if tool is None:
        raise FileNotFoundError(missing())
    return tool


@dataclass(frozen=True)
class Instruction:
    address: int
    predicate: str
    opcode: str
    operands: str
    files: tuple[str, ...]  # of the source, the innermost first


@dataclass
class Kernel:
    """A kernel's machine code in order, its labels by address, and the assembler's report."""

    symbol: str
    code: list[Instruction]
    labels: dict[str, int]
    registers: int
    spills: int


def parsed(symbol: str, text: str, registers: int, spills: int) -> Kernel:
    code, labels, waiting, files = [], {}, [], []
    begins = True
    for line in text.splitlines():
        if found := re.match(r'\s*//## File "([^"]+)"', line):
            files = [] if begins else files
            files.append(Path(found[1]).name)
            begins = False
        elif found := re.match(r"(\.L_\w+):", line):
            waiting.append(found[1])
        elif found := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+)\s+)?([\w.]+)\s*(.*?)\s*;", line):
            address = int(found[1], 16)
            labels |= dict.fromkeys(waiting, address)
            waiting, begins = [], True
            code.append(Instruction(address, found[2] or "", found[3], found[4], tuple(files)))
    return Kernel(symbol, code, labels, registers, spills)


def compiled(source: Path, kind: str, arch: str) -> list[Kernel]:
    """The kernels of a file of csrc/cuda for the storage type `kind`."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        elements = int(kind in ("f32", "f64"))
        command = [
            present(find("nvcc")),
            *FLAGS,
            f"-DFASTKAN_TYPE={kind}",
            f"-DFASTKAN_ELEMENTS={elements}",
            "-lineinfo",
        ]
        command += ["-cubin", "-Xptxas", "-v", f"-gencode=arch=compute_{arch},code=sm_{arch}"]
        command += [str(source), "-o", str(cubin)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-3000:])
        if serialized := re.search(".*(wgmma.* are serialized|arrive is injected).*", done.stderr):
            raise RuntimeError(serialized[0])
        text = subprocess.run(
            [present(disassembler()), "-gi", str(cubin)], capture_output=True, text=True, check=True
        ).stdout
    code = dict(re.findall(r"\.section\s+\.text\.(\w+),(.*?)(?=\n\s*\.section\s|\Z)", text, re.S))
    report = r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers"
    return [
        parsed(symbol, code[symbol], int(registers), int(spills))
        for symbol, spills, registers in re.findall(report, done.stderr, re.S)
    ]


def jump(kernel: Kernel, at: Instruction) -> int | None:
    """Where a branch goes to."""
    label = re.search(r"`\((\.L_\w+)\)", at.operands)
    return kernel.labels.get(label[1]) if label and at.opcode.startswith("BRA") else None


def usual_path(kernel: Kernel, landmarks: dict[str, int]) -> list[Instruction]:
    """The shortest way through a loop that passes just as many instructions of each landmark, a pattern of opcodes.

    Inner loops count once. Of several loops the one with the shortest way is meant.
    """
    patterns = [re.compile(pattern) for pattern in landmarks]
    wanted = tuple(landmarks.values())
    index = {instruction.address: k for k, instruction in enumerate(kernel.code)}
    best: list[Instruction] | None = None
    for end, last in enumerate(kernel.code):
        target = jump(kernel, last)
        if target is None or target > last.address:
            continue
        begin = index[target]
        # The shortest ways to each instruction, by how much of the landmarks they have passed.
        ways: dict[int, dict[tuple[int, ...], tuple[int, int, tuple[int, ...]]]] = {
            begin: {(0,) * len(wanted): (0, -1, ())}
        }
        for at in range(begin, end + 1):
            if at not in ways:
                continue
            instruction = kernel.code[at]
            passed = tuple(bool(pattern.match(instruction.opcode)) for pattern in patterns)
            following = []
            if at < end:
                to = jump(kernel, instruction)
                if to is not None and to > instruction.address and to in index and index[to] <= end:
                    following.append(index[to])
                always = not instruction.predicate and "U" not in instruction.opcode.removeprefix("BRA")
                # After the jump of a switch, BRX, comes one of its cases.
                ends = instruction.opcode.split(".")[0] in ("EXIT", "BRA") and always
                ends = ends and not re.match(r"!?U?P\d", instruction.operands)
                if not ends:
                    following.append(at + 1)
            for counts, (length, _, _) in ways[at].items():
                now = tuple(c + p for c, p in zip(counts, passed, strict=True))
                if any(n > w for n, w in zip(now, wanted, strict=True)):
                    continue
                for to in following or [-1]:
                    found = ways.setdefault(to, {})
                    if now not in found or found[now][0] > length + 1:
                        found[now] = (length + 1, at, counts)
        if end not in ways:
            continue
        done = ways.get(-1, {}).get(wanted)
        if done is None or (best is not None and len(best) <= done[0]):
            continue
        path, at, counts = [], done[1], done[2]
        while at >= 0:
            path.append(kernel.code[at])
            _, at, counts = ways[index[path[-1].address]][counts]
        best = path[::-1]
    if best is None:
        raise LookupError(f"{kernel.symbol}: no loop with {landmarks}")
    return best


TENSOR = r"[HID]G?MMA|WARPGROUP"
SHARED = r"LDS|STS|LDSM|ATOMS"
CLASSES = ("tensor", "shared", "copies", "windows", "other")


def kind_of(instruction: Instruction) -> str:
    """By opcode, else by the source: who copies, who evaluates; what is left is addresses, loops and barriers."""
    if re.match(TENSOR, instruction.opcode):
        return "tensor"
    if re.match(SHARED, instruction.opcode):
        return "shared"
    if {"right_copies.h", "tma.h"} & set(instruction.files):
        return "copies"
    return "windows" if "left_operand.h" in instruction.files else "other"


@dataclass(frozen=True)
class Walk:
    """A way through a kernel: its name, the kernel's symbol, and how much of each landmark is a step's work."""

    name: str
    symbol: str
    landmarks: dict[str, int] = field(hash=False)
    shared: str  # type with the layout of its shared memory
    archs: tuple[str, ...] = ARCHS
    tma_bytes: int = 0  # that a copy of TMA writes


def shared_bytes(instruction: Instruction, tma_bytes: int = 0) -> int:
    """Bytes of shared memory that a warp reads or writes, by the width; of wgmma's operand a quarter."""
    opcode = instruction.opcode
    if instruction.predicate == "@!PT":  # never executed
        return 0
    if found := re.match(r"HGMMA(?:\.SP)?\.64x(\d+)x(\d+)", opcode):
        return int(found[1]) * int(found[2]) * 2 // 4
    if opcode.startswith("UTMALDG"):
        return tma_bytes
    if opcode.startswith("LDSM") or (opcode.startswith("LDGSTS") and "128" in opcode):
        return 512
    if re.match(r"LDS|STS", opcode):
        return 512 if ".128" in opcode else 256 if ".64" in opcode else 128
    return 0


MMA = r"matrix_out_kernelI13__nv_bfloat16NS_4TileILi128ELi128EfEELi3ELb1E"
IN_MMA = "MatrixOutShared<__nv_bfloat16, Tile<128, 128>>"
WGMMA = r"matrix_out_wgmma_kernelI13__nv_bfloat16Li3ELb1E"
IN_WGMMA = "MatrixOutWgmmaShared<__nv_bfloat16>"
# bf16, cubic splines on 5 intervals, x of bf16: windows of 8 inputs, base functions of 16, for 128 rows
WINDOWS, BASE = {r"STS\.128": 4, r"LDG\.E\.64": 2}, {r"MUFU\.EX2": 16, r"LDG\.E\.128": 2}
TMA = {r"UTMALDG.*MULTICAST": 1}
WALKS = (
    Walk("mma, 8 inputs", MMA, {r"HMMA\.SP": 64, "LDGSTS": 8, **WINDOWS}, IN_MMA),
    Walk("mma, 16 base functions", MMA, {r"HMMA\.16816": 32, "LDGSTS": 2, **BASE}, IN_MMA),
    Walk("wgmma producers, 8 inputs", WGMMA, {**WINDOWS, **TMA}, IN_WGMMA, ("90a",), 64 * 64 * 2),
    Walk("wgmma producers, 16 base functions", WGMMA, {**BASE, **TMA}, IN_WGMMA, ("90a",), 64 * 16 * 2),
    Walk("wgmma producers by cp.async, 8 inputs", WGMMA, {**WINDOWS, "LDGSTS": 16}, IN_WGMMA, ("90a",)),
    Walk("wgmma consumers, 8 inputs", WGMMA, {r"HGMMA\.SP": 4}, IN_WGMMA, ("90a",)),
    Walk("wgmma consumers, 16 base functions", WGMMA, {r"HGMMA\.64x128x16": 2}, IN_WGMMA, ("90a",)),
)


def block_bytes() -> dict[str, int]:
    """Shared memory of a block, by type of its layout."""
    types = sorted({walk.shared for walk in WALKS})
    prints = "".join(f'  std::printf("%lld\\n", static_cast<long long>(shared_bytes<{kind}>()));\n' for kind in types)
    source = (
        "#include <cstdio>\n#include <cuda/matrix/kan_out_wgmma.h>\nusing namespace fastkan;\nint main() {\n"
        + prints
        + "}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bytes.cu"
        path.write_text(source)
        subprocess.run(
            [present(find("nvcc")), *FLAGS, str(path), "-o", str(path.with_suffix(""))], capture_output=True, check=True
        )
        said = subprocess.run([str(path.with_suffix(""))], capture_output=True, text=True, check=True).stdout
    return dict(zip(types, map(int, said.split()), strict=True))


def counts(archs: tuple[str, ...] = ARCHS) -> Iterator[dict]:
    in_block = block_bytes()
    for arch in archs:
        kernels = compiled(ROOT / "csrc/cuda/matrix.cu", "bf16", arch)
        for walk in WALKS:
            if arch not in walk.archs:
                continue
            (kernel,) = (k for k in kernels if re.search(walk.symbol, k.symbol))
            path = usual_path(kernel, walk.landmarks)
            by_kind = Counter(map(kind_of, path))
            yield {
                "walk": walk.name, "arch": f"sm_{arch}", "instructions": len(path),
                **{kind: by_kind[kind] for kind in CLASSES},
                "shared_bytes": sum(shared_bytes(instruction, walk.tma_bytes) for instruction in path),
                "registers": kernel.registers, "spills": kernel.spills, "block_bytes": in_block[walk.shared],
            }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sass", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="(bench/results/sass)")
    parser.add_argument("--archs", nargs="+", choices=ARCHS, default=ARCHS, help="(all)")
    args = parser.parse_args()
    if reason := missing():
        print(reason)
        return 1
    from .sass_backward import model as of_backward  # which counts by the functions above

    rows = list(counts(tuple(args.archs)))
    files = {"counts": rows, "model": list(model(rows)), "backward": list(of_backward())}
    for name, found in files.items():
        write_csv(args.out / f"{name}.csv", found)
        for row in found:
            print(*(f"{column}={value}" for column, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
