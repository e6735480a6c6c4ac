"""The leaderboard: order, best values, ties and ranks where the truth is known, what is never ranked, all formats."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from mmeb_harness import HarnessError, OptionError, ResultError
from mmeb_harness.api.side_by_side import compare
from mmeb_harness.cli.leaderboard import FORMATS
from mmeb_harness.cli.leaderboard import leaderboard as command
from mmeb_harness.core.files import write_parquet
from mmeb_harness.core.registry import load_tasks
from mmeb_harness.ranking.metrics import METRIC_NAMES
from mmeb_harness.results.files import EncodeStats, RunResult
from mmeb_harness.results.published import PUBLISHED_FILES, SIZES_FILE, load_published, published_sizes
from mmeb_harness.results.scores import Scores, TaskScore, save_scores, scores_of_run
from mmeb_harness.show.contests import Entry, load_entry
from mmeb_harness.show.leaderboard import Cell, Leaderboard, Row, all_published, leaderboard, leaderboards
from mmeb_harness.show.leaderboard_formats import SUFFIXES, Format, print_boards, render
from mmeb_harness.show.names import labelled
from mmeb_harness.show.page.board import FORMAT_OF, board_page
from mmeb_harness.stats.places import Contender, letters, places
from mmeb_harness.stats.queries import QueryScores
from tests.harness.made_runs import (
    PROFILE,
    benchmark_tasks,
    own_run,
    run_result,
    task_result,
    whole_run,
    write_queries,
    write_run,
)

REGISTERED = load_tasks()
TASKS = benchmark_tasks()
PAGE = Path(__file__).resolve().parents[3] / "docs" / "compare.md"
HOSTILE = "a|b_&%$#{}~^\\<b>*x*</b>`c`[l](u)\"q'\x1b[31m\u202e\nnext,=1+1"


def entry(
    name: str, score: float, *, without: Sequence[str] = (), run: RunResult | None = None, **changes: object
) -> Entry:
    tasks = {task.name: TaskScore(dict.fromkeys(METRIC_NAMES, score)) for task in TASKS if task.name not in without}
    scores = dataclasses.replace(Scores(name, "page-fixed", "imported", "s", tasks), **changes)  # type: ignore[arg-type]
    return Entry(scores, run)


def board(*entries: Entry, with_tasks: bool = False, allow_editions: bool = False) -> Leaderboard:
    return leaderboard(entries, REGISTERED, with_tasks=with_tasks, allow_editions=allow_editions)


def cell(made: Leaderboard, row: Row, key: str) -> Cell:
    return row.cells[[column.key for column in made.columns].index(key)]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])


def refusal(*arguments: object) -> str:
    result = call(*arguments)
    assert isinstance(result.exception, HarnessError), result.output
    assert result.exception.exit_code == 2
    assert "\n" not in str(result.exception)
    return str(result.exception)


# Places, where the truth is known.


def contender(
    name: str, scores: NDArray[np.float64] | Sequence[float], clusters: Sequence[int] | None = None
) -> Contender:
    """A run with these queries in its one task."""
    values = np.asarray(scores, dtype=np.float64)
    ids = tuple(f"q{place}" for place in range(len(values)))
    labels = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    queries = QueryScores(ids, values, labels, clustered=clusters is not None)
    mean = float(values.mean())
    return Contender(name, mean, {"t": mean}, {"t": len(values)}, lambda _: queries)


def published(name: str, score: float, *, tasks: int, queries: int, means_only: bool = False) -> Contender:
    names = [f"t{number}" for number in range(tasks)]
    return Contender(name, score, {} if means_only else dict.fromkeys(names, score), dict.fromkeys(names, queries))


def found(*contenders: Contender) -> list[tuple[tuple[int, int], str]]:
    tasks = list(contenders[0].num_queries)
    return [(one.interval, one.ties) for one in places(contenders, tasks)]


def test_what_is_hard_for_all_runs_moves_no_rank() -> None:
    """Queries differ by far more than the runs do; one is better on each of them. Drawn apart, they would be tied."""
    worse = np.random.default_rng(0).random(60) * 0.9
    assert found(contender("a", worse + 0.01), contender("b", worse)) == [((1, 1), ""), ((2, 2), "")]
    apart = dataclasses.replace(contender("a", worse + 0.01), queries=None)
    assert found(apart, contender("b", worse)) == [((1, 2), "a"), ((1, 2), "a")]


def test_runs_that_are_right_on_different_queries_are_tied_and_a_far_worse_one_is_not() -> None:
    left, right = np.repeat([1.0, 0.0], 50), np.repeat([0.0, 1.0], 50)
    expected = [((1, 2), "a"), ((1, 2), "a"), ((3, 3), "")]
    assert found(contender("a", left), contender("b", right), contender("c", np.full(100, 0.01))) == expected


def test_queries_of_one_video_count_once() -> None:
    """20 of 200 queries are gained: of 20 videos clearly, of a single one it may be chance."""
    base, gained = np.zeros(200), np.repeat([1.0, 0.0], [20, 180])
    many = np.arange(200) % 20
    one = np.repeat(range(10), 20)
    assert found(contender("a", gained, many), contender("b", base, many)) == [((1, 1), ""), ((2, 2), "")]
    assert [ties for _, ties in found(contender("a", gained, one), contender("b", base, one))] == ["a", "a"]


@pytest.mark.parametrize("means_only", [False, True])
def test_published_means_are_apart_where_the_closed_form_says_so(means_only: bool) -> None:
    spread = np.sqrt(2 * 0.25 / 400 / 10)
    for times, tied in ((0.9, True), (1.1, False)):
        better = 0.5 + times * stats.norm.ppf(0.975) * spread
        one, other = (published("x", score, tasks=10, queries=400, means_only=means_only) for score in (better, 0.5))
        (first, ties), _ = found(one, other)
        assert first[0] == 1
        assert bool(ties) == tied


def test_means_only_are_drawn_as_if_at_half() -> None:
    """At 0.9 a task's own variance would be 0.09, but which tasks make the mean isn't known: 0.25 it may be."""
    step = 1.96 * np.sqrt(2 * 0.16 / 400 / 10)
    pair = (0.9 + step, 0.9)
    known = [published("x", score, tasks=10, queries=400) for score in pair]
    unknown = [published("x", score, tasks=10, queries=400, means_only=True) for score in pair]
    assert [ties for _, ties in found(*known)] == ["", ""]
    assert [ties for _, ties in found(*unknown)] == ["a", "a"]


def test_a_letter_is_shared_by_those_that_cant_be_told_apart_and_by_no_others() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        upper = np.triu(rng.random((7, 7)) < 0.5, 1)
        same = upper | upper.T | np.eye(7, dtype=bool)
        marks = [set(re.findall(r"[a-z]\d*", one)) for one in letters(same)]
        for first in range(7):
            for second in range(first):
                assert bool(marks[first] & marks[second]) == same[first, second]
    assert letters(np.eye(3, dtype=bool)) == ["", "", ""]
    chain = abs(np.subtract.outer(range(60), range(60))) <= 1
    assert letters(chain)[:3] == ["a", "ab", "bc"]
    assert letters(chain)[26:28] == ["za1", "a1b1"]


# The table.


def test_rows_are_sorted_best_are_marked_and_incomplete_ones_stand_apart() -> None:
    made = board(
        entry("low", 0.2), entry("part", 0.9, without=["GQA", "OVEN"]), entry("high", 0.6), entry("middle", 0.5)
    )
    assert [(row.name, row.rank) for row in made.rows] == [("high", 1), ("middle", 2), ("low", 3), ("part", None)]
    for key in ("overall", "image", "VisRAG"):
        assert [cell(made, row, key).best for row in made.rows] == [True, False, False, False]
        assert [cell(made, row, key).rank for row in made.rows] == [1, 2, 3, None]
    (part,) = made.apart
    assert part.unranked == "76 of 78 tasks, without GQA, OVEN"
    assert (part.rank_interval, part.ties, cell(made, part, "overall").value) == (None, "", None)
    assert cell(made, part, "I-QA").value is None
    assert cell(made, part, "video").value == pytest.approx(0.9)


def test_equal_models_share_a_rank_and_are_both_best() -> None:
    made = board(entry("a", 0.5), entry("b", 0.5), entry("c", 0.1))
    assert [(row.rank, row.rank_interval, row.ties) for row in made.rows] == [
        *((1, (1, 2), "a"), (1, (1, 2), "a"), (3, (3, 3), ""))
    ]
    assert [cell(made, row, "video").best for row in made.rows] == [True, True, False]


def test_the_columns() -> None:
    made = board(entry("a", 0.5, profile=PROFILE, data_revision="r1"), with_tasks=True)
    keys = [column.key for column in made.columns]
    assert keys[:4] == ["overall", "image", "video", "visdoc"]
    assert sum(column.block == "groups" for column in made.columns) == 12
    assert [column.key for column in made.columns if column.block == "tasks"] == [task.name for task in TASKS]
    assert [cell(made, made.rows[0], key).value for key in ("edition", "profile", "data_revision", "parameters")] == [
        *("page-fixed", "made", "r1", None)
    ]
    assert not any(column.block == "tasks" for column in board(entry("a", 0.5)).columns)
    assert not any(one.best for one in made.rows[0].cells)  # of one model none is the best


def test_bold_is_what_the_printed_digits_say() -> None:
    """0.1 + 0.2 and 0.3 print the same; so do 0.5851 and 0.5849 in % to a tenth, which are not of one rank."""

    def best(key: str, *scores: float) -> list[bool]:
        made = board(*(entry(f"m{number}", score) for number, score in enumerate(scores)))
        return [cell(made, row, key).best for row in sorted(made.rows, key=lambda row: row.name)]

    for key in ("overall", "V-QA"):
        assert best(key, 0.1 + 0.2, 0.3, 0.1) == [True, True, False]
        assert best(key, 0.5849, 0.5851, 0.5) == [True, True, False]
        assert best(key, 0.5849, 0.5851) == [False, False]
        assert best(key, 0.585, 0.583) == [True, False]
    made = board(entry("a", 0.1 + 0.2), entry("b", 0.3), entry("c", 0.1))
    assert [row.rank for row in made.rows] == [1, 1, 3]
    assert [cell(made, row, "V-QA").rank for row in made.rows] == [1, 1, 3]
    shown = {wanted: render([made], wanted).count("30.0") for wanted in ("md", "latex")}
    assert render([made], "md").count("**30.0**") == shown["md"]
    assert render([made], "latex").count(r"\textbf{30.0}") == shown["latex"]


def test_low_latency_is_best_but_only_on_one_machine() -> None:
    slow, fast = (
        entry(name, 0.5, run=run_result([], latency_seconds={"queries": {"p50": seconds}}, machine={"cores": 2}))
        for name, seconds in (("slow", 0.2), ("fast", 0.1))
    )
    made = board(slow, fast, entry("unknown", 0.5))
    best = {row.name: cell(made, row, "latency_p50_seconds").best for row in made.rows}
    assert best == {"slow": False, "fast": True, "unknown": False}
    assert fast.run is not None
    elsewhere = dataclasses.replace(fast.run, machine={"cores": 64})
    made = board(slow, dataclasses.replace(fast, run=elsewhere))
    assert not any(cell(made, row, "latency_p50_seconds").best for row in made.rows)
    assert "machines differ: latencies are not compared." in made.notes


def test_the_order_of_the_arguments_changes_nothing() -> None:
    several = [entry(f"m{number}", 0.5 + number / 1000) for number in range(5)]
    assert board(*several) == board(*several[::-1])


def test_notes() -> None:
    other = dataclasses.replace(PROFILE, pooling="mean")
    notes = board(
        entry("a", 0.5, profile=PROFILE, data_revision="r1", notes=("rounded",)),
        entry("b", 0.4, profile=other, data_revision="r2", notes=("rounded",)),
    ).notes
    for start in ("scores: plain means", "rank 95 %: best and worst rank", "ties: models that share a letter"):
        assert any(line.startswith(start) for line in notes)
    assert any("as many queries as the task has" in line for line in notes)
    assert "data revisions differ: a difference may be the data's." in notes
    assert "profiles differ: a difference may be that of input or readout." in notes
    assert "a, b: rounded" in notes


def test_what_must_not_stand_in_one_table() -> None:
    real, made_up = entry("a", 0.5), entry("mini", 0.9, synthetic=True)
    with pytest.raises(ResultError, match="mini: scores of made-up data never stand beside MMEB-V2 scores"):
        board(real, made_up)
    alone = board(made_up, entry("mini 2", 0.8, synthetic=True))
    assert alone.synthetic
    assert "not MMEB-V2 scores" in alone.title
    assert [row.rank for row in alone.rows] == [1, 2]
    with pytest.raises(ResultError, match="b: scores of the first queries only"):
        board(real, entry("b", 0.9, limited=True))
    assert [(row.rank, row.unranked) for row in board(entry("b", 0.9, limited=True)).rows] == [
        (None, "first queries of each task only")
    ]


def test_other_editions_are_refused_or_marked() -> None:
    here, old = entry("a", 0.5), entry("old", 0.6, edition="v2.0.0")
    with pytest.raises(ResultError, match=r"old is of v2\.0\.0; up to 60 points"):
        board(here, old)
    with pytest.raises(ResultError, match=r"of edition v2\.0\.0, this leaderboard is of page-fixed; choose --edition"):
        board(old)
    made = board(here, old, allow_editions=True)
    assert [(row.name, row.other_edition) for row in made.rows] == [("old", True), ("a", False)]
    assert "† of another edition than page-fixed: old." in made.notes
    assert "| old † |" in render([made], "md")


def test_nothing_or_one_thing_twice() -> None:
    with pytest.raises(OptionError, match="nothing to rank"):
        board()
    with pytest.raises(OptionError, match="s: the same scores are named twice"):
        board(entry("a", 0.5), entry("a", 0.5))
    made = board(entry("a", 0.5, source="one (m)"), entry("a", 0.4, source="two (m)"))
    assert [row.name for row in made.rows] == ["one (m)", "two (m)"]


# Runs.


def made_run(folder: Path, scores: Mapping[str, NDArray[np.float64]], **changes: object) -> Path:
    results = [
        task_result(task, score=float(scores[task.name].mean()), num_queries=len(scores[task.name])) for task in TASKS
    ]
    results = [dataclasses.replace(one, metrics={**one.metrics, one.metric: one.score}) for one in results]
    write_run(folder, results, **changes)
    for name, values in scores.items():
        write_queries(folder, name, values.tolist(), range(len(values)))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The second is a little better than the first on every query; the third as good, but on other queries."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    first = {task.name: np.round(rng.random(6) * 0.9, 3) for task in TASKS}
    third = {name: values[::-1].copy() for name, values in first.items()}
    cost = {
        "queries": EncodeStats(items=10, reasoned=4, reasoning_tokens=30),
        "latency_seconds": {"queries": {"p50": 0.25, "p95": 0.5}},
    }
    return [
        made_run(folder / "first", first, **cost),
        made_run(folder / "second", {name: values + 0.005 for name, values in first.items()}),
        made_run(folder / "third", third, model_parameters=2_208_985_600),
    ]


def test_runs_are_resampled_query_by_query(runs: list[Path]) -> None:
    made = board(*(load_entry(path) for path in runs))
    assert [row.name for row in made.rows] == ["second", "first", "third"]
    by_name = {row.name: row for row in made.rows}
    assert cell(made, by_name["first"], "overall").value == pytest.approx(scores_mean(runs[0]), abs=1e-12)
    assert set(by_name["second"].ties).isdisjoint(by_name["first"].ties)  # better on every query
    assert set(by_name["third"].ties) & set(by_name["first"].ties)
    assert by_name["first"].rank_interval == (2, 3)
    assert any(line.startswith("all models: the queries themselves are resampled") for line in made.notes)
    assert not any("earlier release" in line for line in made.notes)


def scores_mean(folder: Path) -> float:
    scores = scores_of_run(folder)
    return float(np.mean([scores.tasks[task.name].metrics[task.metric] for task in TASKS]))


def test_what_a_run_cost(runs: list[Path]) -> None:
    made = board(*(load_entry(path) for path in runs))
    keys = ("parameters", "reasoning_rate", "rationale_tokens", "latency_p50_seconds", "latency_p95_seconds")
    costs = {row.name: [cell(made, row, key).value for key in keys] for row in made.rows}
    assert costs["first"] == [None, 0.4, 7.5, 0.25, 0.5]
    assert costs["third"] == [2_208_985_600, None, None, None, None]


def test_runs_without_queries_fall_back_to_the_bound_and_say_so(runs: list[Path], tmp_path: Path) -> None:
    whole_run(tmp_path / "files only")
    made = board(*(load_entry(path) for path in (runs[0], tmp_path / "files only")))
    assert any(line.startswith("files only: single queries are not known.") for line in made.notes)
    assert any(line.startswith("first: the queries themselves") for line in made.notes)


def test_queries_that_dont_fit_their_result(runs: list[Path], tmp_path: Path) -> None:
    folder = made_run(tmp_path / "odd", {task.name: np.array([0.0, 0.5]) for task in TASKS})
    write_queries(folder, "GQA", [0.0, 1.0])
    with pytest.raises(ResultError, match=r"queries of GQA have a mean of 0\.500000, its result says 0\.250000"):
        board(load_entry(folder))
    (folder / "queries" / "GQA.parquet").write_bytes(b"no parquet")
    assert "can't read" in refusal(folder)
    write_parquet(folder / "queries" / "GQA.parquet", pa.table({"query_id": ["q0", "q1"]}))
    assert "GQA.parquet is no table of queries (no score)" in refusal(folder)
    (folder / "queries" / "GQA.parquet").unlink()
    assert "GQA.parquet is missing" in refusal(folder)


def test_results_of_an_earlier_release_are_said_to_be(tmp_path: Path) -> None:
    names = {task.name: np.array([0.0, 1.0]) for task in TASKS}
    for name in ("a", "b"):
        made_run(tmp_path / name, names)
        for task in names:
            write_queries(tmp_path / name, task, [0.0, 1.0])
    notes = board(load_entry(tmp_path / "a"), load_entry(tmp_path / "b")).notes
    assert any(line.startswith("all models: results of an earlier release") for line in notes)


# Several tables.


def test_other_tasks_stand_in_a_table_of_their_own(runs: list[Path], tmp_path: Path) -> None:
    """Also those of a run that has some of the benchmark's, too, and whatever edition an older release wrote."""
    captions = {"captions": 0.5, "b": 0.75, "c": 0.25}
    entries = [
        load_entry(runs[0]),
        load_entry(own_run(tmp_path / "one", captions, edition="")),
        load_entry(own_run(tmp_path / "two", {**captions, "b": 0.5}, edition="page-fixed")),
        load_entry(own_run(tmp_path / "part", {"b": 0.9})),
        load_entry(own_run(tmp_path / "made up", {"b": 0.9}, data="a world", data_synthetic=True)),
        load_entry(own_run(tmp_path / "older", {"b": 0.9}, data="MMEB-V2")),
    ]
    benchmark, older, mine, world = leaderboards(entries)
    assert [board.title for board in (benchmark, older, mine, world)] == [
        *("MMEB-V2, edition page-fixed", "Tasks that are not MMEB-V2's", "my pages", "a world, synthetic")
    ]
    assert [row.name for row in benchmark.rows] == ["first"]
    assert [(row.name, row.rank, row.unranked) for row in mine.rows] == [
        *(("one", 1, ""), ("two", 2, ""), ("part", None, "1 of 3 tasks, without captions, c"))
    ]
    assert [column.title for column in mine.columns][:5] == ["All", "Mine", "captions", "b", "c"]
    assert [cell(mine, mine.rows[0], key).value for key in ("overall", "Mine", "captions (task)", "b")] == [
        *(0.5, 0.5, 0.5, 0.75)
    ]
    assert [cell(mine, row, "b").best for row in mine.ranked] == [True, False]
    assert [cell(mine, row, "c").best for row in mine.ranked] == [False, False]
    assert mine.notes[0] == "scores: plain means over tasks of hit@1, in %."
    assert not [note for note in mine.notes if "edition" in note]
    text = render([mine, world], "md")
    assert "MMEB" not in text.replace(str(tmp_path), "")
    unknown = entry("stranger", 0.5, without=[task.name for task in TASKS]).scores
    unknown = dataclasses.replace(unknown, tasks={"nobody's": TaskScore({"hit@1": 0.5})})
    with pytest.raises(ResultError, match="stranger: no installed package has its tasks"):
        leaderboards([Entry(unknown)])


def test_every_edition_has_a_table_and_made_up_data_too() -> None:
    entries = [
        *(entry("a", 0.5), entry("b", 0.6), entry("old", 0.6, edition="v2.0.0"), entry("older", 0.1, edition="v2.0.1")),
        entry("mini", 0.9, synthetic=True),
    ]
    made = leaderboards(entries)
    assert [(board.edition, board.synthetic, [row.name for row in board.rows]) for board in made] == [
        *(("page-fixed", False, ["b", "a"]), ("v2.0.0", False, ["old"]), ("v2.0.1", False, ["older"])),
        ("page-fixed", True, ["mini"]),
    ]
    (marked,) = leaderboards(entries[:4], allow_editions=True)
    assert [row.other_edition for row in marked.rows] == [False, True, False, True]
    assert [board.edition for board in leaderboards(entries[:3], editions=["v2.0.0", "page-fixed"])] == [
        *("v2.0.0", "page-fixed")
    ]
    with pytest.raises(ResultError, match=r"older: of edition v2\.0\.1, this leaderboard is of page-fixed, v2\.0\.0;"):
        leaderboards(entries, editions=["page-fixed", "v2.0.0"])


def test_several_tables_in_all_formats(tmp_path: Path) -> None:
    made = leaderboards([entry("a", 0.5), entry("b", 0.6, edition="v2.0.0")])
    for wanted in SUFFIXES.values():
        text = render(made, wanted)
        assert text.count("edition page-fixed") >= 1, wanted
        assert text.count("edition v2.0.0") >= 1, wanted
        alone = render(made[:1], wanted)
        assert wanted in ("csv", "json") or text.startswith(alone.rstrip("\n")), wanted
    rows = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    assert [(row["table"], row["model"]) for row in rows] == [(board.title, board.rows[0].name) for board in made]
    values = json.loads(render(made, "json"))
    assert (values["rows"][0]["name"], values["further_tables"][0]["rows"][0]["name"]) == ("a", "b")
    labels = re.findall(r"\\label\{(.*?)\}", render(made, "latex"))
    assert len(set(labels)) == len(labels) == render(made, "latex").count(r"\caption")
    assert labels[:3] == ["tab:leaderboard", "tab:leaderboard-groups", "tab:leaderboard-data-and-profiles"]
    done = call("--all-published", "--edition", "page-fixed", "--edition", "v2.0.0", "--output", tmp_path / "b.md")
    assert done.output == f"36 ranked, 0 not, 2 tables: {tmp_path / 'b.md'}\n"


# Names and sizes.


def test_labels(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs[0].parent)
    (odd := tmp_path / "lr=1e-4").symlink_to(runs[1])
    arguments = ["first", odd, "--published", "Embed-RL-2B", "--format", "csv"]
    labels = ["./first=Ours, direct", f"{odd}=a=b", "Embed-RL-2B= Theirs"]
    done = call(*arguments, *itertools.chain.from_iterable(("--label", label) for label in labels))
    assert [row["model"] for row in csv.DictReader(io.StringIO(done.output))] == ["Theirs", "a=b", "Ours, direct"]
    columns = [entry(name, 0.5).scores for name in ("first", "second", "Embed-RL-2B", "twin", "twin")]
    cases = {
        ("first",): "--label first: write RUN=NAME",
        ("first=",): "write RUN=NAME",
        ("=x",): "write RUN=NAME",
        ("fist=Ours",): "no run named 'fist'. Did you mean 'first'?",
        ("third=Ours",): "no run named 'third'.",
        ("twin=Ours",): "2 of these are named 'twin'; name the folder",
        ("first=Embed-RL-2B",): "another one is called 'Embed-RL-2B', too; give each its own name",
        ("first=x", "first=y"): "first is to be 'x' and 'y'; label it once",
        ("first=x", f"{odd}=x"): "another one is called 'x', too",
    }
    for wanted, message in cases.items():
        with pytest.raises(HarnessError) as caught:
            labelled(columns, [Path("first"), odd], wanted)
        assert message in str(caught.value), wanted
        assert "\n" not in str(caught.value)


def test_sizes_of_published_models_are_shown_where_somebody_says_them() -> None:
    of_v2 = load_published(PUBLISHED_FILES[0])
    sizes, names = published_sizes(), {scores.name.partition("@")[0] for scores in of_v2}
    assert set(sizes) <= names
    unknown = {"DME-Large", "LamRA-Ret", "LamRA-Ret-Qwen2.5VL-7b", "Octen-VL-Large", "QQMM-embed-v4"}
    assert names - set(sizes) == unknown | {"Seed-1.6-embedding-1215"}
    assert sizes["GME-2B"] == sizes["gme-Qwen2-VL-2B-Instruct"] == 2_208_985_600
    with SIZES_FILE.open(newline="") as file:
        assert all(row["source"] and int(row["parameters"]) > 10**9 for row in csv.DictReader(file))
    rows = json.loads(
        call("--published", "Qwen3-VL-Embedding-8B", "--published", "DME-Small", "--format", "json").output
    )
    place = [column["key"] for column in rows["columns"]].index("parameters")
    assert [row["cells"][place]["value"] for row in rows["rows"]] == [8_144_793_840, 2_000_000_000]
    assert any(line.endswith("rounded there: DME-Small.") for line in rows["notes"])


# Formats.


@pytest.fixture(scope="module")
def hostile() -> Leaderboard:
    run = run_result(
        [],
        model_parameters=1_000,
        queries=EncodeStats(items=2, reasoned=1, reasoning_tokens=7),
        latency_seconds={"queries": {"p50": 0.1, "p95": 0.2}},
    )
    return board(
        entry(HOSTILE, 0.61234567890123, run=run, data_revision=HOSTILE, notes=(HOSTILE,)),
        entry("plain", 0.5),
        entry("part", 0.7, without=["GQA"]),
        with_tasks=True,
    )


SHOWN = "a|b_&%$#{}~^\\<b>*x*</b>`c`[l](u)\"q'\ufffd[31m\ufffd next,=1+1"


def test_csv_is_read_back_at_full_precision(hostile: Leaderboard) -> None:
    rows = list(csv.DictReader(io.StringIO(render([hostile], "csv"))))
    assert [(row["model"], row["rank"], row["rank_low"], row["rank_high"]) for row in rows] == [
        *((SHOWN, "1", "1", "1"), ("plain", "2", "2", "2"), ("part", "", "", ""))
    ]
    assert float(rows[0]["overall"]) == cell(hostile, hostile.rows[0], "overall").value
    assert rows[0]["latency_p50_seconds"] == "0.1"
    assert rows[1]["latency_p50_seconds"] == ""
    assert rows[2]["unranked"] == "77 of 78 tasks, without GQA"
    assert set(rows[0]) >= {task.name for task in TASKS}


def test_json_holds_everything(hostile: Leaderboard) -> None:
    values = json.loads(render([hostile], "json"))
    assert values.pop("schema_version") == 1
    told = dataclasses.asdict(hostile)
    del told["part_of"]  # which group is of which modality isn't a score's business
    assert values == json.loads(json.dumps(told))
    assert values["rows"][0]["name"] == SHOWN


class Tags(HTMLParser):
    """Every tag that was met."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_well_formed_and_asks_for_nothing(hostile: Leaderboard) -> None:
    """What its script makes of it: see test_page_browser."""
    text = board_page([hostile])
    read = Tags()
    read.feed(text)
    assert read.open == []
    assert set(read.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "div", "p", "ul", "a", "header", "footer"),
        *("nav", "noscript", "script"),
    }
    assert not re.search(r"https?:|src=|url\(|@import", text)
    summary = re.search(r'<script type="application/json" id="summary">(.*?)</script>', text)
    assert summary
    assert not set("<>&") & set(summary.group(1))
    (table,) = json.loads(summary.group(1))["tables"]
    assert [(row["name"], row["rank"]) for row in table["rows"]] == [(SHOWN, 1), ("plain", 2), ("part", None)]
    keys = [column["key"] for column in table["columns"]]
    first = dict(zip(keys, table["rows"][0]["cells"], strict=True))
    assert first["overall"] == {"value": cell(hostile, hostile.rows[0], "overall").value, "text": "61.2", "best": True}
    assert first["latency_p50_seconds"]["text"] == "100"
    part_of = {column["key"]: column["part_of"] for column in table["columns"]}
    assert (part_of["OK-VQA"], part_of["I-QA"], part_of["image"], part_of["edition"]) == ("I-QA", "image", "", "")
    assert len(text) < 120_000


def markdown_rows(text: str) -> list[list[str]]:
    return [
        [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]


def test_markdown_tables_hold_together(hostile: Leaderboard) -> None:
    text = render([hostile], "md")
    rows = markdown_rows(text)
    assert {len(row) for row in rows[:4]} == {len(rows[0])}
    first = dict(zip(rows[0], rows[2], strict=True))
    assert first["All"] == "**61.2**"
    assert "<b>" not in text
    plain = re.sub(r"\\([\\`*_{}\[\]#|~$@!])", r"\1", first["model"])
    assert plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == SHOWN
    assert dict(zip(rows[0], rows[3], strict=True))["All"] == "50.0"


def test_latex_is_balanced_and_escaped(hostile: Leaderboard) -> None:
    text = render([hostile], "latex")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert depth(body) == 0
    assert re.findall(r"\\begin\{(\w+)\}", body).count("table") == body.count(r"\end{table}") == 6
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", body):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert r"\textbf{61.2}" in body
    assert r"\textbf{50.0}" not in body
    # Every special character is one of ours: alignment, a comment that swallows a line's end, or escaped.
    assert not re.search(r"(?<!\\)[#$~^_]", body)
    assert all(line.endswith("%") for line in body.splitlines() if re.search(r"(?<!\\)%", line))
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", body, re.DOTALL):
        kinds, lines = table
        for line in lines.splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(kinds) - 1
    assert r"a\textbar{}b\_\&\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}b" in body
    for line in ("booktabs", "graphicx"):
        assert line in text.splitlines()[0]


def depth(latex: str) -> int:
    """Braces that are left open; never fewer than none."""
    count = 0
    for brace in re.findall(r"\\[\\{}]|[{}]", latex):
        count += {"{": 1, "}": -1}.get(brace, 0)
        assert count >= 0
    return count


def test_a_terminal_shows_names_and_never_obeys_them(hostile: Leaderboard) -> None:
    text = render([hostile], "terminal")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert SHOWN in text
    assert " 61.2 " in text
    assert "not ranked" in text.lower()


@pytest.mark.parametrize("width", [60, 100, 200])
def test_a_terminal_of_any_width_shows_all_numbers_whole(width: int) -> None:
    made = board(entry("m" * 40, 0.61234), entry("n" * 300, 0.5), with_tasks=True)
    file = io.StringIO()
    print_boards([made], Console(file=file, width=width))
    text = file.getvalue().split("\nscores: ")[0]
    assert max(map(len, text.splitlines())) <= width
    assert text.count("61.2") == 1 + 3 + 12 + 78
    assert text.count("n" * 20) > 5


def test_best_values_are_bold_in_a_terminal() -> None:
    file = io.StringIO()
    print_boards([board(entry("a", 0.61234), entry("b", 0.5))], Console(file=file, width=200, force_terminal=True))
    assert "\x1b[1m61.2\x1b[0m" in file.getvalue()
    assert "\x1b[1m50.0" not in file.getvalue()


# The command.


def test_formats_by_suffix_or_name(tmp_path: Path) -> None:
    save_scores(tmp_path / "a.json", entry("a", 0.5).scores)
    for suffix, wanted in FORMAT_OF.items():
        file = tmp_path / "out" / f"board{suffix}"
        done = call(tmp_path / "a.json", "--published", "Embed-RL-2B", "--output", file)
        assert done.exit_code == 0, done.output
        assert done.output == f"2 ranked, 0 not: {file}\n"
        printed = call(tmp_path / "a.json", "--published", "Embed-RL-2B", "--format", wanted).output
        assert file.read_text() == printed
    assert set(FORMATS) == set(FORMAT_OF.values()) == {*Format.__args__, "html"}  # type: ignore[attr-defined]


def test_all_published_models_of_an_edition_once() -> None:
    names = [one.name for one in all_published(load_published(), "page-fixed")]
    assert len(names) == len(set(names)) == 27
    assert {"Qwen3-VL-Embedding-8B", "VLM2Vec-V2.0-Qwen2VL-2B", "Seed-1.6-embedding-1215"} <= set(names)
    assert not [name for name in names if "@" in name or name in ("VLM2Vec-V2", "GME-2B")]
    old = [one.name for one in all_published(load_published(), "v2.0.0")]
    assert {"IFM-TTE-8B", "colpali-v1.3@v2.0.0"} <= set(old)


def test_experiments_of_mmeb_v3_are_rows_of_their_own() -> None:
    """No row is mixed of two of them; what can't be ranked together is in tables of its own."""
    board, unfixed = (
        json.loads(call("--all-published", "--edition", edition, "--format", "json").output)
        for edition in ("v3", "v3-unfixed")
    )
    assert {row["name"]: row["tasks"] for row in board["rows"]} == {
        "Omni-Embed-Nemotron-3B@v3-kit": 190,
        "Qwen3-VL-Embedding-2B@v3-kit": 179,
        "Qwen3-VL-Embedding-8B@v3-kit": 179,
        "VLM2Vec-Qwen2VL-7B@v3-paper": 179,
        "VLM2Vec-V2.0-2B@v3-paper": 179,
        "Omni-Embed-Nemotron-3B@v3-rerun": 11,
    }
    assert {row["name"].rpartition("@")[2] for row in unfixed["rows"]} == {"v3-paper"}
    assert [note for note in board["notes"] if "its MCMR was not reproduced" in note]
    with pytest.raises(ResultError, match=r"@v3-paper is of v3-unfixed, .*@v3-kit is of v3; up to 60 points"):
        compare(published=[f"Qwen3-VL-Embedding-8B@{kind}" for kind in ("v3-paper", "v3-kit")])


def test_published_means_alone_have_the_columns_that_somebody_fills() -> None:
    """The official leaderboard's means are ranked by its overall, which isn't that of papers."""
    board = json.loads(call("--all-published", "--edition", "v3-board", "--format", "json").output)
    keys = [column["key"] for column in board["columns"] if column["block"] in ("overall", "groups")]
    assert keys == ["Overall-189", "Overall-111", "audio", "text hit@1", "agent"]
    assert (board["rows"][0]["name"], len(board["rows"])) == ("Tianmu-Emb-Uni@v3-board", 13)


def test_neighbours_on_the_published_leaderboard() -> None:
    """What the intervals say of the published scores: by All 11 of 26 neighbouring pairs can't be told apart."""
    done = call("--all-published", "--format", "json")
    rows = json.loads(done.output)["rows"]
    assert [row["rank"] for row in rows] == list(range(1, 28))
    overlapping = [
        (better["name"], worse["name"])
        for better, worse in itertools.pairwise(rows)
        if better["rank_interval"][1] >= worse["rank_interval"][0]
    ]
    assert overlapping == [
        ("WeMM-Embedding-9B", "DME-Large"),
        ("DME-Large", "Octen-VL-Large"),
        ("WeMM-Embedding-4B", "DME-Medium"),
        ("DME-Medium", "QQMM-embed-v4"),
        ("QQMM-embed-v4", "WeMM-Embedding-2B"),
        ("WeMM-Embedding-2B", "Qwen3-VL-Embedding-8B"),
        ("Qwen3-VL-Embedding-2B", "RzenEmbed-8B"),
        ("UEmbed-9B", "MMEmb-R1-4B"),
        ("Embed-RL-2B", "UEmbed-2B"),
        ("VLM2Vec-V2.0-Qwen2VL-2B", "gme-Qwen2-VL-7B-Instruct"),
        ("LamRA-Ret-Qwen2.5VL-7b", "VLM2Vec-V1-Qwen2VL-2B"),
    ]
    for edition in ("v2.0.0", "v2.0.1"):
        assert call("--all-published", "--edition", edition, "--format", "csv").exit_code == 0


def test_the_readme_shows_what_the_command_prints() -> None:
    found = re.search(
        r"<!-- output of: mmeb-eval leaderboard (.*?) -->\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert found
    printed = [line.rstrip() for line in call(*found.group(1).split()).output.splitlines()]
    assert found.group(2).splitlines() == printed


def test_a_run_that_still_goes_or_isnt_one(tmp_path: Path) -> None:
    whole_run(tmp_path / "going", status="running")
    assert "is not finished (status 'running')" in refusal(tmp_path / "going")
    (tmp_path / "empty").mkdir()
    assert "is not a run's folder" in refusal(tmp_path / "empty")
    (tmp_path / "broken.json").write_text("{")
    assert "is not valid JSON" in refusal(tmp_path / "broken.json")
    (tmp_path / "foreign.json").write_text("[1]")
    assert "is not a scores file of this harness" in refusal(tmp_path / "foreign.json")


def test_outputs_and_options_that_cant_be(tmp_path: Path) -> None:
    scores = tmp_path / "a.json"
    save_scores(scores, entry("a", 0.5).scores)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.md").mkdir()
    cases: list[tuple[list[object], str]] = [
        ([], "nothing to rank"),
        ([scores, "--output", "board.xlsx"], "no format has the suffix '.xlsx'; use .md, .tex, .csv"),
        ([scores, "--output", "b.md", "--format", "csv"], "--output b.md and --format csv disagree"),
        ([scores, "--output", scores], "would overwrite"),
        ([scores, "--output", tmp_path / "file" / "b.md"], "can't write"),
        ([scores, "--output", tmp_path / "folder.md"], "can't write"),
        ([scores, "--edition", "v4"], "no edition named 'v4'"),
        (["--all-published", "--edition", "v4"], "no edition named 'v4'"),
        ([scores, scores], "the same scores are named twice"),
        (["--published", "Embed-RL2B"], "no published model named 'Embed-RL2B'. Did you mean 'Embed-RL-2B'?"),
        (["--all-published", "--published-file", "nowhere.csv"], "can't read published scores nowhere.csv"),
    ]
    for arguments, message in cases:
        assert message in refusal(*arguments), arguments
    assert call(scores, "--format", "pdf").exit_code == 2
