"""`mmeb-eval data plan | get` against a hub on loopback, through the real client: breaks, lies, locks, full disks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mmeb_tasks import TASKS
from mmeb_tasks.hub import MEDIA_REPO

from mmeb_harness import Frames
from mmeb_harness.data import DataInfo, data_revision, describe, source_key
from mmeb_harness.fetch.check import check_tasks
from mmeb_harness.fetch.lock import LOCK
from mmeb_harness.fetch.locking import WORK
from mmeb_harness.fetch.place import PAGE_POOL
from mmeb_harness.fetch.plan import progress_file
from tests import hub as hub_module
from tests.hub import Hub, serve
from tests.published import publish, table_repos, tar_of

EVAL = str(Path(sys.executable).parent / "mmeb-eval")
BY_NAME = {task.name: task for task in TASKS}

#: Bytes that the client writes at once, in these tests.
CHUNK = 4096

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def suite(cache: Path) -> Path:
    return cache / "mini-v1-seed0"


@pytest.fixture
def hub(suite: Path) -> Hub:
    hub = Hub()
    publish(suite, hub)
    return hub


@pytest.fixture
def endpoint(hub: Hub) -> Iterator[str]:
    with serve(hub) as url:
        yield url


def environment_for(endpoint: str, home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "PYTHONPATH": str(small_chunks(home)),
    }


def small_chunks(home: Path) -> Path:
    """The client writes in chunks of 10 MB, more than a whole file here: smaller ones, so that there is a rest."""
    folder = home / "small-chunks"
    folder.mkdir(exist_ok=True)
    lines = f"from huggingface_hub import constants\nconstants.DOWNLOAD_CHUNK_SIZE = {CHUNK}\n"
    (folder / "sitecustomize.py").write_text(lines)
    return folder


@pytest.fixture
def call(endpoint: str, tmp_path: Path) -> Call:
    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        environment = environment_for(endpoint, tmp_path) | extra
        return subprocess.run(
            [EVAL, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    return run


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


def test_all_78_tasks_are_fetched_and_read_like_what_was_published(
    call: Call, hub: Hub, suite: Path, tmp_path: Path
) -> None:
    """Every layout trap of the archives is in here; see tests/published.py."""
    planned = call("data", "plan")
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"^ziyjiang/MMEB_Test_Instruct +\w{8} +36 ", planned.stdout, re.MULTILINE)
    assert re.search(r"^TIGER-Lab/MMEB-V2 +\w{8} +7 .* 0 bytes +54$", planned.stdout, re.MULTILINE)
    done = get(call)
    assert "199 steps done, 0 were done before" in done.stdout
    folder = tmp_path / "data"
    assert [name for name in BY_NAME if not same_samples(name, suite, folder)] == []
    assert not list((folder / WORK).glob("*sha256*"))  # every archive has served all of its tasks
    before, stamps = sum(hub.served.values()), stamps_of(folder)
    again = get(call)
    assert "0 steps done, 199 were done before" in again.stdout
    assert sum(hub.served.values()) == before  # not one byte twice
    assert stamps_of(folder) == stamps
    assert re.search(
        r"to download: 0 bytes\ndisk: +up to 0 bytes to stay, 0 bytes in passing", call("data", "plan").stdout
    )


def stamps_of(folder: Path) -> dict[str, int]:
    placed = [
        path
        for name in ("annotations", "image-tasks", "video-tasks", "visdoc-tasks")
        for path in (folder / name).rglob("*")
    ]
    return {str(path): path.stat().st_mtime_ns for path in placed if path.is_file()}


def test_only_what_the_chosen_tasks_need_and_nothing_twice(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    done = get(call, "--tasks", "HMDB51,VOC2007")
    assert set(hub.served) - {"README.md"} == {
        "VOC2007/test-00000-of-00001.parquet",
        "default/test-00000-of-00001.parquet",
        "image-tasks/mmeb_v1.tar.gz",
        "video-tasks/frames/video_cls.tar.gz",
    }
    assert "kept in" in done.stdout  # both archives serve other tasks too
    assert {path.name for path in (tmp_path / "data/video-tasks/frames/video_cls").iterdir()} == {"HMDB51"}
    assert {path.name for path in (tmp_path / "data/image-tasks").iterdir()} == {"VOC2007"}
    before = hub.served["video-tasks/frames/video_cls.tar.gz"]
    done = get(call, "--groups", "V-CLS")
    assert hub.served["video-tasks/frames/video_cls.tar.gz"] == before
    assert "2 were done before" in done.stdout  # its table, its frames
    assert same_samples("K700", suite, tmp_path / "data")
    assert "kept" not in done.stdout
    kept = [
        path for path in (tmp_path / "data" / WORK).iterdir() if path.name.startswith("sha256") and path.suffix == ""
    ]
    assert len(kept) == 1  # the image archive


def test_downloads_that_break_off_are_continued(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    parts = [f"video-tasks/frames/video_qa.tar.gz-{index:02d}" for index in range(3)]
    for path in parts:
        hub.breaks[path] = 3
    hub.failing[parts[0]] = [503, 429]
    get(call, "--tasks", "EgoSchema", "--workers", "3")
    assert same_samples("EgoSchema", suite, tmp_path / "data")
    assert (hub.broken, hub.resumed) == (9, 9)
    for path in parts:  # each byte once, in four pieces, but for the rest of a chunk at each break
        assert 0 <= hub.served[path] - len(hub.content(MEDIA_REPO, path)) <= 3 * CHUNK


def test_what_the_clients_own_cache_holds_is_not_fetched_again(
    call: Call, hub: Hub, suite: Path, tmp_path: Path
) -> None:
    path, commit = "video-tasks/frames/video_cls.tar.gz", hub.heads[MEDIA_REPO]
    snapshot = tmp_path / "hf/hub/datasets--TIGER-Lab--MMEB-V2/snapshots" / commit / path
    snapshot.parent.mkdir(parents=True)
    snapshot.write_bytes(b"damaged")
    get(call, "--tasks", "HMDB51", "--data", "first")
    assert hub.served[path] == len(hub.content(MEDIA_REPO, path))  # what the cache held was not the hub's
    snapshot.write_bytes(hub.content(MEDIA_REPO, path))
    get(call, "--tasks", "HMDB51", "--data", "second")
    assert hub.served[path] == len(hub.content(MEDIA_REPO, path))
    assert same_samples("HMDB51", suite, tmp_path / "second")
    assert snapshot.is_file()


def test_a_killed_download_goes_on_where_it_was(endpoint: str, hub: Hub, suite: Path, tmp_path: Path) -> None:
    """The client deletes partial files; ours stay, through kill -9."""
    archive = "video-tasks/frames/video_qa.tar.gz-00"
    hub.stall[archive] = len(hub.content(MEDIA_REPO, archive)) // 2
    command = [EVAL, "data", "get", "--tasks", "EgoSchema"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment_for(endpoint, tmp_path), start_new_session=True)
    part = tmp_path / "data" / WORK
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in part.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.05)
    hub.wait_for_stall()
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    hub.stall.clear()
    kept = max(path.stat().st_size for path in part.glob("*.part"))
    before = hub.served[archive]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment_for(endpoint, tmp_path), check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert kept > 0
    rest = len(hub.content(MEDIA_REPO, archive)) - kept
    assert hub.served[archive] - before <= rest + hub_module.CHUNK  # what the server still sent to the dead
    assert same_samples("EgoSchema", suite, tmp_path / "data")


def test_files_that_come_from_another_host(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    """As from the hub's content network: ranges are kept, the token is not passed on."""
    hub.redirects = True
    hub.breaks["video-tasks/frames/video_cls.tar.gz"] = 2
    get(call, "--tasks", "HMDB51", HF_TOKEN="hf_secret")
    assert same_samples("HMDB51", suite, tmp_path / "data")
    assert (hub.broken, hub.resumed, hub.tokens_elsewhere) == (2, 2, [])


def test_a_wrong_checksum_is_never_used(call: Call, hub: Hub, tmp_path: Path) -> None:
    path = "video-tasks/frames/video_cls.tar.gz"
    hub.altered.add(path)
    message = refused(call("data", "get", "--tasks", "HMDB51,ViDoRe_tabfquad"))
    assert f"{path} arrived twice with the wrong checksum" in message
    assert hub.served[path] == 2 * len(hub.content(MEDIA_REPO, path))
    assert not (tmp_path / "data/video-tasks").exists()
    assert (tmp_path / "data/visdoc-tasks/ViDoRe_tabfquad").is_dir()  # the others are done all the same
    hub.altered.clear()
    assert "4 were done before" in get(call, "--tasks", "HMDB51,ViDoRe_tabfquad").stdout


def test_a_hostile_archive_on_the_hub(call: Call, hub: Hub, tmp_path: Path) -> None:
    files = dict(hub.repos[MEDIA_REPO][hub.heads[MEDIA_REPO]])
    hub.push(
        MEDIA_REPO, files | {"video-tasks/frames/video_cls.tar.gz": tar_of([("HMDB51/../../../../escape.jpg", b"x")])}
    )
    assert "leaves the folder; this isn't the published archive" in refused(call("data", "get", "--tasks", "HMDB51"))
    assert not list(tmp_path.rglob("escape.jpg"))
    hub.push(MEDIA_REPO, files | {"video-tasks/frames/video_cls.tar.gz": tar_of([("other/1.jpg", b"x")])})
    message = refused(call("data", "get", "--tasks", "HMDB51", "--update"))
    assert "holds nothing for HMDB51" in message


def test_pages_of_both_tasks_over_a_corpus_are_one_file(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    """Two repositories with one corpus: the file is fetched once, and so are its pages stored."""
    page = hub.content("VLM2Vec/ViDoSeek-page-fixed", "corpus/test-00000-of-00001.parquet")
    other = dict(hub.repos["VLM2Vec/ViDoSeek"][hub.heads["VLM2Vec/ViDoSeek"]])
    hub.push("VLM2Vec/ViDoSeek", other | {"corpus/test-00000-of-00001.parquet": page})
    get(call, "--tasks", "ViDoSeek-page,ViDoSeek-doc")
    assert hub.served["corpus/test-00000-of-00001.parquet"] == len(page)
    root = tmp_path / "data" / "visdoc-tasks"
    pages = sorted(path.name for path in (root / "ViDoSeek-page").iterdir())
    assert pages
    assert all((root / "ViDoSeek-page" / name).samefile(root / "ViDoSeek-doc" / name) for name in pages)
    assert (tmp_path / "data" / PAGE_POOL).is_dir()


def test_a_lock_file_gives_a_second_machine_the_same_bytes(call: Call, hub: Hub, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51", "--data", "first")
    pinned = json.loads((tmp_path / "first" / LOCK).read_text())["repos"]["VLM2Vec/HMDB51"]
    files = dict(hub.repos["VLM2Vec/HMDB51"][pinned["revision"]])
    newer = hub.push(
        "VLM2Vec/HMDB51",
        files
        | {"default/test-00000-of-00001.parquet": hub.content("VLM2Vec/UCF101", "default/test-00000-of-00001.parquet")},
    )
    get(call, "--tasks", "HMDB51", "--data", "second", "--lock", f"first/{LOCK}")
    table = "annotations/VLM2Vec/HMDB51/default/test.parquet"
    assert (tmp_path / "second" / table).read_bytes() == (tmp_path / "first" / table).read_bytes()
    assert (tmp_path / "second" / LOCK).read_bytes() == (tmp_path / "first" / LOCK).read_bytes()
    # Without being asked for, nothing newer is taken; with --update it is, and the results' data revision moves.
    assert "0 steps done" in get(call, "--tasks", "HMDB51", "--data", "first").stdout
    before = data_revision(BY_NAME["HMDB51"], describe(tmp_path / "first"))
    assert "1 steps done" in get(call, "--tasks", "HMDB51", "--data", "first", "--update").stdout
    assert json.loads((tmp_path / "first" / LOCK).read_text())["repos"]["VLM2Vec/HMDB51"]["revision"] == newer
    assert (tmp_path / "first" / table).read_bytes() != (tmp_path / "second" / table).read_bytes()
    assert data_revision(BY_NAME["HMDB51"], describe(tmp_path / "first")) != before
    assert newer[:12] in data_revision(BY_NAME["HMDB51"], describe(tmp_path / "first"))
    # A revision that was deleted on the hub.
    del hub.repos["VLM2Vec/HMDB51"][pinned["revision"]]
    message = refused(call("data", "get", "--tasks", "HMDB51", "--data", "third", "--lock", f"second/{LOCK}"))
    assert f"revision {pinned['revision']} is gone from the hub; --update, without --lock, takes" in message


def test_fetching_another_task_makes_no_result_stale(call: Call, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    before = data_revision(BY_NAME["HMDB51"], describe(tmp_path / "data"))
    assert re.fullmatch(r"TIGER-Lab/MMEB-V2@\w{12},VLM2Vec/HMDB51@\w{12}:\w{24}", before)
    get(call, "--tasks", "UCF101,VOC2007")
    assert data_revision(BY_NAME["HMDB51"], describe(tmp_path / "data")) == before


def test_the_manifest_says_what_is_there(call: Call, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert (manifest["name"], manifest["synthetic"], manifest["schema_version"]) == ("MMEB-V2", False, 1)
    files = [
        path
        for path in (tmp_path / "data").rglob("*.*")
        if path.suffix in (".jpg", ".parquet") and "manifest" not in path.parts
    ]
    assert manifest["files"] == len(files)
    assert manifest["bytes"] == sum(path.stat().st_size for path in files)
    info = describe(tmp_path / "data")
    assert isinstance(info, DataInfo)
    assert not info.synthetic


def test_several_processes_on_one_folder(endpoint: str, hub: Hub, suite: Path, tmp_path: Path) -> None:
    for index in range(3):
        hub.breaks[f"video-tasks/frames/video_qa.tar.gz-{index:02d}"] = 1
    command = [EVAL, "data", "get", "--tasks", "EgoSchema,ViDoSeek-page", "--groups", "V-QA"]
    environment = environment_for(endpoint, tmp_path)
    processes = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(int(re.search(r"(\d+) steps done", text)[1]) for text in printed) == 32  # type: ignore[index]
    for path in ("video-tasks/frames/video_qa.tar.gz-00", "corpus/test-00000-of-00001.parquet"):
        repo = MEDIA_REPO if "video" in path else "VLM2Vec/ViDoSeek-page-fixed"
        assert 0 <= hub.served[path] - len(hub.content(repo, path)) <= CHUNK
    assert all(same_samples(name, suite, tmp_path / "data") for name in ("EgoSchema", "MVBench", "ViDoSeek-page"))


def test_gated_hidden_and_unknown_repositories(call: Call, hub: Hub, tmp_path: Path) -> None:
    hub.gated.add("VLM2Vec/HMDB51")
    hub.hidden.add("VLM2Vec/UCF101")
    del hub.repos["VLM2Vec/Breakfast"]
    message = refused(call("data", "get", "--groups", "V-CLS"))
    assert (
        "VLM2Vec/HMDB51 is gated and no token is set (hf auth login, or HF_TOKEN): accept its terms at http" in message
    )
    assert "VLM2Vec/UCF101 is not on the hub, or private and no token is set" in message
    assert "VLM2Vec/Breakfast is not on the hub" in message
    assert same_folder_exists(tmp_path, "K700")  # the others are fetched
    hub.gated.clear()
    message = refused(call("data", "get", "--groups", "V-CLS", HF_TOKEN="hf_x"))
    assert "UCF101" not in message
    assert "hf_x" not in message


def same_folder_exists(root: Path, name: str) -> bool:
    return (root / "data/video-tasks/frames/video_cls" / name).is_dir()


def test_no_network(call: Call, tmp_path: Path) -> None:
    message = refused(call("data", "get", "--tasks", "HMDB51", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "can't reach the hub at http://127.0.0.1:9" in message
    message = refused(call("data", "plan", "--tasks", "HMDB51", HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in message
    assert not (tmp_path / "data" / "annotations").exists()


def test_a_server_that_keeps_failing(call: Call, hub: Hub) -> None:
    hub.failing["default/test-00000-of-00001.parquet"] = [500] * 50
    message = refused(call("data", "get", "--tasks", "HMDB51"))
    assert "can't be fetched" in message
    assert "the same command goes on from there" in message


def test_a_disk_that_is_too_small_is_said_before_starting(call: Call, hub: Hub, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as folder:
        message = refused(call("data", "get", "--groups", "V-CLS", "--data", str(folder)))
        assert re.search(r"has [\d.]+ MB free|has [\d.]+ kB free", message)
        assert "are missing; free them, choose another --data, or fewer tasks" in message
        assert not hub.served["video-tasks/frames/video_cls.tar.gz"]
        assert "are missing" in refused(call("data", "plan", "--groups", "V-CLS", "--data", str(folder)))


def test_a_disk_that_fills_up_meanwhile(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    """What is complete is kept; with more room the same command goes on and fetches nothing twice."""
    with small_disk(tmp_path / "small", "4m") as folder:
        ballast = folder / "ballast"
        hub.before_sending["video-tasks/frames/video_cls.tar.gz"] = lambda: fill(ballast, leave=150_000)
        message = refused(call("data", "get", "--tasks", "HMDB51", "--data", str(folder / "data")))
        assert "no room left" in message
        assert "free some space, then the same command goes on" in message
        hub.before_sending.clear()
        ballast.unlink()
        before = hub.served["video-tasks/frames/video_cls.tar.gz"]
        get(call, "--tasks", "HMDB51", "--data", str(folder / "data"))
        content = hub.content(MEDIA_REPO, "video-tasks/frames/video_cls.tar.gz")
        assert hub.served["video-tasks/frames/video_cls.tar.gz"] - before < len(content)
        assert same_samples("HMDB51", suite, folder / "data")


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


def fill(path: Path, leave: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free > leave:
        with path.open("ab") as file:
            file.write(b"\0" * (free - leave))


def test_ctrl_c_stops_at_once_and_keeps_what_is_done(endpoint: str, hub: Hub, tmp_path: Path) -> None:
    archive = "video-tasks/frames/video_cls.tar.gz"
    hub.stall[archive] = len(hub.content(MEDIA_REPO, archive)) // 3
    command = [EVAL, "data", "get", "--tasks", "HMDB51"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment_for(endpoint, tmp_path), stderr=subprocess.PIPE, text=True
    )
    hub.wait_for_stall()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    hub.stall.clear()  # the next chunk notices
    _, printed = process.communicate(timeout=30)
    assert process.returncode == 130
    assert printed.splitlines()[-1] == "error: stopped; what is done is kept, the same command goes on from there"
    assert (tmp_path / "data/annotations/VLM2Vec/HMDB51/default/test.parquet").is_file()
    assert list((tmp_path / "data" / WORK).glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "HMDB15"], "no task named 'HMDB15'. Did you mean 'HMDB51'?"),
        (["--edition", "v2"], "no edition named 'v2'. Did you mean 'v2.0.0'?"),
        (["--lock", "nowhere.json"], "'nowhere.json' does not exist"),
        (["--workers", "0"], "0 is not in the range"),
        (["--update", "--lock", "x.json"], "--lock and --update contradict each other"),
        (["--lock", "x.json", "--tasks", "HMDB51"], "is no lock file of schema version 1"),
    ],
)
def test_wrong_options(call: Call, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert message in refused(call("data", "get", *arguments))


def test_a_suites_folder_is_refused(call: Call, suite: Path) -> None:
    message = refused(call("data", "get", "--tasks", "HMDB51", "--data", str(suite)))
    assert "holds a synthetic suite; choose another folder" in message


def test_another_edition_has_other_repositories(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    files = table_repos(suite)
    hub.push("VLM2Vec/ViDoSeek-page", files["VLM2Vec/ViDoSeek-page-fixed"])
    get(call, "--tasks", "ViDoSeek-page", "--edition", "v2.0.0")
    assert (tmp_path / "data/annotations/VLM2Vec/ViDoSeek-page/queries/test.parquet").is_file()
    assert not (tmp_path / "data/annotations/VLM2Vec/ViDoSeek-page-fixed").exists()
    message = refused(call("run", "--model", "random", "--data", "data", "--tasks", "ViDoSeek-page"))
    assert "holds the rows of edition v2.0.0 (VLM2Vec/ViDoSeek-page) only; run with --edition v2.0.0" in message


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


def test_frames_that_a_new_revision_no_longer_has_are_removed(
    call: Call, hub: Hub, suite: Path, tmp_path: Path
) -> None:
    """Frames are found by listing their folder: old ones beside new ones would be shown to the model."""
    get(call, "--groups", "V-CLS")
    root = suite / "video-tasks/frames/video_cls"
    members = [(f"{path.relative_to(root)}", path.read_bytes()) for path in sorted(root.rglob("*.jpg"))]
    fewer = [(name, content) for name, content in members if "HMDB51" not in name or name.endswith(("1.jpg", "3.jpg"))]
    push(hub, MEDIA_REPO, {"video-tasks/frames/video_cls.tar.gz": tar_of(fewer)})
    before = frames_of(tmp_path / "data", "K700")
    get(call, "--tasks", "HMDB51", "--update")
    expected = {name.removeprefix("HMDB51/") for name, _ in fewer if name.startswith("HMDB51")}
    assert frames_of(tmp_path / "data", "HMDB51") == expected
    assert frames_of(tmp_path / "data", "K700") == before


def test_updating_one_task_keeps_the_lock_true_for_the_others(
    call: Call, hub: Hub, suite: Path, tmp_path: Path
) -> None:
    get(call, "--tasks", "VOC2007,OK-VQA")
    repo = "ziyjiang/MMEB_Test_Instruct"
    tables = {name: f"{name}/test-00000-of-00001.parquet" for name in ("VOC2007", "OK-VQA", "SUN397")}
    push(hub, repo, {tables["OK-VQA"]: hub.content(repo, tables["SUN397"])})
    get(call, "--tasks", "VOC2007", "--update")
    locked = json.loads((tmp_path / "data" / LOCK).read_text())["repos"][repo]
    assert set(locked["tables"]) == {"VOC2007/test", "OK-VQA/test"}
    done = call("data", "check", "--tasks", "OK-VQA")
    assert "OK-VQA/test is missing, unfinished, or of another revision than the lock file's" in done.stdout
    get(call, "--tasks", "OK-VQA", "--data", "second", "--lock", f"data/{LOCK}")
    get(call, "--tasks", "OK-VQA")
    table = "annotations/ziyjiang/MMEB_Test_Instruct/OK-VQA/test.parquet"
    assert (tmp_path / "second" / table).read_bytes() == (tmp_path / "data" / table).read_bytes()


def test_two_processes_with_different_tasks_of_one_repository(endpoint: str, hub: Hub, tmp_path: Path) -> None:
    environment = environment_for(endpoint, tmp_path)
    processes = [
        subprocess.Popen(
            [EVAL, "data", "get", "--tasks", name], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
        )
        for name in ("VOC2007", "OK-VQA", "CIRR")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    locked = json.loads((tmp_path / "data" / LOCK).read_text())["repos"]["ziyjiang/MMEB_Test_Instruct"]
    assert set(locked["tables"]) == {f"{name}/test" for name in ("VOC2007", "OK-VQA", "CIRR")}
    assert hub.downloads["image-tasks/mmeb_v1.tar.gz"] == 1


def test_a_failed_redo_forgets_nothing(call: Call, hub: Hub, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    hub.gated_files.add("VLM2Vec/HMDB51")
    refused(call("data", "get", "--tasks", "HMDB51", "--redo"))
    hub.gated_files.clear()
    assert "0 steps done, 2 were done before" in get(call, "--tasks", "HMDB51").stdout
    damaged = next((tmp_path / "data/video-tasks").rglob("*.jpg"))
    damaged.write_bytes(b"")
    get(call, "--tasks", "HMDB51", "--redo")
    assert damaged.stat().st_size


def test_what_was_deleted_is_noticed_and_fetched(call: Call, suite: Path, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    shutil.rmtree(tmp_path / "data/video-tasks")
    assert "to download: 0 bytes" in call("data", "plan", "--tasks", "HMDB51").stdout  # the archive is still kept
    assert "1 steps done, 1 were done before" in get(call, "--tasks", "HMDB51").stdout
    assert same_samples("HMDB51", suite, tmp_path / "data")


def test_frames_that_nobody_fetched_are_noticed(call: Call, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    clip = next((tmp_path / "data/video-tasks").rglob("*.jpg")).parent
    (clip / "frame_0000_mine.jpg").write_bytes((clip / "frame_0001.jpg").read_bytes())
    done = call("data", "check", "--tasks", "HMDB51")
    assert "expected 1000 queries" in done.stdout  # the suite's counts are not the benchmark's
    info = DataInfo(tmp_path / "data", num_queries={"HMDB51": 24})
    outcome = next(iter(check_tasks([BY_NAME["HMDB51"]], info, Frames(64), quick=True, workers=2)))
    assert [one for one in outcome.problems if one.endswith("frame_0000_mine.jpg was not fetched: remove it")]


def test_one_configuration_that_is_missing_fails_alone(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    repo = "ziyjiang/MMEB_Test_Instruct"
    readme = hub.content(repo, "README.md").decode().replace("config_name: VOC2007", "config_name: VOC2012")
    push(hub, repo, {"README.md": readme.encode()})
    message = refused(call("data", "get", "--tasks", "VOC2007,OK-VQA"))
    assert "not done: ziyjiang/MMEB_Test_Instruct VOC2007/test: " in message
    assert same_samples("OK-VQA", suite, tmp_path / "data")
    before = hub.downloads["image-tasks/mmeb_v1.tar.gz"]
    refused(call("data", "get", "--tasks", "VOC2007", "--data", "other"))
    assert hub.downloads["image-tasks/mmeb_v1.tar.gz"] == before  # there is nothing to place by


def test_a_gate_before_the_files_only(call: Call, hub: Hub) -> None:
    hub.gated_files.add("VLM2Vec/HMDB51")
    started = time.monotonic()
    message = refused(call("data", "get", "--tasks", "HMDB51"))
    assert "VLM2Vec/HMDB51 is gated and no token is set" in message
    assert time.monotonic() - started < 10  # it is an answer: nothing is tried again


def test_a_locked_repository_without_network(call: Call) -> None:
    get(call, "--tasks", "VOC2007")
    nowhere = "http://127.0.0.1:9"
    message = refused(call("data", "get", "--tasks", "OK-VQA", HF_ENDPOINT=nowhere))
    assert f"can't reach the hub at {nowhere}" in message
    done = call("data", "plan", "--tasks", "VOC2007", HF_ENDPOINT=nowhere)
    assert done.returncode == 0, done.stderr  # the lock file knows


def test_without_network_it_is_said_once_and_soon(call: Call) -> None:
    started = time.monotonic()
    message = refused(call("data", "get", HF_ENDPOINT="http://127.0.0.1:9"))
    assert message.count("can't reach the hub") == 1
    assert time.monotonic() - started < 15
    assert "HF_ENDPOINT 'nonsense' is no address" in refused(
        call("data", "plan", "--tasks", "HMDB51", HF_ENDPOINT="nonsense")
    )


def test_ctrl_c_while_the_hub_is_asked(endpoint: str, hub: Hub, tmp_path: Path) -> None:
    hub.failing = {repo: [503] * 100 for repo in hub.repos}
    environment = environment_for(endpoint, tmp_path)
    process = subprocess.Popen([EVAL, "data", "plan"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, printed = process.communicate(timeout=30)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    "damage",
    ['{"schema_version": 1}', '{"schema_version": 1, "repos": []}', "{", '{"schema_version": 1, "repos": {"a/b": {}}}'],
)
def test_a_damaged_lock_file(damage: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(damage)
    message = refused(call("data", "get", "--tasks", "HMDB51", "--lock", "lock.json"))
    assert "copy it again from where it came" in message


def test_a_lock_file_with_a_wrong_digit_does_no_harm(call: Call, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    text = (tmp_path / "data" / LOCK).read_text()
    digest = re.search(r"sha256:(\w{64})", text)
    assert digest
    (tmp_path / "bad.json").write_text(text.replace(digest[1], digest[1][::-1]))
    message = refused(call("data", "get", "--tasks", "HMDB51", "--lock", "bad.json"))
    assert "the lock file is damaged" in message
    assert (tmp_path / "data" / LOCK).read_text() == text
    assert "0 steps done" in get(call, "--tasks", "HMDB51").stdout


def test_places_that_cannot_be_written(call: Call, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(call("data", "get", "--tasks", "HMDB51", "--data", "file/data"))
    # A folder where a table belongs: that step fails, and no other.
    (tmp_path / "data/annotations/VLM2Vec/HMDB51/default/test.parquet").mkdir(parents=True)
    message = refused(call("data", "get", "--groups", "V-CLS"))
    assert "not done: VLM2Vec/HMDB51/default/test: can't write to" in message
    assert frames_of(tmp_path / "data", "K700")


def test_room_counts_what_is_there(call: Call, hub: Hub, tmp_path: Path) -> None:
    def up_to(*arguments: str) -> int:
        printed = call("data", "plan", "--groups", "V-CLS", *arguments).stdout
        found = re.search(r"up to ([\d.]+) (bytes|kB|MB) to stay", printed)
        assert found, printed
        return int(float(found[1]) * {"bytes": 1, "kB": 1000, "MB": 1e6}[found[2]])

    whole = up_to()
    get(call, "--tasks", "HMDB51")
    assert up_to() < whole
    archive = next(path for path in (tmp_path / "data" / WORK).iterdir() if path.suffix == "" and path.is_file())
    left = up_to("--redo")
    assert left < whole - archive.stat().st_size * 0.15  # what HMDB51 has placed is not counted again


def test_the_stand_in_knows_all_that_it_was_asked(call: Call, hub: Hub) -> None:
    get(call, "--tasks", "HMDB51,ViDoSeek-page")
    assert {request.split("?")[0] for request in hub.unknown} <= {"GET /api/agent-harnesses"}


def archive_file(folder: Path) -> Path:
    """The one kept archive."""
    (found,) = [path for path in (folder / WORK).iterdir() if path.name.startswith("sha256-") and path.suffix == ""]
    return found


def test_an_update_that_fails_deletes_nothing(call: Call, hub: Hub, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    kept = archive_file(tmp_path / "data")
    hub.hidden.add(MEDIA_REPO)
    refused(call("data", "get", "--tasks", "HMDB51", "--update"))
    assert kept.is_file()


def test_new_rows_over_the_same_archive(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    """Which images are a task's is said by its table: other rows, other images, of an archive that has not changed."""
    get(call, "--tasks", "OK-VQA")
    repo = "ziyjiang/MMEB_Test_Instruct"
    push(hub, repo, {"OK-VQA/test-00000-of-00001.parquet": hub.content(repo, "A-OKVQA/test-00000-of-00001.parquet")})
    get(call, "--tasks", "OK-VQA", "--update")
    theirs = BY_NAME["A-OKVQA"].load(suite, Frames())
    ours = BY_NAME["OK-VQA"].load(tmp_path / "data", Frames())
    assert [query.text for query in ours.queries] == [query.text for query in theirs.queries]
    assert hub.downloads["image-tasks/mmeb_v1.tar.gz"] == 1


def test_images_that_move_from_one_task_to_another(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    get(call, "--tasks", "OK-VQA,VOC2007")
    repo = "ziyjiang/MMEB_Test_Instruct"
    tables = [f"{name}/test-00000-of-00001.parquet" for name in ("OK-VQA", "VOC2007")]
    first, second = (hub.content(repo, path) for path in tables)
    push(hub, repo, {tables[0]: second, tables[1]: first})
    get(call, "--tasks", "OK-VQA,VOC2007", "--update")
    for name in ("OK-VQA", "VOC2007"):
        assert len(BY_NAME[name].load(tmp_path / "data", Frames()).queries) == 24


def test_frames_of_an_interrupted_pass_do_not_stay(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    """Half of one revision placed, then another revision: only the second one's frames are there."""
    whole = hub.content(MEDIA_REPO, "video-tasks/frames/video_cls.tar.gz")
    root = suite / "video-tasks/frames/video_cls"
    members = [(path.relative_to(root).as_posix(), path.read_bytes()) for path in sorted(root.rglob("*.jpg"))]
    hostile = [(f"{name}_old.jpg", content) for name, content in members if "HMDB51" in name] + [("../escape", b"x")]
    push(hub, MEDIA_REPO, {"video-tasks/frames/video_cls.tar.gz": tar_of(hostile)})
    refused(call("data", "get", "--tasks", "HMDB51"))
    assert any(name.endswith("_old.jpg") for name in frames_of(tmp_path / "data", "HMDB51"))
    push(hub, MEDIA_REPO, {"video-tasks/frames/video_cls.tar.gz": whole})
    get(call, "--tasks", "HMDB51", "--update")
    assert same_samples("HMDB51", suite, tmp_path / "data")
    assert not any(name.endswith("_old.jpg") for name in frames_of(tmp_path / "data", "HMDB51"))


def test_a_given_lock_file_keeps_the_folders_other_tables(call: Call, hub: Hub, tmp_path: Path) -> None:
    get(call, "--tasks", "OK-VQA,VOC2007")
    get(call, "--tasks", "VOC2007", "--data", "other")
    get(call, "--tasks", "VOC2007", "--lock", f"other/{LOCK}")
    locked = json.loads((tmp_path / "data" / LOCK).read_text())["repos"]["ziyjiang/MMEB_Test_Instruct"]
    assert set(locked["tables"]) == {"VOC2007/test", "OK-VQA/test"}


def test_what_the_lock_file_knows_needs_no_hub(call: Call, hub: Hub, tmp_path: Path) -> None:
    """A further table of the same repository can't be asked for: the known one is fetched all the same."""
    get(call, "--tasks", "VOC2007")
    table = tmp_path / "data/annotations/ziyjiang/MMEB_Test_Instruct/VOC2007/test.parquet"
    table.unlink()
    hub.gated.add("ziyjiang/MMEB_Test_Instruct")
    message = refused(call("data", "get", "--tasks", "VOC2007,OK-VQA"))
    assert "ziyjiang/MMEB_Test_Instruct OK-VQA/test: ziyjiang/MMEB_Test_Instruct is gated" in message
    hub.gated.clear()
    get(call, "--tasks", "VOC2007")
    assert table.is_file()


def test_a_damaged_kept_archive_is_fetched_again(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    kept = archive_file(tmp_path / "data")
    kept.write_bytes(kept.read_bytes()[:1000])
    get(call, "--tasks", "UCF101")
    assert same_samples("UCF101", suite, tmp_path / "data")
    kept.write_bytes(kept.read_bytes()[::-1])  # of the right size
    get(call, "--tasks", "UCF101", "--redo")
    assert same_samples("UCF101", suite, tmp_path / "data")


@pytest.mark.parametrize("damage", [lambda content: b"x", lambda content: content[:4] + bytes(200) + content[204:]])
def test_a_damaged_record_counts_as_unfinished(damage: Callable[[bytes], bytes], call: Call, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    (record,) = (tmp_path / "data/manifest").glob("*tar*.parquet")
    record.write_bytes(damage(record.read_bytes()))
    assert "HMDB51 is missing, unfinished" in call("data", "check", "--tasks", "HMDB51").stdout
    assert "1 steps done, 1 were done before" in get(call, "--tasks", "HMDB51").stdout


def test_a_note_of_progress_that_is_damaged(call: Call, hub: Hub, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    (record,) = (tmp_path / "data/manifest").glob("*tar*.parquet")
    record.unlink()
    progress_file(tmp_path / "data", source_key("HMDB51", BY_NAME["HMDB51"].sources[-1])).write_bytes(bytes(8))
    assert call("data", "plan", "--tasks", "HMDB51").returncode == 0
    assert "1 steps done" in get(call, "--tasks", "HMDB51").stdout


def test_ctrl_c_on_a_connection_that_has_stalled(endpoint: str, hub: Hub, tmp_path: Path) -> None:
    archive = "video-tasks/frames/video_cls.tar.gz"
    hub.stall[archive] = len(hub.content(MEDIA_REPO, archive)) // 2
    environment = environment_for(endpoint, tmp_path)
    command = [EVAL, "data", "get", "--tasks", "HMDB51"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    hub.wait_for_stall()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=5)
    hub.stall.clear()
    assert process.returncode == 130
    assert "Traceback" not in printed


def test_a_lost_network_ends_all_at_once(call: Call, hub: Hub, endpoint: str, tmp_path: Path) -> None:
    get(call, "--groups", "V-CLS")  # the lock file knows everything
    shutil.rmtree(tmp_path / "data/annotations")
    started = time.monotonic()
    message = refused(call("data", "get", "--groups", "V-CLS", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "can't reach the hub" in message
    assert time.monotonic() - started < 15
