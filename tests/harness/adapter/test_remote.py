"""Servers that go and come back, on loopback."""

from __future__ import annotations

import threading
import time

import pytest

from mmeb_harness.adapter import remote
from mmeb_harness.adapter.remote import Endpoint, GoneError, MayPassError, Remote
from mmeb_harness.core import http
from tests.mmemb_r1.loopback_chat import Asked, Chat, Fail, Raw, Reply, serve
from tests.patience import PATIENCE

ANSWER = Raw(b'{"says": "yes"}')


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.02)


def endpoint(url: str, max_retries: int = 1, timeout: float = PATIENCE) -> Endpoint:
    return Endpoint(Remote("server", url, "m", None, timeout, max_retries, 1))


def ask(server: Endpoint) -> bytes:
    with server.client() as client:
        return server.ask(client, "chat/completions", lambda content, _: content, {})


def test_a_server_that_starts_again_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Chat(lambda asked: ANSWER)) as url:
        server = endpoint(url)
        ask(server)
    answers: list[bytes] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(server)))
    waiting.start()
    until = time.monotonic() + PATIENCE
    while not server._awaited and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)  # more attempts than two
    behind = Chat(lambda asked: ANSWER, script=[Fail(502), Fail(503), Fail(504)])
    with serve(behind, port=int(url.split(":")[2].split("/")[0])):
        waiting.join(PATIENCE)
    assert answers == [ANSWER.body]
    said = capsys.readouterr().err
    assert said.startswith("server: can't connect (")
    assert said.endswith("); waiting 180 s for the server to come back\n")
    assert said.count("\n") == 1


def test_one_that_stays_away_isnt_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RESTART_SECONDS", 0.2)
    with serve(Chat(lambda asked: ANSWER)) as url:
        server, impatient = endpoint(url), endpoint(url, max_retries=0)
        ask(server)
        ask(impatient)
    with pytest.raises(MayPassError, match=r"can't connect \(.*\), \d+ attempts"):
        ask(server)
    with pytest.raises(MayPassError, match=r"can't connect \(.*\), 1 attempts"):
        ask(impatient)


def test_a_server_that_ends_and_we_dont_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no new connections, and keeps ours without a word."""
    for module in (http, remote):
        monkeypatch.setattr(module, "WATCH_SECONDS", 0.1)
    asked_for, ended = threading.Event(), threading.Event()

    def reply(asked: Asked) -> Reply:
        asked_for.set()
        ended.wait(PATIENCE)
        return ANSWER

    failures: list[Exception] = []

    def client() -> None:
        try:
            ask(server)
        except MayPassError as error:
            failures.append(error)

    with serve(Chat(reply)) as url:
        server, waiting = endpoint(url, max_retries=0), threading.Thread(target=client)
        waiting.start()
        assert asked_for.wait(PATIENCE)
        time.sleep(0.3)
        assert waiting.is_alive()  # a silent server that takes connections is only slow
    waiting.join(PATIENCE)
    ended.set()
    assert [type(error) for error in failures] == [GoneError]
    assert str(failures[0]).startswith("no answer, and can't connect any more (")


def test_a_long_failure_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(remote, "_ANNOUNCED_SECONDS", 0.0)
    with serve(Chat(lambda asked: ANSWER, script=[Fail(500), Fail(500)])) as url:
        ask(endpoint(url, max_retries=2))
    assert capsys.readouterr().err == "server: HTTP 500: no; asking again, up to 2 times\n"
