"""`mmeb-eval data get` on a folder that holds something: updates, damage, interruptions, other processes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmeb_tasks.hub import MEDIA_REPO

from mmeb_harness import Frames
from mmeb_harness.data.check import check_tasks
from mmeb_harness.data.folder import DataInfo, source_key
from mmeb_harness.data.lock import LOCK
from mmeb_harness.data.plan import progress_file
from mmeb_harness.data.revisions import WORK
from tests.harness.fetching import (
    BY_NAME,
    Call,
    Start,
    archive_file,
    frames_of,
    get,
    push,
    refused,
    same_samples,
)
from tests.hub import Hub
from tests.patience import PATIENCE, wait_until
from tests.published import tar_of

pytestmark = pytest.mark.slow


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


def test_two_processes_with_different_tasks_of_one_repository(start: Start, hub: Hub, tmp_path: Path) -> None:
    processes = [start("data", "get", "--tasks", name) for name in ("VOC2007", "OK-VQA", "CIRR")]
    assert [process.wait() for process in processes] == [0, 0, 0]
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
    message = refused(call("data", "get", "--tasks", "HMDB51"))
    assert "VLM2Vec/HMDB51 is gated and no token is set" in message
    files = {path: count for path, count in hub.asked.items() if "VLM2Vec/HMDB51/resolve/" in path}
    # It is an answer, after which nothing is tried again: once by `datasets`, once to learn why.
    assert list(files.values()) == [2]


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
    # Ten times its three attempts and the pauses of 3 s between them; all repositories in turn would take longer.
    assert time.monotonic() - started < 60
    assert "HF_ENDPOINT 'nonsense' is no address" in refused(
        call("data", "plan", "--tasks", "HMDB51", HF_ENDPOINT="nonsense")
    )


def test_ctrl_c_while_the_hub_is_asked(start: Start, hub: Hub) -> None:
    hub.failing = {repo: [429] * 100 for repo in hub.repos}
    hub.retry_after = str(int(PATIENCE))
    process = start("data", "plan")
    assert process.stderr.readline().startswith("asking the hub")
    wait_until(lambda: any(len(codes) < 100 for codes in hub.failing.values()))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, printed = process.communicate()
    assert time.monotonic() - started < PATIENCE / 10  # it was asked to wait for all of it
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
    wrong = text.replace(digest[1], digest[1][::-1])
    (tmp_path / "bad.json").write_text(wrong)
    message = refused(call("data", "get", "--tasks", "HMDB51", "--lock", "bad.json"))
    assert "bad.json was changed since it was written (its checksum differs)" in message
    without = {
        name: value for name, value in json.loads(wrong).items() if name != "checksum"
    }  # as release 0.1 wrote it
    (tmp_path / "bad.json").write_text(json.dumps(without))
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


def test_what_a_killed_process_was_writing_goes_with_the_next_one(call: Call, tmp_path: Path) -> None:
    get(call, "--tasks", "VOC2007")
    root = tmp_path / "data"
    for source in BY_NAME["VOC2007"].sources:
        progress_file(root, source_key("VOC2007", source)).write_text("0")
    picture = next(path for path in (root / "image-tasks").rglob("*") if path.is_file())
    half, young = picture.with_name(".a.jpg.0.tmp"), picture.with_name(".b.jpg.0.tmp")
    half_record = root / "manifest/.a.parquet.0.tmp"
    for path in (half, half_record, root / WORK / "mmeb-convert-0"):
        path.mkdir() if path.suffix != ".tmp" else path.write_bytes(b"half")
        os.utime(path, (1, 1))
    young.write_bytes(b"another process writes it")
    os.utime(young, (time.time() + 600, time.time() + 600))
    get(call, "--tasks", "VOC2007")
    assert not half.exists()
    assert not half_record.exists()
    assert young.exists()
    assert not list((root / WORK).glob("mmeb-convert-*"))


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


def test_ctrl_c_on_a_connection_that_has_stalled(start: Start, hub: Hub) -> None:
    archive = "video-tasks/frames/video_cls.tar.gz"
    hub.stall[archive] = len(hub.content(MEDIA_REPO, archive)) // 2
    process = start("data", "get", "--tasks", "HMDB51")
    hub.wait_for_stall()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate()
    hub.stall.clear()
    assert process.returncode == 130
    assert "Traceback" not in printed


def test_a_lost_network_ends_all_at_once(call: Call, hub: Hub, endpoint: str, tmp_path: Path) -> None:
    get(call, "--groups", "V-CLS")  # the lock file knows everything
    shutil.rmtree(tmp_path / "data/annotations")
    started = time.monotonic()
    message = refused(call("data", "get", "--groups", "V-CLS", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "can't reach the hub" in message
    # Ten times its three attempts and the pauses of 3 s between them.
    assert time.monotonic() - started < 60


def test_a_finished_folder_may_be_read_only(call: Call, tmp_path: Path) -> None:
    get(call, "--groups", "V-CLS")
    (tmp_path / "data" / WORK).rename(tmp_path / "away")
    (tmp_path / "data" / WORK).write_text("")  # root writes anywhere: but not into a file
    assert "0 steps done" in get(call, "--groups", "V-CLS").stdout


def test_a_table_in_two_equal_files(call: Call, hub: Hub, tmp_path: Path) -> None:
    """One digest, held twice by one step: nobody waits for himself."""
    repo, path = "VLM2Vec/HMDB51", "default/test-00000-of-00001.parquet"
    table = hub.content(repo, path)
    readme = hub.content(repo, "README.md").decode().replace(path, "default/*.parquet")
    halves = {"default/test-00000-of-00002.parquet": table, "default/test-00001-of-00002.parquet": table}
    push(hub, repo, {path: None, "README.md": readme.encode(), **halves})
    get(call, "--tasks", "HMDB51")
    assert len(list((tmp_path / "data/annotations/VLM2Vec/HMDB51/default").iterdir())) == 2


def test_a_manifest_that_is_missing_is_made_again(call: Call, tmp_path: Path) -> None:
    """As after a kill between the last record and the manifest."""
    get(call, "--tasks", "HMDB51")
    manifest = (tmp_path / "data/manifest.json").read_text()
    (tmp_path / "data/manifest.json").unlink()
    assert "0 steps done" in get(call, "--tasks", "HMDB51").stdout
    assert (tmp_path / "data/manifest.json").read_text() == manifest


def test_a_corpus_that_is_half_replaced_does_not_count(call: Call, hub: Hub, suite: Path, tmp_path: Path) -> None:
    get(call, "--tasks", "ViDoSeek-page")
    shutil.copy(tmp_path / "data" / LOCK, tmp_path / "old.json")
    repo, path = "VLM2Vec/ViDoSeek-page-fixed", "corpus/test-00000-of-00001.parquet"
    rows = pq.read_table(io.BytesIO(hub.content(repo, path))).to_pylist()
    for row in rows[:-1]:
        row["image"] = rows[-1]["image"]
    rows[-1] = rows[-1] | {"image": {"bytes": b"no image", "path": None}}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    push(hub, repo, {path: buffer.getvalue()})
    refused(call("data", "get", "--tasks", "ViDoSeek-page", "--update"))
    assert "1 steps done, 2 were done before" in get(call, "--tasks", "ViDoSeek-page", "--lock", "old.json").stdout
    assert same_samples("ViDoSeek-page", suite, tmp_path / "data")


def test_an_archive_that_an_update_made_needless_goes(call: Call, hub: Hub, tmp_path: Path) -> None:
    """Also if the update was interrupted: what the lock file doesn't name any more is nobody's."""
    get(call, "--tasks", "HMDB51")
    old = archive_file(tmp_path / "data")
    members = [(f"HMDB51/clip_{index:05d}/frame_0001.jpg", b"x") for index in range(24)]
    push(hub, MEDIA_REPO, {"video-tasks/frames/video_cls.tar.gz": tar_of(members)})
    hub.gated_files.add(MEDIA_REPO)
    refused(call("data", "get", "--tasks", "HMDB51", "--update"))
    hub.gated_files.clear()
    get(call, "--tasks", "HMDB51")
    assert not old.exists()
