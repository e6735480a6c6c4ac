"""MMEB-V3's golden files as the bundle repository would publish them: each part packed as the official one is."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmeb_tasks.agent import MEMORY_ROWS
from mmeb_tasks.bundle import REPO, REVISION

from tests.hub import Files, Hub
from tests.published import tar_of

Members = list[tuple[str, bytes]]


def publish_bundle(folder: Path, hub: Hub) -> None:
    """A folder in the evaluation's tree, at the pinned revision; the newest one is another."""
    hub.push(REPO, {"README.md": b"# What came later\n"})
    hub.repos[REPO][REVISION] = bundle_files(folder)


def bundle_files(folder: Path) -> Files:
    """The archives: parts of a tar, tars, zips with a top folder or with another one, a tar in a tar, plain tables."""
    tree = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    text = plain_tar(below(tree, "text-tasks", "text-tasks/"))
    middle = len(text) // 2
    files = {
        "text_tasks/text_tasks.tar.part-000": text[:middle],
        "text_tasks/text_tasks.tar.part-001": text[middle:],
        "tool_tasks/tool_tasks.tar.gz": tar_of(below(tree, "tool-tasks", "./tool-tasks/")),
        "memory_tasks/memory-tasks.tar": plain_tar(_side_by_side(below(tree, "memory-tasks", "memory-tasks/"))),
        "image_tasks/MCMR.tar.gz": _mcmr(tree),
        # The tables name files below guiact/ and mind2web/.
        "gui_tasks/GUIAct.zip": zip_of(below(tree, "gui-tasks/GUIAct", "")),
        "gui_tasks/Mind2Web.zip": zip_of(below(tree, "gui-tasks/Mind2Web/mind2web", "Mind2Web/")),
    }
    tables = {name: content for name, content in tree.items() if name.startswith("gui-tasks/GAE-")}
    files |= {name.replace("gui-tasks", "gui_tasks"): content for name, content in tables.items()}
    for top in sorted({name.split("/")[1] for name in tree if name.startswith("audio-tasks/")}):
        files[f"audio_tasks/{top}.tar"] = plain_tar(below(tree, f"audio-tasks/{top}", f"{top}/"))
    return files


def below(tree: Mapping[str, bytes], folder: str, prefix: str) -> Members:
    """What lies below a folder, with another beginning."""
    start = f"{folder}/"
    return [(prefix + name.removeprefix(start), tree[name]) for name in sorted(tree) if name.startswith(start)]


def _side_by_side(members: Members) -> Members:
    kinds = {f"/{row.kind}/": "/" for row in MEMORY_ROWS}
    for kind, instead in kinds.items():
        members = [(name.replace(kind, instead), content) for name, content in members]
    return members


def _mcmr(tree: Mapping[str, bytes]) -> bytes:
    """The pictures are packed a second time."""
    pictures = tar_of(below(tree, "image-tasks/MCMR/images", "images/"))
    tables = [(f"MCMR/{name}", tree[f"image-tasks/MCMR/{name}"]) for name in ("candidates.jsonl", "query.jsonl")]
    return tar_of([tables[0], ("MCMR/images.tar.gz", pictures), tables[1]])


def plain_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar file that is not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A compressed zip file, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
