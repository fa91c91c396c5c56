"""KAN.fit with what people have: arrays, frames, labels of any kind, weights, validation data, schedulers."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fastkan
from fastkan import KAN


def data(rows: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    return x, x[:, :1] * x[:, 1:] + x[:, :1]


def network(outputs: int = 1, **options) -> KAN:
    return KAN([2, 2, outputs], dtype=torch.float64, seed=0, **options)


def trained(*args, outputs: int = 1, **options) -> tuple[KAN, dict]:
    model = network(outputs)
    return model, model.fit(*args, progress=False, **{"steps": 3} | options)


def forms():
    pd = pytest.importorskip("pandas")
    x, y = data()
    frame = pd.DataFrame(x.numpy(), columns=["a", "b"])
    return {
        "x, y": (x, y), "y of [N]": (x, y[:, 0]), "arrays": (x.numpy(), y.numpy()[:, 0]),
        "float32": (x.numpy(), y.numpy().astype("float32").astype("float64")), "lists": (x.tolist(), y[:, 0].tolist()),
        "frame": (frame, pd.Series(y[:, 0].numpy(), index=range(100, 160))), "frames": (frame, pd.DataFrame(y.numpy())),
        "dataset": (TensorDataset(x, y),), "pair": ((x.numpy(), y.numpy()),),
        "dictionary": ({"train_input": frame, "train_label": y.numpy()},),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["y of [N]", "arrays", "lists", "frame", "frames", "dataset", "pair", "dictionary"])
def test_every_form_of_the_same_numbers_gives_the_same_network(name):
    x, y = data()
    expected = trained((x, y))[0](x)
    assert torch.equal(trained(*forms()[name])[0](x), expected)


def test_the_other_arguments_follow_x_and_y_in_pykans_order():
    x, y = data()
    expected = trained((x, y), opt="Adam", steps=4, lr=0.01)[0](x)
    model = network()
    model.fit(x, y, "Adam", 4, lr=0.01, progress=False)
    assert torch.equal(model(x), expected)
    assert torch.equal(trained(x, y=y, opt="Adam", steps=4, lr=0.01)[0](x), expected)
    assert torch.equal(trained(x, y, opt="Adam", steps=4, lr=0.01)[0](x), expected)


def test_numbers_become_the_models_dtype():
    x, y = data()
    model = KAN([2, 1])
    model.fit(x.numpy(), y.numpy(), steps=1, progress=False)
    assert model.predict(x.numpy()).dtype == np.float32


def test_epochs_and_batch_size():
    x, y = data(65)
    _, results = trained(x, y, opt="Adam", lr=0.01, epochs=3, batch_size=20)
    assert len(results["train_loss"]) == 3 * 3
    loader = DataLoader(TensorDataset(x, y), batch_size=20)
    assert len(trained(loader, opt="Adam", lr=0.01, epochs=2)[1]["train_loss"]) == 2 * 4


@pytest.mark.parametrize("share", [False, True])
def test_validation_data_is_the_test_set(share):
    x, y = data()
    if share:
        model, results = trained(x, y, validation_data=0.25)
        assert len(model.cache_data) == 45
        return
    model, results = trained(x[:40], y[:40, 0], validation_data=(x[40:].numpy(), y[40:, 0].numpy()))
    rmse = (model(x[40:]) - y[40:]).square().mean().sqrt().item()
    assert results["test_loss"][-1] == pytest.approx(rmse, rel=1e-12)
    loader = DataLoader(TensorDataset(x[:40], y[:40]), batch_size=40)
    _, again = trained(loader, validation_data=(x[40:], y[40:]))
    assert again["test_loss"] == pytest.approx(results["test_loss"], rel=1e-12)


@pytest.mark.parametrize("opt", ["AdamW", "SGD", "RMSprop"])
def test_an_optimizer_by_name_is_its_class(opt):
    x, y = data()
    expected = trained(x, y, opt=getattr(torch.optim, opt))[0](x)  # with the rate of the class
    assert torch.equal(trained(x, y, opt=opt)[0](x), expected)
    assert not torch.equal(trained(x, y, opt=opt, lr=0.1)[0](x), expected)


def test_a_scheduler_steps_after_every_step_or_epoch():
    x, y = data()
    for epochs, rates in ((None, 4), (2, 2)):
        seen = []

        def schedule(optimizer, seen=seen):
            seen.append(optimizer)
            return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

        trained(x, y, opt="SGD", lr=0.01, steps=4, epochs=epochs, batch_size=30, scheduler=schedule)
        assert seen[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**rates)


def test_a_scheduler_by_the_test_loss():
    x, y = data()

    def schedule(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0)  # no loss is low enough

    optimizer = torch.optim.SGD((model := network()).parameters(), lr=0.01)
    model.fit(x, y, opt=optimizer, steps=3, scheduler=schedule, progress=False)
    assert optimizer.param_groups[0]["lr"] < 0.01


@pytest.mark.parametrize("loss", [None, "mse", "cross_entropy", "function"])
def test_weights_are_repetitions(loss):
    """The gradient of the weighted loss is that of the loss with rows repeated as often as their weights say."""
    x, y = data(12)
    weight = torch.tensor([0, 1, 2, 3] * 3)
    rows = torch.repeat_interleave(torch.arange(12), weight)
    label = (y[:, 0] > 0).long() if loss == "cross_entropy" else y
    given = [torch.nn.functional.l1_loss, lambda p, y: (p - y).abs()] if loss == "function" else [loss, loss]
    options = {"opt": "SGD", "lr": 0.1, "update_grid": False, "lamb_base": 0.0, "steps": 2}
    expected = trained(x[rows], label[rows], loss_fn=given[0], **options)
    found = trained(x, label, loss_fn=given[1], sample_weight=weight.numpy(), **options)
    assert torch.allclose(found[0](x), expected[0](x), rtol=0, atol=1e-13)
    assert found[1]["train_loss"] == pytest.approx(expected[1]["train_loss"], rel=1e-12)
    assert found[0].score(x, label, weight) == pytest.approx(expected[0].score(x[rows], label[rows]), rel=1e-12)


LABELS = {
    "texts": np.array(["no", "yes"]), "bools": np.array([False, True]), "indices": np.array([0, 1]),
    "numbers": np.array([-1, 1]), "floats": np.array([1.5, 2.5]),
}  # fmt: skip


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("kind", LABELS)
def test_class_labels(kind, outputs, tmp_path):
    x, y = data()
    labels = LABELS[kind][(y[:, 0] > 0).long().numpy()]
    named = {} if kind in ("texts", "bools") else {"loss_fn": "cross_entropy"}
    model, results = trained(x, labels, outputs=outputs, steps=20, **named)
    assert model.classes == LABELS[kind].tolist() and results["train_loss"][-1] < np.log(2) / 2
    predicted = model.predict(x.numpy())
    assert predicted.dtype == labels.dtype and (predicted == labels).mean() == model.score(x, labels) > 0.9
    proba = model.predict_proba(x)
    assert torch.allclose(proba.sum(1), torch.ones(60, dtype=torch.float64))
    assert np.array_equal(LABELS[kind][proba.argmax(1).numpy()], predicted)
    model.save(tmp_path / "model.pt")
    assert KAN.load(tmp_path / "model.pt").classes == model.copy().classes == model.prune().classes == model.classes


def test_whole_numbers_are_numbers_for_one_output_and_classes_for_several():
    x, y = data()
    labels = (y[:, 0] > 0).long()
    assert trained(x, labels.numpy())[0].classes is None
    model, _ = trained(x, labels, outputs=2)
    assert model.classes == [0, 1] and model.predict(x).dtype == torch.long
    model.fit(x, y.expand(-1, 2), steps=1, progress=False)
    assert model.classes is None and model.predict(x).shape == (60, 2)


def test_score_is_r2():
    x, y = data()
    model, _ = trained(x, y)
    expected = 1 - (model(x) - y).square().sum() / (y - y.mean()).square().sum()
    assert model.score(x, y) == model.score(x.numpy(), y[:, 0].numpy()) == pytest.approx(expected.item(), rel=1e-12)
    assert torch.equal(model.predict(x), model(x)) and isinstance(model.predict(x.numpy()), np.ndarray)


X, Y = data(4)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((X, Y), {"y": Y}, TypeError, "y: expected once"),
        ((X, np.array(["a"] * 3 + ["b"])), {"loss_fn": "mse"}, TypeError, "y has cells of <U1: expected numbers"),
        ((X, list("abca")), {}, ValueError, "labels have 3 classes, such as 'a': expected 2, for 1 output"),
        ((X, [0.0, 1.0, float("nan"), 1.0]), {"loss_fn": "cross_entropy"}, ValueError, "a class is missing"),
        ((X, Y), {"loss_fn": "hinge"}, ValueError, "loss_fn='hinge': expected a function or one of 'mse'"),
        ((X, Y), {"validation_data": 0.01}, ValueError, "validation_data=0.01: expected a share that leaves rows"),
        ((X, Y), {"sample_weight": [1.0, 2.0]}, ValueError, r"sample_weight has shape \[2\]: expected .* \[4\]"),
        ((X, Y), {"sample_weight": [1.0, 2.0, -1.0, 0.0]}, ValueError, "sample_weight: expected finite numbers"),
        ((X, Y), {"sample_weight": [1.0] * 4, "opt": "LM"}, ValueError, "loss_fn=.* with Levenberg-Marquardt"),
        ((X, Y), {"sample_weight": [1.0] * 4, "loss_fn": torch.nn.functional.mse_loss}, ValueError, "reduction='none'"),
        ((X, Y), {"batch": 2, "batch_size": 2}, ValueError, "batch=2: expected no batch beside batch_size=2"),
        ((X, Y), {"epochs": 1.5}, TypeError, "epochs=1.5: expected an integer"),
        ((X, Y), {"scheduler": "step"}, TypeError, "scheduler='step': expected a function of the optimizer"),
        ((X, Y), {"scheduler": len, "opt": "LM"}, ValueError, "expected None with LevenbergMarquardt"),
        ((X, Y), {"opt": "Optimizer"}, ValueError, "opt='Optimizer': expected 'LBFGS', 'Adam'"),
        (([(X, Y)],), {"sample_weight": [1.0]}, ValueError, "sample_weight: expected None with a loader"),
    ],
)
def test_bad_arguments(args, options, error, message):
    with pytest.raises(error, match=message):
        trained(*args, **options)


def test_predict_proba_needs_classes_and_frames_need_numbers():
    pd = pytest.importorskip("pandas")
    with pytest.raises(RuntimeError, match="the model has no classes: expected fit"):
        network().predict_proba(X)
    with pytest.raises(TypeError, match="x has no numbers in column 'b': expected numbers"):
        network().predict(pd.DataFrame({"a": [1.0], "b": ["text"]}))
    model, _ = trained(X, ["a", "b", "a", "b"])
    with pytest.raises(ValueError, match="labels: no class 'c', expected one of 'a', 'b'"):
        model.score(X, ["a", "b", "c", "b"])


def test_names_at_the_top():
    assert fastkan.KANSequential is fastkan.nn.KANSequential and fastkan.replace_linear and fastkan.accelerate
