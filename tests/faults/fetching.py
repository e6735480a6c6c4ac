"""Archives, tables and lock files that `data get` is given, and official results that `import` is: all without a hub.

What the lock file names lies in the folder of downloads already, under its digest, so that nothing is asked for.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmeb_tasks import TASKS
from mmeb_tasks.hub import MEDIA_REPO

from mmeb_harness.ranking.metrics import METRIC_NAMES
from tests.faults.fault import Command, Fault, World

REPO, PARQUET, ARCHIVE = "ziyjiang/MMEB_Test_Instruct", "DocVQA/test.parquet", "image-tasks/mmeb_v1.tar.gz"
LOCK = "mmeb-data.lock.json"
GET = ("mmeb-eval", "data", "get", "--tasks", "DocVQA", "--data", "data")
OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}

Member = tuple[tarfile.TarInfo, bytes]
#: Members as the benchmark has them → members, or an archive's bytes.
Packed = Callable[[list[Member]], "list[Member] | bytes"]


def _member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def _packed(members: Sequence[Member], encoding: str = "utf-8") -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT, encoding=encoding) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return written.getvalue()


def _folder(world: World, table: bytes | None, pack: Packed) -> dict[str, Any]:
    """A data folder with all that its lock file names; what the lock file says."""
    pictures = sorted((world.mini / "image-tasks/DocVQA").iterdir())
    packed = pack([_member(f"MMEB/DocVQA/{path.name}", path.read_bytes()) for path in pictures])
    archive = gzip.compress(packed if isinstance(packed, bytes) else _packed(packed), 1)
    table = (world.mini / "annotations" / REPO / PARQUET).read_bytes() if table is None else table
    repos = {}
    for repo, path, content in ((REPO, PARQUET, table), (MEDIA_REPO, ARCHIVE, archive)):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        fetched = world.folder / "data/.work" / digest.replace(":", "-")
        fetched.parent.mkdir(parents=True, exist_ok=True)
        fetched.write_bytes(content)
        tables = {"DocVQA/test": [path]} if repo == REPO else {}
        repos[repo] = {"revision": "c" * 40, "files": {path: [len(content), digest]}, "tables": tables}
    return {"schema_version": 1, "repos": repos}


def _get(
    name: str,
    pack: Packed,
    *says: str,
    code: int = 2,
    table: bytes | None = None,
    lock: Callable[[dict[str, Any]], object] = lambda values: values,
    holds: Callable[[World], None] | None = None,
) -> Fault:
    def make(world: World) -> Sequence[Command]:
        text = lock(_folder(world, table, pack))
        if callable(text):
            text(world.folder / "data" / LOCK)
        else:
            content = text if isinstance(text, bytes) else json.dumps(text).encode()
            (world.folder / "data" / LOCK).write_bytes(content)
        return [GET]

    def held(world: World) -> None:
        outside = {path.name for path in world.folder.iterdir()} - {"data", "cache", ".cache"}
        assert not outside, f"{outside} outside of the data folder"
        assert not list((world.folder / "data").rglob("*.tmp")), "something half-written"
        if holds is not None:
            holds(world)

    return Fault("fetching", name, make, says, code, OFFLINE, held)


def _as_it_is(members: list[Member]) -> list[Member]:
    return members


def _hostile(name: str, member: Member, *says: str) -> Fault:
    return _get(f"member: {name}", lambda members: [members[0], member, *members[1:]], *says)


def _declares(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header alone, whose content never comes."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def _picture(world: World, name: str) -> Path:
    return world.folder / "data/image-tasks/DocVQA" / name


def _all_pictures(world: World) -> None:
    placed = {path.name for path in (world.folder / "data/image-tasks/DocVQA").iterdir()}
    assert placed == {path.name for path in (world.mini / "image-tasks/DocVQA").iterdir()}, placed


def _last_one_counts(world: World) -> None:
    assert _picture(world, "query_00001.png").read_bytes() == b"the last one"


def _latin(members: list[Member]) -> bytes:
    return _packed([_member("MMEB/Größe/é.png", b"x"), *members], "latin-1")


def _broken_header(members: list[Member]) -> bytes:
    packed = bytearray(_packed(members))
    second = 512 + -(-len(members[0][1]) // 512) * 512
    packed[second] ^= 0xFF
    return bytes(packed)


ARCHIVES = (
    _get("a name in Latin-1", _latin, code=0, holds=_all_pictures),
    _get(
        "a member twice",
        lambda members: [*members, _member("MMEB/DocVQA/query_00001.png", b"the last one")],
        code=0,
        holds=_last_one_counts,
    ),
    _get("a member of 2 TB", lambda members: _declares("MMEB/DocVQA/query_00001.png", 2 << 40), "unpacks to more than"),
    _get("an unwanted member of 2 TB", lambda members: _declares("other", 2 << 40), "isn't the published archive"),
    _get(
        "a name of 2 GB", lambda members: _declares("x", 2 << 30, tarfile.GNUTYPE_LONGNAME), "unpacks|a member's name"
    ),
    _get("a broken header", _broken_header, r"mmeb_v1\.tar\.gz is damaged or cut short \(a member's header"),
    _get("cut short", lambda members: _packed(members)[:3000], r"mmeb_v1\.tar\.gz is damaged or cut short"),
    _get("no archive", lambda members: b"<html>not found</html>" * 50, r"mmeb_v1\.tar\.gz is damaged or cut short"),
    _get("nothing of the task", lambda members: [_member("elsewhere/a.png", b"x")], "holds nothing for DocVQA"),
    _hostile("up and out", _member("../escape.png", b"x"), r"'\.\./escape\.png' leaves the folder"),
    _hostile("from the root", _member("/tmp/escape.png", b"x"), "leaves the folder"),
    _hostile(
        "a link out",
        _member("MMEB/DocVQA/query_00002.png", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        "points to '/etc/passwd', outside",
    ),
    _hostile("a device", _member("MMEB/DocVQA/query_00002.png", kind=tarfile.CHRTYPE), "neither a file nor a folder"),
    _get("a table that is none", _as_it_is, r"DocVQA/test\.parquet is no readable parquet", "--update", table=b"PAR1"),
)


def _lock(name: str, change: Callable[[dict[str, Any]], object], *says: str) -> Fault:
    return _get(f"lock: {name}", lambda members: [], r"mmeb-data\.lock\.json", *says, lock=change)


def _with_files(files: object) -> Callable[[dict[str, Any]], object]:
    def change(values: dict[str, Any]) -> object:
        values["repos"][REPO]["files"] = files
        return values

    return change


LOCKS = (
    _lock("a list", lambda values: []),
    _lock("half a file", lambda values: json.dumps(values).encode()[:200], "copy it again"),
    _lock("not UTF-8", lambda values: b'{"schema_version": "\xff"}'),
    _lock("of a later release", lambda values: {**values, "schema_version": 99}, "upgrade"),
    _lock("a size as text", _with_files({PARQUET: ["12", "sha256:" + "0" * 64]})),
    _lock("a size below zero", _with_files({PARQUET: [-1, "sha256:" + "0" * 64]})),
    _lock("a digest that leaves the folder", _with_files({PARQUET: [1, "../../escape"]}), "escape"),
    _lock("no files", _with_files(None)),
    _lock("a table's file that isn't listed", _with_files({}), "not listed"),
    _lock("a named pipe", lambda values: os.mkfifo, "named pipe"),
    _lock("brackets in brackets", lambda values: b"[" * 100_000),
)


def _scores(value: object = 0.5, queries: object = 1000) -> dict[str, object]:
    return {**dict.fromkeys(METRIC_NAMES, value), "num_pred": queries, "num_data": queries}


def _import(name: str, put: Callable[[Path], object], *says: str, code: int = 2) -> Fault:
    def make(world: World) -> Sequence[Command]:
        (world.folder / "m").mkdir()
        put(world.folder / "m")
        return [("mmeb-eval", "import", "m")]

    return Fault("fetching", f"import: {name}", make, says, code)


def _complete(folder: Path, *beside: str) -> None:
    for task in TASKS:
        if task.num_queries is not None:
            (folder / f"{task.name}_score.json").write_text(json.dumps(_scores(queries=task.num_queries)))
    for name in beside:
        (folder / f"{name}_score.json").write_text(json.dumps(_scores(queries=1800)))


def _with_rankings(page: int) -> Callable[[Path], object]:
    def put(folder: Path) -> None:
        _complete(folder)
        (folder / "GQA_score.json").unlink()
        (folder / "ViDoSeek-page_score.json").unlink()
        line = json.dumps({"prediction": [3, 4], "label": [page], "rel_scores": [3]}) + "\n"
        (folder / "ViDoSeek-page_pred.jsonl").write_text(line * 1142)

    return put


def _score(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "GQA_score.json").write_text(text)


def _ranking(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "GQA_pred.jsonl").write_text(text)


GQA = r"GQA_score\.json"
IMPORTS = (
    _import("a complete folder", _complete, "page-fixed", "assumed, since all 78 tasks are there", code=0),
    _import("one with both MomentSeekers", lambda folder: _complete(folder, "MomentSeeker_1k8"), "v2.0.1", code=0),
    _import("rankings over fixed pages", _with_rankings(3), "page-fixed", code=0),
    _import("rankings over unfixed pages", _with_rankings(4), "v2.0.1", "ViDoSeek-page is about page 4", code=0),
    _import("a named pipe for scores", lambda folder: os.mkfifo(folder / "GQA_score.json"), GQA, "named pipe"),
    _import("a pipe for rankings", lambda folder: os.mkfifo(folder / "GQA_pred.jsonl"), "GQA"),
    _import("scores from /dev/zero", lambda folder: (folder / "GQA_score.json").symlink_to("/dev/zero"), GQA, "device"),
    _import("deep JSON", _score("[" * 100_000), GQA),
    _import("a number of 5,000 digits", _score(json.dumps(_scores()).replace("1000", "9" * 5000)), GQA),
    _import("NaN", _score(json.dumps(_scores(float("nan")))), GQA),
    _import("a score of 2.5", _score(json.dumps(_scores(2.5))), GQA, "2.5"),
    _import("a score that is null", _score(json.dumps(_scores(None))), GQA),
    _import("a list", _score("[]"), GQA),
    _import("a line that is no ranking", _ranking('{"prediction": 3}\n'), r"GQA_pred\.jsonl:1"),
    _import("ids that are lists", _ranking('{"prediction": [[1]], "label": "1"}\n'), r"GQA_pred\.jsonl:1"),
    _import("nothing", lambda folder: None, "name the folder that official results were written to"),
)

FAULTS = (*ARCHIVES, *LOCKS, *IMPORTS)
