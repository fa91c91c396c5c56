"""Builds the compiled kernels with CMake on the way into a wheel or an editable install; the rest is in pyproject.toml.
Without them the package runs on plain PyTorch. FASTKAN_NO_NATIVE=1 leaves them out, FASTKAN_REQUIRE_NATIVE=1 insists.
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

SOURCE, LIBRARY = Path(__file__).resolve().parent, "libfastkan_cpu.so"


def tool(name: str) -> str:
    if path := shutil.which(name, path=f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ.get('PATH', '')}"):
        return path
    raise RuntimeError(f"{name} was not found")


def torch_root() -> Path:  # without the seconds that importing it takes
    if spec := importlib.util.find_spec("torch"):
        return Path(spec.origin).parent
    raise RuntimeError("torch was not found (if it is installed, pip's --no-build-isolation shows it to the build)")


def compile_library() -> Path:
    """Configure and compile; what an earlier build compiled is used again unless it was configured differently."""
    folder, cmake = SOURCE / "build/native", tool("cmake")
    configure = [cmake, "-S", str(SOURCE), "-B", str(folder), "-G", "Ninja"]
    configure += [f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", f"-DTORCH_ROOT={torch_root()}"]
    made_with = repr((configure, *map(os.environ.get, ("CXX", "CXXFLAGS", "LDFLAGS"))))
    record = folder / "made_with.txt"
    if not record.exists() or record.read_text() != made_with:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        record.write_text(made_with)
    for command in configure, [cmake, "--build", str(folder), "--target", "fastkan_cpu"]:
        if subprocess.call(command, stdin=subprocess.DEVNULL):
            raise RuntimeError("CMake failed (is there a C++20 compiler?), pip install -v shows how")
    return folder / LIBRARY


class build_native(Command):
    user_options = []

    def initialize_options(self):
        self.build_lib, self.editable_mode, self.built = None, False, False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self):
        target = (SOURCE if self.editable_mode else Path(self.build_lib)) / "fastkan/lib" / LIBRARY
        reason = target.with_name("absent.txt")  # fastkan.backends() tells it: pip keeps this output to itself
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if os.environ.get("FASTKAN_NO_NATIVE", "0") != "0":
                raise RuntimeError("FASTKAN_NO_NATIVE is set")
            library = compile_library()
        except (RuntimeError, OSError) as why:
            target.unlink(missing_ok=True)
            reason.write_text(str(why))
            if os.environ.get("FASTKAN_REQUIRE_NATIVE", "0") != "0":
                raise SystemExit(f"fastkan: the compiled kernels were not built: {why}") from None
            print(f"fastkan: WARNING: installed without compiled kernels, on plain PyTorch: {why}", file=sys.stderr)
            return
        reason.unlink(missing_ok=True)
        os.replace(shutil.copy(library, f"{target}.new"), target)  # a process that runs with the old file keeps it
        self.built = True


class platform_wheel(bdist_wheel):
    def run(self):
        self.run_command("build")
        self.root_is_pure = not self.get_finalized_command("build_native").built
        self.distribution.has_ext_modules = lambda: not self.root_is_pure
        super().run()

    def get_tag(self):  # the library holds no Python
        return "py3", "none", super().get_tag()[2]


build.sub_commands.append(("build_native", None))
setup(cmdclass={"build_native": build_native, "bdist_wheel": platform_wheel})
