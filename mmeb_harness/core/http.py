"""Bounds for what other machines send: a deadline for a whole exchange, a largest answer, a longest pause.

The client's own timeouts are for one read: a server that sends a byte now and then is never late by them. Nor does
it bound what a few kilobytes unpack to, or how long a server may ask to be left alone.
"""

from __future__ import annotations

import contextlib
import email.utils
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.errors import HarnessError
from mmeb_harness.core.files import readable_size
from mmeb_harness.core.terminal import say

if TYPE_CHECKING:
    import httpx2 as httpx

#: A server that limits requests says how long to wait; no longer than this is waited.
LONGEST_PAUSE_SECONDS = 300.0
#: Shorter pauses aren't worth a line.
_ANNOUNCED_SECONDS = 10.0
#: Of an unpacked answer: 2,048 vectors of 4,096 numbers, as text, are 180 MB.
LARGEST_ANSWER = 256 * 10**6

#: Seconds without a byte of an answer after which, again and again, its `watch` is called.
WATCH_SECONDS = 20.0

_here = threading.local()


class TooLargeError(HarnessError):
    """An answer, unpacked, is larger than any that could be meant."""


@contextlib.contextmanager
def deadline(seconds: float, watch: Callable[[], None] | None = None) -> Iterator[None]:
    """Inside, what this thread asks over clients of `keeping_deadlines` ends in time, by httpx's TimeoutException.

    Args:
        watch: called while an answer stays silent; ends the exchange by what it raises.
    """
    _here.until, _here.watch = time.monotonic() + seconds, watch
    try:
        yield
    finally:
        _here.until, _here.watch = math.inf, None


def keeping_deadlines(client: httpx.Client) -> httpx.Client:
    """The client, whose reads and writes from now on know of `deadline`.

    Its transports have no public place for a network backend of one's own; a test holds that there is this one.
    """
    for transport in (client._transport, *client._mounts.values()):
        pool: Any = getattr(transport, "_pool", None)
        if pool is not None and not isinstance(pool._network_backend, _Backend):
            pool._network_backend = _Backend(pool._network_backend)
    return client


def content_of(response: httpx.Response) -> bytes:
    """A streamed response's content.

    Raises:
        TooLargeError: above `LARGEST_ANSWER`, unpacked.
    """
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise TooLargeError(f"the answer has more than {readable_size(LARGEST_ANSWER)}")
    return bytes(content)


def asked_pause(headers: Mapping[str, str]) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date, within bounds; 0 without one."""
    header = headers.get("Retry-After", "")
    try:
        seconds = float(header)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return min(seconds, LONGEST_PAUSE_SECONDS) if seconds > 0 else 0.0


def announce_pause(who: str, seconds: float, why: str) -> None:
    """Say that nothing is asked of a server for a while, if it is long."""
    if seconds >= _ANNOUNCED_SECONDS:
        say(f"{who}: asks for a pause ({why}); going on in {seconds:.0f} s", err=True)


def _left(seconds: float | None) -> float | None:
    """What is left of a timeout before the deadline; it must not be 0, which would mean not to wait at all."""
    left = float(getattr(_here, "until", math.inf)) - time.monotonic()
    return seconds if math.isinf(left) else max(1e-3, min(left, math.inf if seconds is None else seconds))


class _Stream:
    """A connection that knows of the deadline of the thread that uses it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        from httpcore2 import ReadTimeout

        watch, left = getattr(_here, "watch", None), _left(timeout)
        until = math.inf if left is None else time.monotonic() + left
        while watch is not None and (left := until - time.monotonic()) > WATCH_SECONDS:
            with contextlib.suppress(ReadTimeout):  # nothing was lost: the next read goes on
                return bytes(self._inner.read(max_bytes, WATCH_SECONDS))
            watch()
        return bytes(self._inner.read(max_bytes, None if left is None else max(1e-3, left)))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend:
    """Makes such connections."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self._inner.connect_tcp(host, port, timeout=_left(timeout), **options))

    def connect_unix_socket(self, path: str, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self._inner.connect_unix_socket(path, timeout=_left(timeout), **options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)
