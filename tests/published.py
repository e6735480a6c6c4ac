"""The mini suite as the hub would publish it: tables in their repositories, media in archives with all their traps."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from mmeb_tasks.hub import MEDIA_REPO

from tests.hub import Files, Hub

#: A tar file's name on the hub, the folder it is made of, and what its members' names begin with.
ARCHIVES = {
    "image-tasks/mmeb_v1.tar.gz": ("image-tasks", "MMEB/"),
    "video-tasks/frames/video_cls.tar.gz": ("video-tasks/frames/video_cls", "./"),
    "video-tasks/frames/video_ret.tar.gz": ("video-tasks/frames/video_ret", "data/ziyan/video_retrieval/"),
    "video-tasks/frames/video_mret.tar.gz": ("video-tasks/frames/video_mret", "video_mret/"),
    "video-tasks/frames/video_qa.tar.gz": ("video-tasks/frames/video_qa", "video_qa/video_qa/"),
}
SPELLINGS = {"EgoSchema": "egoschema", "Charades_STA": "Charades-STA"}
NUM_PARTS = 3


def publish(suite: Path, hub: Hub) -> None:
    """Push every table and archive of a suite's folder to the hub."""
    for repo, files in table_repos(suite).items():
        hub.push(repo, files)
    hub.push(MEDIA_REPO, media_files(suite))


def table_repos(suite: Path) -> dict[str, Files]:
    """repository → its files: a README that names configurations and splits, and parquet files."""
    repos: dict[str, Files] = {}
    for path in sorted((suite / "annotations").rglob("*.parquet")):
        owner, name, config, split_file = path.relative_to(suite / "annotations").parts
        files = repos.setdefault(f"{owner}/{name}", {})
        files[f"{config}/{split_file.removesuffix('.parquet')}-00000-of-00001.parquet"] = path.read_bytes()
    for files in repos.values():
        files["README.md"] = _readme(files).encode()
    return repos


def _readme(files: Iterable[str]) -> str:
    lines = ["---", "configs:"]
    for path in files:
        folder = PurePosixPath(path)
        split = folder.name.partition("-")[0]
        lines += [f"- config_name: {folder.parent.name}", "  data_files:", f"  - split: {split}", f"    path: {path}"]
    return "\n".join([*lines, "---", "# A data set", ""])


def media_files(suite: Path) -> Files:
    """The archives. video_ret has a `frames` level, video_qa comes in parts, two folders are spelled otherwise."""
    files: Files = {"README.md": b"# Media\n"}
    for name, (folder, prefix) in ARCHIVES.items():
        if not (suite / folder).is_dir():
            continue
        content = tar_of(_members(suite / folder, prefix, "video_ret" in name))
        if "video_qa" in name:
            size = len(content) // NUM_PARTS + 1
            parts = [content[start : start + size] for start in range(0, len(content), size)]
            files |= {f"{name}-{index:02d}": part for index, part in enumerate(parts)}
        else:
            files[name] = content
    return files


def _members(folder: Path, prefix: str, with_frames_level: bool) -> Iterable[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            first, *rest = path.relative_to(folder).parts
            level = ["frames"] if with_frames_level else []
            yield prefix + "/".join([SPELLINGS.get(first, first), *level, *rest]), path.read_bytes()


def tar_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A compressed tar file, the same bytes each time."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
