"""Separability of functions of known structure and of a trained network; pykan's answers where pykan is right."""

import pytest
import torch

from fastkan import KAN, science

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(300, 4, generator=GENERATOR, dtype=torch.float64)
FUNCTIONS = {  # name: function of x [N, 4], mode, groups
    "sum": (lambda x: x[:, [0]] ** 2 + torch.exp(x[:, [1]] + x[:, [2]]) + x[:, [3]].sin(), "add", [[0], [1, 2], [3]]),
    "product": (lambda x: x[:, [0]] ** 2 * (x[:, [1]] + x[:, [2]]) * torch.cosh(x[:, [3]]), "mul", [[0], [1, 2], [3]]),
    "linear": (lambda x: x @ x.new_tensor([[1.0], [2.0], [3.0], [4.0]]) + 5, "add", [[0], [1], [2], [3]]),
    "chain": (lambda x: x[:, [0]] * x[:, [2]] + x[:, [2]] * x[:, [1]] + x[:, [3]] ** 3, "add", [[0, 1, 2], [3]]),
    "shifted": (lambda x: x[:, [0]] * torch.exp(x[:, [3]] * x[:, [1]]) * x[:, [2]] - 3, "mul", [[0], [1, 3], [2]]),
    "units": (lambda x: 1e-9 * (x[:, [0]] * x[:, [3]] + x[:, [1]] * x[:, [2]]), "add", [[0, 3], [1, 2]]),
    "none": (lambda x: torch.exp(x[:, [0]] * x[:, [1]] * x[:, [2]].tanh() * x[:, [3]].sin()), "add", [[0, 1, 2, 3]]),
    "idle": (lambda x: x[:, [0]] * x[:, [2]], "mul", [[0], [1], [2], [3]]),
}  # fmt: skip


@pytest.fixture(params=FUNCTIONS)
def known(request):
    f, mode, groups = FUNCTIONS[request.param]
    return f, mode, groups, 3.0 if request.param == "shifted" else 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_groups_are_found(known, dtype):
    f, mode, groups, bias = known
    found = science.detect_separability(f, X.to(dtype), mode, bias=bias)
    assert found["groups"] == groups and found["n_groups"] == len(groups)
    assert all(i in found["groups"][label] for i, label in enumerate(found["labels"]))
    assert science.test_separability(f, X.to(dtype), groups, mode, bias=bias)


def test_finer_groups_are_refused(known):
    f, mode, groups, bias = known
    for group in groups:
        for i in group if len(group) > 1 else ():
            finer = [[i], [j for j in group if j != i]]
            assert not science.test_separability(f, X, finer, mode, bias=bias)
            assert not science.test_separability(f, X, [[i]], mode, bias=bias)  # against those in no group


def test_scores_have_no_units(known):
    f, mode, groups, bias = known
    scale = torch.tensor([1e3, 1e-3, 1.0, 7.0], dtype=torch.float64)
    before = science.separability_scores(f, X, mode, bias)
    after = science.separability_scores(lambda x: 1e5 * f(x / scale), X * scale, mode, 1e5 * bias)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-7)


def test_the_score_of_a_sum_is_the_share_of_the_interaction():
    """Of a + b + c a b with independent a and b of variance 1: c^2 / (2 + c^2) of the variance, for any c."""
    x = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for c in (0.01, 0.3, 5.0):
        score = science.separability_scores(lambda x, c=c: x.sum(1, keepdim=True) + c * x.prod(1, keepdim=True), x)
        assert score[0, 1].item() == pytest.approx(c / (2 + c * c) ** 0.5, rel=0.1)  # of 4096 rows
        assert score[0, 0].item() == pytest.approx(((1 + c * c) / (2 + c * c)) ** 0.5, rel=0.1)


def test_the_score_of_a_product_that_varies_little_is_that_of_the_sum():
    f = lambda x: 1000 + x[:, [0]] + x[:, [1]] * x[:, [2]]  # noqa: E731
    torch.testing.assert_close(
        science.separability_scores(f, X, "mul")[:3, :3], science.separability_scores(f, X, "add")[:3, :3],
        rtol=0.15, atol=5e-3,
    )  # fmt: skip
    assert not science.test_separability(f, X, [[1], [2]], "mul")


@pytest.mark.parametrize("mode", ["add", "mul"])
def test_local_scores_match_pykan(known, mode, capsys):
    theirs = pytest.importorskip("kan.hypothesis", reason="pykan is not installed", exc_type=ImportError)
    f, _, groups, bias = known
    mine = science.separability_scores(f, X, mode, bias, local=True)
    try:
        hessian = theirs.detect_separability(f, X, mode, bias=bias, n_clusters=[1, 1])["hessian"]
    except KeyError:  # all scores are 0, of which it knows no share
        assert not mine.any()
        return
    unit = f(X).std() if mode == "add" else 1.0
    torch.testing.assert_close(mine * unit, hessian, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["sum", "product", "chain"])
def test_results_match_pykan(name):
    theirs = pytest.importorskip("kan.hypothesis", reason="pykan is not installed", exc_type=ImportError)
    f, mode, groups = FUNCTIONS[name]
    found = theirs.detect_separability(f, X, mode)
    assert sorted(sorted(map(int, group)) for group in found["groups"]) == groups
    for candidate in (groups, [[0], [1], [2], [3]], [[0, 1]], [[3]], [[0, 1, 2]]):
        expected = bool(theirs.test_separability(f, X, candidate, mode))
        assert science.test_separability(f, X, candidate, mode) == expected
        assert science.test_separability(f, X, candidate, mode, local=True) == expected


GENERAL = {  # function, groups that it is a function of a sum of, groups that it is not
    "nested": (lambda x: x[:, [0]] ** 2 * (x[:, [1]] ** 2 + x[:, [2]] ** 2) ** 2, [[0], [1, 2]], [[1], [0, 2]]),
    "root": (lambda x: torch.sqrt(1 + x[:, [0]] ** 2 + torch.exp(x[:, [1]] * x[:, [2]])), [[0], [1, 2]], [[0, 1], [2]]),
    "three": (lambda x: torch.tanh(x[:, [0]] + x[:, [1]] ** 3 + x[:, [2]]), [[0], [1], [2]], None),
    "within": (lambda x: torch.exp(x[:, [0]] * x[:, [1]]) + x[:, [2]], [[0], [1]], [[0], [1, 2]]),
}


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("local", [False, True])
def test_general_separability(name, local):
    f, yes, no = GENERAL[name]
    x = X[:, :3]
    assert science.test_general_separability(f, x, yes, local=local)
    assert science.general_separability_score(f, x, yes, local=local) < 1e-6
    assert no is None or not science.test_general_separability(f, x, no, local=local)
    theirs = pytest.importorskip("kan.hypothesis", reason="pykan is not installed", exc_type=ImportError)
    if name != "three":  # where slopes round to 0 pykan says no
        assert theirs.test_general_separability(f, x, yes) and not theirs.test_general_separability(f, x, no)


def test_general_separability_where_slopes_are_0():
    """pykan divides by them, and says no."""
    f = lambda x: torch.relu(x[:, [0]]) + x[:, [1]] ** 2 + x[:, [2]]  # noqa: E731
    assert science.test_general_separability(f, X[:, :3], [[0], [1]])
    assert science.test_general_separability(f, X[:, :3], [[0], [1], [2]])


@pytest.fixture(scope="module")
def trained():
    """A network that learned x^2 + exp(y + z) to within 1e-3 or so of its variation."""
    data = science.create_dataset(lambda x: x[:, [0]] ** 2 + torch.exp(x[:, [1]] + x[:, [2]]), 3, dtype=torch.float64)
    model = KAN([3, 3, 1], grid=5, seed=0, dtype=torch.float64)
    model.fit(data, steps=40, progress=False)
    return model, data


def test_a_trained_network(trained):
    model, data = trained
    x, y = data["test_input"], data["test_label"]
    found = science.detect_separability(model, x)
    assert found["groups"] == [[0], [1, 2]] and found["hessian"][0, 1:].max() < 3e-3 < 0.3 < found["hessian"][1, 2]
    assert science.detect_separability(model, x, "mul")["n_groups"] == 1
    assert science.test_general_separability(model, x, [[0], [1, 2]])
    assert not science.test_separability(model, x, [[1], [2]], y=y)


def test_labels_raise_the_threshold():
    """To the relative error, which a separable function with errors can't exceed by more than chance."""
    noise = 0.2 * torch.randn(300, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    truth = X[:, [0]] + X[:, [1]]
    wrong = lambda x: x[:, [0]] + x[:, [1]] + 0.1 * x[:, [0]] * x[:, [1]]  # noqa: E731
    assert not science.test_separability(wrong, X, [[0], [1]])
    assert science.test_separability(wrong, X, [[0], [1]], y=truth)
    found = science.detect_separability(wrong, X, y=truth + noise)
    error = (wrong(X) - truth - noise).square().mean().sqrt() / wrong(X).std()
    assert error < found["score_th"] < 1.2 * error and found["groups"] == [[0], [1], [2], [3]]


def test_correlated_inputs():
    """On a curve f and f + a (a - b) are the same data; local scores tell what the function is near it."""
    a = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
    x = torch.cat([a, a], 1)
    f = lambda x: x[:, [0]] ** 3 + x[:, [1]]  # noqa: E731
    assert science.test_separability(f, x, [[0], [1]], local=True)
    assert science.test_separability(f, x, [[0], [1]])


def test_number_of_groups_can_be_given(capsys):
    f, mode, groups = FUNCTIONS["linear"]
    for bounds, count in ((2, 2), ([1, 3], 3), ((4, 4), 4), (1, 1)):
        assert science.detect_separability(f, X, n_clusters=bounds)["n_groups"] == count
    assert science.detect_separability(FUNCTIONS["chain"][0], X, n_clusters=[3, 4])["n_groups"] == 1
    assert not capsys.readouterr().out
    science.detect_separability(FUNCTIONS["chain"][0], X, verbose=True)
    assert "2 groups [[0, 1, 2], [3]]: largest score between them" in capsys.readouterr().out


def test_the_residual_can_refuse():
    f = lambda x: x[:, [0]] + x[:, [1]] + 0.005 * x[:, [0]] * x[:, [1]]  # noqa: E731
    assert science.detect_separability(f, X[:, :2])["n_groups"] == 2
    assert science.detect_separability(f, X[:, :2], res_th=1e-4)["n_groups"] == 1


def test_large_data_are_thinned():
    rows = []
    science.separability_scores(lambda x: rows.append(len(x)) or x[:, :1], torch.randn(100_000, 2))
    assert max(rows) == 4096


def test_a_logarithm_of_0():
    with pytest.raises(ValueError, match="second derivatives are finite at 0 of 300 rows: expected most"):
        science.separability_scores(lambda x: 0 * x[:, :1], X, "mul", local=True)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "mode='sum': expected one of 'add', 'mul'", lambda f: science.separability_scores(f, X, "sum")),
        (ValueError, r"x has shape \[4\]: expected \[N, n\]", lambda f: science.separability_scores(f, X[0])),
        (ValueError, r"x has shape \[1, 4\]: .*at least 2 rows", lambda f: science.separability_scores(f, X[:1])),
        (TypeError, "x is a list", lambda f: science.separability_scores(f, [1.0])),
        (ValueError, r"model\(x\) has shape \[300, 4\]: ", lambda f: science.separability_scores(lambda x: x, X)),
        (ValueError, "is not finite at", lambda f: science.separability_scores(lambda x: x[:, :1].log(), X)),
        (ValueError, r"groups=\[\[0\], \[0, 1\]\]: ", lambda f: science.test_separability(f, X, [[0], [0, 1]])),
        (ValueError, r"groups=\[\[0\], \[\]\]: expected groups", lambda f: science.test_separability(f, X, [[0], []])),
        (IndexError, r"groups\[1\]\[0\]=4: expected an integer", lambda f: science.test_separability(f, X, [[0], [4]])),
        (ValueError, "groups=.*: expected groups", lambda f: science.test_general_separability(f, X, [[0], [0]])),
        (ValueError, "threshold=-1: expected", lambda f: science.test_separability(f, X, [[0]], threshold=-1)),
        (ValueError, "score_th=nan", lambda f: science.detect_separability(f, X, score_th=float("nan"))),
        (ValueError, r"y has shape \[300\]: expected", lambda f: science.detect_separability(f, X, y=X[:, 0])),
        (ValueError, "n_clusters=5: expected at most 4", lambda f: science.detect_separability(f, X, n_clusters=5)),
        (ValueError, r"n_clusters=\[3, 2\]: expected", lambda f: science.detect_separability(f, X, n_clusters=[3, 2])),
        (ValueError, r"n_clusters=\[1\]: expected", lambda f: science.detect_separability(f, X, n_clusters=[1])),
        (TypeError, "n_clusters=2.5", lambda f: science.detect_separability(f, X, n_clusters=2.5)),
    ],
)  # fmt: skip
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call(FUNCTIONS["sum"][0])
