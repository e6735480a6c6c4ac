"""Python's search for garbage, which finds none among modules."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmeb_harness.core.interrupt import is_command

#: Modules of a large library; fewer are looked through in no time.
MANY = 200


@contextmanager
def collector_paused() -> Iterator[None]:
    """While large libraries are imported: all that is made then stays, and to look through it again and again takes a
    fifth of what importing transformers takes.

    Nor is it looked through afterwards, if this process is a command: what others hold in a notebook, they may let go.
    """
    was_enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if is_command() and len(sys.modules) > modules + MANY:
                gc.freeze()
            gc.enable()
