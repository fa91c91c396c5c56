"""Whether a call is being recorded, to be run later with other values: then no tensor's values may decide anything."""

import torch

# True of a call that torch.jit.trace records, as TensorBoard's add_graph and ONNX's older exporter have it do. The very
# function of torch: a layer of a few nodes is called so fast that a name around it would show.
by_jit = torch._C._get_tracing_state


def is_traced() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace records this call."""
    return torch.compiler.is_compiling() or bool(by_jit())
