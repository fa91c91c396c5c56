"""Builds the compiled kernels with CMake on the way into a wheel or an editable install; the rest is in pyproject.toml.

Without them the package still installs and runs on plain PyTorch. FASTKAN_NO_NATIVE=1 leaves them out,
FASTKAN_REQUIRE_NATIVE=1 turns their absence into an error.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

SOURCE = Path(__file__).resolve().parent
LIBRARY = "libfastkan_cpu.so"


def tool(name: str) -> str:
    if path := shutil.which(name, path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])):
        return path
    raise RuntimeError(f"{name} was not found")


def torch_root() -> Path:
    if spec := importlib.util.find_spec("torch"):  # where it is, without the seconds that importing it takes
        return Path(spec.origin).parent
    raise RuntimeError("torch was not found (if it is installed, pip's --no-build-isolation shows it to the build)")


def compile_library() -> Path:
    """Configure and compile; what an earlier build compiled is used again unless it was configured differently."""
    folder, cmake = SOURCE / "build/native", tool("cmake")
    settings = [f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", f"-DTORCH_ROOT={torch_root()}"]
    configure = [cmake, "-S", str(SOURCE), "-B", str(folder), "-G", "Ninja", *settings]
    made_with = repr((configure, [os.environ.get(name) for name in ("CXX", "CXXFLAGS", "LDFLAGS")]))
    record = folder / "made_with.txt"
    if not record.exists() or record.read_text() != made_with:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(made_with)
    for command in (configure, [cmake, "--build", str(folder), "--target", "fastkan_cpu"]):
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            raise RuntimeError(f"{' '.join(command[:2])} failed, its output is above")
    return folder / LIBRARY


class build_native(Command):
    user_options = []

    def initialize_options(self):
        self.build_lib, self.editable_mode, self.built = None, False, False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self):
        target = (SOURCE if self.editable_mode else Path(self.build_lib)) / "fastkan/lib" / LIBRARY
        try:
            if os.environ.get("FASTKAN_NO_NATIVE", "0") != "0":
                raise RuntimeError("FASTKAN_NO_NATIVE is set")
            library = compile_library()
        except (RuntimeError, OSError) as why:
            target.unlink(missing_ok=True)
            if os.environ.get("FASTKAN_REQUIRE_NATIVE", "0") != "0":
                raise SystemExit(f"fastkan: the compiled kernels were not built: {why}") from None
            print(f"fastkan: WARNING: installed without compiled kernels, on plain PyTorch: {why}", file=sys.stderr)
            return
        self.mkpath(str(target.parent))
        os.replace(shutil.copy(library, f"{target}.new"), target)  # a process that runs with the old file keeps it
        self.built = True


class platform_wheel(bdist_wheel):
    def run(self):
        self.run_command("build")
        built = self.get_finalized_command("build_native").built
        self.root_is_pure, self.distribution.has_ext_modules = not built, lambda: built
        super().run()

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]  # the library holds no Python


build.sub_commands.append(("build_native", None))
setup(cmdclass={"build_native": build_native, "bdist_wheel": platform_wheel})
