"""install: make the import name `kan` and its submodules refer to the modules in the folder kan beside this file."""

import importlib
import pkgutil
import sys

from . import __name__ as PACKAGE

NAME = "kan"


def install() -> None:
    """Make `import kan`, `from kan import *`, `from kan.utils import ...` import fastkan's modules, in this process.

    Call it before the first import of kan: names that were imported earlier do not change. Calling it again has no
    effect. uninstall undoes it.

    Raises RuntimeError, with the path, if another kan, such as pykan itself, is already imported.
    """
    other = sys.modules.get(NAME)
    if other is not None and not installed():
        where = getattr(other, "__file__", None) or "memory"
        raise RuntimeError(
            f"kan is imported already, from {where}: expected install() before the first import of kan, or a new "
            "process"
        )
    package = importlib.import_module(f"{PACKAGE}.{NAME}")
    modules = {NAME: package}
    for submodule in pkgutil.iter_modules(package.__path__):
        modules[f"{NAME}.{submodule.name}"] = importlib.import_module(f"{PACKAGE}.{NAME}.{submodule.name}")
    sys.modules.update(modules)


def installed() -> bool:
    """Whether `import kan` imports fastkan's modules."""
    return getattr(sys.modules.get(NAME), "__name__", None) == f"{PACKAGE}.{NAME}"


def uninstall() -> None:
    """Undo install: the next `import kan` looks for pykan. Names already imported from fastkan keep working."""
    if not installed():
        return
    for name in [n for n in sys.modules if n == NAME or n.startswith(f"{NAME}.")]:
        del sys.modules[name]
