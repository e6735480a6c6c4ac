"""Commands of ours under conditions that a shell or a machine sets: a script arranges them, and becomes the command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.faults.fault import Command, World
from tests.forked import PROGRAMS

_SCRIPT = """#!{python}
import os, resource, sys
{conditions}
from mmeb_harness.cli.commands import main
main()
"""


def under(world: World, conditions: str, words: Sequence[str], *, anew: bool = False) -> Command:
    """The command `mmeb-eval WORDS` after some lines of Python.

    Args:
        anew: in a process that begins with them, so that they hold while Python starts and everything is imported.
    """
    script = world.folder / "under.py"
    program = str(PROGRAMS / "mmeb-eval")
    begins = f"os.execv({program!r}, [{program!r}, *sys.argv[1:]])" if anew else ""
    script.write_text(_SCRIPT.format(python=sys.executable, conditions=f"{conditions}\n{begins}"))
    script.chmod(0o755)
    return (str(script), *words)
