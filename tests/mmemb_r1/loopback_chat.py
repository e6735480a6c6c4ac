"""A small real chat server on loopback, OpenAI-compatible, that misbehaves as told."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-Loopback0123456789"


@dataclass(frozen=True)
class Say:
    """A chat completion. `thoughts` go into the field that reasoning servers use."""

    text: str | None
    thoughts: str | None = None
    finish: str | None = "stop"
    tokens: int | None = 7
    field: str = "reasoning_content"
    seconds: float = 0.0


@dataclass(frozen=True)
class Fail:
    status: int
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """A 200 with these bytes."""

    body: bytes


@dataclass(frozen=True)
class Break:
    """Half an answer, then the connection is gone."""


@dataclass(frozen=True)
class Trickle:
    """Blanks, one after the other, that keep the line open for so long."""

    seconds: float


Reply = Say | Fail | Raw | Break | Trickle


@dataclass(frozen=True)
class Asked:
    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    path: str = "chat/completions"  # below /v1/

    @property
    def text(self) -> str:
        """The words of the user's turn."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else str(content[-1]["text"])

    @property
    def images(self) -> list[str]:
        content = self.body["messages"][-1]["content"]
        parts = [] if isinstance(content, str) else content
        return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


@dataclass
class Chat:
    """The server's state: what it says, and what it was asked."""

    reply: Callable[[Asked], Reply]
    script: list[Reply] = field(default_factory=list)  # first; then `reply`
    paths: frozenset[str] = frozenset({"chat/completions"})
    needs_key: bool = False
    asked: list[Asked] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            if self.needs_key and asked.headers.get("authorization") != f"Bearer {KEY}":
                return Fail(401, f"bad key: {asked.headers.get('authorization')}")
            if self.script:
                return self.script.pop(0)
        return self.reply(asked)  # many at once


def echo(asked: Asked) -> Say:
    """Words that depend on the words asked and the seed alone."""
    named = hashlib.sha256(f"{asked.text}{asked.images}{asked.body['seed']}".encode()).hexdigest()
    return Say(f"thinking of {named[:12]}")


@contextmanager
def serve(chat: Chat, port: int = 0) -> Iterator[str]:
    """Serve on a port, by default a free one; gives the base URL."""

    class Handler(_Handler):
        pass

    Handler.chat = chat
    server = _Server(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that give up are part of it
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for each other, 40 ms a request
    chat: Chat

    def log_message(self, format: str, *arguments: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        content = self.rfile.read(length)
        if not content or len(content) < length:  # a client that was ended while it sent
            self.close_connection = True
            return None
        return self._answer(json.loads(content))

    def _answer(self, body: dict[str, Any]) -> None:
        chat = self.chat
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = self.path.removeprefix("/v1/")
        if path not in chat.paths:
            return self._send(404, {}, b'{"error": {"message": "no such path"}}')
        with chat.lock:
            chat.under_way += 1
            chat.most_under_way = max(chat.most_under_way, chat.under_way)
        try:
            self._reply(chat.answer(Asked(body, headers, time.monotonic(), path)))
        finally:
            with chat.lock:
                chat.under_way -= 1
        return None

    def _reply(self, reply: Reply) -> None:
        match reply:
            case Say():
                time.sleep(reply.seconds)
                self._send(200, {}, json.dumps(_completion(reply)).encode())
            case Fail():
                self._send(reply.status, reply.headers, json.dumps({"error": {"message": reply.message}}).encode())
            case Raw():
                self._send(200, {}, reply.body)
            case Break():
                self._head(200, {}, 1000)
                self.wfile.write(b'{"choices": [{"mess')
                self.wfile.flush()
                self.close_connection = True
            case Trickle():
                self._head(200, {}, 1000)
                until = time.monotonic() + reply.seconds
                while time.monotonic() < until:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.02)
                self.close_connection = True

    def _head(self, status: int, headers: Mapping[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._head(status, headers, len(body))
        self.wfile.write(body)


def _completion(reply: Say) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text}
    if reply.thoughts is not None:
        message[reply.field] = reply.thoughts
    usage = {} if reply.tokens is None else {"usage": {"completion_tokens": reply.tokens}}
    return {"choices": [{"index": 0, "message": message, "finish_reason": reply.finish}], **usage}
