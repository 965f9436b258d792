"""One thread each: small tensors gain nothing from more, and results do not depend on how many cores a machine has."""

import os
import signal
from collections.abc import Iterator

import hypothesis
import orphans
import pytest
import torch
from group import Ranks

from data_shards.storage.proxy import keep_loopback_direct

orphans.mark()
# The same examples every time, however long a busy machine takes for them.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")
# A shell starts what it puts in the background without Ctrl-C, and its children with it: some tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Tests start servers on this machine, which no proxy reaches; and GPUs are hidden from all but those that need one: the others
    compare what is done, and said, on a CPU."""
    keep_loopback_direct()
    chosen = config.option.markexpr
    if "gpu" not in chosen or "not gpu" in chosen:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The same random numbers and one thread, whatever ran before."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


pytest_runtest_call = pytest_runtest_setup


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(4, tmp_path_factory.mktemp("ranks")) as group:
        yield group


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Processes that the tests left behind are a failure of theirs."""
    if left := orphans.end_orphans():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\nThe tests left processes behind, which were killed:", *left, sep="\n  ")
