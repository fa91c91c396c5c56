"""create_dataset and create_dataset_from_data: pykan's numbers bit for bit, with argument validation."""

import numpy as np
import pytest
import torch

from fastkan.science import create_dataset, create_dataset_from_data

OPTIONS = [
    {},
    {"train_num": 5, "test_num": 3, "seed": 7},
    {"ranges": [[-3, 3], [0, 2 * torch.tensor(torch.pi)]], "normalize_input": True},
    {"ranges": [0.5, 2], "normalize_input": True, "normalize_label": True},
    {"ranges": np.array([[-1, 1], [0.0, 4.0]]), "normalize_label": True},
]


def product(x):
    return torch.exp(torch.sin(torch.pi * x[:, [0]]) + x[:, [1]] ** 2)


@pytest.fixture
def theirs():
    """pykan's module; global random numbers and the default dtype are put back."""
    module = pytest.importorskip("kan.utils", reason="pykan is not installed", exc_type=ImportError)
    state, numpy_state, dtype = torch.get_rng_state(), np.random.get_state(), torch.get_default_dtype()
    yield module
    torch.set_rng_state(state), np.random.set_state(numpy_state), torch.set_default_dtype(dtype)


def same(a: dict, b: dict):
    assert a.keys() == b.keys() == {"train_input", "train_label", "test_input", "test_label"}
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_pykan(theirs, options, dtype):
    torch.set_default_dtype(dtype)
    same(create_dataset(product, **options), theirs.create_dataset(product, **options))


def test_rows_as_pykan(theirs):
    f = lambda x: x[0] * x[1] + x[2]  # noqa: E731
    same(create_dataset(f, 3, f_mode="row"), theirs.create_dataset(f, 3, f_mode="row"))


@pytest.mark.parametrize(("rows", "ratio", "seed"), [(10, 0.8, 0), (1000, 0.8, 3), (1000, 0.5, 1), (7, 1.0, 2)])
def test_tables_as_pykan(theirs, rows, ratio, seed):
    x, y = torch.arange(2.0 * rows).reshape(rows, 2), torch.arange(rows, dtype=torch.float64)[:, None]
    np.random.seed(seed)
    expected = theirs.create_dataset_from_data(x, y, train_ratio=ratio)
    same(create_dataset_from_data(x, y, ratio, seed=seed), expected)
    np.random.seed(seed)
    same(create_dataset_from_data(x, y, ratio, seed=None), expected)


def test_table_is_split_in_two():
    x = torch.arange(50.0)[:, None].requires_grad_()
    data = create_dataset_from_data(x, -x, 0.7)
    assert sorted(torch.cat([data["train_input"], data["test_input"]]).flatten().tolist()) == list(range(50))
    assert len(data["train_input"]) == 35 and not data["train_input"].requires_grad
    assert torch.equal(data["train_label"], -data["train_input"]) and torch.equal(
        data["test_label"], -data["test_input"]
    )


def test_global_random_numbers_stay():
    torch.manual_seed(5), np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5), np.random.seed(5)
    create_dataset(product)
    create_dataset_from_data(torch.ones(9, 1), torch.ones(9, 1))
    assert torch.equal(torch.rand(3), expected[0]) and (np.random.rand(3) == expected[1]).all()


def test_dtype_and_several_outputs():
    data = create_dataset(lambda x: x[:, :2] * x[:, 2:], 3, dtype=torch.float64, test_num=0)
    assert data["train_label"].shape == (1000, 2) and data["test_label"].shape == (0, 2)
    assert all(t.dtype == torch.float64 for t in data.values())


def test_normalization_uses_the_training_set():
    data = create_dataset(product, normalize_input=True, normalize_label=True, dtype=torch.float64, test_num=50)
    for key in ("train_input", "train_label"):
        torch.testing.assert_close(data[key].mean(0), torch.zeros_like(data[key][0]), rtol=0, atol=1e-13)
        torch.testing.assert_close(data[key].std(0), torch.ones_like(data[key][0]))
    assert data["test_label"].mean().abs() > 1e-3


def test_derivatives_as_labels():
    """f may differentiate; its labels come without a graph."""

    def slope(x):
        x = x.requires_grad_()
        return torch.autograd.grad((x**2).sum(), x, create_graph=True)[0][:, :1]

    data = create_dataset(slope)
    assert torch.equal(data["train_label"], 2 * data["train_input"][:, :1]) and not data["train_label"].requires_grad


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (ValueError, "f_mode='rows': expected one of 'col', 'row'", {"f_mode": "rows"}),
        (ValueError, "n_var=0: expected an integer, at least 1", {"n_var": 0}),
        (ValueError, "train_num=0: expected an integer, at least 1", {"train_num": 0}),
        (TypeError, "seed=None: expected an integer", {"seed": None}),
        (ValueError, r"ranges=\[1, 2, 3\]: expected a finite \(low, high\), or a list of 2", {"ranges": [1, 2, 3]}),
        (ValueError, "ranges=.*: expected a finite", {"ranges": [[0, 1]] * 3}),
        (ValueError, "ranges=.*: expected a finite", {"ranges": [[0, 1], [0]]}),
        (ValueError, "ranges=.*: expected a finite", {"ranges": [0, float("inf")]}),
        (TypeError, "ranges=None: expected a finite", {"ranges": None}),
        (ValueError, r"f returned shape \[1000, 1, 1\]: expected \[1000\]", {"f": lambda x: x[:, :1, None]}),
        (ValueError, r"f returned shape \[1\]: expected \[1000\]", {"f": lambda x: x[0, :1]}),
        (ValueError, r"f returned shape \[1, 1000\].*f_mode='row'", {"f": lambda x: x[:1], "f_mode": "row"}),
        (TypeError, "f returned a float: expected a tensor", {"f": lambda x: 1.0}),
        (ValueError, r"f is \[nan\] at \[-.*check the ranges", {"f": lambda x: x[:, :1].sqrt()}),
        (ValueError, "column 0 of f does not vary", {"f": lambda x: x[:, :1] * 0 + 0.1, "normalize_label": True}),
        (ValueError, "column 0 of x does not vary over 1 rows", {"train_num": 1, "normalize_input": True}),
    ],
)  # fmt: skip
def test_errors(error, match, options):
    with pytest.raises(error, match=match):
        create_dataset(**{"f": product, **options})


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (TypeError, "inputs is a list: expected a tensor", ([1.0], torch.ones(1))),
        (ValueError, r"labels has shape \[\]", (torch.ones(1), torch.tensor(1.0))),
        (ValueError, "inputs and labels have 3 and 2 rows", (torch.ones(3), torch.ones(2))),
        (ValueError, "train_ratio=0.1 of 3 rows is 0: expected a share", (torch.ones(3), torch.ones(3), 0.1)),
        (ValueError, "train_ratio=1.5 of 3 rows is 4: expected a share", (torch.ones(3), torch.ones(3), 1.5)),
        (TypeError, "train_ratio='half': expected a finite number", (torch.ones(3), torch.ones(3), "half")),
    ],
)
def test_errors_of_tables(error, match, arguments):
    with pytest.raises(error, match=match):
        create_dataset_from_data(*arguments)
