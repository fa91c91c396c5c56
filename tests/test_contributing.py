"""CONTRIBUTING.md: its recipes, followed to the letter in a copy of the package; versions that must be equal."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(section: str) -> list[tuple[str, str]]:
    """Language and content of the section's code blocks."""
    body = TEXT.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", body, re.DOTALL)


@pytest.fixture
def follow(tmp_path):
    """Apply a recipe's code blocks to a copy of the package, then run a script with it."""
    for package in ("fastkan", "fastkan_cli"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def run(section: str, script: str) -> None:
        for language, content in blocks(section):
            if language == "diff":
                edit(tmp_path, content)
            elif content.startswith("# fastkan"):
                path, _, code = content.removeprefix("# ").partition("\n")
                (tmp_path / path).write_text(code)
            else:
                script = content + script
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run


def edit(folder: Path, diff: str) -> None:
    """Replace every run of - lines, which must stand in the file once, by the + lines after it."""
    for part in diff.split("--- ")[1:]:
        path, _, lines = part.partition("\n")
        text = (folder / path).read_text()
        for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", lines, re.MULTILINE):
            old, new = (re.sub(r"^.", "", side, flags=re.MULTILINE) for side in (old, new))
            assert text.count(old) == 1, (path, old)
            text = text.replace(old, new)
        (folder / path).write_text(text)


FAMILY = """
import os, torch, fastkan, fastkan_cli
os.environ["TRITON_INTERPRET"] = "1"
from fastkan.functional import kan_linear
from fastkan.spec import FAMILIES

x = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None].requires_grad_()
grid = torch.linspace(-1, 1, 6, dtype=torch.float64)
coef = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
expected = torch.sin((x + 1) * torch.pi / 2 * torch.arange(1, 6)) @ coef[0]

def layer(x, coef):
    return kan_linear(x, coef, grid, degree=0, uniform=True, family="sine")

torch.testing.assert_close(layer(x, coef), expected)
for mine, plain in ((layer(x, coef), expected),):
    for order in range(3):  # by the contractions, and by autograd of the formula
        mine, plain = (torch.autograd.grad(y.sum(), x, create_graph=True)[0] for y in (mine, plain))
        torch.testing.assert_close(mine, plain)
assert torch.autograd.gradcheck(layer, (x, coef)) and torch.autograd.gradgradcheck(layer, (x, coef))
states = fastkan.backends(family="sine")
assert [name for name, state in states.items() if not state.startswith("missing")] == ["dense", "reference"]
assert fastkan_cli.FAMILIES == FAMILIES
"""


def test_a_basis_family(follow):
    follow("Add a basis family", FAMILY)


SYMBOLIC = """
from fastkan.network.layers.library import get_symbolic
import sympy

x = torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None].requires_grad_()
model = fastkan.KAN([1, 1], dtype=torch.float64)
model.fix_symbolic(0, 0, 0, "softsign", fit_params_bool=False)
torch.testing.assert_close(model(x), x / (1 + x.abs()))
assert torch.autograd.gradcheck(model, x)
assert get_symbolic("softsign").sympy_fn(sympy.Symbol("z")) == sympy.sympify("z / (1 + Abs(z))")
"""


def test_a_symbolic_function(follow):
    pytest.importorskip("sympy")
    follow("Add a symbolic function", "import fastkan" + SYMBOLIC)


BACKEND = """
import torch, fastkan
from fastkan import select, sharding
from fastkan.testing import CONTRACTIONS, Problem, assert_matches_reference

for name in CONTRACTIONS:  # for want of kernels, the reference
    torch.library.impl(f"fastkan_mine::{name}", "CPU", sharding._as_operator(name))
    assert_matches_reference(select.BACKENDS["mine"], name, Problem.random(9, 3, 4, 5))
layer = fastkan.KANLinear(3, 2, backend="mine").double()
x = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
assert torch.autograd.gradcheck(layer, x) and torch.autograd.gradgradcheck(layer, x)
assert fastkan.backends()["mine"] == "available"
assert "B-splines only" in fastkan.backends(family="rbf")["mine"]
try:
    layer.to("meta")(x.to("meta"))
except fastkan.BackendError as error:
    assert "no kernels of mine for device 'meta'" in str(error)
"""


def test_a_backend(follow):
    follow("Add a backend", BACKEND)


def test_a_contraction_goes_through_the_files_named():
    """The recipe names every file that its example stands in, but for those that only call it."""
    body = TEXT.split("## Add a contraction\n")[1]
    callers = {"fastkan/compat", "fastkan/network", "fastkan/nn", "csrc/testing", "csrc/cuda/gather/row_walk.h"}
    for file in [*ROOT.glob("fastkan/**/*.py"), *ROOT.glob("csrc/**/*.*")]:
        path = file.relative_to(ROOT).as_posix()
        if "edge_moments" in file.read_text() and not path.startswith(tuple(callers)):
            assert file.name in body, path


def test_versions_of_formatters_agree():
    required = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    for repository, package in (("ruff-pre-commit", "ruff"), ("mirrors-clang-format", "clang-format")):
        assert f"{repository}\n    rev: v{required[package]}\n" in hooks


def test_versions_in_the_metadata_agree():
    import fastkan

    assert f"\nversion: {fastkan.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    oldest = re.search(r"setuptools>=(\d+)", (ROOT / "pyproject.toml").read_text())[1]
    assert f"OLDEST_SETUPTOOLS, OLDEST_CMAKE = {oldest}, (3, 20)" in (ROOT / "setup.py").read_text()
    assert "cmake_minimum_required(VERSION 3.20)" in (ROOT / "CMakeLists.txt").read_text()
    python = re.search(r'requires-python = ">=(.+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert f'python: "{python}"' in (ROOT / ".github/workflows/ci.yml").read_text()


def test_actions_are_pinned_to_commits():
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for action in re.findall(r"uses: (.+)", workflow.read_text()):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v[\d.]+", action), action


def test_commands_named_are_targets():
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert set(re.findall(r"^    make ([\w-]+)", TEXT, re.MULTILINE)) <= set(targets)


@pytest.mark.xdist_group("of_this_test")
def test_groups_stay_on_one_worker(request):
    if not getattr(request.config.option, "loadgroup", False):  # set by the workers of --dist loadgroup
        pytest.skip("tests run in one process")
    assert request.node.nodeid.endswith("@of_this_test"), "this version of pytest-xdist and pytest splits groups"
