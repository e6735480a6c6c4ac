"""One model's three modes: policies in closed form, calibration, and what `mmeb-eval compare` makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mmeb_harness import MODES, Mode, ResultError
from mmeb_harness.cli.commands import cli
from mmeb_harness.core.embedder import state_column
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import read_run_file, task_of_run
from mmeb_harness.stats.controls import Decisions, cross_fitted_gains, cross_fitted_mode, fit_probe
from mmeb_harness.stats.gate import Gate, judge_gate
from mmeb_harness.stats.policies import Policy, head_room_closed, mode_runs
from mmeb_harness.stats.queries import States, read_states
from mmeb_harness.stats.resampling import Floats
from tests.harness.made_runs import benchmark_tasks, task_result, write_run

TASK = next(task for task in benchmark_tasks() if task.group == "I-VG")
NEVER = [0.0, 0.0, 0.0, 1.0, 1.0]
ALWAYS = [1.0, 1.0, 0.0, 0.0, 1.0]
REASONED = [True, False, False, False, True]
GATES = [0.95, 0.4, 0.1, 0.05, 0.97]


def made(
    folder: Path,
    mode: str,
    scores: Sequence[float],
    reasoned: Sequence[bool],
    gates: Sequence[float | None],
    states: Sequence[Sequence[float]] | None = None,
    content: str = "",
) -> Path:
    result = task_result(TASK, num_queries=len(scores), score=float(np.mean(scores)), content=content)
    write_run(folder, [result], model_settings={"reasoning": mode, "candidate_reasoning": "never"})
    path = RunFolder(folder).queries_file(TASK.name)
    path.parent.mkdir(parents=True)
    columns: dict[str, Any] = {
        "query_id": [f"q{place}" for place in range(len(scores))],
        "cluster": list(range(len(scores))),
        "score": list(scores),
        "path": ["reasoned" if one else "direct" for one in reasoned],
        "reasoning_tokens": [10 if one else 0 for one in reasoned],
        "gate": list(gates),
        "latency_seconds": [0.2 if one else 0.1 for one in reasoned],
    }
    if states is not None:
        columns["state"] = state_column([np.array(state) for state in states])
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


def both_paths(folder: Path, mode: Mode, seed: int, content: str, *, states: bool = True) -> Path:
    """Forty queries, of which reasoning pays on those whose state's first number is positive, but for some noise."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(40, 2))
    pays = state[:, 0] + 0.2 * rng.normal(size=40) > 0
    reasoned = {"never": np.zeros(40, bool), "always": np.ones(40, bool), "adaptive": state[:, 1] > 0}[mode]
    scores = np.where(pays == reasoned, 1.0, 0.0).tolist()
    return made(folder, mode, scores, reasoned.tolist(), [0.5] * 40, state.tolist() if states else None, content)


def gains_of(runs: Mapping[Mode, Path]) -> Floats:
    never, always = (
        pq.read_table(RunFolder(runs[mode]).queries_file(TASK.name))["score"].to_numpy() for mode in ("never", "always")
    )
    gains: Floats = always - never
    return gains


def states_of(folder: Path) -> States:
    result = task_of_run(read_run_file(folder), TASK.name, RunFolder(folder))
    return read_states(folder, result)


@pytest.fixture
def judged(tmp_path: Path) -> dict[Mode, Path]:
    """States stand with the run "always" alone, as if that had been asked to keep them."""
    return {mode: both_paths(tmp_path / mode, mode, 0, "judged", states=mode == "always") for mode in MODES}


@pytest.fixture
def held_out(tmp_path: Path) -> list[Path]:
    return [both_paths(tmp_path / f"held-{mode}", mode, 1, "held out") for mode in MODES[:2]]


def row_of(gate: Gate, policy: Policy) -> tuple[float, float, float]:
    (row,) = [row for row in gate.policies if row.policy == policy]
    return row.score.queries.value, row.share, row.reasoning_tokens


def expected_row(runs: Mapping[Mode, Path], reasons: Decisions) -> tuple[Any, ...]:
    gains = gains_of(runs)
    right = np.where(reasons, gains > 0, gains < 0)
    return tuple(pytest.approx(value) for value in (right.mean(), reasons.mean(), 10 * reasons.mean()))


def test_controls_are_cross_fitted(judged: dict[Mode, Path]) -> None:
    gate, gains, clusters = judge_gate(judged), gains_of(judged), np.arange(40)
    assert [row.policy for row in gate.policies] == [
        *("never", "always", "random", "fixed", "adaptive", "probe", "oracle")
    ]
    forecast = cross_fitted_gains(states_of(judged["always"]), gains, clusters)
    assert row_of(gate, "probe") == expected_row(judged, forecast > 0)
    assert row_of(gate, "fixed") == expected_row(judged, cross_fitted_mode(gains, clusters))
    assert row_of(gate, "probe")[0] > 0.8
    assert (gate.fitted_on, gate.no_probe) == ((), "")
    against = {other.policy: other.difference.queries for other in gate.against}
    assert against["probe"].value == pytest.approx(row_of(gate, "adaptive")[0] - row_of(gate, "probe")[0])
    assert against["probe"].high < 0  # this gate knows nothing


def test_controls_are_fitted_on_held_out_runs(judged: dict[Mode, Path], held_out: list[Path]) -> None:
    gate = judge_gate(judged, held_out)
    gains = gains_of({"never": held_out[0], "always": held_out[1]})
    assert row_of(gate, "fixed") == expected_row(judged, np.full(40, gains.mean() > 0))
    probe = fit_probe(states_of(held_out[0]), gains, np.arange(40))
    assert row_of(gate, "probe") == expected_row(judged, probe.gains(states_of(judged["always"])) > 0)
    assert gate.fitted_on == tuple(map(str, held_out))


def test_why_there_is_no_probe(judged: dict[Mode, Path], held_out: list[Path], tmp_path: Path) -> None:
    without = [both_paths(tmp_path / f"no-{mode}", mode, 1, "held out", states=False) for mode in MODES[:2]]
    gate = judge_gate(judged, without)
    assert (
        gate.no_probe
        == "none of the runs to fit on has kept what the gate reads of all these queries (run --keep-states)"
    )
    assert "probe" not in {row.policy for row in gate.policies}
    stateless = {mode: both_paths(tmp_path / f"less-{mode}", mode, 0, "", states=False) for mode in MODES}
    assert judge_gate(stateless, held_out).no_probe.startswith("none of these runs has kept")


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (("held-never",), "a run with --reasoning always is lacking"),
        (("held-never", "held-never"), "a run with --reasoning always is lacking"),
        (("held-never", "held-always", "same"), "two are of one mode"),
        (("same", "held-always"), "same is to be fitted on, but its .* has the very items that are compared"),
        (("held-never", "other"), "other is to be fitted on, and differs in more than the mode"),
        (("elsewhere", "held-always"), f"elsewhere is to be fitted on, and lacks {TASK.name}"),
    ],
)
def test_runs_that_nothing_can_be_fitted_on(
    folders: tuple[str, ...], told: str, judged: dict[Mode, Path], held_out: list[Path], tmp_path: Path
) -> None:
    both_paths(tmp_path / "same", "never", 0, "judged")
    write_run(tmp_path / "other", [task_result(TASK)], model_settings={"reasoning": "always", "size": 2})
    other = next(task for task in benchmark_tasks() if task != TASK)
    settings = {"reasoning": "never", "candidate_reasoning": "never"}
    write_run(tmp_path / "elsewhere", [task_result(other)], model_settings=settings)
    with pytest.raises(ResultError, match=told):
        judge_gate(judged, [tmp_path / name for name in folders])


def test_the_command_fits_on_held_out_runs(judged: dict[Mode, Path], held_out: list[Path]) -> None:
    options = [word for folder in held_out for word in ("--fitted-on", str(folder))]
    done = CliRunner().invoke(cli, ["compare", *map(str, judged.values()), *options], catch_exceptions=False)
    assert f"in the task on held-out queries ({held_out[0]}, {held_out[1]})" in " ".join(done.output.split())
    assert "probe: reasons where a ridge regression" in done.output
    alone = CliRunner().invoke(cli, ["compare", str(judged["never"]), *options])
    assert "there is nothing to fit" in str(alone.exception) + alone.output


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
    assert {row["policy"]: row["score"]["queries"]["value"] for row in kept["gate"]["policies"]}["fixed"] == 0.2
    assert kept["gate"]["ece"] == pytest.approx(0.354)
    assert "Brier score 0.263 (of the base rate 0.240), ECE 0.354 (ten bins of equally many queries)" in done.output
    alone = CliRunner().invoke(cli, ["compare", str(runs["never"])], catch_exceptions=False)
    assert "in points" not in alone.output
