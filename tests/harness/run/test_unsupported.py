"""A task that needs what a model doesn't take: neither read nor encoded, counted as the benchmark says, and named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmeb_harness import ModelError, load_run
from mmeb_harness.cli.run import show
from mmeb_harness.core.terminal import paper
from mmeb_harness.results.files import load_run_result
from mmeb_harness.results.outcome import Run
from mmeb_harness.results.scores import scores_of_run
from mmeb_harness.results.verify import verify_run
from mmeb_harness.run.plan import RunSettings, make_plan
from mmeb_harness.show.compare import compare, print_comparison
from mmeb_harness.show.contests import benchmark_tasks, load_entry
from mmeb_harness.show.leaderboard import leaderboard
from mmeb_harness.show.page.make import make_page
from mmeb_harness.spread.shards import shard_result
from mmeb_harness.spread.shares import Share
from tests.toy import HashEmbedder, evaluated, info_of, registered, toy_task, write_toy

TASKS = registered(
    dataclasses.replace(toy_task("text/a b/(read)"), edition="v3", modality="text", group="T-LONG"),
    dataclasses.replace(toy_task("MCMR"), edition="v3", media=("image",)),
    dataclasses.replace(toy_task("heard"), edition="v3", modality="audio", group="A-CLS", media=("audio",)),
    dataclasses.replace(toy_task("watched"), edition="v3", modality="audio", group="A-RET", media=("audio", "video")),
)
READ, SEEN, HEARD, WATCHED = TASKS


class Deaf(HashEmbedder):
    """Takes pictures and videos, as models do that don't say otherwise."""


class Listening(HashEmbedder):
    """Takes sounds, too."""

    def __init__(self) -> None:
        super().__init__(revision="2")
        self.info = dataclasses.replace(self.info, media=("image", "video", "audio"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Data of the tasks that are supported: who looks for the others fails."""
    for name in (READ, SEEN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_toy(tmp_path, name)
    return tmp_path


def run(data: Path, *names: str, model: HashEmbedder | None = None, fresh: bool = False) -> Run:
    settings = RunSettings(data / "run", edition="v3", fresh=fresh)
    chosen = [TASKS[name] for name in names or TASKS]
    evaluated(model or Deaf(), chosen, TASKS, info_of(data), settings)
    return load_run(data / "run")


def test_it_is_neither_read_nor_hidden(data: Path) -> None:
    done = run(data)
    assert list(done.scores) == [READ, SEEN]
    assert done.unsupported == {HEARD: ("audio",), WATCHED: ("audio",)}
    means = {mean.name: mean for mean in done.result.aggregates}
    two = sum(done.scores.values())
    assert (means["V3-All"].score, means["V3-All"].tasks, means["V3-All"].unsupported) == (two / 4, 4, 2)
    assert (means["audio"].score, means["audio"].complete, means["audio"].missing) == (0.0, True, ())
    assert means["text"].unsupported == 0
    assert means["V3-All"].rule
    assert done.table().loc[HEARD, "unsupported"] == "audio"
    assert "2 tasks, 2 unsupported, V3-All" in repr(done)
    assert [outcome.problems for outcome in verify_run(data / "run", TASKS)] == [[], [], []]
    printed = CliRunner().invoke(show, [str(data / "run"), "--tasks"]).output
    assert "unsupported by the model, neither read nor encoded: 2 tasks that need audio (heard, watched)" in printed
    assert "heard" in printed.partition("results:")[2]
    assert "2+2" in printed


def test_a_run_of_nothing_else_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'hash' can't be run on 2 tasks that need audio \(heard, watched\); choose"):
        run(tmp_path, HEARD, WATCHED)
    assert not (tmp_path / "run").exists()


def test_it_stays_part_of_a_run_that_goes_on_until_a_model_takes_it(data: Path) -> None:
    run(data, SEEN, HEARD)
    both = run(data, READ)
    assert (list(both.scores), list(both.unsupported)) == ([READ, SEEN], [HEARD])
    write_toy(data, HEARD)
    heard = run(data, READ, HEARD, model=Listening())
    assert (list(heard.scores), heard.unsupported) == ([READ, HEARD], {})
    assert "unsupported" not in json.loads((data / "run" / "run.json").read_text())


def test_shards_hand_it_on(data: Path) -> None:
    chosen = list(TASKS.values())
    plan = make_plan(chosen, TASKS, info_of(data), Deaf().info, RunSettings(data / "run", edition="v3"))
    shard = shard_result(Share(0, 2), plan, 1.0)
    assert set(shard.tasks) == {*TASKS}
    again = make_plan([TASKS[name] for name in TASKS], TASKS, info_of(data), shard.model, plan.settings)
    assert (again.unsupported, list(again.tasks)) == (plan.unsupported, [READ, SEEN])


def test_tables_say_it(data: Path) -> None:
    run(data)
    members = benchmark_tasks(TASKS)
    scores = scores_of_run(data / "run")
    compared = compare([scores], members, with_tasks=True)
    rows = {row.name: row.cells[0] for block in compared.blocks for row in block}
    assert (rows["audio"].unsupported, rows["text"].unsupported, rows["V3-All"].complete) == (True, False, True)
    with (data / "out.txt").open("w") as file:
        print_comparison(compared, paper(file, 200))
    assert "unsupported: 2 tasks that need audio (heard, watched)" in (data / "out.txt").read_text()
    board = leaderboard([load_entry(data / "run")], TASKS, edition="v3", with_tasks=True)
    assert board.rows[0].rank == 1
    values = dict(zip((column.key for column in board.columns), board.rows[0].cells, strict=True))
    assert values["audio"].value == values[HEARD].value == values[WATCHED].value == "unsupported"
    assert isinstance(values["V3-All"].value, float)
    assert any(
        "unsupported by the model: 2 tasks that need audio (heard, watched), which count 0" in note
        for note in board.notes
    )


def test_a_page_says_it(data: Path) -> None:
    run(data)
    summary = make_page([data / "run"], data / "page.html", thumbnails=0)
    (card,) = summary.runs
    assert card.unsupported == {HEARD: ("audio",), WATCHED: ("audio",)}
    assert "unsupported: 2 tasks that need audio (heard, watched)" in card.marks
    assert any("unsupported by the model, neither read nor encoded: 2 tasks" in line for line in summary.remarks)
    assert (summary.overall, summary.rules[0].partition(":")[0]) == ("V3-All", "V3-All")
    assert '"unsupported":{"heard":["audio"],"watched":["audio"]}' in (data / "page.html").read_text()


def test_of_tasks_that_are_no_benchmarks_it_is_no_part_of_a_mean(data: Path) -> None:
    own = registered(*(dataclasses.replace(row.task, edition="") for row in TASKS.values()))
    evaluated(Deaf(), list(own.values()), own, info_of(data), RunSettings(data / "run"))
    done = load_run_result(data / "run" / "run.json")
    assert list(done.unsupported) == [HEARD, WATCHED]
    assert done.overall is not None
    assert (done.overall.name, done.overall.tasks, done.overall.missing) == ("overall", 2, (HEARD, WATCHED))
