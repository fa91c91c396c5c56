"""pykan's side effects: global seeding, cached inputs, pyplot figures, numpy results."""

import functools
import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from ...transforms import by_func, by_jit, unwrapped

Forward = TypeVar("Forward", bound=Callable[..., Tensor])


class CachingModel(Protocol):
    """A model that keeps the input of its last forward pass, and the tensors that it was computed with."""

    cache_data: Tensor | None
    last_activations: Any
    last_forward: tuple[Tensor, int | None, list[int]] | None
    last_activations: Any

    def modules(self) -> Iterator[nn.Module]: ...


def seed_all(seed: int) -> None:
    """Seed the global generators of torch, random and, if it is installed, numpy."""
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        import numpy as np
    except ImportError:
        return
    np.random.seed(seed)


def cache_input(model: CachingModel, x: Tensor) -> None:
    """Store a reference to x as model.cache_data, and drop activations of earlier data.

    Within torch.func's transforms x is the whole batch. Nothing is stored while torch.export traces.
    """
    if torch.compiler.is_exporting() or by_jit():
        return
    model.last_activations, model.last_forward = None, None
    if torch.compiler.is_compiling():
        model.cache_data = None if by_func() else x.detach()
        return
    x = unwrapped(x)
    model.cache_data, model.last_forward = x, (x, _version(x), _parameters(model))


def caching_input(forward: Forward) -> Forward:
    """forward of a class of models, with cache_input."""

    @functools.wraps(forward)
    def caching(model, x: Tensor, *args, **options) -> Tensor:
        y = forward(model, x, *args, **options)
        cache_input(model, x)
        return y

    return cast(Forward, caching)


def check_unchanged(model: CachingModel) -> None:
    """RuntimeError if the parameters were exchanged or the data changed in place since the last forward pass."""
    data, version, parameters = model.__dict__.get("last_forward") or (None, None, None)
    if data is None or model.cache_data is not data:  # cache_data comes from get_act, fit or a file
        return
    if parameters != _parameters(model):
        raise RuntimeError(
            "the last forward pass had other tensors as parameters than the model has now (torch.func.functional_call, "
            "or a change of grids): expected another forward pass before this call"
        )
    if version != _version(data):
        raise RuntimeError(
            "the data of the last forward pass have been changed in place: expected another forward pass, or "
            "get_act(x), before this call"
        )


def _parameters(model: CachingModel) -> list[int]:
    return [id(p) for module in model.modules() for p in module._parameters.values()]


def _version(x: Tensor) -> int | None:
    return None if x.is_inference() else x._version


def lazy_activations(cls: type[nn.Module], name: str) -> property:
    """The property of this name, which first runs get_act on cache_data if necessary."""
    activations = getattr(cls, name)

    def read(model):
        if model.last_activations is None and model.cache_data is not None:
            check_unchanged(model)
            model.get_act()
        return activations.fget(model)

    return property(read, doc=f"{name} of cache_data, the last input; see {cls.__name__}.")


def pykan_results(results: dict) -> dict:
    """The results of fit that pykan has, as lists of numpy numbers."""
    shared = {name: values for name, values in results.items() if name not in ("grid", "stopped")}
    try:
        import numpy as np
    except ImportError:
        return shared
    return {name: [np.float64(value) for value in values] for name, values in shared.items()}


def on_pyplot(figure: Any) -> Any:
    """Make a matplotlib Figure the current one of pyplot, for plt.savefig and plt.show; returns it."""
    import matplotlib.pyplot as plt

    return plt.figure(FigureClass=cast(Any, lambda **_: figure))
