"""One evaluation in several modes of reasoning at once gives what as many evaluations give, and computes once."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mmeb_tasks.own import RETRIEVAL
from rich.console import Console

import mmeb_harness as mmeb
from mmeb_harness import EncodeResult, Item, ModelError, ModelInfo, OptionError, Role, Trace, UnknownNameError
from mmeb_harness.cli.commands import cli
from mmeb_harness.core.embedder import in_modes, infos_of
from mmeb_harness.core.files import read_parquet
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.encode.chunks import Batch, Chunk
from mmeb_harness.encode.returned import own_results
from mmeb_harness.encode.whole_workers import _with_seconds
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.outcome import Run, load_run
from mmeb_harness.run.evaluate import encode_share, evaluate, this_process
from mmeb_harness.run.plan import Plan, RunSettings, make_plan
from mmeb_harness.show.run_table import print_run
from mmeb_harness.spread.ray_worker import Answer, ChunkWorker, Setup
from mmeb_harness.spread.shards import StoredModel, encoder_of_shard, load_shards, settings_of
from mmeb_harness.spread.shares import Share, StoredOnly
from mmeb_harness.stats.gate import judge_gate
from mmeb_harness.stats.queries import read_run_queries
from mmeb_harness.store.chunk_files import chunk_files
from tests.toy import HashEmbedder, QuietReporter, info_of, registered, toy_task, write_toy

MODES = ("never", "always", "adaptive")
KNOWN = registered(toy_task("one"), toy_task("two"))


class Moody:
    """Turns a text's vector where it reasons; counts for how many queries it did, and the candidates.

    Attributes:
        encoded: texts of candidates, of queries, and of queries that were reasoned about.
    """

    def __init__(self, modes: Sequence[str], encoded: dict[str, list[str]] | None = None) -> None:
        about = {"revision": "1", "dimensions": 16, "reasons": True, "query_settings": ("reasoning",)}
        self.infos = tuple(ModelInfo("moody", settings={"reasoning": mode}, **about) for mode in modes)  # type: ignore[arg-type]
        self.info = self.infos[0]
        self.encoded = {"candidate": [], "query": [], "reasoned": []} if encoded is None else encoded

    def in_modes(self, modes: Sequence[str]) -> Moody | None:
        return Moody(modes, self.encoded)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        self.encoded[role] += [item.text for item in items]
        modes = [info.mode for info in self.infos] if role == "query" else ["never"]
        gates = [int(item.text[-1]) % 2 for item in items]  # "one question 3"
        reasons = [[mode == "always" or (mode == "adaptive" and gate == 1) for gate in gates] for mode in modes]
        self.encoded["reasoned"] += [
            item.text for item, own in zip(items, zip(*reasons, strict=True), strict=True) if any(own)
        ]
        first, *others = [self.result(items, own) for own in reasons]
        return dataclasses.replace(first, others=tuple(others))

    def result(self, items: Sequence[Item], reasons: Sequence[bool]) -> EncodeResult:
        texts = [f"{item.text} thought over" if own else item.text for item, own in zip(items, reasons, strict=True)]
        traces = [
            Trace("reasoned", 0.9, text, 5) if own else Trace(gate=0.1)
            for text, own in zip(texts, reasons, strict=True)
        ]
        return EncodeResult(np.stack([HashEmbedder().vector(text) for text in texts]), tuple(traces))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in KNOWN:
        write_toy(tmp_path, name)
    return tmp_path


def plans_of(data: Path, model: Moody, folder: str) -> list[Plan]:
    settings = [RunSettings(data / folder / str(info.mode)) for info in model.infos]
    known = list(KNOWN.values())
    return [make_plan(known, KNOWN, info_of(data), info, own) for info, own in zip(model.infos, settings, strict=True)]


def run(data: Path, model: Moody, folder: str, reporter: QuietReporter | None = None) -> tuple[Run, ...]:
    reporter = reporter or QuietReporter()
    return evaluate(plans_of(data, model, folder), model, this_process(model, reporter.note), reporter)


def alone(data: Path) -> dict[str, Run]:
    return {mode: run(data, Moody([mode]), "alone")[0] for mode in MODES}


def printed(run: Run) -> str:
    shown = io.StringIO()
    print_run(run, Console(file=shown, width=250))
    return shown.getvalue()


def rows(folder: Path, task: str, without: Sequence[str] = ("latency_seconds", "shared")) -> list[dict[str, Any]]:
    table = read_parquet(RunFolder(folder).queries_file(task))
    return [{name: value for name, value in row.items() if name not in without} for row in table.to_pylist()]


def assert_same(runs: Sequence[Run], expected: dict[str, Run]) -> None:
    for own in runs:
        other = expected[str(own.result.model_settings["reasoning"])]
        assert own.scores == other.scores
        assert own.result.model_fingerprint == other.result.model_fingerprint
        for task in KNOWN:
            assert rows(own.folder, task) == rows(other.folder, task)


def test_three_modes_are_three_runs_and_computed_once(data: Path) -> None:
    expected, model = alone(data), Moody(MODES)
    runs = run(data, model, "together")
    assert len({tuple(sorted(own.scores.items())) for own in runs}) > 1  # or nothing could differ
    assert_same(runs, expected)
    assert {name: len(texts) for name, texts in model.encoded.items()} == {"candidate": 24, "query": 12, "reasoned": 12}
    # What was measured of queries is of no mode alone, and whoever looks for one finds none.
    for own in runs:
        assert (own.result.queries.shared, own.result.candidates.shared) == (12, 0)
        assert own.result.latency_seconds.keys() == {"queries of several modes", "candidates"}
        assert np.isnan(read_run_queries(own.folder, "one")[1].latency_seconds).all()
        assert load_run(own.folder).scores == own.scores
        assert "12 of 12 queries were encoded in several modes at once" in printed(own)
    gate = judge_gate({mode: own.folder for mode, own in zip(MODES, runs, strict=True)})
    assert {row.p50 for row in gate.policies} == {None}
    assert all(row.p50 for row in judge_gate({mode: own.folder for mode, own in expected.items()}).policies[:2])
    assert "at once" not in printed(expected["never"])
    never = expected["never"]
    assert never.result.queries.shared == 0
    assert "shared" not in read_parquet(RunFolder(never.folder).queries_file("one")).column_names
    assert '"shared"' not in RunFolder(never.folder).task_file("one").read_text()
    # A single run of one of them finds the vectors, and that they are shared.
    shutil.rmtree(data / "together" / "never")
    (again,) = run(data, Moody(["never"]), "together")
    assert (again.result.queries.reused, again.result.queries.shared) == (12, 12)
    assert again.scores == never.scores


def test_what_is_there_is_not_computed_again(data: Path) -> None:
    expected, earlier = alone(data), Moody(["always"])
    run(data, earlier, "together")
    model, reporter = Moody(MODES), QuietReporter()
    runs = run(data, model, "together", reporter)
    assert_same(runs, expected)
    assert model.encoded["candidate"] == []
    assert 0 < len(model.encoded["reasoned"]) < 12  # those of adaptive alone
    assert [own.result.queries.shared for own in runs] == [12, 0, 12]
    assert any("always: 2 of 2 tasks finished before" in line for line in reporter.notes)
    done = Moody(MODES)
    assert_same(run(data, done, "together"), expected)
    assert done.encoded["query"] == []


def test_killed_between_two_modes_it_computes_again_what_one_of_them_lacks(data: Path) -> None:
    expected = alone(data)
    plans = plans_of(data, Moody(MODES), "together")
    run(data, Moody(MODES), "together")
    for plan in plans:
        shutil.rmtree(plan.folder.root)
    for chunk in chunk_files(plans[1].vectors):
        chunk.unlink()
    model = Moody(MODES)
    assert_same(run(data, model, "together"), expected)
    assert {name: len(texts) for name, texts in model.encoded.items()} == {"candidate": 0, "query": 12, "reasoned": 12}


def test_shards_of_several_modes_are_merged_one_by_one(data: Path) -> None:
    expected = alone(data)
    notes: list[str] = []
    for number in range(2):
        model = Moody(MODES)
        encoder = encoder_of_shard(Share(number, 2), this_process(model, print), notes.append)
        encode_share(plans_of(data, model, "shards"), model, encoder, QuietReporter())
    assert "mmeb-eval merge " + " ".join(str(data / "shards" / mode) for mode in MODES) in notes[0]
    merged = []
    for mode in MODES:
        output = data / "shards" / mode
        shard = load_shards(output)[0]
        plan = make_plan(list(KNOWN.values()), KNOWN, info_of(data), shard.model, settings_of(shard, output, None))
        missing = StoredOnly("gone")
        merged += evaluate([plan], StoredModel(shard.model), lambda _, own=missing: nullcontext(own), QuietReporter())
    assert_same(merged, expected)


def test_an_actor_gives_the_modes_that_are_asked_for(tmp_path: Path) -> None:
    item = Item("q", text="question 1")
    worker = ChunkWorker(Setup(ModelSpec("moody"), 1000, 0, tmp_path))
    worker._embedder = Moody(MODES)
    answer = worker.encode(Chunk("query", (Batch((("key", item),), 1),)), ["adaptive", "never"])
    assert isinstance(answer, Answer)
    ((_, encoded),) = answer.batches
    assert [mode.traces[0].path for mode in (encoded, *encoded.others)] == ["reasoned", "direct"]


def test_a_worker_s_seconds_are_those_of_every_mode() -> None:
    result = Moody(["never", "always"]).encode([Item("q", text="question 1")], "query")
    (other,) = _with_seconds(result, 2.0).others
    assert [trace.seconds for trace in other.traces or ()] == [2.0]


def test_a_model_is_held_to_what_it_says_of_its_modes() -> None:
    item = ("q", Item("q", text="question 1"))
    model, of_one = Moody(["never", "always"]), Moody(["never"]).encode([item[1]], "query")
    own_results(model.infos, model.encode([item[1]], "query"), [item], "query")
    own_results(model.infos, model.encode([item[1]], "candidate"), [item], "candidate")
    with pytest.raises(ModelError, match=r"'moody' returned results of 1 modes for .*, not of 2"):
        own_results(model.infos, of_one, [item], "query")
    assert [info.mode for info in infos_of(in_modes(Moody(["always"]), MODES))] == [*MODES]

    class Hasty(Moody):
        def in_modes(self, modes: Sequence[str]) -> Moody:
            other = Moody(modes)
            other.infos = tuple(dataclasses.replace(info, query_settings=()) for info in other.infos)
            return other

    with pytest.raises(ModelError, match='its candidates differ in them: name "reasoning" in the `query_settings`'):
        in_modes(Hasty(["never"]), MODES)


IN_A_FILE = """
import numpy as np
from mmeb_harness import EncodeResult, ModelInfo, Trace


class Slow:
    def __init__(self, reasoning="never"):
        settings = {"reasoning": reasoning}
        self.info = ModelInfo("slow", "1", 3, settings, reasons=True, query_settings=("reasoning",))

    def encode(self, items, role):
        reasons = role == "query" and self.info.settings["reasoning"] == "always"
        angles = np.array([len(item.text) + reasons for item in items])
        traces = tuple(Trace("reasoned", None, "because", 3) if reasons else Trace() for _ in items)
        vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(len(items))], 1)
        return EncodeResult(vectors.astype(np.float32), traces)
"""


@pytest.mark.parametrize("fresh", [False, True])
def test_a_model_of_one_mode_at_a_time_is_run_once_a_mode(
    fresh: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RETRIEVAL.write_example(tmp_path / "mine")
    (tmp_path / "slow.py").write_text(IN_A_FILE)
    for again in range(2):
        runs = mmeb.evaluate_modes("slow.py", reasoning="never,always", data="mine", fresh=fresh, progress=False)
        assert [*runs] == ["never", "always"]
        assert all(run.folder.name.endswith(f"-{mode}") for mode, run in runs.items())
        never, always = (run.result for run in runs.values())
        assert (never.candidates.reused, never.queries.reused) == (0, 0) or (again and not fresh)
        assert (always.candidates.reused, always.queries.reused) == (always.candidates.encoded, 0)
        assert (always.queries.reasoned, always.queries.shared, never.queries.reasoned) == (4, 0, 0)
        assert always.latency_seconds.keys() == {"queries", "candidates"}
    words = ("run", "--model", "slow.py", "--reasoning", "always,never,always", "--data", "mine", "--output", "out")
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "mmeb-eval compare out/always out/never" in done.output
    assert load_run("out/never").scores == runs["never"].scores
    with pytest.raises(OptionError, match=r"^reasoning=never,always: these are several runs; mmeb\.evaluate_modes"):
        mmeb.evaluate("slow.py", reasoning="never,always", data="mine")
    with pytest.raises(UnknownNameError, match=r"no option of a run named 'limt'\. Did you mean 'limit'"):
        mmeb.evaluate_modes("slow.py", limt=3)
