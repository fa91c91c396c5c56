"""KANRegressor and KANClassifier: scikit-learn's own checks, frames, weights, and what a fit says."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", minversion="1.6")
pd = pytest.importorskip("pandas")

from sklearn.base import clone  # noqa: E402  only where it is installed
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from fastkan import KAN  # noqa: E402
from fastkan.sklearn import KANClassifier, KANRegressor  # noqa: E402
from fastkan.tabular import average  # noqa: E402

QUICK = {"members": 2, "epochs": 20, "random_state": 0}


def curved(rows: int = 120):
    """A sum of a wave and a line, which no linear model represents."""
    x = np.random.default_rng(0).uniform(-1, 1, (rows, 2))
    return x, 100 + 10 * (np.sin(3 * x[:, 0]) + x[:, 1] ** 2)


def table(rows: int = 160):
    """A frame of numbers, texts, categories, truth values and missing ones, and a target that depends on them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "size": rng.normal(5, 2, rows), "town": rng.choice(["Bonn", "Kiel", "Ulm"], rows),
        "kind": pd.Categorical(rng.choice([1, 2], rows)), "new": rng.random(rows) < 0.5, "constant": 1.0,
    })  # fmt: skip
    y = frame["size"] + 3.0 * (frame["town"] == "Ulm") + 2.0 * (frame["kind"] == 2) + frame["new"]
    frame.loc[::9, "size"], frame.loc[::11, "town"] = np.nan, None
    return frame, y.rename("price")


@pytest.mark.parametrize(
    "estimator",
    [
        KANRegressor(members=1, epochs=10),
        KANClassifier(members=1, epochs=10),
        pytest.param(KANRegressor(), marks=pytest.mark.long),
        pytest.param(KANClassifier(), marks=pytest.mark.long),
    ],
    ids=["regressor", "classifier", "regressor, defaults", "classifier, defaults"],
)
def test_scikit_learns_checks_pass(estimator):
    results = check_estimator(estimator, on_skip=None)
    assert {r["check_name"] for r in results if r["status"] != "passed"} <= {"check_array_api_input"}


def test_a_network_beats_the_linear_model_where_it_can_and_is_it_otherwise():
    x, y = curved()
    model = KANRegressor(random_state=0).fit(x, y)
    assert model.score(x, y) > 0.95 > 0.8 > Ridge().fit(x, y).score(x, y)
    assert model.n_epochs_ > 0 and len(model.network_.width) == 3
    straight = KANRegressor(random_state=0).fit(x, x[:, 0] - 2 * x[:, 1])
    assert straight.n_epochs_ == 0 and len(straight.network_.width) == 2
    steps = np.diff(straight.predict(np.linspace([-3, 0], [3, 0], 9)))
    assert np.allclose(steps, steps[0])  # also beyond the range of the training


def test_the_average_is_one_network():
    networks = [KAN([3, 4, 2], grid=3, base_fun="identity", seed=s, dtype=torch.float64) for s in range(3)]
    x = 3 * torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([network(x) for network in networks]).mean(0)
    assert torch.allclose(average.average(networks)(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_network_starts_at_the_linear_model(outputs):
    x = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(-2.5, 2.5)
    line = torch.arange(3.0 * outputs, dtype=torch.float64).view(3, outputs)
    options = KANRegressor()._options(x)
    network = average.start(line, options, 0)
    with torch.no_grad():
        network.act_fun[1].linear.coef[outputs:], network.act_fun[1].linear.base_weight[outputs:] = 0.0, 0.0
    assert torch.allclose(network(x), x @ line[:-1] + line[-1], rtol=0, atol=1e-12)


def test_frames_keep_their_names_and_take_texts_and_missing_values():
    frame, y = table()
    model = KANRegressor(random_state=0, epochs=60).fit(frame, y)
    assert list(model.feature_names_in_) == list(frame.columns) and model.preparation_.target.name == "price"
    assert {"size", "new"} < set(model.preparation_.inputs) and len(model.preparation_.inputs) == 5
    assert model.score(frame, y) > 0.8
    importances = model.feature_importances_
    assert importances.shape == (5,) and importances.sum() == pytest.approx(1) and importances[4] == 0
    assert importances[0] > importances[3] > 0
    other = frame.assign(town="elsewhere", size=frame["size"].median())
    assert np.isfinite(model.predict(other)).all()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"town": "city"}))


def test_columns_are_those_of_fastkan_fit(tmp_path):
    """The same rows in a file and in a frame give the same inputs."""
    from fastkan.tabular import prepare, row_sample
    from fastkan.tabular.delimited import Delimited

    frame, y = table()
    frame = frame.drop(columns=["kind", "new"])  # in a file they are numbers and texts
    frame.assign(price=y).to_csv(tmp_path / "t.csv", index=False)
    source = Delimited(tmp_path / "t.csv")
    data = prepare.prepare(row_sample.read(source, 1000, 0), "price", "regression", [], 0.2, 0, True)
    seen = torch.cat([data.train, data.valid]).numpy()
    model = KANRegressor(early_stopping=False, epochs=1).fit(frame.iloc[seen], y.iloc[seen])
    expected, found = data.preparation.columns, model.preparation_.columns
    assert [c.name for c in expected] == [c.name for c in found] and [c.levels for c in expected] == [
        c.levels for c in found
    ]
    for a, b in zip(expected, found, strict=True):
        assert (a.mean, a.std, a.fill) == pytest.approx((b.mean, b.std, b.fill), rel=1e-12)


def test_dates_are_days_and_cycles():
    days = pd.Series(pd.date_range("2020", periods=300, freq="3D"))
    model = KANRegressor(random_state=0).fit(pd.DataFrame({"day": days}), np.arange(300.0))
    (column,) = model.preparation_.columns
    assert column.cycles == ["year", "week"] and column.low == 18262.0
    texts = pd.DataFrame({"day": days.astype(str)})
    np.testing.assert_array_equal(model.predict(texts), model.predict(pd.DataFrame({"day": days})))


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (pd.Series([np.inf] * 160), ValueError, "the column 'size' has infinite numbers: expected finite"),
        (pd.timedelta_range("1D", periods=160), TypeError, "the column 'size' is of timedelta64.*: expected"),
    ],
)
def test_a_column_that_is_neither_number_nor_text_is_an_error(column, error, message):
    frame, y = table()
    with pytest.raises(error, match=message):
        KANRegressor().fit(frame.assign(size=column), y)


def test_several_outputs():
    x, y = curved()
    both = np.stack([y, -x[:, 1]], 1)
    model = KANRegressor(random_state=0, epochs=50).fit(x, both)
    assert model.predict(x).shape == (120, 2) and model.score(x, both) > 0.9
    assert KANRegressor(**QUICK).fit(x, y[:, None]).predict(x).shape == (120, 1)


@pytest.mark.parametrize("names", [["no", "yes"], [3, 7, 9]])
def test_classes_keep_their_names(names):
    x, y = curved(150)
    label = np.array(names)[np.searchsorted(np.quantile(y, np.linspace(0, 1, len(names) + 1)[1:-1]), y)]
    model = KANClassifier(random_state=0, epochs=60).fit(x, label)
    assert model.classes_.tolist() == names and model.predict(x).dtype == label.dtype and model.score(x, label) > 0.7
    proba = model.predict_proba(x)
    assert np.allclose(proba.sum(1), 1) and (model.classes_[proba.argmax(1)] == model.predict(x)).all()


def test_weights_of_classes():
    """More weight for a class moves predictions to it; "balanced" is the weights that say so."""
    x, y = curved()
    label = y > np.quantile(y, 0.8)
    share = {w: KANClassifier(class_weight=w and {False: 1, True: w}, **QUICK).fit(x, label).predict(x).mean()
             for w in (None, 50.0)}  # fmt: skip
    assert share[50.0] > share[None]
    by_class = {False: 120 / (2 * (~label).sum()), True: 120 / (2 * label.sum())}
    found = [KANClassifier(class_weight=w, **QUICK).fit(x, label).predict_proba(x) for w in ("balanced", by_class)]
    assert np.allclose(*found)


def test_partial_fit_goes_on():
    x, y = curved()
    model = KANRegressor(random_state=0)
    scores = [model.partial_fit(x, y).score(x, y) for _ in range(100)]
    assert scores[-1] > max(0.9, scores[0]) and model.n_epochs_ == 100
    again = pickle.loads(pickle.dumps(model)).partial_fit(x, y)
    assert np.array_equal(again.predict(x), model.partial_fit(x, y).predict(x))  # the optimizer's state is kept
    classifier = KANClassifier(random_state=0).partial_fit(x[:50], y[:50] > 105, classes=[False, True])
    assert classifier.partial_fit(x, y > 105).classes_.tolist() == [False, True]
    with pytest.raises(ValueError, match="classes=None: expected all classes in the first call"):
        KANClassifier().partial_fit(x, y > 105)
    with pytest.raises(ValueError, match="y has a class that is not in"):
        classifier.partial_fit(x, np.arange(120))


def test_pipelines_searches_copies_and_files():
    x, y = curved()
    pipeline = make_pipeline(StandardScaler(), KANRegressor(**QUICK))
    assert len(cross_val_score(pipeline, x, y, cv=2)) == 2
    search = GridSearchCV(KANRegressor(**QUICK), {"hidden": np.array([1, 4])}, cv=2).fit(x, y)
    model = search.best_estimator_
    assert clone(model).get_params() == model.get_params() and not hasattr(clone(model), "network_")
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(x), model.predict(x))
    assert np.array_equal(clone(model).fit(x, y).predict(x), model.predict(x))


def test_early_stopping_and_validation_share():
    x, y = curved()
    whole = KANRegressor(early_stopping=False, epochs=3, random_state=0).fit(x, y)
    assert whole.n_epochs_ == 3
    one = KANRegressor(members=1, validation_fraction=0.3, patience=1, learning_rate=1.0, random_state=0).fit(x, y)
    assert one.n_epochs_ < 200


def test_formula():
    pytest.importorskip("sympy")
    frame = pd.DataFrame(np.random.default_rng(0).uniform(1, 5, (80, 2)), columns=["height", "width"])
    model = KANRegressor(**QUICK).fit(frame, 3 * frame["height"] + 2)
    assert "formula_" not in dir(model)  # a notebook that shows the model does not search
    assert "height" in model.formula_ and "width" not in model.formula_ and model.formula_score_ > 0.999
    assert "formula_" in dir(model)


def test_plot_has_the_columns_names():
    pytest.importorskip("matplotlib")
    frame, y = table()
    figure = KANRegressor(members=1, hidden=1, epochs=1, random_state=0).fit(frame, y).plot()
    texts = {text.get_text() for axis in figure.axes for text in axis.texts} | {t.get_text() for t in figure.texts}
    assert {"size", "price"} <= texts


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hidden": 0}, ValueError, "hidden=0: expected an integer, at least 1"),
        ({"members": "many"}, TypeError, "members='many': expected an integer"),
        ({"validation_fraction": 2.0}, ValueError, "validation_fraction=2.0: expected a finite number"),
        ({"class_weight": "equal"}, ValueError, "class_weight='equal': expected 'balanced'"),
    ],
)
def test_bad_parameters(options, error, message):
    x, y = curved(20)
    with pytest.raises(error, match=message):
        KANClassifier(**options).fit(x, y > 105)


def test_before_fit_and_sparse():
    with pytest.raises(NotFittedError):
        KANRegressor().feature_importances_  # noqa: B018
    from scipy.sparse import csr_matrix

    with pytest.raises(TypeError, match="Sparse data was passed"):
        KANRegressor().fit(csr_matrix(np.eye(3)), np.arange(3))


def test_fastkan_does_not_import_scikit_learn():
    code = "import sys, fastkan; fastkan.KAN; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_labels_in_messages_are_written_as_python_does():
    x = np.arange(20.0)[:, None]
    with pytest.raises(ValueError, match="y has 1 class, 0: expected at least two classes"):
        KANClassifier().fit(x, np.zeros(20, int))
    with pytest.raises(ValueError, match=r"y has a class that is not in \[0, 1\]"):
        KANClassifier().partial_fit(x, np.full(20, 2), classes=[0, 1])
