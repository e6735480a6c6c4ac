"""A whole run on toy tasks: scores, resuming, kill -9, staleness, limits, errors."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmeb_harness import DataError, EncodeResult, Item, ModelError, ResultError, Role
from mmeb_harness.core.files import read_parquet
from mmeb_harness.results.files import RunResult, load_run_result, load_task_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.plan import RunSettings
from mmeb_harness.store.chunk_files import map_chunk
from tests.forked import Forked, Forks
from tests.toy import (
    HashEmbedder,
    QuietReporter,
    evaluated,
    info_of,
    press_ctrl_c_twice,
    registered,
    toy_task,
    write_toy,
)


def run_toy(
    data: Path,
    output: Path,
    names: tuple[str, ...] = ("one", "two"),
    embedder: HashEmbedder | None = None,
    reporter: QuietReporter | None = None,
    limit: int | None = None,
    fresh: bool = False,
) -> RunResult:
    known = registered(*(toy_task(name) for name in ("one", "two")))
    settings = RunSettings(output, limit=limit, fresh=fresh)
    chosen = [known[name] for name in names]
    return evaluated(embedder or HashEmbedder(), chosen, known, info_of(data), settings, reporter or QuietReporter())


def test_weights_are_loaded_outside_of_all_timings_and_only_if_needed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, hours = time.perf_counter, list[int]()
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 3600 * sum(hours))

    class Late(HashEmbedder):
        def warm_up(self) -> None:
            hours.append(1000)
            self.texts.append("warm")

        def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
            hours.append(1)
            return super().encode(items, role)

    embedder = Late()
    run = run_toy(data, tmp_path / "run", embedder=embedder)
    assert embedder.texts[0] == "warm"
    assert 1 <= (run.queries.seconds + run.candidates.seconds) // 3600 == sum(hours) - 1000
    again = Late()
    run_toy(data, tmp_path / "run", embedder=again)
    assert again.texts == []


def test_a_newer_run_file_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.json"
    path.parent.mkdir()
    path.write_text('{"schema_version": 99}')
    with pytest.raises(ResultError, match=r"schema version 99, this release reads up to .*: upgrade"):
        run_toy(data, tmp_path / "run")
    assert path.read_text() == '{"schema_version": 99}'


def test_an_interrupted_batch_does_not_cost_the_ones_before_it(data: Path, tmp_path: Path) -> None:
    class Interrupted(HashEmbedder):
        def encode(self, items, role):  # type: ignore[no-untyped-def]
            if role == "query":  # the smaller part, which comes last
                press_ctrl_c_twice()
            return super().encode(items, role)

    with pytest.raises(KeyboardInterrupt):
        run_toy(data, tmp_path / "run", embedder=Interrupted())
    embedder = HashEmbedder()
    run_toy(data, tmp_path / "run", ("one",), embedder)
    assert embedder.texts
    assert all("question" in text for text in embedder.texts)


def test_a_vector_that_cannot_be_used_names_its_task_and_costs_nothing_that_is_done(data: Path, tmp_path: Path) -> None:
    class Broken(HashEmbedder):
        def encode(self, items, role):  # type: ignore[no-untyped-def]
            result = super().encode(items, role)
            vectors = [
                vector * (np.nan if "two question 3" in item.text else 1)
                for vector, item in zip(result.vectors, items, strict=True)
            ]
            return EncodeResult(np.stack(vectors).astype(np.float32), result.traces)

    line = r"^two: model 'hash' returned NaN or infinity for query 'q3' \('two question 3'\)$"
    first, second = Broken(), Broken()
    with pytest.raises(ModelError, match=line):
        run_toy(data, tmp_path / "run", embedder=first)
    with pytest.raises(ModelError, match=line):
        run_toy(data, tmp_path / "run", embedder=second)
    assert any("answer" in text for text in first.texts)
    assert all("question" in text for text in second.texts)
    run_toy(data, tmp_path / "run", ("one",), Broken())
    assert load_task_result(tmp_path / "run" / "tasks" / "one.json").num_queries == 6


def test_scores_equal_an_independent_computation(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "run")
    embedder = HashEmbedder()
    for name in ("one", "two"):
        stored = json.loads((data / f"{name}.json").read_text())
        candidates = np.stack([embedder.vector(text) for text in stored["candidates"]])
        hits = [
            stored["candidates"][int(np.argmax(candidates @ embedder.vector(text)))] == answer
            for text, answer in stored["queries"]
        ]
        assert load_task_result(tmp_path / "run" / "tasks" / f"{name}.json").score == np.mean(hits)


def test_a_row_a_query_holds_everything(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "run")
    rows = read_parquet(RunFolder(tmp_path / "run").queries_file("one")).to_pylist()
    assert [row["query_id"] for row in rows] == [f"q{i}" for i in range(6)]
    embedder = HashEmbedder()
    for i, row in enumerate(rows):
        trace = embedder.trace(f"one question {i}")
        assert (row["path"], row["gate"], row["rationale"]) == (trace.path, trace.gate, trace.rationale)
        assert (row["reasoning_tokens"], row["truncated"]) == (trace.reasoning_tokens, trace.truncated)
        assert row["relevant_ids"] == [f"one answer {i}"]
        assert row["top_ids"][row["first_relevant_rank"] - 1] == f"one answer {i}"
        assert row["score"] == float(row["first_relevant_rank"] == 1)
        assert row["latency_seconds"] > 0
        assert len(row["top_ids"]) == len(row["top_scores"]) == row["num_ranked"] == 12


def test_the_run_file_says_what_it_was(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "run")
    run = load_run_result(tmp_path / "run" / "run.json")
    assert (run.model, run.model_revision, run.status) == ("hash", "1", "finished")
    assert run.tasks == ("one", "two")
    assert run.queries.items == 12
    assert run.versions["python"]
    assert {"p50", "p95"} == set(run.latency_seconds["queries"])
    assert {aggregate.name for aggregate in run.aggregates} == {"overall", "image", "I-CLS"}


def test_a_second_run_encodes_nothing(data: Path, tmp_path: Path) -> None:
    first = run_toy(data, tmp_path / "run")
    embedder, reporter = HashEmbedder(), QuietReporter()
    second = run_toy(data, tmp_path / "run", embedder=embedder, reporter=reporter)
    assert embedder.texts == []
    assert second.aggregates == first.aggregates
    assert reporter.notes == ["2 of 2 tasks finished before and kept (--fresh starts over)"]
    assert not reporter.finished


def test_what_was_encoded_for_another_run_is_counted(data: Path, tmp_path: Path) -> None:
    first, limited = run_toy(data, tmp_path / "run", ("one",)), run_toy(data, tmp_path / "limited", limit=2)
    assert (first.queries.reused, first.candidates.reused) == (0, 0)
    assert (limited.queries.encoded, limited.queries.reused) == (4, 2)  # those of task one
    assert (limited.candidates.encoded, limited.candidates.reused) == (24, 12)


def test_fresh_starts_over(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "run")
    embedder = HashEmbedder()
    run_toy(data, tmp_path / "run", embedder=embedder, fresh=True)
    assert len(embedder.texts) == 36


@pytest.mark.parametrize("change", ["model revision", "model settings", "data", "limit"])
def test_a_change_is_noticed_and_computed_again(change: str, data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "run", ("one",))
    embedder, reporter = HashEmbedder(revision="2" if change == "model revision" else "1"), QuietReporter()
    if change == "model settings":
        embedder = HashEmbedder(dimensions=17)
    if change == "data":
        write_toy(data, "one", num_queries=7)
    limit = 2 if change == "limit" else None
    run_toy(data, tmp_path / "run", ("one",), embedder, reporter, limit)
    assert reporter.notes == ["1 earlier result of another model, setting or data revision: computed again"]
    # New words only, or all of them under a new model; a limit needs nothing new.
    assert len(embedder.texts) == {"data": 1, "limit": 0}.get(change, 18)


def test_a_limited_run_is_marked(data: Path, tmp_path: Path) -> None:
    run = run_toy(data, tmp_path / "run", limit=2)
    result = load_task_result(tmp_path / "run" / "tasks" / "one.json")
    assert (run.limit, result.limited, result.num_queries) == (2, True, 2)


def test_an_incomplete_mean_names_what_is_missing(data: Path, tmp_path: Path) -> None:
    run = run_toy(data, tmp_path / "run", ("one",))
    assert run.aggregates[0].missing == ("two",)


def test_nothing_is_encoded_before_every_task_can_be_read(data: Path, tmp_path: Path) -> None:
    (data / "two.json").unlink()
    embedder = HashEmbedder()
    with pytest.raises(DataError, match=r"two: .*two\.json is missing"):
        run_toy(data, tmp_path / "run", embedder=embedder)
    assert embedder.texts == []
    assert not (tmp_path / "run" / "tasks").exists()


def test_fewer_queries_than_declared_is_not_a_score(data: Path, tmp_path: Path) -> None:
    known = registered(toy_task("one", num_queries=1000))
    with pytest.raises(DataError, match="one: expected 1000 queries, found 6"):
        evaluated(
            HashEmbedder(), list(known.values()), known, info_of(data), RunSettings(tmp_path / "run"), QuietReporter()
        )


def test_a_folder_that_cannot_be_written_is_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match=r"can't write .*choose another folder"):
        run_toy(data, tmp_path / "file" / "run")


def test_a_newer_result_file_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "tasks" / "one.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"schema_version": 99}')
    with pytest.raises(ResultError, match=r"schema version 99, this release reads up to .*: upgrade"):
        run_toy(data, tmp_path / "run")
    assert path.read_text() == '{"schema_version": 99}'


SLOW_RUN = """
    import sys, time
    from pathlib import Path
    import faiss, pyarrow.parquet  # before the clock starts
    import mmeb_harness.encode.chunks, mmeb_harness.store.vectors
    from tests.harness.run.test_evaluate import run_toy
    from tests.toy import HashEmbedder

    class Slow(HashEmbedder):
        left = int(sys.argv[3])   # batches, then it waits to be killed; 0: never

        def encode(self, items, role):
            self.left -= 1
            time.sleep(600 if self.left == 0 else 0.03)
            return super().encode(items, role)

    mmeb_harness.encode.chunks.PLAIN_BATCH_ITEMS = 3   # many small batches, each on disk at once
    mmeb_harness.store.vectors.FLUSH_SECONDS = 0.0
    print("started", flush=True)
    run_toy(Path(sys.argv[1]), Path(sys.argv[2]), embedder=Slow())
"""


def start(data: Path, output: Path, forks: Forks, batches: int = 0) -> Forked:
    script = data / "slow_run.py"
    script.write_text(textwrap.dedent(SLOW_RUN))
    place = {"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": os.environ["PATH"], "HOME": str(data)}
    process = forks.start([str(script), str(data), str(output), str(batches)], cwd=data, env=place)
    process.stdout.readline()
    return process


def chunks_in(vectors: Path) -> int:
    return len(list(vectors.rglob("chunk-*.arrow")))


def kill_in_mid_run(data: Path, output: Path, vectors: Path, more_chunks: int, seconds: float, forks: Forks) -> None:
    """So long after that many further chunks are there; of more than two further ones none is begun."""
    wanted = chunks_in(vectors) + more_chunks
    process = start(data, output, forks, batches=more_chunks + 3)
    while process.poll() is None and chunks_in(vectors) < wanted:
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


KILLED_RUN = """
    import os, signal, sys
    from pathlib import Path
    from tests.harness.run.test_evaluate import run_toy
    from tests.toy import HashEmbedder

    class Killed(HashEmbedder):
        def encode(self, items, role):
            if len(self.texts) >= int(sys.argv[3]):
                print(len(self.texts), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode(items, role)

    run_toy(Path(sys.argv[1]), Path(sys.argv[2]), ("one",), Killed())
"""


@pytest.mark.parametrize("after", [1, 300, 600])
def test_kill_9_while_the_first_chunks_are_under_way_costs_256_items_at_most(
    after: int, data: Path, tmp_path: Path
) -> None:
    write_toy(data, "one", num_queries=10, num_candidates=700)
    command = [sys.executable, "-c", textwrap.dedent(KILLED_RUN), str(data), str(tmp_path / "run"), str(after)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    stored = sum(len(map_chunk(path)) for path in tmp_path.rglob("chunk-*.arrow"))
    assert int(done.stdout) - 256 < stored <= int(done.stdout)
    embedder = HashEmbedder()
    run_toy(data, tmp_path / "run", ("one",), embedder)
    assert len(embedder.texts) == 710 - stored


@pytest.mark.parametrize("remembered", ["by this release", "by release 0.1"])
def test_a_clock_that_is_set_back_after_starting_over_costs_nothing_twice(
    remembered: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy(data, tmp_path / "run")
    clock, reporter = time.time_ns, QuietReporter()
    monkeypatch.setattr("time.time_ns", lambda: clock() + 3600 * 10**9)
    first, second, third = HashEmbedder(), HashEmbedder(), HashEmbedder()
    run_toy(data, tmp_path / "run", embedder=first, fresh=True)
    assert len(first.texts) == 36
    if remembered == "by release 0.1":
        (tmp_path / "run" / ".fresh").write_text(str(time.time_ns()))
    monkeypatch.setattr("time.time_ns", clock)
    shutil.rmtree(tmp_path / "run" / "tasks")
    run_toy(data, tmp_path / "run", embedder=second, reporter=reporter)
    assert len(second.texts) == (0 if remembered == "by this release" else 36)
    assert [note for note in reporter.notes if "yet to come" in note] == reporter.notes
    shutil.rmtree(tmp_path / "run" / "tasks")
    run_toy(data, tmp_path / "run", embedder=third)
    assert third.texts == []


@pytest.mark.slow
def test_kill_9_at_random_moments_leaves_identical_scores(data: Path, tmp_path: Path, forks: Forks) -> None:
    write_toy(data, "one", num_queries=30, num_candidates=30)
    write_toy(data, "two", num_queries=30, num_candidates=30, pooled=False)
    undisturbed = run_toy(data, tmp_path / "reference" / "run")
    rng, output, vectors = random.Random(0), tmp_path / "killed" / "run", tmp_path / "killed" / ".vectors"
    for _ in range(5):
        kill_in_mid_run(data, output, vectors, rng.randrange(5), rng.uniform(0.0, 0.05), forks)
    assert chunks_in(vectors) > 0  # it was killed at work, not before
    assert start(data, output, forks).wait() == 0
    assert load_run_result(output / "run.json").aggregates == undisturbed.aggregates
    for name in ("one", "two"):
        reference = load_task_result(tmp_path / "reference" / "run" / "tasks" / f"{name}.json")
        resumed = load_task_result(output / "tasks" / f"{name}.json")
        assert resumed.metrics == reference.metrics
        columns = ["query_id", "top_ids", "top_scores", "path", "rationale"]
        rows = [
            read_parquet(RunFolder(tmp_path / run).queries_file(name), columns)
            for run in ("reference/run", "killed/run")
        ]
        assert rows[0].equals(rows[1])


def test_a_second_run_on_one_folder_says_so(data: Path, tmp_path: Path) -> None:
    class Nested(HashEmbedder):
        def encode(self, items, role):  # type: ignore[no-untyped-def]
            with pytest.raises(ResultError, match="another run is writing to"):
                run_toy(data, tmp_path / "run")
            return super().encode(items, role)

    run_toy(data, tmp_path / "run", embedder=Nested())


def test_a_result_without_its_tables_is_computed_again(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "run")
    (tmp_path / "run" / "queries" / "one.parquet").unlink()
    run_toy(data, tmp_path / "run")
    assert (tmp_path / "run" / "queries" / "one.parquet").is_file()


def test_no_result_stands_beside_another_settings_rankings(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the tables and the result: the result of the earlier setting is gone with its tables."""
    run_toy(data, tmp_path / "run", embedder=HashEmbedder(revision="1"))

    def killed(path: Path, result: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmeb_harness.run.record.save_task_result", killed)
    with pytest.raises(KeyboardInterrupt):
        run_toy(data, tmp_path / "run", embedder=HashEmbedder(revision="2"))
    assert not (tmp_path / "run" / "tasks" / "one.json").exists()
