"""`fastkan info`: versions, machine, and which backend runs and why."""

import argparse
import json
import os
import platform

import torch

from .. import __version__, backends, select
from ..backends import native
from ..measure import provenance
from ..measure.table import table


def run(args: argparse.Namespace) -> int:
    dtype = getattr(torch, args.dtype)
    states = {device: backends(device, dtype, args.family) for device in devices()}
    if args.json:
        print(json.dumps({**facts(), "dtype": args.dtype, "family": args.family, "backends": states}, indent=1))
        return 0
    print(table(("what", "value"), list(facts().items()), left=2))
    for device, state in states.items():
        print(f"\nBackends for {args.family} in {args.dtype} on {device}:\n")
        print(table(("backend", "state"), list(state.items()), left=2))
    return 0


def facts() -> dict[str, str]:
    """Versions and machine by name, for bug reports."""
    values = {
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
        values[f"compiled library, {device}"] = f"absent: {absent}" if absent else "loaded"
    return values


def gpus() -> list[str]:
    """Name and architecture of each GPU."""
    all_gpus = (torch.device("cuda", k) for k in range(torch.cuda.device_count()))
    return [f"{torch.cuda.get_device_name(gpu)} ({select.architecture(gpu)})" for gpu in all_gpus]


def devices() -> list[str]:
    """Device types that torch can use on this machine."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [device for device, usable in available.items() if usable]
