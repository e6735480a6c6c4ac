"""What trackio and wandb themselves get of a training and of a run; not part of `make test`, since they want much more.

    python -m venv E && E/bin/pip install -e '.[cpu,dev,trackio,wandb]'
    E/bin/python -m tests.real_trackers

A training is broken off and goes on: trackio's database and wandb's offline file have the rows of log.jsonl. A run's
summary is in both. A server that counts is named to both, with a token: nothing asks it anything. Then both fail, by a
folder that can't be written, a server that refuses, a key that lacks: the run ends well, and says so. About a minute.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmemb_r1_model.disk.jsonl import read_rows
from mmemb_r1_model.disk.trackers import curves_in
from mmemb_r1_model.training import stage1
from mmemb_r1_model.training.batches import WeightedSet
from mmemb_r1_model.training.distributed import World
from tests.mmemb_r1.small_training import make_pairs, make_student
from tests.mmemb_r1.test_stages import LOOP, TRAIN

ASKED: list[str] = []
Rows = list[dict[str, float]]


def main() -> None:
    from mmemb_r1_model.model.checkpoint import EMBEDDED

    with tempfile.TemporaryDirectory() as folder, counting_server() as url:
        root = Path(folder)
        # Before huggingface_hub and wandb are imported, which read them then.
        os.environ |= {"TRACKIO_DIR": f"{root}/trackio", "MMEB_CACHE": f"{root}/cache", "HF_TOKEN": "hf_not_a_token"}
        os.environ |= {"HF_ENDPOINT": url, "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
        train_twice(Path(EMBEDDED), root)
        log = [{name: row[name] for name in row} for row in read_rows(root / "out" / "joint" / "log.jsonl")]
        assert [row["step"] for row in log] == list(range(1, LOOP.steps + 1))
        told = sorted((root / "out" / "joint" / "wandb").glob("offline-run-*/run-*.wandb"), key=os.path.getmtime)
        expect("trackio: the curve", trackio_rows("mmemb-r1", "out-joint")[-len(log) :], log)
        expect("wandb: the curve", wandb_rows(told[-1]), log)
        run_summaries(root)
        expect("requests to a server", ASKED, [])
        failures(root)


@contextlib.contextmanager
def counting_server() -> Iterator[str]:
    class Counts(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ASKED.append(f"{self.command} {self.path}")
            self.send_error(404)

        do_POST = do_HEAD = do_PUT = do_GET

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counts)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def train_twice(checkpoint: Path, root: Path) -> None:
    """Broken off after step 10, with a checkpoint of step 8."""
    pairs, written = make_pairs(root / "data", 24, "first")
    curves = curves_in(["trackio", "wandb"], root / "out")
    original = stage1.joint_backward

    def breaking(*arguments: object) -> dict[str, float]:
        if arguments[-1] == LOOP.seed + 10:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    config = dataclasses.replace(TRAIN, loop=LOOP)
    for step in (breaking, original):
        stage1.joint_backward = step
        with contextlib.suppress(KeyboardInterrupt):
            student = make_student(checkpoint)
            folder = root / "out" / "joint"
            stage1.train(student, [WeightedSet(pairs, 1.0)], written, config, folder, World(), open_curves=curves)


def trackio_rows(project: str, run: str) -> Rows:
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs(project, run)
    return [{name: value for name, value in row.items() if name != "timestamp"} for row in rows]


def wandb_rows(path: Path) -> Rows:
    """The history in an offline file: a header of 7 bytes, then LevelDB's log, records in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts, rows = path.read_bytes(), 7, b"", []
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record.FromString(parts)
            parts = b""
            if record.WhichOneof("record_type") == "history":
                items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
                row = {name: json.loads(value) for name, value in items.items() if not name.startswith("_")}
                rows.append({**row, "step": json.loads(items["_step"])})
    return rows


def call(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmeb_harness", "run", "--model", "random", "--tasks", "DocVQA", "--limit", "4"]
    output = ["--output", str(root / "runs" / "small")]
    own: Mapping[str, str] = os.environ | environment
    return subprocess.run([*command, *output, *words], env=own, cwd=root, capture_output=True, text=True, check=False)


def run_summaries(root: Path) -> None:
    done = call(root, "--track", "trackio", "--track", "wandb")
    assert done.returncode == 0, done.stderr
    score = json.loads((root / "runs" / "small" / "tasks" / "DocVQA.json").read_text())["score"]
    (told,) = (root / "runs" / "small" / "wandb").glob("offline-run-*/run-*.wandb")
    for name, rows in (("trackio", trackio_rows("mmeb-harness", "small")), ("wandb", wandb_rows(told))):
        expect(f"{name}: the summary", [row["tasks/DocVQA/hit@1"] for row in rows], [score])


def failures(root: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    for name, environment, times in (
        ("trackio", {"TRACKIO_DIR": "/proc/none"}, 1),
        ("trackio", {"TRACKIO_SERVER_URL": nowhere, "TRACKIO_WRITE_TOKEN": "none"}, 1),
        ("wandb", {"WANDB_MODE": "online", "WANDB_API_KEY": ""}, 2),
    ):
        done = call(root, "--track", name, **environment)
        told = [line for line in done.stderr.splitlines() if line.startswith(f"--track {name} couldn't")]
        expect(f"{name}: {environment}: exit code, lines, results", (done.returncode, len(told)), (0, times))
        assert "results:" in done.stdout


def expect(what: str, got: object, wanted: object) -> None:
    ok = got == wanted
    print(f"{'ok  ' if ok else 'FAIL'} {what}" + ("" if ok else f": {got!r:.600}, not {wanted!r:.600}"), flush=True)
    if not ok:
        sys.exit(1)


if __name__ == "__main__":
    main()
