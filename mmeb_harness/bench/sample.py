"""What is measured: tasks that were read before any clock started, and their items in the order of the files."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmeb_harness.core.items import Item, Profile, Role, Samples
from mmeb_harness.core.tasks import Task
from mmeb_harness.data.folder import DataInfo, load_samples
from mmeb_harness.run.read import Reading
from mmeb_harness.store.media import MediaHashes
from mmeb_harness.store.vectors import content_keys


@dataclass(frozen=True)
class Place:
    """One place of the sample. Equal items may stand at several."""

    role: Role
    item: Item


@dataclass(frozen=True)
class Block:
    """One side of one task, or what of it is in the sample."""

    role: Role
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Sample:
    """Items to encode and, where the sample has whole tasks, to rank.

    Attributes:
        root: the data folder.
        tasks: those that are ranked; none where only a part of the items is here.
        blocks: task by task, queries, then candidates.
    """

    root: Path
    tasks: tuple[tuple[Task, Samples], ...]
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return sum(len(block.items) for block in self.blocks)

    @cached_property
    def places(self) -> list[Place]:
        """All items, in order."""
        return [Place(block.role, item) for block in self.blocks for item in block.items]

    @cached_property
    def keys(self) -> list[str]:
        """Of all places, as a run names what it stores; made once, so not for use while a clock runs."""
        with self.hashes() as hashes:
            return [key for block in self.blocks for key in content_keys(block.items, block.role, hashes)]

    @contextmanager
    def hashes(self) -> Iterator[MediaHashes]:
        """Of media that nobody has hashed yet, as in a model's first run on the data."""
        with tempfile.TemporaryDirectory(prefix="mmeb-bench-") as folder:
            yield MediaHashes(Path(folder), self.root)

    def readings(self) -> deque[Reading]:
        """What was read, to be planned as a run plans it."""
        return deque(Reading(task, samples) for task, samples in self.tasks)

    def part(self, items: int) -> Sample:
        """So many items, evenly spaced over all; they can't be ranked."""
        if items >= len(self):
            return self
        wanted = {position * len(self) // items for position in range(items)}
        blocks, start = [], 0
        for block in self.blocks:
            kept = tuple(item for offset, item in enumerate(block.items) if start + offset in wanted)
            start += len(block.items)
            if kept:
                blocks.append(Block(block.role, kept))
        return Sample(self.root, (), tuple(blocks))


def read_sample(tasks: Sequence[Task], info: DataInfo, profile: Profile, limit: int | None) -> Sample:
    """Read the tasks.

    Raises:
        DataError: as a run.
    """
    read = tuple((task, load_samples(task, info, profile, limit)) for task in tasks)
    return sample_of(info.root, read)


def sample_of(root: Path, tasks: Sequence[tuple[Task, Samples]]) -> Sample:
    """The sample of whole tasks that are read."""
    blocks = [
        block
        for _, samples in tasks
        for block in (Block("query", samples.queries), Block("candidate", samples.candidates))
    ]
    return Sample(root, tuple(tasks), tuple(blocks))
