"""What pykan's models do beside their work: seed everything, remember their input, draw by pyplot, count in numpy."""

import functools
import random

import torch
from torch import Tensor

from ...transforms import by_func


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
    """Make x, a reference, what the model was last given; what was computed from other data is dropped.

    Of torch.func's transforms it is the rows of the whole batch. While torch.export traces nothing is remembered.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return
    model.last_activations, model._ran_with = None, None
    if torch.compiler.is_compiling():
        transformed = by_func()
        model.cache_data = None if transformed else x.detach()
        return
    model.cache_data = _plain(x)
    model._ran_with = model.cache_data, _version(model.cache_data), _parameters(model)


def remembering(cls: type):
    """forward of a class of models as one that remembers its input."""
    forward = cls.forward

    @functools.wraps(forward)
    def remembers(model, x: Tensor, *args, **options) -> Tensor:
        y = forward(model, x, *args, **options)
        remember(model, x)
        return y

    return remembers


def check_same(model) -> None:
    """RuntimeError where the last forward pass was with parameters or data that are no longer what they were."""
    data, version, parameters = model.__dict__.get("_ran_with") or (None, None, None)
    if data is None or model.cache_data is not data:  # that of get_act, fit, or a file
        return
    if parameters != _parameters(model):
        raise RuntimeError(
            "the last forward pass had other tensors as parameters than the model has now (torch.func.functional_call, "
            "or a change of grids): expected this call where they are the same, or another forward pass before it"
        )
    if version != _version(data):
        raise RuntimeError(
            "the data of the last forward pass have been changed in place: expected another forward pass, or "
            "get_act(x), before this call"
        )


def _parameters(model) -> list[int]:
    return [id(p) for module in model.modules() for p in module._parameters.values()]


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _plain(x: Tensor) -> Tensor:
    """x as it is outside of torch.func's transforms, detached: what they map over comes first."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(x):
        place = functorch.maybe_get_bdim(x) if functorch.is_batchedtensor(x) else 0
        x = functorch.get_unwrapped(x)
        with torch._C._DisableFuncTorch():
            x = x.movedim(place, 0) if place > 0 else x
    with torch._C._DisableFuncTorch():
        return x.detach()


def seen(cls: type, name: str) -> property:
    """The property of this name, computed from what the model was last given where that was not yet done."""
    kept = getattr(cls, name)

    def read(model):
        if model.last_activations is None and model.cache_data is not None:
            check_same(model)
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
