"""What a run does once, whatever happens after: read a task, name the model's vectors, read a file that it has."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from mmeb_harness import DataError, Frames, Samples, Task
from mmeb_harness.core.files import read_parquet
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask, load_model, load_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.results.files import load_task_result, model_fingerprint
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.outcome import Run, kept_task
from mmeb_harness.run.evaluate import encode_share, evaluate, this_process
from mmeb_harness.run.plan import Plan, RunSettings, make_plan
from mmeb_harness.show.run_table import print_run
from mmeb_harness.spread.shards import StoredModel, encoder_of_shard, load_shards, settings_of
from mmeb_harness.spread.shares import Share, StoredOnly
from tests.harness.calls import counted
from tests.toy import QuietReporter

Reads = Counter[str]

#: In the order of the benchmark.
NAMES = ("VOC2007", "MSCOCO_i2t", "ViDoSeek-doc")


def read_and_count(task: Task, reads: Reads, root: Path, frames: Frames) -> Samples:
    reads[task.name] += 1
    return task.load(root, frames)


@pytest.fixture
def reads() -> Reads:
    """Task → how often it was read."""
    return Counter()


@pytest.fixture
def known(reads: Reads) -> dict[str, RegisteredTask]:
    """The 78 tasks, counted."""
    return {
        name: RegisteredTask(dataclasses.replace(one.task, load=partial(read_and_count, one.task, reads)), BENCHMARK)
        for name, one in load_tasks().items()
        if one.collection == BENCHMARK
    }


def planned(known: Mapping[str, RegisteredTask], names: Sequence[str], suite: Path, output: Path) -> Plan:
    """Two queries a task, of which `random` asks nothing."""
    tasks = [known[name] for name in names]
    return make_plan(tasks, known, describe(suite), load_model("random", {}, {}).info, RunSettings(output, limit=2))


def carried_out(plan: Plan) -> Run:
    embedder, reporter = load_model("random", {}, {}), QuietReporter()
    return evaluate([plan], embedder, this_process(embedder, reporter.note), reporter)[0]


def printed(run: Run) -> str:
    shown = io.StringIO()
    print_run(run, Console(file=shown, width=150))
    return shown.getvalue()


@pytest.mark.slow
def test_78_tasks_are_read_78_times_and_shown_without_their_files(
    known: dict[str, RegisteredTask], reads: Reads, suite: Path, tmp_path: Path
) -> None:
    run = carried_out(planned(known, [*known], suite, tmp_path / "run"))
    assert reads == dict.fromkeys(known, 1)
    shutil.rmtree(tmp_path / "run")
    assert "overall" in printed(run)
    assert "easy" in printed(run)


def test_a_run_names_the_model_once_and_reads_back_only_what_it_keeps(
    known: dict[str, RegisteredTask], reads: Reads, suite: Path, tmp_path: Path
) -> None:
    functions = (model_fingerprint, load_task_result, read_parquet, kept_task)
    plan = partial(planned, known, NAMES, suite, tmp_path / "run")
    with counted(*functions) as calls:
        run = carried_out(plan())
        shown = printed(run)
    labels = 1
    assert calls == {"model_fingerprint": 1, "read_parquet": labels}
    reads.clear()
    with counted(*functions) as calls:
        again = carried_out(plan())
        shown_again = printed(again)
    assert reads == {}
    assert calls == {"model_fingerprint": 1, "load_task_result": 3, "kept_task": 3, "read_parquet": labels + 6}
    assert shown_again.splitlines()[:-1] == shown.splitlines()[:-1]  # the last line has the time it took
    assert again.result.latency_seconds == run.result.latency_seconds


def test_a_resumed_run_reads_once_what_it_needs(
    known: dict[str, RegisteredTask], reads: Reads, suite: Path, tmp_path: Path
) -> None:
    first, second, third = (name for name in known if name in NAMES)
    carried_out(planned(known, [second, third], suite, tmp_path / "run"))
    reads.clear()
    run = carried_out(planned(known, [first, third], suite, tmp_path / "run"))
    assert run.result.tasks == (first, second, third)
    assert reads == {first: 1}  # nothing that follows it has still to be encoded
    RunFolder(tmp_path / "run").task_file(third).unlink()
    reads.clear()
    carried_out(planned(known, NAMES, suite, tmp_path / "run"))
    assert reads == dict.fromkeys(NAMES, 1)  # finished ones too: their items meet its own in batches


def test_a_shard_and_a_merge_read_each_task_once(
    known: dict[str, RegisteredTask], reads: Reads, suite: Path, tmp_path: Path
) -> None:
    output, reporter = tmp_path / "shards" / "run", QuietReporter()
    for shard in (Share(0, 2), Share(1, 2)):
        reads.clear()
        embedder = load_model("random", {}, {})
        with counted(model_fingerprint) as calls:
            here = this_process(embedder, reporter.note)
            open_encoder = encoder_of_shard(shard, here, reporter.note)
            encode_share([planned(known, NAMES, suite, output)], embedder, open_encoder, reporter)
        assert reporter.stops == shard.index + 1  # or it would go on saying that an item takes long
        assert reads == dict.fromkeys(NAMES, 1)
        assert calls == {"model_fingerprint": 1}
    reads.clear()
    finished = load_shards(output)
    model, settings = StoredModel(finished[0].model), settings_of(finished[0], output, None)
    plan = make_plan([known[name] for name in NAMES], known, describe(suite), model.info, settings)
    (merged,) = evaluate([plan], model, lambda _: nullcontext(StoredOnly("gone")), reporter)
    assert reads == dict.fromkeys(NAMES, 1)
    alone = carried_out(planned(known, NAMES, suite, tmp_path / "alone" / "run"))
    assert [task.result.metrics for task in merged.tasks] == [task.result.metrics for task in alone.tasks]
    assert [task.result.fingerprint for task in merged.tasks] == [task.result.fingerprint for task in alone.tasks]


def test_what_is_missing_shows_before_anything_is_encoded_and_all_of_it(
    known: dict[str, RegisteredTask], reads: Reads, suite: Path, tmp_path: Path
) -> None:
    def missing(root: Path, frames: Frames) -> Samples:
        raise DataError("its table is missing")

    broken = {
        name: RegisteredTask(dataclasses.replace(one.task, load=missing), BENCHMARK) for name, one in known.items()
    }
    names = [*known][:8]
    known |= {name: broken[name] for name in names[1:]}
    more = rf"6 more tasks can't be read: {', '.join(names[2:7])} …"
    words = rf"{names[1]}: its table is missing \(read from .*\); mend the data.* \({more}\)"
    with pytest.raises(DataError, match=words):
        carried_out(planned(known, names, suite, tmp_path / "run"))
    assert reads == {names[0]: 1}
    assert not (tmp_path / ".vectors").exists()
