"""What the host does for a step of a small layer, counted.

    python -m support.triton_host BACKEND

Prints JSON: kernels launched, searches of Triton for a compiled kernel, and calls of Python functions of a step.
"""

import json
import sys

import torch
from triton.runtime.jit import JITFunction

from fastkan import KANLinear
from support.triton_driver import Driver


def main() -> None:
    driver = Driver().use()
    model, x, u = KANLinear(16, 16, backend=sys.argv[1]), torch.rand(8, 16, requires_grad=True), torch.rand(8, 16)
    for _ in range(2):
        model(x).backward(u)
    driver.launched.clear()
    searches, calls, run = [], [], JITFunction.run

    def searching(self, *args, **kwargs):
        searches.append(self.__name__)
        return run(self, *args, **kwargs)

    JITFunction.run = searching
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    model(x).backward(u)
    sys.setprofile(None)
    print(json.dumps({"launched": driver.launched, "searches": searches, "calls": len(calls)}))


if __name__ == "__main__":
    main()
