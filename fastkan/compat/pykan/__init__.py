"""pykan (0.2.8): its modules on fastkan, and its models, state dicts and checkpoints both ways.

    import fastkan.compat.pykan

    fastkan.compat.pykan.install()
    from kan import *  # fastkan's, by pykan's names

What is here and what differs, name by name: docs/pykan.md.
"""

from .checkpoint import load_checkpoint, save_checkpoint
from .convert import from_pykan, from_pykan_state, to_pykan, to_pykan_state
from .install import install, installed, uninstall
from .model import MultKAN

__all__ = [
    "MultKAN", "from_pykan", "from_pykan_state", "install", "installed", "load_checkpoint", "save_checkpoint",
    "to_pykan", "to_pykan_state", "uninstall",
]  # fmt: skip
