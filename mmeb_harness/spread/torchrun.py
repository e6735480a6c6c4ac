"""Processes that `torchrun` started: who is who, a GPU each, and one agreement before the first item.

They share a folder, not a network: rank 0 opens the run and ranks it, all encode. A rank that dies is torchrun's
business; what it had encoded is in the store when it comes back.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mmeb_harness.core import environment
from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import matching
from mmeb_harness.core.reading import JsonFile
from mmeb_harness.encode.local import Encoder
from mmeb_harness.run.evaluate import OpenEncoder
from mmeb_harness.run.identity import Identity, run_identity
from mmeb_harness.run.plan import Plan
from mmeb_harness.spread.shares import (
    MAKE_EQUAL,
    GatheringEncoder,
    Share,
    ShareEncoder,
    processors_remarks,
    refuse_difference,
)


@dataclass(frozen=True)
class _Attendance:
    """A rank's file: what it computes parts of, and on what."""

    identity: Identity
    processors: str
    schema_version: int = 1
    checksum: str = field(default="", compare=False)


_START_AGAIN = "start the same command again"
_FILE = JsonFile(_Attendance, "a rank's file", 1, _START_AGAIN, _START_AGAIN)
#: Rank 0 reads all tasks before it opens the run.
PATIENCE_SECONDS = 900.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Ranks:
    """A process's place among those started together.

    Attributes:
        share: of the chunks, which is also its rank and the number of ranks.
        local_index, local_count: on its node.
        launch: names this start of all of them.
        restarts: how often torchrun had to start them again.
    """

    share: Share
    local_index: int
    local_count: int
    launch: str
    restarts: int

    @property
    def is_first(self) -> bool:
        """Rank 0, which ranks and writes."""
        return self.share.index == 0


def ranks_from(environ: Mapping[str, str]) -> Ranks | None:
    """Where torchrun (or what sets its variables) put this process; `None` if it runs alone."""
    count = int(environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in environ:
        return None
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    parts = [environ.get(name, "") for name in names]
    # By default torchrun gives every launch the same names; on one node its process tells them apart.
    parts += [str(os.getppid())] if environ.get("LOCAL_WORLD_SIZE") == environ["WORLD_SIZE"] else []
    launch = "-".join("".join(c if c.isalnum() else "_" for c in part) for part in parts)
    return Ranks(
        Share(int(environ["RANK"]), count),
        int(environ.get("LOCAL_RANK", "0")),
        int(environ.get("LOCAL_WORLD_SIZE", "1")),
        launch,
        int(environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def take_own_gpu(ranks: Ranks, environ: MutableMapping[str, str]) -> None:
    """Show this process one GPU of its node, before anything looks for them; without GPUs it changes nothing.

    Raises:
        ResultError: more processes on this node than GPUs.
    """
    shown = [gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip()]
    gpus = shown or [str(number) for number in range(len(environment.gpu_names()))]
    if not gpus:
        return
    if ranks.local_index >= len(gpus):
        raise ResultError(
            f"rank {ranks.share.index} is process {ranks.local_index + 1} of its node, which has {len(gpus)} GPUs: "
            f"torchrun --nproc-per-node {len(gpus)}"
        )
    environ["CUDA_VISIBLE_DEVICES"] = gpus[ranks.local_index]


def encoder_of_rank(
    ranks: Ranks, meeting: Meeting, open_encoder: OpenEncoder, note: Callable[[str], None]
) -> OpenEncoder:
    """A rank's share of a run that all ranks agree on; rank 0 waits for the others' vectors as well.

    Args:
        open_encoder: who encodes the share.
        note: told, on rank 0, what a user should know of the others.
    """

    @contextmanager
    def opened(plans: Sequence[Plan]) -> Iterator[Encoder]:
        identity = run_identity(plans)
        if not ranks.is_first:
            meeting.join(identity)
            with open_encoder(plans) as encoder:
                yield ShareEncoder(encoder, ranks.share)
            return
        with meeting.opened(identity), open_encoder(plans) as encoder:
            yield GatheringEncoder(ShareEncoder(encoder, ranks.share), meeting.absent)
            for remark in meeting.remarks():
                note(remark)

    return opened


class Meeting:
    """Files by which ranks agree that they compute parts of one run."""

    def __init__(self, output: Path, ranks: Ranks, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._output, self._ranks, self._patience = output, ranks, patience_seconds
        self._folder = output / ".ranks" / ranks.launch

    def prepare(self) -> None:
        """Rank 0, first of all: nobody may take what an earlier launch of the same name left for this one's."""
        if self._ranks.is_first:
            shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def opened(self, identity: Identity) -> Iterator[None]:
        """Rank 0: let the others in, until the run ends."""
        for earlier in self._folder.parent.glob("*"):  # of killed runs: nobody else holds this run's folder
            if earlier != self._folder:
                shutil.rmtree(earlier, ignore_errors=True)
        _FILE.write(self._file(0), _Attendance(identity, environment.processors()))
        try:
            yield
            self._wait_for_all()
        finally:
            shutil.rmtree(self._folder.parent, ignore_errors=True)

    def join(self, identity: Identity) -> None:
        """Other ranks: wait for rank 0 and compare.

        Raises:
            ResultError: it doesn't open the run, or opens another one.
        """
        started = time.monotonic()
        while not self._file(0).is_file():
            if time.monotonic() - started > self._patience:
                raise ResultError(
                    f"rank {self._ranks.share.index} saw no sign of rank 0 in {self._output} for "
                    f"{self._patience:.0f} s: --output and --vectors have to be folders that all nodes see"
                )
            time.sleep(POLL_SECONDS)
        theirs = _FILE.read(self._file(0)).identity
        refuse_difference(identity, theirs, f"rank {self._ranks.share.index} has", "rank 0", MAKE_EQUAL)
        _FILE.write(self._file(self._ranks.share.index), _Attendance(identity, environment.processors()))

    def remarks(self) -> list[str]:
        """Rank 0: what a user should know of the others."""
        processors = {_FILE.read(path).processors for path in matching(self._folder, "rank-*.json")}
        return processors_remarks("ranks", processors)

    def absent(self) -> str:
        """Ranks that haven't joined, for messages."""
        missing = self._absent()
        return f"ranks that never came: {', '.join(missing)}" if missing else "all ranks came"

    def _wait_for_all(self) -> None:
        """A run that had nothing left to do must not be over before the others looked."""
        started = time.monotonic()
        while self._absent() and time.monotonic() - started < self._patience:
            time.sleep(POLL_SECONDS)

    def _absent(self) -> list[str]:
        return [str(rank) for rank in range(1, self._ranks.share.count) if not self._file(rank).is_file()]

    def _file(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.json"
