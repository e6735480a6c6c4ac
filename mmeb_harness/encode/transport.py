"""A prepared batch on its way from the process that made it.

It goes into memory without a name (a memfd) that the worker hands over by its descriptor: nothing is copied through a
pipe, the size of /dev/shm (64 MB in many containers) is no limit, and the system takes the memory back whoever is
killed, and when. The arrays that a consumer gets are views of it; it is freed with the last of them. Where the system
has no memfd it is a file without a name in the temporary folder.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import IO, Any, cast

#: Arrays start at multiples of so many bytes.
ALIGNMENT = 64


@dataclass(frozen=True)
class Announcement:
    """Tells the other process that a batch is prepared; a descriptor of its memory follows.

    Attributes:
        lengths: of the batch's pickle, and of each array's memory.
        seconds: that preparing it took.
    """

    lengths: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Block:
    """A prepared batch in the memory that its worker wrote, now this process's as well."""

    memory: mmap.mmap
    told: Announcement

    def open(self) -> Any:
        """What was prepared. Its arrays are views, which keep the memory."""
        view, start, pieces = memoryview(self.memory), 0, []
        for length in self.told.lengths:
            pieces.append(view[start : start + length])
            start += length + -length % ALIGNMENT
        return pickle.loads(pieces[0], buffers=pieces[1:])


def nameless_file() -> IO[bytes]:
    """A file that is gone with the last process that has it open or mapped."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("prepared"), "w+b")
    return cast(IO[bytes], tempfile.TemporaryFile())


def write(file: IO[bytes], prepared: Any) -> tuple[int, ...]:
    """Write a pickle and the memory of its arrays; returns their lengths."""
    arrays: list[pickle.PickleBuffer] = []
    body = pickle.dumps(prepared, protocol=5, buffer_callback=arrays.append)
    pieces = [memoryview(body), *(array.raw() for array in arrays)]
    for piece in pieces:
        file.write(piece)
        file.write(bytes(-len(piece) % ALIGNMENT))
    file.flush()
    return tuple(map(len, pieces))


def send(pipe: Connection, file: IO[bytes], told: Announcement) -> None:
    """Hand a written file to the parent process."""
    pipe.send(told)
    reduction.send_handle(pipe, file.fileno(), os.getppid())


def receive(pipe: Connection, told: Announcement) -> Block:
    """Map the memory whose descriptor follows an announcement.

    Raises:
        EOFError, OSError: the worker died before it was sent.
    """
    descriptor = reduction.recv_handle(pipe)
    try:
        return Block(mmap.mmap(descriptor, 0), told)
    finally:
        os.close(descriptor)
