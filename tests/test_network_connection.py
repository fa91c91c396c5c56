"""connection_cost and auto_swap: shorter wiring of the same function."""

import itertools

import pytest
import torch

from fastkan import KAN
from fastkan.network.edit import rearrange
from support.models import inputs, shaken

X = inputs(40, 3)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11 * max(1.0, b.abs().max().item()))


def model_of(width: list, arity=2, symbolic: float = 0.3, seed: int = 0) -> KAN:
    model = shaken(KAN(width, mult_arity=arity, dtype=torch.float64), symbolic, 0.1, seed)
    model.get_act(X)
    return model


def by_hand(model: KAN) -> float:
    total = 0.0
    for scores in model.edge_scores:
        outputs, inputs_ = scores.shape
        for o, i in itertools.product(range(outputs), range(inputs_)):
            total += scores[o, i].item() * abs((i + 0.5) / inputs_ - (o + 0.5) / outputs)
    return total


def test_the_cost_is_length_times_score():
    model = model_of([3, [3, 2], 2], 3)
    cost = model.connection_cost
    assert cost.item() == pytest.approx(by_hand(model))
    with pytest.raises(ValueError, match="expected data"):
        KAN([2, 1]).connection_cost  # noqa: B018


@pytest.mark.parametrize("seed", range(4))
def test_swaps_find_the_best_order_of_few_nodes(seed):
    model = model_of([3, 4, 2], seed=seed)
    y, before = model(X), model.connection_cost
    costs = []
    for order in itertools.permutations(range(4)):
        other = model.copy()
        rearrange(other, 1, list(order))
        costs.append(other.connection_cost.item())
    model.auto_swap_l(1)
    same(model(X), y)
    after = model.connection_cost.item()
    assert after <= before.item() and after <= sorted(costs)[2]
    pairs = itertools.combinations(range(4), 2)
    for i, j in pairs:  # no swap is left that helps
        other = model.copy()
        other.swap(1, i, j)
        assert other.connection_cost.item() >= after - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_products_swap_with_products(seed):
    model = model_of([3, [3, 4], [2, 3], 2], [[], [2, 3, 2, 3], [2, 2, 2], []], seed=seed)
    y, before, arity = model(X), model.connection_cost.item(), [list(a) for a in model.mult_arity]
    model.auto_swap()
    same(model(X), y)
    assert model.connection_cost.item() < before and model.mult_arity == arity
    for l, i, j in ((1, 3, 5), (1, 4, 6), (2, 2, 3), (2, 3, 4), (2, 0, 1)):
        other = model.copy()
        other.swap(l, i, j)
        last = l == 2  # a swap in the first layer may pay again after those in the second
        assert not last or other.connection_cost.item() >= model.connection_cost.item() - 1e-9


def test_layer_without_swaps():
    model = model_of([3, 2, 2])
    with pytest.raises(ValueError, match="l=0: expected a hidden layer, 1 to 1"):
        model.auto_swap_l(0)


@pytest.mark.parametrize("width", [[3, 5, 1], [3, 4, 2]])
def test_against_pykan(width):
    pytest.importorskip("kan", reason="pykan is not installed", exc_type=ImportError)
    from fastkan.compat.pykan import from_pykan
    from support.pykan import pykan_model

    theirs = pykan_model(width=width)
    mine = from_pykan(theirs, exact=True)
    theirs.get_act(X)
    theirs.attribute()
    mine.get_act(X)
    # pykan has the nodes' places in float32
    torch.testing.assert_close(mine.connection_cost, theirs.connection_cost.detach(), rtol=1e-6, atol=0)
    before = theirs(X)
    theirs.auto_swap()
    assert (theirs(X) - before).abs().max() > 0.1  # its swaps change the function
    one_pass, y = mine.copy(), mine(X)
    for i in range(width[1]):  # what it means to do: every node to where it costs least
        costs = []
        for j in range(width[1]):
            other = one_pass.copy()
            other.swap(1, i, j)
            costs.append(other.connection_cost.item())
        one_pass.swap(1, i, costs.index(min(costs)))
    mine.auto_swap()
    same(mine(X), y)
    assert mine.connection_cost.item() <= one_pass.connection_cost.item() + 1e-9


def test_modules_are_cut_off():
    model = shaken(KAN([4, [2, 1], 3], dtype=torch.float64), symbolic=0.5)
    numeric, symbolic = model.act_fun[0].mask.clone(), model.symbolic_fun[0].mask.clone()
    model.module(0, "[0,-1]->[0, 3]->[2]->[1]")
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[[[0], [3]], [0, 3]] = True
    inside[[[1], [2]], [1, 2]] = True
    assert torch.equal(model.act_fun[0].mask, numeric * inside)
    assert torch.equal(model.symbolic_fun[0].mask, symbolic * inside.T)
    kept = torch.ones(3, 3, dtype=torch.bool)
    kept[2], kept[:, 1] = False, False
    kept[2, 1] = True
    edges = (model.act_fun[1].mask != 0) | (model.symbolic_fun[1].mask.T != 0)
    assert not edges[~kept].any() and edges[kept].any()
    before = model.state_dict()["act_fun.0.edge_mask"].clone()
    for chain, error, message in (
        ("[0]->[1]->[2]", ValueError, "expected pairs of groups, at most 4 groups"),
        ("[0]->[1]->[2]->[1]->[0]->[0]", ValueError, "at most 4 groups from layer 0"),
        ("[0]->(1)", ValueError, r"has '\(1\)': expected groups like"),
        ("[0]->[a]", ValueError, r"has '\[a\]'"),
        ("[0]->[0]->[7]->[0]", IndexError, "chain=7: expected an integer from 0 to 2"),
    ):
        with pytest.raises(error, match=message):
            model.module(0, chain)
    assert torch.equal(model.act_fun[0].mask, before)


def test_modules_like_pykans():
    pytest.importorskip("kan", reason="pykan is not installed", exc_type=ImportError)
    from fastkan.compat.pykan import from_pykan
    from support.pykan import pykan_model

    theirs = pykan_model(width=[3, 4, 2], symbolic=True)
    mine = from_pykan(theirs, exact=True)
    for model in (mine, theirs):
        model.module(0, "[0,2]->[1,3]->[1,3]->[0]")
    for a, b in zip(mine.act_fun, theirs.act_fun, strict=True):
        assert torch.equal(a.mask, b.mask)
    torch.testing.assert_close(mine(X), theirs(X), rtol=1e-9, atol=1e-9)
