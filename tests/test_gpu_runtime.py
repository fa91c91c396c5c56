"""On a GPU: graphs, streams, devices, synchronisation, memory, and the layer as a module."""

import copy
import gc

import pytest
import torch
from torch import nn

from fastkan import KANLinear
from fastkan.measure.correctness import Case
from fastkan.measure.peers import equal_linear
from fastkan.nn import replace_linear
from support.gpu import DEVICE, each_backend, on_gpu

pytestmark = pytest.mark.gpu

ROWS, SIZES = 200, (7, 33, 5)


def network(backend: str, **options) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (KANLinear(i, o, backend=backend, bias=True, **options) for i, o in zip(SIZES, SIZES[1:], strict=False))
    return nn.Sequential(*layers).to(DEVICE)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    x, y = torch.rand(ROWS, SIZES[0], generator=g) * 2 - 1, torch.randn(ROWS, SIZES[-1], generator=g)
    return x.to(DEVICE), y.to(DEVICE)


OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-2),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, capturable=DEVICE.type == "cuda"),
}


class Training:
    """A network, its optimizer and a step, which can be begun anew in the same memory, as a captured graph needs."""

    def __init__(self, backend: str, optimizer: str):
        self.net = network(backend)
        self.optimizer = OPTIMIZERS[optimizer](self.net.parameters())
        self.x, self.y = batch()
        self.start = copy.deepcopy(self.net.state_dict())

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        nn.functional.mse_loss(self.net(self.x), self.y).backward()
        self.optimizer.step()

    @torch.no_grad()
    def begin(self) -> None:
        for name, value in self.net.state_dict().items():
            value.copy_(self.start[name])
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def parameters(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.net.parameters()]


def assert_same_bits(found, expected) -> None:
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@each_backend
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_repeats_bit_for_bit(backend, optimizer):
    training, ends = Training(backend, optimizer), []
    for _ in range(2):
        training.begin()
        for _ in range(4):
            training.step()
        ends.append(training.parameters())
    assert_same_bits(*ends)
    assert all(not torch.equal(p, training.start[name]) for name, p in training.net.named_parameters())


@on_gpu
@each_backend
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_captured_training_step_is_the_eager_one(backend, optimizer):
    training = Training(backend, optimizer)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            training.step()
    torch.cuda.current_stream().wait_stream(stream)
    eager = training.parameters()
    graph = torch.cuda.CUDAGraph()
    training.optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        training.step()
    for _ in range(2):
        training.begin()
        for _ in range(4):
            graph.replay()
        assert_same_bits(training.parameters(), eager)


@on_gpu
@each_backend
def test_a_side_stream(backend):
    net, (late, _) = network(backend), batch()
    expected = net(late).detach()
    x = torch.zeros_like(late)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # this stream is delayed; a launch on another one would read zeros
        x.copy_(late)
        y = net(x)
        y.sum().backward()
    stream.synchronize()
    torch.testing.assert_close(y.detach(), expected, rtol=0, atol=0)


@on_gpu
@each_backend
def test_another_than_the_current_device(backend):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    net, (x, _) = network(backend), batch()
    other = copy.deepcopy(net).to("cuda:1")
    with torch.cuda.device(0):
        y = other(x.to("cuda:1"))
        y.sum().backward()
    torch.testing.assert_close(y.cpu(), net(x).cpu())
    assert all(p.grad.device == y.device for p in other.parameters())


@on_gpu
@each_backend
def test_no_synchronisation_with_the_device(backend):
    training = Training(backend, "Adam")
    x = training.x.requires_grad_()

    def work() -> None:
        training.step()
        (slope,) = torch.autograd.grad(training.net(x).sum(), x, create_graph=True)
        slope.square().sum().backward()

    work()  # compilation, and the state of the optimizer
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def peak_bytes(make) -> int:
    """The most that is allocated during a training step, parameters and gradients counted in."""
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    layer, x, grad_out = make()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    for k in range(2):  # the first step compiles, and makes the libraries' workspaces
        if k:
            torch.cuda.reset_peak_memory_stats()
        layer(x).backward(grad_out)
        optimizer.step()
        optimizer.zero_grad()
        x.grad = None
    return torch.cuda.max_memory_allocated() - before


@on_gpu
@pytest.mark.alone
@each_backend
@pytest.mark.parametrize("case", [Case(4096, 256, 256, 5), Case(1024, 256, 256, 200), Case(16384, 64, 64, 5)], ids=str)
def test_a_training_step_needs_no_more_memory_than_that_of_the_equal_linear(backend, case):
    def data(inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.rand(case.batch, inputs, device=DEVICE, requires_grad=True)
        return x, torch.randn(case.batch, outputs, device=DEVICE)

    def linear():
        inputs, outputs = equal_linear(case)
        return nn.Linear(inputs, outputs, bias=False, device=DEVICE), *data(inputs, outputs)

    def kan():
        layer = KANLinear(case.in_features, case.out_features, case.grid_size, backend=backend, device=DEVICE)
        return layer, *data(case.in_features, case.out_features)

    peak_bytes(linear), peak_bytes(kan)  # workspaces that stay are made here and counted to neither
    assert peak_bytes(kan) <= 1.2 * peak_bytes(linear)


# The layer as a module.


@each_backend
def test_grids_follow_and_extend_as_on_a_cpu(backend):
    here = network(backend, dtype=torch.float64)
    cpu = copy.deepcopy(here).cpu()
    for layer in cpu:
        layer.backend = "reference"
    x = batch()[0].double()
    for change in (lambda net, x: net[0].update_grid(x), lambda net, x: net[0].extend_grid(10)):
        change(here, x)
        change(cpu, x.cpu())
        torch.testing.assert_close(here[0].grid.cpu(), cpu[0].grid, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(here(x).cpu(), cpu(x.cpu()), rtol=1e-9, atol=1e-9)
    assert here[0].coef.device == here[0].grid.device == x.device


@each_backend
def test_state_dicts_travel(backend):
    here, x = network(backend), batch()[0]
    here[0].update_grid(x)
    cpu = network("reference").cpu()
    cpu.load_state_dict(here.state_dict())
    torch.testing.assert_close(cpu(x.cpu()), here(x).cpu(), rtol=1e-4, atol=1e-5)
    again = network(backend)
    again.load_state_dict(cpu.state_dict())
    assert torch.equal(again(x), here(x))


@each_backend
def test_linear_layers_are_replaced_on_their_device(backend):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).to(DEVICE)
    x = batch()[0]
    expected = model(x)
    replace_linear(model, init="linear", outside="linear", backend=backend)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert all(t.device == x.device for t in (*model.parameters(), *model.buffers()))


@each_backend
def test_regularization(backend):
    here, x = network(backend, dtype=torch.float64), batch()[0].double()
    loss = here[0].regularization(x)
    loss.backward()
    cpu = network("reference", dtype=torch.float64).cpu()
    expected = cpu[0].regularization(x.cpu())
    expected.backward()
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(here[0].coef.grad.cpu(), cpu[0].coef.grad, rtol=1e-9, atol=1e-9)
