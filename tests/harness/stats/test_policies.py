"""One model's three modes: policies in closed form, calibration, and what `mmeb-eval compare` makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mmeb_harness import ResultError
from mmeb_harness.cli.commands import cli
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.stats.gate import Gate, judge_gate
from mmeb_harness.stats.policies import Mode, head_room_closed, mode_runs
from tests.harness.made_runs import benchmark_tasks, task_result, write_run

TASK = next(task for task in benchmark_tasks() if task.group == "I-VG")
NEVER = [0.0, 0.0, 0.0, 1.0, 1.0]
ALWAYS = [1.0, 1.0, 0.0, 0.0, 1.0]
REASONED = [True, False, False, False, True]
GATES = [0.95, 0.4, 0.1, 0.05, 0.97]


def made(
    folder: Path, mode: str, scores: Sequence[float], reasoned: Sequence[bool], gates: Sequence[float | None]
) -> Path:
    result = task_result(TASK, num_queries=len(scores), score=float(np.mean(scores)))
    write_run(folder, [result], model_settings={"reasoning": mode, "candidate_reasoning": "never"})
    path = RunFolder(folder).queries_file(TASK.name)
    path.parent.mkdir(parents=True)
    columns = {
        "query_id": [f"q{place}" for place in range(len(scores))],
        "cluster": list(range(len(scores))),
        "score": list(scores),
        "path": ["reasoned" if one else "direct" for one in reasoned],
        "reasoning_tokens": [10 if one else 0 for one in reasoned],
        "gate": list(gates),
        "latency_seconds": [0.2 if one else 0.1 for one in reasoned],
    }
    pq.write_table(pa.table(columns), path)
    return folder


def three(tmp_path: Path) -> dict[Mode, Path]:
    adaptive = [a if one else n for a, n, one in zip(ALWAYS, NEVER, REASONED, strict=True)]
    return {
        "never": made(tmp_path / "never", "never", NEVER, [False] * 5, [None] * 5),
        "always": made(tmp_path / "always", "always", ALWAYS, [True] * 5, [None] * 5),
        "adaptive": made(tmp_path / "adaptive", "adaptive", adaptive, REASONED, GATES),
    }


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return judge_gate(three(tmp_path))


def test_policies_in_closed_form(gate: Gate) -> None:
    scores = {row.policy: row.score.queries.value for row in gate.policies}
    assert scores == pytest.approx(
        {"never": 0.4, "always": 0.6, "random": 0.4 * 0.6 + 0.6 * 0.4, "fixed": 0.2, "adaptive": 0.6, "oracle": 0.8}
    )
    assert {row.policy: row.share for row in gate.policies} == pytest.approx(
        {"never": 0.0, "always": 1.0, "random": 0.4, "fixed": 0.6, "adaptive": 0.4, "oracle": 0.4}
    )
    assert {row.policy: row.reasoning_tokens for row in gate.policies} == pytest.approx(
        {"never": 0.0, "always": 10.0, "random": 4.0, "fixed": 6.0, "adaptive": 4.0, "oracle": 4.0}
    )
    times = {row.policy: (row.p50, row.p95) for row in gate.policies}
    assert times["never"] == pytest.approx((0.1, 0.1))
    assert times["adaptive"] == pytest.approx((0.1, 0.2))
    assert times["oracle"] == (None, None)


def test_differences_and_head_room(gate: Gate) -> None:
    found = {one.policy: one.difference.queries.value for one in gate.against}
    assert found == pytest.approx({"never": 0.2, "always": 0.0, "random": 0.12, "fixed": 0.4, "oracle": -0.2})
    assert {one.policy: one.p for one in gate.against}["never"] == 1.0  # one query differs: either sign
    assert gate.head_room_closed.queries.value == 0.0


def test_head_room_is_over_the_better_fixed_mode() -> None:
    means = np.array([[0.4, 0.6, 0.5, 0.7, 0.75, 0.8], [0.5] * 6])
    closed = head_room_closed(means)
    assert closed[0] == pytest.approx(0.75)
    assert np.isnan(closed[1])


def test_calibration(gate: Gate) -> None:
    assert [(one.low, one.queries) for one in gate.bins] == [(0.0, 1), (0.1, 1), (0.4, 1), (0.9, 2)]
    assert gate.bins[-1].pays == 0.5
    assert gate.bins[-1].gap == 0.5
    assert gate.bins[0].hurts == 1.0
    pays = np.array([1, 1, 0, 0, 0])
    assert gate.brier == pytest.approx(np.mean((np.array(GATES) - pays) ** 2))
    assert gate.base_rate_brier == pytest.approx(0.4 * 0.6)
    assert gate.ece == pytest.approx(np.mean(np.abs(np.array(GATES) - pays)))  # five queries: a bin each


def test_only_three_modes_of_one_model_are_compared_so(tmp_path: Path) -> None:
    runs = three(tmp_path)
    assert mode_runs([runs["adaptive"], runs["never"], runs["always"]]) == runs
    assert mode_runs([runs["adaptive"], runs["never"]]) is None
    assert mode_runs([runs["adaptive"], runs["never"], runs["never"]]) is None
    result = task_result(TASK, num_queries=5)
    write_run(tmp_path / "other", [result], model="another", model_settings={"reasoning": "always"})
    assert mode_runs([runs["adaptive"], runs["never"], tmp_path / "other"]) is None


def test_modes_of_other_queries(tmp_path: Path) -> None:
    runs = three(tmp_path)
    runs["always"] = made(tmp_path / "more", "always", [*ALWAYS, 1.0], [True] * 6, [None] * 6)
    with pytest.raises(ResultError, match="the runs are of other queries"):
        judge_gate(runs)


def test_the_command_prints_and_keeps_all_of_it(tmp_path: Path) -> None:
    runs = three(tmp_path)
    file = tmp_path / "comparison.json"
    done = CliRunner().invoke(cli, ["compare", *map(str, runs.values()), "--json", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for text in ("[2] always - [1] never, in points", "head-room closed", "1 task", "oracle"):
        assert text in done.output
    kept = json.loads(file.read_text())
    assert [pair["changed"][TASK.name] for pair in kept["paired"]] == [
        {"gained": ["q0", "q1"], "lost": ["q3"]},
        {"gained": ["q0"], "lost": []},
    ]
    assert kept["gate"]["head_room_closed"]["queries"]["value"] == 0.0
    alone = CliRunner().invoke(cli, ["compare", str(runs["never"])], catch_exceptions=False)
    assert "in points" not in alone.output
