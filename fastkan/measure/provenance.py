"""Provenance of a measurement: machine, versions, commit, date, command; CSV files with these columns."""

import csv
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from .. import __version__


def cpu_model() -> str:
    """Model name of the CPU with its family and model, or its architecture if the operating system has no name."""
    facts = _cpuinfo()
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    if "cpu family" not in facts:
        return facts["model name"]
    return f"{facts['model name']}, family {facts['cpu family']} model {facts['model']}"


def cpu_kind() -> str:
    """The kind of CPU as the name of a folder, such as "cpu-intel-6-167": maker, family and model."""
    facts = _cpuinfo()
    maker = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}.get(facts.get("vendor_id", ""), platform.machine().lower())
    return "-".join(["cpu", maker, *(facts[name] for name in ("cpu family", "model") if name in facts)])


def _cpuinfo() -> dict[str, str]:
    """What Linux says about the first core."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def gpu() -> str:
    """Name of the current GPU and version of CUDA or ROCm; '' without a GPU."""
    if not torch.cuda.is_available():
        return ""
    runtime = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return f"{torch.cuda.get_device_name()}, {runtime}"


def instruction_set() -> str:
    """The widest instruction set of torch's own kernels here: DEFAULT, AVX2, AVX512, ..."""
    return torch.backends.cpu.get_cpu_capability()


def commit() -> str:
    """Commit of the checkout that fastkan is imported from, with '+' if tracked files were changed.

    The environment variable FASTKAN_COMMIT if there is no git history, else ''.
    """
    package = Path(__file__).parent.parent

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(package), *args], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        head = git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("FASTKAN_COMMIT", "")


def version_of(package: str) -> str:
    """Version of an installed distribution; '' if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def environment() -> dict[str, str]:
    """Machine, versions, commit, date and command of this process, by column name."""
    return {
        "gpu": gpu(),
        "cpu": cpu_model(),
        "isa": instruction_set(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "fastkan": __version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command(),
    }


def command() -> str:
    """The shell command that started this process."""
    name = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {name.name.removesuffix('.__main__')}" if name else Path(sys.argv[0]).name
    return f"{program} {shlex.join(sys.argv[1:])}".strip()


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same keys, each followed by environment(), so that rows of several files can be merged."""
    if not rows:
        raise ValueError("rows is empty: expected at least one measurement")
    columns = environment()
    if taken := columns.keys() & rows[0].keys():
        raise ValueError(f"rows have {', '.join(sorted(taken))}: expected other names, these are of environment()")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *columns], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, **columns})


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file; all values are text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
