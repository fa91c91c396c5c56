"""A pytest plugin for runs on a GPU: a test that breaks the GPU for its process, or hangs, ends that process.

After an illegal access every later call of the process fails, and the first failure is lost among hundreds. The log
gets the cause; pytest-xdist names the test and starts another worker.
"""

import faulthandler
import os

import pytest
import torch

SECONDS = 100  # of a test
LOG = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LOG] = os.fdopen(os.dup(2), "w")  # before pytest captures what a test prints


def broken() -> str:
    """The GPU's error, if it takes no more work from this process."""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error)
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=item.config.stash[LOG])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    if report.failed and torch.cuda.is_available() and (why := broken()):
        print(f"\n{item.nodeid} broke the GPU: {why}\n{report.longreprtext}", file=item.config.stash[LOG], flush=True)
        os._exit(1)
    return report
