"""Verdicts of `fastkan prove`: which implementations are right, and faster than dense, for a kind of call on a device.

A JSON file per device, software and kernels, in the user's cache folder. A process reads it when it first needs it, and
never again: the choice is constant while it runs. Nothing here raises because of a file.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .devices import architecture

FASTER, SLOWER, WRONG = "right and faster", "right but slower", "wrong"
CRASHED, HUNG, MISSING = "crashed", "hung", "missing"
VERDICTS = (FASTER, SLOWER, WRONG, CRASHED, HUNG, MISSING)

MODE = "FASTKAN_PROVE"
# Switches of the environment by which other kernels run than those that were proven without them.
SWITCHES = ("FASTKAN_CUDA_ALGORITHM", "FASTKAN_TRITON_TUNE")
_PACKAGE = Path(__file__).parent


class Verdict(NamedTuple):
    """One of VERDICTS, the reason, and how many times as fast as dense each case of the race was."""

    verdict: str
    reason: str = ""
    ratios: tuple[float, ...] = ()

    @property
    def speed(self) -> float:
        """The geometric mean of the ratios; 0 without a race."""
        return prod(self.ratios) ** (1 / len(self.ratios)) if self.ratios else 0.0

    def __str__(self) -> str:
        if self.ratios:
            return f"{self.verdict}: {self.speed:.2g} times as fast as dense"
        return f"{self.verdict}: {self.reason}" if self.reason else self.verdict


# name of a kind -> implementation -> verdict
Verdicts = dict[str, dict[str, Verdict]]


def mode() -> str:
    """FASTKAN_PROVE: '', 'block' or 'off'; ValueError for anything else."""
    value = os.environ.get(MODE, "")
    if value not in ("", "block", "off"):
        raise ValueError(f"{MODE}={value!r}: expected 'block' (prove at first use) or 'off' (no warning)")
    return value


_read: dict[torch.device, Verdicts] = {}


def known(device: torch.device, may_prove: bool = True) -> Verdicts:
    """The verdicts for a device as this process first reads them; none for good if a graph is being captured then."""
    if device not in _read:
        if device.type == "cuda" and (not torch.cuda.is_available() or torch.cuda.is_current_stream_capturing()):
            _read[device] = {}
        else:
            if may_prove and mode() == "block" and not _exists(device) and os.environ.get("LOCAL_RANK", "0") == "0":
                command = [sys.executable, "-m", "fastkan", "prove", "--device", str(device)]
                subprocess.run(command, env={**os.environ, MODE: "off"}, stdout=subprocess.DEVNULL, check=False)
            _read[device] = read(device)
    return _read[device]


def read(device: torch.device) -> Verdicts:
    """The verdicts on disk; none, with a warning, if the file cannot be read."""
    try:
        path = path_of(device)
        if not path.exists():
            return {}
        content = json.loads(path.read_text())["verdicts"]
        return {kind: {name: _verdict(v) for name, v in of_kind.items()} for kind, of_kind in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        warnings.warn(f"verdicts of `fastkan prove` can't be read: {error!r}; prove again", stacklevel=2)
        return {}


def _verdict(value: dict[str, Any]) -> Verdict:
    if value["verdict"] not in VERDICTS:
        raise ValueError(f"verdict {value['verdict']!r}")
    return Verdict(value["verdict"], str(value["reason"]), tuple(map(float, value["ratios"])))


def _exists(device: torch.device) -> bool:
    with contextlib.suppress(OSError, RuntimeError):
        return path_of(device).exists()
    return False


def add(device: torch.device, kind: str, name: str, verdict: Verdict) -> None:
    """Keep a verdict on disk; OSError or RuntimeError where nothing can be written."""
    path = path_of(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent / "lock"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what cannot be read is replaced
            verdicts = read(device)
        verdicts.setdefault(kind, {})[name] = verdict
        by_kind = {k: {n: v._asdict() for n, v in of_kind.items()} for k, of_kind in verdicts.items()}
        text = json.dumps({"facts": facts(device), "verdicts": by_kind}, indent=1)
        new = path.with_suffix(f".{os.getpid()}")
        try:
            new.write_text(text)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for other processes that add a verdict, where the system has such locks."""
    with path.open("w") as file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def path_of(device: torch.device) -> Path:
    """The file of a device's verdicts."""
    text = json.dumps(facts(device), sort_keys=True)
    return folder() / "proven" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def folder() -> Path:
    """fastkan's folder among the user's caches."""
    if chosen := os.environ.get("FASTKAN_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastkan"


def facts(device: torch.device) -> dict[str, str]:
    """All that a verdict depends on: the kernels, the software, the device."""
    found = {
        "kernels": kernels(),
        "fastkan": sys.modules[__package__ or "fastkan"].__version__,
        "torch": torch.__version__,
        "triton": _version("triton"),
        **{name: os.environ.get(name, "") for name in SWITCHES},
        "device": device.type,
    }
    if device.type == "cuda":
        gpu: Any = torch.cuda.get_device_properties(device)
        found["device"] = f"{gpu.name}, {architecture(device)}, {gpu.multi_processor_count} multiprocessors"
        found["runtime"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"HIP {torch.version.hip}"
        found["driver"] = _driver()
    return found


@functools.cache
def kernels(package: Path = _PACKAGE) -> str:
    """A hash of the kernels' sources, or of the library that they were compiled to.

    dense is among them: triton:features has its contractions.
    """
    digest = hashlib.sha256()
    sources = sorted(path for name in ("dense", "triton") for path in (package / "backends" / name).rglob("*.py"))
    for path in (*sources, package / "lib" / "libfastkan_cuda.so"):
        if path.exists():
            digest.update(f"{path.relative_to(package).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _driver() -> str:
    version = getattr(torch._C, "_cuda_getDriverVersion", lambda: "")()
    for path in (Path("/proc/driver/nvidia/version"), Path("/sys/module/amdgpu/version")):
        with contextlib.suppress(OSError):
            return f"{version} {path.read_text().strip()}"
    return str(version)
