"""`mmeb-eval`: run, tasks, models, check; further commands are added from cli_data, cli_scores,
cli_leaderboard, cli_page and cli_bench.

Turns options into values and errors into one line; decides nothing else.

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness import __version__
from mmeb_harness.cli_bench import bench
from mmeb_harness.cli_data import data
from mmeb_harness.cli_leaderboard import leaderboard
from mmeb_harness.cli_options import (
    DEFAULT_MODEL,
    check_folder,
    model_choices,
    model_options,
    open_data,
    print_table,
    selection_options,
)
from mmeb_harness.cli_page import report
from mmeb_harness.cli_scores import COMMANDS
from mmeb_harness.entry import run_command

if TYPE_CHECKING:
    from mmeb_harness.config import RunConfig
    from mmeb_harness.data import DataInfo
    from mmeb_harness.registry import RegisteredTask
    from mmeb_harness.types import Embedder

#: Letters of a model's VALUE in the name of its results folder.
LONGEST_VALUE = 60


def main() -> None:
    """Entry point."""
    run_command(cli)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mmeb-eval")
def cli() -> None:
    """Evaluate multimodal embedding models on MMEB-V2: 78 tasks, accuracy, reasoning rate, latency."""


for command in (data, *COMMANDS, leaderboard, report, bench):
    cli.add_command(command)


@cli.command()
@click.option("--model", help=f"NAME or NAME:VALUE of `mmeb-eval models`. Default: {DEFAULT_MODEL}.")
@model_options
@selection_options
@click.option("--data", metavar="FOLDER", help="Data folder. Default: the mini suite, made on first use.")
@click.option("--frames", type=int, metavar="N", help="Frames of a video to show. Default: the model's own choice.")
@click.option("--limit", type=int, metavar="N", help="Only the first N queries of each task; marked, never ranked.")
@click.option("--dim", type=int, metavar="N", help="Compare the first N dimensions of each vector only, renormalised.")
@click.option("--quantize", type=click.Choice(("int8", "binary")), help="Compare quantised vectors.")
@click.option("--batch-tokens", type=int, metavar="N", help="Upper bound of a batch's padded tokens. Default: 16384.")
@click.option("--output", metavar="FOLDER", help="Results folder. Default: runs/<data>-<model>[-<reasoning>].")
@click.option(
    "--vectors", metavar="FOLDER", help="Where vectors are kept. Default: .vectors beside the results folder."
)
@click.option("--seed", type=int, help="Seed of the mini suite. Default: 0.")
@click.option("--resume/--fresh", "resume", default=None, help="Keep what is done (default), or start over.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file with any of these options.")
def run(config_file: Path | None, resume: bool | None, **options: Any) -> None:
    """Evaluate a model and print its scores.

    Without --tasks, --groups or --modality all 78 tasks are run. The same command goes on where a killed run
    stopped; what a changed model, setting or data revision makes stale is computed again.
    """
    from rich.console import Console

    from mmeb_harness.config import make_config, read_config
    from mmeb_harness.progress import reporter_for
    from mmeb_harness.registry import benchmark_edition, load_tasks, resolve_model, select_tasks
    from mmeb_harness.report import print_run
    from mmeb_harness.run import RunSettings, evaluate

    from_file = read_config(config_file) if config_file else {}
    config = make_config(from_file, {**options, "fresh": None if resume is None else not resume})
    console = Console(stderr=False)
    registered = load_tasks(config.edition)
    tasks = select_tasks(registered, config.tasks, config.groups, config.modalities)
    info = open_data(config, console)
    model, model_args = resolve_model(config.model or DEFAULT_MODEL, config.model_args)
    output = Path(config.output) if config.output else _default_output(config, model_args, info)
    check_folder(output)
    embedder = _load_model(model, model_args, config)
    settings = RunSettings(
        output=output,
        edition=benchmark_edition(registered.values()),
        frames=config.frames,
        limit=config.limit,
        seed=config.seed,
        batch_tokens=config.batch_tokens,
        dimensions=config.dim,
        quantization=config.quantize,
        fresh=config.fresh,
        vectors=Path(config.vectors) if config.vectors else None,
        model_args=model_args,
    )
    result = evaluate(embedder, tasks, registered, info, settings, reporter_for(console))
    print_run(result, output, console)


@cli.command()
@selection_options
def tasks(tasks: tuple[str, ...], groups: tuple[str, ...], modalities: tuple[str, ...], edition: str | None) -> None:
    """List the registered tasks."""
    from mmeb_harness.registry import load_tasks, select_tasks

    registered = load_tasks(edition)
    chosen = (
        select_tasks(registered, tasks, groups, modalities) if tasks or groups or modalities else registered.values()
    )
    print_table(
        ("task", "modality", "group", "metric", "queries", "candidates", "split", "source"),
        [_task_row(one) for one in chosen],
    )


@cli.command()
def models() -> None:
    """List the registered models."""
    from mmeb_harness.registry import model_summaries

    print_table(("model", "package", "what it is"), model_summaries())


@cli.command()
@click.argument("model")
@model_options
def check(model: str, **options: Any) -> None:
    """Test the adapter of MODEL (NAME or NAME:VALUE) offline, in seconds, on made-up items.

    Text, image, frames and mixed items; order, batch and padding invariance; unit length.
    """
    import tempfile

    from mmeb_harness.check import check_embedder
    from mmeb_harness.config import make_config

    config = make_config({}, options)
    embedder = _load_model(model, config.model_args, config)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="mmeb-check-") as folder:
        for outcome in check_embedder(embedder, Path(folder)):
            failed += not outcome.passed
            click.echo(f"{'ok  ' if outcome.passed else 'FAIL'}  {outcome.name:<20} {outcome.detail}")
    click.echo(f"{model}: {failed} checks failed" if failed else f"{model}: all checks passed")
    if failed:
        sys.exit(1)


def _default_output(config: RunConfig, model_args: Mapping[str, str], info: DataInfo) -> Path:
    """Named by what tells runs apart; arguments of the model, e.g. its path, by a hash.

    Of VALUE in --model NAME:VALUE the last part is there as well, to be read; the hash is what tells it apart.
    """
    from mmeb_harness.files import fingerprint

    name, _, value = (config.model or DEFAULT_MODEL).partition(":")
    readable = re.sub(r"[^\w.+-]+", "_", re.split(r"[/:]", value.rstrip("/"))[-1]).strip("._")
    parts = [info.name.lower(), name]
    parts += [readable[:LONGEST_VALUE]] if readable else []
    parts += [fingerprint(dict(model_args))[:6]] if model_args else []
    parts += [config.reasoning] if config.reasoning else []
    parts += [f"candidates-{config.candidate_reasoning}"] if config.candidate_reasoning else []
    parts += [config.edition] if config.edition else []
    parts += [f"frames{config.frames}"] if config.frames is not None else []
    parts += [f"limit{config.limit}"] if config.limit is not None else []
    parts += [f"dim{config.dim}"] if config.dim is not None else []
    parts += [config.quantize] if config.quantize != "none" else []
    return Path("runs") / "-".join(parts).replace("/", "_").replace(":", "_")


def _load_model(model: str, model_args: Mapping[str, str], config: RunConfig) -> Embedder:
    from mmeb_harness.registry import load_model

    return load_model(model, model_args, model_choices(config))


def _task_row(one: RegisteredTask) -> tuple[str, ...]:
    task = one.task
    return (
        task.name,
        task.modality,
        task.group,
        task.metric,
        _count(task.num_queries),
        _count(task.num_candidates),
        task.in_distribution or "-",
        task.source or one.collection,
    )


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)
