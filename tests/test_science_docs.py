"""The example of docs/hypothesis.md, as it stands there."""

import re
from pathlib import Path

import pytest

pytest.importorskip("sympy", reason="SymPy is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

PAGE = Path(__file__).parents[1] / "docs" / "hypothesis.md"


def test_the_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    science, model, x = names["science"], names["model"], names["x"]
    assert names["found"]["groups"] == [[0, 1], [2, 3]]
    assert science.symmetry_score(model, x, [0, 1]) < 0.02 < 0.5 < science.symmetry_score(model, x, [0, 2])
    assert science.get_molecule(model, x) == [[[0], [1], [2], [3]], [[0, 1], [2, 3]], [[0, 1, 2, 3]]]
    suggested = [str(expression) for expression, _ in science.suggest_auxiliary(model, x, names["names"])]
    assert sorted(suggested) == ["a**2 + b**2", "c*d"]
    assert str(names["formula"]) == "2*c*d + sqrt(a**2 + b**2)"
    assert (tmp_path / "tree.png").stat().st_size and "\nsuggesting symmetry" in capsys.readouterr().out
