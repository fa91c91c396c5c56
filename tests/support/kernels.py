"""Kernels of a device that does not exist, for `fastkan prove`: right ones, and one for each way of being wrong.

Imported by fastkan.prove.child. They are dense, changed; the time that they take is an attribute.
"""

import ctypes
import os
import sys
import time
from types import SimpleNamespace

import torch

from fastkan.backends import dense
from fastkan.prove import accelerator
from fastkan.testing import CONTRACTIONS

state = {"calls": 0, "place": "", "broken": False}


class HOST(accelerator.Host):
    """Streams and graphs that a kernel can tell from anything else, and a clock that reads what the kernel says."""

    @staticmethod
    def clock(run, repeats: int) -> float:
        run()
        return getattr(run.args[0], "seconds", 1.0)

    def synchronize(self) -> None:
        if state["broken"]:
            raise RuntimeError("an illegal memory access was encountered")

    def at_once(self, runs):
        return self._at("streams", lambda: [run() for run in runs])

    def replayed(self, run, prepare):
        return self._at("graph", lambda: (prepare(), run())[1])

    def _at(self, place, run):
        state["place"] = place
        try:
            return run()
        finally:
            state["place"] = ""


def kernels(seconds: float = 0.5, missing=lambda *args: None, **changed) -> SimpleNamespace:
    """dense, with other contractions in place of some of its own."""
    functions = {contraction: changed.get(contraction, getattr(dense, contraction)) for contraction in CONTRACTIONS}
    return SimpleNamespace(**functions, seconds=seconds, missing=missing)


def of_result(contraction: str, change):
    """The contraction, its first result changed where `change` says so."""

    def run(*args):
        results = getattr(dense, contraction)(*args)
        first = results if isinstance(results, torch.Tensor) else results[0]
        changed = change(first, args)
        return changed if isinstance(results, torch.Tensor) else (changed, *results[1:])

    return run


def in_one_element(t, args):
    t.view(-1)[-1] += 0.1
    return t


def at(place: str):
    return lambda t, args: t + 1 if state["place"] == place else t


def at_times(t, args):
    state["calls"] += 1
    return torch.nextafter(t, t + 1) if state["calls"] % 32 == 0 else t


def in_large_sums(t, args):
    return t + 1 if len(args[0]) > 2000 else t


def unwritten(t, args):
    out = torch.empty_like(t)
    out[:, 1:] = t[:, 1:]
    return out


def fails(*args):
    raise RuntimeError("out of resource: shared memory\nand more lines")


def hangs(*args):
    print("hanging", file=sys.stderr, flush=True)
    time.sleep(1000)


def breaks_the_device(*args):
    state["broken"] = True
    raise RuntimeError("an illegal memory access was encountered")


IMPLEMENTATIONS = {
    "right": kernels(),
    "slow": kernels(seconds=2.0),
    "absent": kernels(missing=lambda *args: "this machine has no such thing"),
    "wrong in one element": kernels(kan_coef=of_result("kan_coef", in_one_element)),
    "wrong in large sums": kernels(edge_moments=of_result("edge_moments", in_large_sums)),
    "wrong for NaN": kernels(kan_out=of_result("kan_out", lambda t, args: t.nan_to_num())),
    "wrong on streams": kernels(kan_in=of_result("kan_in", at("streams"))),
    "wrong in a graph": kernels(kan_backward=of_result("kan_backward", at("graph"))),
    "unwritten": kernels(kan_out=of_result("kan_out", unwritten)),
    "different at times": kernels(kan_out=of_result("kan_out", at_times)),
    "fails": kernels(kan_out=fails),
    "breaks the device": kernels(kan_out=breaks_the_device),
    "aborts": kernels(kan_backward=lambda *args: os.abort()),
    "segfaults": kernels(kan_out=lambda *args: ctypes.string_at(0)),
    "hangs": kernels(kan_out=hangs),
}
