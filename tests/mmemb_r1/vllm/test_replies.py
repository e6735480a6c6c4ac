"""Whatever a server answers is taken as it is or refused in one line: every place of a reply, every kind of value."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from mmeb_harness import ModelError
from mmeb_harness.adapter.remote import Endpoint
from mmemb_r1_model.vllm.client import Client, Order, Question, Reader
from mmemb_r1_model.vllm.request import ids_of
from mmemb_r1_model.vllm.rollouts import _written
from mmemb_r1_model.vllm.server import RATIONALES, Server
from tests.mmemb_r1.loopback_chat import Asked, Chat, Raw, serve

PROMPT = [5, 6, 7]
MODELS = {"object": "list", "data": [{"id": "base", "parent": None, "max_model_len": 400}]}
TOKENS = [{"token": "", "logprob": -0.5, "top_logprobs": []} for _ in range(2)]
CHOICE = {"index": 0, "finish_reason": "stop", "logprobs": {"content": TOKENS}, "token_ids": [3, 4]}
REPLY = {"choices": [CHOICE], "usage": {"prompt_tokens": 3}, "prompt_token_ids": PROMPT}
OTHERS = (None, "x", -1, 0.5, 2**40, True, [], {}, [None], {"id": 1}, float("nan"), 10**400)


class Letters:
    """A tokenizer that knows no special token."""

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))

    def spelled(self, text: str) -> None:
        return None


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths to every value in a reply, its root too."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def replaced(value: Any, path: tuple[str | int, ...], other: Any) -> Any:
    if not path:
        return other
    changed = copy.deepcopy(value)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = other
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("read", [ids_of, _written])
def test_every_value_of_a_reply_may_be_anything(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"models": json.dumps(MODELS), "chat/completions": json.dumps(REPLY)}

    def reply(asked: Asked) -> Raw:
        return Raw(answers[asked.path].encode())

    order = Order(Question("first", {"messages": []}), PROMPT, 8)
    reader = Reader(Letters(), (), (4,), "checkpoint")  # type: ignore[arg-type]
    said: list[str] = []
    taken = 0
    with serve(Chat(reply, paths=frozenset(answers))) as url, httpx.Client() as connections:
        # One for all: to make one takes longer than a hundred answers.
        monkeypatch.setattr(Endpoint, "client", lambda self: contextlib.nullcontext(connections))
        server = Server(url, None, max_retries=0, max_parallel=1)
        wanted = Client(server, RATIONALES, reader, read).answers([order])
        for path, content in (("models", MODELS), ("chat/completions", REPLY)):
            whole = answers[path]
            spoilt = [json.dumps(replaced(content, place, other)) for place in places(content) for other in OTHERS]
            for text in [*spoilt, *(whole[:end] for end in range(0, len(whole), 29))]:
                answers[path] = text
                client = Client(server, RATIONALES, reader, read)
                try:
                    client.served  # noqa: B018
                    assert len(client.answers([order])[0]) == len(wanted[0])
                    taken += 1
                except ModelError as error:
                    said.append(str(error))
            answers[path] = whole
    assert [line for line in said if "\n" in line or not line.startswith("rationales: ")] == []
    assert len(said) > 150
    assert taken > 50
