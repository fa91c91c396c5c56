"""Proof of kernels in processes of their own: whatever one does, its verdict is known and the others go on."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence

import torch

from .. import select, verdicts
from ..kinds import EVERYDAY, Kind
from ..verdicts import CRASHED, FASTER, HUNG, Verdict, Verdicts

READY = "ready"  # a child's first line
SECONDS = 300.0
JOB_SECONDS = 90.0  # of one implementation and kind, compilation included
# Stray accesses fault where every tensor is memory of its own. A graph cannot be captured so, nor a time be taken.
PARTS = {"parity": {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}, "speed": {}}

Report = Callable[[Kind, str, Verdict], object]


class OutOfTime(Exception):
    """The time for everything is over."""


class Worker:
    """A process of child.py, started when it is first asked, and again after it died."""

    def __init__(self, device: torch.device, part: str, module: str):
        self.command = [sys.executable, "-m", "fastkan.prove.child", str(device), part, module]
        self.environment = {**os.environ, **PARTS[part], verdicts.MODE: "off"}
        self.process: subprocess.Popen[str] | None = None

    def ask(self, name: str, kind: Kind, end: float, job_seconds: float) -> Verdict:
        """The verdict of this part; OutOfTime at `end`."""
        process = self.process or self._start(end)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; _line says so
            print(json.dumps([name, str(kind)]), file=process.stdin, flush=True)
        try:
            line = self._line(min(job_seconds, end - time.monotonic()))
        except queue.Empty:
            self.stop()
            if time.monotonic() >= end:
                raise OutOfTime from None
            return Verdict(HUNG, f"no result within {job_seconds:g} s")
        if line is None:
            return Verdict(CRASHED, self._last_words())
        verdict, reason, ratios, works = json.loads(line)
        if not works:
            self.stop()
        return Verdict(verdict, reason, tuple(ratios))

    def _start(self, end: float) -> subprocess.Popen[str]:
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        process = self.process = subprocess.Popen(
            self.command, env=self.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors,
        )  # fmt: skip
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_forward, args=(process.stdout, self.lines), daemon=True).start()
        try:
            line = self._line(end - time.monotonic())
        except queue.Empty:
            self.stop()
            raise OutOfTime from None
        if line is None or line.strip() != READY:
            raise select.BackendError(f"the process that proves kernels does not start: {self._last_words()}")
        return process

    def _line(self, seconds: float) -> str | None:
        """The next answer; None if the process died."""
        return self.lines.get(timeout=max(0.0, seconds))

    def _last_words(self) -> str:
        """How the process died."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        status = self.process.returncode
        self.stop()
        self.errors.seek(0)
        said = [line.strip() for line in self.errors if line.strip()][-1:]
        how = signal.Signals(-status).name if status is not None and status < 0 else f"exit status {status}"
        return ": ".join([how, *said])

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a GPU may take its time to let go
                self.process.wait(10)
            self.process = None


def _forward(source: Iterable[str], target: "queue.Queue[str | None]") -> None:
    for line in source:
        target.put(line)
    target.put(None)


def prove(
    device: str | torch.device = "cuda:0", kinds: Sequence[Kind] = EVERYDAY, seconds: float = SECONDS, *,
    report: Report = lambda kind, name, verdict: None, names: Sequence[str] = select.PROVABLE, module: str = "",
    job_seconds: float = JOB_SECONDS,
) -> Verdicts:  # fmt: skip
    """Prove every implementation for every kind, in this order, and keep the verdicts for processes that start later.

    Under torch.distributed all ranks call this: the first of each node proves, the others wait and read.

    Args:
        device: a GPU.
        kinds: see fastkan.kinds.
        seconds: for everything; what is not reached has no verdict.
        report: called with each verdict.
        names: of implementations.
        module: for tests, see child.py.
        job_seconds: for one implementation and kind; one that takes longer hangs, and is not tried for other kinds.

    Returns:
        Verdicts by the name of the kind and of the implementation.
    """
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r}: expected a GPU, such as 'cuda:0'") from error
    if device.type not in select.UNPROVEN_TYPES and not module:
        raise ValueError(f"device={str(device)!r}: expected a GPU, such as 'cuda:0': no other kernels need a proof")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise select.BackendError("torch sees no GPU here, and only kernels for GPUs need a proof")
        if (device.index or 0) >= count:
            raise select.BackendError(f"torch sees no device {str(device)!r}: expected cuda:0 to cuda:{count - 1}")
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    arguments = device, kinds, seconds, report, names, module, job_seconds
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return _prove(*arguments)
    try:
        if int(os.environ.get("LOCAL_RANK", torch.distributed.get_rank())) == 0:
            return _prove(*arguments)
    finally:
        torch.distributed.barrier()
    return verdicts.read(device)


def _prove(
    device: torch.device, kinds: Sequence[Kind], seconds: float, report: Report, names: Sequence[str], module: str,
    job_seconds: float,
) -> Verdicts:  # fmt: skip
    found: Verdicts = {}
    hung: set[str] = set()
    end, keep = time.monotonic() + seconds, True
    workers = [Worker(device, part, module) for part in PARTS]
    try:
        for kind in kinds:
            for name in names:
                if name in hung:
                    continue  # else it could take the time of all others
                verdict = Verdict(FASTER)
                for worker in workers:
                    if verdict.verdict == FASTER:  # right so far
                        verdict = worker.ask(name, kind, end, job_seconds)
                if verdict.verdict == HUNG:
                    hung.add(name)
                found.setdefault(str(kind), {})[name] = verdict
                report(kind, name, verdict)
                keep = keep and _kept(device, str(kind), name, verdict)
    except OutOfTime:
        pass
    finally:
        for worker in workers:
            worker.stop()
    return found


def _kept(device: torch.device, kind: str, name: str, verdict: Verdict) -> bool:
    try:
        verdicts.add(device, kind, name, verdict)
        return True
    except (OSError, RuntimeError) as error:
        warnings.warn(f"the verdicts can't be kept for later processes: {error}", stacklevel=4)
        return False
