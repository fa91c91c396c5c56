"""History: snapshots of a model, taken on request and restored exactly."""

import copy
import io
import json
import pickle

import pytest
import torch

from fastkan import KAN
from fastkan.network import History, checkpoint
from support.models import MIXED, inputs, shaken

X = inputs(30, 2)
DATA = {"train_input": X, "train_label": X.prod(1, keepdim=True)} | {
    "test_input": X, "test_label": X.prod(1, keepdim=True),
}  # fmt: skip


@pytest.fixture(params=["memory", "folder"])
def place(request, tmp_path):
    return True if request.param == "memory" else tmp_path / "states"


def model_of(history=None, **options) -> KAN:
    return KAN([2, 3, 1], dtype=torch.float64, history=history, **options)


def fitted(model: KAN, steps: int = 2) -> KAN:
    model.fit(DATA, steps=steps, progress=False)
    return model


def test_steps_are_logged_and_come_back(place):
    model = model_of(place)
    values = {"0.0": model(X)}
    values["0.1"] = fitted(model)(X)
    model = model.prune_node(active_neurons_id=[[0, 2]])
    values["0.2"] = model(X)
    finer = model.refine(7)
    values["0.3"] = finer(X)
    finer.fix_symbolic(0, 1, 1, "sin", verbose=False)
    values["0.4"] = finer(X)
    assert str(finer.history).splitlines() == [
        "start => 0.0", "0.0 => fit => 0.1", "0.1 => prune_node => 0.2", "0.2 => refine => 0.3",
        "0.3 => fix_symbolic => 0.4",
    ]  # fmt: skip
    assert finer.history.ids == list(values)
    for number, y in values.items():
        found = finer.checkout(number)
        assert torch.equal(found(X), y) and found.history.now == number
        assert found.cache_data is finer.cache_data
    assert torch.equal(finer(X), values["0.4"])


def test_a_rewind_starts_a_round(place):
    model = fitted(fitted(model_of(place)))
    old = model.checkout("0.1")(X)
    back = model.rewind("0.1")
    assert back.history.now == "1.1" and torch.equal(back(X), old)
    fitted(back)
    assert back.history.ids == ["0.0", "0.1", "0.2", "1.1", "1.2"]
    assert str(back.history).splitlines()[-2:] == ["0.1 => rewind => 1.1", "1.1 => fit => 1.2"]
    assert back.rewind("0.0").history.now == "2.0"
    branch = model.checkout("0.1")
    branch.perturb()
    assert branch.history.entries[-1][1:] == ("0.1", "perturb")
    assert not torch.equal(model(X), old)


def test_labelled_snapshots(place):
    model = model_of(place)
    assert model.keep("before") == "0.1"
    y = model(X)
    fitted(model)
    assert torch.equal(model.checkout("before")(X), y)
    assert model.rewind("before").history.now == "1.1"
    model.log_history("mine")
    assert model.history.entries[-1].what == "mine"
    with pytest.raises(ValueError, match="model_id='0.9': expected one of 0.0, 0.1, 0.2"):
        model.rewind("0.9")
    with pytest.raises(TypeError, match="label=3"):
        model.keep(3)


def test_it_is_off_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = fitted(model_of(save_act=False, auto_save=False, ckpt_path="./elsewhere"))
    model.log_history("nothing")
    assert model.history is None and not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="the model has no history: expected KAN"):
        model.rewind("0.0")
    assert model.keep() == "0.1" and model.history.ids == ["0.0", "0.1"]
    assert not list(tmp_path.iterdir())
    model.history = None
    fitted(model)
    assert model.history is None
    with pytest.raises(TypeError, match="history=3"):
        model.history = 3


def test_auto_save_is_a_folder(tmp_path):
    model = fitted(model_of(auto_save=True, ckpt_path=tmp_path / "model"))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"0.0.pt", "0.1.pt", "history.json"}
    assert torch.equal(KAN.load(tmp_path / "model" / "0.1.pt")(X), model(X))


def test_a_folder_outlives_the_session(tmp_path):
    y = fitted(model_of(tmp_path))(X)
    found = History(tmp_path).checkout("0.1")
    assert torch.equal(found(X), y)
    assert fitted(found).history.now == "0.2"
    assert model_of(tmp_path).history.now == "1.0"
    assert History(tmp_path).ids == ["0.0", "0.1", "0.2", "1.0"]


def test_a_folder_that_is_shared(tmp_path):
    model = model_of(tmp_path)
    twin = model.copy()
    fitted(model)
    fitted(twin, 1)
    assert (model.history.now, twin.history.now) == ("0.1", "0.2")
    assert torch.equal(model.checkout("0.2")(X), twin(X))


def test_copies_are_independent():
    model = fitted(model_of(True))
    y = model(X)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), _torch_saved(model)):
        assert twin.history.ids == ["0.0", "0.1"]
        fitted(twin)
        assert torch.equal(twin.checkout("0.1")(X), y) and twin.history.now == "0.2"
        assert model.history.ids == ["0.0", "0.1"]
    other = model_of(True, seed=4)
    assert other.load_state_dict(model.state_dict())
    assert other.history.ids == ["0.0"] and torch.equal(other(X), y)


def _torch_saved(model: KAN) -> KAN:
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


def test_a_history_of_another_model(tmp_path):
    for place in (None, tmp_path / "states"):
        first = fitted(model_of(History(place)))
        second = model_of(first.history, seed=2)
        assert (first.history.now, second.history.now) == ("0.1", "1.0")
        assert torch.equal(second.checkout("0.1")(X), first(X))
    with pytest.raises(ValueError, match="max_bytes=-1"):
        History(max_bytes=-1)


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_history_size_is_bounded(where, tmp_path):
    folder = tmp_path if where == "folder" else None
    model = model_of(History(folder))
    one = model.history._size("0.0")
    model.history = History(None if folder is None else folder / "bounded", max_bytes=3 * one + one // 2)
    for n in range(5):
        model.keep(f"state {n}")
    assert model.history.ids == ["0.3", "0.4", "0.5"] and len(model.history.entries) == 6
    with pytest.raises(ValueError, match="model_id='0.1' was dropped, for max_bytes=.* expected one of 0.3, 0.4, 0.5"):
        model.checkout("0.1")
    model.history = History(None if folder is None else folder / "least", max_bytes=0)
    model.keep()
    assert model.history.ids == ["0.1"]
    if folder:
        assert {path.name for path in (folder / "least").iterdir()} == {"0.1.pt", "history.json"}


def test_a_step_within_a_step_is_not_logged():
    model = model_of(True)
    fitted(model)
    model.get_act(X)
    pruned = model.prune(-1.0, -1.0)
    assert [entry.what for entry in pruned.history.entries] == ["start", "fit", "prune"]
    pruned.auto_symbolic(verbose=0)
    assert [entry.what for entry in pruned.history.entries][3:] == ["auto_symbolic"]


def test_a_step_that_fails_is_not_logged_and_pykans_switch():
    model = model_of(True)
    with pytest.raises(ValueError, match="mode='x'"):
        model.perturb(mode="x")
    model.remove_edge(0, 0, 0, log_history=False)
    assert model.history.ids == ["0.0"]
    model.remove_edge(0, 1, 0)
    assert model.history.ids == ["0.0", "0.1"]


def test_unsaveable_state_loses_no_step(tmp_path, monkeypatch):
    model = model_of(tmp_path)

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.warns(RuntimeWarning, match="the state after fit was not saved: No space"):
        assert model.fit(DATA, steps=1, progress=False)["train_loss"]
    monkeypatch.undo()
    assert History(tmp_path).ids == ["0.0"] and model.history.now == "0.0"
    assert fitted(model).history.now == "0.1"


def test_names_in_a_folder_stay_in_it(tmp_path):
    model_of(tmp_path / "states")
    log = tmp_path / "states" / "history.json"
    log.write_text(json.dumps([["../evil", None, "start"], *json.loads(log.read_text())]))
    assert [entry.id for entry in History(tmp_path / "states").entries] == ["0.0"]


def test_snapshots_hold_everything(place):
    model = shaken(KAN(**MIXED, base_fun=torch.tanh, dtype=torch.float64, history=place), symbolic=0.4)
    model.act_fun[1].linear.coef.requires_grad_(False)
    model.prune_input(active_inputs=[0, 2])
    rows = inputs(20, 3)
    pruned = model.prune_input(active_inputs=[0, 2])
    found = pruned.checkout(pruned.history.now)
    assert torch.equal(found(rows), pruned(rows)) and found.base_fun is torch.tanh
    assert not found.act_fun[1].linear.coef.requires_grad


def test_printing(capsys):
    model = model_of(True)
    model.keep("one")
    model.keep("two")
    model.history(1)
    assert capsys.readouterr().out == "0.1 => two => 0.2\n"
    model.history()
    assert capsys.readouterr().out == "start => 0.0\n0.0 => one => 0.1\n0.1 => two => 0.2\n"
