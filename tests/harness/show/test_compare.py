"""Scores side by side: the right rows, differences only between whole means, and the marks that must stand there."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mmeb_harness import HarnessError
from mmeb_harness.cli.scores import COMMANDS
from mmeb_harness.core.registry import load_tasks
from mmeb_harness.ranking.metrics import METRIC_NAMES
from mmeb_harness.results.published import find_published, load_published
from mmeb_harness.results.scores import Scores, TaskScore, save_scores, scores_of_run
from mmeb_harness.show import contests
from mmeb_harness.show.compare import Cell, compare, describe, remarks
from tests.harness.made_runs import PROFILE, benchmark_tasks, mini_run, own_run, task_result, whole_run, write_run

REGISTERED = load_tasks()
TASKS = contests.benchmark_tasks(REGISTERED)
GROUPS = [
    *("I-CLS", "I-QA", "I-RET", "I-VG", "V-CLS", "V-QA", "V-RET", "M-RET"),
    *("ViDoRe-V1", "ViDoRe-V2", "VisRAG", "VisDoc-OOD"),
]


@click.group()
def cli() -> None:
    """The commands, as `mmeb-eval` would hold them."""


for command in COMMANDS:
    cli.add_command(command)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments], env={"COLUMNS": "160"})


def refusal(result: Result) -> str:
    assert isinstance(result.exception, HarnessError), result.output
    assert result.exception.exit_code == 2
    return str(result.exception)


def constant(name: str, score: float, *, without: tuple[str, ...] = (), **changes: object) -> Scores:
    tasks = {
        task.name: TaskScore(dict.fromkeys(METRIC_NAMES, score), task.num_queries)
        for task in benchmark_tasks()
        if task.name not in without
    }
    return dataclasses.replace(Scores(name, "page-fixed", "imported", "s", tasks), **changes)  # type: ignore[arg-type]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("│")]


def row(printed: str, name: str) -> list[str]:
    return next(cells(line)[1:] for line in printed.splitlines() if re.match(rf"{re.escape(name)} +│", line))


def test_rows_and_differences_in_points() -> None:
    comparison = compare([constant("a", 0.5), constant("b", 0.525)], TASKS)
    assert [[row.name for row in block] for block in comparison.blocks] == [
        *(GROUPS, ["image", "video", "visdoc"], ["overall"])
    ]
    for block in comparison.blocks:
        for row in block:
            reference, other = row.cells
            assert (reference.score, reference.difference) == (pytest.approx(0.5), None)
            assert other.difference == pytest.approx(2.5)


def test_an_incomplete_mean_is_never_compared() -> None:
    whole, part = constant("a", 0.5), constant("b", 0.6, without=("GQA", "OVEN"))
    for columns in ([whole, part], [part, whole]):
        comparison = compare(columns, TASKS)
        by_name = {row.name: row.cells[1].difference for block in comparison.blocks for row in block}
        assert {name for name, difference in by_name.items() if difference is None} == {
            *("I-QA", "I-RET", "image", "overall")
        }
    assert next(row for row in comparison.blocks[0] if row.name == "I-QA").cells[0] == Cell(
        pytest.approx(0.6), 9, 10, None
    )


def test_tasks_too() -> None:
    columns = [constant("a", 0.5, without=("GQA",)), constant("b", 0.6)]
    tasks = compare(columns, TASKS, with_tasks=True).blocks[0]
    assert [row.name for row in tasks] == [task.name for task in benchmark_tasks()]
    by_name = {row.name: row.cells for row in tasks}
    assert by_name["GQA"] == (Cell(None, 0, 1), Cell(0.6, 1, 1))
    assert by_name["OVEN"][1].difference == pytest.approx(10)


def test_what_is_said_of_a_column() -> None:
    scores = constant(
        *("a", 0.5),
        without=("GQA",),
        synthetic=True,
        limited=True,
        profile=PROFILE,
        data_revision="r1",
        notes=("note",),
    )
    first, source, profile, note = describe(scores, 1, compare([scores], TASKS))
    assert first == (
        "[1] a: edition page-fixed; data revision r1; synthetic; limited to the first queries of each task; "
        "incomplete: 77 of 78 tasks"
    )
    assert (source, note) == ("    imported: s", "    note")
    assert profile.startswith("    profile made: instruction unstated; ")
    plain = constant("b", 0.5)
    assert describe(plain, 1, compare([plain], TASKS)) == [
        *("[1] b: edition page-fixed; data revision unstated", "    imported: s", "    profile unstated")
    ]


def test_what_makes_a_comparison_doubtful() -> None:
    plain = constant("a", 0.5, data_revision="r1", profile=PROFILE)
    assert remarks([plain, constant("b", 0.5)]) == []
    other = dataclasses.replace(PROFILE, pooling="mean")
    odd = constant("c", 0.5, edition="v2.0.0", data_revision="r2", profile=other)
    assert [line.split(":")[0] for line in remarks([plain, odd])] == [
        *("editions differ", "data revisions differ", "profiles differ")
    ]


def test_runs_imported_scores_and_published_ones(tmp_path: Path) -> None:
    whole_run(tmp_path / "one")
    save_scores(tmp_path / "two.json", dataclasses.replace(scores_of_run(tmp_path / "one"), name="two"))
    write_run(tmp_path / "three", [task_result(task) for task in benchmark_tasks()[1:]])
    done = call(
        *("compare", tmp_path / "one", tmp_path / "two.json", tmp_path / "three"),
        *("--published", "Embed-RL-2B", "--published", "GME-2B"),
    )
    assert done.exit_code == 0, done.output
    for text in ("[1] one: ", "[2] two: ", "[3] three: ", "[4] Embed-RL-2B: ", "[5] GME-2B: ", "profile made: "):
        assert text in done.output
    assert "incomplete: 77 of 78 tasks" in done.output
    overall = row(done.output, "overall")
    assert overall[1:5] == [overall[0], "0.0", "77 of 78", ""]
    embed = find_published(load_published(), "Embed-RL-2B")
    assert overall[5] == "66.8"
    assert float(overall[6]) == pytest.approx(66.8 - float(overall[0]), abs=0.11)
    assert overall[7] == "55.3"
    assert row(done.output, "V-CLS")[3] == row(done.output, "V-CLS")[0]
    assert embed.tasks["GQA"].num_queries is None


def test_tasks_are_printed_if_asked_for(tmp_path: Path) -> None:
    whole_run(tmp_path / "one")
    done = call("compare", tmp_path / "one", "--published", "Embed-RL-2B", "--published", "GME-2B", "--tasks-too")
    assert done.exit_code == 0, done.output
    assert row(done.output, "GQA")[3:] == ["-", ""]
    assert all(row(done.output, task.name) for task in benchmark_tasks())
    assert not [line for line in call("compare", tmp_path / "one").output.splitlines() if line.startswith("GQA")]


def test_other_tasks_are_compared_and_nothing_is_said_of_the_benchmark(tmp_path: Path) -> None:
    one, two = (own_run(tmp_path / name, {"a": score, "b": 0.5}) for name, score in (("one", 0.5), ("two", 0.75)))
    done = call("compare", one, two, "--label", "two=Ours")
    assert done.exit_code == 0, done.output
    shown = [cells(line) for line in done.stdout.splitlines() if "│" in line]
    assert shown == [["a", "50.0", "75.0", "+25.0"], ["b", "50.0", "50.0", "0.0"]]
    assert "[2] Ours: edition page-fixed; data revision my pages hub-2026\n" in done.stdout
    assert "of 78" not in done.stdout
    mixed = call("compare", write_all(tmp_path / "whole"), two)
    assert [cells(line)[0] for line in mixed.stdout.splitlines() if "│" in line][-3:] == ["overall", "a", "b"]


def write_all(folder: Path) -> Path:
    whole_run(folder)
    return folder


def test_editions_are_compared_only_if_asked_for(tmp_path: Path) -> None:
    whole_run(tmp_path / "one")
    arguments = ("compare", tmp_path / "one", "--published", "VLM2Vec-V2.0-Qwen2VL-2B@v2.0.0")
    assert "go on with --allow-editions" in refusal(call(*arguments))
    done = call(*arguments, "--allow-editions")
    assert done.exit_code == 0
    assert "editions differ: ViDoSeek-page, MMLongBench-page and MomentSeeker are not the same tasks." in done.output


def test_synthetic_runs_are_compared_only_with_their_like(cache: Path, tmp_path: Path) -> None:
    for model in ("random", "bag_of_features"):
        mini_run(cache, tmp_path / model, ["OK-VQA", "HMDB51"], model)
    done = call("compare", tmp_path / "random", tmp_path / "bag_of_features", "--tasks-too")
    assert done.exit_code == 0, done.output
    assert done.output.count("; synthetic") == 2
    assert row(done.output, "I-QA") == ["1 of 10", "1 of 10", ""]
    assert row(done.output, "OK-VQA")[2]
    assert "never stand beside MMEB-V2 scores" in refusal(
        call("compare", tmp_path / "random", "--published", "Embed-RL-2B")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare"], "nothing to compare; name a run's folder, a scores file, or a --published model"),
        (
            ["compare", "--published", "Embed-RL2B"],
            "no published model named 'Embed-RL2B'. Did you mean 'Embed-RL-2B'?",
        ),
        (["compare", "--published", "x", "--published-file", "nowhere.csv"], "can't read published scores nowhere.csv"),
        (["compare", "nowhere"], "can't read nowhere"),
        (["verify", "nowhere"], "nowhere is not a run's folder"),
        (["export", "nowhere", "--trec", "out"], "nowhere is not a run's folder"),
        (["import", "nowhere"], "can't read nowhere"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments: list[str], message: str) -> None:
    told = refusal(call(*arguments))
    assert message in told
    assert "\n" not in told


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mmeb_harness.cli.scores import COMMANDS\n"
        "for command in COMMANDS:\n    command.main(['--help'], standalone_mode=False)\n"
        "assert not {'torch', 'pyarrow', 'rich', 'faiss', 'pandas'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    assert [command.name for command in COMMANDS] == ["submit", "import", "export", "verify", "compare", "plot"]
