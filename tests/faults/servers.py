"""Servers that answer late, too much, or what nobody can use; and that repeat the key."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable

from tests.faults.fault import Command, Fault, World

#: Not to be seen in anything that is printed or written.
KEY = "sk-Fault/0123456789+abc"
_SPELLED = (KEY, json.dumps(KEY)[1:-1], "".join(f"\\u{ord(sign):04x}" for sign in KEY), KEY.replace("/", "\\/"))

#: Talks to one client over its socket, after the request has come.
Talk = Callable[[socket.socket, int], None]


def listen(talk: Talk) -> int:
    """A server on loopback for as long as this process lives; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def meet(client: socket.socket) -> None:
        # The client hangs up, as it should.
        with client, contextlib.suppress(OSError):
            talk(client, _asked(client))

    def serve() -> None:
        while True:
            threading.Thread(target=meet, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def _asked(client: socket.socket) -> int:
    """Read a request; how many texts it has."""
    content = b""
    while b"\r\n\r\n" not in content:
        if not (more := client.recv(1 << 16)) or more.startswith(b"\x16"):  # no HTTP: a greeting of TLS
            return 0
        content += more
    head, _, body = content.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int((lengths or [b"0"])[0]):
        body += client.recv(1 << 16)
    try:
        return len(json.loads(body)["input"])
    except (ValueError, KeyError, TypeError):
        return 0


def _says(body: bytes, status: str = "200 OK", *headers: str) -> Talk:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""])
    return lambda client, _: client.sendall(head.encode() + body)


def _embeds(change: Callable[[list[dict[str, object]]], object]) -> Talk:
    """A right answer, changed: vectors of width 4 for each text."""

    def talk(client: socket.socket, inputs: int) -> None:
        rows: list[dict[str, object]] = [{"index": place, "embedding": [1.0, place, 2, 3]} for place in range(inputs)]
        _says(json.dumps(change(rows)).encode())(client, inputs)

    return talk


def _rows(change: Callable[[list[dict[str, object]]], object]) -> Talk:
    def changed(rows: list[dict[str, object]]) -> object:
        change(rows)
        return {"data": rows}

    return _embeds(changed)


def drips(start: bytes, piece: bytes) -> Talk:
    def talk(client: socket.socket, _: int) -> None:
        client.sendall(start)
        for _ in range(600):
            time.sleep(0.1)
            client.sendall(piece)

    return talk


def bomb(megabytes: int) -> Talk:
    """So many of zeros, packed."""

    def talk(client: socket.socket, inputs: int) -> None:
        packer = zlib.compressobj(wbits=31)
        packed = b"".join(packer.compress(bytes(1_000_000)) for _ in range(megabytes)) + packer.flush()
        _says(packed, "200 OK", _JSON, "Content-Encoding: gzip")(client, inputs)

    return talk


def _server(name: str, talk: Talk, *says: str, scheme: str = "http", seconds: float = 20) -> Fault:
    def make(world: World) -> list[Command]:
        address = f"base_url={scheme}://127.0.0.1:{listen(talk)}/v1"
        given = [address, f"timeout={seconds}", "retries=0", "dimensions=4", "api_key_env=FAULT_KEY"]
        words = [word for value in given for word in ("--model-arg", value)]
        return [("mmeb-eval", "run", "--model", "openai:m", *words, "--tasks", "SUN397", "--limit", "1")]

    return Fault("servers", name, make, says=says, environment={"FAULT_KEY": KEY}, holds=_hides_the_key)


def _hides_the_key(world: World) -> None:
    for path in world.folder.rglob("*"):
        if path.is_file() and "cache" not in path.relative_to(world.folder).parts[:1]:
            content = path.read_bytes()
            assert not [spelled for spelled in _SPELLED if spelled.encode() in content], path


def _echoes(name: str, talk: Talk) -> Fault:
    """A server that repeats the key somewhere."""
    return _server(f"the key as {name}", talk, r"^(?![\s\S]*(sk-Fault|\\u0073\\u006b))[\s\S]*\[key\]")


_JSON = "Content-Type: application/json"
_TIME = r"no (whole )?answer within 0.3 seconds.*longer timeout"

FAULTS = (
    _server("a header that drips", drips(b"HTTP/1.1 200 OK\r\nX-Wait: ", b"."), _TIME, seconds=0.3),
    _server("headers that never end", drips(b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"), r"openai:m: .*(within|broken)", seconds=0.3),
    _server("a body that drips", drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "), _TIME, seconds=0.3),
    _server("a chunked body that drips", drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), _TIME, seconds=0.3),
    _server("an answer to nothing", drips(b"", b""), _TIME, seconds=0.3),
    dataclasses.replace(_server("a bomb of gzip", bomb(300), r"more than 256.*base_url"), slow=True),
    _server("deep JSON", _says(b"[" * 200_000), r"no JSON \(.*deep"),
    _server("deep JSON in an answer", _says(b'{"data": ' + b"[" * 900 + b"]" * 900 + b"}"), r"no JSON \(.*deep"),
    _server("a number of 5,000 digits", _says(b'{"data": [{"index": ' + b"1" * 5000 + b"}]}"), r"no JSON \(.*digits"),
    _server("a value of 400 digits", _rows(lambda rows: rows[0].update(embedding=[10**400, 1, 2, 3])), r"openai:m"),
    _server("a page in HTML", _says(b"<html>Sign in</html>", "200 OK", "Content-Type: text/html"), r"no JSON.*Sign in"),
    _server("an error under status 200", _says(b'{"error": {"message": "quota"}}'), r"no data: quota"),
    _server("nothing at all under status 200", _says(b""), r"no JSON"),
    _server("bytes that aren't UTF-8", _says(b'{"error": "\xff\xfe"}', "500 Internal Server Error"), r"HTTP 500"),
    _server("a redirect to another host", _says(b"", "302 Found", "Location: http://elsewhere/"), r"leads to http://elsewhere/.*base_url"),
    _server("a connection that is reset", lambda client, _: client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), r"connection broken"),
    _server("no HTTP", lambda client, _: client.sendall(b"220 mail.example ESMTP\r\n"), r"connection broken"),
    _server("https where plain HTTP is spoken", _says(b"{}"), r"does it speak https", scheme="https"),
    _server("too few vectors", _rows(list.pop), r"returned \d+ vectors for"),
    _server("one index twice", _rows(lambda rows: rows[-1].update(index=0)), r"indices"),
    _server("an index that is a list", _rows(lambda rows: rows[-1].update(index=[0])), r"without index and embedding"),
    _server("rows that are no objects", _embeds(lambda rows: {"data": [1 for _ in rows]}), r"without index and embedding"),
    _server("a vector of another width", _rows(lambda rows: rows[-1].update(embedding=[1, 2])), r"width 2.*expected 4"),
    _server("a vector with null", _rows(lambda rows: rows[-1].update(embedding=[None, 1, 2, 3])), r"no vector for item"),
    _server("a vector of words", _rows(lambda rows: rows[-1].update(embedding=["1", "2", "3", "4"])), r"no vector for item"),
    _server("a vector of NaN", _rows(lambda rows: rows[-1].update(embedding=[float("nan"), 1, 2, 3])), r"item '"),
    _server("a vector of zeros", _rows(lambda rows: rows[-1].update(embedding=[0, 0, 0, 0])), r"item '"),
    _server("escape sequences", _says(b'{"error": "\\u001b]0;x\\u0007\xe2\x80\xae"}', "401 Unauthorized"), r"401.*u001b\]0;x.*FAULT_KEY"),
    _echoes("a message", _says(json.dumps({"error": {"message": f"bad key {KEY}"}}).encode(), "401 Unauthorized")),
    _echoes("a message in escapes", _says(f'{{"error": "{_SPELLED[2]}"}}'.encode(), "401 Unauthorized")),
    _echoes("plain text", _says(f"no entry: {KEY}".encode(), "403 Forbidden")),
    _echoes("an index", _rows(lambda rows: rows[-1].update(index=KEY))),
    _echoes("a value", _rows(lambda rows: rows[-1].update(embedding=[KEY, 1, 2, 3]))),
    _echoes("a header", _says(b"{}", "302 Found", f"Location: http://elsewhere/?key={KEY}")),
    _echoes("half an answer", _says(f'{{"data": "{KEY}'.encode())),
)  # fmt: skip
