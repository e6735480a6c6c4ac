"""Sounds: opened in one place, by libsndfile: WAV, FLAC, OGG, MP3 and what else it knows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmeb_harness.core.errors import DataError, one_line
from mmeb_harness.core.files import LFS_POINTER, regular_file

if TYPE_CHECKING:
    from soundfile import SoundFile

#: Beyond what any recorder writes; a header may claim anything.
MOST_CHANNELS, MOST_HERTZ = 64, 1_000_000
#: Seconds; shorter ones are officially no audio at all.
SHORTEST_SOUND = 0.025

_WRITE_ANEW = "save it anew as WAV"
#: Samples of each channel that are decoded at once.
_BLOCK = 1 << 16


class SoundError(DataError):
    """A sound that can't be opened; `why` says so without its name, with the way out."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"sound {path} can't be opened: {why}")
        self.why = why


@contextlib.contextmanager
def opened_sound(path: Path) -> Iterator[SoundFile]:
    """A sound whose header was read; samples are decoded when they are asked for.

    Raises:
        SoundError: not there, no file, no sound, or empty; and whatever is raised over its bytes while it is open.
    """
    import soundfile

    try:
        with soundfile.SoundFile(regular_file(path)) as file:
            if file.channels > MOST_CHANNELS or not 0 < file.samplerate <= MOST_HERTZ:
                raise SoundError(
                    path, f"it has {file.channels} channels of {file.samplerate:,} samples a second; {_WRITE_ANEW}"
                )
            if file.frames <= 0:
                raise SoundError(path, "it holds no samples; get it again")
            yield file
    except (OSError, soundfile.SoundFileError) as error:
        raise SoundError(path, _why(error, path)) from error


def sound_seconds(path: Path) -> float:
    """How long a sound is, from its header.

    Raises:
        SoundError: as `opened_sound`.
    """
    with opened_sound(path) as file:
        return float(file.frames) / float(file.samplerate)


def decode_whole(path: Path) -> None:
    """Decode a sound from end to end.

    Raises:
        SoundError: as `opened_sound`; or it ends early.
    """
    with opened_sound(path) as file:
        decoded = sum(map(len, file.blocks(_BLOCK, dtype="float32")))
        if decoded < file.frames:
            raise SoundError(path, f"it ends after {decoded:,} of {file.frames:,} samples; get it again")


def is_sound(head: bytes) -> bool:
    """Whether a file that begins so is a sound of one of the usual kinds."""
    return head.startswith((b"fLaC", b"OggS", b"ID3")) or (head.startswith(b"RIFF") and head[8:12] == b"WAVE")


def _why(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.strerror}; get it again"
    if isinstance(error, OSError):
        return f"{error.strerror or error}; put a file there that can be read"
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
    if not head:
        return "it is empty; get it again"
    if head == LFS_POINTER:
        return "it is a pointer of git-lfs; get the file itself with `git lfs pull`"
    said = str(getattr(error, "error_string", one_line(error, 120))).rstrip(".")
    return f"it is no sound that libsndfile reads, or damaged ({said}); get it again, or {_WRITE_ANEW}"
