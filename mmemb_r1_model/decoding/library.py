"""What differs between versions of transformers, in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any


@lru_cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """What a model's `forward` calls its cache: renamed in transformers 5.2x; both spellings are in use."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
