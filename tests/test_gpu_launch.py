"""On a GPU: every kind of CUDA kernel in a captured graph, on a side stream, on another device, and over and over."""

import contextlib
from collections.abc import Callable

import pytest
import torch

from fastkan import select
from fastkan.stack import parts
from fastkan.testing import Problem, call
from support.gpu import DEVICE, HAS_WGMMA, IS_GPU, STREAMS, captured, on_cuda
from support.matrix_product_tests import ALGORITHM
from support.problems import BF16, DOUBLE, HALF, SINGLE
from support.stacks import layers, rows

pytestmark = [pytest.mark.gpu, on_cuda]

# Few rows and many inputs, and the reverse, so that sums are split; outputs in whole 16 bytes; 4 functions a chunk.
SHAPES = ((70, 300, 136), (2500, 7, 72)) if IS_GPU else ((5, 40, 72), (130, 3, 72))
# name -> FASTKAN_CUDA_ALGORITHM, dtype, contractions, what cuda_algorithm() must say after the last one
KINDS = {
    "gather": ("gather", SINGLE, ("kan_out", "kan_backward", "edge_moments", "edge_backward"), "gather"),
    "matrix": ("matrix", BF16, ("kan_out", "kan_in", "kan_coef", "kan_backward"), "matrix"),
    "double": ("matrix", DOUBLE, ("kan_out", "kan_backward"), "matrix"),
    "tf32": ("matrix", SINGLE, ("kan_out", "kan_backward"), "matrix"),
    "wgmma": ("wgmma", HALF, ("kan_out",), "wgmma"),
    "stack": ("", SINGLE, (), ""),
}


class Kind:
    """The calls of one kind of kernel, on operands on that device; `inputs` may be overwritten between calls."""

    def __init__(self, name: str, device: torch.device, shape: tuple[int, int, int]):
        self.native = select.BACKENDS["native"]
        self.name, (_, self.dtype, self.contractions, self.ran) = name, KINDS[name]
        if name == "stack":
            self.inputs = rows(shape[0], 3, 1, SINGLE).to(device)
            self.cotangents = torch.ones(shape[0], 2, device=device)
            made = layers((3, 6, 2), dtype=SINGLE, degree=3, knots="promised")
            moved = [m._replace(**{k: t.to(device) for k, t in m._asdict().items() if isinstance(t, torch.Tensor)})
                     for m in made]  # fmt: skip
            self.operands = parts(moved)
        else:
            p = Problem.random(*shape, 5, knots="promised", per_input=True, weighted=True, dtype=self.dtype)
            self.problem = p.on(device)
            self.inputs = self.problem.x

    def __call__(self) -> list[torch.Tensor]:
        if self.name == "stack":
            x, u, along = self.inputs, self.cotangents, [self.inputs]
            y = self.native.stack_out(x, along, *self.operands)
            return [y, *self.native.stack_backward(x, along, u, *self.operands, True, True, True)]
        found = [t for contraction in self.contractions for t in call(self.native, contraction, self.problem)]
        assert self.native.cuda_algorithm() == self.ran
        return found


@pytest.fixture(params=KINDS)
def kind(monkeypatch, request) -> Callable[..., Kind]:
    if request.param == "wgmma" and not HAS_WGMMA:
        pytest.skip(f"{request.param} needs sm_90")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if request.param == "tf32" else "highest")
    monkeypatch.setenv(ALGORITHM, KINDS[request.param][0])
    yield lambda shape, device=DEVICE: Kind(request.param, device, shape)
    torch.set_float32_matmul_precision(before)


each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def assert_same_bits(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


@each_shape
def test_a_captured_graph_computes_what_its_inputs_say(kind, shape):
    run = kind(shape)
    first, second = run.inputs.clone(), run.inputs.flip(0).contiguous()
    expected = [(x, [t.clone() for t in _at(run, x)]) for x in (first, second, first)]
    run.inputs.copy_(first)
    results, replay = captured(run)
    for x, values in expected:
        run.inputs.copy_(x)
        for result in results:
            result.fill_(torch.nan)
        replay()
        assert_same_bits(results, values)


def _at(run: Kind, x: torch.Tensor) -> list[torch.Tensor]:
    run.inputs.copy_(x)
    return run()


@each_shape
def test_a_side_stream(kind, shape):
    run = kind(shape)
    expected, late = run(), run.inputs.clone()
    run.inputs.zero_()
    stream = STREAMS.Stream()
    stream.wait_stream(STREAMS.current_stream())
    with STREAMS.stream(stream):
        if IS_GPU:
            torch.cuda._sleep(20_000_000)  # a launch on another stream would read the zeros
        run.inputs.copy_(late)
        found = run()
    STREAMS.synchronize()
    assert_same_bits(found, expected)


@each_shape
def test_another_than_the_current_device(kind, shape):
    if IS_GPU and torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    other = torch.device("cuda", 1) if IS_GPU else DEVICE
    there, here = kind(shape, other), kind(shape)
    with torch.cuda.device(0) if IS_GPU else contextlib.nullcontext():
        found = there()
    assert all(t.device == other for t in found)
    assert_same_bits([t.cpu() for t in found], [t.cpu() for t in here()])


@pytest.mark.parametrize("shape", [(4096, 256, 256) if IS_GPU else (130, 9, 72)], ids=str)
def test_many_repeats_under_load(kind, shape):
    """A race shows only sometimes: every processor busy, launches queued, every result the same bits."""
    run = kind(shape)
    first, *others = [run() for _ in range(50 if IS_GPU else 2)]
    for other in others:
        assert_same_bits(other, first)
