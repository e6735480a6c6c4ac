"""How a command of ours ends while it still imports: Ctrl-C and too little memory are one line, no traceback.

In a process that merely uses the package nothing is changed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import sys
from types import FrameType, TracebackType
from typing import NoReturn

_PROGRAMS = {"mmeb-eval", "mmemb-r1"}
_MODULES = {"mmeb_harness", "mmemb_r1_model.cli"}
#: Of address space, with which nothing of ours can begin.
_LEAST_BYTES = 128 << 20
#: Signals by which libraries end their process for want of memory, and the exit code by which the loader does.
_ENDS_WITHOUT_MEMORY = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, -127)


def end_imports_well() -> None:
    """Until `run_command` takes over, let Ctrl-C end the process there and then, and name what the system refuses."""
    if _is_ours(sys.orig_argv):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)
        sys.excepthook = _say
        if "TORCHELASTIC_RUN_ID" in os.environ:
            # Without their torchrun ranks would wait for one another. It also says by which signal one ended, and is
            # told apart by its number, so that nobody may stand between.
            _end_with_parent(signal.SIGTERM)
        else:
            _watch_over_little_memory()


def _is_ours(words: list[str]) -> bool:
    modules = {after for word, after in itertools.pairwise(words) if word == "-m"}
    return bool(modules & _MODULES) or any(os.path.basename(word) in _PROGRAMS for word in words[:3])


def _watch_over_little_memory() -> None:
    """Under `ulimit -v` go on in a child: libraries without memory end their process by SIGABRT or SIGSEGV, in words
    that help nobody, and somebody has to be left to say what helps.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    if limit < _LEAST_BYTES:
        _end(f"this shell gives a process {limit >> 20} MB (`ulimit -v`), and none can do with less than 128", 2)
    if child := os.fork():
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(child, number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if -code in _ENDS_WITHOUT_MEMORY:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            _end(f"memory ran out ({how}): raise `ulimit -v`, {limit >> 20:,} MB now", 2)
        os._exit(code if code >= 0 else 128 - code)
    _end_with_parent(signal.SIGKILL)


def _end_with_parent(number: signal.Signals) -> None:
    """Let the system send this process a signal when its parent is gone, however that ended."""
    with contextlib.suppress(ImportError, OSError, AttributeError):  # Linux alone knows that
        import ctypes

        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def _end(line: str, code: int) -> NoReturn:
    os.write(2, f"error: {line}\n".encode(errors="replace"))
    os._exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    # Raised here, KeyboardInterrupt would be lost in some libraries' imports and shown by others.
    _end("stopped; nothing was begun", 130)


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from mmeb_harness.core.errors import of_the_system

    if line := of_the_system(error):
        _end(line, 2)
    sys.__excepthook__(kind, error, trace)
