"""KAN: forward, initialization, devices and dtypes, copies, tracing, loading."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import fastkan
from fastkan import KAN
from fastkan.compat.fast_kan import FastKAN
from fastkan.functional import kan_linear
from fastkan.network.checkpoint import trained
from fastkan.network.layers.numeric import KANLayer
from support.models import CLOSE, MIXED, inputs, shaken


def by_hand(model: KAN, x: torch.Tensor) -> torch.Tensor:
    """The formula of the network, edge by edge."""
    for l in range(model.depth):
        numeric, symbolic = model.act_fun[l], model.symbolic_fun[l]
        sums = []
        for j in range(numeric.out_dim):
            total = torch.zeros(len(x), dtype=x.dtype)
            for i in range(numeric.in_dim):
                spline = kan_linear(
                    x[:, i : i + 1], numeric.coef[i, j][None, :, None], numeric.grid[i], degree=numeric.k,
                    backend="reference",
                )[:, 0]  # fmt: skip
                phi = numeric.scale_base[i, j] * nn.functional.silu(x[:, i]) + numeric.scale_sp[i, j] * spline
                total = total + numeric.mask[i, j] * phi
                a, b, c, d = symbolic.affine[j, i]
                f = fastkan.network.layers.library.SYMBOLIC_LIB[symbolic.funs_name[j][i]].torch_fn
                total = total + symbolic.mask[j, i] * (c * f(a * x[:, i] + b) + d)
            sums.append(model.subnode_scale[l][j] * total + model.subnode_bias[l][j])
        nodes = []
        for m, group in enumerate(model.subnodes(l + 1)):
            product = torch.ones(len(x), dtype=x.dtype)
            for j in group:
                product = product * sums[j]
            nodes.append(model.node_scale[l][m] * product + model.node_bias[l][m])
        x = torch.stack(nodes, 1)
    return x


def gradients(model: KAN, y: torch.Tensor, *others) -> list[torch.Tensor]:
    wanted = [p for p in model.parameters() if p.requires_grad] + list(others)
    return list(torch.autograd.grad(y.square().sum(), wanted))


SHAPES = [
    {"width": [2, 3, 1]},
    {"width": [1, 1], "k": 0},
    {"width": [2, [0, 2], 1], "mult_arity": 3},
    {"width": [2, [2, 1], [0, 1]], "mult_arity": [[], [4], [2]]},
    {"width": [2, [1, 2], 1], "mult_arity": [[], [1, 3], []]},
    MIXED,
]


@pytest.mark.parametrize("off", [0.0, 0.5])
@pytest.mark.parametrize("symbolic", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape["width"]))
def test_is_the_formula(shape, symbolic, off):
    model = shaken(KAN(**shape, affine_trainable=True, outside="zero", dtype=torch.float64), symbolic, off)
    x = inputs(9, model.width[0][0]).requires_grad_()
    y, truth = model(x), by_hand(model, x)
    torch.testing.assert_close(y, truth, **CLOSE)
    wanted = [*(p for p in model.parameters() if p.requires_grad), x]
    found, expected = (torch.autograd.grad(z.square().sum(), wanted, materialize_grads=True) for z in (y, truth))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_any_base_function_is_masked_too():
    model = KAN([2, 2], base_fun=torch.tanh, dtype=torch.float64)
    whole = model(inputs(5, 2))
    model.act_fun[0].mask[0, 0] = 0.0
    phi = model.act_fun[0].edge_values(inputs(5, 2), torch.tensor([0]), torch.tensor([0]), masked=False)
    torch.testing.assert_close(model(inputs(5, 2))[:, 0], whole[:, 0] - phi[:, 0], **CLOSE)
    assert KAN([2, 1], base_fun="zero")(inputs(5, 2).float()).shape == (5, 1)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (0, 3), (2, 4, 3), (2, 0, 4, 3)])
def test_leading_dimensions(shape):
    model = KAN([3, [2, 1], 2])
    x = inputs(*shape).float().requires_grad_()
    y = model(x)
    assert y.shape == (*shape[:-1], 2)
    torch.testing.assert_close(y.reshape(-1, 2), model(x.reshape(-1, 3)))
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_inputs_and_outputs_without_numeric_edges_are_left_out(monkeypatch):
    model = KAN([4, 5])
    seen = []
    apply = fastkan.functional.apply
    monkeypatch.setattr(fastkan.functional, "apply", lambda x, coef, *a: seen.append(coef.shape) or apply(x, coef, *a))
    x = inputs(6, 4).float()
    model(x)
    model.act_fun[0].mask[1] = 0.0
    model.act_fun[0].mask[:, 3] = 0.0
    model(x)
    model.act_fun[0].mask.zero_()
    assert torch.equal(model(x), torch.zeros(6, 5))
    assert seen == [(4, 6, 5), (3, 6, 4)]


def test_mask_changes_in_every_way():
    model, x = KAN([2, 3]), inputs(6, 2).float()
    whole = model(x)
    mask = model.act_fun[0].mask
    mask.data[0] = 0.0
    without = model(x)
    assert not torch.equal(whole, without)
    mask.fill_(1.0)
    assert torch.equal(model(x), whole)
    model.act_fun[0].mask = torch.tensor([[0.0] * 3, [1.0] * 3])
    assert torch.equal(model(x), without)


def test_an_edge_takes_part_in_training_by_its_mask():
    model, x = KAN([2, 2, 1]), inputs(6, 2).float()
    model.act_fun[0].mask[0, 1] = 0.0
    model(x).sum().backward()
    coef, scale = model.act_fun[0].linear.coef.grad, model.act_fun[0].scale_sp.grad
    assert not coef[0, :, 1].any() and not scale[0, 1] and coef[0, :, 0].any() and scale[0, 0]
    assert not model.symbolic_fun[0].affine.requires_grad
    model.act_fun[1].mask.zero_()
    model.symbolic_fun[1].set_edge(0, 0, "sin")
    model.zero_grad()
    model(x).sum().backward()
    off = list(model.act_fun[1].linear.parameters())
    assert all(p.requires_grad and p.grad is None for p in off)
    assert {id(p) for p in trained(model)} == {id(p) for p in model.parameters() if p.grad is not None}
    model.act_fun[1].mask.fill_(1.0)
    model(x).sum().backward()
    assert all(p.grad is not None for p in off)


def test_singularities_are_avoided_on_demand():
    model = KAN([1, 1])
    model.act_fun[0].mask.zero_()
    model.symbolic_fun[0].set_edge(0, 0, "1/x")
    x = torch.tensor([[0.0], [1e-3], [2.0]])
    assert model(x).isinf().any()
    y = model(x, singularity_avoiding=True, y_th=10.0)
    assert y.abs().max() <= 10.0 and y[2] == 0.5


# How it starts


def test_the_start_depends_on_the_seed_alone():
    before = torch.get_rng_state()
    a, b, c = KAN([2, 3, 1], seed=3), KAN([2, 3, 1], seed=3), KAN([2, 3, 1], seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.act_fun[0].linear.coef, c.act_fun[0].linear.coef)


def test_initialization_options():
    model = KAN([4, 6, 1], sparse_init=True, sp_trainable=False, sb_trainable=False, affine_trainable=True)
    mask = model.act_fun[0].mask
    assert 0 < mask.sum() < mask.numel() and mask.any(0).all() and mask.any(1).all()
    assert torch.equal(model.act_fun[0].scale_sp != 0, mask != 0)
    assert not model.act_fun[0].scale_sp.requires_grad and not model.act_fun[0].scale_base.requires_grad
    assert all(p.requires_grad for p in [*model.node_bias, *model.subnode_scale])
    assert not any(p.requires_grad for p in KAN([2, 1]).node_bias)


def test_attributes_by_pykans_names():
    model = KAN(**MIXED)
    assert model.width == [[3, 0], [2, 2], [1, 1], [2, 0]] and model.depth == 3
    assert model.width_in == [3, 4, 2, 2] and model.width_out == [3, 7, 3, 2]
    assert model.grid == [3, 5, 2] and model.k == [3, 2, 1] and KAN([2, 1]).grid == KAN([2, 1]).k == 3
    assert model.n_sum == [2, 1] and model.n_mult == [2, 1] and model.biases is model.node_bias
    layer = model.act_fun[0]
    assert layer.coef.shape == (3, 7, 6) and layer.grid.shape == (3, 10) and layer.mask.shape == (3, 7)
    assert model.symbolic_fun[0].affine.shape == (7, 3, 4) and model.symbolic_enabled and model.base_fun == "silu"
    assert KAN.kolmogorov(4, grid=5).width_in == [4, 9, 1]
    assert model.n_edge == 21 + 12 + 4


def test_pykans_views_share_memory():
    layer = KAN([2, 3]).act_fun[0]
    with torch.no_grad():
        layer.coef[1, 2] = 7.0
    assert (layer.linear.coef[1, :, 2] == 7.0).all()
    layer.coef, layer.scale_base, layer.scale_sp = torch.ones(2, 3, 6), torch.zeros(2, 3), torch.full((2, 3), 2.0)
    assert (layer.linear.coef == 1).all() and not layer.scale_base.any() and (layer.linear.spline_scale == 2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": [2]}, r"width=\[2\]: expected at least two layers"),
        ({"width": 2}, r"width=2: expected at least two layers, .*, as in KAN\(\[2, 5, 1\]\)"),
        ({"width": [2, 0]}, r"width\[1\]=0: expected an integer, at least 1"),
        ({"width": [2, [1, 2, 3], 1]}, r"width\[1\]=\[1, 2, 3\]: expected an integer or \[n_sum, n_mult\]"),
        ({"width": [[1, 1], 1]}, r"width\[0\]=\[1, 1\]: expected no multiplication nodes"),
        ({"width": [2, [0, 0], 1]}, r"width\[1\]=\[0, 0\]: expected at least one node"),
        ({"width": [2, 1], "grid": [3, 4]}, r"grid=\[3, 4\]: expected an integer, or 1 of them"),
        ({"width": [2, 1], "grid": 0}, r"grid=0: expected an integer, at least 1"),
        ({"width": [2, 1], "k": 9}, r"^k=9: expected an integer from 0 to 5"),
        ({"width": [2, 1, 1], "k": [3, 11]}, r"^k\[1\]=11: expected an integer from 0 to 5"),
        ({"width": [2, [1, 1], 1], "mult_arity": [[], [2, 2], []]}, r"mult_arity\[1\]=\[2, 2\]: expected 1 arities"),
        ({"width": [2, [1, 1], 1], "mult_arity": [[2]]}, r"mult_arity=\[\[2\]\]: expected an integer, or 3 lists"),
        ({"width": [2, 1], "base_fun": "relu"}, r"^base_fun='relu': expected one of"),
        ({"width": [2, 1], "noise_scale": float("nan")}, r"noise_scale=nan: expected a finite number"),
        ({"width": [2, 1], "seed": -1}, r"seed=-1: expected an integer, at least 0"),
        ({"width": [2, 1], "backend": "fast"}, r"backend='fast': expected None or one of"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        KAN(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"in_dim": 0}, ValueError, "in_dim=0: expected an integer, at least 1"),
        ({"out_dim": 2.5}, TypeError, "out_dim=2.5: expected an integer, at least 1"),
        ({"num": None}, TypeError, "num=None: expected an integer, at least 1"),
        ({"k": 11}, ValueError, "k=11: expected an integer from 0 to 5"),
        ({"noise_scale": "a"}, TypeError, "noise_scale='a': expected a finite number"),
        ({"scale_base_mu": None}, TypeError, "scale_base_mu=None: expected a finite number"),
        ({"scale_base_sigma": float("nan")}, ValueError, "scale_base_sigma=nan: expected a finite number"),
        ({"scale_sp": "a"}, TypeError, "scale_sp='a': expected a finite number"),
        (
            {"base_fun": "relu"},
            ValueError,
            "base_fun='relu': expected one of 'zero', 'identity', 'silu', or a function",
        ),
        ({"base_fun": 3}, TypeError, "base_fun=3: expected one of 'zero', 'identity', 'silu', or a function"),
    ],
)
def test_bad_arguments_of_a_layer(options, error, message):
    with pytest.raises(error) as raised:
        KANLayer(**{"in_dim": 2, "out_dim": 3, **options})
    assert str(raised.value) == message


@pytest.mark.parametrize("array", [torch.tensor, lambda values: pytest.importorskip("numpy").array(values)])
def test_arrays_are_lists(array):
    for width in (array([2, 3, 1]), array([[2, 0], [3, 0], [1, 0]]), [array(2), array([3, 0]), 1]):
        assert KAN(width).width == [[2, 0], [3, 0], [1, 0]]
    model = KAN([2, [1, 2], 1], grid=array([3, 4]), k=array([2, 3]), mult_arity=[[], array([2, 3]), []])
    assert model.grid == [3, 4] and model.k == [2, 3] and model.mult_arity == [[], [2, 3], []]
    with pytest.raises(TypeError, match=r"width\[0\]=2.0: expected an integer"):
        KAN(array([2.0, 1.0]))
    with pytest.raises(ValueError, match=r"^k\[0\]=11: expected an integer from 0 to 5"):
        KAN([2, 1], k=array([11]))
    assert FastKAN(array([2, 3]))(torch.rand(4, 2)).shape == (4, 3)


def test_bad_input():
    with pytest.raises(ValueError, match=r"x has shape \[5, 3\]: expected \[..., 2\]"):
        KAN([2, 1])(torch.zeros(5, 3))
    with pytest.raises(TypeError, match="x is a list"):
        KAN([2, 1])([1.0, 2.0])


# How it moves


@pytest.fixture
def mixed() -> KAN:
    return shaken(KAN(**MIXED, dtype=torch.float64), symbolic=0.4, off=0.2)


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_state_dict(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = KAN(**{**MIXED, "grid": 4}, dtype=torch.float64)  # grid sizes come with the state
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, through_pickle, through_torch_save, through_state_dict])
def test_copies(mixed, way):
    x = inputs(6, 3)
    y = mixed(x)
    mixed.get_act(x)
    y.sum().backward()
    twin = way(mixed)
    assert torch.equal(twin(x), y)
    assert twin.symbolic_fun[0].funs_name == mixed.symbolic_fun[0].funs_name


def test_dtypes(mixed):
    x = inputs(6, 3)
    y = mixed(x)
    single = copy.deepcopy(mixed).float()
    assert single(x.float()).dtype == torch.float32 and single.act_fun[0].grid.dtype == torch.float64
    torch.testing.assert_close(single(x.float()).double(), y, rtol=1e-3, atol=1e-3)
    half = copy.deepcopy(mixed).to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert KAN([2, 1]).double()(inputs(4, 2)).dtype == torch.float64
    assert mixed.to("cpu", torch.float64)(x).equal(y)


def test_meta_device():
    model = KAN([2, 3, 1], device="meta")
    assert all(p.is_meta for p in model.parameters())
    state = KAN([2, 3, 1], grid=3).state_dict()
    model.load_state_dict(state, assign=True)
    assert torch.equal(model(torch.ones(5, 2)), KAN([2, 3, 1])(torch.ones(5, 2)))


def test_autocast():
    model = shaken(KAN([3, [2, 1], 1]), symbolic=0.3)
    x = inputs(6, 3).float()
    y = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        z = model(x)
    assert not torch.equal(y, z.float())
    torch.testing.assert_close(z.float(), y, rtol=0.1, atol=0.1)
    z.float().sum().backward()


@pytest.mark.parametrize("symbolic", [0.0, 0.4])
def test_compile_in_one_graph(symbolic):
    torch._dynamo.reset()
    model = shaken(KAN(**MIXED, dtype=torch.float64), symbolic, off=0.3)
    x = inputs(6, 3).requires_grad_()
    y = model(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    z = compiled(x)
    torch.testing.assert_close(z, y, **CLOSE)
    for a, b in zip(gradients(model, y, x), gradients(model, z, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    torch._dynamo.reset()


def test_compile_with_changed_masks():
    """A compiler can't look at them: what it makes is right for any."""
    torch._dynamo.reset()
    model = shaken(KAN(**MIXED, dtype=torch.float64), symbolic=0.4, off=0.3)
    y = model(inputs(6, 3))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs(6, 3)), y, **CLOSE)
    torch._dynamo.reset()


def test_per_sample_gradients_and_second_order(mixed):
    x = inputs(4, 3)
    jacobian = torch.func.vmap(torch.func.jacrev(mixed))(x)
    assert jacobian.shape == (4, 2, 3)
    torch.testing.assert_close(jacobian[1], torch.autograd.functional.jacobian(mixed, x[1]), **CLOSE)
    assert torch.autograd.gradgradcheck(lambda x: mixed(x).sin(), x[:2, :3].clone().requires_grad_())


def test_ddp_needs_no_find_unused_parameters(tmp_path):
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = KAN([2, [2, 1], 1])
        model.act_fun[1].mask.zero_()
        model.symbolic_fun[1].set_edge(0, 0, "sin")
        model(inputs(4, 2).float())
        parallel = DistributedDataParallel(model)
        for _ in range(2):
            parallel(inputs(4, 2).float()).sum().backward()
    finally:
        dist.destroy_process_group()


HALF = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from fastkan import KAN

store, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
model = KAN([2, [2, 1], 1], seed=0).double()
x = torch.linspace(-1, 1, 16, dtype=torch.float64).view(8, 2).sin()
parallel = DistributedDataParallel(model)
parallel(x[4 * rank : 4 * rank + 4]).square().mean().backward()
if rank == 0:
    whole = KAN([2, [2, 1], 1], seed=0).double()
    whole(x).square().mean().backward()
    for (name, p), q in zip(model.named_parameters(), whole.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-14)
dist.destroy_process_group()
"""


def test_two_processes_have_the_gradients_of_one(tmp_path):
    ranks = [subprocess.Popen([sys.executable, "-c", HALF, str(tmp_path / "store"), str(rank)]) for rank in range(2)]
    try:
        assert [process.wait(120) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()


def test_trains():
    torch.manual_seed(0)
    model = KAN([2, 3, 1], grid=5)
    x = inputs(100, 2, scale=1.0).float()
    truth = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - truth).square().mean()
        loss.backward()
        return loss

    start = closure().item()
    optimizer.step(closure)
    assert closure().item() < 0.02 * start
