"""Import hooks: fastkan's additions to optional parts of PyTorch, loaded when those parts are imported."""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# part of PyTorch -> the module of fastkan that extends it
ADDITIONS = {
    "torch.utils.flop_counter": ".flops",
    "torch.distributed.tensor": ".sharding",
    "torch.optim.swa_utils": ".averaging",
}


class Additions(MetaPathFinder):
    """A finder that lets the ordinary loader of each part import fastkan's addition afterwards."""

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The ordinary spec of a part, with the addition behind its loader; None for all other modules."""
        if fullname not in ADDITIONS:
            return None
        addition = ADDITIONS.pop(fullname)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                importlib.import_module(addition, __package__)

            spec.loader.exec_module = exec_module
        return spec


def watch() -> None:
    """Load the additions of the parts that are imported already, and watch for the others."""
    for name in ADDITIONS.keys() & sys.modules.keys():
        importlib.import_module(ADDITIONS.pop(name), __package__)
    if ADDITIONS:
        sys.meta_path.insert(0, Additions())
