"""to_html: contents of the page, escaping of names, atomic writing."""

import base64
import hashlib
import json
import re

import pytest
import torch

from fastkan import KAN
from fastkan.network.plot.page import _formula

HOSTILE = "</script><img src=x onerror=alert(1)> & \"'"


def parts(path) -> tuple[str, dict]:
    """The page, and the data in it."""
    page = path.read_text("utf-8")
    return page, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


@pytest.fixture(scope="module")
def model() -> KAN:
    torch.manual_seed(0)
    made = KAN([3, [2, 1], 1], grid=4, seed=3, dtype=torch.float64)
    made.get_act(torch.rand(200, 3, dtype=torch.float64) * 2 - 1)
    made.fix_symbolic(0, 0, 0, "sin", verbose=False)
    made.get_act()
    return made


def test_the_page_has_every_edge_with_its_curve_data_formula_and_score(model, tmp_path):
    model.to_html(tmp_path / "page.html", in_vars=["a", "b", "c"], out_vars=["y"], title="A title")
    _, data = parts(tmp_path / "page.html")
    assert data["title"] == "A title" and len(data["edges"]) == model.n_edge == 3 * 4 + 3
    assert [node["name"] for node in data["layers"][0]["nodes"]] == ["a", "b", "c"]
    assert [node["kind"] for node in data["layers"][1]["nodes"]] == ["copy", "copy", "product"]
    assert data["layers"][1]["subnodes"] == [0, 1, 2, 2]
    model.attribute()
    for edge in data["edges"]:
        layer, i, j = edge["layer"], edge["from"], edge["to"]
        x, y = model.get_fun(layer, i, j)
        assert edge["score"] == pytest.approx(model.edge_scores[layer][j, i].item(), rel=1e-3)
        assert (edge["from_x"], edge["to_x"]) == pytest.approx((x.min().item(), x.max().item()), rel=1e-4)
        assert edge["low"] == pytest.approx(min(edge["y"])) and edge["low"] <= y.min().item() + 1e-3
        assert (edge["mode"], bool(edge["formula"])) == (("s", True) if (layer, i, j) == (0, 0, 0) else ("n", False))


def test_names_and_titles_cannot_leave_their_place(model, tmp_path):
    model.to_html(tmp_path / "page.html", in_vars=[HOSTILE, "b", "@DATA@"], out_vars=[HOSTILE], title=HOSTILE)
    page, data = parts(tmp_path / "page.html")
    assert data["title"] == data["layers"][0]["nodes"][0]["name"] == HOSTILE
    assert data["layers"][0]["nodes"][2]["name"] == "@DATA@"
    assert "<img" not in page and page.count("</script>") == 2 and page.count("<script") == 2


def test_the_page_loads_nothing_and_runs_its_own_script_alone(model, tmp_path):
    model.to_html(tmp_path / "page.html")
    page, _ = parts(tmp_path / "page.html")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert set(re.findall(r"https?://[^\"]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page and "url(" not in page


def test_a_pruned_model_takes_names_of_all_inputs(model, tmp_path):
    smaller = model.prune_input(active_inputs=[2])
    smaller.to_html(tmp_path / "page.html", in_vars=["a", "b", "c"])
    assert [node["name"] for node in parts(tmp_path / "page.html")[1]["layers"][0]["nodes"]] == ["c"]


def test_values_that_are_no_numbers_leave_gaps(tmp_path):
    model = KAN([1, 1], dtype=torch.float64)
    model.get_act(torch.linspace(0.1, 1, 50, dtype=torch.float64)[:, None])
    model.fix_symbolic(0, 0, 0, "log", fit_params_bool=False)
    model.symbolic_fun[0].set_edge(0, 0, "log", (1.0, -0.5, 1.0, 0.0))
    model.to_html(tmp_path / "page.html", x=torch.linspace(0.4, 1, 50, dtype=torch.float64)[:, None])
    (edge,) = parts(tmp_path / "page.html")[1]["edges"]
    assert edge["from_x"] > 0.5 and edge["formula"] == "log(x − 0.5)"


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_curves_far_from_zero_are_no_staircases(scale, tmp_path):
    model = KAN([1, 1], dtype=torch.float64)
    x = torch.linspace(2000, 2001, 50, dtype=torch.float64)[:, None]
    model.symbolic_fun[0].set_edge(0, 0, "sin", (4.0, -8002.0, 1e-4, 1000.0))
    model.set_mode(0, 0, 0, "s")
    model.to_html(tmp_path / "page.html", x=x, output_normalizer=([0.0], [scale]))
    (edge,) = parts(tmp_path / "page.html")[1]["edges"]
    y = scale * (1000 + 1e-4 * torch.sin(4 * torch.linspace(2000, 2001, 101, dtype=torch.float64) - 8002))
    extent = (y.max() - y.min()).item()
    error = (torch.tensor(edge["y"], dtype=torch.float64) - y).abs().max().item()
    assert error <= 1e-4 * extent and len(set(edge["y"])) > 50
    assert edge["high"] - edge["low"] == pytest.approx(extent, rel=1e-3)
    assert (edge["from_x"], edge["to_x"]) == (2000.0, 2001.0) and len(set(edge["data"])) == 30
    # the formula is the curve, to a hundredth of its height
    c, a, b, d = (float(n) for n in re.findall(r"[0-9.e-]*[0-9]", edge["formula"]))
    at = torch.tensor([edge["from_x"], edge["to_x"]], dtype=torch.float64)
    ends = torch.tensor([edge["y"][0], edge["y"][-1]], dtype=torch.float64)
    torch.testing.assert_close(d + c * torch.sin(a * at - b), ends, rtol=0, atol=0.01 * extent)


def test_a_constant_edge_is_a_line_and_its_rounding_is_not_drawn(tmp_path):
    model = KAN([1, 1], dtype=torch.float32)
    x = torch.linspace(-1, 1, 50)[:, None]
    model.symbolic_fun[0].set_edge(0, 0, "sin", (1.0, 0.0, 1e-4, 1000.0))
    model.set_mode(0, 0, 0, "s")
    model.to_html(tmp_path / "page.html", x=x)
    (edge,) = parts(tmp_path / "page.html")[1]["edges"]
    assert edge["low"] == edge["high"] == 1000.0 and set(edge["y"]) == {1000.0}


@pytest.mark.parametrize(
    "name, affine, text",
    [
        ("sin", (2.0, 1.0, 0.5, -3.0), "0.5 sin(2 x + 1) − 3"),
        ("x", (2.0, 1.0, 3.0, 1.0), "6 x + 4"),
        ("x^2", (1.0, 0.0, 1.0, 0.0), "x^2"),
        ("x^2", (2.0, -1.0, 1.0, 0.0), "(2 x − 1)^2"),
        ("1/x^2", (2.0, 0.0, 4.0, 0.0), "4/(2 x)^2"),
        ("1/sqrt(x)", (2.0, 1.0, 1.0, 0.0), "1/sqrt(2 x + 1)"),
        ("gaussian", (1.0, 0.0, 1.0, 0.0), "gaussian(x)"),
        ("0", (0.0, 0.0, 0.0, 2.0), "2"),
    ],
)
def test_formulas_of_edges(name, affine, text):
    model = KAN([1, 1])
    model.symbolic_fun[0].set_edge(0, 0, name, affine)
    assert _formula(model.symbolic_fun[0], 0, 0) == text


def test_edges_from_inputs_and_to_outputs_are_in_the_units_of_the_data(model, tmp_path):
    raw = tmp_path / "raw.html"
    model.to_html(tmp_path / "page.html")
    model.to_html(raw, normalizer=([10.0, 20.0, 30.0], [2.0, 4.0, 8.0]), output_normalizer=([5.0], [3.0]))
    for one, other in zip(parts(tmp_path / "page.html")[1]["edges"], parts(raw)[1]["edges"], strict=True):
        first = one["layer"] == 0
        mean, std = (10.0 * (one["from"] + 1), 2.0 ** (one["from"] + 1)) if first else (0.0, 1.0)
        assert other["from_x"] == pytest.approx(one["from_x"] * std + mean, rel=1e-4)
        assert other["high"] == pytest.approx(one["high"] * (1.0 if first else 3.0), rel=1e-4)
    symbolic = KAN([1, 1])
    symbolic.symbolic_fun[0].set_edge(0, 0, "sin", (2.0, 1.0, 1.0, 0.5))
    assert _formula(symbolic.symbolic_fun[0], 0, 0, 10.0, 4.0, 2.0) == "2 sin(0.5 x − 4) + 1"
    with pytest.raises(ValueError, match="normalizer=.*expected 3 finite means"):
        model.to_html(raw, normalizer=([0.0], [1.0]))


def test_errors_name_the_argument_and_leave_the_file_alone(model, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before")
    for options, message in (
        ({"in_vars": ["a"]}, r"in_vars=\['a'\]: expected a list of 3 names"),
        ({"out_vars": ["a", "b"]}, "out_vars="),
        ({"metric": "nothing"}, "metric='nothing'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.to_html(path, **options)
    with pytest.raises(ValueError, match="x=None: expected data"):
        KAN([2, 1]).to_html(path)
    with pytest.raises(OSError, match="expected a file"):
        model.to_html(tmp_path)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["page.html"]
