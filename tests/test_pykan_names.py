"""docs/pykan.md lists every name of pykan 0.2.8 and whether fastkan has it."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

from support.pykan import our_kan, real_kan

sympy = pytest.importorskip("sympy")
pytest.importorskip("matplotlib")

MODULES = ("KANLayer", "MultKAN", "Symbolic_KANLayer", "LBFGS", "MLP", "spline", "utils", "compiler", "hypothesis",
           "feynman", "experiment")  # fmt: skip
DOCS = Path(__file__).parent.parent / "docs" / "pykan.md"


def names_of(kan, all_of_modules: bool) -> dict[str, set[str]]:
    """Names of each module, all or those that it defines, and of an instance of each class without its parents'."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(f"kan.{name}")
        found[f"kan.{name}"] = {n for n, value in vars(module).items() if all_of_modules or _defined(module, n, value)}
    for made, parent in instances(kan):
        own = {n for n in dir(made) if not n.startswith("_")} - set(dir(parent))
        found[type(made).__name__] = {re.sub(r"_\d+$", "_0", n) for n in own}
    found["from kan import *"] = {n for n in vars(kan) if not n.startswith("_")}
    return found


def _defined(module, name: str, value) -> bool:
    """Whether a module of pykan's defines the name; by the place of a function or class, and for constants by their
    being none of SymPy's, which it imports all of."""
    if name.startswith("_") or inspect.ismodule(value):
        return False
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__module__ == module.__name__
    return isinstance(value, dict | int | str) and not hasattr(sympy, name)


def instances(kan) -> list[tuple[object, object]]:
    """One of each class after its use, and one of the class that it is made from."""
    x = torch.rand(20, 2)
    model, mlp = kan.KAN([2, [1, 1], 1], seed=0, auto_save=False), importlib.import_module("kan.MLP").MLP([2, 3, 1])
    for trained in (model, mlp):
        trained(x)
        trained.attribute()
    layers = [importlib.import_module(f"kan.{n}") for n in ("KANLayer", "Symbolic_KANLayer")]
    parameter = torch.zeros(2, requires_grad=True)
    plain = torch.nn.Module()
    return [
        (model, plain), (mlp, plain), (layers[0].KANLayer(2, 3), plain), (layers[1].Symbolic_KANLayer(2, 3), plain),
        (importlib.import_module("kan.LBFGS").LBFGS([parameter]), torch.optim.LBFGS([parameter])),
    ]  # fmt: skip


def rows() -> list[tuple[set[str], str]]:
    """Of the tables: the names in the first column, and the second column."""
    found = []
    for line in DOCS.read_text().splitlines():
        if line.startswith("| `"):
            first, second = (cell.strip() for cell in line.split("|")[1:3])
            found.append((set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", first)))), second))
    return found


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> tuple[dict, dict]:
    """Of pykan and of fastkan's kan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("kan"))
        with real_kan() as kan:
            theirs = names_of(kan, all_of_modules=False)
        with our_kan() as kan:
            return theirs, names_of(kan, all_of_modules=True)


def test_every_name_has_a_row(names):
    written = set().union(*(row for row, _ in rows())) | set(re.findall(r"`(\w+)`", DOCS.read_text()))
    own = set().union(*(found for place, found in names[0].items() if place != "from kan import *"))
    assert sorted(own - written) == []


def test_missing_names_are_listed(names):
    theirs, ours = names
    absent = set().union(*(row for row, second in rows() if second.startswith(("not here", "by", "`kan.utils."))))
    missing = {place: sorted(found - ours[place] - absent) for place, found in theirs.items()}
    assert not any(missing.values()), missing


def test_present_names_are_not_listed_as_missing(names):
    theirs, ours = names
    absent = set().union(*(row for row, second in rows() if second == "not here"))
    for place, found in theirs.items():
        assert not absent & found & ours[place], place
