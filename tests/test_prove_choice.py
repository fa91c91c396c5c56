"""The choice on a GPU: what `fastkan prove` found right and faster, else dense; nothing unproven unless by name."""

import itertools
import warnings
from types import SimpleNamespace

import pytest
import torch

from fastkan import BackendError, backends, functional, kinds, ops, reference, select, stack, use_backend, verdicts
from fastkan.functional import kan_linear
from fastkan.kinds import Kind
from fastkan.spec import FAMILIES, Spec
from fastkan.stack import Layer
from fastkan.testing import CONTRACTIONS, Problem
from fastkan.verdicts import CRASHED, FASTER, SLOWER, WRONG, Verdict
from support.backends import proven

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
CUBIC, SINGLES = select.everyday(), (torch.float32, torch.float32)
KIND = str(Kind.of(CUBIC, SINGLES, False))


def recording(calls: list) -> SimpleNamespace:
    """The reference, noting the name and the order of each contraction."""

    def of(name):
        def run(*args):
            calls.append((name, args[select._ORDER_AT[name]] if name in select._ORDER_AT else None))
            return getattr(reference, name)(*args)

        return run

    return SimpleNamespace(**{name: of(name) for name in CONTRACTIONS}, missing=lambda *args: None)


@pytest.fixture
def gpu(monkeypatch):
    """As on a machine with a GPU without verdicts, where the native backend is absent and Triton's is there."""
    absent = SimpleNamespace(missing=lambda *args: "no compiler was there", stack_out=None, stack_backward=None)
    there = SimpleNamespace(missing=lambda *args: None)
    monkeypatch.setattr(select, "_requested", (None, select.ENV))
    monkeypatch.setattr(select, "BACKENDS", {**select.BACKENDS, "native": absent, "triton": there})
    monkeypatch.setattr(select, "ALGORITHMS", {"triton:features": there, "triton:fused": there, "native:stack": absent})
    monkeypatch.setattr(select, "_choices", {})
    monkeypatch.setattr(select, "_warned", True)
    monkeypatch.setattr(verdicts, "_read", {GPU: {}})
    return monkeypatch


def chosen(spec=CUBIC, dtypes=SINGLES) -> str:
    return select.choose(None, GPU, dtypes, spec)


def know(gpu, **of_kind: Verdict) -> None:
    """The verdicts for uniform cubics in float32, by name; '_' stands for ':'."""
    gpu.setattr(verdicts, "_read", {GPU: {KIND: {name.replace("_", ":"): v for name, v in of_kind.items()}}})
    gpu.setattr(select, "_choices", {})


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_unproven_is_chosen_for_any_kind(gpu, family):
    for kind in kinds.ALL:
        if kind.family == family:
            assert chosen(kind.spec(), (kind.x, kind.coef)) == "dense"


def test_a_verdict_is_for_its_kind_alone(gpu):
    know(gpu, triton_fused=Verdict(FASTER, "", (2.0,)))
    for kind in kinds.ALL:
        name = chosen(kind.spec(), (kind.x, kind.coef))
        assert (name != "dense") == (str(kind) == KIND or (kind.tf32 and str(kind) == f"{KIND}-tf32")), kind


def test_tf32_is_another_kind(gpu):
    know(gpu, triton_fused=Verdict(FASTER, "", (2.0,)))
    assert chosen() == "triton:fused+dense"
    gpu.setattr(ops, "allows_tf32", lambda: True)
    assert chosen() == "dense"
    assert chosen(dtypes=(torch.float32, torch.bfloat16)) == "dense"


def test_the_fastest_of_the_right_is_chosen(gpu):
    know(gpu, triton_features=Verdict(FASTER, "", (2.0, 2.0)), triton_fused=Verdict(FASTER, "", (1.1, 8.0)))
    assert chosen() == "triton:fused+dense"
    know(gpu, triton_features=Verdict(FASTER, "", (2.0,)), triton_fused=Verdict(SLOWER, "", (0.9, 9.0)))
    assert chosen() == "triton:features+dense"
    know(
        gpu, native=Verdict(FASTER, "", (9.0,)), triton_fused=Verdict(WRONG, "by 1"), other=Verdict(FASTER, "", (9.0,))
    )
    assert chosen() == "dense"


def test_backends_says_why(gpu):
    assert backends("cuda:0") == {
        "native": "missing: no compiler was there",
        "native:stack": "missing: no compiler was there",
        "triton": "available",
        "triton:features": "unproven: run fastkan prove --device cuda:0",
        "triton:fused": "unproven: run fastkan prove --device cuda:0",
        "dense": "chosen: no kernel is proven right and faster here",
        "reference": "available",
    }
    know(gpu, triton_features=Verdict(FASTER, "", (2.1, 2.1)), triton_fused=Verdict(WRONG, "kan_out is off"))
    assert backends("cuda:0")["triton:features"] == "chosen: proven on this machine, 2.1 times as fast as dense"
    assert backends("cuda:0")["triton:fused"] == "wrong: kan_out is off"
    know(gpu, triton_features=Verdict(SLOWER, "", (0.5,)), triton_fused=Verdict(CRASHED, "SIGSEGV"))
    assert backends("cuda:0")["triton:features"] == "slower: 0.5 times as fast as dense"
    assert backends("cuda:0")["triton:fused"] == "crashed: SIGSEGV"


def test_unproven_kernels_run_where_they_are_named(gpu):
    for name in ("triton", "triton:features", "triton:fused"):
        assert select.choose(name, GPU, SINGLES, CUBIC) == name
        with use_backend(name):
            assert chosen() == name
            assert backends("cuda:0")[name] == "chosen: requested by use_backend"
    with pytest.raises(BackendError, match="no compiler was there"):
        select.choose("native", GPU, SINGLES, CUBIC)


# What runs


def test_derivatives_beyond_the_proof_run_on_dense(by_python, monkeypatch):
    ours, others = [], []
    monkeypatch.setitem(select.ALGORITHMS, "triton:features", recording(ours))
    monkeypatch.setitem(select.BACKENDS, "dense", recording(others))
    p = Problem.random(4, 3, 2, 5, dtype=torch.float64)
    x = p.x.requires_grad_()
    with proven("triton:features", on="cpu"):
        y = kan_linear(x, p.coef, p.grid, degree=3).sum()
        for _ in range(4):
            (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert {order for _, order in ours} == {0, 1, 2}
    assert others and {order for _, order in others} == {3, 4}


def test_other_devices_need_no_proof(gpu):
    assert select.choose(None, CPU, SINGLES, CUBIC) == "dense"  # native is absent here
    assert select.choose(None, torch.device("mps"), SINGLES, CUBIC) == "dense"


def test_a_stack_is_an_implementation_of_its_own(gpu):
    gpu.setitem(select.ALGORITHMS, "native:stack", SimpleNamespace(missing=lambda *args: None))
    specs = (CUBIC, CUBIC)
    assert select.choose_stack(None, GPU, SINGLES, specs) is None
    know(gpu, native=Verdict(FASTER, "", (3.0,)))
    assert select.choose_stack(None, GPU, SINGLES, specs) is None
    know(gpu, native_stack=Verdict(FASTER, "", (3.0,)), triton_fused=Verdict(FASTER, "", (2.0,)))
    assert select.choose_stack(None, GPU, SINGLES, specs) == "native:stack"
    assert select.choose_stack(None, GPU, SINGLES, (CUBIC, CUBIC._replace(degree=2))) is None
    assert chosen() == "triton:fused+dense"
    know(gpu, native_stack=Verdict(FASTER, "", (3.0,)), triton_fused=Verdict(FASTER, "", (4.0,)))
    assert select.choose_stack(None, GPU, SINGLES, specs) is None


def test_contractions_beside_a_stack_are_not_its_backends(monkeypatch):
    """Where a stack cannot run as one call, what was not proven with it does not run either."""
    calls = []
    monkeypatch.setitem(select.BACKENDS, "dense", recording(calls))
    p = Problem.random(4, 3, 3, 5)
    layer = Layer(p.coef, None, p.base_weight, p.bias, p.grid, p.spec)
    stack.layered(p.x, (), (layer, layer), "native:stack")
    assert [name for name, _ in calls] == ["kan_out", "kan_out"]


# Once per process


def test_torch_compile_takes_the_choice_as_a_constant(by_python, monkeypatch):
    functions = {name: getattr(reference, name) for name in CONTRACTIONS}
    functions["kan_out"] = lambda *args: reference.kan_out(*args) + 100
    monkeypatch.setitem(select.ALGORITHMS, "triton:features", SimpleNamespace(**functions, missing=lambda *args: None))
    p = Problem.random(4, 3, 2, 5)

    def layer(x):
        return kan_linear(x, p.coef, p.grid, p.base_weight, degree=3)

    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    with proven("triton:features", on="cpu"):
        assert (layer(p.x) > 50).all()
        torch.testing.assert_close(compiled(p.x), layer(p.x))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(select, "_choices", {})
            patch.setattr(verdicts, "known", None)
            compiled(p.x)  # asks nobody again
    assert len(graphs) == 1


def test_a_file_is_read_once(gpu):
    read = []
    gpu.setattr(verdicts, "_read", {})
    gpu.setattr(verdicts, "read", lambda device: read.append(device) or {})
    gpu.setattr(select, "UNPROVEN_TYPES", ("cuda", "cpu"))
    for _, dtype in itertools.product(range(2), (torch.float32, torch.float64)):
        select.choose(None, CPU, (dtype, dtype), CUBIC)
    assert read == [CPU]


def test_nothing_is_read_while_a_graph_is_captured_nor_later(gpu):
    read = []
    gpu.setattr(verdicts, "_read", {})
    gpu.setattr(verdicts, "read", lambda device: read.append(device) or {})
    gpu.setattr(torch.cuda, "is_available", lambda: True)
    gpu.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert chosen() == "dense"
    gpu.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert chosen(dtypes=(torch.float64,) * 2) == "dense" and not read


def test_nothing_is_proven_while_a_compiler_traces(gpu):
    asked = []
    gpu.setattr(verdicts, "known", lambda device, may_prove: asked.append(may_prove) or {})
    for compiling in (True, False):
        gpu.setattr(select, "_choices", {})
        select._proven(GPU, SINGLES, (*CUBIC,), compiling)
    assert asked == [False, True]


# The warning


def test_one_warning_names_the_command(gpu):
    gpu.setattr(torch.cuda, "is_available", lambda: True)
    gpu.setattr(select, "_warned", False)
    with pytest.warns(UserWarning, match=r"unproven on cuda:0, .*: fastkan prove --device cuda:0$") as caught:
        for kind in (*kinds.EVERYDAY, *kinds.ALL):
            chosen(kind.spec(), (kind.x, kind.coef))
    assert len(caught) == 1


def test_the_warning_names_an_unusual_kind(gpu):
    gpu.setattr(torch.cuda, "is_available", lambda: True)
    gpu.setattr(select, "_warned", False)
    with pytest.warns(UserWarning, match=r"fastkan prove --device cuda:0 --kinds bspline-5-zero-uniform-float32$"):
        chosen(CUBIC._replace(degree=5))


@pytest.mark.parametrize("why", ["off", "proven", "no GPU", "no kernels"])
def test_no_warning(gpu, why):
    gpu.setattr(torch.cuda, "is_available", lambda: why != "no GPU")
    gpu.setattr(select, "_warned", False)
    if why == "off":
        gpu.setenv("FASTKAN_PROVE", "off")
    if why == "proven":
        know(gpu, triton_fused=Verdict(SLOWER, "", (0.5,)))
    if why == "no kernels":
        absent = select.BACKENDS["native"]
        gpu.setattr(select, "ALGORITHMS", dict.fromkeys(select.ALGORITHMS, absent) | {"native:gather": absent})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen() == "dense"


def test_the_mode_is_validated(gpu):
    gpu.setenv("FASTKAN_PROVE", "yes")
    with pytest.raises(ValueError, match=r"^FASTKAN_PROVE='yes': expected 'block' \(prove at first use\) or 'off'"):
        verdicts.mode()


def test_functional_asks_for_the_layers_own_kind(by_python, monkeypatch):
    asked = []
    monkeypatch.setattr(
        select, "_proven", lambda device, dtypes, spec, *rest: asked.append((dtypes, Spec(*spec))) or "dense"
    )
    monkeypatch.setattr(select, "UNPROVEN_TYPES", ("cpu",))
    p = Problem.random(4, 3, 2, 5, 2, outside="clamp", dtype=torch.bfloat16, x_dtype=torch.float32)
    kan_linear(p.x, p.coef, p.grid, degree=2, outside="clamp")
    functional.edge_mean(p.x, p.coef, p.grid, degree=2, outside="clamp", base="zero")
    assert [(d, str(Kind.of(s, d, False))) for d, s in asked] == [
        ((torch.float32, torch.bfloat16), "bspline-2-clamp-knots-float32-bfloat16")
    ] * 2
