"""What the training code takes from the harness: its errors, and what a command shows."""

from mmeb_harness import (
    Advance,
    DataError,
    HarnessError,
    ModelError,
    OptionError,
    UnknownNameError,
    __version__,
    one_line,
    plugin_code,
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
    "one_line",
    "plugin_code",
    "progress_of",
    "run_command",
    "say",
]
