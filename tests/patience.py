"""How long tests wait for what comes soon: a machine that does something else besides may be a tenth as fast."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds after which something is taken to hang. Nothing takes a tenth of it on two idle cores.
PATIENCE = 300.0


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.01)
