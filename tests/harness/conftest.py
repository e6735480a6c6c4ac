"""The mini suite, published on a hub on loopback; a call of the command line against it; and two toy tasks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import EVAL, Forks
from tests.harness import processes
from tests.harness.fetching import Call, environment_for
from tests.hub import Hub, serve
from tests.published import publish
from tests.toy import write_toy


@pytest.fixture
def suite(cache: Path) -> Path:
    return cache / "mini-v1-seed0"


@pytest.fixture
def own_data(suite: Path, tmp_path: Path) -> Path:
    """A copy of what OK-VQA and HMDB51 need, to spoil."""
    folder = tmp_path / "data"
    for part in (
        "manifest.json",
        "annotations/ziyjiang/MMEB_Test_Instruct/OK-VQA",
        "annotations/VLM2Vec/HMDB51",
        "image-tasks/OK-VQA",
        "video-tasks/frames/video_cls/HMDB51",
    ):
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (suite / part).is_dir() else shutil.copy)(suite / part, target)
    return folder


@pytest.fixture(scope="session")
def published(cache: Path) -> Hub:
    """Made once: compressing takes a second. Tests get copies."""
    hub = Hub()
    publish(cache / "mini-v1-seed0", hub)
    return hub


@pytest.fixture
def hub(published: Hub) -> Hub:
    repos = {repo: {commit: dict(files) for commit, files in held.items()} for repo, held in published.repos.items()}
    return Hub(repos=repos, heads=dict(published.heads))


@pytest.fixture
def endpoint(hub: Hub) -> Iterator[str]:
    with serve(hub) as url:
        yield url


@pytest.fixture
def call(endpoint: str, tmp_path: Path, forks: Forks) -> Call:
    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return forks.call([EVAL, *arguments], cwd=tmp_path, env=environment_for(endpoint, tmp_path) | extra)

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Toy tasks: one with a pool a query, one without."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_toy(folder, "one", pooled=True)
    write_toy(folder, "two", pooled=False)
    return folder


@pytest.fixture(scope="module")
def place(cache: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> processes.Place:
    """Where runs over several processes are; "alone" is one that a single process did without interruption."""
    made = processes.Place.in_folder(tmp_path_factory.mktemp("processes"), cache, forks)
    done = made.call(*made.run("alone"))
    assert done.returncode == 0, done.stderr
    return made
