"""Every Triton kernel for every spec passes Triton's front end, which its interpreter leaves out; without a GPU."""

import pytest

from support.tiers import long
from support.triton_process import report_of


@pytest.mark.parametrize("arguments", [(), *long(("--all",))], ids=str)
def test_triton_accepts_every_kernel(arguments):
    report = report_of("triton_frontend", *arguments)
    assert report["cases"] > (200 if arguments else 30)
    assert set(report["kernels"]) >= {"matrix", "gather", "order", "moments", "features", "slopes"}
    assert not report["refused"], "\n".join(report["refused"])
