"""`fastkan info`: versions, machine, and which backend runs and why."""

import argparse
import json
import os
import platform

import torch

from .. import __version__, backends, direct, verdicts
from ..backends import native
from ..devices import architecture
from ..measure import provenance
from ..measure.table import table


def run(args: argparse.Namespace) -> int:
    dtype = getattr(torch, args.dtype)
    states = {device: backends(device, dtype, args.family) for device in devices()}
    proofs = {str(gpu): verdicts.known(gpu, may_prove=False) for gpu in gpus()}
    if args.json:
        of_gpus = {g: {k: {n: v._asdict() for n, v in of.items()} for k, of in p.items()} for g, p in proofs.items()}
        asked = {"dtype": args.dtype, "family": args.family}
        print(json.dumps({**facts(), **asked, "backends": states, "verdicts": of_gpus}, indent=1))
        return 0
    print(table(("what", "value"), list(facts().items()), left=2))
    for device, state in states.items():
        print(f"\nBackends for {args.family} in {args.dtype} on {device}:\n")
        print(table(("backend", "state"), list(state.items()), left=2))
    for gpu, of_gpu in proofs.items():
        rows = [[kind, name, str(verdict)] for kind, of in of_gpu.items() for name, verdict in of.items()]
        print(f"\nVerdicts on {gpu}, by `fastkan prove --device {gpu}`:\n")
        print(table(("kind of call", "implementation", "verdict"), rows, left=3) if rows else "none")
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
        "gpu": ", ".join(f"{torch.cuda.get_device_name(g)} ({architecture(g)})" for g in gpus()) or "none",
    }
    for device, absent in native.ABSENT.items():
        values[f"compiled library, {device}"] = f"absent: {absent}" if absent else "loaded"
    values["calls on the CPU"] = f"by Python: {direct.ABSENT}" if direct.ABSENT else "by C++"
    return values


def gpus() -> list[torch.device]:
    return [torch.device("cuda", k) for k in range(torch.cuda.device_count())]


def devices() -> list[str]:
    """Device types that torch can use on this machine."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [device for device, usable in available.items() if usable]
