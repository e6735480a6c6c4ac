"""Texts that took long to read off files, kept by the files' content: whatever they are called, wherever they lie.

A file a text, written whole or not at all, its checksum in its name: several processes may add to one folder, a killed
one loses the text it was at, and what is read back is what was written. What is broken is set aside, said, and read off
the file again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mmeb_harness.core.errors import DataError
from mmeb_harness.core.files import cache_folder, file_checksum, fingerprint, write_json
from mmeb_harness.core.items import Scalar
from mmeb_harness.core.sealed import BrokenFileError, listed, read_sealed, set_aside, write_sealed
from mmeb_harness.core.terminal import say

#: In a folder of texts: what made them.
MADE_BY = "made_by.json"
#: So many letters of a hash name a folder, so that none has more files than a listing of it is worth.
_FOLDER_LETTERS = 2


@dataclass(frozen=True)
class KeptTexts:
    """Texts of one maker, below `folder`."""

    folder: Path

    @classmethod
    def of(cls, made_by: Mapping[str, Scalar], below: Path | None = None) -> Self:
        """Those of a maker with these settings; another setting, another folder.

        Args:
            below: where all makers' texts are; default: `texts` in the user's cache folder.
        """
        folder = (below or cache_folder() / "texts") / fingerprint(made_by)
        if not (folder / MADE_BY).exists():
            write_json(folder / MADE_BY, dict(made_by))
        return cls(folder)

    def text(self, path: Path, make: Callable[[Path], str]) -> str:
        """The text of a file, from here or made now.

        Raises:
            DataError: the file can't be read.
            ResultError: the text can't be kept, or a kept one can't be read.
        """
        try:
            content = file_checksum(path)
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror or error}; get it again") from error
        if (kept := self._kept(content)) is not None:
            return kept
        text = make(path)
        write_sealed(self._part(content), content, ".txt", text.encode())
        return text

    def _part(self, content: str) -> Path:
        return self.folder / content[:_FOLDER_LETTERS]

    def _kept(self, content: str) -> str | None:
        for path in listed(self._part(content), content, ".txt"):
            try:
                return read_sealed(path).decode()
            except FileNotFoundError:  # set aside by another process
                continue
            except (BrokenFileError, UnicodeDecodeError) as error:
                say(set_aside({path: str(error)}, "it is read again"), err=True)
        return None
