"""pykan (0.2.8): its modules on fastkan, and conversion of models, state dicts and checkpoints in both directions.

    import fastkan.compat.pykan

    fastkan.compat.pykan.install()
    from kan import *  # pykan's names, from fastkan

Supported names and differences: docs/pykan.md.
"""

from .checkpoint import load_checkpoint, save_checkpoint
from .convert import from_pykan, from_pykan_state, to_pykan, to_pykan_state
from .install import install, installed, uninstall
from .model import MultKAN

__all__ = [
    "MultKAN", "from_pykan", "from_pykan_state", "install", "installed", "load_checkpoint", "save_checkpoint",
    "to_pykan", "to_pykan_state", "uninstall",
]  # fmt: skip
