"""Sequences of operations on a network: the function is kept where it should be, and every later operation works."""

import copy
import io
import os
import pickle
import stat

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkan import KAN
from fastkan.network import checkpoint
from support.models import MIXED, inputs, shaken

X = inputs(25, 3, scale=1.0)


def same(a: torch.Tensor, b: torch.Tensor, digits: float = 1e-11) -> None:
    torch.testing.assert_close(a, b, rtol=digits, atol=digits * max(1.0, b.abs().max().item()))


# What keeps the function


@st.composite
def networks(draw, hidden: int = 1) -> KAN:
    """Networks of any shape in float64, with multiplication nodes, symbolic edges, both branches and edges off."""
    widths = [[draw(st.integers(1, 3)), draw(st.integers(0, 2))] for _ in range(draw(st.integers(hidden, 2)))]
    last = [draw(st.integers(0, 2)), draw(st.integers(0, 1))]
    width = [3, *widths, last if sum(last) else 1]
    arity = [[]] + [[draw(st.integers(1, 3)) for _ in range(n)] for _, n in (*widths, last if sum(last) else [1, 0])]
    depth = len(width) - 1
    model = KAN(
        width, draw(st.lists(st.integers(1, 4), min_size=depth, max_size=depth)), draw(st.integers(0, 3)), arity,
        affine_trainable=draw(st.booleans()), base_fun=draw(st.sampled_from(["silu", "identity", "zero"])),
        dtype=torch.float64,
    )  # fmt: skip
    symbolic, off = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.sampled_from([0.0, 0.3]))
    model = shaken(model, symbolic, off, draw(st.integers(0, 99)))
    for l in range(1, model.depth):
        for node in range(model.width_in[l]):
            mode = draw(st.sampled_from(["", "", "", "up", "down", "all"]))
            if mode:
                model.remove_node(l, node, mode)
    model.symbolic_enabled = draw(st.sampled_from([True, True, False]))
    return model


@settings(max_examples=80, deadline=None)
@given(networks(), st.data())
def test_operations_that_keep_the_function(model, data):
    y = model(X)
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["width", "products", "depth", "swap", "perturb", "auto_swap", "become"]))
        layer = data.draw(st.integers(1, max(1, model.depth - 1)))
        if kind in ("width", "products"):
            model.expand_width(layer, data.draw(st.integers(1, 2)), kind == "width", data.draw(st.integers(1, 3)))
        elif kind == "depth":
            model.expand_depth()
        elif kind == "perturb":
            model.perturb(data.draw(st.sampled_from([0.1, 1.0])))
        elif kind == "auto_swap":
            model.get_act(X)
            model.auto_swap()
        elif kind == "become":
            other = KAN(
                model.width, model.grid, model.k, model.mult_arity, base_fun=model.base_fun, dtype=torch.float64
            )
            other.initialize_from_another_model(model)
            same(other(X), y, 1e-8)
        else:
            n_sum, n = model.width[layer][0], model.width_in[layer]
            i = data.draw(st.integers(0, n - 1))
            j = data.draw(st.integers(0, n_sum - 1) if i < n_sum else st.integers(n_sum, n - 1))
            model.swap(layer, i, j)
        same(model(X), y, 1e-10)


@settings(max_examples=25, deadline=None)
@given(networks())
def test_edges_add_up_to_the_sums(model):
    """get_act, get_fun and get_range: what the edges do is what the network does."""
    model.get_act(X)
    for l in range(model.depth):
        x = model.acts[l]
        for j in range(model.width_out[l + 1]):
            total = torch.zeros(len(X), dtype=torch.float64)
            for i in range(model.width_in[l]):
                at, y = model.get_fun(l, i, j)
                order = x[:, i].argsort()
                assert torch.equal(at, x[order, i])
                total[order] += y
                assert model.get_range(l, i, j, verbose=False) == (at.min(), at.max(), y.min(), y.max())
            same(model.subnode_scale[l][j] * total + model.subnode_bias[l][j], model.acts_premult[l][:, j])
    same(model(X), model.acts[-1])
    label = model(X) + 2.0
    found = model.evaluate({"test_input": X, "test_label": label})
    assert found["test_loss"] == pytest.approx(2.0) and found["n_edge"] == model.n_edge


def test_edges_that_were_disabled_stay_so_under_a_new_layer():
    model = shaken(KAN([3, 2, 1], dtype=torch.float64), symbolic=0.5)
    model.symbolic_enabled = False
    y = model(X)
    model.expand_depth()
    same(model(X), y)
    assert model.symbolic_enabled and not model.symbolic_fun[0].mask.any() and model.symbolic_fun[2].mask.any()


def test_perturbed_nodes_that_are_read():
    """pykan's non-intrusive perturbation switches on edges into a node without any, whatever reads it."""
    model = shaken(KAN([3, 2, 1], dtype=torch.float64))
    model.remove_node(1, 0, "down")
    model.expand_width(1, 1)
    y = model(X)
    model.perturb(0.3)
    same(model(X), y)
    assert model.act_fun[0].mask[:, 0].all() and not model.act_fun[0].mask[:, 1].any()


# Every operation, then everything else


def _pruned(model: KAN) -> KAN:
    return model.prune(-1.0, -1.0)


def _pruned_inputs(model: KAN) -> KAN:
    return model.prune_input(active_inputs=[0, 2])


def _pruned_nodes(model: KAN) -> KAN:
    return model.prune_node(active_neurons_id=[[0, 3], [0, 1]])


def _refined(model: KAN) -> KAN:
    return model.refine(6)


def _become(model: KAN) -> KAN:
    other = KAN(model.width, 7, 3, model.mult_arity, dtype=torch.float64)
    return other.initialize_from_another_model(model)


def _fitted(model: KAN) -> KAN:
    y = X.prod(1, keepdim=True).expand(-1, 2)
    model.fit(
        {"train_input": X, "train_label": y, "test_input": X, "test_label": y}, "Adam", 2, lr=1e-3, progress=False
    )
    return model


def _rewound(model: KAN) -> KAN:
    model.history = True
    return _fitted(model).rewind("0.0")


def _in_place(name: str, *args):
    def change(model: KAN) -> KAN:
        getattr(model, name)(*args)
        return model

    change.__name__ = name
    return change


OPERATIONS = [
    _pruned, _pruned_inputs, _pruned_nodes, _refined, _become, _fitted, _rewound, _in_place("expand_width", 1, 2),
    _in_place("expand_width", 2, 1, False, 3), _in_place("expand_depth"), _in_place("perturb", 0.5, "all"),
    _in_place("swap", 1, 2, 3), _in_place("auto_swap"), _in_place("remove_node", 1, 1), _in_place("update_grid", X),
    _in_place("remove_edge", 0, 0, 1), _in_place("fix_symbolic", 0, 0, 0, "sin"), _in_place("unfix_symbolic_all"),
    _in_place("module", 1, "[0,1]->[0]"), _in_place("prune_edge", 1e-3), _in_place("speed"), _in_place("keep", "here"),
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__.strip("_"))
def test_after_every_operation(operation, tmp_path, capsys):
    model = shaken(KAN(**MIXED, dtype=torch.float64, affine_trainable=True), symbolic=0.3, off=0.1)
    model.act_fun[1].linear.coef.requires_grad_(False)
    model(X)
    model.get_act(X)
    model.attribute()
    model = operation(model)
    y = model(X)
    assert y.isfinite().all()
    if operation is not _become:
        assert not model.act_fun[1].linear.coef.requires_grad
    assert torch.equal(model.copy()(X), y) and torch.equal(copy.deepcopy(model)(X), y)
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), y)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(X), y)
    model.save(tmp_path / "model.pt")
    loaded = KAN.load(tmp_path / "model.pt")
    assert torch.equal(loaded(X), y) and checkpoint.trainable(loaded) == checkpoint.trainable(model)
    same(copy.deepcopy(model).to(torch.float32)(X.float()).double(), y, 1e-3)
    assert torch.equal(copy.deepcopy(model).to(torch.float64)(X), y)
    cube = X[:24].reshape(2, 3, 4, 3)
    same(model(cube), y[:24].reshape(2, 3, 4, -1))
    same(model(X[0]), y[0])
    again = _fitted(model.copy())
    assert again(X).isfinite().all() and not torch.equal(again(X), y)


@pytest.mark.parametrize("changes", range(4))
def test_copy_reads_its_own_masks(changes):
    """Its tensors count their versions anew, so that those of the model tell it nothing."""
    model = KAN([3, 2, 1], dtype=torch.float64)
    mask = model.act_fun[0].mask
    for _ in range(changes):
        mask.mul_(1.0)
    model(X)
    mask[0] = 0.0
    assert torch.equal(copy.deepcopy(model)(X), model(X))


# Files


def test_files_keep_what_trains_and_what_differs_between_layers(tmp_path):
    model = shaken(KAN([3, 4, 2, 1], dtype=torch.float64, affine_trainable=True), symbolic=0.4)
    model.act_fun[0].linear.coef.requires_grad_(False)
    model.node_scale[1].requires_grad_(False)
    model.symbolic_fun[0].affine.requires_grad_(False)
    model.act_fun[1].linear.base_weight.requires_grad_(False)
    model.act_fun[1].mask.zero_()  # puts its other parameters to sleep
    model(X)
    model.act_fun[2].linear.grid_eps, model.act_fun[0].linear.outside = 0.7, "linear"
    model.save(tmp_path / "model.pt")
    loaded = KAN.load(tmp_path / "model.pt")
    for twin in (loaded, model.copy()):
        twin(3 * X)
        assert torch.equal(twin(3 * X), model(3 * X))
        assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
        twin.act_fun[1].mask.fill_(1.0)
        twin(X)
        assert twin.act_fun[1].linear.coef.requires_grad and not twin.act_fun[1].linear.base_weight.requires_grad
    assert [layer.linear.grid_eps for layer in loaded.act_fun] == [0.02, 0.02, 0.7]


def test_frozen_formulas_stay_frozen():
    model = shaken(KAN([3, 2, 1], dtype=torch.float64), symbolic=0.6)
    model.symbolic_fun[0].affine.requires_grad_(False)
    model.expand_width(1, 1)
    assert not model.symbolic_fun[0].affine.requires_grad and model.symbolic_fun[1].affine.requires_grad


def test_knots_in_a_file_are_exact(tmp_path):
    model = KAN([3, 1], dtype=torch.float64)
    model.act_fun[0].linear.set_grid(model.act_fun[0].grid.float().double() * (1 + 2**-22))
    model.act_fun[0].linear.set_grid(model.act_fun[0].grid.float().double())
    model.save(tmp_path / "model.pt")
    assert torch.equal(KAN.load(tmp_path / "model.pt").act_fun[0].grid, model.act_fun[0].grid)


def test_files_of_the_first_format(tmp_path):
    model = shaken(KAN(**MIXED, dtype=torch.float64), symbolic=0.4)
    content = {"format": "fastkan.KAN 1", "config": checkpoint.json.dumps(model.config()), "state": model.state_dict()}
    torch.save(content, tmp_path / "old.pt")
    assert torch.equal(KAN.load(tmp_path / "old.pt")(X), model(X))
    torch.save({**content, "format": "fastkan.KAN 9"}, tmp_path / "new.pt")
    with pytest.raises(ValueError, match="of format 'fastkan.KAN 1' or 'fastkan.KAN 2'"):
        KAN.load(tmp_path / "new.pt")


@pytest.mark.parametrize("broken", ["config", "state", "layers", "trainable"])
def test_broken_files(broken, tmp_path):
    KAN([2, 1]).save(tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    for value in (None, "[1", 3):
        torch.save({**content, broken: value}, tmp_path / "broken.pt")
        with pytest.raises(ValueError, match="expected a (complete )?file of KAN.save"):
            KAN.load(tmp_path / "broken.pt")


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    model = KAN([2, 1])
    path = tmp_path / "model.pt"
    model.save(path)
    before = path.read_bytes()

    def half(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", half)
    with pytest.raises(OSError, match="No space"):
        model.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model.pt"]


WRITERS = {
    "save": (lambda model, path: model.save(path), "model.pt"),
    "to_html": (lambda model, path: model.to_html(path), "page.html"),
    "plot": (lambda model, path: model.plot(path=path), "diagram.pdf"),
    "plot_edge": (lambda model, path: model.plot_edge(0, 0, 0, path=path), "edge.png"),
}


@pytest.mark.parametrize(("write", "name"), WRITERS.values(), ids=WRITERS.keys())
def test_errors_of_writing_name_the_path(write, name, tmp_path):
    if name.endswith((".pdf", ".png")):
        pytest.importorskip("matplotlib")
    model = KAN([2, 1])
    model.get_act(torch.rand(20, 2))
    (tmp_path / "file").touch()
    paths = {
        tmp_path / "nowhere" / name: FileNotFoundError,
        tmp_path / "file" / name: NotADirectoryError,
        tmp_path / (300 * "x" + name): OSError,
    }
    for path, error in paths.items():
        with pytest.raises(error) as raised:
            write(model, path)
        assert raised.value.filename == str(path)
    write(model, tmp_path / ((250 - len(name)) * "x" + name))  # as long as a name may be, or nearly
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.name == "nt", reason="links and modes are POSIX's")
def test_saving_follows_links_and_permissions(tmp_path):
    path, link = tmp_path / "model.pt", tmp_path / "latest.pt"
    link.symlink_to(path)
    KAN([2, 1]).save(link)
    (tmp_path / "other").touch()
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    with pytest.raises(FileNotFoundError):
        KAN([2, 1]).save(tmp_path / "no" / "model.pt")
    with pytest.raises(FileNotFoundError):
        KAN.load(tmp_path / "none.pt")


def test_files_that_are_open():
    file = io.BytesIO()
    model = KAN([2, 1])
    model.save(file)
    file.seek(0)
    assert torch.equal(KAN.load(file)(X[:, :2].float()), model(X[:, :2].float()))


# pykan's names


def test_pykan_names_without_effect():
    model = KAN([3, 1], save_act=True, auto_save=False, ckpt_path="./model")
    assert model.speed() is model
    assert [id(p) for p in model.get_params()] == [id(p) for p in model.parameters()]
    model.save_act, model.auto_save = False, False
    assert model(X.float()).shape == (25, 1)
