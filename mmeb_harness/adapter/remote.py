"""Requests to a server over HTTP: many at once, tried again where that may help, and told apart when they fail.

    408 409 425 429 5xx, timeouts, half an answer                       `MayPassError`, after all attempts
    no connection to a server that was there, 502, 503, 504             the same, after three minutes
    400 413 415 422 … (this one request isn't wanted)                   `RefusedError` at once
    401 402 403 404 …, redirects, nobody at the address                 `ModelError` at once

The key is read from the environment when an endpoint is opened and goes nowhere but into the request's header.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import httpx2 as httpx

from mmeb_harness.core.errors import ModelError, OptionError, one_line
from mmeb_harness.core.files import parse_json
from mmeb_harness.core.http import (
    WATCH_SECONDS,
    TooLargeError,
    announce_pause,
    asked_pause,
    content_of,
    deadline,
    keeping_deadlines,
)
from mmeb_harness.core.secrets import keep_secret, masked
from mmeb_harness.core.terminal import say
from mmeb_harness.core.threads import in_background

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

#: Seconds before the second attempt; then they double.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
#: How long a server that was there is waited for: one that starts again has to load its weights.
RESTART_SECONDS = 180.0
#: Longest pause before it is looked for again.
_LONGEST_LOOK_SECONDS = 5.0
#: A failed attempt that took so long is worth a line.
_ANNOUNCED_SECONDS = 60.0
#: For a connection, as opposed to an answer.
_CONNECT_SECONDS = 30.0
#: Asks taken ahead of the oldest one without an answer, for each thread: one slow request doesn't stop the others.
ASKS_AHEAD = 4

_MAY_PASS = {408, 409, 425, 429}
#: Of a proxy whose server isn't there, or of one that is starting.
_GONE = {502, 503, 504}
#: Bytes of an answer that are looked at for its message.
_LONGEST_MESSAGE = 1 << 16
_ONE_REQUEST = {400, 411, 413, 414, 415, 416, 422, 431, 451}


class MayPassError(Exception):
    """An attempt failed, and another one may not."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class GoneError(MayPassError):
    """A server that was there isn't: it may be starting again."""


class RefusedError(Exception):
    """The server doesn't want this one request."""


class StatusError(ModelError):
    """A status that no other request would change."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Remote:
    """A server, and how it is asked.

    Attributes:
        owner: whose settings these are, for messages.
        base_url: up to and with /v1.
        model: the server's name for it, for messages.
        api_key_env: name of the environment variable with the key.
        timeout_seconds: for one attempt, until its answer is there whole.
        max_retries: further attempts.
        max_parallel: requests under way at once.
        requests_per_minute: attempts of all threads together; `None`: no limit.
        base_url_setting, api_key_setting: what the user calls these two, for messages.
    """

    owner: str
    base_url: str
    model: str
    api_key_env: str | None
    timeout_seconds: float
    max_retries: int
    max_parallel: int
    requests_per_minute: float | None = None
    base_url_setting: str = "base_url"
    api_key_setting: str = "api_key_env"


class Endpoint:
    """One server, asked with many requests at once."""

    def __init__(self, remote: Remote) -> None:
        """Read the key.

        Raises:
            OptionError: its variable isn't set, or can't be a key.
        """
        self._remote = remote
        self._key = _read_key(remote)
        self._base = remote.base_url.rstrip("/")
        self._closed = threading.Event()
        self._pace = _Pace(remote.requests_per_minute, self._closed)
        self._reached = False
        self._lock = threading.Lock()
        #: Whether the user knows that the server is waited for.
        self._awaited = False
        #: When it was last looked for in a silent wait, by `time.monotonic`.
        self._looked = -math.inf

    def each(self, answer: Callable[[httpx.Client, Ask], Answer], asks: Iterable[Ask]) -> Generator[Answer, None, None]:
        """`answer` of every ask, in the order of the asks, with up to `max_parallel` under way."""
        with self.sending(answer) as send:
            yield from _in_order(asks, send, ahead=self._remote.max_parallel * ASKS_AHEAD)

    @contextlib.contextmanager
    def sending(self, answer: Callable[[httpx.Client, Ask], Answer]) -> Iterator[Callable[[Ask], Future[Answer]]]:
        """Send asks without waiting for their answers, with up to `max_parallel` under way.

        Gives a function that takes an ask and promises its answer. Whoever leaves doesn't wait: asks without an
        answer are dropped, and get none.
        """
        jobs: SimpleQueue[tuple[Ask, Future[Answer]] | None] = SimpleQueue()
        threads = self._remote.max_parallel
        self._closed.clear()

        def send(ask: Ask) -> Future[Answer]:
            future: Future[Answer] = Future()
            jobs.put((ask, future))
            return future

        with self.client() as client:
            for _ in range(threads):
                # Daemons: whoever ends the run needn't wait for answers that nobody will read.
                in_background(partial(self._serve, client, answer, jobs))
            try:
                yield send
            finally:
                self._closed.set()
                for _ in range(threads):
                    jobs.put(None)

    def client(self) -> httpx.Client:
        """Connections with the key in their header."""
        limit = self._remote.max_parallel
        client = httpx.Client(
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=httpx.Timeout(self._remote.timeout_seconds, connect=self._connect_seconds),
            limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
        )
        return keeping_deadlines(client)

    def ask(
        self,
        client: httpx.Client,
        path: str,
        read: Callable[[bytes, float], Answer],
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send JSON, or fetch where there is no body; again where that may help.

        Args:
            path: below the base address.
            read: a 200's content and the attempt's seconds → the answer; may raise `MayPassError`.

        Raises:
            MayPassError: no attempt succeeded.
            RefusedError: the server doesn't want this request.
            ModelError: not allowed, no such model or address, or nobody answers there.
        """
        content = b"" if body is None else json.dumps(body).encode()
        method, url = "GET" if body is None else "POST", f"{self._base}/{path}"
        failed, gone_since = 0, math.inf
        for attempt in itertools.count():
            self._pace.wait()
            started = time.monotonic()
            try:
                answer = self._attempt(client, method, url, content)
                return read(answer, time.monotonic() - started)
            except MayPassError as error:
                is_gone = isinstance(error, GoneError)
                gone_since = min(gone_since, started) if is_gone else math.inf
                failed += not is_gone
                patience = RESTART_SECONDS if self._remote.max_retries else 0.0
                is_over = attempt >= self._remote.max_retries and time.monotonic() - gone_since >= patience
                if failed > self._remote.max_retries or is_over or self._closed.is_set():
                    raise type(error)(f"{error}, {attempt + 1} attempts") from error
                if is_gone:
                    self._announce(f"{error}; waiting {patience:.0f} s for the server to come back")
                elif time.monotonic() - started >= _ANNOUNCED_SECONDS:
                    self._announce(f"{error}; asking again, up to {self._remote.max_retries} times")
                self._rest(error, attempt)
        raise AssertionError("it goes on until something happens")

    def _serve(
        self,
        client: httpx.Client,
        answer: Callable[[httpx.Client, Ask], Answer],
        jobs: SimpleQueue[tuple[Ask, Future[Answer]] | None],
    ) -> None:
        """Answer asks until there are no more; what each thread does."""
        while (job := jobs.get()) is not None:
            ask, future = job
            if self._closed.is_set():
                continue
            try:
                future.set_result(answer(client, ask))
            except BaseException as error:  # it belongs to whoever waits for the answer
                future.set_exception(error)

    def _rest(self, error: MayPassError, attempt: int) -> None:
        """Wait before the next attempt; where the server asked for it, all threads do."""
        if error.wait_seconds:
            if self._pace.hold(error.wait_seconds):
                announce_pause(self._remote.owner, error.wait_seconds, str(error))
            return
        longest = _LONGEST_LOOK_SECONDS if isinstance(error, GoneError) else LONGEST_BACKOFF_SECONDS
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(attempt, 16), longest)
        self._closed.wait(pause * random.uniform(0.5, 1.0))

    def _announce(self, what: str) -> None:
        """Say why it takes long; once until the server answers again."""
        with self._lock:
            is_known, self._awaited = self._awaited, True
        if not is_known:
            say(f"{self._remote.owner}: {what}", err=True)

    @property
    def _connect_seconds(self) -> float:
        return min(_CONNECT_SECONDS, self._remote.timeout_seconds)

    def _look(self) -> None:
        """In a silent wait: see whether the server still takes connections, of which one look a while is enough.

        One that is told to end answers nobody, and waits until its callers are gone: each would wait for the other.

        Raises:
            GoneError: it doesn't.
        """
        with self._lock:
            if time.monotonic() - self._looked < WATCH_SECONDS / 2:
                return
            try:
                httpx.get(f"{self._base}/models", timeout=self._connect_seconds)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                raise GoneError(f"no answer, and can't connect any more ({one_line(error)})") from error
            except httpx.HTTPError:  # busy
                pass
            self._looked = time.monotonic()

    def _attempt(self, client: httpx.Client, method: str, url: str, body: bytes) -> bytes:
        """One attempt; a 200's content."""
        seconds, begun = self._remote.timeout_seconds, False
        try:
            with deadline(seconds, self._look), client.stream(method, url, content=body) as response:
                self._reached = begun = True
                content = content_of(response)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if not self._reached:
                raise ModelError(
                    f"{self._remote.owner}: nobody answers at {self._remote.base_url} ({one_line(error)}); "
                    f"{'does it speak https' if 'SSL' in str(error) else 'is the server running'}, and is "
                    f"{self._remote.base_url_setting} right?"
                ) from error
            raise GoneError(f"can't connect ({one_line(error)})") from error
        except httpx.TimeoutException as error:
            raise MayPassError(f"no {'whole ' if begun else ''}answer within {seconds:g} seconds") from error
        except TooLargeError as error:
            raise ModelError(f"{self._remote.owner}: {error}; is {self._remote.base_url_setting} right?") from error
        except httpx.HTTPError as error:
            kind = MayPassError if begun else GoneError
            raise kind(f"connection broken ({one_line(error)})") from error
        self._judge(url, response, content)
        self._awaited = False
        return content

    def _judge(self, url: str, response: httpx.Response, content: bytes) -> None:
        status = response.status_code
        message = f"HTTP {status}: {message_of(content)}"
        if status in _MAY_PASS or status >= 500:
            kind = GoneError if status in _GONE else MayPassError
            raise kind(message, asked_pause(response.headers))
        if status in _ONE_REQUEST:
            raise RefusedError(message)
        if status != 200:
            advice = self._advice(status, masked(response.headers.get("Location", ""))[:200])
            raise StatusError(f"{self._remote.owner}: {url} says {message}; {advice}", status)

    def _advice(self, status: int, elsewhere: str) -> str:
        remote = self._remote
        if status in (401, 403):
            if remote.api_key_env:
                return f"is the key in ${remote.api_key_env} right?"
            return f"name the variable with its key in {remote.api_key_setting}"
        if elsewhere:
            return f"it leads to {elsewhere}, where no key is sent: {remote.base_url_setting} has to be put right"
        if status == 404:
            return f"check {remote.base_url_setting} (it ends in /v1 as a rule) and model {remote.model!r}"
        return "the address or the account has to be put right first; the same command goes on from there"


def json_object(content: bytes) -> dict[str, Any]:
    """Read an answer that must be a JSON object; its texts are without keys, which some servers repeat.

    Raises:
        MayPassError: it is none; half an answer, perhaps.
    """
    try:
        answer = parse_json(content, halves=True)
    except ValueError as error:
        raise MayPassError(f"the answer is no JSON ({one_line(error, 100)}): {message_of(content)}") from error
    if not isinstance(answer, dict):
        raise MayPassError(f"the answer is no JSON object: {message_of(content)}")
    text = content.decode("utf-8", "replace")
    return answer if masked(text) == text else cast(dict[str, Any], _without_keys(answer))


def message_of(content: bytes) -> str:
    """A server's own words in one line, without keys."""
    text = content[:_LONGEST_MESSAGE].decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        said = parse_json(content[:_LONGEST_MESSAGE])
        error = said.get("error", said) if isinstance(said, dict) else said
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    return " ".join(masked(text).split())[:300] or "no message"


def _without_keys(value: object) -> object:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list):
        return [_without_keys(item) for item in value]
    return {masked(name): _without_keys(item) for name, item in value.items()} if isinstance(value, dict) else value


def _in_order(asks: Iterable[Ask], send: Callable[[Ask], Future[Answer]], ahead: int) -> Generator[Answer, None, None]:
    """Hand out asks, at most `ahead` of the oldest answer that is still to come."""
    waiting: deque[Future[Answer]] = deque()
    for ask in asks:
        waiting.append(send(ask))
        while waiting and (len(waiting) >= ahead or waiting[0].done()):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _Pace:
    """When the next request may start: so many a minute, evenly, and not while the server asks for a pause."""

    def __init__(self, requests_per_minute: float | None, closed: threading.Event) -> None:
        self._spacing = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._closed, self._lock, self._next = closed, threading.Lock(), 0.0

    def wait(self) -> None:
        """Sleep until this thread's turn, or the end of the run."""
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._spacing
        self._closed.wait(start - time.monotonic())

    def hold(self, seconds: float) -> bool:
        """Let no request start for so many seconds; whether that is news."""
        with self._lock:
            before, self._next = self._next, max(self._next, time.monotonic() + seconds)
            return self._next > before + 1.0


def _read_key(remote: Remote) -> str | None:
    """The key, from the environment. No error shows it."""
    if remote.api_key_env is None:
        return None
    key = os.environ.get(remote.api_key_env, "").strip()
    if not key:
        raise OptionError(
            f"{remote.owner}: the environment variable {remote.api_key_env} is not set; export the key under that name"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise OptionError(
            f"{remote.owner}: what {remote.api_key_env} holds can't be a key: it has blanks or signs that a header "
            "can't carry"
        )
    keep_secret(key)
    return key
