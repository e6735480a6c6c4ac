"""`mmeb-eval run` and `mmeb-eval merge`: who encodes (this process, torchrun's ranks, a shard, Ray), and who ranks.

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness.cli.options import check_folder, model_options, model_spec, selection_options

if TYPE_CHECKING:
    from rich.console import Console

    from mmeb_harness.cli.config import RunConfig
    from mmeb_harness.core.embedder import Embedder
    from mmeb_harness.core.progress import Reporter
    from mmeb_harness.core.registry import ModelSpec, RegisteredTask
    from mmeb_harness.data.folder import DataInfo
    from mmeb_harness.encode.local import LocalEncoder
    from mmeb_harness.run.evaluate import RunSettings
    from mmeb_harness.spread.shares import Share
    from mmeb_harness.spread.torchrun import Ranks

DEFAULT_MODEL = "mmemb_r1"
DEFAULT_SUITE = "mini"
#: Letters of a model's VALUE in the name of its results folder.
LONGEST_VALUE = 60


@click.command()
@click.option("--model", help=f"NAME or NAME:VALUE of `mmeb-eval models`. Default: {DEFAULT_MODEL}.")
@model_options
@selection_options
@click.option("--data", metavar="FOLDER", help="Data folder. Default: the mini suite, made on first use.")
@click.option("--frames", type=int, metavar="N", help="Frames of a video to show. Default: the model's own choice.")
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
@click.option("--resume/--fresh", "resume", default=None, help="Keep what is done (default), or start over.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML file with any of these options.")
def run(config_file: Path | None, resume: bool | None, **options: Any) -> None:
    """Evaluate a model and print its scores.

    Without --tasks, --groups or --modality all 78 tasks are run. The same command goes on where a killed run
    stopped; what a changed model, setting or data revision makes stale is computed again.

    Under torchrun all ranks encode, and rank 0 ranks: torchrun --nproc-per-node 8 --no-python mmeb-eval run …
    """
    from rich.console import Console

    from mmeb_harness.cli.config import make_config, read_config
    from mmeb_harness.spread.shares import parse_share
    from mmeb_harness.spread.torchrun import ranks_from, take_own_gpu

    from_file = read_config(config_file) if config_file else {}
    config = make_config(from_file, {**options, "fresh": None if resume is None else not resume})
    console = Console(stderr=False)
    ranks = ranks_from(os.environ)
    if config.ray:
        _run_on_ray(config, ranks is not None, console)
    elif config.shard:
        _run_shard(config, parse_share(config.shard), ranks is not None, console)
    elif ranks is not None:
        take_own_gpu(ranks, os.environ)
        _run_rank(config, ranks, console)
    else:
        _run_here(config, console)


@click.command()
@click.argument("output")
@click.option("--data", metavar="FOLDER", help="Data folder, as the shards had it. Default: the mini suite.")
@click.option("--vectors", metavar="FOLDER", help="Where the shards kept vectors. Default: .vectors beside OUTPUT.")
def merge(output: str, data: str | None, vectors: str | None) -> None:
    """Rank what all shards of a run have encoded (`mmeb-eval run --output OUTPUT --shard I/N`).

    Needs neither the model nor a GPU.
    """
    from rich.console import Console

    from mmeb_harness.cli.config import RunConfig
    from mmeb_harness.core.progress import reporter_for
    from mmeb_harness.core.registry import load_tasks, select_tasks
    from mmeb_harness.run.evaluate import RunSettings, evaluate
    from mmeb_harness.show.run_table import print_run
    from mmeb_harness.spread.shards import StoredModel, load_shards, processors_of
    from mmeb_harness.spread.shares import StoredOnly

    console = Console(stderr=False)
    shards = load_shards(Path(output))
    first = shards[0]
    registered = load_tasks(first.edition or None)
    tasks = select_tasks(registered, first.tasks, (), ())
    info = open_data(RunConfig(data=data, seed=first.seed), console)
    settings = RunSettings(
        output=Path(output),
        edition=first.edition,
        frames=first.frames,
        limit=first.limit,
        seed=first.seed,
        batch_tokens=first.batch_tokens,
        dimensions=first.dimensions,
        quantization=first.quantization,
        vectors=Path(vectors) if vectors else None,
        model_args=first.model_args,
    )
    missing = StoredOnly(
        f"they should be in {settings.vectors_folder}; is that where all {len(shards)} shards kept them?"
    )
    result = evaluate(StoredModel(first.model), tasks, registered, info, settings, reporter_for(console), missing)
    print_run(result, settings.output, console)
    if len(different := processors_of(shards)) > 1:
        console.print(f"the shards ran on different processors ({', '.join(different)}): last digits may differ")


@dataclass(frozen=True)
class _Job:
    """What is evaluated, and how."""

    spec: ModelSpec
    tasks: list[RegisteredTask]
    registered: dict[str, RegisteredTask]
    info: DataInfo
    settings: RunSettings


def _job(config: RunConfig, console: Console) -> _Job:
    from mmeb_harness.core.registry import benchmark_edition, load_tasks, resolve_model, select_tasks
    from mmeb_harness.run.evaluate import RunSettings

    registered = load_tasks(config.edition)
    tasks = select_tasks(registered, config.tasks, config.groups, config.modalities)
    info = open_data(config, console)
    model, model_args = resolve_model(config.model or DEFAULT_MODEL, config.model_args)
    output = Path(config.output) if config.output else default_output(config, model_args, info)
    check_folder(output)
    spec = model_spec(model, model_args, config)
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
    return _Job(spec, tasks, registered, info, settings)


def _encoder(
    job: _Job, embedder: Embedder, config: RunConfig, reporter: Reporter, processes: int = 1
) -> AbstractContextManager[LocalEncoder]:
    """This process; `processes` of a run are on this machine."""
    from mmeb_harness.encode.prepare import workers_for
    from mmeb_harness.run.evaluate import local_encoder

    workers = workers_for(embedder, processes) if config.workers is None else config.workers
    return local_encoder(embedder, job.settings.batch_tokens, reporter, job.spec, workers)


def _run_here(config: RunConfig, console: Console) -> None:
    from mmeb_harness.core.progress import reporter_for
    from mmeb_harness.run.evaluate import evaluate
    from mmeb_harness.show.run_table import print_run

    job, reporter = _job(config, console), reporter_for(console)
    embedder = job.spec.load()
    with _encoder(job, embedder, config, reporter) as encoder:
        result = evaluate(embedder, job.tasks, job.registered, job.info, job.settings, reporter, encoder)
    print_run(result, job.settings.output, console)


def _run_rank(config: RunConfig, ranks: Ranks, console: Console) -> None:
    """One of torchrun's processes. All of them but the first are silent unless something is wrong."""
    from mmeb_harness.core.errors import OptionError
    from mmeb_harness.core.progress import LineReporter, reporter_for
    from mmeb_harness.run.evaluate import encode_share, evaluate
    from mmeb_harness.show.run_table import print_run
    from mmeb_harness.spread.shares import GatheringEncoder, ShareEncoder
    from mmeb_harness.spread.torchrun import Meeting

    if str(config.device).startswith("cuda:"):
        raise OptionError(
            f"--device {config.device}: each process of torchrun sees one GPU, its own; use --device cuda"
        )
    # Started again, nobody may start over: what was encoded before the failure counts.
    job = _job(dataclasses.replace(config, fresh=config.fresh and ranks.restarts == 0), console)
    meeting = Meeting(job.settings.output, ranks)
    meeting.prepare()
    embedder = job.spec.load()
    reporter = reporter_for(console) if ranks.is_first else LineReporter(console, f"rank {ranks.share.index}: ")
    with _encoder(job, embedder, config, reporter, ranks.local_count) as encoder:
        own = ShareEncoder(encoder, ranks.share)
        if ranks.is_first:
            inputs = (embedder, job.tasks, job.registered, job.info, job.settings)
            result = evaluate(*inputs, reporter, GatheringEncoder(own, meeting.absent), meeting)
            print_run(result, job.settings.output, console)
        else:
            encode_share(embedder, job.tasks, job.info, job.settings, reporter, own, meeting)


def _run_on_ray(config: RunConfig, under_torchrun: bool, console: Console) -> None:
    from mmeb_harness.core.errors import OptionError
    from mmeb_harness.core.progress import reporter_for
    from mmeb_harness.run.evaluate import evaluate
    from mmeb_harness.show.run_table import print_run
    from mmeb_harness.spread.ray_engine import LOCAL, RayEncoder, connected, driver_model
    from mmeb_harness.spread.ray_worker import Setup

    if config.shard or under_torchrun:
        other = "--shard" if config.shard else "torchrun"
        raise OptionError(f"--ray and {other} both share a run out; use one of them")
    address = str(config.ray)
    job, reporter = _job(config, console), reporter_for(console)
    setup = Setup(job.spec, job.settings.batch_tokens, config.workers, Path.cwd())
    with connected(address):
        encoder = RayEncoder(setup, config.ray_workers, address == LOCAL, reporter.note)
        embedder = driver_model(job.spec, encoder.introduction(), reporter.note)
        result = evaluate(embedder, job.tasks, job.registered, job.info, job.settings, reporter, encoder)
    print_run(result, job.settings.output, console)


def _run_shard(config: RunConfig, share: Share, under_torchrun: bool, console: Console) -> None:
    from mmeb_harness.core.errors import OptionError
    from mmeb_harness.core.progress import reporter_for
    from mmeb_harness.results.folder import RunFolder, locked
    from mmeb_harness.run.evaluate import encode_share
    from mmeb_harness.spread.shards import save_shard, shard_file, shard_result
    from mmeb_harness.spread.shares import ShareEncoder

    if under_torchrun:
        raise OptionError(
            "--shard is for processes that don't know of each other; torchrun shares the work out by itself"
        )
    if config.fresh:
        raise OptionError(
            "--shard can't be combined with --fresh: no shard knows whether another one has begun; choose another "
            "--output and --vectors, or delete them"
        )
    started, job, reporter = time.monotonic(), _job(config, console), reporter_for(console)
    embedder = job.spec.load()
    output = job.settings.output
    with (
        locked(RunFolder(output), f".lock-{share.index + 1}-of-{share.count}"),
        _encoder(job, embedder, config, reporter) as encoder,
    ):
        shard_file(output, share).unlink(missing_ok=True)
        own = ShareEncoder(encoder, share)
        identity = encode_share(embedder, job.tasks, job.info, job.settings, reporter, own)
        names = [one.task.name for one in job.tasks]
        seconds = time.monotonic() - started
        save_shard(output, shard_result(share, identity, embedder.info, names, job.info.name, job.settings, seconds))
    line = f"shard {share} is encoded ({seconds:.0f} s); when all are: mmeb-eval merge {output}"
    console.print(line, highlight=False, soft_wrap=True)


def open_data(config: RunConfig, console: Console) -> DataInfo:
    """The data folder that was named, or the mini suite, made on first use.

    Raises:
        DataError: the folder is missing, or can't be read.
    """
    from mmeb_harness.core.registry import load_suite
    from mmeb_harness.data.folder import MANIFEST, describe, ensure_suite, suite_folder

    if config.data:
        return describe(Path(config.data).expanduser().resolve())
    suite = load_suite(DEFAULT_SUITE)
    folder = suite_folder(suite, config.seed)
    if not (folder / MANIFEST).is_file():
        console.print(f"making the {suite.name} suite (synthetic, seed {config.seed}) in {folder} …", soft_wrap=True)
    return describe(ensure_suite(suite, config.seed))


def default_output(config: RunConfig, model_args: Mapping[str, str], info: DataInfo) -> Path:
    """Named by what tells runs apart; arguments of the model, e.g. its path, by a hash.

    Of VALUE in --model NAME:VALUE the last part is there as well, to be read; the hash is what tells it apart.
    """
    from mmeb_harness.core.files import fingerprint

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
