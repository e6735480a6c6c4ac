"""Who does a run's work: this process, one of torchrun's ranks, a shard, or the driver of a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmeb_harness.api.config import RunConfig
from mmeb_harness.core import terminal
from mmeb_harness.core.embedder import BudgetedEmbedder, Embedder, ModelInfo, infos_of
from mmeb_harness.core.progress import LineReporter, Reporter
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.core.waiting import heartbeat
from mmeb_harness.encode.whole_workers import workers_for
from mmeb_harness.run.evaluate import OpenEncoder, this_process

if TYPE_CHECKING:
    from mmeb_harness.spread.shares import Share
    from mmeb_harness.spread.torchrun import Ranks


@dataclass(frozen=True)
class Crew:
    """Who does the work: here ways to run differ, and nowhere else.

    Attributes:
        models: what the model says of itself where it encodes, in each mode in which it embeds queries at once.
        embedder: the same model here, which says what items cost.
        ranks: whether this process ranks what is encoded, or leaves that to another one.
        workers: processes that prepare or encode for this one; `None` where none could.
    """

    models: tuple[ModelInfo, ...]
    embedder: Embedder
    open_encoder: OpenEncoder
    ranks: bool = True
    workers: int | None = None


@dataclass(frozen=True)
class Part:
    """This process's part of a run that several share, as torchrun or --shard gave it out; neither: all of it."""

    ranks: Ranks | None = None
    shard: Share | None = None


def part_of(config: RunConfig) -> Part:
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

        return Part(shard=parse_share(config.shard))
    if ranks is not None:
        take_own_gpu(ranks, os.environ)
        if str(config.device).startswith("cuda:"):
            raise OptionError(
                f"--device {config.device}: each process of torchrun sees one GPU, its own; use --device cuda"
            )
    return Part(ranks)


def reporter_of(part: Part, first: Reporter) -> Reporter:
    """That of the first rank, or of a process alone; the others say by lines what is wrong."""
    if part.ranks is None or part.ranks.is_first:
        return first
    return LineReporter(terminal.console(), f"rank {part.ranks.share.index}: ")


@contextmanager
def open_crew(config: RunConfig, part: Part, spec: ModelSpec, output: Path, reporter: Reporter) -> Iterator[Crew]:
    """This process alone, one of torchrun's ranks, a shard, or the driver of a Ray cluster."""
    if config.ray:
        from mmeb_harness.spread.ray_cluster import LOCAL, connected
        from mmeb_harness.spread.ray_engine import RayEncoder, driver_model
        from mmeb_harness.spread.ray_worker import Setup

        setup = Setup(spec, config.batch_tokens, config.workers, Path.cwd())
        with connected(config.ray):
            encoder = RayEncoder(setup, config.ray_workers, config.ray == LOCAL, reporter.note)
            first = encoder.introduction()
            yield Crew(first.infos, driver_model(spec, first, reporter.note), encoder.opened)
    elif part.ranks is not None:
        from mmeb_harness.spread.torchrun import Meeting, encoder_of_rank

        meeting = Meeting(output, part.ranks)
        meeting.prepare()
        alone = _this_process(config, spec, reporter, part.ranks.local_count)
        share = encoder_of_rank(part.ranks, meeting, alone.open_encoder, reporter.note)
        yield dataclasses.replace(alone, open_encoder=share, ranks=part.ranks.is_first)
    elif part.shard is not None:
        from mmeb_harness.spread.shards import encoder_of_shard

        alone = _this_process(config, spec, reporter)
        share = encoder_of_shard(part.shard, alone.open_encoder, reporter.note)
        yield dataclasses.replace(alone, open_encoder=share, ranks=False)
    else:
        yield _this_process(config, spec, reporter)


def _this_process(config: RunConfig, spec: ModelSpec, reporter: Reporter, processes: int = 1) -> Crew:
    """This process alone with the model; so many encode on this machine."""
    with heartbeat(f"opening the model {spec.model}", reporter.note):
        embedder = spec.load()
    workers = workers_for(embedder, processes) if config.workers is None else config.workers
    encoder = this_process(embedder, reporter.note, spec, workers)
    used = workers if isinstance(embedder, BudgetedEmbedder) else None
    return Crew(infos_of(embedder), embedder, encoder, workers=used)
