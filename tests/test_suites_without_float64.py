"""Tests of the layer and of the network once more, on a device without float64: they name no device.

A copy of them runs where torch.float64 is torch.float32, with the plugin support/on_single.py: what a user of such a
device would meet, float64 made there or tensors left on another device, fails.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastkan
from support import single

TESTS = Path(__file__).parent
LIBRARY = single.LIBRARY.name
FILES = ["test_linear.py", "test_network_edit.py"]
LEFT_OUT = {
    "test_float64_is_exact": "about float64",
    "test_grid_stays_float64": "about float64",
    "test_meta_device": "about float64, on \"meta\"",
    "test_penalties_are_differentiable": "finite differences, in float64",
    "test_autocast": "autocast of the CPU",
    "test_compiles_as_one_graph": "compiles kernels of the CPU",
}  # fmt: skip


@pytest.mark.long
def test_on_a_device_without_float64(tmp_path):
    for path in [*(TESTS / name for name in ("conftest.py", *FILES)), *(TESTS / "support").glob("*.py")]:
        copy = tmp_path / path.relative_to(TESTS)
        copy.parent.mkdir(exist_ok=True)
        text = path.read_text()
        copy.write_text(
            text
            if path.name == "single.py"
            else text.replace("torch.float64", "torch.float32").replace(".double()", ".float()")
        )
    (tmp_path / LIBRARY).symlink_to(TESTS / LIBRARY)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    long: more of the same\n    sweep: a sweep\n    xdist_group(name): one worker\n"
    )
    paths = [str(Path(fastkan.__file__).parents[1]), str(tmp_path)]
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "support.on_single", "-p", "no:cacheprovider",
        "-k", " and ".join(f"not {name}" for name in LEFT_OUT), "--tb=short", *FILES,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("FASTKAN_LONG", None)  # whole sweeps, see conftest.py
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed and int(passed[1]) > 150 and " skipped" not in run.stdout.splitlines()[-1]
