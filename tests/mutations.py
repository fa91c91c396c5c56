"""Wrong signs, dropped terms and off-by-ones in kernels and calculus, each of which `make test` has to catch.

    python -m tests.mutations [part of a path ...]

Each is made in a copy of the checkout, in which the tests beside it run. The exit status is the number that survive.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pybind11
import torch

ROOT = Path(__file__).parent.parent
LIBRARIES = {"csrc/cpu": "fastkan_cpu", "csrc/cuda": "fastkan_emulated"}


class Mutation(NamedTuple):
    file: str
    old: str
    new: str
    tests: str  # a test file without "test_", and options of pytest


TRITON = "fastkan/backends/triton/kernels/"
MUTATIONS = [
    # Calculus
    Mutation(
        "fastkan/autograd.py", "spec, order + 1, backend))\n    elif", "spec, order, backend))\n    elif", "autograd.py"
    ),
    Mutation("fastkan/autograd.py", "_plus(dscaled, _scaled(coef, dscale))", "dscaled", "autograd.py"),
    Mutation("fastkan/autograd.py", "mean - 2 * variance", "mean + 2 * variance", "autograd.py"),
    Mutation("fastkan/stack.py", "[*tangents, v] if j == 0", "[*tangents, -v] if j == 0", "stack.py"),
    Mutation("fastkan/stack.py", "_plus(t, None if at == j else g)", "_plus(t, g)", "stack.py"),
    Mutation("fastkan/reference.py", "squares + n * (of_block - mean).square()", "squares", "ops.py -k reference"),
    Mutation("fastkan/reference.py", "terms[1] + terms[2] * v", "terms[1] - terms[2] * v", "ops.py -k reference"),
    Mutation("fastkan/basis/bspline.py", "if k <= degree - order", "if k < degree - order", "bspline.py"),
    Mutation("fastkan/nn/refit.py", "middle = first + half", "middle = first", "grid.py"),
    Mutation(
        "fastkan/network/train/edge_jacobian.py", "(number - first)", "(first - number)", "levenberg_marquardt.py"
    ),
    Mutation(
        "fastkan/network/train/edge_jacobian.py",
        "spline.sum(-1) * self.mask",
        "spline.sum(-1)",
        "levenberg_marquardt.py",
    ),
    Mutation(
        "fastkan/network/train/gradient.py",
        "constant + slope * self.values.detach()",
        "constant",
        "network_gradient.py",
    ),
    # Triton kernels, in its interpreter
    Mutation(TRITON + "kan_out.py", "f = row + k", "f = row + k + 1", "triton.py"),
    Mutation(TRITON + "kan_in.py", "total += base(x", "total -= base(x", "triton.py"),
    Mutation(TRITON + "bspline.py", "return p - 4 * q", "return p - 3 * q", "triton.py"),
    Mutation(TRITON + "edge_moments.py", "total * (before / (before + rows))", "total", "triton.py"),
    # CPU kernels
    Mutation("csrc/cpu/lbfgs.h", "(c.oldest + pair) %", "(c.oldest + pair + 1) %", "network_gradient.py"),
    Mutation("csrc/cpu/lbfgs.h", "c.alpha[k] - c.rho[k]", "c.alpha[k] + c.rho[k]", "network_gradient.py"),
    Mutation(
        "csrc/cpu/kan_out.h", "for (; n < rows; ++n) out_row", "for (; n + 1 < rows; ++n) out_row", "ops.py -k native"
    ),
    Mutation("csrc/cpu/few_outputs.h", "lookup<T>(table, index + k)", "lookup<T>(table, index)", "ops.py -k native"),
    Mutation("csrc/cpu/kan_backward.h", "add = g + k < ready", "add = g + k <= ready", "ops.py -k native"),
    Mutation("csrc/cpu/edge_moments.h", "first * (first / static_cast<double>(rows))", "first", "ops.py -k native"),
    Mutation("csrc/cpu/stack.h", "rest ? rest[k] * term_[k] : term_[k]", "term_[k]", "stack.py"),
    # CUDA kernels, on the emulated GPU
    Mutation("csrc/cuda/gather/kan_out.h", "= w[k] * s;", "= w[k];", "cuda_emulated.py"),
    Mutation("csrc/cuda/matrix/grad_coef.h", "j <= K; ++j) window.w[j]", "j < K; ++j) window.w[j]", "cuda_matrix.py"),
    Mutation("csrc/cuda/stack.h", "grad[0] += window", "grad[0] -= window", "cuda_stack.py"),
]


def build(folder: Path, library: str) -> None:
    """Build a library without optimisation, into where the package or the tests look for it."""
    made = folder / "build/mutations"
    if not made.exists():
        options = {
            "CMAKE_BUILD_TYPE": "Debug", "FASTKAN_TESTING": "ON", "TORCH_ROOT": Path(torch.__file__).parent,
            "Python_EXECUTABLE": sys.executable, "pybind11_DIR": pybind11.get_cmake_dir(),
        }  # fmt: skip
        flags = [f"-D{name}={value}" for name, value in options.items()]
        subprocess.run(["cmake", "-S", folder, "-B", made, "-G", "Ninja", *flags], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", made, "--target", library], check=True, capture_output=True)
    if library == "fastkan_cpu":
        shutil.copy(made / "libfastkan_cpu.so", folder / "fastkan/lib")


def is_caught(folder: Path, mutation: Mutation) -> bool:
    path = folder / mutation.file
    text = path.read_text()
    assert mutation.old in text, f"{mutation.file} has no {mutation.old!r}"
    path.write_text(text.replace(mutation.old, mutation.new))
    for start, library in LIBRARIES.items():
        if mutation.file.startswith(start):
            build(folder, library)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long"]
    done = subprocess.run(
        [*command, *f"tests/test_{mutation.tests}".split()], cwd=folder, capture_output=True, text=True
    )
    path.write_text(text)
    last = done.stdout.rstrip().rpartition("\n")[2]
    assert done.returncode in (0, 1) and " error" not in last, done.stdout + done.stderr  # tests neither pass nor fail
    return done.returncode == 1


def main(parts: list[str]) -> int:
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "fastkan"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "__pycache__"))
        for mutation in MUTATIONS:
            if not parts or any(part in mutation.file for part in parts):
                caught = is_caught(copy, mutation)
                survivors += not caught
                print("caught  " if caught else "SURVIVED", *mutation[:3], sep="  ", flush=True)
    return survivors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
