"""How a command line ends: errors that a user can mend as one line, and the exit codes. Plugins' commands as well."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from mmeb_harness.core.errors import HarnessError

if TYPE_CHECKING:
    import click


def run_command(command: click.Command) -> NoReturn:
    """Run a command with the process's arguments and exit.

    Exit codes: the command's own (0 done, 1 a check failed), 2 something to mend, 130 interrupted.
    """
    import click

    try:
        sys.exit(command(standalone_mode=False))
    except HarnessError as error:
        _fail(str(error), error.exit_code)
    except click.Abort:
        _say("stopped; what is done is kept, the same command goes on from there")
        sys.stdout.flush()
        os._exit(130)  # every file is whole or not there: no thread that waits for a dead server is waited for
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)


def _fail(message: str, exit_code: int) -> NoReturn:
    _say(message)
    sys.exit(exit_code)


def _say(message: str) -> None:
    import click

    click.echo(f"error: {' '.join(message.split())}", err=True)
