"""Random initial values, drawn on all threads."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

# Values that one generator draws in sequence.
CHUNK = 1 << 22


def fill_uniform(out: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """out.uniform_(-bound, bound); large tensors on all threads, by generators seeded from the given one."""
    if out.device.type != "cpu" or out.numel() <= CHUNK:
        out.uniform_(-bound, bound, generator=generator)
        return
    chunks: tuple[Tensor, ...] = out.detach().view(-1).split(CHUNK)
    seeds: list[int] = torch.randint(2**62, (len(chunks),), generator=generator, device="cpu").tolist()

    def fill(chunk: Tensor, seed: int) -> None:
        chunk.uniform_(-bound, bound, generator=torch.Generator("cpu").manual_seed(seed))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, chunks, seeds))
