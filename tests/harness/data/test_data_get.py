"""`mmeb-eval data plan | get` against a hub on loopback, through the real client: breaks, lies, locks, full disks."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from mmeb_tasks.hub import MEDIA_REPO

from mmeb_harness.data.folder import DataInfo, data_revision, describe
from mmeb_harness.data.lock import LOCK
from mmeb_harness.data.place import PAGE_POOL
from mmeb_harness.data.revisions import WORK
from tests import hub as hub_module
from tests.harness.fetching import (
    BY_NAME,
    Call,
    Start,
    fill,
    get,
    refused,
    same_folder_exists,
    same_samples,
    sizes_under_way,
    small_disk,
    stamps_of,
)
from tests.hub import Hub
from tests.patience import wait_until
from tests.published import table_repos, tar_of


@pytest.mark.slow
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
        r"to download: 0 bytes\ndisk: +up to 0 bytes to stay, 0 bytes in passing",
        call("data", "plan", "--groups", "V-CLS,V-RET").stdout,
    )


@pytest.mark.slow
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


@pytest.mark.slow
def test_downloads_that_break_off_are_continued(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    parts = [f"video-tasks/frames/video_qa.tar.gz-{index:02d}" for index in range(3)]
    for path in parts:
        hub.breaks[path] = 3
    hub.failing[parts[0]] = [503, 429]
    get(call, "--tasks", "EgoSchema", "--workers", "3")
    assert same_samples("EgoSchema", suite, tmp_path / "data")
    assert (hub.broken, hub.resumed) == (9, 9)
    for path in parts:  # each byte once, in four pieces
        assert hub.served[path] == len(hub.content(MEDIA_REPO, path))


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_killed_download_goes_on_where_it_was(
    start: Start, call: Call, hub: Hub, suite: Path, tmp_path: Path
) -> None:
    """The client deletes partial files; ours stay, through kill -9."""
    archive = "video-tasks/frames/video_qa.tar.gz-00"
    hub.stall[archive] = len(hub.content(MEDIA_REPO, archive)) // 2
    process = start("data", "get", "--tasks", "EgoSchema")
    part = tmp_path / "data" / WORK
    wait_until(lambda: any(sizes_under_way(part, "*.part")))
    hub.wait_for_stall()
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    hub.stall.clear()
    kept = max(path.stat().st_size for path in part.glob("*.part"))
    before = hub.served[archive]
    get(call, "--tasks", "EgoSchema")
    assert kept > 0
    rest = len(hub.content(MEDIA_REPO, archive)) - kept
    assert hub.served[archive] - before <= rest + hub_module.CHUNK  # what the server still sent to the dead
    assert same_samples("EgoSchema", suite, tmp_path / "data")


@pytest.mark.slow
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


@pytest.mark.slow
def test_servers_that_send_more_than_was_asked_for(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    path, table = "video-tasks/frames/video_cls.tar.gz", "default/test-00000-of-00001.parquet"
    hub.without_ranges.add(path)
    hub.breaks[path] = 1
    hub.lengthened.add(table)
    message = refused(call("data", "get", "--tasks", "HMDB51"))
    assert re.search(rf"VLM2Vec/HMDB51: {table} has more than the [\d,]+ bytes that are declared", message)
    hub.lengthened.clear()
    get(call, "--tasks", "HMDB51")
    assert hub.broken == 1
    assert hub.resumed == 0
    assert same_samples("HMDB51", suite, tmp_path / "data")


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_several_processes_on_one_folder(start: Start, hub: Hub, suite: Path, tmp_path: Path) -> None:
    for index in range(3):
        hub.breaks[f"video-tasks/frames/video_qa.tar.gz-{index:02d}"] = 1
    command = ["data", "get", "--tasks", "EgoSchema,ViDoSeek-page", "--groups", "V-QA"]
    processes = [start(*command) for _ in range(3)]
    printed = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(int(re.search(r"(\d+) steps done", text)[1]) for text in printed) == 32  # type: ignore[index]
    for path in ("video-tasks/frames/video_qa.tar.gz-00", "corpus/test-00000-of-00001.parquet"):
        repo = MEDIA_REPO if "video" in path else "VLM2Vec/ViDoSeek-page-fixed"
        assert hub.served[path] == len(hub.content(repo, path))
    assert all(same_samples(name, suite, tmp_path / "data") for name in ("EgoSchema", "MVBench", "ViDoSeek-page"))


@pytest.mark.slow
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


@pytest.mark.slow
def test_no_network(call: Call, tmp_path: Path) -> None:
    message = refused(call("data", "get", "--tasks", "HMDB51", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "can't reach the hub at http://127.0.0.1:9" in message
    message = refused(call("data", "plan", "--tasks", "HMDB51", HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in message
    assert not (tmp_path / "data" / "annotations").exists()


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_ctrl_c_stops_at_once_and_keeps_what_is_done(start: Start, hub: Hub, tmp_path: Path) -> None:
    archive = "video-tasks/frames/video_cls.tar.gz"
    hub.stall[archive] = len(hub.content(MEDIA_REPO, archive)) // 3
    process = start("data", "get", "--tasks", "HMDB51")
    table, work = tmp_path / "data/annotations/VLM2Vec/HMDB51/default/test.parquet", tmp_path / "data" / WORK
    hub.wait_for_stall()
    wait_until(lambda: table.is_file() and any(work.glob("*.part")))
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate()
    hub.stall.clear()
    assert process.returncode == 130
    assert printed.splitlines()[-1] == "error: stopped; what is done is kept, the same command goes on from there"
    assert table.is_file()
    assert list(work.glob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "HMDB15"], "no task named 'HMDB15'. Did you mean 'HMDB51'?"),
        (["--edition", "v2"], "no edition named 'v2'. Did you mean 'v2.0.0'?"),
        (["--lock", "nowhere.json"], "'nowhere.json' does not exist"),
        (["--workers", "0"], "0 is not in the range"),
        (["--update", "--lock", "x.json"], "--lock and --update contradict each other"),
        (["--lock", "x.json", "--tasks", "HMDB51"], "x.json is not a lock file of this harness; copy it again"),
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
