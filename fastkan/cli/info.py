"""`fastkan info`: versions, machine, and which backend runs why."""

import argparse
import os
import platform

import torch

from .. import __version__, backends, select
from ..backends import native
from ..measure import provenance
from ..measure.table import table
from ..spec import FAMILIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=("float32", "float64", "bfloat16", "float16"), default="float32",
                        help="to ask the backends about (float32)")  # fmt: skip
    parser.add_argument("--family", choices=FAMILIES, default="bspline", help="likewise (bspline)")


def run(args: argparse.Namespace) -> int:
    print(table(("what", "value"), list(facts().items()), left=2))
    dtype = getattr(torch, args.dtype)
    for device in devices():
        print(f"\nBackends for {args.family} in {args.dtype} on {device}:\n")
        print(table(("backend", "state"), list(backends(device, dtype, args.family).items()), left=2))
    return 0


def facts() -> dict[str, str]:
    """Name -> value, for bug reports."""
    found = {
        "fastkan": f"{__version__} {provenance.commit()}".strip(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": provenance.cpu_model(),
        "instruction set": f"{provenance.instruction_set()} (as torch's kernels use it)",
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "gpu": ", ".join(gpus()) or "none",
    }
    for device, absent in native.ABSENT.items():
        found[f"compiled library, {device}"] = f"absent: {absent}" if absent else "loaded"
    return found


def gpus() -> list[str]:
    """Each by its name and its architecture."""
    found = (torch.device("cuda", k) for k in range(torch.cuda.device_count()))
    return [f"{torch.cuda.get_device_name(gpu)} ({select.architecture(gpu)})" for gpu in found]


def devices() -> list[str]:
    """The device types that this torch can use here."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [device for device, there in present.items() if there]
