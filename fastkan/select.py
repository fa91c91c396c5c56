"""Choice of the implementation, with the reason.

Automatic unless a name is given: by argument, else by `use_backend`, else by the environment variable FASTKAN_BACKEND
at the time of the import of fastkan. What is requested by name never falls back: it runs, or a BackendError says why it
cannot. On a GPU the automatic choice takes the fastest kernels that `fastkan prove` found right and faster than dense
there, for derivatives up to order 2; else dense.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Generator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import ops, reference, verdicts
from .backends import dense, native, triton
from .kinds import EVERYDAY, Kind
from .spec import FAMILIES, OUTSIDE_OF, Spec, index_of
from .transforms import by_jit
from .verdicts import FASTER, Verdict

ENV = "FASTKAN_BACKEND"
BACKENDS: dict[str, ModuleType] = {
    "native": native, "triton": triton, "dense": dense, "reference": reference,
}  # fmt: skip
# The reference as operators, for DTensors, which do not mix with the ordinary tensors that it makes inside. Not a name
# for users. See sharding.py.
OPERATORS = ops.REFERENCE
REFERENCE_AS_OPERATORS = SimpleNamespace(**dict(zip(ops.CONTRACTIONS, ops.functions(OPERATORS), strict=True)))

# Kernels that are proven one by one, simplest first.
PROVABLE = ("triton:features", "native:gather", "triton:fused", "native", "native:stack")
# Types of devices whose kernels need a proof: kernels that never ran there may be wrong.
UNPROVEN_TYPES = ("cuda",)
# device type -> backends, best first, and the reason.
PREFERENCE = {"cpu": (("native", "dense"), "native was the fastest in every case of bench/results/cpu")}
_OTHER_DEVICE = (("dense",), "plain PyTorch runs on every device")

# The requested backend and the source of the request; process-wide like torch's own switches, so that torch.compile can
# guard on it.
_requested: tuple[str | None, str] = (os.environ.get(ENV) or None, ENV)


class BackendError(RuntimeError):
    """The backend that was requested by name cannot run this call."""


def everyday(family: str = "bspline") -> Spec:
    """The Spec of most layers of a basis family: of B-splines the uniform cubic one."""
    if family == "bspline":
        return Spec.of(3, "silu", "zero", True)
    return Spec.of(0, "silu", OUTSIDE_OF[family], True, family)


# Implementations


def _stack_missing(device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str | None:
    if device_type not in UNPROVEN_TYPES:
        return f"a choice of its own on GPUs alone, not on device {device_type!r}"
    if family or len({*dtypes}) > 1 or dtypes[0] not in (torch.float32, torch.float64):
        return "stacks are of B-splines in float32 or float64"
    return BACKENDS["native"].missing(device_type, dtypes, family)


def functions_of(name: Any) -> Any:
    """The contractions of an implementation, by a result of `choose` or `choose_for`, or a result of this."""
    if not isinstance(name, str):
        return name
    return BACKENDS.get(name) or ALGORITHMS.get(name) or _OTHERS[name]


def direct_functions_of(name: str) -> Any:
    """The same for plain calls, see transforms.is_plain: without PyTorch's dispatcher where the implementation can."""
    implementation = functions_of(name)
    return getattr(implementation, "undispatched", implementation)


def _later(
    name: Callable[[tuple[Any, ...]], str], contraction: str, functions: Callable[[str], Any]
) -> Callable[..., Any]:
    """A contraction of the implementation that `name` gives for its arguments."""
    return lambda *args: getattr(functions(name(args)), contraction)(*args)


# Where the order stands among the arguments; other contractions have none.
_ORDER_AT = {"kan_out": 7, "kan_in": 6, "kan_coef": 5, "kan_backward": 7}
_THEN_DENSE = "+dense"  # after a name: derivatives beyond order 2, which nobody proved, by dense


def _then_dense(name: str) -> SimpleNamespace:
    def of(contraction: str, functions: Callable[[str], Any]) -> Callable[..., Any]:
        at = _ORDER_AT.get(contraction)
        return _later(lambda args: "dense" if at is not None and args[at] > 2 else name, contraction, functions)

    found = (functions_of, direct_functions_of)
    usual, direct = ({c: of(c, functions) for c in ops.CONTRACTIONS} for functions in found)
    return SimpleNamespace(**usual, undispatched=SimpleNamespace(**direct))


# Stacks as one call; single contractions, where a stack cannot run so, by dense.
_stack = SimpleNamespace(
    **{contraction: _later(lambda args: "dense", contraction, functions_of) for contraction in ops.CONTRACTIONS},
    stack_out=native.stack_out, stack_backward=native.stack_backward, missing=_stack_missing,
)  # fmt: skip
ALGORITHMS: dict[str, Any] = {
    "triton:features": triton.features, "triton:fused": triton.fused, "native:gather": native.gather,
    "native:stack": _stack,
}  # fmt: skip
_OTHERS = {OPERATORS: REFERENCE_AS_OPERATORS, **{n + _THEN_DENSE: _then_dense(n) for n in PROVABLE}}


def missing(name: str, device_type: str, dtypes: tuple[torch.dtype, ...], spec: Spec | None = None) -> str | None:
    """The reason why an implementation cannot serve that device, those dtypes and that basis; None if it can.

    Of several GPUs the current one is meant.
    """
    name = name.removesuffix(_THEN_DENSE)
    if name == "reference":
        return None
    return functions_of(name).missing(device_type, dtypes, 0 if spec is None else spec.family)


def _missing_on(name: str, device: torch.device, dtypes: tuple[torch.dtype, ...], spec: Spec) -> str | None:
    """The same for that device."""
    has_gpu = device.type == "cuda" and torch.backends.cuda.is_built() and torch.cuda.is_available()
    with torch.cuda.device(device) if has_gpu else contextlib.nullcontext():
        return missing(name, device.type, dtypes, spec)


# Choice


def choose(backend: str | None, device: torch.device, dtypes: tuple[torch.dtype, ...], spec: Spec) -> str:
    """The name of the implementation for x and coef of these dtypes, as an argument of functions_of."""
    name, by = _requested if backend is None else (backend, "backend")
    if name is not None:
        if not _serves(name, device, dtypes, spec.family):
            reason = _missing_on(_known(name, by), device, dtypes, spec)
            raise BackendError(f"{by}={name!r} cannot run here: {reason}")
        return name
    return _automatic(device, dtypes, spec)


def is_native(backend: str | None) -> bool:
    """Whether a call on a CPU with this argument runs on "native", where that is there."""
    return (backend or _requested[0] or "native") == "native"


# `missing` of an implementation, and the arguments to which it answered None: constant while the process runs.
_served: set[Any] = set()


def _serves(name: str, device: torch.device, dtypes: tuple[torch.dtype, ...], family: int) -> bool:
    """Whether an implementation can serve that device, those dtypes and that basis family."""
    asked = getattr(BACKENDS.get(name) or ALGORITHMS.get(name), "missing", None)
    key = asked, name, device, dtypes, family
    if key in _served:
        return True
    served = is_name(name) and _missing_on(name, device, dtypes, everyday(FAMILIES[family])) is None
    if served:
        _served.add(key)
    return served


# torch.compile does not trace this: it takes the result as a constant.
_serves._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def choose_for(x: Tensor, backend: str | None, coef: Tensor, spec: Spec) -> str:
    """As `choose`, for a layer's x and coef; x may be a DTensor."""
    name = choose(backend, x.device, (x.dtype, coef.dtype), spec)
    # DTensors do not mix with the tensors that functions in plain PyTorch make.
    return OPERATORS if name in ("dense", "reference") and hasattr(x, "full_tensor") else name


def choose_stack(
    backend: str | None, device: torch.device, dtypes: tuple[torch.dtype, ...], specs: tuple[Spec, ...]
) -> str | None:
    """The implementation that runs layers of these Specs as one fused call; None if one by one is the choice."""
    if device.type in UNPROVEN_TYPES and backend is None and _requested[0] is None:
        compiling = torch.compiler.is_compiling()
        names = {_proven(device, dtypes, (*spec,), compiling, True) for spec in specs}
        return "native:stack" if names == {"native:stack"} else None
    chosen = choose(backend, device, dtypes, specs[0])
    return chosen if chosen in ("native", "native:stack") else None


def _automatic(device: torch.device, dtypes: tuple[torch.dtype, ...], spec: Spec) -> str:
    if by_jit() or (torch.compiler.is_exporting() and _to_onnx()):
        return "dense"  # an ONNX runtime lacks the kernels' operators, and a trace of torch.jit their gradients
    if device.type in UNPROVEN_TYPES:
        name = _proven(device, dtypes, (*spec,), torch.compiler.is_compiling())
        if name != "dense":
            return name + _THEN_DENSE
    for name in PREFERENCE.get(device.type, _OTHER_DEVICE)[0]:
        if _serves(name, device, dtypes, spec.family):
            return name
    return "reference"


# Arguments of _proven -> its result: constant while the process runs.
_choices: dict[Any, str] = {}
_warned = False


def _proven(
    device: torch.device, dtypes: tuple[torch.dtype, ...], fields: tuple[Any, ...], compiling: bool, stack: bool = False
) -> str:
    """The fastest implementation whose verdict for such calls is "right and faster"; else dense.

    `fields` is a Spec, as a tuple: torch.compile can hand over those.
    """
    key = device, dtypes, fields, stack, dtypes[-1] == torch.float32 and ops.allows_tf32()
    name = _choices.get(key)
    if name is None:
        spec = Spec(*fields)
        of_kind = verdicts_of(device, dtypes, spec, not compiling)
        _warn_once(device, dtypes, spec, of_kind)
        speeds = {
            name: verdict.speed
            for name, verdict in of_kind.items()
            if verdict.verdict == FASTER
            and name in (*ALGORITHMS, *BACKENDS)
            and (stack or name != "native:stack")
            and _missing_on(name, device, dtypes, spec) is None
        }
        name = _choices[key] = max(speeds, key=speeds.__getitem__, default="dense")
    return name


# torch.compile does not trace this: it takes the result as a constant. See ops.allows_tf32.
_proven._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def verdicts_of(
    device: torch.device, dtypes: tuple[torch.dtype, ...], spec: Spec, may_prove: bool = False
) -> dict[str, Verdict]:
    """Implementation -> verdict for such calls."""
    if device == torch.device("cuda"):
        device = torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_available() else 0)
    return verdicts.known(device, may_prove).get(str(Kind.of(spec, dtypes, ops.allows_tf32())), {})


def _warn_once(device: torch.device, dtypes: tuple[torch.dtype, ...], spec: Spec, of_kind: dict[str, Verdict]) -> None:
    """Name the command, where kernels are available that have no verdict."""
    global _warned
    if _warned or of_kind or verdicts.mode() == "off" or (device.type == "cuda" and not torch.cuda.is_available()):
        return
    if any(_missing_on(name, device, dtypes, spec) is None for name in PROVABLE):
        _warned = True
        warnings.warn(
            f"fastkan's kernels are unproven on {device}, so PyTorch's own operators run. To find out which are right "
            f"and faster there, once: {_command(device, dtypes, spec)}",
            stacklevel=2,
        )


def _command(device: torch.device, dtypes: tuple[torch.dtype, ...], spec: Spec) -> str:
    kind = Kind.of(spec, dtypes, ops.allows_tf32())
    return f"fastkan prove --device {device}" + ("" if kind in EVERYDAY else f" --kinds {kind}")


def _to_onnx() -> bool:
    onnx = sys.modules.get("torch.onnx")  # an attribute of torch would import it
    return onnx is not None and onnx.is_in_onnx_export()


@contextlib.contextmanager
def use_backend(backend: str | None) -> Generator[None, None, None]:
    """Context in which calls without a `backend` argument run on this backend; None stands for the automatic choice.

    Process-wide, like torch's own backend switches.
    """
    global _requested
    before = _requested
    _requested = (None if backend is None else _known(backend, "backend"), "use_backend")
    try:
        yield
    finally:
        _requested = before


def backends(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, family: str = "bspline"
) -> dict[str, str]:
    """The state of each backend for tensors of that device and dtype and that basis family, by name.

    'chosen: why', 'available', 'missing: why'; on a GPU also of each algorithm that is proven by itself: 'unproven:
    run ...', 'slower: ...', 'wrong: why', 'crashed: why' or 'hung'. For layers with other splines than uniform cubic
    ones, verdicts may differ: `fastkan info` shows all.
    """
    index_of("family", family, FAMILIES)
    _served.clear()  # asks again
    spec, dtypes, device = everyday(family), (dtype, dtype), torch.device(device)
    if device == torch.device("cuda") and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    requested, by = _requested
    needs_proof = device.type in UNPROVEN_TYPES
    of_kind = verdicts_of(device, dtypes, spec) if needs_proof else {}
    if requested is not None:
        chosen = requested if _missing_on(_known(requested, by), device, dtypes, spec) is None else None
        why = f"requested by {by}"
    else:
        chosen = _automatic(device, dtypes, spec).removesuffix(_THEN_DENSE)
        names, why = PREFERENCE.get(device.type, _OTHER_DEVICE)
        why = why if chosen == names[0] else "the fastest that there is for it"
        if chosen in of_kind:
            why = f"proven on this machine, {of_kind[chosen].speed:.2g} times as fast as dense"
        elif needs_proof:
            why = "no kernel is proven right and faster here"
        elif chosen == "reference":
            why = "nothing faster is available"
    table: dict[str, str] = {}
    for name in sorted({*BACKENDS, *ALGORITHMS}, key=_place) if needs_proof else BACKENDS:
        if reason := _missing_on(name, device, dtypes, spec):
            table[name] = f"missing: {reason}"
        elif name == chosen:
            table[name] = f"chosen: {why}"
        elif not needs_proof or name not in PROVABLE:
            table[name] = "available"
        else:
            table[name] = _state(of_kind.get(name)) or f"unproven: run {_command(device, dtypes, spec)}"
    return table


def _place(name: str) -> tuple[int, str]:
    return list(BACKENDS).index(name.partition(":")[0]), name


def _state(verdict: Verdict | None) -> str:
    """A verdict in the table of `backends`."""
    if verdict is None:
        return ""
    if verdict.verdict == FASTER:
        return f"available: proven, {verdict.speed:.2g} times as fast as dense"
    return str(verdict).removeprefix("right but ")


def is_name(name: object) -> bool:
    """Whether this is the name of an implementation."""
    return isinstance(name, str) and name.removesuffix(_THEN_DENSE) in (*BACKENDS, *ALGORITHMS)


def _known(name: str, by: str) -> str:
    if not is_name(name):
        raise ValueError(f"{by}={name!r}: expected one of {', '.join(map(repr, BACKENDS))}")
    return name
