"""scikit-learn's estimators of Kolmogorov-Arnold networks: KANRegressor, KANClassifier. Needs the extra [sklearn]."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,  # pyright: ignore[reportPrivateUsage]  what scikit-learn's estimators use
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import Tensor

from .arguments import integer, number
from .network import KAN
from .network.train.predict import chosen, probabilities
from .spec import MAX_DEGREE
from .tabular import average, frame, report, search
from .tabular import formula as formulas
from .tabular.columns import Column, Preparation, by_level, of_field, of_numbers
from .tabular.prepare import Prepared
from .tabular.row_sample import Field

__all__ = ["KANClassifier", "KANRegressor"]

FEW = 5000  # rows up to which several networks are averaged by default
PARTS = 5  # of the rows, and as many networks


class _Estimator(BaseEstimator):
    """What both estimators share: columns, weights, training, importances, formulas, pictures."""

    hidden: int
    grid: int
    degree: int
    members: int | str
    early_stopping: bool
    validation_fraction: float
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    random_state: Any
    network_: KAN
    preparation_: Preparation
    _classes: bool

    # Fitting

    def fit(self, X, y, sample_weight=None):
        """Fit to X [N, inputs], an array or a DataFrame, and y, [N] or [N, outputs].

        Columns of a DataFrame may have texts or categories, of which the common ones become inputs of 0 or 1, and
        missing values, which become the median or the most common text. Arrays may have NaN for missing values.
        sample_weight [N]: a weight of 2 is a row that is there twice, of 0 one that is not.
        """
        options = self._options(X)
        fields, values, y, weight = self._data(X, y, sample_weight, reset=True)
        fields, values, y, weight = _merged(fields, values, y, weight)
        x, label = self._prepare(fields, values, y, weight)
        weight = self._class_weighted(weight, label)
        self._optimizer = None
        self.network_, self.n_epochs_ = average.fit(x, label, weight, self._outputs, self._classes, options)
        self._keep(x, label, weight, options.seed)
        return self

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """One pass of AdamW over the rows, from the present network.

        The first call, of an estimator that is not fitted, makes the network, and takes from these rows what columns
        have: means, deviations, levels of texts. classes: for a classifier all classes, in the first call.
        """
        options = self._options(X)
        first = not hasattr(self, "network_")
        if first and self._classes and classes is None:
            raise ValueError("classes=None: expected all classes in the first call of partial_fit")
        fields, values, y, weight = self._data(X, y, sample_weight, reset=first, classes=classes)
        if first:
            x, label = self._prepare(fields, values, y, weight)
            line = torch.zeros(x.shape[1] + 1, self._outputs, dtype=torch.float64)
            self.network_, self.n_epochs_ = average.start(line, options, options.seed), 0.0
            self._optimizer = None
        else:
            x, label = self._features(values, fields), self._label(y)
        if self._optimizer is None:
            self._optimizer = average.optimizer(self.network_.parameters(), options)
        weight = self._class_weighted(weight, label)
        seed = options.seed % (1 << 30) + round(self.n_epochs_)  # another order of the rows in every call
        options = options._replace(seed=seed)
        average.one_pass(self.network_, self._optimizer, x, label, weight, self._classes, options)
        self.n_epochs_ += 1
        self._keep(x, label, weight, options.seed)
        return self

    def _options(self, X) -> average.Options:
        """The checked parameters."""
        rows = X.shape[0] if hasattr(X, "shape") and X.shape else len(X) if hasattr(X, "__len__") else 0
        members = (PARTS if rows <= FEW else 1) if self.members == "auto" else self.members
        return average.Options(
            hidden=integer("hidden", self.hidden, 1), grid=integer("grid", self.grid, 1),
            degree=integer("degree", self.degree, 0, MAX_DEGREE),
            parts=integer("members", members, 1) if self.early_stopping else 0,
            share=number("validation_fraction", self.validation_fraction, 0.0, 1.0),
            epochs=integer("epochs", self.epochs, 1), patience=integer("patience", self.patience, 1),
            batch_size=integer("batch_size", self.batch_size, 1),
            lr=number("learning_rate", self.learning_rate, 0.0),
            weight_decay=number("weight_decay", self.weight_decay, 0.0),
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )  # fmt: skip

    def _data(self, X, y, sample_weight, reset: bool, classes=None):
        """Fields, values [N, columns], the target and weights of the rows whose weight is not 0."""
        fields, values = self._table(X, reset)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = self._target(y, reset, classes)
        check_consistent_length(values, y)
        weight = np.ones(len(y))
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, values.numpy(), dtype=np.float64)
            if (weight < 0).any() or not weight.any():
                raise ValueError("sample_weight: expected weights of at least 0, and one that is not zero")
        kept = weight > 0
        return fields, values[torch.from_numpy(kept)], y[kept], torch.from_numpy(weight[kept])

    def _table(self, X, reset: bool) -> tuple[list[Field], Tensor]:
        """The columns of X and their values; checks names and number of columns."""
        if not frame.is_frame(X):
            checked: Any = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=reset)
            names = [f"x{n + 1}" for n in range(checked.shape[1])]
            return [Field(name, False) for name in names], torch.from_numpy(np.array(checked))
        if not len(X):
            raise ValueError("X: Found array with 0 sample(s): expected at least one row")
        validate_data(self, X, skip_check_array=True, reset=reset)
        fields, values = frame.read(X, None if reset else self._columns)
        for field in fields:
            if field.wrong:
                message = f"X: {field.name} has {field.wrong} texts among numbers, such as {field.first_wrong!r}"
                warnings.warn(f"{message}: treated as missing", UserWarning, stacklevel=4)
        return fields, values

    def _prepare(self, fields: list[Field], values: Tensor, y: np.ndarray, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Choose and scale the columns and the target; x and the label for the network."""
        self._columns: list[Column | None] = [of_field(f, values[:, n], weight) for n, f in enumerate(fields)]
        if not any(self._columns):  # nothing tells rows apart: the prediction is a constant
            self._columns[0] = Column(fields[0].name, fill=0.0)
            values = torch.zeros_like(values)
        self._set_target(y, weight)
        used = [column for column in self._columns if column is not None]
        self.preparation_ = Preparation(used, self._targets[0], self._names(), True)
        return self._features(values, fields), self._label(y)

    def _features(self, values: Tensor, fields: list[Field]) -> Tensor:
        """The network's inputs [N, inputs]."""
        of = zip(self._columns, fields, values.T, strict=True)
        return torch.cat([c.features(by_level(f, v, c)) for c, f, v in of if c is not None], 1)

    def _keep(self, x: Tensor, label: Tensor, weight: Tensor, seed: int) -> None:
        """Keep a sample of the rows, in proportion to their weights, for importances, formulas and pictures."""
        count = min(len(x), search.SEARCH_ROWS)
        rows = torch.arange(len(x))
        if count < len(x) or not bool((weight == weight[0]).all()):
            generator = torch.Generator().manual_seed(seed)
            count = min(search.SEARCH_ROWS, max(count, math.ceil(float(weight.sum()))))
            rows = torch.multinomial(weight / weight.sum(), count, replacement=True, generator=generator)
        self._rows, self._formula = (x[rows], label[rows], seed), None

    # Predicting

    @torch.no_grad()
    def _outputs_of(self, X) -> Tensor:
        check_is_fitted(self, "network_")
        fields, values = self._table(X, reset=False)
        return self.network_(self._features(values, fields))

    # What the network says

    @property
    @torch.no_grad()
    def feature_importances_(self) -> np.ndarray:
        """How much the outputs depend on every column: their mean square change when the column's values are permuted
        among rows of the training, as shares of the sum; all 0 for a constant network."""
        check_is_fitted(self, "network_")
        x, _, seed = self._rows
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        y, found, at = self.network_(x), [], 0
        for column in self._columns:
            count = len(column.inputs) if column is not None else 0
            permuted = x.clone()
            permuted[:, at : at + count] = x[order, at : at + count]
            found.append(float((self.network_(permuted) - y).square().mean()) if count else 0.0)
            at += count
        return np.array(found) / (sum(found) or 1.0)

    @property
    def formula_(self) -> str | list[str] | None:
        """A formula of the columns, in their units; a list for several outputs, None if no function fits.

        The search of `fastkan fit`, on the rows of the training, up to 2500 of them. It runs on the first access, which
        takes up to some minutes. Needs SymPy and NumPy.
        """
        found = self._search()[0]
        return found[0] if found is not None and len(found) == 1 else found

    @property
    def formula_score_(self) -> float:
        """R^2 or accuracy of formula_ on a fifth of its rows, which were not used for it; NaN without a formula."""
        return self._search()[1]

    def __dir__(self):
        """The attributes, without formulas that are not searched yet: notebooks read and show all that are listed."""
        late = () if self.__dict__.get("_formula") else ("formula_", "formula_score_")
        return [name for name in super().__dir__() if name not in late]

    def _search(self) -> tuple[list[str] | None, float]:
        check_is_fitted(self, "network_")
        if self._formula is None:
            self._formula = self._searched()
        return self._formula

    def _searched(self) -> tuple[list[str] | None, float]:
        x, y, seed = self._rows
        held = max(2, len(x) // 5)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        test, valid, train = order[:held], order[held : 2 * held], order[2 * held :]
        if not len(train):
            return None, math.nan
        texts, scores = [], []
        for n, target in enumerate(self._targets):
            p = Preparation(self.preparation_.columns, target, self.preparation_.classes, True)
            label = y if self._classes else y[:, n : n + 1]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of discarded candidates
                found = search.find(Prepared(p, x, label, train, valid, test, []), seed % 1000)
            if found.formula is None:
                return None, math.nan
            texts += formulas.formulas(found)
            with torch.no_grad():
                prediction = found.formula(x[test])
            score = report.class_scores if self._classes else report.number_scores
            scores.append(score(prediction, label[test])["accuracy" if self._classes else "r2"])
        return texts, sum(scores) / len(scores)

    def plot(self, **options):
        """Draw the network, with the columns' names; options: those of KAN.plot. Needs Matplotlib."""
        check_is_fitted(self, "network_")
        names = {"in_vars": self.preparation_.inputs, "out_vars": self._outcomes(), "x": self._rows[0]}
        return self.network_.copy().plot(**names | options)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags

    # Of each

    _targets: list[Column]
    _outputs: int

    def _target(self, y, reset: bool, classes) -> np.ndarray:
        raise NotImplementedError

    def _set_target(self, y: np.ndarray, weight: Tensor) -> None:
        raise NotImplementedError

    def _label(self, y: np.ndarray) -> Tensor:
        raise NotImplementedError

    def _names(self) -> list[str] | None:
        """Names of the classes."""
        return None

    def _outcomes(self) -> list[str]:
        """Names of the outputs."""
        raise NotImplementedError

    def _class_weighted(self, weight: Tensor, label: Tensor) -> Tensor:
        return weight


class KANRegressor(RegressorMixin, _Estimator):
    """A regressor: an average of networks that start at the best ridge regression, or that alone if they are no better.

    Args:
        hidden: number of hidden nodes of a network, beside one for every output, the linear model at first.
        grid: number of grid intervals; degree: of the splines, 0 to 5.
        members: number of networks in the average, each ended by a part of the rows that it is not trained on; "auto"
            is 5 up to 5000 rows, else 1.
        early_stopping: end a training when the loss on the held-out rows has not fallen for `patience` epochs; if
            False, one network trains on all rows for all epochs.
        validation_fraction: share of the rows held out for one member.
        epochs, batch_size, learning_rate, weight_decay: of AdamW.
        random_state: of the networks, the parts and the batches. Equal integers give equal results on a CPU.

    Attributes: network_, the KAN; preparation_, of the columns; n_features_in_, feature_names_in_; n_epochs_, the mean
    number of epochs, 0 if the linear model was kept; feature_importances_, formula_, formula_score_.
    """

    _classes = False

    def __init__(
        self, hidden=8, *, grid=3, degree=3, members="auto", early_stopping=True, validation_fraction=0.2, epochs=200,
        patience=20, batch_size=64, learning_rate=0.01, weight_decay=0.01, random_state=None,
    ):  # fmt: skip
        self.hidden, self.grid, self.degree, self.members = hidden, grid, degree, members
        self.early_stopping, self.validation_fraction = early_stopping, validation_fraction
        self.epochs, self.patience, self.batch_size = epochs, patience, batch_size
        self.learning_rate, self.weight_decay, self.random_state = learning_rate, weight_decay, random_state

    def predict(self, X) -> np.ndarray:
        """The target for every row, [N], or [N, outputs] as y in fit."""
        y = torch.stack([t.unscaled(v) for t, v in zip(self._targets_checked(), self._outputs_of(X).T, strict=True)], 1)
        return y.numpy() if self._shape == 2 else y[:, 0].numpy()

    def _targets_checked(self) -> list[Column]:
        check_is_fitted(self, "network_")
        return self._targets

    def _target(self, y, reset: bool, classes) -> np.ndarray:
        if classes is not None:
            raise ValueError(f"classes={classes!r}: expected None, for a regressor")
        names = list(map(str, y.columns)) if frame.is_frame(y) else None
        name = [str(y.name)] if getattr(y, "name", None) is not None and not callable(y.name) else None
        y = check_array(y, ensure_2d=False, dtype="float64", input_name="y")
        if y.ndim > 2 or not y.size:
            raise ValueError(f"y has shape {list(y.shape)}: expected [N] or [N, outputs]")
        if reset:
            self._shape = y.ndim
        y = y.reshape(len(y), -1)
        if reset:
            self._named = names or name or ["y"] if y.shape[1] == 1 else names or [
                f"y{n + 1}" for n in range(y.shape[1])
            ]  # fmt: skip
        elif y.shape[1] != self._outputs:
            raise ValueError(f"y has {y.shape[1]} outputs: expected {self._outputs}, as in the first call")
        return y

    def _set_target(self, y: np.ndarray, weight: Tensor) -> None:
        values, self._outputs = torch.from_numpy(y), y.shape[1]
        of = zip(self._named, values.T, strict=True)
        self._targets = [of_numbers(n, v, weight) or Column(n, mean=float(v.mean())) for n, v in of]

    def _label(self, y: np.ndarray) -> Tensor:
        return torch.stack([t.scaled(v) for t, v in zip(self._targets, torch.from_numpy(y).T, strict=True)], 1)

    def _outcomes(self) -> list[str]:
        return [target.name for target in self._targets]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class KANClassifier(ClassifierMixin, _Estimator):
    """A classifier: an average of networks that start at the best ridge logistic regression, or that alone if they are
    no better.

    Args:
        hidden: number of hidden nodes of a network, beside one for every output, the linear model at first.
        grid: number of grid intervals; degree: of the splines, 0 to 5.
        members: number of networks in the average, each ended by a part of the rows that it is not trained on; "auto"
            is 5 up to 5000 rows, else 1.
        early_stopping: end a training when the loss on the held-out rows has not fallen for `patience` epochs; if
            False, one network trains on all rows for all epochs.
        validation_fraction: share of the rows held out for one member.
        epochs, batch_size, learning_rate, weight_decay: of AdamW.
        random_state: of the networks, the parts and the batches. Equal integers give equal results on a CPU.
        class_weight: weights of classes, by class, or "balanced", which gives all the same share.

    Attributes: classes_; network_, the KAN, whose outputs are scores of the classes, or for two classes the log-odds of
    the second; preparation_, of the columns; n_features_in_, feature_names_in_; n_epochs_, the mean number of epochs, 0
    if the linear model was kept; feature_importances_, formula_, formula_score_.
    """

    _classes = True

    def __init__(
        self, hidden=8, *, grid=3, degree=3, members="auto", early_stopping=True, validation_fraction=0.2, epochs=200,
        patience=20, batch_size=64, learning_rate=0.01, weight_decay=0.01, class_weight=None, random_state=None,
    ):  # fmt: skip
        self.hidden, self.grid, self.degree, self.members = hidden, grid, degree, members
        self.early_stopping, self.validation_fraction = early_stopping, validation_fraction
        self.epochs, self.patience, self.batch_size = epochs, patience, batch_size
        self.learning_rate, self.weight_decay, self.random_state = learning_rate, weight_decay, random_state
        self.class_weight = class_weight

    def predict(self, X) -> np.ndarray:
        """The most likely class of every row, [N]."""
        found = chosen(self._outputs_of(X)).numpy()
        return self.classes_[found]

    def predict_proba(self, X) -> np.ndarray:
        """The probabilities [N, classes], in the order of classes_."""
        return probabilities(self._outputs_of(X)).numpy()

    def decision_function(self, X) -> np.ndarray:
        """The scores [N, classes], or for two classes the log-odds of the second, [N]."""
        scores = self._outputs_of(X).numpy()
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def _target(self, y, reset: bool, classes) -> np.ndarray:
        if reset:
            self._named = [str(getattr(y, "name", None) or "y")]
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if reset:
            self._all = None if classes is None else np.unique(np.asarray(classes))
        known = self._all if reset else self.classes_
        if known is not None and not np.isin(y, known).all():
            raise ValueError(f"y has a class that is not in {known.tolist()}: expected one of these classes")
        return y

    def _set_target(self, y: np.ndarray, weight: Tensor) -> None:
        self.classes_ = np.unique(y) if self._all is None else self._all
        if len(self.classes_) < 2:
            raise ValueError(f"y has 1 class, {self.classes_.tolist()[0]!r}: expected at least two classes")
        self._targets = [Column(self._named[0])]
        self._outputs = 1 if len(self.classes_) == 2 else len(self.classes_)

    def _label(self, y: np.ndarray) -> Tensor:
        return torch.from_numpy(np.searchsorted(self.classes_, y)).long()

    def _names(self) -> list[str] | None:
        return [str(name) for name in self.classes_.tolist()]

    def _outcomes(self) -> list[str]:
        return self.preparation_.outcomes

    def _class_weighted(self, weight: Tensor, label: Tensor) -> Tensor:
        if self.class_weight is None:
            return weight
        if isinstance(self.class_weight, str) and self.class_weight != "balanced":
            raise ValueError(f"class_weight={self.class_weight!r}: expected 'balanced', weights by class, or None")
        if self.class_weight == "balanced":
            sums = torch.bincount(label, weight, minlength=len(self.classes_))
            by_class = weight.sum() / (len(self.classes_) * sums)
        else:
            by_class = torch.from_numpy(
                compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[label.numpy()])
            )
        return weight * by_class[label]


def _merged(fields: list[Field], values: Tensor, y: np.ndarray, weight: Tensor):
    """The different rows, sorted, with the sums of their weights: then weights are repetitions, exactly, and equal rows
    are never on both sides of a split."""
    codes = np.unique(y, return_inverse=True)[1][:, None] if y.ndim == 1 else y
    key = np.concatenate([np.nan_to_num(values.numpy(), nan=np.inf), codes.astype(np.float64)], 1)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    sums = np.bincount(inverse.ravel(), weight.numpy(), len(first))
    return fields, values[torch.from_numpy(first)], y[first], torch.from_numpy(sums)
