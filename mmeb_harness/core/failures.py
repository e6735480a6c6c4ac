"""How an error goes from process to process."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import cast

from mmeb_harness.core.errors import HarnessError, PluginError
from mmeb_harness.core.secrets import masked


@dataclass(frozen=True)
class Failure:
    """An error that can be pickled, whatever it was.

    Attributes:
        pickled: the error, or kind, message and keys of a HarnessError: not each can be made again from its arguments.
            `None` if it can't be pickled.
        text: its traceback.
    """

    pickled: bytes | None
    text: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """What to send of an error to another process."""
        told = (type(error), masked(str(error)), error.keys) if isinstance(error, HarnessError) else error
        text = masked("".join(traceback.format_exception(error)))  # the other process needn't know the key
        try:
            pickled = pickle.dumps(told)
            pickle.loads(pickled)
        except Exception:  # whatever an exception of somebody else does when it is pickled
            return cls(None, text)
        return cls(pickled, text)

    def error(self, where: str) -> Exception:
        """The error to raise in this process. What a plugin raised, or a bug of ours, has its traceback in a note."""
        told = RuntimeError(self.text.splitlines()[-1]) if self.pickled is None else pickle.loads(self.pickled)
        if not isinstance(told, Exception):
            kind, message, keys = told
            told = cast(HarnessError, kind.__new__(kind, message)).about(keys)
        if isinstance(told, PluginError) or not isinstance(told, HarnessError):
            told.add_note(f"{where}:\n{self.text}")
        return told
