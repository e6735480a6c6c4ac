"""`mmeb-eval`: tasks, models, check; each other file here adds a group of commands.

Turns options into values and errors into one line; decides nothing else.

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness.cli.bench import bench
from mmeb_harness.cli.cache import cache
from mmeb_harness.cli.completion import complete_values
from mmeb_harness.cli.data import data
from mmeb_harness.cli.leaderboard import leaderboard
from mmeb_harness.cli.new import new
from mmeb_harness.cli.options import PATH, model_options, print_table, selection_options
from mmeb_harness.cli.page import report
from mmeb_harness.cli.run import merge, run, show
from mmeb_harness.cli.scores import COMMANDS
from mmeb_harness.core.entry import run_command
from mmeb_harness.core.environment import __version__
from mmeb_harness.core.errors import OptionError, counted
from mmeb_harness.core.terminal import say

if TYPE_CHECKING:
    from mmeb_harness.core.items import Role
    from mmeb_harness.core.registry import RegisteredTask


def main() -> None:
    """Run `mmeb-eval` with the arguments of this process, and exit."""
    run_command(cli)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mmeb-eval")
def cli() -> None:
    """Evaluate multimodal embedding models on MMEB-V2 and MMEB-V3: accuracy, reasoning rate, latency."""


for command in (run, show, merge, data, *COMMANDS, leaderboard, report, cache, bench, new):
    cli.add_command(command)


@cli.command()
@selection_options
def tasks(edition: str | None, **choice: Any) -> None:
    """List the registered tasks, and which can't be used, and why."""
    from mmeb_harness.core.registry import select_tasks, survey_tasks

    survey = survey_tasks(edition)
    everything = survey.tasks.values()
    chosen = select_tasks(survey.tasks, **choice, problems=survey.problems) if any(choice.values()) else everything
    print_table(
        ("task", "modality", "group", "metric", "queries", "candidates", "split", "source"),
        [_task_row(standing) for standing in chosen],
    )
    for problem in survey.problems:
        say(f"can't be used: {problem}", err=True)


@cli.command()
def models() -> None:
    """List the registered models."""
    from mmeb_harness.core.registry import model_summaries

    print_table(("model", "package", "what it is"), model_summaries())


@cli.command()
@click.argument("model", required=False)
@click.option("--data", type=PATH, metavar="FOLDER", help="Check own data instead of a model.")
@model_options
def check(model: str | None, data: Path | None, **options: Any) -> None:
    """Test the adapter of MODEL (NAME, NAME:VALUE or FILE.py) offline, in seconds, on made-up items.

    Text, image, frames and mixed items; the same vectors in any batch, order and state; unit length, memory of its own;
    traces that can be, under --reasoning too; nothing printed or changed besides. docs/plugins.md has the list. Exit
    code 1 if any fails; MMEB_TRACEBACK=1 before the command shows the adapter's tracebacks.

    With --data: everything that is wrong with a folder of own data, with file and line, pictures opened.
    """
    import tempfile

    if (model is None) == (data is None):
        raise OptionError("check MODEL tests a model's adapter, check --data FOLDER own data; name one of the two")
    if data is not None:
        _check_data(data)
        return
    assert model is not None
    from mmeb_harness.api.asked import model_spec
    from mmeb_harness.api.config import RunConfig, make_config
    from mmeb_harness.encode.check import check_embedder

    config = make_config(RunConfig(), options)
    if len(config.reasoning) > 1:
        raise OptionError(f"--reasoning {','.join(config.reasoning)}: an adapter is checked in one mode; name one")
    embedder = model_spec(model, config.model_args, config).load()
    modes: dict[Role, str | None] = {"query": config.mode, "candidate": config.candidate_reasoning}
    failed, passed = 0, 0
    with tempfile.TemporaryDirectory(prefix="mmeb-check-") as folder:
        for outcome in check_embedder(embedder, Path(folder), modes):
            failed, passed = failed + (not outcome.passed), passed + outcome.passed
            say(f"{'ok  ' if outcome.passed else 'FAIL'}  {outcome.name:<20} {outcome.detail}")
    if failed:
        left = "" if passed else "; the others wait for items that it can embed"
        say(f"{model}: {counted(failed, 'check')} failed{left}")
        sys.exit(1)
    say(f"{model}: all checks passed")


complete_values(cli)


def _check_data(folder: Path) -> None:
    from mmeb_harness.api.own_data import check_folder_of_own_data

    failed = 0
    for data_set in check_folder_of_own_data(folder):
        for problem in data_set.problems:
            say(f"FAIL  {problem}")
        failed += len(data_set.problems)
        if not data_set.problems:
            say(f"ok    {data_set.summary}")
    say(f"{folder}: {failed:,} {'problem' if failed == 1 else 'problems'}" if failed else f"{folder}: all is well")
    if failed:
        sys.exit(1)


def _task_row(standing: RegisteredTask) -> tuple[str, ...]:
    task = standing.task
    return (
        task.name,
        task.modality,
        task.group,
        task.metric,
        _count(task.num_queries),
        _count(task.num_candidates),
        task.in_distribution or "-",
        task.source or standing.collection,
    )


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)
