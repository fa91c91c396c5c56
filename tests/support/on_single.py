"""pytest plugin: tests run on the device without float64 where they name no device, with tolerances for float32."""

import functools

import torch

from support.single import register

LEAST = 1e-3  # tolerance, for results of a few hundred operations in float32


def pytest_configure(config) -> None:
    torch.set_default_device(register())
    torch.testing.assert_close = _loosened(torch.testing.assert_close)
    torch.allclose = _loosened(torch.allclose)


def _loosened(compare):
    """A comparison with tolerances of at least LEAST, relative to the largest expected number."""

    @functools.wraps(compare)
    def loosened(actual, expected, *args, rtol=0.0, atol=0.0, **options):
        size = float(expected.detach().abs().max()) if isinstance(expected, torch.Tensor) and expected.numel() else 1.0
        most = max(atol or 0.0, LEAST * max(size, 1.0) if size - size == 0 else LEAST)
        return compare(actual, expected, *args, rtol=max(rtol or 0.0, LEAST), atol=most, **options)

    return loosened
