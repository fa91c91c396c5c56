"""auto_symbolic's report (edges that stay numeric, bad fits, changed outputs) and its undo."""

import copy
import warnings

import pytest
import torch

from fastkan.compat.pykan import MultKAN
from fastkan.network.formulas.edges import EdgeReport, Report
from support.symbolic import after_forward, fit_edge, kan, same, state, uniform


def wild(x):
    return torch.sin(20 * x) * torch.cos(13 * x**2)


def mixed(kind=kan, **options):
    """[2, 1]: a sine, and a function that is none of the library's."""
    model = kind((2, 1), grid=60, base_fun="zero", **options)
    x = uniform(400, 2, seed=3)
    fit_edge(model.act_fun[0], 0, 0, lambda t: torch.sin(2 * t), x[:, 0])
    fit_edge(model.act_fun[0], 1, 0, wild, x[:, 1])
    model.get_act(x)
    return model


def test_unfitted_edges_stay_numeric_and_warn(capsys):
    model = mixed()
    y = model(model.cache_data)
    with pytest.warns(UserWarning, match=r"no function fits the edges \(0,1,0\) .* r2=0.*which stay numeric") as caught:
        report = model.auto_symbolic()
    assert caught[0].filename == __file__ and "undo()" in str(caught[0].message)
    assert isinstance(report, Report) and isinstance(report.edges[0], EdgeReport)
    assert [(e.l, e.i, e.j, e.stays) for e in report.edges] == [(0, 0, 0, False), (0, 1, 0, True)]
    assert report.numeric == report.edges[1:] and report.edges[0].r2 > 0.999 > 0.9 > report.edges[1].r2
    assert model.act_fun[0].mask.tolist() == [[0], [1]] and model.symbolic_fun[0].funs_name == [["sin", "0"]]
    change = (model(model.cache_data) - y).square().mean().sqrt() / y.std(correction=0)
    assert report.change == pytest.approx(change.item()) and report.change < 1e-3
    assert "1 edges are symbolic, 1 stay numeric; the outputs change by 0.0" in capsys.readouterr().out


@pytest.mark.parametrize("verbose", [0, 1])
def test_bad_fits_warn_and_can_be_undone(verbose):
    model = mixed()
    before, y = copy.deepcopy(state(model)), model(model.cache_data)
    with pytest.warns(UserWarning, match=r"edges \(0,1,0\).* fit badly \(r2 below 0.9\); the outputs change by [1-9]"):
        report = model.auto_symbolic(r2_threshold=0.0, verbose=verbose)
    assert not report.numeric and report.change > 0.1
    model.fit((model.cache_data, y.detach()), steps=3, progress=False)
    report.undo()
    assert same(before, state(model)) and torch.equal(model(model.cache_data), y)
    assert all(p.requires_grad for p in model.act_fun[0].parameters())


def test_undo_brings_back_masks_constants_and_edges_that_were_symbolic():
    model = after_forward(kan((3, 2, 1)))
    model.fix_symbolic(0, 0, 0, "tanh", verbose=False)
    model.remove_edge(0, 1, 0)
    model.act_fun[0].mask[2, 1] = 0.5
    with torch.no_grad():
        model.act_fun[0].coef[2, 0], model.act_fun[0].scale_base[2, 0] = 0.0, 0.0
    before, y = copy.deepcopy(state(model)), model(model.cache_data)
    with warnings.catch_warnings(record=True):
        report = model.auto_symbolic(verbose=0, r2_threshold=0.0)
    assert model.symbolic_fun[0].mask[0, 2] == 0 == model.act_fun[0].mask[2, 0], "a constant of 0 is off"
    report.undo()
    assert same(before, state(model)) and torch.equal(model(model.cache_data), y)
    smaller = after_forward(kan((3, 2, 1)))
    with warnings.catch_warnings(record=True):
        report = smaller.auto_symbolic(verbose=0)
    smaller.expand_width(1, 1)
    with pytest.raises(ValueError, match="expected .*as before auto_symbolic"):
        report.undo()


def test_functions_that_reach_the_threshold_go_before_simpler_ones():
    model = kan((1, 1), grid=40, base_fun="zero")
    fit_edge(model.act_fun[0], 0, 0, lambda t: torch.tanh(3 * t), uniform(400, seed=1))
    after_forward(model)
    options = {"lib": ["x", "tanh"], "weight_simple": 0.95, "verbose": 0}
    with pytest.warns(UserWarning, match="the outputs change by"):
        report = model.auto_symbolic(r2_threshold=0.0, **options)
    assert report.edges[0].name == "x" and 0.8 < report.edges[0].r2 < 0.99
    report.undo()
    assert model.auto_symbolic(r2_threshold=0.999, **options).edges[0].name == "tanh"


def test_no_warnings_where_all_fits(recwarn):
    model = kan((1, 1), grid=40, base_fun="zero")
    fit_edge(model.act_fun[0], 0, 0, lambda t: torch.sin(2 * t), uniform(400, seed=1))
    assert after_forward(model).auto_symbolic(verbose=0).change < 1e-4
    assert model.auto_symbolic(verbose=0).edges == [] and not recwarn.list


def test_as_pykan_every_edge_gets_a_function_and_a_word():
    model = mixed(lambda *args, **options: MultKAN(*args, auto_save=False, **options), dtype=torch.float64)
    with pytest.warns(UserWarning, match="fit badly"):
        report = model.auto_symbolic(verbose=0)
    assert not model.act_fun[0].active and not report.numeric
    report.undo()
    with pytest.warns(UserWarning, match="stay numeric"):
        assert len(model.auto_symbolic(verbose=0, r2_threshold=0.9).numeric) == 1


def test_classes_are_kept():
    """Accuracy is kept where no function of the library fits."""
    x = uniform(600, 2, seed=2)
    label = (wild(x[:, :1] / 2) + wild(x[:, 1:] / 2) > 0).double()
    model = kan((2, 1), grid=60, base_fun="zero")
    for i in range(2):
        fit_edge(model.act_fun[0], i, 0, lambda t: wild(t / 2), x[:, i])
    model.get_act(x)

    def accuracy() -> float:
        return ((model(x) > 0).double() == label).double().mean().item()

    before = accuracy()
    with pytest.warns(UserWarning, match="stay numeric"):
        model.auto_symbolic(verbose=0)
    assert accuracy() == before > 0.98
