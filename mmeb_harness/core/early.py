"""How a command of ours ends while it still imports: Ctrl-C and too little memory are one line, no traceback.

In a process that merely uses the package nothing is changed.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from types import FrameType, TracebackType

_PROGRAMS = {"mmeb-eval", "mmemb-r1"}
_MODULES = {"mmeb_harness", "mmemb_r1_model.cli"}
#: Of address space, with which nothing of ours can begin.
_LEAST_BYTES = 128 << 20
_STOPPED = b"error: stopped; nothing was begun\n"


def end_imports_well() -> None:
    """Until `run_command` takes over, let Ctrl-C end the process there and then, and name what the system refuses."""
    if _is_ours(sys.orig_argv):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)
        sys.excepthook = _say
        _refuse_too_little()


def _is_ours(words: list[str]) -> bool:
    modules = {after for word, after in itertools.pairwise(words) if word == "-m"}
    return bool(modules & _MODULES) or any(os.path.basename(word) in _PROGRAMS for word in words[:3])


def _refuse_too_little() -> None:
    """numpy's library for matrices ends a process that has no room for it with words that help nobody."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= limit < _LEAST_BYTES:
        line = f"error: this shell gives a process {limit >> 20} MB (`ulimit -v`), and none can do with less than 128"
        os.write(2, f"{line}: raise the limit\n".encode())
        os._exit(2)


def _stop(number: int, frame: FrameType | None) -> None:
    # Raised here, KeyboardInterrupt would be lost in some libraries' imports and shown by others.
    os.write(2, _STOPPED)
    os._exit(130)


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from mmeb_harness.core.errors import of_the_system

    if line := of_the_system(error):
        os.write(2, f"error: {line}\n".encode(errors="replace"))
        os._exit(2)
    sys.__excepthook__(kind, error, trace)
