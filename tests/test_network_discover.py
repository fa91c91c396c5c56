"""KAN.discover, from data to the exact formula: noise, several outputs, shapes, errors."""

import pytest
import torch

from fastkan import KAN
from fastkan.network.formulas import networks
from support.tiers import long

sympy = pytest.importorskip("sympy")


def uniform(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


X, Y = sympy.symbols("x_1 x_2")
# formula, range of its inputs, shapes that are looked in
FORMULAS = {
    "exp": (sympy.exp(sympy.sin(sympy.pi * X) + Y**2), -1, 1, [[2, 1, 1]]),
    "squares": (X * Y, -1, 1, [[2, 2, 1]]),
    "product": (X * Y, -1, 1, [[2, [0, 1], 1]]),
    "ratio": (X / Y, 0.5, 2, [[2, 1, 1]]),
    "length": (sympy.sqrt(X**2 + Y**2), -1, 1, [[2, 1, 1]]),
    "velocities": ((X + Y) / (1 + X * Y), -0.9, 0.9, [[2, 1, 1]]),
}


@pytest.mark.parametrize("name", ["exp", "velocities", *long("squares", "product", "ratio", "length")])
def test_the_exact_formula_is_found(name):
    truth, low, high, shapes = FORMULAS[name]
    x = uniform(400, 2, seed=1, low=low, high=high)
    y = torch.from_numpy(sympy.lambdify((X, Y), truth)(*x.numpy().T))
    found = KAN.discover((x, y), shapes, verbose=False)
    assert found.exact and found.error < 1e-12
    assert repr(found) == f"Discovery(formulas={found.formulas}, error={found.error:.3g}, exact=True)"
    assert sympy.simplify(found.formulas[0] - truth) == 0
    assert found.inputs == [X, Y] and not any(layer.active for layer in found.model.act_fun)
    torch.testing.assert_close(found.model(x)[:, 0], y, rtol=1e-9, atol=1e-9)


def test_by_itself_with_names_and_two_outputs(capsys):
    x = uniform(300, 2, seed=3)
    y = torch.stack([2 * x[:, 0] - 0.5 * x[:, 1] + 3, x[:, 1] ** 2], 1)
    found = KAN.discover({"train_input": x, "train_label": y}, var=["p", "q"])
    p, q = sympy.symbols("p q")
    assert found.formulas == [2 * p - q / 2 + 3, q**2] and found.exact
    assert "s, relative error" in capsys.readouterr().out
    assert not KAN([2, 2]).symbolic_fun[0].active


def test_noise_is_not_explained():
    x = uniform(400, 2, seed=4)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = 3 * x[:, 0] + torch.sin(torch.pi * x[:, 1]) + 0.02 * noise
    found = KAN.discover((x, y), starts=2, verbose=False)
    spread = float(y.std())
    assert not found.exact and 0.5 * 0.02 / spread < found.error < 2 * 0.02 / spread
    assert found.model.width == [[2, 0], [1, 0]]
    truth = 3 * X + sympy.sin(sympy.pi * X.func("x_2"))
    assert sympy.simplify(found.formulas[0] - truth) == 0


def test_constant_labels():
    found = KAN.discover((uniform(50, 2), torch.full((50,), 0.75).double()), verbose=False)
    assert found.formulas == [sympy.Rational(3, 4)] and found.exact


def test_is_repeatable_and_draws_no_random_numbers():
    x = uniform(200, 1, seed=2)
    y = torch.tanh(2 * x + 0.3)
    before = torch.get_rng_state()
    first, second = (KAN.discover((x, y), [[1, 1]], starts=2, verbose=False) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.formulas == second.formulas and first.error == second.error
    assert str(first.formulas[0]) == "tanh(2*x_1 + 3/10)"


def test_own_function_library():
    x = uniform(200, 1, seed=2)
    found = KAN.discover((x, torch.sin(3 * x)), [[1, 1]], lib=["x", "x^2"], starts=2, verbose=False)
    assert {name for layer in found.model.symbolic_fun for row in layer.funs_name for name in row} <= {"x", "x^2"}
    assert not found.exact


def test_errors():
    x = uniform(20, 2)
    with pytest.raises(ValueError, match="NaN"):
        KAN.discover((x, x[:, 0] / 0 * 0))
    with pytest.raises(TypeError, match="dataset"):
        KAN.discover(x)
    with pytest.raises(ValueError, match="starts=0"):
        KAN.discover((x, x), starts=0)
    with pytest.raises(KeyError, match="sine"):
        KAN.discover((x, x), lib=["sine"])
    x = uniform(400, 2)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(ValueError, match=r"no network of the shapes \[\[2, 1\]\] fits"):
        KAN.discover((x, noise), [[2, 1]], starts=1, verbose=False)


def test_best_first_orders_all_choices():
    costs = [[0.0, 1.0, 5.0], [0.5, 0.6], [2.0, 2.5]]
    choices = list(networks._best_first(costs))
    sums = [sum(cost[at] for cost, at in zip(costs, choice, strict=True)) for choice in choices]
    assert len(set(choices)) == 12 and sums == sorted(sums)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: 3 * (2 * x).sqrt() + 1,
        lambda x: (1 - x).sqrt(),
        lambda x: (2 * x - 1).asin(),
    ],
    ids=["sqrt", "the right end", "arcsin"],
)
def test_data_that_reach_the_edge_of_a_domain(f):
    """The first network is exact, as it is where they end before."""
    x = torch.linspace(0, 1, 41, dtype=torch.float64)[:, None]
    found = KAN.discover((x, f(x)), shapes=[[1, 1]], starts=4, verbose=False)
    assert found.exact
    (symbol,) = found.inputs
    at = [0, 0.25, 1]
    values = [float(found.formulas[0].subs(symbol, point)) for point in at]
    torch.testing.assert_close(torch.tensor(values), f(torch.tensor(at)), rtol=1e-6, atol=1e-6)
