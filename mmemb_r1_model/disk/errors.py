"""What the training code takes from the harness: its errors, and what a command shows."""

from mmeb_harness import (
    Advance,
    DataError,
    HarnessError,
    ModelError,
    OptionError,
    UnknownNameError,
    __version__,
    call_plugin,
    one_line,
    progress_of,
    run_command,
    say,
)

__all__ = [
    "Advance",
    "DataError",
    "HarnessError",
    "ModelError",
    "OptionError",
    "UnknownNameError",
    "__version__",
    "call_plugin",
    "one_line",
    "progress_of",
    "run_command",
    "say",
]
