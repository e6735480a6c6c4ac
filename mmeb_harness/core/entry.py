"""How a command line ends: errors that a user can mend as one line, and the exit codes. Plugins' commands as well."""

from __future__ import annotations

import gc
import inspect
import itertools
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from mmeb_harness.core.errors import HarnessError, no_room, of_the_system, with_way_out
from mmeb_harness.core.imports import spare_pandas
from mmeb_harness.core.interrupt import command_running, end_now
from mmeb_harness.core.plugins import exit_line, exits_told
from mmeb_harness.core.terminal import lost_output, open_streams, say

if TYPE_CHECKING:
    import click


def run_command(command: click.Command) -> NoReturn:
    """Run a command with the process's arguments and exit.

    Exit codes: the command's own (0 done, 1 a check failed), 2 something to mend, 130 interrupted.
    """
    open_streams()
    spare_pandas()
    _list_whole(command)
    try:
        with command_running(), exits_told():
            _prepare()
            code = _ended(command)
        if code == 0 and (lost := lost_output()):
            _fail(f"standard output can't be written ({lost.strerror}), so what was to be printed is lost", 2)
    except KeyboardInterrupt:
        end_now()
    finally:
        gc.freeze()  # or Python looks for garbage among all modules as it ends, beside torch for 0.6 s
    sys.exit(code)


def _list_whole(command: click.Command) -> None:
    """Say in full what each listed command does, over two lines where it must; click cuts its first paragraph off."""
    for listed in getattr(command, "commands", {}).values():
        first = inspect.cleandoc(listed.help or "").partition("\n\n")[0]
        listed.short_help = listed.short_help or " ".join(first.split()).rstrip(".")
        _list_whole(listed)


def _ended(command: click.Command) -> int:
    """The exit code of a command that was run."""
    import click

    try:
        return int(command(standalone_mode=False) or 0)
    except SystemExit as error:
        if _is_completing():
            return int(error.code or 0)
        if error.code != 1:  # that a check failed, commands of ours say so; where they are done they return
            _fail(exit_line(error), 2)
        return 1
    except HarnessError as error:
        _fail(with_way_out(error), error.exit_code, is_safe=not no_room(error))
    except click.Abort:
        end_now()
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except Exception as error:
        if line := of_the_system(error):
            _fail(line, 2, is_safe=not no_room(error))
        say(traceback.format_exc(), err=True, end="")
        return 1


def _is_completing() -> bool:
    """Whether a shell asks what may come next, which click answers before any command of ours runs."""
    program = re.sub(r"\W", "_", os.path.basename(sys.argv[0])).upper()
    return bool(os.environ.get(f"_{program}_COMPLETE"))


def _prepare() -> None:
    """What libraries take for granted: a folder to be in, and a name of the user; and that every word says something.

    Raises:
        SystemExit: there is no folder to be in, or a word is empty.
    """
    for before, word in itertools.pairwise(sys.argv):
        # As a shell writes a variable that isn't set. As a path it would be this folder, as a choice all there is.
        if not word or re.fullmatch(r"--[a-z-]+=", word):
            _fail(f"the word after {before!r}, {word!r}, says nothing; is a variable of the shell not set?", 2)
    try:
        os.getcwd()
    except OSError:
        _fail("the folder that the command was started in is gone; cd to one that exists", 2)
    if not {"LOGNAME", "USER", "LNAME", "USERNAME"} & set(os.environ):
        import pwd

        try:
            pwd.getpwuid(os.getuid())
        except KeyError:  # torch asks for it, to name a cache
            os.environ["USER"] = f"uid{os.getuid()}"


def _fail(message: str, exit_code: int, *, is_safe: bool = True) -> NoReturn:
    """End with a line.

    Args:
        is_safe: whether libraries can still tidy up; without memory some of them crash over it.
    """
    say(f"error: {' '.join(message.split())}", err=True)
    if not is_safe:
        os._exit(exit_code)
    sys.exit(exit_code)
