"""A vLLM server that writes rationales for an evaluation: found, asked, and what it says read. No torch.

It must serve the checkpoint that reads the vectors. What shows otherwise stops the run: its name isn't listed, it saw
other tokens than we do, it writes what these weights would not (see `served_rationales`). What doesn't show: weights
that differ little, another precision, pictures resized by other code.

Greedy decoding on a server depends, in its last digits, on what else is under way there. Where two tokens are nearly
equally likely, a rationale may come out differently another time; vLLM's VLLM_BATCH_INVARIANT=1 is against that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import httpx2 as httpx

from mmeb_harness.adapter.addresses import check_address
from mmeb_harness.adapter.remote import Endpoint, MayPassError, RefusedError, Remote, json_object
from mmemb_r1_model.disk.errors import ModelError, OptionError
from mmemb_r1_model.model.prompt import PromptTokenizer
from mmemb_r1_model.vllm.request import (
    CHAT_PATH,
    CLOSING_TOKENS,
    Json,
    UnfitError,
    choices_of,
    ids_of,
    other_prompt,
    sampling,
)

_OWNER = "rationales"
_ADDRESS, _NAME, _KEY = "--model-arg rationales", "--model-arg rationales_model", "--model-arg rationales_key_env"
#: For one attempt at one rationale; a busy server lets requests wait.
_TIMEOUT_SECONDS = 600.0
_RETRIES = 5


@dataclass(frozen=True)
class RationaleServer:
    """Where rationales are written.

    Attributes:
        base_url: up to and with /v1.
        model: the server's name for the checkpoint; `None`: the only one it has.
        api_key_env: name of the environment variable with the key; the key itself is stored nowhere.
        max_parallel: requests under way at once.
    """

    base_url: str
    model: str | None = None
    api_key_env: str | None = None
    max_parallel: int = 64


def check_server(server: RationaleServer) -> None:
    """Refuse settings that can't be.

    Raises:
        OptionError: names the setting and the way out.
    """
    check_address(server.base_url, server.api_key_env, "", (_ADDRESS, _KEY))
    if server.max_parallel < 1:
        raise OptionError(f"--model-arg rationales_parallel must be at least 1, not {server.max_parallel}")


@dataclass(frozen=True)
class Question:
    """What a server must know of an item; made where its media are read, as it crosses process borders.

    Attributes:
        item_id: for messages.
        chat: see `vllm.chat`.
    """

    item_id: str
    chat: Json


@dataclass(frozen=True)
class Order:
    """A rationale that is wanted.

    Attributes:
        prompt: as our own reader has it, <think> included.
        max_new_tokens: of the rationale.
    """

    question: Question
    prompt: Sequence[int]
    max_new_tokens: int

    @property
    def longest(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return len(self.prompt) + self.max_new_tokens + CLOSING_TOKENS


Send = Callable[[Order], "Future[tuple[int, ...]]"]


@dataclass(frozen=True)
class _Served:
    """A model of the server's list.

    Attributes:
        context: tokens of prompt and answer together; `None`: it doesn't say.
    """

    name: str
    context: int | None


class RationaleClient:
    """Asks one server for rationales, many at once."""

    def __init__(
        self,
        server: RationaleServer,
        tokenizer: PromptTokenizer,
        banned: Sequence[int],
        ends: Sequence[int],
        checkpoint: str,
    ) -> None:
        """Set up; nothing is asked yet.

        Args:
            banned: tokens that can't be written.
            ends: tokens that end an answer.
            checkpoint: its name, for messages.

        Raises:
            OptionError: the key isn't there.
        """
        self._tokenizer, self._checkpoint = tokenizer, checkpoint
        self._banned, self._ends, self._wanted = banned, ends, server.model
        self._endpoint = Endpoint(
            Remote(
                owner=_OWNER,
                base_url=server.base_url,
                model=server.model or checkpoint,
                api_key_env=server.api_key_env,
                timeout_seconds=_TIMEOUT_SECONDS,
                max_retries=_RETRIES,
                max_parallel=server.max_parallel,
                base_url_setting=_ADDRESS,
                api_key_setting=_KEY,
            )
        )
        self._found: _Served | None = None

    @property
    def served(self) -> _Served:
        """The model that is asked; found by the first call.

        Raises:
            ModelError: nobody answers, or the server doesn't have it.
        """
        if self._found is None:
            with self._endpoint.client() as client:
                self._found = self._find(client)
        return self._found

    @contextlib.contextmanager
    def sending(self) -> Iterator[Send]:
        """Send orders without waiting; gives a function that promises the ids behind <think>, up to an end.

        What a promise may raise instead:
            ModelError: the server is gone, refuses the request, saw another prompt, or answers without what is needed.
        """
        served = self.served
        with self._endpoint.sending(self._write) as send:

            def checked(order: Order) -> Future[tuple[int, ...]]:
                _check_length(order, served)
                return send(order)

            yield checked

    def _find(self, client: httpx.Client) -> _Served:
        try:
            reply = self._endpoint.get(client, "models", lambda content, _: json_object(content))
        except (MayPassError, RefusedError) as error:
            raise ModelError(f"{_OWNER}: the server can't say which models it has: {error}; {_AGAIN}") from error
        found = reply.get("data")
        if not isinstance(found, list) or not all(isinstance(one, dict) and "id" in one for one in found):
            raise ModelError(f"{_OWNER}: the server lists no models; {_ADDRESS} must be a vLLM server's address")
        # An adapter has the model it is for as its parent.
        wanted = [one for one in found if (one["id"] == self._wanted if self._wanted else not one.get("parent"))]
        if len(wanted) != 1:
            raise ModelError(self._unclear([str(one["id"]) for one in found]))
        context = wanted[0].get("max_model_len")
        return _Served(str(wanted[0]["id"]), context if isinstance(context, int) else None)

    def _unclear(self, names: Sequence[str]) -> str:
        listed = ", ".join(map(repr, names)) or "none"
        if self._wanted:
            return (
                f"{_OWNER}: the server has no model {self._wanted!r} (it has {listed}): give the right {_NAME}, or "
                f"serve {self._checkpoint} there"
            )
        return f"{_OWNER}: which of the server's models is {self._checkpoint}? Name it by {_NAME}; it has {listed}"

    def _write(self, client: httpx.Client, order: Order) -> tuple[int, ...]:
        """A thread's work: one rationale."""
        try:
            reply = self._endpoint.post(client, CHAT_PATH, self._body(order), lambda content, _: json_object(content))
            self._check_prompt(order, reply)
            (choice,) = choices_of(reply, 1, order.question.item_id)
            return ids_of(choice)
        except MayPassError as error:
            raise ModelError(f"{_OWNER}: {error}, for item {order.question.item_id!r}; {_AGAIN}") from error
        except RefusedError as error:
            raise ModelError(
                f"{_OWNER}: the server refuses item {order.question.item_id!r}: {error}. It must serve this checkpoint "
                f"({self._checkpoint}) with --max-model-len of at least {order.longest}, and understand these settings "
                "of vLLM"
            ) from error
        except UnfitError as error:
            raise ModelError(f"{_OWNER}: the server {error}") from error

    def _body(self, order: Order) -> Json:
        return {
            "model": self.served.name,
            "n": 1,
            **sampling(0.0, order.max_new_tokens, self._banned, self._ends),
            **order.question.chat,
        }

    def _check_prompt(self, order: Order, reply: Json) -> None:
        found = other_prompt(reply, order.prompt, self._tokenizer.decode)
        if found is None:
            return
        raise ModelError(
            f"{_OWNER}: the server saw another prompt of item {order.question.item_id!r}: {found}. It must serve this "
            f"checkpoint ({self._checkpoint}) with its own chat template, one that continues an assistant's turn as it "
            "stands, and resize pictures by min_pixels and max_pixels of mmemb_r1.json. A text that begins with a line "
            f"break or spells a special token also does it: run its task without {_ADDRESS}"
        )


_AGAIN = "start it again and repeat the command: it goes on from what is stored, also with another address"


def _check_length(order: Order, served: _Served) -> None:
    if served.context is not None and order.longest > served.context:
        raise ModelError(
            f"{_OWNER}: item {order.question.item_id!r} needs {order.longest} tokens with its rationale, and the "
            f"server takes {served.context}: start vLLM with --max-model-len of at least {order.longest}, or give a "
            "smaller --model-arg max_new_tokens"
        )
