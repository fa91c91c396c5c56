"""pykan's checkpoints: path_config.yml, path_state and path_cache_data, read without running anything in them."""

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
    """The model of pykan's three files at path, with its cache_data.

    Args:
        path: without the endings, as pykan's saveckpt takes it.
        exact: see from_pykan. What save_checkpoint has written is exact in any case.
        base_fun: needed where it was no name: pykan writes code then, which is not run here.
        device: by default that on which the state was saved. options: others of KAN.

    Tensors are read with weights_only, the configuration by a parser of JSON or by PyYAML's safe loader, which knows no
    objects. Raises OSError, ValueError or KeyError for files that are not there or not pykan's, ImportError where they
    need PyYAML.
    """
    return read(path, exact, base_fun, device, **options)[0]


def read(path: str | os.PathLike, exact: bool = False, base_fun=None, device=None, **options) -> tuple[KAN, dict]:
    """load_checkpoint, and the configuration."""
    path = os.fspath(path)
    config = _config(f"{path}_config.yml")
    state = _tensors(f"{path}_state", device)
    arguments = {name: config[name] for name in ARGUMENTS if name in config}
    base_fun = config.get("base_fun_name") if base_fun is None else base_fun
    if base_fun is None:
        raise ValueError("base_fun=None: expected the base function, which the checkpoint can't hold")
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
    """Write the model as pykan's three files, which both read, and which hold all of it here.

    number: the state that it is in, round.state. A base function that is no name is not in the files. pykan has no
    outside but "zero", and forgets which inputs prune_input has left. ValueError where layers have different ones.
    """
    path = os.fspath(path)
    check_common(model)
    rounds, state = map(int, number.split("."))
    linear = model.act_fun[0].linear
    config = {
        "width": model.width, "grid": model.grid, "k": model.k, "mult_arity": arity(model),
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
    """A value in a line that is both JSON and YAML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} in the configuration: expected finite numbers")
        text = repr(value)  # YAML takes 1e-06 for a text
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
        raise ValueError(f"path={path!r}: expected a configuration that pykan's saveckpt has written")
    return config


def _by_yaml(text: str, path: str):
    try:
        import yaml
    except ImportError:
        raise ImportError(f"reading {path} needs PyYAML: pip install 'fastkan[pykan]'") from None

    class Loader(yaml.SafeLoader):
        """Whatever names code is None."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(
            f"path={path!r}: expected a configuration that pykan's saveckpt has written ({error})"
        ) from None


def _tensors(path: str, device):
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the reader of a file that is no checkpoint fails in many ways
        raise ValueError(f"path={path!r}: expected tensors that pykan's saveckpt has written ({error})") from None
