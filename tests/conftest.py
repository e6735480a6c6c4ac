"""One mini suite for the whole test session, as made and in a cache."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys

# A script starts its background jobs with SIGINT ignored, and nohup with SIGHUP, which Python and all it starts would
# inherit: no Ctrl-C and no closed terminal would reach the commands that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Hundreds of processes import the same modules: what they compile is kept, whatever the environment says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Tests run in parallel, in processes: more threads in each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from mmeb_tasks import EDITIONS, TASKS
from mmeb_tasks.mini import make_suite, make_suite_v3

from mmeb_harness.core.environment import available_cpus
from mmeb_harness.core.files import lock_file
from tests.faults.fault import linked_suite
from tests.forked import Forks, open_forks

settings.register_profile(
    "suite", derandomize=True, max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: a fifth of the time tests wait, for servers, processes and time limits of their own."""
    return available_cpus() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, those with most of them foremost: none is begun when all others are done."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """What the tests imported stays: to look through it again takes each collection of garbage long."""
    gc.freeze()


def _made_once(name: str, make: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is made once for all processes of a session."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with lock_file(folder / f"{name}.lock"):
        if not (folder / name).is_dir():
            make(folder / name)
    return folder / name


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini suite, seed 0, as made. Nobody writes into it."""
    return _made_once("mini", lambda folder: make_suite(folder, 0), tmp_path_factory)


@pytest.fixture(scope="session")
def mini_additions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the mini suite of MMEB-V3 has beside the 78 tasks, seed 0, as made. Nobody writes into it."""
    added = [task.name for task in EDITIONS["v3"][len(TASKS) :]]
    return _made_once("mini-additions", lambda folder: make_suite_v3(folder, 0, added), tmp_path_factory)


@pytest.fixture(scope="session")
def cache(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds the mini suite, for the tests of one process: readers write pages into it."""
    folder = tmp_path_factory.mktemp("cache")
    linked_suite(mini, folder / "mini-v1-seed0", shutil.copyfile)
    return folder


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with open_forks() as forks:
        yield forks
