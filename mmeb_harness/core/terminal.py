"""The way to the terminal: everything that is printed goes through `say` or a `console`, and never ends the work.

Names, paths, servers' and plugins' texts come from others. A terminal obeys escape sequences and hides what bidi and
zero-width signs cover, so these are spelled out; keys are masked; what an encoding lacks is replaced. What can't be
written (a full disk, a reader that has left) is dropped, and `run_command` says so at the end.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import select
import sys
import time
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.secrets import masked

if TYPE_CHECKING:
    from rich.console import Console

#: Width of tables where there is no terminal: nothing has to fit.
ENDLESS = 200
#: C0 and C1 but tab and line feed, the controls of direction, width and annotation, lone surrogates, tags.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    """A text as it may be printed: keys masked, control signs spelled out as JSON does, "\\u001b"."""
    return _OBEYED.sub(_spelled, masked(text))


def shown_name(text: str) -> str:
    """A name as it may be printed: `shown`, in one line."""
    return shown(text.replace("\n", "\\n"))


def say(text: str = "", *, err: bool = False, end: str = "\n") -> None:
    """Print a text, and at once."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        stream.write(shown(text) + end)
        stream.flush()


def say_kept(text: str) -> None:
    """Print where finished work lies: on standard error if standard output is lost, which then is no failure."""
    say(text)
    output = _sink(sys.stdout)
    if output is not None and output.lost is not None:
        output.is_made_good = True
        say(f"{text}; standard output can't be written ({output.lost.strerror})", err=True)


def print_shown(console: Console, line: str) -> None:
    """Print a line as it is: what looks like markup is text, and the terminal wraps it."""
    console.print(shown(line), highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_logged(console: Console, line: str) -> None:
    """Print a line of a log: the time of day, then the line."""
    print_shown(console, f"{time.strftime('%H:%M:%S')} {line}")


def console(*, width_elsewhere: int | None = None) -> Console:
    """Standard output for tables and bars; what looks like markup is text.

    Args:
        width_elsewhere: where there is no terminal; by default COLUMNS, or 80.
    """
    return _console_class()(
        markup=False,
        emoji=False,
        highlight=False,
        width=width_elsewhere if width_elsewhere and not sys.stdout.isatty() else None,
    )


def error_console() -> Console:
    """Standard error for what passes: bars, and lines of how far something is."""
    return _console_class()(stderr=True, markup=False, emoji=False, highlight=False)


def paper(file: io.StringIO, width: int) -> Console:
    """A console that writes into a text, without colours, whatever FORCE_COLOR asks for."""
    return _console_class()(
        file=file, width=width, markup=False, emoji=False, highlight=False, color_system=None, force_terminal=False
    )


def open_streams() -> None:
    """Let standard output and error take everything, whatever their encoding, and whether or not they can be written.

    A closed one becomes /dev/null, or a file of ours would get its number.
    """
    codecs.register_error("shown", _replaced)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _discard(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, io.TextIOWrapper):
            encoding = getattr(stream, "encoding", "utf-8")
            buffer = io.BufferedWriter(_Sink(number))  # type: ignore[type-var]
            setattr(sys, name, io.TextIOWrapper(buffer, encoding, "shown", line_buffering=number == 2))


def lost_output() -> OSError | None:
    """Why what a command printed is lost; `None` if it isn't, its reader has left, or `say_kept` told the result."""
    with contextlib.suppress(AttributeError):
        sys.stdout.flush()
    output = _sink(sys.stdout)
    if output is None or output.is_made_good or isinstance(output.lost, BrokenPipeError):
        return None
    return output.lost


class _Sink(io.RawIOBase):
    """A descriptor that takes everything: after the first failure nothing arrives, and `lost` says why."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.lost: OSError | None = None
        self.is_made_good = False

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            try:
                return os.write(self._number, content)
            except BlockingIOError:
                select.select([], [self._number], [])
            except OSError as error:
                self.lost = error
                _discard(self._number)
                return len(content)


def _sink(stream: object) -> _Sink | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Sink) else None


def _discard(number: int) -> None:
    """Let what is written under this number go nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)


def _spelled(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """What an encoding lacks as its nearest ASCII: "…" as "...", "é" as "e", else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_DASHES.get(sign) or _ascii(sign) for sign in lacking), error.end


_DASHES = {"–": "-", "—": "-", "×": "x", "→": "->", "·": "-", "“": '"', "”": '"', "’": "'"}


def _ascii(sign: str) -> str:
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


def _console_class() -> type[Console]:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Clean(Console):
        """Prints no text of others as it is; only rich's control codes. In a notebook it displays nothing by itself."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings, force_jupyter=False)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(shown(segment.text), segment.style)

    return Clean
