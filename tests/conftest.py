"""One mini suite for the whole test session, in a cache of its own."""

from __future__ import annotations

import os
import signal

# A script starts its background jobs with SIGINT ignored, which Python and all it starts would inherit: no Ctrl-C
# would reach the commands that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run in parallel, in processes: more threads in each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmeb_tasks.mini import SUITE

from mmeb_harness.data.folder import ensure_suite
from tests.forked import Forks, open_forks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, those with most of them foremost: none is begun when all others are done."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds the mini suite, seed 0."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("MMEB_CACHE")
    os.environ["MMEB_CACHE"] = str(folder)
    try:
        ensure_suite(SUITE, 0)
    finally:
        if before is None:
            del os.environ["MMEB_CACHE"]
        else:
            os.environ["MMEB_CACHE"] = before
    return folder


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with open_forks() as forks:
        yield forks
