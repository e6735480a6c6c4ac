"""`mmeb-eval run`, `merge` and `show`: options become a configuration, and a run a table.

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness.cli.options import PATH, run_options, track_option
from mmeb_harness.core import terminal
from mmeb_harness.core.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from mmeb_harness.core.trackers import TrackerName
    from mmeb_harness.results.outcome import Run
    from mmeb_harness.spread.shards import ShardResult


@click.command()
@run_options
@click.option("--limit", type=int, metavar="N", help="Only the first N queries of each task; marked, never ranked.")
@click.option(
    "--pages",
    type=click.Choice(("stored", "official")),
    help="Pages of documents as stored (default), or as officially: VisRAG's .jpg written anew with quality 75.",
)
@click.option("--dim", type=int, metavar="N", help="Compare the first N dimensions of each vector only, renormalised.")
@click.option("--quantize", type=click.Choice(("int8", "binary")), help="Compare quantised vectors.")
@click.option("--batch-tokens", type=int, metavar="N", help="Upper bound of a batch's padded tokens. Default: 8192.")
@click.option(
    "--output",
    metavar="FOLDER",
    help="Results folder; of several modes each has its own in it. Default: runs/<data>-<model>[-<reasoning>].",
)
@click.option(
    "--vectors", metavar="FOLDER", help="Where vectors are kept. Default: .vectors beside the results folder."
)
@click.option(
    "--keep-states",
    is_flag=True,
    default=None,
    help="Keep of each query the state that the model's gate reads, for the probe of `compare`: 2 bytes a number.",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes that read media ahead of a GPU (default: by cores); on a CPU they encode as well (default: none).",
)
@click.option("--shard", metavar="I/N", help="Encode the I-th of N shares only; `mmeb-eval merge` ranks them all.")
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Encode on a Ray cluster: auto, HOST:PORT; without a value one of this machine's own.",
)
@click.option(
    "--ray-workers",
    type=int,
    metavar="N",
    help="Actors on it. Default: one a GPU, at any time; without GPUs one per two CPUs.",
)
@click.option("--seed", type=int, help="Seed of the mini suite. Default: 0.")
@track_option
@click.option("--resume/--fresh", "resume", default=None, help="Keep what is done (default), or start over.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file with any of these options.")
def run(config_file: Path | None, resume: bool | None, **options: Any) -> None:
    """Evaluate a model and print its scores.

    Without --tasks, --groups or --modality all tasks of the edition are run (78 of MMEB-V2, 190 of MMEB-V3), or all of
    a folder of own data; what needs a medium that the model doesn't take is said to be unsupported. The same command
    goes on where a killed run stopped; what another model, setting, data revision or picture makes stale is computed
    again.

    Under torchrun all ranks encode, and rank 0 ranks: torchrun --nproc-per-node 8 --no-python mmeb-eval run …
    """
    from mmeb_harness.api.carry_out import run_config
    from mmeb_harness.api.config import RunConfig, make_config, read_config
    from mmeb_harness.core.progress import reporter_for

    from_file = read_config(config_file) if config_file else RunConfig()
    config = make_config(from_file, {**options, "fresh": None if resume is None else not resume})
    console = terminal.console()
    if finished := run_config(config, reporter_for(console)):
        _show(finished, config.track, console)


def _show(runs: Sequence[Run], track: Sequence[TrackerName], console: Console) -> None:
    from mmeb_harness.exchange.tracked import track_run
    from mmeb_harness.show.run_table import print_next, print_run

    for run in runs:
        print_run(run, console)
    print_next(runs, console)
    for run in runs:
        track_run(track, run)


@click.command()
@click.argument("outputs", metavar="OUTPUT...", nargs=-1, required=True)
@click.option("--data", metavar="FOLDER", help="Data folder, as the shards had it. Default: the mini suite.")
@click.option("--vectors", metavar="FOLDER", help="Where the shards kept vectors. Default: .vectors beside OUTPUT.")
@track_option
def merge(outputs: tuple[str, ...], data: str | None, vectors: str | None, track: tuple[TrackerName, ...]) -> None:
    """Rank what all shards of runs have encoded (`mmeb-eval run --output OUTPUT --shard I/N`).

    Needs neither the model nor a GPU.
    """
    from mmeb_harness.core.trackers import check_trackers
    from mmeb_harness.spread.shards import load_shards, processors_of

    check_trackers(track)
    console = terminal.console()
    shards = [load_shards(Path(output)) for output in outputs]
    merged = [
        _merged(of_one, Path(output), data, vectors, console) for of_one, output in zip(shards, outputs, strict=True)
    ]
    _show(merged, track, console)
    if len(different := processors_of([shard for of_one in shards for shard in of_one])) > 1:
        say(f"the shards ran on different processors ({', '.join(different)}): last digits may differ")


def _merged(
    shards: Sequence[ShardResult], output: Path, data: str | None, vectors: str | None, console: Console
) -> Run:
    from contextlib import nullcontext

    from mmeb_harness.api.asked import Asked, asked_of, choose
    from mmeb_harness.api.carry_out import carry_out
    from mmeb_harness.api.config import RunConfig
    from mmeb_harness.api.crew import Crew
    from mmeb_harness.core.progress import reporter_for
    from mmeb_harness.spread.shards import StoredModel, settings_of
    from mmeb_harness.spread.shares import StoredOnly

    first = shards[0]
    config = RunConfig(data=data, seed=first.seed, tasks=first.tasks, edition=first.edition or None)
    chosen = asked_of(config, choose(config), output, {}).chosen
    settings = settings_of(first, output, Path(vectors) if vectors else None)
    hint = f"they should be in {settings.vectors_folder}; is that where all {len(shards)} shards kept them?"
    crew = Crew((first.model,), StoredModel(first.model), lambda _: nullcontext(StoredOnly(hint)))
    (run,) = carry_out([Asked(chosen, settings)], crew, reporter_for(console))
    return run


@click.command()
@click.argument("run", type=PATH)
@click.option("--tasks", "with_tasks", is_flag=True, help="A row a task as well.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON instead, under the names of run.json.")
def show(run: Path, with_tasks: bool, as_json: bool) -> None:
    """Print the tables of a run again, also of one that isn't finished.

    With --json: run.json, and in `results` what stands in tasks/.
    """
    from mmeb_harness.results.outcome import load_run
    from mmeb_harness.show.run_table import print_run, print_tasks, run_json

    left = load_run(run, unfinished=True)
    if as_json:
        say(run_json(left))
        return
    console = terminal.console()
    print_run(left, console)
    if with_tasks:
        print_tasks(left, console)
