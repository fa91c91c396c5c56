"""What pykan's models do beside their work: seed everything, remember their input, draw by pyplot, count in numpy."""

import random

import torch
from torch import Tensor


def seed_all(seed: int) -> None:
    """Seed torch's, random's and, where it is installed, numpy's global generators."""
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        import numpy as np
    except ImportError:
        return
    np.random.seed(seed)


def remember(model, x: Tensor) -> None:
    """Make x, a reference, what the model was last given; what was computed from other data is dropped."""
    if not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()):
        model.cache_data, model._record = x.detach(), None


def seen(cls: type, name: str) -> property:
    """The property of this name, computed from what the model was last given where that was not yet done."""
    kept = getattr(cls, name)

    def read(model):
        if model._record is None and model.cache_data is not None:
            model.get_act()
        return kept.fget(model)

    return property(read, doc=f"{name} of what the model was last given, see {cls.__name__}.")


def numbers(results: dict) -> dict:
    """What fit returns as pykan has it: lists of numpy's numbers, and nothing that pykan has not."""
    found = {name: values for name, values in results.items() if name not in ("grid", "stopped")}
    try:
        import numpy as np
    except ImportError:
        return found
    return {name: [np.float64(value) for value in values] for name, values in found.items()}


def on_pyplot(figure):
    """Make a figure pyplot's current one, so that plt.savefig and plt.show mean it."""
    import matplotlib.pyplot as plt

    return plt.figure(FigureClass=lambda **_: figure)
