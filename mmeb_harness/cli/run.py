"""`mmeb-eval run` and `mmeb-eval merge`: who encodes (this process, torchrun's ranks, a shard, Ray), and who ranks.

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness.cli.options import DEFAULT_MODEL, check_folder, model_spec, run_options, track_option
from mmeb_harness.core import terminal
from mmeb_harness.core.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

    from mmeb_harness.cli.config import RunConfig
    from mmeb_harness.core.embedder import Embedder, ModelInfo
    from mmeb_harness.core.progress import Reporter
    from mmeb_harness.core.registry import ModelSpec, RegisteredTask
    from mmeb_harness.core.trackers import TrackerName
    from mmeb_harness.data.folder import DataInfo
    from mmeb_harness.run.evaluate import OpenEncoder
    from mmeb_harness.run.plan import RunSettings
    from mmeb_harness.spread.shares import Share
    from mmeb_harness.spread.torchrun import Ranks

DEFAULT_SUITE = "mini"
#: Letters of a model's VALUE in the name of its results folder.
LONGEST_VALUE = 60


@click.command()
@run_options
@click.option("--limit", type=int, metavar="N", help="Only the first N queries of each task; marked, never ranked.")
@click.option("--dim", type=int, metavar="N", help="Compare the first N dimensions of each vector only, renormalised.")
@click.option("--quantize", type=click.Choice(("int8", "binary")), help="Compare quantised vectors.")
@click.option("--batch-tokens", type=int, metavar="N", help="Upper bound of a batch's padded tokens. Default: 8192.")
@click.option("--output", metavar="FOLDER", help="Results folder. Default: runs/<data>-<model>[-<reasoning>].")
@click.option(
    "--vectors", metavar="FOLDER", help="Where vectors are kept. Default: .vectors beside the results folder."
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

    Without --tasks, --groups or --modality all 78 tasks are run. The same command goes on where a killed run
    stopped; what a changed model, setting or data revision makes stale is computed again.

    Under torchrun all ranks encode, and rank 0 ranks: torchrun --nproc-per-node 8 --no-python mmeb-eval run …
    """
    from mmeb_harness.cli.config import RunConfig, make_config, read_config

    from_file = read_config(config_file) if config_file else RunConfig()
    config = make_config(from_file, {**options, "fresh": None if resume is None else not resume})
    part = _part(config)
    console = terminal.console()
    if part.ranks is not None and part.ranks.restarts:
        config = dataclasses.replace(config, fresh=False)  # what was encoded before the failure counts
    spec, asked = _asked(config)
    reporter = _reporter(part, console)
    with _crew(config, part, spec, asked.settings.output, reporter) as crew:
        _carry_out(asked, crew, reporter, console, config.track)


@click.command()
@click.argument("output")
@click.option("--data", metavar="FOLDER", help="Data folder, as the shards had it. Default: the mini suite.")
@click.option("--vectors", metavar="FOLDER", help="Where the shards kept vectors. Default: .vectors beside OUTPUT.")
@track_option
def merge(output: str, data: str | None, vectors: str | None, track: tuple[TrackerName, ...]) -> None:
    """Rank what all shards of a run have encoded (`mmeb-eval run --output OUTPUT --shard I/N`).

    Needs neither the model nor a GPU.
    """
    from mmeb_harness.cli.config import RunConfig
    from mmeb_harness.core.progress import reporter_for
    from mmeb_harness.core.registry import choose_tasks, with_tasks
    from mmeb_harness.core.trackers import check_trackers
    from mmeb_harness.results.folder import RunFolder
    from mmeb_harness.spread.shards import StoredModel, load_shards, processors_of, settings_of
    from mmeb_harness.spread.shares import StoredOnly

    check_trackers(track)
    console = terminal.console()
    shards = load_shards(Path(output))
    first = shards[0]
    tasks, registered = choose_tasks(first.edition or None, first.tasks)
    asked = _Asked(
        tasks=tasks,
        registered=with_tasks(registered, RunFolder(Path(output)).task_names(), first.edition or None),
        data=open_data(RunConfig(data=data, seed=first.seed)),
        settings=settings_of(first, Path(output), Path(vectors) if vectors else None),
    )
    hint = f"they should be in {asked.settings.vectors_folder}; is that where all {len(shards)} shards kept them?"
    crew = _Crew(first.model, StoredModel(first.model), lambda _: nullcontext(StoredOnly(hint)))
    _carry_out(asked, crew, reporter_for(console), console, track)
    if len(different := processors_of(shards)) > 1:
        say(f"the shards ran on different processors ({', '.join(different)}): last digits may differ")


@dataclass(frozen=True)
class _Asked:
    """What options ask for: what is evaluated, and how."""

    tasks: Sequence[RegisteredTask]
    registered: Mapping[str, RegisteredTask]
    data: DataInfo
    settings: RunSettings


@dataclass(frozen=True)
class _Crew:
    """Who does the work: here ways to run differ, and nowhere else.

    Attributes:
        model: what the model says of itself where it encodes.
        embedder: the same model here, which says what items cost.
        ranks: whether this process ranks what is encoded, or leaves that to another one.
    """

    model: ModelInfo
    embedder: Embedder
    open_encoder: OpenEncoder
    ranks: bool = True


def _carry_out(
    asked: _Asked, crew: _Crew, reporter: Reporter, console: Console, trackers: Sequence[TrackerName]
) -> None:
    from mmeb_harness.exchange.tracked import track_run
    from mmeb_harness.run.evaluate import encode_share, evaluate
    from mmeb_harness.run.plan import make_plan

    plan = make_plan(asked.tasks, asked.registered, asked.data, crew.model, asked.settings)
    if not crew.ranks:
        encode_share(plan, crew.embedder, crew.open_encoder, reporter)
        return
    from mmeb_harness.show.run_table import print_run

    run = evaluate(plan, crew.embedder, crew.open_encoder, reporter)
    print_run(run, console)
    track_run(trackers, run)


def _asked(config: RunConfig) -> tuple[ModelSpec, _Asked]:
    from mmeb_harness.core.registry import benchmark_edition, choose_tasks, resolve_model, with_tasks
    from mmeb_harness.results.folder import RunFolder
    from mmeb_harness.run.plan import RunSettings

    tasks, registered = choose_tasks(config.edition, config.tasks, config.groups, config.modalities)
    model, model_args = resolve_model(config.model or DEFAULT_MODEL, config.model_args)
    data = open_data(config)
    output = Path(config.output) if config.output else default_output(config, model_args, data)
    check_folder(output)
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
    registered = with_tasks(registered, RunFolder(output).task_names(), config.edition)
    return model_spec(model, model_args, config), _Asked(tasks, registered, data, settings)


@dataclass(frozen=True)
class _Part:
    """This process's part of a run that several share, as torchrun or --shard gave it out; neither: all of it."""

    ranks: Ranks | None = None
    shard: Share | None = None


def _part(config: RunConfig) -> _Part:
    """What this process has to do; one of torchrun's takes a GPU of its own.

    Raises:
        OptionError: ways to share a run out that exclude each other, or an option that one of them can't have.
    """
    from mmeb_harness.core.errors import OptionError

    ranks = None
    if "RANK" in os.environ:
        from mmeb_harness.spread.torchrun import ranks_from, take_own_gpu

        ranks = ranks_from(os.environ)
    if config.ray and (config.shard or ranks):
        other = "--shard" if config.shard else "torchrun"
        raise OptionError(f"--ray and {other} both share a run out; use one of them")
    if config.shard and config.track:
        raise OptionError("--track can't be combined with --shard, which has no scores; `mmeb-eval merge` takes it")
    if config.shard and ranks:
        raise OptionError(
            "--shard is for processes that don't know of each other; torchrun shares the work out by itself"
        )
    if config.shard and config.fresh:
        raise OptionError(
            "--shard can't be combined with --fresh: no shard knows whether another one has begun; choose another "
            "--output and --vectors, or delete them"
        )
    if config.shard:
        from mmeb_harness.spread.shares import parse_share

        return _Part(shard=parse_share(config.shard))
    if ranks is not None:
        take_own_gpu(ranks, os.environ)
        if str(config.device).startswith("cuda:"):
            raise OptionError(
                f"--device {config.device}: each process of torchrun sees one GPU, its own; use --device cuda"
            )
    return _Part(ranks)


def _reporter(part: _Part, console: Console) -> Reporter:
    """All ranks but the first are silent unless something is wrong."""
    from mmeb_harness.core.progress import LineReporter, reporter_for

    if part.ranks is None or part.ranks.is_first:
        return reporter_for(console)
    return LineReporter(console, f"rank {part.ranks.share.index}: ")


@contextmanager
def _crew(config: RunConfig, part: _Part, spec: ModelSpec, output: Path, reporter: Reporter) -> Iterator[_Crew]:
    """This process alone, one of torchrun's ranks, a shard, or the driver of a Ray cluster."""
    if config.ray:
        from mmeb_harness.spread.ray_cluster import LOCAL, connected
        from mmeb_harness.spread.ray_engine import RayEncoder, driver_model
        from mmeb_harness.spread.ray_worker import Setup

        setup = Setup(spec, config.batch_tokens, config.workers, Path.cwd())
        with connected(config.ray):
            encoder = RayEncoder(setup, config.ray_workers, config.ray == LOCAL, reporter.note)
            first = encoder.introduction()
            yield _Crew(first.info, driver_model(spec, first, reporter.note), lambda _: nullcontext(encoder))
    elif part.ranks is not None:
        from mmeb_harness.spread.torchrun import Meeting, encoder_of_rank

        meeting = Meeting(output, part.ranks)
        meeting.prepare()
        embedder, own = _this_process(config, spec, reporter, part.ranks.local_count)
        share = encoder_of_rank(part.ranks, meeting, own, reporter.note)
        yield _Crew(embedder.info, embedder, share, part.ranks.is_first)
    elif part.shard is not None:
        from mmeb_harness.spread.shards import encoder_of_shard

        embedder, own = _this_process(config, spec, reporter)
        yield _Crew(embedder.info, embedder, encoder_of_shard(part.shard, own, reporter.note), ranks=False)
    else:
        embedder, own = _this_process(config, spec, reporter)
        yield _Crew(embedder.info, embedder, own)


def _this_process(
    config: RunConfig, spec: ModelSpec, reporter: Reporter, processes: int = 1
) -> tuple[Embedder, OpenEncoder]:
    """The model, and this process as the one that encodes with it; so many do on this machine."""
    from mmeb_harness.run.evaluate import this_process

    embedder = spec.load()
    return embedder, this_process(embedder, reporter.note, spec, config.workers, processes)


def open_data(config: RunConfig) -> DataInfo:
    """The data folder that was named, or the mini suite, made on first use.

    Raises:
        DataError: the folder is missing, or can't be read.
    """
    from mmeb_harness.core.registry import load_suite
    from mmeb_harness.data.folder import describe, ensure_suite

    if config.data:
        return describe(Path(config.data).expanduser().resolve())
    return describe(ensure_suite(load_suite(DEFAULT_SUITE), config.seed, say))


def default_output(config: RunConfig, model_args: Mapping[str, str], info: DataInfo) -> Path:
    """Named by what tells runs apart; arguments of the model, e.g. its path, by a hash.

    Of VALUE in --model NAME:VALUE the last part is there as well, to be read; the hash is what tells it apart.
    """
    from mmeb_harness.core.files import fingerprint
    from mmeb_harness.core.own_file import readable_parts

    name, value = readable_parts(config.model or DEFAULT_MODEL)
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
