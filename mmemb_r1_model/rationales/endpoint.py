"""Workers behind an OpenAI-compatible HTTP endpoint: vLLM, a provider.

What goes wrong with one request is told apart from what goes wrong with the worker:

    408 409 425 429 5xx, timeouts, broken connections, half an answer   tried again, then a failed row
    400 413 415 422 … (this one input isn't wanted)                     a failed row at once
    401 402 403 404 …, redirects, nobody at the address                 ends the run

The key is read from the environment when the worker is opened and goes nowhere but into the request's header.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx2 as httpx

from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.errors import DataError, ModelError, OptionError
from mmemb_r1_model.rationales.config import WorkerConfig
from mmemb_r1_model.rationales.rows import ERROR
from mmemb_r1_model.rationales.text import clean
from mmemb_r1_model.rationales.workers import Answer, Ask, WorkerPrompt, found_rationale, turn_text

#: Seconds before the second attempt; then they double.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
#: A server that limits requests says how long to wait; no longer than this is waited.
LONGEST_PAUSE_SECONDS = 300.0
#: Asks taken ahead of the oldest one without an answer, for each thread: one slow request doesn't stop the others.
ASKS_AHEAD = 4

_MAY_PASS = {408, 409, 425, 429}
_ONE_INPUT = {400, 411, 413, 414, 415, 416, 422, 431, 451}
#: What servers take; other formats are sent as PNG.
_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}

_Job = tuple[Ask, "Future[Answer]"]


class _MayPassError(Exception):
    """An attempt failed, and another one may not."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class _RefusedError(Exception):
    """The server doesn't want this one input."""


class EndpointWorker:
    """Asks a chat endpoint, several requests at once; answers come in the order of the asks."""

    def __init__(self, config: WorkerConfig, prompt: WorkerPrompt) -> None:
        self._config, self._prompt = config, prompt
        self._key = _read_key(config)
        self._url = f"{config.base_url.rstrip('/')}/chat/completions"
        self._closed = threading.Event()
        self._pace = _Pace(config.requests_per_minute, self._closed)
        self._reached = False

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """Ask with up to `max_parallel` requests under way.

        Raises:
            ModelError: not allowed, no such model or address, or nobody answers there.
            DataError: a picture that can't be read.
        """
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed.clear()
        with self._client() as client:
            for _ in range(self._config.max_parallel):
                # Daemons: whoever ends the run needn't wait for answers that nobody will read.
                threading.Thread(target=self._serve, args=(client, jobs), daemon=True).start()
            try:
                yield from _in_order(asks, jobs, ahead=self._config.max_parallel * ASKS_AHEAD)
            finally:
                self._closed.set()
                for _ in range(self._config.max_parallel):
                    jobs.put(None)

    def _client(self) -> httpx.Client:
        limit = self._config.max_parallel
        return httpx.Client(
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=self._config.timeout_seconds,
            limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
        )

    def _serve(self, client: httpx.Client, jobs: SimpleQueue[_Job | None]) -> None:
        """A thread's life."""
        while (job := jobs.get()) is not None:
            ask, future = job
            if self._closed.is_set():
                continue
            try:
                future.set_result(self._answer(client, ask))
            except BaseException as error:  # it belongs to whoever waits for the answer
                future.set_exception(error)

    def _answer(self, client: httpx.Client, ask: Ask) -> Answer:
        body = json.dumps(self._body(ask)).encode()
        try:
            return self._patiently(client, body)
        except (_RefusedError, _MayPassError) as error:
            return Answer("", None, None, f"{ERROR}{error}")

    def _patiently(self, client: httpx.Client, body: bytes) -> Answer:
        """Try, and again where that may help."""
        attempts = self._config.max_retries + 1
        for attempt in range(attempts):
            self._pace.wait()
            started = time.monotonic()
            try:
                reply = self._post(client, body)
                return self._read(reply, time.monotonic() - started)
            except _MayPassError as error:
                if attempt + 1 == attempts or self._closed.is_set():
                    raise _MayPassError(f"{error}, {attempts} attempts") from error
                self._rest(error.wait_seconds, attempt)
        raise AssertionError("there is at least one attempt")

    def _rest(self, asked_seconds: float, attempt: int) -> None:
        """Wait before the next attempt; where the server asked for it, all threads do."""
        if asked_seconds:
            self._pace.hold(asked_seconds)
            return
        pause = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_BACKOFF_SECONDS)
        self._closed.wait(pause * random.uniform(0.5, 1.0))

    def _post(self, client: httpx.Client, body: bytes) -> dict[str, Any]:
        """One attempt."""
        seconds = self._config.timeout_seconds
        deadline = time.monotonic() + seconds
        try:
            with client.stream(
                "POST", self._url, content=body, headers={"Content-Type": "application/json"}
            ) as response:
                self._reached = True
                content = bytearray()
                for chunk in response.iter_bytes():
                    content += chunk
                    # Some servers send blanks to keep the line open: the client's own limit is for one read.
                    if time.monotonic() > deadline:
                        raise _MayPassError(f"no whole answer within {seconds:g} seconds")
        except httpx.TimeoutException as error:
            raise _MayPassError(f"no answer within {seconds:g} seconds") from error
        except httpx.ConnectError as error:
            if not self._reached:
                raise ModelError(
                    f"worker {self._config.name!r}: nobody answers at {self._config.base_url} ({_line(error)}); "
                    "is the server running, and base_url right?"
                ) from error
            raise _MayPassError(f"can't connect ({_line(error)})") from error
        except httpx.HTTPError as error:
            raise _MayPassError(f"connection broken ({_line(error)})") from error
        return self._judged(response, bytes(content))

    def _judged(self, response: httpx.Response, content: bytes) -> dict[str, Any]:
        """The answer's JSON, or what is wrong with it."""
        status = response.status_code
        message = f"HTTP {status}: {self._message(content)}"
        if status in _MAY_PASS or status >= 500:
            raise _MayPassError(message, _asked_pause(response.headers.get("Retry-After", "")))
        if status in _ONE_INPUT:
            raise _RefusedError(message)
        if status != 200:
            raise ModelError(f"worker {self._config.name!r}: {self._url} says {message}; {self._advice(status)}")
        try:
            reply = json.loads(content)
        except ValueError as error:
            raise _MayPassError("the answer is no JSON") from error
        if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
            raise _MayPassError(f"the answer has no choices: {self._message(content)}")
        return reply

    def _advice(self, status: int) -> str:
        variable = self._config.api_key_env
        if status in (401, 403):
            return f"is the key in ${variable} right?" if variable else "name the variable with its key in api_key_env"
        if status == 404:
            return f"check base_url (it ends in /v1 as a rule) and model {self._config.model!r}"
        return "the address or the account has to be put right first; the same command goes on from there"

    def _message(self, content: bytes) -> str:
        """The server's own words in one line, without the key, which some servers repeat."""
        text = content.decode("utf-8", "replace")
        with contextlib.suppress(ValueError):
            found = json.loads(text)
            error = found.get("error", found) if isinstance(found, dict) else found
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        return self._without_key(" ".join(text.split()))[:300] or "no message"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _body(self, ask: Ask) -> dict[str, Any]:
        config = self._config
        return {
            "model": config.model,
            "messages": [
                {"role": "system", "content": self._prompt.system},
                {"role": "user", "content": user_content(ask.item, self._prompt.request)},
            ],
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_new_tokens,
            "seed": ask.seed,
        }

    def _read(self, reply: dict[str, Any], seconds: float) -> Answer:
        """A 200's content.

        Raises:
            _MayPassError: not the shape of a chat completion.
        """
        tokens = _tokens(reply.get("usage"))
        if not reply["choices"]:
            return Answer("", tokens, seconds, "stop")
        try:
            choice = reply["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            content = self._without_key(_text(message.get("content")))
            # vLLM and DeepSeek's name, then OpenRouter's and later vLLM's.
            thoughts = self._without_key(_text(message.get("reasoning_content") or message.get("reasoning")))
        except (TypeError, KeyError, AttributeError) as error:
            raise _MayPassError(f"the answer is no chat completion ({type(error).__name__}: {error})") from error
        if reason not in ("stop", "length", "eos", "end_turn", None):
            return Answer(clean(content), tokens, seconds, f"{ERROR}finish reason {str(reason)[:60]!r}")
        cut = reason == "length"
        if self._config.kind == "thinking" and thoughts:
            return Answer(clean(thoughts), tokens, seconds, "length" if cut and not content else "stop")
        if self._config.kind == "thinking" and not content.strip():
            return Answer("", tokens, seconds, "stop")
        text, finish = found_rationale(self._config.kind, content, opened=False, cut=cut)
        return Answer(text, tokens, seconds, finish)


def _in_order(asks: Iterable[Ask], jobs: SimpleQueue[_Job | None], ahead: int) -> Iterator[Answer]:
    """Hand out asks, at most `ahead` of the oldest answer that is still to come."""
    waiting: deque[Future[Answer]] = deque()
    for ask in asks:
        future: Future[Answer] = Future()
        jobs.put((ask, future))
        waiting.append(future)
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

    def hold(self, seconds: float) -> None:
        """Nobody starts for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def user_content(item: Item, request: str) -> str | list[dict[str, Any]]:
    """A user's turn: pictures as data URLs, in order, then the words; a bare text if there are no pictures.

    Raises:
        DataError: a picture that can't be read.
    """
    text = turn_text(item, request)
    if not item.media:
        return text
    pictures = [{"type": "image_url", "image_url": {"url": data_url(path)}} for path in item.media]
    return [*pictures, {"type": "text", "text": text}]


def data_url(path: Path) -> str:
    """A picture as it is, base64, under its true type; converted to PNG if servers don't know the format.

    Raises:
        DataError: not there, or no picture.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            mime = _FORMATS.get(str(image.format))
            if mime is None:
                buffer = BytesIO()
                image.convert("RGB").save(buffer, "PNG")
                mime, content = "image/png", buffer.getvalue()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} can't be opened: {error}; get it again") from error
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _read_key(config: WorkerConfig) -> str | None:
    """The key, from the environment. No error shows it.

    Raises:
        OptionError: the variable isn't set, or can't be a key.
    """
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise OptionError(
            f"worker {config.name!r}: the environment variable {config.api_key_env} is not set; export the key under "
            "that name"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise OptionError(
            f"worker {config.name!r}: what {config.api_key_env} holds can't be a key: it has blanks or signs that a "
            "header can't carry"
        )
    return key


def _asked_pause(header: str) -> float:
    """Seconds of a Retry-After header, as a number or a date; 0 without one."""
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


def _tokens(usage: object) -> int | None:
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _text(content: object) -> str:
    """A message's text; some servers send it in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
