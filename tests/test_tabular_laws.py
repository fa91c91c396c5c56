"""Tables of physical laws in units of any size, and skewed targets."""

import json
import math

import pytest
import torch

pytest.importorskip("sympy")

from fastkan import KAN  # noqa: E402
from fastkan.tabular import columns, files, formula, laws, prepare, row_sample, search, skew, transform  # noqa: E402
from fastkan_cli import main  # noqa: E402

# Columns with the size of their numbers (from 1 to 9 times it), the law, and how it is printed.
LAWS = [
    ({"m": 1e-27, "v": 1e5}, lambda m, v: 0.5 * m * v**2, "0.5*m*v**2"),
    ({"m": 1e18, "v": 1e18}, lambda m, v: 0.5 * m * v**2, "0.5*m*v**2"),
    ({"m1": 1e24, "m2": 1e22, "r": 1e8}, lambda a, b, r: 6.674e-11 * a * b / r**2, "6.674e-11*m1*m2/r**2"),
    ({"q1": 1e-6, "q2": -1e-6, "r": 0.1}, lambda a, b, r: 8.988e9 * a * b / r**2, "8.988e9*q1*q2/r**2"),
    ({"n": 1.0, "T": 100.0, "V": 0.01}, lambda n, t, v: 8.314 * n * t / v, "8.314*T*n/V"),
    ({"a": 1e11}, lambda a: 5.4544e-10 * a**1.5, "5.4544e-10*a**(3/2)"),
    ({"x": 1e-9}, lambda x: 1e20 * x**2, "1e20*x**2"),
    ({"x": 1.0, "z": 1.0}, lambda x, z: 1e-30 * x * z, "1e-30*x*z"),
]


def sampled(sizes: dict[str, float], law, rows: int = 120) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = [(1 + 8 * torch.rand(rows, dtype=torch.float64, generator=generator)) * size for size in sizes.values()]
    return x, law(*x)


def prepared(names: list[str], x: list[torch.Tensor], y: torch.Tensor, digits: int = 17) -> prepare.Prepared:
    values = torch.stack([*x, y], 1).tolist()
    table = torch.tensor([[float(f"{v:.{digits}g}") for v in row] for row in values], dtype=torch.float64)
    fields = [row_sample.Field(name, False) for name in (*names, "target")]
    return prepare.prepare(row_sample.Sample(fields, table, len(table)), "target", None, [], 0.2, 0, True)


@pytest.mark.parametrize(("law", "digits"), [*((law, 10) for law in LAWS), (LAWS[0], 5)])
def test_laws_are_printed_as_they_are(law, digits):
    sizes, law, printed = law
    data = prepared(list(sizes), *sampled(sizes, law), digits)
    found = laws.find(data, 0, range(len(sizes)))
    assert found is not None and found.exact
    shown = search.Found(data, found.model, found.model, True, found)
    assert formula.formulas(shown) == [printed]
    error = (found.model(data.x[data.test]) - data.y[data.test]).detach()
    assert float(error.abs().max()) < 30 * 10.0**-digits + 1e-10


def test_fit_prints_saves_and_predicts_a_law(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in (("STEPS", 3), ("SHAPES", ((),)), ("PENALTIES", (1e-2,)), ("GRIDS", (3,))):
        monkeypatch.setattr(search, name, value)
    (m, v), y = sampled({"m": 1e-27, "v": 1e5}, LAWS[0][1])
    rows = [f"{a!r},{b!r},{c!r}" for a, b, c in zip(m.tolist(), v.tolist(), y.tolist(), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["m,v,E", *rows]))
    monkeypatch.setattr(KAN, "plot", lambda *args, **options: None)
    assert main(["fit", "t.csv", "--target", "E", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["formula"] == {"E": "0.5*m*v**2"} and shown["kept"] == "formula" and shown["used"] == ["m", "v"]
    (tmp_path / "new.csv").write_text("v,m\n2e5,3e-27\n")
    assert main(["predict", "t-kan", "new.csv", "--quiet"]) == 0
    assert float(capsys.readouterr().out.split()[1]) == pytest.approx(0.5 * 3e-27 * 4e10, rel=1e-7)

    (tmp_path / "new.csv").write_text("v,m\n1e200,1e200\n2e5,3e-27\n")  # beyond float64, then as before
    assert main(["predict", "t-kan", "new.csv", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith('{"E": null}\n{"E": 6') and "1 row without a prediction" in captured.err


def test_a_law_with_noise_has_values_beyond_the_rows():
    """log(x) would fit as well, but has no value where x is 0."""
    x = torch.linspace(-1, 1, 60, dtype=torch.float64)[:, None]
    beyond = laws._beyond(torch.cat([x, x + 2], 1))
    assert beyond[:, 0].min() < -1.4 and beyond[:, 1].min() > 0, "a column of one sign keeps it"


# Skewed targets


@pytest.mark.parametrize("name", transform.TRANSFORMS)
def test_transforms_are_inverse_and_have_their_slope(name):
    sympy = pytest.importorskip("sympy")
    y = torch.logspace(-3, 3, 50, dtype=torch.float64).requires_grad_()
    t = transform.TRANSFORMS[name]
    z = t.forward(y)
    (slope,) = torch.autograd.grad(z.sum(), y)
    assert torch.allclose(t.inverse(z), y, rtol=1e-12) and torch.allclose(t.log_slope(y), slope.log(), atol=1e-12)
    assert float(t.symbolic_inverse(sympy, sympy.Float(0.7))) == pytest.approx(float(t.inverse(torch.tensor(0.7))))
    column = columns.Column("y", mean=0.3, std=2.0, transform=name, unit=5.0 if name == "asinh" else 1.0)
    assert torch.allclose(column.unscaled(column.scaled(y)), y, rtol=1e-12)


def of_noise(kind: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b, noise = torch.randn(3, 300, dtype=torch.float64, generator=generator)
    z = 2 * a + b + 0.2 * noise
    return [a, b], {"log": z.exp(), "asinh": 30 * z.sinh(), "own": z}[kind]


@pytest.mark.parametrize("kind", ["log", "asinh", "own"])
def test_the_scale_of_a_target_is_that_of_its_noise(kind):
    data = skew.scaled(prepared(["a", "b"], *of_noise(kind)), lambda d, rows, held: search.additive(d, rows, held, 0))
    assert data.preparation.target.transform == (None if kind == "own" else kind)
    assert bool(data.notes) == (kind != "own")


def test_a_skewed_target_is_fitted_and_predicted_in_its_units(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in (("SHAPES", ((),)), ("PENALTIES", (1e-2,)), ("GRIDS", (3,)), ("LIBRARIES", (("x",),))):
        monkeypatch.setattr(search, name, value)
    monkeypatch.setattr(laws, "STEPS", 1)
    monkeypatch.setattr(KAN, "plot", lambda *args, **options: None)
    (a, b), y = of_noise("log")
    rows = [f"{p!r},{q!r},{r!r}" for p, q, r in zip(a.tolist(), b.tolist(), y.tolist(), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    monkeypatch.setattr(search, "FOLDS", 1)
    assert main(["fit", "t.csv", "--target", "y", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "log(y) was fitted" in str(shown["notes"]) and shown["errors"]["linear model"]["r2"] < 0.6
    assert shown["errors"][shown["kept"]]["r2"] > 0.85 and "exp(" in shown["formula"]["y"]
    assert "means of y are about 1.02 times" in str(shown["notes"]), "exp(0.2^2 / 2) = 1.02"
    assert files.load("t-kan").preparation.target.transform == "log"
    assert main(["predict", "t-kan", "t.csv"]) == 0
    captured = capsys.readouterr()
    predicted = [float(line) for line in captured.out.split()[1:]]
    ratios = [math.log(p / q) for p, q in zip(predicted, y.tolist(), strict=True)]
    assert abs(sum(ratios) / len(ratios)) < 0.05 and max(map(abs, ratios)) < 1 and "R^2 0.9" in captured.err
    value = eval(shown["formula"]["y"], {"__builtins__": {}, "exp": math.exp}, {"a": a[0].item(), "b": b[0].item()})
    assert value == pytest.approx(predicted[0], rel=0.03)


def test_heavy_numbers_do_not_overflow_the_errors():
    y = torch.tensor([[1e300], [-1e300], [3e299]], dtype=torch.float64)
    from fastkan.tabular.report import number_scores

    scores = number_scores(y * 0.9, y)
    assert scores["rmse"] == pytest.approx(0.1 * (2.09 / 3) ** 0.5 * 1e300) and scores["r2"] > 0.98
