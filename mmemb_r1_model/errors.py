"""The harness's errors, which the command line shows in one line; the training code's only tie to it."""

from mmeb_harness import DataError, HarnessError, ModelError, OptionError, UnknownNameError

__all__ = ["DataError", "HarnessError", "ModelError", "OptionError", "UnknownNameError"]
