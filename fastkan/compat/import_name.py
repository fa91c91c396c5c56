"""Import names of other libraries that refer to modules of this one, in this process."""

import sys
from types import ModuleType


def install(name: str, modules: dict[str, ModuleType]) -> None:
    """Make `import name` and its submodules, by their full names, these modules.

    Raises RuntimeError, with the path, if another module of that name is already imported.
    """
    other = sys.modules.get(name)
    if other is not None and other is not modules[name]:
        where = getattr(other, "__file__", None) or "memory"
        raise RuntimeError(
            f"{name} is imported already, from {where}: expected install() before the first import of {name}, or a new "
            "process"
        )
    sys.modules.update(modules)


def installed(name: str, module: str) -> bool:
    """Whether `import name` imports the module of fastkan with this name."""
    return getattr(sys.modules.get(name), "__name__", None) == module


def uninstall(name: str) -> None:
    """Undo install: the next `import name` looks for the library. Names already imported keep working."""
    for module in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
        del sys.modules[module]
