"""The mini suite, published on a hub on loopback; a call of the command line against it; and two toy tasks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forked import Forked, Forks, open_forks
from tests.harness import processes
from tests.harness.fetching import SHORT_PAUSES, Call, Start, environment_for
from tests.hub import Hub, Server, open_server
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


@dataclass(frozen=True)
class HubPlace:
    """Where commands ask hubs, one after the other, that are all at one address: their home is a link, to a test's."""

    server: Server
    home: Path
    forks: Forks


@pytest.fixture(scope="session")
def hub_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubPlace]:
    """`datasets` is imported once, by the process that the commands are forked from."""
    home = tmp_path_factory.mktemp("home") / "link"
    with open_server() as server, open_forks("datasets", env=environment_for(server.url, home)) as forks:
        yield HubPlace(server, home, forks)


@pytest.fixture
def endpoint(hub_place: HubPlace, hub: Hub, tmp_path: Path) -> str:
    hub_place.server.hub = hub
    hub_place.home.unlink(missing_ok=True)
    hub_place.home.symlink_to(tmp_path)
    return hub_place.server.url


@pytest.fixture
def call(endpoint: str, hub_place: HubPlace, tmp_path: Path, forks: Forks) -> Call:
    environment = environment_for(endpoint, hub_place.home)

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        # The hub's client reads its settings while it is imported, but for the token.
        those = forks if extra.keys() - {"HF_TOKEN"} else hub_place.forks
        return those.call([SHORT_PAUSES, *arguments], cwd=tmp_path, env=environment | extra)

    return run


@pytest.fixture
def start(endpoint: str, hub_place: HubPlace, tmp_path: Path) -> Start:
    environment = environment_for(endpoint, hub_place.home)

    def run(*arguments: str) -> Forked:
        return hub_place.forks.start([SHORT_PAUSES, *arguments], cwd=tmp_path, env=environment)

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
