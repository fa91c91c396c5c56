"""pykan's checkpoints: path_config.yml, path_state and path_cache_data, read without executing code from them."""

import json
import math
import os

import torch

from ...network import KAN
from ...network.checkpoint import atomic_write
from .convert import arity, check_common, from_pykan_state, to_pykan_state

ARGUMENTS = (
    "symbolic_enabled", "affine_trainable", "grid_eps", "grid_range", "sp_trainable", "sb_trainable", "outside",
)  # fmt: skip


def load_checkpoint(path: str | os.PathLike, exact: bool = False, base_fun=None, device=None, **options) -> KAN:
    """Load a model from pykan's three files at path, with its cache_data.

    Args:
        path: without the suffixes, as for pykan's saveckpt.
        exact: see from_pykan; files by save_checkpoint are always exact.
        base_fun: required for a base function without a name: pykan stores code then, which is not executed here.
        device: by default the one the state was saved from. options: of KAN.

    Tensors are read with weights_only, the configuration as JSON or by PyYAML's safe loader, which creates no objects.
    Raises OSError, ValueError or KeyError for files that are missing or not pykan's, ImportError if they need PyYAML.
    """
    return read(path, exact, base_fun, device, **options)[0]


def read(path: str | os.PathLike, exact: bool = False, base_fun=None, device=None, **options) -> tuple[KAN, dict]:
    """The model, see load_checkpoint, and the configuration."""
    path = os.fspath(path)
    config = _config(f"{path}_config.yml")
    state = _tensors(f"{path}_state", device)
    arguments = {name: config[name] for name in ARGUMENTS if name in config}
    base_fun = config.get("base_fun_name") if base_fun is None else base_fun
    if base_fun is None:
        raise ValueError("base_fun=None: expected the base function, which is not in the checkpoint")
    depth = len(config["width"]) - 1
    model = from_pykan_state(
        state, config["width"], config["mult_arity"], [config[f"symbolic.funs_name.{l}"] for l in range(depth)],
        config.get("input_id"), exact=exact or config.get("exact_knots", False), base_fun=base_fun,
        **arguments | options,
    )  # fmt: skip
    model.in_features = config.get("in_features", model.in_features)
    if os.path.exists(f"{path}_cache_data"):
        model.cache_data = _tensors(f"{path}_cache_data", device)
    return model, config


def save_checkpoint(model: KAN, path: str | os.PathLike, number: str = "0.0") -> None:
    """Write the model as pykan's three files: readable by pykan, and complete for load_checkpoint.

    number: of its state, round.state. A base function without a name is not saved. pykan ignores `outside`, which is
    always "zero" there, and the inputs selected by prune_input. ValueError if the layers' base functions or `outside`
    differ.
    """
    path = os.fspath(path)
    check_common(model)
    rounds, state = map(int, number.split("."))
    linear = model.act_fun[0].linear
    config = {
        "width": model.width, "grid": KAN.grid.__get__(model), "k": KAN.k.__get__(model), "mult_arity": arity(model),
        "base_fun_name": model.base_fun if isinstance(model.base_fun, str) else None,
        "symbolic_enabled": model.symbolic_enabled, "affine_trainable": model.affine_trainable,
        "grid_eps": model.grid_eps, "grid_range": list(model.grid_range), "sp_trainable": model.sp_trainable,
        "sb_trainable": model.sb_trainable, "state_id": state, "auto_save": model.history is not None,
        "ckpt_path": os.fspath(getattr(model, "ckpt_path", "./model")), "round": rounds, "device": str(model.device),
        "outside": linear.outside, "input_id": model.input_id.tolist(), "in_features": model.in_features,
        "exact_knots": True,
    }  # fmt: skip
    for l, layer in enumerate(model.symbolic_fun):
        config[f"symbolic.funs_name.{l}"] = layer.funs_name
    with atomic_write(f"{path}_config.yml") as file:
        file.write("".join(f"{key}: {_yaml(value)}\n" for key, value in config.items()).encode())
    for ending, content in (("state", to_pykan_state(model)), ("cache_data", model.cache_data)):
        with atomic_write(f"{path}_{ending}") as file:
            torch.save(content, file)


def _yaml(value) -> str:
    """A value as text that is both JSON and YAML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} in the configuration: expected finite numbers")
        text = repr(value)  # YAML reads 1e-06 as a string
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return json.dumps(value)


def _config(path: str) -> dict:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        config = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in text.splitlines())}
    except ValueError:
        config = _by_yaml(text, path)
    if not isinstance(config, dict) or not {"width", "mult_arity", "symbolic.funs_name.0"} <= config.keys():
        raise ValueError(f"path={path!r}: expected a configuration written by pykan's saveckpt")
    return config


def _by_yaml(text: str, path: str):
    try:
        import yaml
    except ImportError:
        raise ImportError(f"reading {path} needs PyYAML: pip install pyyaml") from None

    class Loader(yaml.SafeLoader):
        """Reads tags that name Python objects as None."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"path={path!r}: expected a configuration written by pykan's saveckpt ({error})") from None


def _tensors(path: str, device: torch.device | str | None):
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch.load raises many types for other files
        raise ValueError(f"path={path!r}: expected tensors written by pykan's saveckpt ({error})") from None
