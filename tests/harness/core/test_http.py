"""Bounds of what other machines send."""

from __future__ import annotations

import email.utils
import time
from datetime import UTC, datetime

import httpx2 as httpx
import pytest

from mmeb_harness.core import http
from mmeb_harness.core.http import (
    LONGEST_PAUSE_SECONDS,
    TooLargeError,
    announce_pause,
    asked_pause,
    content_of,
    deadline,
    keeping_deadlines,
)
from tests.faults.servers import bomb, drips, listen
from tests.patience import PATIENCE


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("5", 5.0), ("0.5", 0.5), ("1e18", LONGEST_PAUSE_SECONDS), ("inf", LONGEST_PAUSE_SECONDS)),
        *(("nan", 0.0), ("-3", 0.0), ("", 0.0), ("soon", 0.0), ("9" * 5000, LONGEST_PAUSE_SECONDS)),
        (email.utils.format_datetime(datetime(2999, 1, 1, tzinfo=UTC), usegmt=True), LONGEST_PAUSE_SECONDS),
        (email.utils.format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True), 0.0),
    ],
)
def test_a_pause_is_bounded_whatever_a_server_asks_for(header: str, seconds: float) -> None:
    assert asked_pause({"Retry-After": header}) == seconds


def test_a_long_pause_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    announce_pause("openai:m", 2.0, "HTTP 429")
    announce_pause("openai:m", 300.0, "HTTP 429: slow \x1b[2J")
    assert capsys.readouterr().err == "openai:m: asks for a pause (HTTP 429: slow \\u001b[2J); going on in 300 s\n"


def test_headers_that_drip_end_at_the_deadline() -> None:
    port, started = listen(drips(b"HTTP/1.1 200 OK\r\nX-Wait: ", b".")), time.monotonic()
    with (
        keeping_deadlines(httpx.Client(timeout=60)) as client,
        pytest.raises(httpx.TimeoutException),
        deadline(0.3),
    ):
        client.get(f"http://127.0.0.1:{port}/")
    assert time.monotonic() - started < 15


def test_what_is_packed_is_bounded_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST_ANSWER", 5_000_000)
    address = f"http://127.0.0.1:{listen(bomb(8))}/"
    with (
        httpx.Client(timeout=PATIENCE) as client,
        client.stream("GET", address) as response,
        pytest.raises(TooLargeError, match=r"more than 5\.0 MB"),
    ):
        content_of(response)
