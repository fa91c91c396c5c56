"""Symmetries, their tree, its picture, and auxiliary variables, on functions of known structure."""

import itertools

import pytest
import torch

from fastkan import KAN, science
from fastkan.science import MLP

sympy = pytest.importorskip("sympy", reason="SymPy is not installed")

X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def deep(x):
    """The example of KAN 2.0."""
    a, b, c, d, e, f, g, h = (column**2 for column in x.split(1, -1))
    return ((a + b) ** 2 + (c + d) ** 2) ** 2 + ((e + f) ** 2 + (g + h) ** 2) ** 2


THREES_AND_PAIRS = [set(group) for size in (2, 3) for group in itertools.combinations(range(4), size)]
FUNCTIONS = {  # of four variables: function, its symmetries of two and more but not all
    "pairs": (lambda a, b, c, d: (a + b) * torch.exp(c * d) + c * d, [{0, 1}, {2, 3}]),
    "nested": (lambda a, b, c, d: a * torch.sqrt(1 + (b * c + d) ** 2) + a**2, [{1, 2}, {1, 2, 3}]),
    "sum": (lambda a, b, c, d: torch.exp(0.3 * (a + b + c + d)), THREES_AND_PAIRS),
    "none": (lambda a, b, c, d: a * b + b**2 * c + c**3 * d + d * a**2, []),
    "units": (lambda a, b, c, d: 1e-9 * ((1e3 * a + d) * b + b**2 * c), [{0, 3}]),
}
FUNCTIONS = {name: (lambda x, f=f: f(*x.split(1, -1)), groups) for name, (f, groups) in FUNCTIONS.items()}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("local", [False, True])
def test_symmetry(name, local):
    f, groups = FUNCTIONS[name]
    scale = torch.tensor([1e-3, 1, 1, 1] if name == "units" else [1, 1, 1, 1], dtype=torch.float64)
    for size in (2, 3):
        for group in itertools.combinations(range(4), size):
            score = science.symmetry_score(f, X * scale, group, local=local)
            assert (score < 1e-6) == (set(group) in groups), (group, score)
            assert science.test_symmetry(f, X * scale, group, 1e-2, local=local) == (set(group) in groups)
    for trivial in ([], [2], [0, 1, 2, 3]):
        assert science.test_symmetry(f, X, trivial)


@pytest.mark.parametrize("name", ["pairs", "nested", "sum", "none"])
def test_dependence_matches_pykan(name):
    theirs = pytest.importorskip("kan.hypothesis", reason="pykan is not installed", exc_type=ImportError)
    f, _ = FUNCTIONS[name]
    for group in ([0, 1], [1, 2], [1, 2, 3]):
        mine, expected = science.get_dependence(f, X, group), theirs.get_dependence(f, X, group)
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)  # it adds 1e-6 to lengths of gradients


def test_dependence_where_the_function_is_flat():
    f = lambda x: torch.relu(x[:, [0]] + x[:, [1]]) * x[:, [2]] + 0 * x[:, [3]]  # noqa: E731
    assert science.get_dependence(f, X, [0, 1]).max() < 1e-12 and science.test_symmetry(f, X, [0, 1])
    assert not science.get_dependence(lambda x: 0 * x[:, :1], X, [0, 1]).any()
    assert science.symmetry_score(lambda x: 0 * x[:, :1], X, [0, 1]) == 0.0


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("b + c", True), ("b * c", False), ("sin(b + c)", True), ("a", True), ("b**2 + c", False)],
)
def test_symmetry_variables(expression, expected, capsys):
    f = lambda x: x[:, [0]] * (x[:, [1]] + x[:, [2]])  # noqa: E731
    cosine = science.test_symmetry_var(f, X, "a b c", sympy.sympify(expression))
    assert cosine.shape == (200,) and ((cosine > 1 - 1e-9).all() == expected)
    assert ("\nsuggesting symmetry" in capsys.readouterr().out) == expected
    science.test_symmetry_var(f, X, ["a", "b"], sympy.Symbol("b"), verbose=False)
    assert not capsys.readouterr().out


def test_symmetry_variables_as_pykan(capsys):
    theirs = pytest.importorskip("kan.hypothesis", reason="pykan is not installed", exc_type=ImportError)
    f, names = FUNCTIONS["pairs"][0], sympy.symbols("a b c d")
    for expression in (names[0] * names[3], names[0] + names[1] ** 2 - names[2]):
        mine, expected = (m.test_symmetry_var(f, X, names, expression) for m in (science, theirs))
        torch.testing.assert_close(mine, expected)


def mixed(x):
    a, b, c, d, e, f, g = x.split(1, -1)
    return torch.exp(0.5 * (a + b + c)) * g + g**2 + (d * e * f).sin()


def full(inputs: int, levels: list) -> list:
    """With the first level, every variable alone in the order of the others, and the last, all together."""
    order = [variable for group in levels[-1] for variable in group] if levels else list(range(inputs))
    return [[[variable] for variable in order], *levels, [order]]


MOLECULES = {  # function, the levels that are not trivial
    "pairs": (FUNCTIONS["pairs"][0], 4, [[[0, 1], [2, 3]]]),
    "nested": (FUNCTIONS["nested"][0], 4, [[[0], [1, 2], [3]], [[0], [1, 2, 3]]]),
    "sum": (FUNCTIONS["sum"][0], 4, []),
    "none": (FUNCTIONS["none"][0], 4, []),
    "deep": (deep, 8, [[[0, 1], [2, 3], [4, 5], [6, 7]], [[0, 1, 2, 3], [4, 5, 6, 7]]]),
    "first two": (lambda x: (x[:, [0]] + x[:, [1]]) * x[:, [2]] + x[:, [2]] ** 2, 3, [[[0, 1], [2]]]),
    "apart": (lambda x: (x[:, [0]] + x[:, [2]]) * x[:, [1]] + x[:, [1]] ** 2, 3, [[[0, 2], [1]]]),
    "two": (lambda x: x[:, [0]] * x[:, [1]], 2, []),
    "one": (lambda x: x**2, 1, []),
    "sums in a sum": (mixed, 7, [[[0, 1, 2], [6], [3, 4, 5]], [[0, 1, 2, 6], [3, 4, 5]]]),
}
MOLECULES = {name: (f, n, full(n, levels)) for name, (f, n, levels) in MOLECULES.items()}


def points(inputs: int) -> torch.Tensor:
    return torch.randn(150, inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", MOLECULES)
def test_molecules(name):
    f, inputs, levels = MOLECULES[name]
    assert science.get_molecule(f, points(inputs)) == levels


@pytest.mark.parametrize("name", ["deep", "pairs", "sum", "two", "one"])  # of the others pykan misses some
def test_molecules_as_pykan(name):
    theirs = pytest.importorskip("kan.hypothesis", reason="pykan is not installed", exc_type=ImportError)
    f, inputs, levels = MOLECULES[name]
    assert theirs.get_molecule(f, points(inputs), verbose=False) == levels
    if inputs > 1:
        expected = theirs.get_tree_node(f, points(inputs), levels)
        assert science.get_tree_node(f, points(inputs), levels) == expected


def test_molecules_do_not_depend_on_the_order_of_variables():
    for order in itertools.permutations(range(4)):
        f = lambda x, order=order: FUNCTIONS["nested"][0](x[:, list(order)])  # noqa: E731
        found = {frozenset(group) for level in science.get_molecule(f, X) for group in level if 1 < len(group) < 4}
        assert found == {frozenset(order[i] for i in group) for group in ([1, 2], [1, 2, 3])}


def test_properties_of_tree_nodes():
    levels = MOLECULES["deep"][2]
    arities, properties = science.get_tree_node(deep, points(8), levels, skip_test=False)
    assert arities == [[2] * 4, [2] * 2, [2]] and properties == [["GS"] * 4, ["GS"] * 2, ["Add"]]
    f, inputs, levels = MOLECULES["nested"]
    arities, properties = science.get_tree_node(f, points(4), levels, skip_test=False)
    assert arities == [[1, 2, 1], [1, 2], [2]] and properties == [["Id", "GS", "Id"], ["Id", "GS"], [""]]
    f = lambda x: (x[:, [0]] + x[:, [1]]).exp() * x[:, [2]]  # noqa: E731
    assert science.get_tree_node(f, points(3), [[[0], [1], [2]], [[0, 1, 2]]], skip_test=False)[1] == [["Mul"]]
    assert science.get_tree_node(f, points(3), [[[0], [1], [2]], [[0, 1, 2]]])[1] == [[""]]


@pytest.fixture(scope="module", params=["KAN", "MLP"])
def trained(request):
    """A network that learned (a + b)^2 + c d e to a percent or so of its variation."""
    data = science.create_dataset(
        lambda x: (x[:, [0]] + x[:, [1]]) ** 2 + 2 * x[:, [2]] * x[:, [3]], 4, dtype=torch.float64
    )
    if request.param == "KAN":
        model = KAN([4, [2, 1], 1], grid=3, seed=1, dtype=torch.float64)
    else:
        model = MLP([4, 12, 12, 1], "tanh", dtype=torch.float64)
    results = model.fit(data, steps=40, progress=False)
    assert results["test_loss"][-1] < 0.03 * data["test_label"].std()
    return model, data["test_input"]


def test_a_trained_network(trained):
    model, x = trained
    assert science.get_molecule(model, x) == MOLECULES["pairs"][2]
    assert science.test_symmetry(model, x, [0, 1]) and science.test_symmetry(model, x, [2, 3])
    assert not science.test_symmetry(model, x, [0, 2])
    (first, _), *_ = science.suggest_auxiliary(model, x[:, :], "a b c d", sym_th=0.1)
    assert str(first) in ("a + b", "c*d")


def test_pictures(tmp_path):
    path = tmp_path / "tree.svg"
    figure = science.plot_tree(deep, points(8), in_var=[f"v{i}" for i in range(8)], path=path)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.texts] == [*(f"v{i}" for i in range(8)), "+"]
    assert sum(line.get_color() == "tab:blue" for line in axes.lines) == 14
    assert path.read_text().startswith("<?xml") and '<g id="+">' in path.read_text()
    figure = science.plot_tree(deep, points(8), style="box")
    assert [t.get_text() for t in figure.axes[0].texts[8:]] == ["GS"] * 6 + ["Add"]
    figure = science.plot_tree(deep, points(8), skip_sep_test=True, in_var=sympy.symbols("a:h"))
    assert [t.get_text() for t in figure.axes[0].texts][:2] == ["$a$", "$b$"] and len(figure.axes[0].patches) == 7
    inside = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    for line in figure.axes[0].lines:
        for values, (low, high) in zip(line.get_data(), inside, strict=True):
            assert low <= min(values) and max(values) <= high


def test_the_tree_of_a_model(trained):
    model, x = trained
    if isinstance(model, MLP):
        figure = model.tree()
        assert len(figure.axes[0].texts) >= 4


def test_augmented_inputs(monkeypatch):
    a, b = sympy.symbols("a b")
    x = X[:, :2].abs().requires_grad_()
    expressions = [a + b, a * b / 3, sympy.exp(-(a**2)) * sympy.sqrt(b), sympy.Integer(2), a, sympy.atan2(a, b)]
    found = science.augment_input([a, b], expressions, x)
    p, q = x[:, [0]], x[:, [1]]
    parts = [p + q, p * q / 3, torch.exp(-(p**2)) * q.sqrt(), torch.full_like(p, 2.0), p, torch.atan2(p, q), x]
    torch.testing.assert_close(found, torch.cat(parts, 1), rtol=1e-14, atol=0)
    assert found.requires_grad and science.augment_input("a, b", expressions, x.float()[None]).shape == (1, 200, 8)
    theirs = pytest.importorskip("kan.utils", reason="pykan is not installed", exc_type=ImportError)
    expected = theirs.augment_input([a, b], [a + b, a * b], X[:, :2])
    torch.testing.assert_close(science.augment_input([a, b], [a + b, a * b], X[:, :2]), expected)


def test_augmented_datasets():
    data = science.create_dataset(lambda x: x[:, [0]], 2, train_num=5, test_num=3)
    before = {key: value.clone() for key, value in data.items()}
    found = science.augment_input("a b", [sympy.sympify("a * b")], data)
    assert found["train_input"].shape == (5, 3) and found["test_input"].shape == (3, 3)
    assert all(torch.equal(data[key], before[key]) for key in data) and found["train_label"] is data["train_label"]


def test_suggestions():
    f = lambda x: torch.sin(x[:, [0]] * x[:, [1]]) * torch.exp(x[:, [2]] / x[:, [3]].abs().add(1))  # noqa: E731
    (product, score), *others = science.suggest_auxiliary(f, X, "a b c d")
    assert str(product) == "a*b" and score < 1e-6 and not others
    g = lambda x: (x[:, [0]] ** 2 + x[:, [3]] ** 2).sqrt() + x[:, [1]] * x[:, [2]] ** 3  # noqa: E731
    assert [str(e) for e, _ in science.suggest_auxiliary(g, X, "a b c d")] == ["a**2 + d**2"]
    own = sympy.sympify("b * c**3")
    assert science.suggest_auxiliary(g, X, "a b c d", candidates=[own, sympy.sympify("b + c")])[0][0] == own


def similar(f, names, expression):
    return science.test_symmetry_var(f, X, names, sympy.sympify(expression))


def suggested(f, expression):
    return science.suggest_auxiliary(f, X, "a b", [sympy.sympify(expression)])


def augmented(names, x, *expressions):
    return science.augment_input(names, [sympy.sympify(e) for e in expressions], x)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (IndexError, r"group\[1\]=4: expected an integer from 0 to 3", lambda f: science.test_symmetry(f, X, [0, 4])),
        (ValueError, "group=.*: expected different indices", lambda f: science.get_dependence(f, X, [0, 0])),
        (ValueError, "dependence_th=-1", lambda f: science.test_symmetry(f, X, [0, 1], -1)),
        (ValueError, "x has shape .*at least 2 rows", lambda f: science.get_molecule(f, X[:1])),
        (ValueError, "sym_th=inf: expected a finite number", lambda f: science.get_molecule(f, X, float("inf"))),
        (ValueError, "func has 4 outputs", lambda f: science.get_molecule(lambda x: x, X)),
        (ValueError, "symmetry_var=d: expected a SymPy expression in a, b", lambda f: similar(f, "a b", "d")),
        (ValueError, "d is none of the variables: expected expressions in a, b", lambda f: similar(f, "a b", "a + d")),
        (ValueError, "input_vars=.*: expected different SymPy symbols", lambda f: similar(f, "a a", "a")),
        (ValueError, "orig_vars has 5 names: expected at most 4", lambda f: augmented("a b c d e", X)),
        (ValueError, r"gamma\(a\) has the function gamma: expected one", lambda f: augmented("a", X, "gamma(a)")),
        (ValueError, r"aux_vars: log\(a\) is not finite at \d+ rows", lambda f: augmented("a", X, "log(a)")),
        (ValueError, "x has the keys 'inputs': expected train_input", lambda f: augmented("a", {"inputs": X})),
        (ValueError, "candidates: 2\\*a is of 1 variables", lambda f: suggested(f, "2 * a")),
        (ValueError, "style='bush': expected one of 'tree', 'box'", lambda f: science.plot_tree(f, X, style="bush")),
        (ValueError, "in_var=.*: expected a list of 4 names", lambda f: science.plot_tree(f, X, ["a"])),
        (ValueError, "path='tree.doc'", lambda f: science.plot_tree(f, X, path="tree.doc")),
        (ValueError, "x=None: expected data", lambda f: MLP([2, 1]).tree()),
    ],
)  # fmt: skip
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call(FUNCTIONS["pairs"][0])
