"""`mmeb-eval data` over MMEB-V3's bundle: a hub on loopback has the golden files, packed as the real one packs them."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from mmeb_tasks import EDITIONS
from mmeb_tasks.bundle import REPO, REVISION

from mmeb_harness import Frames
from mmeb_harness.data.folder import describe
from mmeb_harness.data.lock import LOCK
from mmeb_harness.data.revisions import WORK
from tests.harness.fetching import Call, Start, get, refused, sizes_under_way
from tests.hub import Hub
from tests.patience import wait_until
from tests.published_v3 import plain_tar, publish_bundle
from tests.tasks.golden_v3 import CASES, write_files

BY_NAME = {task.name: task for task in EDITIONS["v3"]}
#: One of each kind of archive and of each modality; of tasks that share a file, those whose golden files agree.
NAMES = (
    "text/BRIGHT/biology",
    "text/NanoBEIR/NanoFiQA2018",
    "text/MultiConIR/Legal Document",
    "toolde/web/apibank",
    "toolde/customized/gta",
    "GAE-GUIAct_q2t",
    "GAE-Mind2Web_s2s",
    "memory/KnowMeBench",
    "memory/PeerQA",
    "MCMR",
    "ESC-50",
    "SoundDescs",
    "AVE",
    "TUTSound",
    "TUTSound(hard)",
)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden files in the evaluation's tree."""
    folder = tmp_path_factory.mktemp("tree")
    for name in NAMES:
        write_files(CASES[name], folder)
    return folder


@pytest.fixture
def bundle(hub: Hub, tree: Path) -> Hub:
    """The hub, with the bundle beside what it has of MMEB-V2."""
    publish_bundle(tree, hub)
    return hub


def chosen(*names: str) -> tuple[str, ...]:
    return "--edition", "v3", "--tasks", ",".join(names)


def same_samples(name: str, tree: Path, folder: Path) -> bool:
    """What is read from the fetched folder is what is read from what was packed, to the bytes of media."""
    ours, theirs = (BY_NAME[name].load(root, Frames()) for root in (folder, tree))
    media = {path for item in (*ours.queries, *ours.candidates) for path in item.media}
    return str(ours).replace(str(folder), str(tree)) == str(theirs) and all(
        path.read_bytes() == (tree / path.relative_to(folder)).read_bytes() for path in media
    )


def test_the_bundle_is_fetched_and_reads_like_what_was_packed(
    call: Call, bundle: Hub, tree: Path, tmp_path: Path
) -> None:
    planned = call("data", "plan", *chosen(*NAMES))
    assert re.search(rf"^{REPO} +{REVISION[:8]} +15 .* 0 bytes +{len(NAMES)}$", planned.stdout, re.MULTILINE)
    done, folder = get(call, *chosen(*NAMES)), tmp_path / "data"
    assert [name for name in NAMES if not same_samples(name, tree, folder)] == []
    assert json.loads((folder / LOCK).read_text())["repos"][REPO]["revision"] == REVISION  # not the newest
    assert {path.name for path in (folder / "text-tasks/NanoBEIR").iterdir()} == {"NanoFiQA2018"}  # others stay packed
    assert "text_tasks.tar.part-000" in done.stdout.partition("kept in")[2]
    checked = call("data", "check", *chosen(*NAMES))
    assert f"{len(NAMES)} of {len(NAMES)} tasks are ready" in checked.stdout, checked.stdout
    before = sum(bundle.served.values())
    assert "0 steps done" in get(call, *chosen(*NAMES)).stdout
    assert sum(bundle.served.values()) == before  # not one byte twice
    bundle.push(REPO, {"README.md": b"# What came later\n"})
    message = refused(call("data", "get", *chosen("text/BRIGHT/biology", "text/BRIGHT/pony"), "--update"))
    assert re.search(r"biology and 1 more tasks: .* has no file named like text_tasks.*of its kind: none", message)


def test_what_a_folder_holds_of_v2_is_not_fetched_again(call: Call, bundle: Hub, tree: Path, tmp_path: Path) -> None:
    get(call, "--tasks", "HMDB51")
    before = dict(bundle.served)
    checked = call("data", "check", "--edition", "v3", "--modality", "tool,memory", "--tasks", "MCMR,text/BRIGHT/aops")
    assert checked.returncode == 1
    assert checked.stdout.splitlines()[-2:] == [
        "0 of 41 tasks are ready",
        "mend: mmeb-eval data get --data data --edition v3 --modality tool,memory --tasks MCMR,text/BRIGHT/aops",
    ]
    done = get(call, *chosen("HMDB51", "toolde/web/apibank"))
    assert "1 steps done, 2 were done before" in done.stdout
    new = {path for path, count in bundle.served.items() if count != before.get(path)}
    assert new == {"tool_tasks/tool_tasks.tar.gz"}
    assert "0 steps done, 2 were done before" in get(call, "--tasks", "HMDB51").stdout  # and it is a folder of V2 still
    revisions = describe(tmp_path / "data").revisions
    assert sorted(key.partition("/")[0] for key in revisions) == ["TIGER-Lab", "VLM2Vec", "VLM2Vec"]


def test_archives_that_lie_in_the_folder_as_on_the_hub_are_unpacked(
    call: Call, bundle: Hub, tree: Path, tmp_path: Path
) -> None:
    files = bundle.repos[REPO][REVISION]
    parts = [f"text_tasks/text_tasks.tar.part-00{index}" for index in range(2)]
    (tmp_path / "data/text_tasks").mkdir(parents=True)
    (tmp_path / "data" / parts[0]).write_bytes(files[parts[0]])
    (tmp_path / "data" / parts[1]).write_bytes(bytes(len(files[parts[1]])))
    get(call, *chosen("text/BRIGHT/biology"))
    assert same_samples("text/BRIGHT/biology", tree, tmp_path / "data")
    assert [bundle.served[part] for part in parts] == [0, len(files[parts[1]])]  # the second isn't the hub's
    assert (tmp_path / "data" / parts[0]).read_bytes() == files[parts[0]]


def test_a_killed_get_of_the_bundle_goes_on(
    start: Start, call: Call, bundle: Hub, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.hub.CHUNK", 512)
    parts = [f"text_tasks/text_tasks.tar.part-00{index}" for index in range(2)]
    sizes = [len(bundle.repos[REPO][REVISION][part]) for part in parts]
    bundle.stall[parts[1]] = sizes[1] // 2
    process = start("data", "get", *chosen("text/BRIGHT/biology"))
    bundle.wait_for_stall()
    work = tmp_path / "data" / WORK
    wait_until(lambda: [path.stat().st_size for path in work.glob("*") if path.suffix == ""].count(sizes[0]) == 1)
    wait_until(lambda: any(sizes_under_way(work, "*.part")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    bundle.stall.clear()
    get(call, *chosen("text/BRIGHT/biology"))
    assert bundle.served[parts[0]] == sizes[0]
    assert (bundle.downloads[parts[1]], bundle.resumed) == (2, 1)
    assert same_samples("text/BRIGHT/biology", tree, tmp_path / "data")


def test_archives_of_another_layout_are_told_by_what_is_in_them(call: Call, bundle: Hub) -> None:
    files = bundle.repos[REPO][REVISION]
    files["audio_tasks/sounds.tar"] = files.pop("audio_tasks/esc50.tar")
    files["tool_tasks/tool_tasks.tar.gz"] = plain_tar([("tools/web.parquet", b"x"), ("tools/README.md", b"y")])
    files["memory_tasks/memory-tasks.tar"] = files["memory_tasks/memory-tasks.tar"][:5000]
    message = refused(call("data", "get", *chosen("ESC-50", "toolde/web/apibank", "memory/PeerQA")))
    assert re.search(r"ESC-50: .*no file named like .*esc.*audio_tasks/AVE.tar.*audio_tasks/sounds.tar", message)
    assert "nothing for toolde/web/apibank: its layout is not a known one (it begins with tools/web.parquet," in message
    assert "archive memory_tasks/memory-tasks.tar is damaged or cut short" in message
    del bundle.repos[REPO][REVISION]
    message = refused(call("data", "get", *chosen("MCMR"), "--data", "other"))
    assert f"revision {REVISION} is gone from the hub; --update, without --lock, takes the newest" in message
