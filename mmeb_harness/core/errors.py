"""What can go wrong for a user, as one tree. The CLI prints such an error as one line and exits with 2.

HarnessError
├── UnknownNameError      a task, model or option that does not exist; carries the nearest name
├── OptionError           a value that an option or a configuration file can't take
├── DataError             annotations or media that are missing, broken or not as declared
├── ModelError            a model that can't be loaded, or whose vectors can't be used
├── PluginError           a plugin's own code that raised an error of its own, or tried to end the process
└── ResultError           a results folder or file that can't be read or written

A programming error is none of these and keeps its traceback; a plugin's becomes a PluginError (see `core.plugins`).
"""

from __future__ import annotations

import difflib
import errno
import sys
from collections.abc import Iterable, Sequence
from typing import Self

from mmeb_harness.core.secrets import masked


class HarnessError(Exception):
    """Base of every error that a user can mend. `str(error)` is one line that says how.

    Attributes:
        keys: content keys of the items that it is about: who knows their tasks names these as well.
        other_release: it is about a file of another release: nothing is wrong with that, and it isn't written over.
    """

    exit_code = 2
    keys: tuple[str, ...] = ()
    other_release = False

    def about(self, keys: Iterable[str]) -> Self:
        """The same error; unless it says so already, it is about these items."""
        self.keys = self.keys or tuple(keys)
        return self


class UnknownNameError(HarnessError):
    """No such task, model, group or option; what is near is named, and it may be one of those that can't be used.

    Args:
        editions: of the benchmark that have it.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str],
        unusable: Sequence[str] = (),
        editions: Sequence[str] = (),
    ) -> None:
        names = sorted(known)
        near = near_names(name, names)
        every = shortened(names) or "none (is the package installed?)"
        hint = f"Did you mean {_either(near)}?" if near else f"Known: {every}."
        if editions:
            hint = f"It is in --edition {' or '.join(editions)}."
        broken = f" Can't be used: {shortened(unusable, 3)}" if unusable else ""
        super().__init__(f"no {kind} named {name!r}. {hint}{broken}")


class OptionError(HarnessError):
    """An option, model argument or configuration value that can't be used as given."""


class DataError(HarnessError):
    """Annotations or media are missing, broken, or not what the task declares."""


class ModelError(HarnessError):
    """A model can't be loaded, or returned vectors that can't be ranked."""


class PluginError(HarnessError):
    """A plugin's code raised what is none of these errors, or tried to end the process; its cause is what it raised."""


class ResultError(HarnessError):
    """A results folder or file can't be read or written, or was written by a newer version."""


class NotAFileError(OSError):
    """A folder, a pipe, a socket or a device lies where a file is meant, or a link to nowhere."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Known names that may be meant, the nearest first: all that are about as near as the nearest.

    One that begins with what was written is nearer than one that holds it; others are by the letters they share.
    """
    wanted = name.lower()
    scores = {known_name: _nearness(wanted, known_name.lower()) for known_name in known}
    enough = max([0.5, *(score - 0.05 for score in scores.values())])
    return sorted((name for name, score in scores.items() if score >= enough), key=lambda name: (-scores[name], name))


def _nearness(wanted: str, known: str) -> float:
    if len(wanted) > 1 and wanted in known:
        return 1.0 if wanted == known else 0.95 if known.startswith(wanted) else 0.9
    return difflib.SequenceMatcher(None, known, wanted).ratio()


def _either(names: Sequence[str], most: int = 5) -> str:
    """Names as a choice: "'a', 'b' or 'c'"; of many the first, and how many more there are."""
    quoted = [repr(name) for name in names]
    if len(quoted) > most:
        return f"one of {shortened(quoted, most)}"
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def one_line(error: BaseException, longest: int | None = 500) -> str:
    """What an error says, as one line; its class where it says nothing."""
    return " ".join(masked(text_of(error)).split())[:longest] or type(error).__name__


def text_of(error: BaseException) -> str:
    """What an error says; nothing where its own code for that raises."""
    try:
        return str(error)
    except Exception:
        return ""


def shortened(texts: Iterable[str], most: int = 12) -> str:
    """The first texts, and how many more there are."""
    every = list(texts)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 task", "1,024 tasks"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def leading(texts: Sequence[str], most: int = 5) -> str:
    """The first texts, and an ellipsis where there are more."""
    return ", ".join(texts[:most]) + (" …" if len(texts) > most else "")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, a device's or the CPU's, or whether that caused the error.

    Python's own kind, torch's by its name (the harness doesn't import it), and what drivers say in a RuntimeError.
    """
    known = any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__) or isinstance(error, MemoryError)
    text = text_of(error).lower()
    said = isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    )
    return known or said or (error.__cause__ is not None and is_out_of_memory(error.__cause__))


#: Of a name that can't be written down, whose letters the locale may not know.
NO_UTF8 = "is no UTF-8: rename it, or set PYTHONUTF8=1 where the locale knows ASCII only"
#: What the system refuses, and what the user can do.
_WAYS_OUT = {
    errno.ENOSPC: "free some space there, or name another folder",
    errno.EDQUOT: "free some space there, or name another folder",
    errno.EFBIG: "raise `ulimit -f`, or name a folder of another file system",
    errno.EIO: "is the disk broken, or a mount gone?",
    errno.EROFS: "name a folder that can be written",
    errno.EEXIST: "something else lies there: move it away, or choose another folder",
    errno.ENOTDIR: "a file lies where a folder is meant: move it away, or choose another folder",
    errno.EISDIR: "a folder lies where a file is meant: move it away, or choose another folder",
    errno.EACCES: "name a folder or file of yours, or change its owner or mode",
    errno.EPERM: "name a folder or file of yours, or change its owner or mode",
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "close other programs, or raise fs.file-max",
    errno.EAGAIN: "raise `ulimit -u`, or use fewer --workers",
    errno.ENAMETOOLONG: "name a shorter --output",
    errno.ELOOP: "name what the links are to lead to",
}
#: Words of the loader, of Python and of numerical libraries when an address space is too small for them.
_NO_ROOM = (
    *("cannot allocate memory", "failed to map segment", "can't start new thread", "failed to launch worker thread"),
    *("unable to allocate", "std::bad_alloc", "resource temporarily unavailable"),
)
_MORE_MEMORY = "raise `ulimit -v` or the container's limit, or use fewer --workers and a smaller --batch-tokens"


def no_room(error: BaseException) -> bool:
    """Whether the system gave no more memory or threads, or that caused the error."""
    # Python's own parts end in a SystemError where there is no room for another error.
    said = isinstance(error, SystemError) or any(words in text_of(error).lower() for words in _NO_ROOM)
    return said or is_out_of_memory(error) or (error.__cause__ is not None and no_room(error.__cause__))


def with_way_out(error: HarnessError) -> str:
    """What an error says; and where memory is its cause, what helps against that."""
    line = str(error)
    return f"{line}; {_MORE_MEMORY}" if no_room(error) and "ulimit" not in line else line


def way_out_of(error: OSError) -> str | None:
    """What the user can do where the system refuses something; `None` where that depends."""
    if isinstance(error, NotAFileError):
        return "move it away, or name another"
    return None if error.errno is None else _WAYS_OUT.get(error.errno)


def of_the_system(error: BaseException) -> str | None:
    """What to say of an error that the machine is to blame for, not the code; `None` of any other.

    Memory, space, descriptors, permissions, no home and no temporary folder: with the way out.
    """
    text = one_line(error, 300)
    if no_room(error):
        original = text_of(error).rpartition("Original error was:")[2]  # numpy's advice before it is a page long
        return f"memory ran out ({' '.join(original.split())[:300] or type(error).__name__}): {_MORE_MEMORY}"
    if isinstance(error, OSError) and (way_out := way_out_of(error)):
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror or text}; {way_out}"
    if isinstance(error, FileNotFoundError) and "temporary directory" in text:
        return f"{text}; set TMPDIR to a folder that can be written"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return "no home folder is known (HOME isn't set, and the user has no entry in passwd): set HOME, or MMEB_CACHE"
    if isinstance(error, UnicodeEncodeError) and ("surrogates" in text or sys.getfilesystemencoding() != "utf-8"):
        name = error.object[:300].strip()
        return f"the name {name!r} {NO_UTF8}"
    return None if error.__cause__ is None else of_the_system(error.__cause__)
