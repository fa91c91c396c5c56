"""A user's type checker knows every public name: the types in typed_script.py are the inferred ones."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fastkan

SCRIPT = Path(__file__).with_name("typed_script.py")


def test_names_that_are_imported_later_complete():
    assert {"KAN", "accelerate", "replace_linear", "restore", "__version__"} <= {*dir(fastkan)}
    assert all(hasattr(fastkan, name) for name in dir(fastkan))


def test_the_typed_script_runs():
    runpy.run_path(str(SCRIPT))


@pytest.fixture
def project(tmp_path):
    """A user's project: the script, with fastkan as an installed package."""
    (tmp_path / SCRIPT.name).write_text(SCRIPT.read_text())
    settings = {"include": ["."], "extraPaths": [str(SCRIPT.parents[1])], "pythonVersion": "3.10"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    return tmp_path


def pyright(project: Path) -> tuple[int, list[dict]]:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    command = [
        sys.executable,
        "-m",
        "pyright",
        "--project",
        str(project),
        "--pythonpath",
        sys.executable,
        "--outputjson",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, json.loads(result.stdout)["generalDiagnostics"]


def test_pyright_infers_the_types_of_public_names(project):
    returncode, messages = pyright(project)
    assert not messages and returncode == 0


def test_pyright_sees_mistakes(project):
    """The package's types are not Any: wrong names and arguments are errors."""
    (project / SCRIPT.name).write_text(
        "import fastkan\n"
        "fastkan.KAN([2, 1]).fit_all()\n"
        "fastkan.KANLinear(2, '3')\n"
        "fastkan.KANLinear(2, 3).coef.nothing()\n"
        "fastkan.no_such_name\n"
    )
    _, messages = pyright(project)
    assert sorted(message["range"]["start"]["line"] for message in messages if message["severity"] == "error") == [
        1,
        2,
        3,
        4,
    ]


@pytest.mark.long
def test_mypy_infers_the_types_of_public_names(project):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--follow-imports", "silent", SCRIPT.name]
    path = {**os.environ, "MYPYPATH": str(SCRIPT.parents[1])}
    result = subprocess.run(command, cwd=project, env=path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
