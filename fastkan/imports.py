"""What fastkan adds to parts of PyTorch that it does not import itself: added as soon as somebody else imports them."""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder

# part of PyTorch -> the module here that adds to it
ADDITIONS = {
    "torch.utils.flop_counter": ".flops",
    "torch.distributed.tensor": ".sharding",
    "torch.optim.swa_utils": ".averaging",
}


class Additions(MetaPathFinder):
    """Finds nothing itself: the loaders of these parts, as others find them, import what is added behind them."""

    def find_spec(self, name: str, path=None, target=None):
        """The spec that Python finds without this finder, if `name` is one of the parts; else None."""
        addition = ADDITIONS.pop(name, None)
        spec = None if addition is None else importlib.util.find_spec(name)
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module) -> None:
                load(module)
                importlib.import_module(addition, __package__)

            spec.loader.exec_module = exec_module
        return spec


def watch() -> None:
    """Import the additions of the parts that are imported already, and look out for the others."""
    for name in ADDITIONS.keys() & sys.modules.keys():
        importlib.import_module(ADDITIONS.pop(name), __package__)
    if ADDITIONS:
        sys.meta_path.insert(0, Additions())
