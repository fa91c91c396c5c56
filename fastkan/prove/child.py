"""The process in which kernels are proven: it reads an implementation and a kind, and answers with a verdict.

    python -m fastkan.prove.child DEVICE PART [MODULE]

An illegal access or a kernel that never ends costs this process alone: see parent.py. MODULE is for tests: it has
IMPLEMENTATIONS, by name, and may have HOST in place of accelerator.Host.
"""

import importlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable

import torch

from .. import select
from ..kinds import Kind, matching
from ..verdicts import CRASHED, FASTER, MISSING, SLOWER, WRONG, Verdict
from . import accelerator, checks
from .accelerator import Host
from .parent import READY


def parity(name: str, kind: Kind, host: Host) -> Verdict:
    """FASTER stands for right so far."""
    checks.parity(name, kind, host)
    return Verdict(FASTER)


def speed(name: str, kind: Kind, host: Host) -> Verdict:
    checks.steadiness(name, kind, host)
    ratios = checks.race(name, kind, host)
    return Verdict(FASTER if min(ratios) > 1 else SLOWER, "", ratios)


PARTS: dict[str, Callable[[str, Kind, Host], Verdict]] = {"parity": parity, "speed": speed}


def judge(part: str, name: str, kind: Kind, host: Host) -> Verdict:
    """The verdict of one part."""
    if reason := select.missing(name, host.device.type, (kind.x, kind.coef), kind.spec()):
        return Verdict(MISSING, reason)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if kind.tf32 else "ieee"
    try:
        return PARTS[part](name, kind, host)
    except AssertionError as error:
        return Verdict(WRONG, str(error))
    except Exception as error:
        return Verdict(CRASHED, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


def main(device: str, part: str, module: str = "") -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    host = accelerator.of(torch.device(device))
    if module:
        injected = importlib.import_module(module)
        select.ALGORITHMS.update(injected.IMPLEMENTATIONS)
        host = getattr(injected, "HOST", Host)(torch.device(device))
    if part == "parity":  # what a kernel does not write is NaN
        torch.use_deterministic_algorithms(True, warn_only=True)
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)  # noqa: B010  a property, to pyright none
    questions: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    print(READY, file=answers, flush=True)
    while True:
        name, kind = json.loads(questions.get())
        verdict = judge(part, name, matching([kind])[0], host)
        print(json.dumps([*verdict, verdict.verdict != CRASHED or _works(host)]), file=answers, flush=True)


def _listen(questions: "queue.Queue[str]") -> None:
    """Ends this process with the one that asks, whatever a kernel does."""
    for line in sys.stdin:
        questions.put(line)
    os._exit(0)


def _works(host: Host) -> bool:
    """Whether this process can still use the device after an error."""
    try:
        host.synchronize()
        return True
    except RuntimeError:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
