"""install: the import name `kan` and its submodules become fastkan's, as modules in the folder kan beside this file."""

import importlib
import pkgutil
import sys

from . import __name__ as HERE

NAME = "kan"


def install() -> None:
    """Make `import kan`, `from kan import *`, `from kan.utils import ...` give fastkan's, in this process.

    Before the first import of kan: what was imported from the other one stays what it is. Calling it again changes
    nothing. uninstall undoes it.

    Raises RuntimeError where another kan, such as pykan itself, is imported already, and names its place.
    """
    other = sys.modules.get(NAME)
    if other is not None and not installed():
        where = getattr(other, "__file__", None) or "memory"
        raise RuntimeError(
            f"kan is imported already, from {where}: expected install() before the first import of kan, or a process "
            "without it"
        )
    package = importlib.import_module(f"{HERE}.{NAME}")
    modules = {NAME: package}
    for found in pkgutil.iter_modules(package.__path__):
        modules[f"{NAME}.{found.name}"] = importlib.import_module(f"{HERE}.{NAME}.{found.name}")
    sys.modules.update(modules)


def installed() -> bool:
    """Whether `import kan` gives fastkan's."""
    return getattr(sys.modules.get(NAME), "__name__", None) == f"{HERE}.{NAME}"


def uninstall() -> None:
    """Undo install: the next `import kan` looks for pykan. What was imported from fastkan's goes on working."""
    if not installed():
        return
    for name in [n for n in sys.modules if n == NAME or n.startswith(f"{NAME}.")]:
        del sys.modules[name]
