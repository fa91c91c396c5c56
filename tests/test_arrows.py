"""The house: every module imports alone, and arrows between modules point one way."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastkan

PACKAGE = Path(fastkan.__file__).parent
MODULES = sorted(
    ".".join(("fastkan", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)

# unit -> the units it may import:
# science -> network -> nn -> functional -> {select, autograd} -> {ops, backends}; reference -> basis.
ALLOWED = {
    "devices": set(),
    "basis": {"devices"},
    "spec": {"basis"},
    "transforms": set(),
    "arguments": set(),
    "ops": {"spec"},
    "reference": {"basis", "devices", "spec", "transforms"},
    "backends": {"devices", "ops", "spec", "basis", "reference", "snapshot", "transforms"},
    "kinds": {"basis", "spec"},
    "verdicts": {"devices"},
    "select": {"backends", "reference", "ops", "spec", "transforms", "kinds", "verdicts"},
    "autograd": {"select", "reference", "spec", "ops", "transforms"},
    "stack": {"autograd", "reference", "select", "spec", "ops", "transforms"},
    "snapshot": {"transforms"},
    "direct": {"autograd", "backends", "spec", "stack"},
    "functional": {"devices", "direct", "snapshot", "select", "autograd", "stack", "spec", "basis", "transforms"},
    "features": {"autograd", "backends", "basis", "devices", "select", "snapshot", "spec", "transforms"},
    "convolution": {"autograd", "features", "functional", "select", "spec", "transforms"},
    "nn": {
        "arguments",
        "convolution",
        "features",
        "devices",
        "transforms",
        "snapshot",
        "functional",
        "select",
        "stack",
        "spec",
        "basis",
        "reference",
    },
    "network": {
        "arguments",
        "devices",
        "snapshot",
        "nn",
        "functional",
        "stack",
        "spec",
        "basis",
        "select",
        "transforms",
    },
    "science": {"arguments", "devices", "nn", "network"},
    "tabular": {"network"},
    "sklearn": {"arguments", "network", "spec", "tabular"},
    "compat": {
        "devices",
        "arguments",
        "transforms",
        "snapshot",
        "science",
        "network",
        "nn",
        "functional",
        "select",
        "spec",
        "basis",
    },
    "fastkan": {"compat"},
    "testing": {"reference", "spec", "basis"},
    "flops": {"ops", "spec"},
    "sharding": {"nn", "ops", "reference", "spec"},
    "averaging": {"devices", "nn"},
    "prove": {"backends", "kinds", "measure", "select", "stack", "reference", "testing", "verdicts"},
    "measure": {"__init__", "testing", "functional", "nn", "basis", "select", "spec"},
}
# Inside network: room -> the rooms it may import. No room imports one that imports it, directly or not.
ROOMS = {
    "layers": set(),
    "activations": {"layers"},
    "checkpoint": {"layers"},
    "stacked": {"layers"},
    "scores": {"activations", "layers"},
    "edit": {"layers", "scores"},
    "prune": {"edit", "layers"},
    "grids": {"activations", "checkpoint", "layers"},
    "history": {"checkpoint"},
    "train": {"activations", "checkpoint", "layers", "scores", "stacked"},
    "formulas": {"activations", "checkpoint", "layers", "train"},
    "plot": {"activations", "checkpoint", "formulas", "layers", "scores"},
}
ROOMS["model"] = set(ROOMS)
ROOMS["compiler"] = {"formulas", "history", "layers", "model"}
# Programs sit above everything and may import all but one another; nobody imports them.
TOP = {"__init__", "__main__", "cli", "imports"}
LIGHT = {"scipy", "sklearn", "matplotlib", "tqdm", "triton", "numpy", "pandas", "pytest", "hypothesis"}


def unit(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below, without those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from at_run_time(child)


def imported(module: str, source: str | None = None) -> set[str]:
    """Absolute names of what a module imports, wherever in it."""
    path = path_of(module)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in at_run_time(ast.parse(source or path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            # `from . import functional` names a module, `from .spec import Spec` something in one
            found |= {f"{name}.{a.name}" if f"{name}.{a.name}" in MODULES else name for a in node.names}
    return found


def wrong_arrows(module: str, names: set[str]) -> set[str]:
    here = unit(module)
    wrong = set()
    for name in names:
        if not (name == "fastkan" or name.startswith("fastkan.")):
            continue
        there = unit(name)
        if here in TOP or there == here != "backends":
            continue
        # Of each other backends know nothing, except of dense, whose contractions take the features of others.
        siblings = there == here == "backends" and name.split(".")[2:3] not in ([], ["dense"], module.split(".")[2:3])
        if siblings or (there != here and there not in ALLOWED[here]):
            wrong.add(name)
    return wrong


def test_the_package_was_found():
    assert {"fastkan", "fastkan.functional", "fastkan.backends.native", "fastkan.basis.bspline"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module):
    assert unit(module) in ALLOWED.keys() | TOP, "a new unit: give it a row in ALLOWED"
    assert not wrong_arrows(module, imported(module))


def rooms(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names if name.startswith("fastkan.network.")]
    return {name[2] for name in parts}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("fastkan.network.")])
def test_rooms_of_the_network(module):
    (here,) = rooms({module})
    assert rooms(imported(module)) <= ROOMS[here] | {here}, "see ROOMS"


def test_no_room_of_the_network_imports_itself_through_others():
    """Rooms in the order of ROOMS import earlier ones only; a stranger meets at most 14."""
    order = list(ROOMS)
    assert len(order) <= 14
    assert all(order.index(there) < order.index(here) for here in order for there in ROOMS[here])


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("fastkan.basis.base", "from ..functional import kan_linear"),
        ("fastkan.reference", "from . import autograd"),
        ("fastkan.autograd", "import fastkan.functional"),
        ("fastkan.functional", "def late():\n    from .nn import linear"),
        ("fastkan.ops", "import fastkan"),
    ],
)
def test_wrong_arrow_is_reported(module, line):
    assert wrong_arrows(module, imported(module, line))


def test_backends_do_not_know_one_another():
    for module, line in (
        ("fastkan.backends.native", "from . import triton"),
        ("fastkan.backends.triton.plan", "from .. import native"),
        ("fastkan.backends.triton.plan", "from ..native import cpu_isa"),
    ):
        assert wrong_arrows(module, imported(module, line))


# The modules of extras, whose users import them.
EXTRA = ("fastkan.sklearn", "fastkan.compat.hub")
# Loaded when a Triton kernel is first called.
IN_TRITON = tuple(m for m in MODULES if m.startswith("fastkan.backends.triton."))


@pytest.mark.parametrize(
    "module", [m for m in MODULES if unit(m) not in ("cli", "__main__") and m not in EXTRA + IN_TRITON]
)
def test_only_torch_is_imported_at_the_top(module):
    """Optional packages are imported where they are used, so that the package itself needs torch alone."""
    top = [n for n in ast.parse(path_of(module).read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name.split(".")[0] for n in top if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module.split(".")[0] for n in top if isinstance(n, ast.ImportFrom) and not n.level and n.module}
    assert names <= {"torch", *sys.stdlib_module_names}


IMPORT_EACH = f"""
import importlib, os, sys
import torch
sys.modules.update(dict.fromkeys({sorted(LIGHT - {"numpy"})}))
for module in sys.argv[1:]:
    child = os.fork()
    if not child:
        importlib.import_module(module)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(module)
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_every_module_imports_in_a_fresh_process():
    """Each in a process where only torch was imported before and no optional package can be."""
    library = [m for m in MODULES if unit(m) != "__main__" and m not in EXTRA + IN_TRITON]
    result = subprocess.run([sys.executable, "-c", IMPORT_EACH, *library], capture_output=True, text=True, check=False)
    assert not result.returncode, result.stderr


def test_importing_fastkan_loads_no_optional_package():
    code = (
        "import sys, torch; before = set(sys.modules); import fastkan;"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(result.stdout.split()) & LIGHT
    assert "fastkan" in result.stdout.split()
