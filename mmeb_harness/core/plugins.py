"""Where code of a plugin runs: whatever it raises ends as one line with its name, file and line.

With MMEB_TRACEBACK=1 in the environment the traceback is printed as well.
"""

from __future__ import annotations

import contextlib
import dis
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TypeVar

from mmeb_harness.core.errors import HarnessError, ModelError, PluginError, is_out_of_memory, of_the_system, one_line
from mmeb_harness.core.terminal import say

Value = TypeVar("Value")

#: Environment variable that asks for tracebacks.
TRACEBACK = "MMEB_TRACEBACK"
HINT = f"; {TRACEBACK}=1 before the command shows the traceback"
_HARNESS = str(Path(__file__).parents[1])
_STANDARD = os.path.dirname(os.__file__)
#: Files whose frames tell nothing.
_OURS = (
    *(_HARNESS, "<frozen", contextmanager.__code__.co_filename),
    os.path.join(_STANDARD, "importlib"),
)
_COMPREHENSIONS = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")
#: What a user, or whoever closes a generator, raises in others' code.
_FROM_OUTSIDE = (KeyboardInterrupt, GeneratorExit)


@contextmanager
def plugin_code(who: str, over: Callable[[], str] = str) -> Iterator[None]:
    """Inside, code of a plugin runs; afterwards the process is in the folder that it was in before.

    Args:
        who: the plugin, and what it was to do.
        over: says what it was at, e.g. which items; asked only where something went wrong.

    Raises:
        PluginError: it raised an error of its own, called sys.exit, or raised KeyboardInterrupt without anybody having
            pressed Ctrl-C. Memory that ran out, and errors that a user can mend, come as they are.
    """
    folder = _folder()
    try:
        yield
    except HarnessError:
        raise
    except BaseException as error:
        if is_out_of_memory(error) or (isinstance(error, _FROM_OUTSIDE) and _is_from_outside(error)):
            raise
        if os.environ.get(TRACEBACK):
            say("".join(traceback.format_exception(error)), err=True, end="")
        if line := of_the_system(error):
            raise PluginError(f"{who}{over()}: {line}") from error
        line = f"{who}: {_what_happened(error)}{_place(error)}{over()}"
        raise PluginError(f"{line}{HINT}") from error
    finally:
        if folder is not None and folder != _folder():
            os.chdir(folder)  # else results would lie where nobody looks for them


@contextmanager
def importing(who: str) -> Iterator[None]:
    """Inside, a plugin is imported. What it prints isn't the command's output.

    Raises:
        ModelError, PluginError: it can't be.
    """
    with plugin_code(who), contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        except (ImportError, AttributeError, MemoryError) as error:
            line = of_the_system(error) or f"{one_line(error)}; is its package complete?"
            raise ModelError(f"{who}: {line}") from error
        except HarnessError as error:
            raise ModelError(f"{who}: {error}") from error


def call_plugin(who: str, call: Callable[[], Value]) -> Value:
    """What a plugin's function returns; for plugins that have plugins, whose own lines then aren't named for theirs.

    Args:
        call: a bound method or a partial: a lambda would have a line of its own.

    Raises:
        PluginError: as in `plugin_code`.
    """
    with plugin_code(who):
        return call()


@contextmanager
def exits_told() -> Iterator[None]:
    """Inside, who calls `os._exit` in this process is named first: no command ends as if it were done."""
    leave, process = os._exit, os.getpid()

    def told(status: int) -> NoReturn:
        caller = sys._getframe(1)
        if os.getpid() != process or caller.f_code.co_filename.startswith(_HARNESS):
            leave(status)
        with contextlib.suppress(BaseException):
            where = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}, in {caller.f_code.co_name}"
            say(
                f"error: a plugin called os._exit({status!r}) ({where}) before the command was done; what is done is "
                "kept, and the same command goes on without that call",
                err=True,
            )
        leave(status or 2)

    os._exit = told
    try:
        yield
    finally:
        os._exit = leave


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted meanwhile
        return None


def exit_line(error: SystemExit) -> str:
    """What to say of an exit that no command of ours asked for."""
    return f"a plugin {_what_happened(error)}{_place(error)} before the command was done"


def _what_happened(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r})"
    said = one_line(error)
    return said if said == type(error).__name__ else f"{type(error).__name__}: {said}"


def _place(error: BaseException) -> str:
    """File, line and function where the plugin's own code ended up, and of its own code that called that."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OURS)]
    if not frames:
        return ""
    folder = os.path.dirname(min(frames, key=_strangeness).filename)
    own: list[traceback.FrameSummary] = []
    for frame in frames:
        if os.path.dirname(frame.filename) == folder:
            if frame.name in _COMPREHENSIONS and own:  # a frame of its own within its function's
                frame.name = own.pop().name
            own.append(frame)
    *callers, last = [f"{os.path.basename(frame.filename)}:{frame.lineno}, in {frame.name}" for frame in own]
    return f" ({last}; called in {callers[-1]})" if callers else f" ({last})"


def _strangeness(frame: traceback.FrameSummary) -> int:
    """The plugin's own file before what it uses, and before what calls it, as a decorator of torch's does."""
    is_installed = f"-packages{os.sep}" in frame.filename
    if f"{os.sep}torch{os.sep}" in frame.filename or (frame.filename.startswith(_STANDARD) and not is_installed):
        return 2
    return int(is_installed)


def _is_from_outside(error: BaseException) -> bool:
    """It comes between two instructions, or through our own handler; what a plugin raises, a statement raises."""
    last: TracebackType | None = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or last.tb_frame.f_code.co_filename.startswith(_HARNESS):
        return True
    return dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] != "RAISE_VARARGS"
