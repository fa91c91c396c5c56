"""Builds the compiled kernels with CMake on the way into a wheel or an editable install; the rest is in pyproject.toml.
Without them the package runs on plain PyTorch. FASTKAN_NO_NATIVE=1 leaves them out, FASTKAN_REQUIRE_NATIVE=1 insists.
Those for NVIDIA's GPUs are built for the GPUs of this machine where torch has CUDA and nvcc is found. FASTKAN_CUDA=1
insists on them, for all architectures, FASTKAN_CUDA=0 leaves them out, FASTKAN_CUDA_ARCHS="80;90a" names architectures.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import setuptools

OLDEST_SETUPTOOLS, OLDEST_CMAKE = 77, (3, 20)  # as in pyproject.toml and CMakeLists.txt
if int(setuptools.__version__.split(".")[0]) < OLDEST_SETUPTOOLS:  # pip's --no-build-isolation does not check it
    raise SystemExit(
        f"fastkan: setuptools {setuptools.__version__} is too old: expected {OLDEST_SETUPTOOLS} or later, "
        f"pip install -U 'setuptools>={OLDEST_SETUPTOOLS}'"
    )
from setuptools import Command, setup  # noqa: E402
from setuptools.command.bdist_wheel import bdist_wheel  # noqa: E402
from setuptools.command.build import build  # noqa: E402

SOURCE = Path(__file__).resolve().parent
AUTOGRAD = "fastkan_autograd"  # for one torch and one Python, unlike the libraries of kernels
PATH = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", ""), "/usr/local/cuda/bin"])


def switch(name: str) -> bool | None:
    return None if name not in os.environ else os.environ[name] not in ("", "0")


def tool(name: str) -> str:
    if path := shutil.which(name, path=PATH):
        return path
    raise RuntimeError(f"{name} was not found")


def cmake() -> str:
    path = tool("cmake")
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)[.\d]*", text)
    if version is None or tuple(map(int, version.groups())) < OLDEST_CMAKE:
        oldest = ".".join(map(str, OLDEST_CMAKE))
        which = f"CMake {version[0]}" if version else "a CMake without a version"
        raise RuntimeError(f"{path} is {which}: expected {oldest} or later, pip install -U cmake")
    return path


def torch_root() -> Path:  # without the seconds that importing it takes
    if spec := importlib.util.find_spec("torch"):
        return Path(spec.origin).parent
    raise RuntimeError("torch was not found (if it is installed, pip's --no-build-isolation shows it to the build)")


def torch_version() -> str:
    text = (torch_root() / "version.py").read_text()
    return re.search(r"^__version__ = ['\"](.+)['\"]", text, re.MULTILINE)[1]


def gpus() -> list[str]:
    """The architectures of this machine's NVIDIA GPUs for which there are kernels, such as "80" and "90a"."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    found = {int(major + minor) for major, minor in re.findall(r"^(\d+)\.(\d)$", text, re.MULTILINE)}
    return ["90a" if capability == 90 else str(capability) for capability in sorted(found) if capability >= 80]


def configuration(device: str) -> list[str]:
    if switch("FASTKAN_NO_NATIVE"):
        raise RuntimeError("FASTKAN_NO_NATIVE is set")
    torch = torch_root()
    options = [
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        f"-DTORCH_ROOT={torch}",
        f"-DPython_EXECUTABLE={sys.executable}",
    ]
    if device == "cpu":
        return options
    if switch("FASTKAN_CUDA") is False:
        raise RuntimeError("FASTKAN_CUDA=0 is set")
    if not switch("FASTKAN_CUDA") and not (torch / "lib/libtorch_cuda.so").exists():
        raise RuntimeError("torch has no CUDA (FASTKAN_CUDA=1 builds all the same)")
    architectures = os.environ.get("FASTKAN_CUDA_ARCHS")
    if not switch("FASTKAN_CUDA") and not architectures:
        architectures = ";".join(gpus())
        if not architectures:
            raise RuntimeError("no NVIDIA GPU from sm_80 on was found (FASTKAN_CUDA=1 builds for all)")
    options += [f"-DFASTKAN_CUDA_ARCHS={architectures}"] if architectures else []
    return [*options, "-DFASTKAN_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={tool('nvcc')}"]


def compile_library(device: str, target: str) -> Path:
    """Configure and compile; what an earlier build compiled is used again unless it was configured differently."""
    folder = SOURCE / "build" / ("native" if device == "cpu" else device)
    configure = [cmake(), "-S", str(SOURCE), "-B", str(folder), "-G", "Ninja", *configuration(device)]
    made_with = repr((configure, *map(os.environ.get, ("CXX", "CXXFLAGS", "LDFLAGS"))))
    record = folder / "made_with.txt"
    if not record.exists() or record.read_text() != made_with:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        record.write_text(made_with)
    for command in configure, [configure[0], "--build", str(folder), "--target", target]:
        if subprocess.call(command, stdin=subprocess.DEVNULL):
            raise RuntimeError("CMake failed (is there a C++20 compiler?), pip install -v shows how")
    return folder / f"{'' if target == AUTOGRAD else 'lib'}{target}.so"


class build_native(Command):
    user_options = [("inplace", None, "into the source tree, for use from there")]
    boolean_options = ["inplace"]

    def initialize_options(self):
        self.build_lib, self.editable_mode, self.inplace, self.built = None, False, False, False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self):
        required = {"cpu": switch("FASTKAN_REQUIRE_NATIVE"), "cuda": switch("FASTKAN_CUDA")}
        for device in required:
            if why := self.build_for(device):
                if required[device]:
                    raise SystemExit(f"fastkan: the compiled kernels were not built: {why}")
                plain = ": WARNING: installed without compiled kernels, on plain PyTorch: "
                print(f"fastkan{plain if device == 'cpu' else ', no kernels for GPUs: '}{why}", file=sys.stderr)

    def build_for(self, device: str) -> str | None:
        """Build and copy the library. Returns why it could not be built, which fastkan.backends() reports too."""
        folder = (SOURCE if self.editable_mode or self.inplace else Path(self.build_lib)) / "fastkan/lib"
        target = folder / f"libfastkan_{device}.so"
        reason = target.with_suffix(".absent.txt")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            library = compile_library(device, f"fastkan_{device}")
        except (RuntimeError, OSError) as why:
            target.unlink(missing_ok=True)
            reason.write_text(str(why))
            return str(why)
        reason.unlink(missing_ok=True)
        put(library, target)
        self.built = True
        if device == "cpu":
            self.build_autograd(folder)
        return None

    def build_autograd(self, folder: Path) -> None:
        """Build the calls in C++, without which the package runs too, see fastkan/direct.py."""
        for old in folder.glob(f"{AUTOGRAD}.*"):
            old.unlink()
        try:
            library = compile_library("cpu", AUTOGRAD)
        except (RuntimeError, OSError) as why:
            print(f"fastkan: WARNING: calls take longer, since {AUTOGRAD} was not built: {why}", file=sys.stderr)
        else:
            put(library, folder / f"{AUTOGRAD}.torch{torch_version()}{EXTENSION_SUFFIXES[0]}")


def put(library: Path, target: Path) -> None:
    os.replace(shutil.copy(library, f"{target}.new"), target)  # a process that runs with the old file keeps it


class platform_wheel(bdist_wheel):
    def run(self):
        self.run_command("build")
        self.root_is_pure = not self.get_finalized_command("build_native").built
        self.distribution.has_ext_modules = lambda: not self.root_is_pure
        super().run()

    def get_tag(self):  # the kernels hold no Python, and where fastkan_autograd does not fit, Python takes its place
        return "py3", "none", super().get_tag()[2]


build.sub_commands.append(("build_native", None))
setup(cmdclass={"build_native": build_native, "bdist_wheel": platform_wheel})
