"""Models, state dicts and checkpoints between pykan 0.2.8 and fastkan: exact, both ways, without running code."""

import pickle
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastkan import KAN
from fastkan.compat.pykan import (
    from_pykan,
    from_pykan_state,
    load_checkpoint,
    save_checkpoint,
    to_pykan,
    to_pykan_state,
)
from support.pykan import SHAPES, data, our_kan, pykan_model, real_kan

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(params=[False, True], ids=["numeric", "symbolic"])
def symbolic(request) -> bool:
    return request.param


@pytest.fixture(params=SHAPES, ids=lambda s: str(s["width"]))
def theirs(request, symbolic):
    return pykan_model(symbolic=symbolic, **request.param)


def same_state(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if "scale_base" not in name:  # where the base function is zero, there is none here
            assert torch.equal(found[name], value.to(found[name].dtype)), name


def test_there_and_back_is_the_same_model(theirs):
    mine = from_pykan(theirs, exact=True)
    again = to_pykan(mine)
    assert type(again) is type(theirs) and again.mult_arity == theirs.mult_arity
    x = data(theirs.width_in[0])
    torch.testing.assert_close(again(x), theirs(x), **CLOSE)
    same_state(to_pykan_state(mine), theirs.state_dict())
    for a, b in zip(again.symbolic_fun, theirs.symbolic_fun, strict=True):
        assert a.funs_name == b.funs_name


def test_a_state_dict_is_enough_for_a_numeric_model(theirs, symbolic):
    names = [layer.funs_name for layer in theirs.symbolic_fun] if symbolic else None
    mine = from_pykan_state(
        theirs.state_dict(), theirs.width, theirs.mult_arity, names, base_fun=theirs.base_fun_name, exact=True
    )
    x = data(theirs.width_in[0])
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-9, atol=1e-10)
    theirs.load_state_dict(to_pykan_state(mine))


def test_the_width_is_read_off_where_no_node_multiplies():
    theirs = pykan_model(width=[2, 3, 1])
    assert from_pykan_state(theirs.state_dict()).width == [[2, 0], [3, 0], [1, 0]]
    theirs = pykan_model(width=[2, [1, 2], 1])
    with pytest.raises(ValueError, match="width=None: expected the width"):
        from_pykan_state(theirs.state_dict())
    with pytest.raises(ValueError, match="act_fun.0.coef has shape .* with width=.2, 4, 1"):
        from_pykan_state(theirs.state_dict(), [2, 4, 1])
    with pytest.raises(ValueError, match="expected a state dict of pykan's"):
        from_pykan_state({"weight": torch.zeros(2)})


def test_single_precision_goes_there_and_back_bit_for_bit():
    with real_kan() as kan:
        theirs = kan.KAN([2, 3, 1], grid=20, auto_save=False)
        again = to_pykan(from_pykan(theirs, exact=True))
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_trained_models_convert_to_pykan():
    x = data(3)
    model = KAN([3, [2, 1], 1], grid=4, mult_arity=3, dtype=torch.float64, seed=3, outside="zero")
    model.fit((x, x.prod(1, keepdim=True)), steps=3, progress=False)
    model = model.prune_input(active_inputs=[2, 0])
    model.fix_symbolic(0, 0, 0, "sin", verbose=False)
    state, kept = torch.get_rng_state(), (np.random.get_state()[1].copy(), random.getstate())
    theirs = to_pykan(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == kept[0]).all() and random.getstate() == kept[1]
    torch.testing.assert_close(theirs(x), model(x), rtol=1e-9, atol=1e-10)


def test_the_installed_model_loads_pykans_state_dict():
    theirs = pykan_model(width=[2, [1, 2], 1], symbolic=True)
    with our_kan() as kan:
        mine = kan.KAN([2, [1, 2], 1], auto_save=False).double()
        mine.symbolic_fun[0].funs_name = theirs.symbolic_fun[0].funs_name
        mine.symbolic_fun[1].funs_name = theirs.symbolic_fun[1].funs_name
        mine.load_state_dict(theirs.state_dict())
        x = data(2)
        torch.testing.assert_close(mine(x), theirs(x), rtol=1e-5, atol=1e-5)
        mine.load_state_dict(mine.state_dict())


def test_outside_in_conversion_to_pykan():
    model, x = KAN([2, 1], dtype=torch.float64), data(2).clamp(-1, 1)
    with pytest.warns(UserWarning, match="outside='linear', and pykan's is 'zero'"):
        theirs = to_pykan(model)
    torch.testing.assert_close(theirs(x), model(x), rtol=1e-9, atol=1e-10)
    assert from_pykan(theirs).act_fun[0].linear.outside == "zero"
    assert from_pykan(theirs, outside="linear").act_fun[0].linear.outside == "linear"


def test_the_installed_models_are_zero_outside_as_pykans():
    with our_kan() as kan:
        from kan.compiler import kanpiler

        x = kan.sympy.Symbol("x")
        made = kan.KAN([2, 3, 1], auto_save=False), kanpiler([x], x**2), kan.KAN.kolmogorov(2, auto_save=False)
        for model in (*made, made[0].refine(5), made[0].copy()):
            assert {layer.linear.outside for layer in model.act_fun} == {"zero"}
        made[0].expand_depth()
        assert made[0].act_fun[-1].linear.outside == "zero"


def test_to_pykan_says_why_not():
    with our_kan(), pytest.raises(RuntimeError, match="uninstall"):
        to_pykan(KAN([2, 1]))


# Checkpoints


def test_pykans_checkpoint_is_read(theirs, tmp_path, capsys):
    x = data(theirs.width_in[0])
    theirs(x)
    theirs.saveckpt(f"{tmp_path}/mark")
    mine = load_checkpoint(tmp_path / "mark", exact=True)
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-9, atol=1e-10)
    assert torch.equal(mine.cache_data, x) and mine.width == theirs.width
    with our_kan() as kan:  # which takes knots that were rounded to float32 for the equidistant ones that they were
        torch.testing.assert_close(kan.KAN.loadckpt(f"{tmp_path}/mark")(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_pykan_reads_ours(theirs, tmp_path):
    mine, x = from_pykan(theirs, exact=True), data(theirs.width_in[0])
    save_checkpoint(mine, tmp_path / "mark")
    torch.testing.assert_close(load_checkpoint(tmp_path / "mark")(x), mine(x), rtol=0, atol=0)
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with real_kan() as kan:
            torch.testing.assert_close(kan.KAN.loadckpt(f"{tmp_path}/mark")(x), theirs(x), rtol=1e-9, atol=1e-10)
    finally:
        torch.set_default_dtype(dtype)


def test_numbers_in_the_configuration_are_numbers_for_yaml(tmp_path):
    yaml = pytest.importorskip("yaml")
    save_checkpoint(KAN([2, 1], grid_eps=1e-6, grid_range=(-1e20, 2.5)), tmp_path / "m")
    found = yaml.safe_load((tmp_path / "m_config.yml").read_text())
    assert found["grid_eps"] == 1e-6 and found["grid_range"] == [-1e20, 2.5]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    theirs = pykan_model(width=[2, 1], base_fun=torch.tanh)
    theirs.saveckpt(f"{tmp_path}/m")
    assert "!!python/name" in (tmp_path / "m_config.yml").read_text()
    with pytest.raises(ValueError, match="base_fun=None: expected the base function"):
        load_checkpoint(tmp_path / "m")
    x = data(2)
    mine = load_checkpoint(tmp_path / "m", exact=True, base_fun=torch.tanh)
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-9, atol=1e-10)
    trace = tmp_path / "ran"
    config = tmp_path / "m_config.yml"
    config.write_text(config.read_text() + f"more: !!python/object/apply:os.mkdir ['{trace}']\n")
    load_checkpoint(tmp_path / "m", base_fun=torch.tanh)

    class Evil:
        def __reduce__(self):
            return Path.mkdir, (trace,)

    (tmp_path / "m_state").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match="m_state.*expected tensors"):
        load_checkpoint(tmp_path / "m", base_fun=torch.tanh)
    assert not trace.exists()


def test_invalid_checkpoints(tmp_path):
    with pytest.raises(OSError):
        load_checkpoint(tmp_path / "nothing")
    (tmp_path / "m_config.yml").write_text("hello: [")
    with pytest.raises(ValueError, match="m_config.yml.*expected a configuration"):
        load_checkpoint(tmp_path / "m")
    (tmp_path / "m_config.yml").write_text("hello: 1\n")
    with pytest.raises(ValueError, match="m_config.yml.*expected a configuration"):
        load_checkpoint(tmp_path / "m")


def test_without_pyyaml_the_extra_is_named(tmp_path, monkeypatch):
    pykan_model(width=[2, 1]).saveckpt(f"{tmp_path}/m")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ImportError, match=r"pip install pyyaml"):
        load_checkpoint(tmp_path / "m")
