"""A run in shards: job arrays, or machines that share nothing but, in the end, files.

    mmeb-eval run … --output runs/x --shard 2/8     encodes its share; leaves runs/x/shards/2-of-8.json
    mmeb-eval merge runs/x                          ranks what all of them encoded; needs no model and no GPU

Where the machines share no folder, `runs/x/shards` and the vectors' folder are copied together: chunks and shards have
names of their own, and what has one name is equal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mmeb_harness.core import environment
from mmeb_harness.core.embedder import EncodeResult, ModelInfo
from mmeb_harness.core.errors import ModelError, ResultError
from mmeb_harness.core.files import matching
from mmeb_harness.core.items import Item, PageFiles, Quantization, Role
from mmeb_harness.core.reading import JsonFile
from mmeb_harness.encode.local import Encoder
from mmeb_harness.results.files import ADDED
from mmeb_harness.results.folder import locked
from mmeb_harness.run.evaluate import OpenEncoder
from mmeb_harness.run.identity import Identity, run_identity
from mmeb_harness.run.plan import Plan, RunSettings
from mmeb_harness.spread.shares import Share, ShareEncoder, refuse_difference

SHARD_SCHEMA_VERSION = 1
#: Settings that all shards of a run have in common, and that who ranks them takes from them.
OF_SETTINGS = (
    *("edition", "frames", "audio_seconds", "pages", "limit"),
    *("dimensions", "quantization", "seed", "batch_tokens", "keep_states"),
)


@dataclass(frozen=True)
class ShardResult:
    """What a finished shard says of itself: enough to rank without its model.

    Attributes:
        identity: see `run_identity`.
        tasks: that were asked for, the unsupported last.
        seconds: what it took, reading included.
        processors: names of its GPUs, or its kind of processor.
        checksum: of all the other fields; "" in older files.
    """

    shard: int
    shards: int
    identity: Identity
    model: ModelInfo
    model_args: Mapping[str, str]
    tasks: tuple[str, ...]
    edition: str
    data: str
    frames: int | None
    limit: int | None
    dimensions: int | None
    quantization: Quantization
    seed: int
    batch_tokens: int
    seconds: float
    processors: str
    audio_seconds: float | None = None
    pages: PageFiles | None = None
    keep_states: bool = False
    schema_version: int = SHARD_SCHEMA_VERSION
    checksum: str = field(default="", compare=False)


_ENCODE_AGAIN = "encode the shard again with the release that merges"
_SHARD_FILE = JsonFile(ShardResult, "a shard", SHARD_SCHEMA_VERSION, _ENCODE_AGAIN, _ENCODE_AGAIN, added=ADDED)


def encoder_of_shard(share: Share, open_encoder: OpenEncoder, note: Callable[[str], None]) -> OpenEncoder:
    """A share of a run of which the others are encoded elsewhere; once it is, its file says so.

    Args:
        open_encoder: who encodes the share.
        note: told what comes next.
    """
    started = time.monotonic()

    @contextmanager
    def opened(plans: Sequence[Plan]) -> Iterator[Encoder]:
        outputs = [plan.settings.output for plan in plans]
        with ExitStack() as locks:
            for plan in plans:
                locks.enter_context(locked(plan.folder, f".lock-{share.index + 1}-of-{share.count}"))
            with open_encoder(plans) as encoder:
                for output in outputs:
                    shard_file(output, share).unlink(missing_ok=True)
                yield ShareEncoder(encoder, share)
                seconds = time.monotonic() - started
                for plan in plans:
                    save_shard(plan.settings.output, shard_result(share, plan, seconds))
        merge = f"mmeb-eval merge {' '.join(map(str, outputs))}"
        note(f"shard {share} is encoded ({seconds:.0f} s); when all are: {merge}")

    return opened


def shard_result(share: Share, plan: Plan, seconds: float) -> ShardResult:
    """What a shard that has just been finished says of itself."""
    settings = plan.settings
    return ShardResult(
        shard=share.index + 1,
        shards=share.count,
        identity=run_identity([plan]),
        model=plan.model,
        model_args=dict(settings.model_args),
        tasks=(*plan.tasks, *plan.unsupported),
        data=plan.data.name,
        seconds=seconds,
        processors=environment.processors(),
        **{name: getattr(settings, name) for name in OF_SETTINGS},
    )


def settings_of(shard: ShardResult, output: Path, vectors: Path | None) -> RunSettings:
    """The settings of the run that a shard is a part of.

    Args:
        vectors: where they are kept; `None`: where a run keeps them by default.
    """
    own = {name: getattr(shard, name) for name in OF_SETTINGS}
    return RunSettings(output=output, vectors=vectors, model_args=shard.model_args, **own)


def processors_of(shards: Sequence[ShardResult]) -> list[str]:
    """What they ran on, each kind once."""
    return sorted({shard.processors for shard in shards})


class StoredModel:
    """A model of which only the vectors are here."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """Refuse: there is nothing left to encode."""
        raise ModelError(f"model {self.info.name!r} isn't loaded: its shards have encoded everything")


def shard_file(output: Path, share: Share) -> Path:
    """Where a shard says that it is finished."""
    return output / "shards" / f"{share.index + 1}-of-{share.count}.json"


def save_shard(output: Path, result: ShardResult) -> None:
    """Write what a finished shard says of itself."""
    _SHARD_FILE.write(shard_file(output, Share(result.shard - 1, result.shards)), result)


def load_shards(output: Path) -> list[ShardResult]:
    """All shards of a run, which belong together and are complete.

    Raises:
        ResultError: there are none, some are missing, or they aren't of one run.
    """
    files = matching(output / "shards", "*-of-*.json")
    finished = [path for path in files if re.fullmatch(r"\d+-of-\d+\.json", path.name)]
    if not finished:
        raise ResultError(f"{output} has no finished shard; mmeb-eval run … --output {output} --shard 1/N writes one")
    shards = [_SHARD_FILE.read(path) for path in finished]
    counts = sorted({shard.shards for shard in shards})
    if len(counts) > 1:
        raise ResultError(
            f"{output / 'shards'} holds shards of {' and of '.join(map(str, counts))}; delete the files of those that "
            "don't belong to this run"
        )
    missing = sorted(set(range(1, counts[0] + 1)) - {shard.shard for shard in shards})
    if missing:
        raise ResultError(
            f"{len(missing)} of {counts[0]} shards are not finished: {', '.join(map(str, missing))}; the same command "
            f"as for the others with --shard {missing[0]}/{counts[0]} finishes the first"
        )
    for shard in shards[1:]:
        this, that = f"shard {shard.shard} was computed with", f"shard {shards[0].shard} with"
        way_out = "they are no parts of one run; encode one of them again"
        refuse_difference(shard.identity, shards[0].identity, this, that, way_out)
    return sorted(shards, key=lambda shard: shard.shard)
