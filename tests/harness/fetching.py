"""Calls of `mmeb-eval data` in a process of its own, against the hub on loopback, and looks at what came of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mmeb_tasks import TASKS

from mmeb_harness import Frames
from mmeb_harness.data.revisions import WORK
from tests.forked import Forked
from tests.hub import Hub

SHORT_PAUSES = str(Path(__file__).with_name("short_pauses.py"))
BY_NAME = {task.name: task for task in TASKS}

Call = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Forked]


def environment_for(endpoint: str, home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }


def get(call: Call, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    done = call("data", "get", *arguments, **extra)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    known = ("error: ", "not done: ", "asking the hub")
    strange = [
        line for line in done.stderr.splitlines() if line and not line.startswith(known) and "resume" not in line
    ]
    assert not strange, strange
    return done.stderr


def same_samples(name: str, suite: Path, folder: Path) -> bool:
    """What is read from the fetched folder is what is read from the folder that was published."""
    ours, theirs = (BY_NAME[name].load(root, Frames()) for root in (folder, suite))
    moved = str(ours).replace(str(folder), str(suite))
    return moved == str(theirs) and all(
        path.read_bytes() == (suite / path.relative_to(folder)).read_bytes()
        for item in (*ours.queries, *ours.candidates)
        for path in item.media
    )


def stamps_of(folder: Path) -> dict[str, int]:
    placed = [
        path
        for name in ("annotations", "image-tasks", "video-tasks", "visdoc-tasks")
        for path in (folder / name).rglob("*")
    ]
    return {str(path): path.stat().st_mtime_ns for path in placed if path.is_file()}


def sizes_under_way(folder: Path, pattern: str) -> list[int]:
    """Sizes of a folder's files while a process works there: one that gets its name between two looks is left out."""
    sizes = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes


def same_folder_exists(root: Path, name: str) -> bool:
    return (root / "data/video-tasks/frames/video_cls" / name).is_dir()


def push(hub: Hub, repo: str, changes: dict[str, bytes | None]) -> str:
    """A new commit with some files changed, added or (`None`) gone."""
    files = dict(hub.repos[repo][hub.heads[repo]])
    for path, content in changes.items():
        if content is None:
            del files[path]
        else:
            files[path] = content
    return hub.push(repo, files)


def frames_of(folder: Path, name: str) -> set[str]:
    root = folder / "video-tasks/frames/video_cls" / name
    return {path.relative_to(root).as_posix() for path in root.rglob("*.jpg")}


def archive_file(folder: Path) -> Path:
    """The one kept archive."""
    (archive,) = [path for path in (folder / WORK).iterdir() if path.name.startswith("sha256-") and path.suffix == ""]
    return archive


def fill(path: Path, leave: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free > leave:
        with path.open("ab") as file:
            file.write(b"\0" * (free - leave))


class small_disk:  # noqa: N801 - reads like a function
    """A disk of a few MB, in memory. Needs the right to mount, which CI has."""

    def __init__(self, folder: Path, size: str) -> None:
        self._folder, self._size = folder, size

    def __enter__(self) -> Path:
        self._folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(self._folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no right to mount a small disk here")
        return self._folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self._folder)], check=True)
