"""What the host does for a step of a small layer, counted.

    python -m support.triton_host BACKEND

Prints JSON: kernels launched, searches of Triton for a compiled kernel, plans that were made, operators called through
PyTorch's dispatcher, and Python functions called by a step; the plans of steps after a setting changed; and the error
where a tensor is on another device.
"""

import json
import sys

import torch
from triton.runtime.jit import JITFunction

from fastkan import KANLinear
from fastkan.backends.triton import launch, operator, plan
from support.triton_driver import Driver

IMPLEMENTATION = operator("launch", "kan_out", 0).__code__  # of every operator


def main() -> None:
    driver = Driver().use()
    model, x, u = KANLinear(16, 16, backend=sys.argv[1]), torch.rand(8, 16, requires_grad=True), torch.rand(8, 16)

    def step() -> None:
        model(x).backward(u)

    def plans_of_a_step() -> int:
        before = launch.made.cache_info().misses
        step()
        return launch.made.cache_info().misses - before

    for _ in range(2):
        step()
    driver.launched.clear()
    searches, calls, run = [], [], JITFunction.run

    def searching(self, *args, **kwargs):
        searches.append(self.__name__)
        return run(self, *args, **kwargs)

    JITFunction.run = searching
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code) if event == "call" else None)
    plans = plans_of_a_step()
    sys.setprofile(None)
    report = {"launched": dict(driver.launched), "searches": list(searches), "plans": plans, "calls": len(calls)}
    report["operators"] = calls.count(IMPLEMENTATION)
    changed = report["changed"] = {}
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    changed["tf32"] = plans_of_a_step()
    plan.gather = True
    changed["gather"] = plans_of_a_step()
    model.extend_grid(7)
    changed["grid"] = plans_of_a_step()
    x = x.detach().t().contiguous().t().requires_grad_()
    changed["strides"] = plans_of_a_step()
    changed["nothing"] = plans_of_a_step()
    model.base_weight = torch.nn.Parameter(model.base_weight.detach().to("meta"))
    try:
        step()
    except RuntimeError as error:
        report["elsewhere"] = str(error)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
