"""Layers on a device without float64, as MPS is: a fake one, see support/single.py."""

import copy
import io
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.swa_utils import AveragedModel

import fastkan
from fastkan import KANLinear, devices, replace_linear
from fastkan.compat.efficient_kan import from_efficient_kan
from fastkan.nn import KANSequential
from support import single
from support.peers import KANLinear as Peer
from support.single import CLOSE, assert_alike, data, same

pytestmark = pytest.mark.xdist_group("single")
HERE = single.DEVICE
LAYERS = [
    {},
    {"outside": "linear", "bias": True, "enable_standalone_scale_spline": True},
    {"outside": "clamp", "base_activation": torch.tanh, "spline_order": 2},
]


@pytest.fixture(autouse=True, scope="module")
def registered():
    single.register()


def pair(**options) -> tuple[KANLinear, KANLinear]:
    """The same layer, made there and on the CPU."""
    return tuple(
        KANLinear(3, 4, generator=torch.Generator().manual_seed(0), device=d, **options) for d in (HERE, "cpu")
    )


# The device


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.zeros(3, dtype=torch.float64, device=HERE),
        lambda x: torch.zeros(3, dtype=torch.float64).to(HERE),
        lambda x: x.double(),
        lambda x: x.sum(dtype=torch.float64),
        lambda x: x.to("cpu", torch.float64),
        lambda x: torch.zeros(3, dtype=torch.float64).copy_(x),
        lambda x: x.to(torch.complex128),
    ],
)
def test_the_device_refuses_float64(make):
    with pytest.raises(TypeError, match="doesn't support float64"):
        make(torch.ones(3, device=HERE))


def test_the_device_refuses_the_host_s_tensors():
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device=HERE) + torch.ones(3)


def test_the_device_counts_waits():
    x = torch.ones(3, device=HERE, requires_grad=True)
    before = single.synchronizations()
    x.exp().sum().backward()
    assert single.synchronizations() == before
    x.sum().item(), x.cpu(), bool((x == 1).all()), torch.equal(x, x), x[x > 0]
    assert single.synchronizations() == before + 5


def test_which_devices_have_float64(monkeypatch):
    assert [devices.has_float64(torch.device(d)) for d in ("cpu", "meta", "mps", HERE)] == [True, True, False, False]
    for answer in (True, False):
        devices._asked.cache_clear()
        properties = SimpleNamespace(has_fp64=answer)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda index, properties=properties: properties)
        xpu = torch.device("xpu", 0)
        assert devices.has_float64(xpu) == answer
        assert devices.widest(xpu) == (torch.float64 if answer else torch.float32)
        assert devices.home(xpu) == (xpu if answer else torch.device("cpu"))
    devices._asked.cache_clear()


def test_a_fake_tensor_tells_of_the_device():
    devices._asked.cache_clear()
    with FakeTensorMode():
        assert not devices.has_float64(HERE)
        kan = KANLinear(3, 4, device=HERE)
        assert kan(torch.empty(5, 3, device=HERE)).device == HERE and kan.grid.dtype == torch.float32


def test_exact_values_are_on_the_host():
    x = torch.rand(3, device=HERE, requires_grad=True)
    exact = devices.exact(x)
    assert exact.is_cpu and exact.dtype == torch.float64
    back = devices.place(exact * 2, HERE)
    same(back.detach(), 2 * x.detach().cpu())
    back.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0] * 3
    on_cpu = torch.rand(3)
    assert devices.host(on_cpu) is on_cpu and devices.place(on_cpu, on_cpu.device).dtype == torch.float64


def test_the_question_can_be_traced():
    traced = torch.compile(lambda x: x.to(devices.widest(x.device)) + 1, backend="eager", fullgraph=True)
    assert traced(torch.ones(2, device=HERE)).dtype == torch.float32
    assert traced(torch.ones(2)).dtype == torch.float64


# Layers


@pytest.mark.parametrize("options", LAYERS)
def test_a_layer(options):
    there, on_cpu = pair(**options)
    x = data(20, 3)
    assert there.grid.dtype == torch.float32 and there.uniform
    for name, p in there.named_parameters():
        assert torch.equal(p.cpu(), on_cpu.get_parameter(name)), name
    assert_alike(there, on_cpu, x)
    same(there.regularization(x.to(HERE)).detach(), on_cpu.regularization(x).detach())
    there.regularization(x.to(HERE)).backward()
    same(there.outside_share(x.to(HERE)), on_cpu.outside_share(x))
    same(there.b_splines(x.to(HERE)), on_cpu.b_splines(x))
    y = data(20, 3, 4)
    same(there.curve2coeff(x.to(HERE), y.to(HERE)), on_cpu.curve2coeff(x, y), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", LAYERS)
def test_grids(options):
    there, on_cpu = pair(**options)
    x = data(50, 3)
    for change in (
        lambda kan: kan.extend_grid(10),
        lambda kan: kan.update_grid(x.to(kan.coef.device)),
        lambda kan: kan.extend_grid(7),
        lambda kan: kan.update_grid([x[:30], x[30:]], inwards=0.5),
        lambda kan: kan.set_grid([-1 + 0.125 * n for n in range(kan.grid.shape[1])]),
        lambda kan: kan.set_grid(kan.grid + 0.5),
        lambda kan: kan.set_grid(kan.grid.tolist()),
    ):
        change(there)
        change(on_cpu)
        assert there.uniform == on_cpu.uniform
        same(there.grid, on_cpu.grid.float())
        assert_alike(there, on_cpu, x)


def test_second_derivatives_of_the_penalty():
    there, on_cpu = pair()
    x = data(20, 3)
    hessians = [
        torch.autograd.functional.hessian(lambda x, kan=kan: kan.regularization(x), x.to(kan.coef.device))
        for kan in (there, on_cpu)
    ]
    same(hessians[0], hessians[1], rtol=1e-3, atol=1e-4)


def test_transforms():
    there, on_cpu = pair()
    x, v = data(6, 3), data(6, 3)
    for transform in (
        lambda f: lambda x, v: torch.func.jvp(f, (x,), (v,))[1],
        lambda f: lambda x, v: torch.func.vmap(torch.func.jacrev(f))(x),
        lambda f: lambda x, v: torch.func.vmap(torch.func.hessian(f))(x),
    ):
        same(transform(there)(x.to(HERE), v.to(HERE)).detach(), transform(on_cpu)(x, v).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapted", [False, True])
def test_there_and_back(adapted):
    kan = KANLinear(3, 4, grid_size=7, grid_range=(-0.3, 1.1))
    if adapted:
        kan.update_grid(data(50, 3))
    x, before = data(20, 3), copy.deepcopy(kan)
    assert kan.to(HERE) is kan
    assert kan.grid.device == kan.coef.device == HERE and kan.grid.dtype == torch.float32
    assert kan.uniform == before.uniform
    assert_alike(kan, before, x)
    assert kan.to(torch.bfloat16).grid.dtype == torch.float32
    kan.float().to("cpu")
    assert kan.grid.dtype == torch.float64
    assert torch.equal(kan.grid, before.grid.float().double() if adapted else before.grid)


def test_a_failed_move_changes_nothing():
    kan = KANLinear(3, 4)

    def move(t):
        if t.shape == kan.grid.shape:
            raise RuntimeError("no memory")
        return t.to(HERE)

    grid = kan.grid
    with pytest.raises(RuntimeError, match="no memory"):
        kan._apply(move)
    assert kan.grid is grid and kan.coef.is_cpu


def test_from_the_meta_device():
    kan = KANLinear(3, 4, device="meta")
    assert kan(torch.empty(5, 3, device="meta")).shape == (5, 4)
    kan.to_empty(device=HERE)
    assert kan.grid.dtype == torch.float32 and kan.grid.device == HERE
    kan.reset_parameters(torch.Generator().manual_seed(0))
    assert_alike(kan, pair()[1], data(20, 3))


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("assign", [False, True])
def test_states(assign, adapted):
    there, on_cpu = pair()
    if adapted:
        on_cpu.update_grid(data(50, 3))
    grid = on_cpu.grid.clone()
    there.load_state_dict(on_cpu.state_dict())
    assert there.grid.dtype == torch.float32
    assert_alike(there, on_cpu, data(20, 3))
    resized = KANLinear(3, 4, grid_size=2, device=HERE)
    resized.load_state_dict(on_cpu.state_dict())
    assert resized.grid.dtype == torch.float32 and resized.grid.device == resized.coef.device == HERE
    assert_alike(resized, on_cpu, data(20, 3))
    new = KANLinear(3, 4, grid_size=2)
    if assign:  # the layer is then where the state is
        new.load_state_dict(there.state_dict(), assign=True)
        assert new.grid.dtype == torch.float32 and new.grid.device == HERE
    else:
        new.load_state_dict(there.state_dict())
        assert torch.equal(new.grid, grid.float().double() if adapted else grid)


def test_copies_and_files():
    there, on_cpu = pair()
    x = data(20, 3)
    for another in (copy.deepcopy(there), pickle.loads(pickle.dumps(there))):
        assert torch.equal(another(x.to(HERE)), there(x.to(HERE)))
    for location, dtype in ((HERE, torch.float32), ("cpu", torch.float64)):
        file = io.BytesIO()
        torch.save(there, file)
        file.seek(0)
        loaded = torch.load(file, map_location=location, weights_only=False)
        assert loaded.grid.dtype == dtype
        torch.testing.assert_close(loaded(x.to(location)).cpu(), on_cpu(x), **CLOSE)
    assert torch.equal(loaded.grid, on_cpu.grid)


def test_sequences_and_replacements():
    x = data(20, 3)
    models = [
        KANSequential(*(KANLinear(3, 3, generator=torch.Generator().manual_seed(s), device=d) for s in range(3)))
        for d in (HERE, "cpu")
    ]
    assert_alike(*models, x)
    linear = nn.Linear(3, 4)
    there = replace_linear(copy.deepcopy(linear).to(HERE), init="linear", outside="linear")
    same(there(x.to(HERE)).detach(), linear(x).detach())


def test_averages():
    there, on_cpu = pair()
    averages = [AveragedModel(there), AveragedModel(on_cpu)]
    for _ in range(2):
        for kan, average in zip((there, on_cpu), averages, strict=True):
            kan.update_grid(data(50, 3).to(kan.coef.device))
            average.update_parameters(kan)
    assert_alike(averages[0].module, averages[1].module, data(20, 3))


def test_steps_of_an_optimizer():
    layers, x = pair(), data(50, 3)
    for kan in layers:
        optimizer = torch.optim.Adam(kan.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            (kan(x.to(kan.coef.device)).square().mean() + 1e-3 * kan.regularization_loss()).backward()
            optimizer.step()
    assert_alike(*layers, x)


def test_autocast():
    there, _ = pair()
    with torch.autocast("single", torch.bfloat16):
        assert there(data(5, 3).to(HERE)).dtype == torch.bfloat16


def test_a_layer_does_not_wait():
    there, _ = pair()
    x = data(20, 3).to(HERE)
    there(x)  # whether the knots are uniform is asked once
    before = single.synchronizations()
    there(x).square().mean().backward()
    there.regularization(x).backward()
    assert single.synchronizations() == before


def test_the_backend():
    assert fastkan.backends(HERE)["dense"].startswith("chosen")


# Other libraries' layers


def test_accelerated_layers():
    torch.manual_seed(0)
    original = Peer(3, 4)
    there = fastkan.accelerate(copy.deepcopy(original).to(HERE))
    x = data(20, 3)
    assert type(there) is not Peer
    same(there(x.to(HERE)).detach(), original(x).detach())
    same(from_efficient_kan(copy.deepcopy(original).to(HERE))(x.to(HERE)).detach(), original(x).detach())
