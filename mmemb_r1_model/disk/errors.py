"""What the training code takes from the harness: its errors, and how a command shows them."""

from mmeb_harness import DataError, HarnessError, ModelError, OptionError, UnknownNameError, one_line, run_command, say

__all__ = [
    "DataError",
    "HarnessError",
    "ModelError",
    "OptionError",
    "UnknownNameError",
    "one_line",
    "run_command",
    "say",
]
