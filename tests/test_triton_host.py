"""What the host does for a step of a small layer, counted, not timed: its time is what a fast GPU waits for."""

import pytest

from support.triton_process import report_of

LAUNCHED = {"triton:features": {"features": 2, "slopes": 1}, "triton:fused": {"matrix": 1, "backward": 1}}


@pytest.mark.parametrize("backend", LAUNCHED)
def test_a_step_searches_no_compiled_kernel(backend):
    report = report_of("triton_host", backend)
    assert report["launched"] == LAUNCHED[backend]
    assert report["searches"] == []
