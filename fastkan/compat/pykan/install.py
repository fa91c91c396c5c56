"""install: make the import name `kan` and its submodules refer to the modules in the folder kan beside this file."""

import importlib
import pkgutil

from .. import import_name
from . import __name__ as PACKAGE

NAME = "kan"


def install() -> None:
    """Make `import kan`, `from kan import *`, `from kan.utils import ...` import fastkan's modules, in this process.

    Call it before the first import of kan: names that were imported earlier do not change. Calling it again has no
    effect. uninstall undoes it.

    Raises RuntimeError, with the path, if another kan, such as pykan itself, is already imported.
    """
    package = importlib.import_module(f"{PACKAGE}.{NAME}")
    modules = {NAME: package}
    for submodule in pkgutil.iter_modules(package.__path__):
        modules[f"{NAME}.{submodule.name}"] = importlib.import_module(f"{PACKAGE}.{NAME}.{submodule.name}")
    import_name.install(NAME, modules)


def installed() -> bool:
    """Whether `import kan` imports fastkan's modules."""
    return import_name.installed(NAME, f"{PACKAGE}.{NAME}")


def uninstall() -> None:
    """Undo install: the next `import kan` looks for pykan. Names already imported from fastkan keep working."""
    if installed():
        import_name.uninstall(NAME)
